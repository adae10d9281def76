//! The HTTP server from outside, over loopback sockets: pages, formats, limits, and the stop.

#![expect(
    clippy::disallowed_methods,
    reason = "a test's peers and readers are threads of the test, not of the engine"
)]

mod program;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use program::http::api;
use program::peers::are_there;
use program::{Program, check_golden};

use tidemill::internals::dashboard::{HttpOptions, HttpServer, Starting};
use tidemill::testing::ManualClock;
use tidemill::{Config, Interval, SocketSource, StreamHandle, StreamingContext};

/// A stream after two batches of two records each, and its server on a free port.
fn served() -> (StreamingContext, HttpServer, StreamHandle) {
    let clock = ManualClock::new();
    let config = Config::new("shown").trigger(2, Interval::secs(3_600));
    let ctx = StreamingContext::with_clock(config, clock).expect("good options");
    let source = SocketSource::listen("127.0.0.1:0").named("in").rate_max(1_000_000);
    ctx.socket(source).expect("a source").foreach_batch(|_, _| Ok(()));
    let running = ctx.start().expect("started");
    let inspector = running.inspector();
    let hosts = vec!["Tide.Example".to_owned()];
    let options =
        HttpOptions { address: "127.0.0.1:0".to_owned(), next_free: false, hosts, ip_hosts: false };
    let server = HttpServer::start(inspector.clone(), &options).expect("started");
    assert_eq!(get(server.address(), "/readyz").0, 200, "the first batch may be hours away");
    let mut peer = TcpStream::connect(running.local_addrs()[0]).expect("connected");
    for batch in 1..=2 {
        peer.write_all(b"a\nb\n").expect("sent");
        while inspector.progress().batches < batch {
            std::thread::yield_now();
        }
    }
    (ctx, server, running)
}

/// Sends these bytes and reads to the end; returns the status and the whole answer.
fn send(address: SocketAddr, bytes: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("connected");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time-out");
    // The refusal may come, and the connection end, before everything is sent.
    let _ = stream.write_all(bytes);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer in UTF-8");
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("no status: {answer:?}")), answer)
}

fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let (status, answer) = send(address, request.as_bytes());
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status, body.to_owned())
}

#[test]
fn pages() {
    let (_ctx, server, running) = served();
    let check = |path: &str, status: u16, parts: &[&str]| {
        let (found, body) = get(server.address(), path);
        assert_eq!(found, status, "{path}: {body}");
        for part in parts {
            assert!(body.contains(part), "{path}: no {part:?} in\n{body}");
        }
    };
    check("/", 200, &["/metrics"]);
    check("/healthz", 200, &["alive"]);
    check("/readyz", 200, &["ready"]);
    check("/nothing", 404, &[]);
    check("/api/v1/status", 200, &["\"name\":\"shown\"", "\"records\":4", "\"ready\":true"]);
    check("/api/v1/status.csv", 200, &["records", "shown"]);
    check("/api/v1/batches", 200, &["\"records\":2", "\"state\":\"done\"", "\"stored_us\":"]);
    check("/api/v1/batches.csv?limit=1", 200, &["batch_time_ms,state,records"]);
    check("/api/v1/batches?limit=x", 400, &[]);
    check("/api/v1/batches/123", 404, &[]);
    check("/api/v1/batches/0", 200, &["\"batch_time_ms\":0"]);
    check("/api/v1/receivers", 200, &["\"source\":\"in\"", "\"rate\":1000000", "\"records\":4"]);
    check("/api/v1/receivers.csv", 200, &["io_model"]);
    check(
        "/metrics",
        200,
        &[
            "tidemill_records_total 4\n",
            "tidemill_reload_generation 0.0\n",
            "tidemill_reload_success 1.0\n",
            "tidemill_receiver_records_total{source=\"in\",io_model=\"nio\"} 4\n",
            "tidemill_receiver_rate{source=\"in\"} 1000000",
            "tidemill_batch_stage_seconds_bucket{le=\"+Inf\",stage=\"committed\"} 2\n",
            "# EOF\n",
        ],
    );
    let lines = get(server.address(), "/api/v1/batches.csv?limit=1").1.lines().count();
    assert_eq!(lines, 2, "a heading and one batch");
    running.stop().expect("in order");
    check("/readyz", 503, &["stopping"]);
    check("/api/v1/status", 200, &["\"stopping\":true"]);
}

/// `/metrics` for a peer with this `Accept` header: its head in lower case, and the body.
fn scrape(address: SocketAddr, accept: &str) -> (String, String) {
    let request = format!(
        "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAccept: {accept}\r\n\r\n"
    );
    let (status, answer) = send(address, request.as_bytes());
    assert_eq!(status, 200, "{answer}");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head.to_lowercase(), body.to_owned())
}

#[test]
fn the_format_of_metrics_follows_the_accept_header() {
    let (_ctx, server, running) = served();
    let check = |accept: &str, content_type: &str, with: &[&str], without: &[&str]| {
        let (head, body) = scrape(server.address(), accept);
        let line = format!("\r\ncontent-type: {content_type}\r\n");
        assert!(head.contains(&line) && head.contains("\r\nvary: accept"), "{accept:?}: {head}");
        with.iter()
            .for_each(|part| assert!(body.contains(part), "{accept:?}: no {part:?} in\n{body}"));
        without
            .iter()
            .for_each(|part| assert!(!body.contains(part), "{accept:?}: {part:?} in\n{body}"));
    };
    let open_metrics = |accept: &str| {
        let with = [
            "# TYPE tidemill_records counter\ntidemill_records_total 4\n",
            "# TYPE tidemill_build info\ntidemill_build_info{version=\"",
            "# UNIT tidemill_store_bytes bytes\n",
            "# TYPE tidemill_receiver_waiting gauge\n",
            "# TYPE tidemill_receiver_waiting_total unknown\n",
            "# TYPE tidemill_receiver_waited_us_max_total unknown\n",
            "\n# EOF\n",
        ];
        let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        check(accept, content_type, &with, &["tidemill_log_", "recovery"]);
    };
    let classic = |accept: &str| {
        let with = [
            "# TYPE tidemill_records_total counter\ntidemill_records_total 4\n",
            "# TYPE tidemill_build_info gauge\ntidemill_build_info{version=\"",
            "# TYPE tidemill_receiver_waited_max_seconds gauge\n",
            "# TYPE tidemill_receiver_unfinished_bytes gauge\n",
        ];
        let without = ["# EOF", "# UNIT", "waiting_total", "_us_", "unknown", "untyped"];
        check(accept, "text/plain; version=0.0.4; charset=utf-8", &with, &without);
    };
    open_metrics("");
    open_metrics("*/*");
    open_metrics(
        "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
    );
    open_metrics("application/json");
    classic("text/plain");
    classic("application/openmetrics-text;q=0.5, text/plain;version=0.0.4");
    let (_, answer) = send(
        server.address(),
        b"HEAD /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAccept: text/plain\r\n\r\n",
    );
    assert!(
        answer.contains("Content-Type: text/plain; version=0.0.4") && answer.ends_with("\r\n\r\n")
    );
    running.stop().expect("in order");
}

#[test]
fn json_and_metrics_say_the_same() {
    let (_ctx, server, running) = served();
    let (_, metrics) = scrape(server.address(), "text/plain");
    let page = |path: &str| get(server.address(), path).1;
    let status: serde_json::Value = serde_json::from_str(&page("/api/v1/status")).expect("JSON");
    let receivers = page("/api/v1/receivers");
    let receivers: serde_json::Value = serde_json::from_str(&receivers).expect("JSON");
    let check = |json: &serde_json::Value, name: &str, expected: u64, sample: &str| {
        assert_eq!(json[name], expected, "{name} in {json}");
        assert!(metrics.contains(&format!("\n{sample}")), "no {sample} in\n{metrics}");
    };
    let figures = [
        ("records", 4, "tidemill_records_total 4\n"),
        ("batches", 2, "tidemill_batches_total 2\n"),
        ("spilled_bytes_total", 0, "tidemill_spilled_bytes_total 0\n"),
        ("spilled_now_bytes", 0, "tidemill_spilled_now_bytes 0.0\n"),
        ("spilled_bytes", 0, "tidemill_spilled_now_bytes 0.0\n"),
    ];
    for (name, expected, sample) in figures {
        check(&status, name, expected, sample);
    }
    let labels = "{source=\"in\",io_model=\"nio\"}";
    let figures = [
        ("records", 4, format!("tidemill_receiver_records_total{labels} 4\n")),
        ("opened", 1, format!("tidemill_receiver_opened_total{labels} 1\n")),
        ("unfinished_bytes", 0, format!("tidemill_receiver_unfinished_bytes{labels} 0.0\n")),
        ("rate", 1_000_000, "tidemill_receiver_rate{source=\"in\"} 1000000.0\n".to_owned()),
    ];
    for (name, expected, sample) in figures {
        check(&receivers[0], name, expected, &sample);
    }
    // Without a log its figures are present and null; the figures of a start are absent.
    assert_eq!(status.get("log_syncs"), Some(&serde_json::Value::Null));
    assert_eq!((status.get("recovery_bytes"), &status["ready"]), (None, &true.into()));
    running.stop().expect("in order");
}

/// A pipeline with a log, several sources and sinks that has processed a batch, and the address of its pages.
fn with_all(directory: &std::path::Path) -> (Program, SocketAddr) {
    let path = directory.display();
    fs::create_dir(directory.join("in")).expect("made");
    let file = directory.join("pipeline.toml");
    let text = format!(
        "name = 'all'\nbatch_interval = '50ms'\nhttp = '127.0.0.1:0'\nstate_dir = '{path}/state'\n\
         spill_dir = '{path}/spill'\nkept_bytes_max = '1GiB'\n\
         [source.one.socket]\nlisten = '127.0.0.1:0'\nframing = 'lines'\nrate_max = 1000\n\
         [source.two.socket]\nlisten = '127.0.0.1:0'\nio_model = 'pool'\nframing = 'relp'\n\
         identity = '^(?<sender>\\S+) (?<number>\\d+) '\n\
         [source.three.files]\ndirectory = '{path}/in'\n\
         [job.words]\nfrom = ['one', 'two']\nwordcount = {{}}\nto = ['files']\n\
         [job.all]\nfrom = ['one']\nlines = {{}}\nto = ['screen']\n\
         [job.read]\nfrom = ['three']\ncount = {{}}\nto = ['files']\n\
         [sink.screen.console]\nformat = 'json'\n[sink.files.file]\npath = '{path}/out'\nformat = 'text'\n"
    );
    fs::write(&file, text).expect("written");
    let program = Program::start(&["run", file.to_str().expect("UTF-8"), "--log-format", "json"]);
    let [http, one] = program.addresses_of(["http", "listening"]);
    let mut peer = TcpStream::connect(one).expect("connected");
    peer.write_all(b"here\n").expect("sent");
    while !program.out.recv_timeout(program::WATCHDOG).expect("a batch").contains("here") {}
    (program, http)
}

#[test]
fn every_metric_of_a_pipeline_with_all_is_in_the_golden_file_and_promtool_accepts_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let (program, http) = with_all(directory.path());
    let golden = include_str!("golden/metrics.txt");
    let known: BTreeSet<&str> =
        golden.lines().filter_map(|line| line.split(['{', ' ']).next()).collect();
    let (_, open_metrics) = scrape(http, "application/openmetrics-text");
    let mut shown = BTreeSet::new();
    for line in open_metrics.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().expect("a name");
        let of_histogram =
            ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        let name = of_histogram.filter(|name| known.contains(name)).unwrap_or(name);
        assert!(known.contains(name), "{name} is not in tests/golden/metrics.txt");
        shown.insert(name);
    }
    for name in [
        "tidemill_log_syncs_total",
        "tidemill_log_groups_total",
        "tidemill_log_bytes_total",
        "tidemill_checkpoint_age_seconds",
        "tidemill_kept_part_bytes",
        "tidemill_receiver_rate",
        "tidemill_build_info",
    ] {
        assert!(shown.contains(name), "no {name} in\n{open_metrics}");
    }
    let (_, classic) = scrape(http, "text/plain");
    if are_there(&["promtool"], "apt install prometheus") {
        promtool(&classic);
    }
    drop(program);
}

/// Scripts read these names. The golden file shows their changes.
#[test]
fn every_key_of_the_status_is_in_the_golden_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let (program, http) = with_all(directory.path());
    let mut keys = BTreeSet::new();
    // The row is printed a moment before its batch ends.
    while api(http, "batches").as_array().is_none_or(Vec::is_empty) {
        std::thread::yield_now();
    }
    for page in ["status", "batches", "receivers"] {
        collect_keys(page, &api(http, page), &mut keys);
    }
    let keys: Vec<String> = keys.into_iter().collect();
    check_golden("status.txt", &(keys.join("\n") + "\n"));
    drop(program);
}

/// Collects the path of every key in `value`; the elements of an array count once.
fn collect_keys(path: &str, value: &serde_json::Value, keys: &mut BTreeSet<String>) {
    if let serde_json::Value::Object(members) = value {
        for (name, member) in members {
            let path = format!("{path}.{name}");
            collect_keys(&path, member, keys);
            keys.insert(path);
        }
    }
    for element in value.as_array().into_iter().flatten() {
        collect_keys(&format!("{path}[]"), element, keys);
    }
}

/// Fails with the output of `promtool check metrics`, if there is any.
fn promtool(metrics: &str) {
    let mut check = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    // It reads everything before it prints anything.
    check.stdin.take().expect("piped").write_all(metrics.as_bytes()).expect("it reads");
    let said = check.wait_with_output().expect("it ends");
    let text = [said.stdout, said.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(said.status.success() && text.concat().is_empty(), "{}\nin:\n{metrics}", text.concat());
}

#[test]
fn what_is_refused() {
    let (_ctx, server, running) = served();
    let check = |request: &str, status: u16| {
        let found = send(server.address(), request.as_bytes());
        assert_eq!(found.0, status, "{request:?}: {}", found.1);
    };
    check("GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n", 403);
    check("GET / HTTP/1.1\r\nHost: 10.1.1.1:4040\r\nConnection: close\r\n\r\n", 403);
    check("GET / HTTP/1.1\r\nHost: tide.example:4040\r\nConnection: close\r\n\r\n", 200);
    check("GET / HTTP/1.1\r\nHost: [::1]:4040\r\nConnection: close\r\n\r\n", 200);
    check("GET / HTTP/1.1\r\nHost: 127.0.0.1:4040\r\nConnection: close\r\n\r\n", 200);
    check("DELETE / HTTP/1.1\r\nHost: localhost\r\n\r\n", 405);
    check("no request at all\r\n\r\n", 400);
    check(&format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(9_000)), 431);
    let (_, answer) = send(
        server.address(),
        b"HEAD /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    );
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\n"), "{answer}");
    running.stop().expect("in order");
}

#[test]
fn requests_follow_each_other_on_one_connection() {
    let (_ctx, server, running) = served();
    let request = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let last = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let (_, answer) = send(server.address(), format!("{request}{request}{last}").as_bytes());
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 3, "{answer}");
    running.stop().expect("in order");
}

#[test]
fn slow_peers_make_room_for_others_and_the_stop_reaches_them() {
    let (_ctx, server, running) = served();
    let mut buffer = [0; 1024];
    // They send nothing, or half a request, or do not read the answer.
    let slow: Vec<TcpStream> = (0..200)
        .map(|peer| {
            let mut stream = TcpStream::connect(server.address()).expect("connected");
            let said = ["", "GET /healthz HT", "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"];
            // The server may have closed it already to make room.
            let _ = stream.write_all(said[peer % 3].as_bytes());
            stream
        })
        .collect();
    for _ in 0..10 {
        assert_eq!(get(server.address(), "/healthz").0, 200);
    }
    // The drop would wait for ten seconds if it did not shut the idle connections down.
    drop(server);
    for mut stream in slow {
        while stream.read(&mut buffer).is_ok_and(|read| read > 0) {}
        let _ = stream.shutdown(Shutdown::Both);
    }
    running.stop().expect("in order");
}

#[test]
fn a_connection_with_requests_outlives_silent_ones() {
    let (_ctx, server, running) = served();
    let mut buffer = [0; 1024];
    let mut busy = TcpStream::connect(server.address()).expect("connected");
    for _ in 0..100 {
        let _silent = TcpStream::connect(server.address()).expect("connected");
        busy.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
        let read = busy.read(&mut buffer).expect("an answer");
        assert!(buffer[..read].starts_with(b"HTTP/1.1 200"));
    }
    drop(server);
    running.stop().expect("in order");
}

#[test]
fn before_the_stream_runs_a_start_says_how_far_it_is() {
    let starting = Starting { read_bytes: 0, log_bytes: 8 << 30 };
    let options = HttpOptions {
        address: "127.0.0.1:0".to_owned(),
        next_free: false,
        ip_hosts: true,
        ..HttpOptions::default()
    };
    let server = HttpServer::start(starting, &options).expect("started");
    let check = |path: &str, status: u16, part: &str| {
        let (found, body) = get(server.address(), path);
        assert_eq!(found, status, "{path}: {body}");
        assert!(body.contains(part), "{path}: no {part:?} in\n{body}");
    };
    check("/healthz", 200, "alive");
    check("/readyz", 503, "recovering, 0 B of 8.00 GiB");
    server.show(Starting { read_bytes: 1288490189, ..starting });
    check("/readyz", 503, "recovering, 1.20 GiB of 8.00 GiB");
    check("/metrics", 200, "tidemill_ready 0.0\n");
    check("/api/v1/status", 200, "\"recovery_bytes\":8589934592");
    check("/api/v1/batches", 503, "recovering");
    check("/nothing", 404, "");
    let (_ctx, _, running) = served();
    server.show(running.inspector());
    check("/readyz", 200, "ready");
    // Late news of the start change nothing.
    server.show(starting);
    check("/readyz", 200, "ready");
    let by_address = b"GET / HTTP/1.1\r\nHost: 10.1.1.1:4040\r\nConnection: close\r\n\r\n";
    assert_eq!(send(server.address(), by_address).0, 200);
    let by_name = b"GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    assert_eq!(send(server.address(), by_name).0, 403);
    running.stop().expect("in order");
}
