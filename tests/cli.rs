//! The program as people run it: real processes, real sockets, exit codes. Every wait is for an event: a line, an exit.

#![expect(
    clippy::disallowed_methods,
    reason = "a test's peers and readers are threads of the test, not of the engine"
)]

mod program;

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tidemill::Error;
use tidemill::error::EXIT_CODES;
use tidemill::internals::io::IO_MODELS;

use program::{Program, WATCHDOG, check_golden};

fn run(args: &[&str]) -> (Option<i32>, Vec<String>, Vec<String>) {
    Program::start(args).finish()
}

/// The sum of a column of numbers in JSON rows.
fn sum(out: &[String]) -> u64 {
    let rows = out.iter().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    rows.map(|batch| batch["rows"][0][0].as_u64().expect("a count")).sum()
}

fn serve(bytes: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        let (mut peer, _) = listener.accept().expect("a peer");
        peer.write_all(bytes).expect("taken");
    });
    address
}

/// Sends `bytes` through a job, dialled: checks the JSON rows of all batches that had records.
fn check_job(job: &str, bytes: &'static [u8], expected: &[&str]) {
    for row in IO_MODELS {
        let from = format!("tcp://{}", serve(bytes));
        let args = [
            "run",
            "--from",
            &from,
            "--job",
            job,
            "--every",
            "100ms",
            "--to",
            "json",
            "--until-eof",
            "--io",
        ];
        let (code, out, err) = run(&[&args[..], &[row.name]].concat());
        assert_eq!(code, Some(0), "{}: {err:?}", row.name);
        let mut rows = Vec::new();
        for line in &out {
            let batch: Value = serde_json::from_str(line).expect("JSON");
            if batch["records"] != 0 {
                rows.extend(batch["rows"].as_array().expect("rows").iter().map(Value::to_string));
            }
        }
        assert_eq!(rows, expected, "{}", row.name);
    }
}

#[test]
fn built_in_jobs() {
    check_job("count", b"a\nb\n\nc", &["[4]"]);
    check_job(
        "lines",
        b"one\r\n\ntwo\nthree",
        &[r#"["one"]"#, r#"[""]"#, r#"["two"]"#, r#"["three"]"#],
    );
    check_job("grep=^a", b"apple\nbanana\navocado\n", &[r#"["apple"]"#, r#"["avocado"]"#]);
    check_job("wordcount", b"b a b\nb c\tc", &[r#"["b",3]"#, r#"["c",2]"#, r#"["a",1]"#]);
    check_job("topk=1", b"b a b\n", &[r#"["b",2]"#]);
    check_job(
        "distinct",
        b"b\na\n\nb\xff\na\nb\xff\nb\n",
        &[r#"[""]"#, r#"["a"]"#, r#"["b"]"#, "[\"b\u{fffd}\"]"],
    );
    check_job("lines", b"\xff\x00ok\n", &["[\"\u{fffd}\\u0000ok\"]"]);
}

#[test]
fn distinct_records_of_a_window_that_match() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("a"), "k b\nx\nk a\nk b\n\nxk\n").expect("written");
    let from = format!("files://{}", directory.path().display());
    let job = ["--job", "distinct", "--where", "^k", "--window", "2h", "--slide", "1h"];
    let rest = ["--every", "1h", "--to", "json", "--until-eof"];
    let (code, out, err) = run(&[&["run", "--from", &from], &job[..], &rest[..]].concat());
    assert_eq!(code, Some(0), "{err:?}");
    let batch = |line: &String| serde_json::from_str::<Value>(line).expect("JSON")["rows"].clone();
    let rows: Vec<Value> =
        out.iter().map(batch).filter(|rows| *rows != serde_json::json!([])).collect();
    assert_eq!(rows, [serde_json::json!([["k a"], ["k b"]])]);
}

#[test]
fn every_generated_line_is_counted_once() {
    for row in IO_MODELS {
        let args = [
            "run",
            "--from",
            "generate:records=200000",
            "--job",
            "count",
            "--to",
            "json",
            "--until-eof",
            "--every",
        ];
        let (code, out, err) =
            run(&[&args[..], &["50ms", "--set", &format!("source.in.io_model={}", row.name)]]
                .concat());
        assert_eq!(code, Some(0), "{}: {err:?}", row.name);
        assert_eq!(sum(&out), 200_000, "{}", row.name);
        assert!(err.iter().any(|line| line.contains(&format!("io model {}", row.name))), "{err:?}");
        assert!(err.iter().any(|line| line.contains("nothing was left")), "{err:?}");
    }
}

#[test]
fn load_serves_a_run() {
    let load =
        Program::start(&["load", "--listen", "127.0.0.1:0", "--records", "100000", "--json"]);
    let from = format!("tcp://{}", load.address_after("listening on"));
    let (code, out, _) = run(&[
        "run",
        "--from",
        &from,
        "--job",
        "count",
        "--every",
        "100ms",
        "--to",
        "json",
        "--until-eof",
    ]);
    assert_eq!((code, sum(&out)), (Some(0), 100_000));
    let (code, out, _) = load.finish();
    assert_eq!(code, Some(0));
    assert!(out[0].contains("\"lines\":100000"), "{out:?}");
}

#[test]
fn load_is_a_client_of_relp_and_counts_what_is_acknowledged() {
    let directory = tempfile::tempdir().expect("a directory");
    let state = directory.path().to_str().expect("text");
    let listen = ["run", "--from", "tcp-listen://127.0.0.1:0", "--framing", "relp", "--until-eof"];
    let rest = ["--job", "count", "--every", "50ms", "--to", "json", "--state-dir", state];
    let run = Program::start(&[&listen[..], &rest[..]].concat());
    let address = run.address_after("listening on").to_string();
    let load = ["load", "--connect", &address, "--framing", "relp", "--window", "50"];
    let how_much = ["--connections", "3", "--records", "20000", "--json"];
    let (code, out, err) = Program::start(&[&load[..], &how_much[..]].concat()).finish();
    assert_eq!(code, Some(0), "{err:?}");
    let report: Value = serde_json::from_str(&out[0]).expect("JSON");
    let counts = ["lines", "acknowledged", "refused", "unanswered"].map(|name| &report[name]);
    assert_eq!(counts, [20_000, 20_000, 0, 0]);
    assert!(err.iter().any(|line| line.contains("20,000 acknowledged")), "{err:?}");
    let (code, out, _) = run.finish();
    assert_eq!((code, sum(&out)), (Some(0), 20_000));
}

#[test]
fn peers_dial_in_to_a_listening_run() {
    let args = [
        "run",
        "--from",
        "tcp-listen://127.0.0.1:0",
        "--job",
        "count",
        "--to",
        "json",
        "--log-level",
        "debug",
        "--until-eof",
        "--every",
        "50ms",
    ];
    let run = Program::start(&args);
    let address = run.address_after("listening on");
    let mut peers: Vec<TcpStream> =
        (0..3).map(|_| TcpStream::connect(address).expect("it listens")).collect();
    for peer in &mut peers {
        peer.write_all(b"one\ntwo\nunfinished").expect("it reads");
    }
    // All three connect before the first leaves; otherwise the end of file would come with it.
    for _ in 0..3 {
        run.wait_for("connected to");
    }
    drop(peers);
    let (code, out, _) = run.finish();
    assert_eq!((code, sum(&out)), (Some(0), 9));
}

#[test]
fn ctrl_c_drains_and_reports() {
    for signal in [rustix::process::Signal::INT, rustix::process::Signal::TERM] {
        let run = Program::start(&[
            "run",
            "--from",
            "generate:rate=2000",
            "--job",
            "count",
            "--every",
            "100ms",
            "--to",
            "json",
        ]);
        run.out.recv_timeout(WATCHDOG).expect("a first batch");
        run.signal(signal);
        let (code, _, err) = run.finish();
        assert_eq!(code, Some(0), "{err:?}");
        assert!(
            err.iter()
                .any(|line| line.contains(" INFO stopped after ")
                    && line.contains("nothing was left")),
            "{err:?}"
        );
    }
}

#[test]
fn a_missing_server_is_dialled_again_once_per_attempt() {
    // Bound and not listening: nobody else can take the port, and dials are refused.
    let socket =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port");
    let listener = TcpListener::from(socket.try_clone().expect("a clone"));
    let from = format!("tcp://{}", listener.local_addr().expect("bound"));
    let run = Program::start(&[
        "run",
        "--from",
        &from,
        "--job",
        "lines",
        "--every",
        "50ms",
        "--to",
        "json",
        "--until-eof",
        "--log-level",
        "debug",
    ]);
    run.wait_for("attempt 1, the next in");
    run.wait_for("attempt 2, the next in");
    socket.listen(8).expect("it listens");
    listener.accept().expect("it dials again").0.write_all(b"late\n").expect("taken");
    let (code, out, _) = run.finish();
    assert_eq!(code, Some(0));
    assert!(out.iter().any(|line| line.contains("late")), "{out:?}");
}

#[test]
fn a_lost_server_is_dialled_again() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let from = format!("tcp://{}", listener.local_addr().expect("bound"));
    let run = Program::start(&[
        "run",
        "--from",
        &from,
        "--job",
        "lines",
        "--every",
        "50ms",
        "--to",
        "json",
        "--log-level",
        "debug",
    ]);
    for round in ["first", "second"] {
        let (mut peer, _) = listener.accept().expect("it dials");
        // Ends in the middle of a line, which is delivered.
        peer.write_all(round.as_bytes()).expect("taken");
        drop(peer);
        run.wait_for("closed by the peer");
    }
    run.signal(rustix::process::Signal::INT);
    let (code, out, _) = run.finish();
    assert_eq!(code, Some(0));
    let all = out.join("\n");
    assert!(all.contains("[\"first\"]") && all.contains("[\"second\"]"), "{all}");
}

#[test]
fn limits_end_a_run() {
    let (code, out, _) = run(&[
        "run",
        "--from",
        "generate:rate=1000",
        "--job",
        "count",
        "--every",
        "50ms",
        "--to",
        "json",
        "--batches",
        "3",
    ]);
    assert_eq!((code, out.len()), (Some(0), 3));
    let (code, out, _) = run(&[
        "run",
        "--from",
        "generate:rate=1000",
        "--job",
        "count",
        "--every",
        "50ms",
        "--to",
        "json",
        "--duration",
        "300ms",
    ]);
    assert_eq!(code, Some(0));
    assert!(!out.is_empty());
}

#[test]
fn the_first_lines_say_version_model_and_addresses() {
    let (code, out, err) =
        run(&["run", "examples/wordcount.toml", "--batches", "1", "--every", "100ms"]);
    assert_eq!(code, Some(0), "{err:?}");
    assert!(err[0].contains(env!("CARGO_PKG_VERSION")), "{err:?}");
    assert!(err.iter().any(|line| line.contains("io model nio")), "{err:?}");
    assert!(err.iter().any(|line| line.contains("data server on 127.0.0.1:")), "{err:?}");
    assert!(err.iter().any(|line| line.contains(" INFO http://127.0.0.1:")), "{err:?}");
    assert_eq!(out[0], "-".repeat(43));
    assert!(out[1].starts_with("Time: ") && out[1].ends_with(" ms"), "{out:?}");
}

#[test]
fn quiet_and_json_messages() {
    let args = [
        "run",
        "--from",
        "generate:records=10",
        "--job",
        "count",
        "--until-eof",
        "--every",
        "50ms",
    ];
    let (_, _, err) = run(&[&args[..], &["--quiet"]].concat());
    assert!(err.is_empty(), "{err:?}");
    let (_, _, err) = run(&[&args[..], &["--log-format", "json"]].concat());
    let lines: Vec<Value> =
        err.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let report = lines.iter().find(|line| line["event"] == "report").expect("a report");
    assert_eq!(report["records"], 10);
    assert_eq!(report["level"], "info");
    let time = report["time"].as_str().expect("a time");
    assert!(humantime::parse_rfc3339(time).is_ok() && time.len() == 24, "{time}");
}

#[test]
fn what_ends_a_start_is_said_in_the_format_that_was_asked_for() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let from = format!("tcp-listen://{}", taken.local_addr().expect("bound"));
    let check = |args: &[&str], code: i32, words: &str| {
        let (found, _, err) = run(&[args, &["--log-format", "json"]].concat());
        let last: Value = serde_json::from_str(err.last().expect("an error")).expect("JSON");
        assert_eq!(found, Some(code), "{err:?}");
        assert_eq!((&last["level"], &last["exit_code"]), (&"error".into(), &code.into()));
        assert!(last["message"].as_str().is_some_and(|text| text.contains(words)), "{last}");
    };
    check(&["run", "--from", &from, "--job", "count"], 1, "in use");
    check(&["run", "no-such-file.toml"], 78, "no-such-file.toml");
    check(&["run", "--from", "generate:", "--job", "count", "--until-eof"], 2, "never end");
}

#[test]
fn levels_of_messages() {
    let args = ["run", "--from", "generate:records=10", "--job", "count", "--until-eof"];
    let check = |level: &str, expected: [bool; 2]| {
        let (_, _, err) = run(&[&args[..], &["--every", "50ms", "--log-level", level]].concat());
        let has = |words: &str| err.iter().any(|line| line.contains(words));
        assert_eq!([has(" INFO stopped after "), has(" DEBUG source `in`: connected")], expected);
    };
    check("error", [false, false]);
    check("warn", [false, false]);
    check("info", [true, false]);
    check("debug", [true, true]);
}

/// Checks the exit code and a part of standard error.
fn check_refused(args: &[&str], code: i32, words: &str) {
    let (found, out, err) = run(args);
    let err = err.join("\n");
    assert_eq!(found, Some(code), "{args:?}: {err}");
    assert!(err.contains(words), "{args:?}: {err}");
    assert!(out.is_empty(), "{args:?}: {out:?}");
}

#[test]
fn exit_codes() {
    check_refused(&["run"], 2, "Usage");
    check_refused(&["run", "--from", "tcp://127.0.0.1:1"], 2, "--job <JOB>");
    check_refused(&["run", "--job", "count"], 2, "--from <SOURCE>");
    check_refused(&["run", "--from", "tcp://127.0.0.1:1", "--job", "nonsense"], 2, "nonsense");
    check_refused(&["run", "--from", "generate:", "--job", "count", "--until-eof"], 2, "never end");
    check_refused(&["run", "no-such-file.toml"], 78, "no-such-file.toml");
    check_refused(&["validate", "no-such-file.toml"], 78, "no-such-file.toml");
    check_refused(&["load"], 2, "Usage");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let from = format!("tcp-listen://{}", taken.local_addr().expect("bound"));
    check_refused(&["run", "--from", &from, "--job", "count"], 1, "another program listens there");
}

#[test]
fn every_exit_code_is_documented() {
    let page = include_str!("../docs/guide/running.md");
    let rows = page.lines().skip_while(|line| !line.starts_with("| exit code of"));
    let rows = rows.skip(2).map_while(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    let in_page: Vec<(&str, &str)> = rows.filter_map(|row| row.split_once(" | ")).collect();
    let codes = EXIT_CODES.iter().map(|(code, meaning)| (code.to_string(), *meaning));
    let codes: Vec<(String, &str)> = codes.collect();
    assert!(codes.iter().map(|(code, meaning)| (code.as_str(), *meaning)).eq(in_page));
    let (_, help, _) = run(&["run", "--help"]);
    // Compares words, because the help is wrapped.
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let expected: Vec<String> =
        codes.iter().map(|(code, meaning)| format!("{code} {meaning}")).collect();
    let expected = words(&format!("Exit codes: {}", expected.join(" ")));
    assert!(words(&help.join(" ")).ends_with(&expected), "{help:?}");
    let errors = [
        Error::Usage(String::new()),
        Error::Config(String::new()),
        Error::Failed(String::new()),
        Error::Undrained(String::new()),
    ];
    let known = |code: u8| EXIT_CODES.iter().any(|(other, _)| *other == code);
    assert!(errors.iter().all(|err| known(err.exit_code())));
}

/// Options and their words are an interface: the golden files show their changes.
#[test]
fn help_is_in_the_golden_files() {
    for command in ["", "run", "validate", "inspect", "load", "doctor", "compare"] {
        let args = [command, "--help"];
        let (code, out, err) = run(if command.is_empty() { &args[1..] } else { &args });
        assert_eq!((code, err.as_slice()), (Some(0), [].as_slice()), "{command}");
        let name = if command.is_empty() { "tidemill" } else { command };
        check_golden(&format!("help-{name}.txt"), &(out.join("\n") + "\n"));
    }
}

/// A signal before the run has begun ends it as a shell expects.
#[test]
fn a_signal_before_the_run_ends_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("p.toml");
    // Nobody writes there, so a read never ends.
    rustix::fs::mkfifoat(rustix::fs::CWD, &file, rustix::fs::Mode::RWXU).expect("made");
    let check = |signal: Signal| {
        let args = ["run", file.to_str().expect("UTF-8")];
        let mut run = Program::start(&args);
        run.signal(signal);
        let status = run.process.0.wait().expect("it ends");
        let code = status.signal().map(|signal| 128 + signal);
        assert!(EXIT_CODES.iter().any(|(known, _)| Some(i32::from(*known)) == code), "{status}");
    };
    [Signal::HUP, Signal::INT, Signal::TERM].into_iter().for_each(check);
}

#[test]
fn a_wrong_file_is_shown_with_its_place_and_a_hint() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("p.toml");
    std::fs::write(&file, "batch_intervall = \"1s\"\n").expect("written");
    let path = file.to_str().expect("UTF-8");
    for command in ["run", "validate"] {
        let (code, _, err) = run(&[command, path]);
        let err = err.join("\n");
        assert_eq!(code, Some(78), "{err}");
        assert!(
            err.contains("p.toml:1:1") && err.contains("did you mean `batch_interval`?"),
            "{err}"
        );
    }
    let (code, _, err) = run(&["validate", "examples/wordcount.toml"]);
    assert_eq!(code, Some(0), "{err:?}");
    assert!(err.join("\n").contains("highest input rate"), "{err:?}");
}

#[test]
fn a_reset_is_an_end_with_exit_code_one() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let from = format!("tcp://{}", listener.local_addr().expect("bound"));
    let run = Program::start(&[
        "run",
        "--from",
        &from,
        "--job",
        "lines",
        "--every",
        "50ms",
        "--to",
        "json",
        "--until-eof",
    ]);
    let (mut peer, _) = listener.accept().expect("it dials");
    peer.write_all(b"kept\npart").expect("taken");
    let first = loop {
        let line = run.out.recv_timeout(WATCHDOG).expect("a batch");
        if line.contains("kept") {
            break line;
        }
    };
    assert!(first.contains("kept"));
    // A close with a zero linger sends a reset.
    socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).expect("set");
    drop(peer);
    let (code, _, err) = run.finish();
    assert_eq!(code, Some(1), "{err:?}");
    assert!(err.iter().any(|line| line.contains("broken: ")), "{err:?}");
    let cut = |line: &String| line.contains("1 record cut off by a broken connection");
    assert!(err.iter().any(cut), "{err:?}");
}

/// Checks that the output for these words shows the characters that a terminal would obey as escapes.
fn check_escaped(args: &[&str], expected: i32) {
    let (code, out, err) = run(args);
    let said = [out, err].concat().join("\n");
    assert_eq!(code, Some(expected), "{args:?}: {said}");
    assert!(!said.contains(['\x1b', '\x07', '\u{9b}']), "{args:?}: {said:?}");
    assert!(said.contains("\\u{1b}[31mX"), "{args:?}: {said}");
}

#[test]
fn what_was_typed_is_escaped_where_it_is_said_again() {
    let word = "\x1b[31mX\u{9b}2J\x07";
    let with = |before: &str| format!("{before}{word}");
    let (path, toml) = (with("/no/"), format!("/no/{word}.toml"));
    check_escaped(&["inspect", &path], 1);
    check_escaped(&["inspect", ".", "--pipeline", &toml], 78);
    check_escaped(&["validate", &toml], 78);
    check_escaped(&["run", &toml], 78);
    check_escaped(&["run", &toml, "--log-format", "text"], 78);
    check_escaped(&["run", "--from", word, "--job", "count"], 2);
    for option in ["--job", "--set", "--to", "--every", "--http", "--window", "--io"] {
        check_escaped(&["run", "--from", "generate:", "--job", "count", option, word], 2);
    }
    check_escaped(&["run", "--log-level", word], 2);
    check_escaped(&["load", "--rate", word], 2);
    check_escaped(&["load", "--connect", word], 1);
    check_escaped(&["load", "--listen", "127.0.0.1:0", "--file", &path], 1);
    check_escaped(&["doctor", "--dir", &path], 1);
    check_escaped(&["doctor", &with("--")], 2);
    check_escaped(&[word], 2);
}
