//! The HTTP server from outside, over loopback sockets: pages, limits, and the stop.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use tidemill::dashboard::{HttpOptions, HttpServer, Starting};
use tidemill::testing::ManualClock;
use tidemill::{Config, Interval, Running, SocketSource, StreamingContext};

/// A stream after two batches of two records each, and its server on a free port.
fn served() -> (StreamingContext, HttpServer, Running) {
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
    assert_eq!(get(server.address(), "/readyz").0, 503, "no batch yet");
    let mut peer = TcpStream::connect(running.local_addrs()[0]).expect("connected");
    for batch in 1..=2 {
        peer.write_all(b"a\nb\n").expect("sent");
        while inspector.progress().batches < batch {
            std::thread::yield_now();
        }
    }
    (ctx, server, running)
}

/// Sends these bytes and reads to the end; the status and the whole answer.
fn send(address: SocketAddr, bytes: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("connected");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time-out");
    // A refusal may come, and the connection go, before everything is sent.
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
    // They say nothing, half a request, or take no answer.
    let slow: Vec<TcpStream> = (0..200)
        .map(|peer| {
            let mut stream = TcpStream::connect(server.address()).expect("connected");
            let said = ["", "GET /healthz HT", "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"];
            // It may have made room already.
            let _ = stream.write_all(said[peer % 3].as_bytes());
            stream
        })
        .collect();
    for _ in 0..10 {
        assert_eq!(get(server.address(), "/healthz").0, 200);
    }
    // It would wait for ten seconds if the idle connections were not shut down.
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
    // News of the start that come late change nothing.
    server.show(starting);
    check("/readyz", 200, "ready");
    let by_address = b"GET / HTTP/1.1\r\nHost: 10.1.1.1:4040\r\nConnection: close\r\n\r\n";
    assert_eq!(send(server.address(), by_address).0, 200);
    let by_name = b"GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    assert_eq!(send(server.address(), by_name).0, 403);
    running.stop().expect("in order");
}
