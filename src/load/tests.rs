//! The load over real loopback sockets. Every test waits for events or for the end of a stream, never for time.

mod relp;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use socket2::SockRef;

use super::*;
use crate::time::{ManualClock, SystemClock};

/// A socket that does not move for so long fails its test instead of hanging it.
const WATCHDOG: Duration = Duration::from_secs(60);

fn listening() -> LoadOptions {
    LoadOptions {
        target: Target::Listen("127.0.0.1:0".to_owned()),
        framing: Framing::Lines,
        rate: None,
        limit: Limit::default(),
        line_len: LINE_LEN,
        words: 100,
        connections: 1,
        idle: 0,
        file: None,
        stamp: None,
        seed: 1,
    }
}

fn records(count: u64) -> Limit {
    Limit { records: Some(count), ..Limit::default() }
}

fn start_now(options: LoadOptions) -> Load {
    start(options, SystemClock::new(), &Poison::new()).expect("started")
}

fn dial(load: &Load) -> TcpStream {
    watched(TcpStream::connect(load.local_addr().expect("it listens")).expect("connected"))
}

fn watched(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(WATCHDOG)).expect("a time-out");
    stream
}

fn read_all(mut stream: TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("the stream ends in order");
    bytes
}

/// Reads all streams to their ends, each on a thread of its own so that none is a slow one.
fn read_each(streams: Vec<TcpStream>) -> Vec<Vec<u8>> {
    let (poison, done) = (Poison::new(), Mailbox::new(streams.len()));
    let readers: Vec<_> = streams
        .into_iter()
        .enumerate()
        .map(|(index, stream)| {
            let done = done.clone();
            let body = move || done.try_send((index, read_all(stream))).expect("room for all");
            thread::spawn(format!("reader-{index}"), &poison, body).expect("a thread")
        })
        .collect();
    readers.into_iter().for_each(Thread::join);
    assert_eq!(poison.reason(), None);
    let mut read: Vec<_> = std::iter::from_fn(|| done.try_recv()).collect();
    read.sort();
    read.into_iter().map(|(_, bytes)| bytes).collect()
}

fn count_lines(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

fn next_event(load: &Load) -> Event {
    load.events().recv().expect("the load runs")
}

fn wait_until_started(load: &Load) {
    while !matches!(next_event(load), Event::Started { .. }) {}
}

/// Peers that dial in get exactly `limit.records` whole lines together, and the report agrees with what they got.
fn check_listening(options: LoadOptions) {
    let (connections, idle, limit) = (options.connections, options.idle, options.limit);
    let load = start_now(options);
    let mut streams: Vec<_> = (0..connections).map(|_| dial(&load)).collect();
    streams.extend((0..idle).map(|_| dial(&load)));
    let read = read_each(streams);
    let report = load.join().expect("no panic");
    assert_eq!(report.end.expect("no error"), End::Done);
    assert_eq!(report.connections, connections as u64);
    assert_eq!(report.bytes, read.iter().map(|bytes| bytes.len() as u64).sum::<u64>());
    assert_eq!(report.lines, read.iter().map(|bytes| count_lines(bytes)).sum::<u64>());
    assert_eq!(limit.records.unwrap_or(report.lines), report.lines);
    assert!(report.bytes <= limit.bytes.unwrap_or(u64::MAX));
    assert!(read.iter().all(|bytes| bytes.last().is_none_or(|&byte| byte == b'\n')));
    assert!(read.iter().filter(|bytes| bytes.is_empty()).count() >= idle);
}

#[test]
fn limits_are_exact_over_all_connections() {
    check_listening(LoadOptions { limit: records(0), ..listening() });
    check_listening(LoadOptions { limit: records(1), connections: 3, ..listening() });
    check_listening(LoadOptions { limit: records(12_345), ..listening() });
    check_listening(LoadOptions {
        limit: records(123_456),
        connections: 7,
        idle: 5,
        ..listening()
    });
    check_listening(LoadOptions {
        limit: records(5_000),
        connections: 4,
        rate: Some(1_000_000),
        ..listening()
    });
    check_listening(LoadOptions {
        limit: records(50_000),
        connections: 2,
        stamp: Some(1),
        ..listening()
    });
    let bytes = Limit { bytes: Some(1_000_000), ..Limit::default() };
    check_listening(LoadOptions { limit: bytes, connections: 3, ..listening() });
    check_listening(LoadOptions {
        limit: Limit { bytes: Some(10), ..Limit::default() },
        ..listening()
    });
}

#[test]
fn a_dialling_load_opens_its_connections_and_idle_ones() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let target = Target::Connect(listener.local_addr().expect("bound").to_string());
    let load = start_now(LoadOptions {
        target,
        limit: records(10_000),
        connections: 3,
        idle: 2,
        ..listening()
    });
    let streams = (0..5).map(|_| watched(listener.accept().expect("dialled").0)).collect();
    let read = read_each(streams);
    let report = load.join().expect("no panic");
    assert_eq!(report.end.expect("no error"), End::Done);
    assert_eq!(read.iter().map(|bytes| count_lines(bytes)).sum::<u64>(), 10_000);
    assert!(read[3].is_empty() && read[4].is_empty());
}

#[test]
fn same_seed_same_bytes_at_any_speed() {
    let read = [None, Some(2_000), Some(10_000_000)].map(|rate| {
        let load = start_now(LoadOptions { rate, limit: records(300), seed: 42, ..listening() });
        read_all(dial(&load))
    });
    assert_eq!(count_lines(&read[0]), 300);
    assert_eq!(read[0], read[1]);
    assert_eq!(read[0], read[2]);
}

#[test]
fn stamps_are_the_intended_times() {
    let clock = ManualClock::new();
    let wall = 1_500_000_000_000;
    clock.jump_wall_to(crate::Time::from_millis(wall));
    let options =
        LoadOptions { rate: Some(1_000), limit: records(2_001), stamp: Some(1), ..listening() };
    let load = start(options, Arc::new(clock.clone()), &Poison::new()).expect("started");
    let stream = dial(&load);
    wait_until_started(&load);
    // Far beyond the schedule's end: a late sender must not change the stamps.
    clock.advance(Duration::from_secs(5));
    let bytes = read_all(stream);
    let mut number = 0;
    for line in bytes.split_inclusive(|&byte| byte == b'\n') {
        let stamp: u64 =
            std::str::from_utf8(&line[..19]).expect("digits").parse().expect("a number");
        assert_eq!(line[19], b' ');
        assert_eq!(stamp, wall * 1_000_000 + number * 1_000_000, "line {number}");
        number += 1;
    }
    let report = load.join().expect("no panic");
    assert_eq!((number, report.lines), (2_001, 2_001));
    assert!(
        report.behind <= Duration::from_secs(5) && report.behind >= Duration::from_secs(4),
        "{:?}",
        report.behind
    );
}

#[test]
fn nothing_leaves_before_it_is_due() {
    let clock = ManualClock::new();
    let limit = Limit { duration: Some(Duration::from_secs(1)), ..Limit::default() };
    let options = LoadOptions { rate: Some(10), limit, ..listening() };
    let load = start(options, Arc::new(clock.clone()), &Poison::new()).expect("started");
    let mut reader = std::io::BufReader::new(dial(&load));
    wait_until_started(&load);
    let mut line = Vec::new();
    for sent in 1..=10 {
        line.clear();
        std::io::BufRead::read_until(&mut reader, b'\n', &mut line).expect("a line");
        assert_eq!(load.progress().lines().max(sent), sent, "only what is due");
        clock.advance(Duration::from_millis(100));
    }
    assert_eq!(reader.read(&mut [0]).expect("the end"), 0);
    drop(reader);
    assert_eq!(load.join().expect("no panic").lines, 10);
}

#[test]
fn every_so_many_lines_have_a_stamp() {
    for every in [2, 7, 10_000, 50_000] {
        let limit = records(20_001);
        let plain = read_all(dial(&start_now(LoadOptions { limit, ..listening() })));
        let load = start_now(LoadOptions { stamp: Some(every), limit, ..listening() });
        let (mut number, mut text) = (0, Vec::new());
        for line in read_all(dial(&load)).split_inclusive(|&byte| byte == b'\n') {
            let stamped = line.len() > 20 && line[..19].iter().all(u8::is_ascii_digit);
            assert_eq!(stamped, number % every == 0, "line {number}, every {every}");
            text.extend_from_slice(if stamped { &line[20..] } else { line });
            number += 1;
        }
        assert_eq!(text, plain, "the text is the same as without stamps");
    }
}

#[test]
fn stamps_without_a_rate_never_go_back() {
    let load = start_now(LoadOptions { stamp: Some(1), limit: records(20_000), ..listening() });
    let bytes = read_all(dial(&load));
    let stamps: Vec<&[u8]> =
        bytes.split_inclusive(|&byte| byte == b'\n').map(|line| &line[..20]).collect();
    assert_eq!(stamps.len(), 20_000);
    assert!(stamps.is_sorted());
    assert!(
        stamps.iter().all(|stamp| stamp[..19].iter().all(u8::is_ascii_digit) && stamp[19] == b' ')
    );
}

/// A file whose lines differ, of about `lines` × 30 bytes.
fn file_of(lines: usize, last: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    for line in 0..lines {
        writeln!(file, "line {line} {}", "x".repeat(line % 40)).expect("written");
    }
    file.write_all(last.as_bytes()).expect("written");
    file
}

fn check_file(lines: usize, last: &str, rate: Option<u64>) {
    let file = file_of(lines, last);
    let load = start_now(LoadOptions { file: Some(file.path().to_owned()), rate, ..listening() });
    let bytes = read_all(dial(&load));
    assert_eq!(
        bytes,
        std::fs::read(file.path()).expect("readable"),
        "{lines} lines, then {last:?}"
    );
    let report = load.join().expect("no panic");
    assert_eq!(report.lines, bytes.split_inclusive(|&byte| byte == b'\n').count() as u64);
    assert_eq!(report.end.expect("no error"), End::Done);
}

#[test]
fn a_file_is_replayed_byte_for_byte() {
    check_file(0, "", None);
    check_file(0, "no line feed", None);
    check_file(50_000, "", None);
    check_file(50_000, "\r\n\n\u{fffd}\0 and no line feed", None);
    check_file(2_000, "end", Some(1_000_000));
}

#[test]
fn a_file_over_several_connections_keeps_its_lines_whole() {
    let file = file_of(100_000, "");
    let load = start_now(LoadOptions {
        file: Some(file.path().to_owned()),
        connections: 4,
        ..listening()
    });
    let read = read_each((0..4).map(|_| dial(&load)).collect());
    let content = std::fs::read(file.path()).expect("readable");
    let mut wanted: Vec<&[u8]> = content.split_inclusive(|&byte| byte == b'\n').collect();
    let mut got: Vec<&[u8]> =
        read.iter().flat_map(|bytes| bytes.split_inclusive(|&byte| byte == b'\n')).collect();
    wanted.sort_unstable();
    got.sort_unstable();
    assert!(wanted == got);
}

/// A peer that takes little and then nothing, so that the load's writes are refused.
fn narrow(stream: &TcpStream) {
    SockRef::from(stream).set_recv_buffer_size(4_096).expect("a small buffer");
}

#[test]
fn stop_ends_a_load_whose_peer_does_not_read() {
    for rate in [None, Some(10_000_000)] {
        let load = start_now(LoadOptions { rate, ..listening() });
        let stream = dial(&load);
        narrow(&stream);
        wait_until_started(&load);
        load.stop();
        let report = load.join().expect("no panic");
        assert_eq!(report.end.expect("no error"), End::Stopped);
        drop(stream);
    }
}

#[test]
fn a_stop_or_the_end_of_the_time_finishes_the_lines_begun() {
    for stops in [true, false] {
        // On this clock the time that a stop grants never ends, so a slow test machine cannot tear the line.
        let clock = ManualClock::new();
        let limit = Limit { duration: Some(Duration::from_secs(9)), ..Limit::default() };
        let options = LoadOptions { limit, connections: 2, ..listening() };
        let load = start(options, Arc::new(clock.clone()), &Poison::new()).expect("started");
        let streams = vec![dial(&load), dial(&load)];
        for mut stream in &streams {
            stream.read_exact(&mut [0; 100_000]).expect("it sends");
        }
        if stops {
            load.stop()
        } else {
            clock.advance(Duration::from_secs(9))
        }
        assert!(read_each(streams).iter().all(|bytes| bytes.ends_with(b"\n")));
        let end = load.join().expect("no panic").end.expect("no error");
        assert_eq!(end, if stops { End::Stopped } else { End::Done });
    }
}

#[test]
fn stop_ends_a_load_that_waits_for_peers() {
    let load = start_now(LoadOptions { connections: 2, ..listening() });
    let stream = dial(&load);
    assert!(matches!(next_event(&load), Event::Connected(_)));
    load.stopper().stop();
    let report = load.join().expect("no panic");
    assert_eq!((report.lines, report.end.expect("no error")), (0, End::Stopped));
    drop(stream);
}

#[test]
fn poison_stops_a_load() {
    let poison = Poison::new();
    let load = start(listening(), SystemClock::new(), &poison).expect("started");
    poison.set("something else broke");
    assert_eq!(load.join().expect("no panic").end.expect("no error"), End::Stopped);
}

#[test]
fn a_slow_connection_does_not_hold_the_others() {
    let load = start_now(LoadOptions { connections: 2, limit: records(200_000), ..listening() });
    let (slow, quick) = (dial(&load), dial(&load));
    narrow(&slow);
    let enough = 10_000_000;
    let mut read = Vec::new();
    (&quick).take(enough).read_to_end(&mut read).expect("it goes on");
    assert_eq!(read.len() as u64, enough);
    reset(slow);
    read.extend(read_all(quick));
    let report = load.join().expect("no panic");
    assert_eq!((report.lines, report.lost), (200_000, 1));
    assert!(count_lines(&read) <= 200_000 && read.ends_with(b"\n"));
}

/// Closes with a reset: unread bytes and no lingering.
fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("no lingering");
    drop(stream);
}

#[test]
fn a_listening_load_survives_a_reset_and_serves_the_next_peer() {
    let load = start_now(LoadOptions { limit: records(1_000_000), ..listening() });
    let mut first = dial(&load);
    first.read_exact(&mut [0; 10]).expect("it sends");
    reset(first);
    let lost = std::iter::from_fn(|| load.events().recv()).find_map(|event| match event {
        Event::PeerLost { error, .. } => Some(error.to_string()),
        _ => None,
    });
    assert!(lost.expect("told").starts_with("the peer 127.0.0.1:"));
    let second = dial(&load);
    let bytes = read_all(second);
    let report = load.join().expect("no panic");
    assert_eq!((report.lost, report.connections, report.lines), (1, 2, 1_000_000));
    assert_eq!(report.end.expect("no error"), End::Done);
    assert!(count_lines(&bytes) < 1_000_000 && bytes.ends_with(b"\n"));
}

#[test]
fn what_a_broken_connection_did_not_get_goes_to_another() {
    let file = file_of(300_000, "");
    let load = start_now(LoadOptions {
        file: Some(file.path().to_owned()),
        connections: 2,
        ..listening()
    });
    let (broken, whole) = (dial(&load), dial(&load));
    narrow(&broken);
    wait_until_started(&load);
    reset(broken);
    let bytes = read_all(whole);
    let report = load.join().expect("no panic");
    assert_eq!(report.lines, 300_000);
    assert!(bytes.ends_with(b"\n"));
    assert!(
        bytes
            .split(|&byte| byte == b'\n')
            .all(|line| line.is_empty() || line.starts_with(b"line "))
    );
}

#[test]
fn a_dialling_load_fails_when_its_peer_is_gone() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let target = Target::Connect(listener.local_addr().expect("bound").to_string());
    let load = start_now(LoadOptions { target, ..listening() });
    let (mut stream, _) = listener.accept().expect("dialled");
    stream.read_exact(&mut [0; 10]).expect("it sends");
    reset(stream);
    let report = load.join().expect("no panic");
    assert_eq!(
        report.end.expect_err("the peer is gone").to_string(),
        "the peer closed before the end"
    );
    assert_eq!(report.lost, 1);
}

#[test]
fn a_refused_dial_is_an_error_that_names_the_address() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let addr = listener.local_addr().expect("bound");
    drop(listener);
    let load = start_now(LoadOptions { target: Target::Connect(addr.to_string()), ..listening() });
    let text = load.join().expect("no panic").end.expect_err("refused").to_string();
    assert!(text.starts_with(&format!("cannot connect to {addr}: ")), "{text}");
}

#[test]
fn a_peer_that_half_closes_is_still_served() {
    let load = start_now(LoadOptions { limit: records(1_000), ..listening() });
    let stream = dial(&load);
    stream.shutdown(Shutdown::Write).expect("half closed");
    assert_eq!(count_lines(&read_all(stream)), 1_000);
}

fn check_usage(options: LoadOptions, expected: &str) {
    let err = start(options, SystemClock::new(), &Poison::new()).expect_err("a usage error");
    assert_eq!(err.exit_code(), 2);
    assert_eq!(err.to_string(), expected);
}

#[test]
fn options_that_make_no_sense_are_usage_errors() {
    check_usage(
        LoadOptions { rate: Some(0), ..listening() },
        "a rate is at least one line per second",
    );
    check_usage(
        LoadOptions { line_len: 1, ..listening() },
        "a line has at least 2 bytes: a letter and a line feed",
    );
    check_usage(LoadOptions { words: 0, ..listening() }, "words are from 1 to 4194304");
    check_usage(
        LoadOptions { connections: 0, ..listening() },
        "a load has at least one connection",
    );
}

#[test]
fn an_address_in_use_is_an_error_at_the_start() {
    let taken = start_now(listening());
    let addr = taken.local_addr().expect("it listens").to_string();
    let options = LoadOptions { target: Target::Listen(addr.clone()), ..listening() };
    let text = start(options, SystemClock::new(), &Poison::new()).expect_err("in use").to_string();
    assert!(text.starts_with(&format!("cannot listen on {addr}: ")), "{text}");
}
