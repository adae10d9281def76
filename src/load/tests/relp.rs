//! The load as a client of RELP, against a server that this test is: it reads with the engine's own splitter and answers as
//! the test says.

use super::*;
use crate::framing::{self, Found, Owed, Splitter};

/// A server with one connection.
struct Served {
    stream: TcpStream,
    splitter: Box<dyn Splitter>,
    found: Found,
    records: Vec<Vec<u8>>,
    /// Numbers of the records that were not answered yet.
    owed: Vec<u32>,
    goodbye: Option<u32>,
}

impl Served {
    fn accept(listener: &TcpListener) -> Served {
        let stream = watched(listener.accept().expect("dialled").0);
        let splitter = framing::Framing::Relp.splitter(1 << 20);
        let (found, records, owed) = (Found::default(), Vec::new(), Vec::new());
        Served { stream, splitter, found, records, owed, goodbye: None }
    }

    /// Reads once, answers the offers, and notes the rest; false at the end.
    fn read(&mut self) -> bool {
        let mut piece = [0; 4096];
        let len = self.stream.read(&mut piece).expect("it sends");
        self.found.clear();
        self.splitter.feed(&piece[..len], &mut self.found).expect("good");
        self.stream.write_all(&self.found.replies).expect("it reads");
        let mut each = |record: &[u8]| self.records.push(record.to_vec());
        framing::Framing::Relp.for_each(&self.found.joined, &mut each);
        for range in &self.found.ranges {
            framing::Framing::Relp.for_each(&piece[range.clone()], &mut each);
        }
        for owed in &self.found.owed {
            match owed {
                Owed::Records { first, count } => self.owed.extend(*first..first + count),
                Owed::Close(number) => self.goodbye = Some(*number),
                Owed::Aside(_) => unreachable!("nothing is put aside"),
            }
        }
        len > 0
    }

    /// Reads until there were this many records.
    fn read_until(&mut self, records: usize) {
        while self.records.len() < records {
            assert!(self.read());
        }
    }

    /// Answers this many of the records that were read.
    fn answer(&mut self, records: usize, status: &str) {
        let len = status.len();
        for number in self.owed.drain(..records) {
            self.stream
                .write_all(format!("{number} rsp {len} {status}\n").as_bytes())
                .expect("it reads");
        }
    }

    /// Reads and answers to the goodbye, and returns the records.
    fn serve(mut self, status: &str) -> Vec<Vec<u8>> {
        while self.goodbye.is_none() {
            assert!(self.read(), "it says goodbye");
            self.answer(self.owed.len(), status);
        }
        let goodbye = self.goodbye.expect("said");
        self.stream.write_all(format!("{goodbye} rsp 0\n").as_bytes()).expect("it reads");
        self.records
    }
}

fn relp(listener: &TcpListener, window: usize) -> LoadOptions {
    let target = Target::Connect(listener.local_addr().expect("bound").to_string());
    LoadOptions { target, framing: Framing::Relp { window }, ..listening() }
}

/// Serves this many connections to their ends: all records, and what the load reports.
fn serve_all(
    connections: usize,
    status: &'static str,
    options: impl Fn(LoadOptions) -> LoadOptions,
) -> (Vec<Vec<u8>>, Report) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let load = start_now(options(LoadOptions { connections, ..relp(&listener, 16) }));
    let (poison, done) = (Poison::new(), Mailbox::new(connections));
    let servers: Vec<_> = (0..connections)
        .map(|index| {
            let (served, done) = (Served::accept(&listener), done.clone());
            let body = move || done.try_send(served.serve(status)).expect("room for all");
            thread::spawn(format!("server-{index}"), &poison, body).expect("a thread")
        })
        .collect();
    servers.into_iter().for_each(Thread::join);
    assert_eq!(poison.reason(), None);
    let records = std::iter::from_fn(|| done.try_recv()).flatten().collect();
    (records, load.join().expect("no panic"))
}

#[test]
fn every_record_is_sent_once_and_its_answer_counted() {
    for (connections, rate, stamp) in
        [(1, None, None), (3, None, Some(1)), (2, Some(1_000_000), None)]
    {
        let limit = records(5_000);
        let (sent, report) = serve_all(connections, "200 OK", |options| LoadOptions {
            rate,
            stamp,
            limit,
            ..options
        });
        let bytes = sent.iter().map(|record| record.len() as u64).sum();
        let answers =
            Answers { acknowledged: 5_000, acknowledged_bytes: bytes, refused: 0, unanswered: 0 };
        assert_eq!((sent.len(), report.answers), (5_000, Some(answers)), "{connections}");
        assert_eq!((report.lines, report.end.expect("no error")), (5_000, End::Done));
        assert!(sent.iter().all(|record| !record.contains(&b'\n')));
    }
}

#[test]
fn the_lines_are_those_that_are_sent_without_it() {
    let file = file_of(3_000, "\n\r\nno line feed");
    let (sent, report) = serve_all(1, "200 OK", |options| LoadOptions {
        file: Some(file.path().to_owned()),
        ..options
    });
    report.end.expect("all is acknowledged");
    let content = std::fs::read(file.path()).expect("readable");
    let lines: Vec<&[u8]> = content.split(|&byte| byte == b'\n').collect();
    assert_eq!(sent, lines);
}

#[test]
fn a_refusal_is_an_error_in_the_end() {
    let (_, report) =
        serve_all(1, "500 no", |options| LoadOptions { limit: records(7), ..options });
    let text = report.end.expect_err("not acknowledged").to_string();
    assert_eq!(text, "of the records 7 were refused, 0 not answered");
}

#[test]
fn no_more_than_a_window_is_unanswered() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let load = start_now(LoadOptions { limit: records(100), ..relp(&listener, 10) });
    let mut served = Served::accept(&listener);
    for answered in 0..=90 {
        served.read_until(10 + answered);
        let sent = load.progress().lines().max(served.records.len() as u64);
        assert_eq!(sent, 10 + answered as u64, "{answered} were answered");
        if answered < 90 {
            served.answer(1, "200 OK");
        }
    }
    served.answer(10, "200 OK");
    served.serve("200 OK");
    assert_eq!(load.join().expect("no panic").end.expect("no error"), End::Done);
}

#[test]
fn what_a_lost_peer_did_not_answer_is_counted() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let load = start_now(relp(&listener, 10));
    let mut served = Served::accept(&listener);
    served.read_until(10);
    served.answer(4, "200 OK");
    served.read_until(14);
    drop(served);
    let report = load.join().expect("no panic");
    let answers = report.answers.expect("it waits for answers");
    assert_eq!((report.lines, answers.acknowledged, answers.unanswered), (14, 4, 10));
    let text = report.end.expect_err("the peer is gone").to_string();
    assert_eq!(text, "the peer closed before the end");
}

#[test]
fn a_stop_waits_for_the_answers() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let load = start_now(relp(&listener, 10));
    let mut served = Served::accept(&listener);
    served.read_until(10);
    load.stop();
    served.answer(10, "200 OK");
    let records = served.serve("200 OK").len() as u64;
    let report = load.join().expect("no panic");
    let answers = report.answers.expect("it waits for answers");
    assert_eq!((answers.acknowledged, answers.unanswered), (records, 0));
    assert_eq!((report.lines, report.end.expect("no error")), (records, End::Stopped));
}

#[test]
fn a_server_that_says_nothing_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let limit = Limit { duration: Some(Duration::from_secs(1)), ..Limit::default() };
    let (clock, options) = (ManualClock::new(), LoadOptions { limit, ..relp(&listener, 10) });
    let load = start(options, Arc::new(clock.clone()), &Poison::new()).expect("started");
    let _silent = listener.accept().expect("dialled");
    wait_until_started(&load);
    while !load.is_done() {
        clock.advance(Duration::from_secs(10));
        std::thread::yield_now();
    }
    let report = load.join().expect("no panic");
    assert_eq!(report.lines, 0);
    let text = report.end.expect_err("nothing was answered").to_string();
    assert_eq!(text, "1 peer has not answered for 60s");
}

#[test]
fn refused_offers_say_why() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let load = start_now(relp(&listener, 10));
    let (mut stream, _) = listener.accept().expect("dialled");
    stream.write_all(b"1 rsp 10 500 go off\n").expect("it reads");
    let lost = std::iter::from_fn(|| load.events().recv()).find_map(|event| match event {
        Event::PeerLost { error, .. } => Some(error.to_string()),
        _ => None,
    });
    let lost = lost.expect("told");
    assert!(lost.ends_with("is gone: it refuses the offers: 500 go off"), "{lost}");
    assert!(load.join().expect("no panic").end.is_err());
}

#[test]
fn options_of_relp_that_make_no_sense_are_usage_errors() {
    let framing = Framing::Relp { window: 128 };
    check_usage(
        LoadOptions { framing, ..listening() },
        "a client of RELP dials its server: use a load that connects",
    );
    let target = Target::Connect("127.0.0.1:1".to_owned());
    let framing = Framing::Relp { window: 0 };
    check_usage(LoadOptions { target, framing, ..listening() }, "windows are from 1 to 1048576");
}
