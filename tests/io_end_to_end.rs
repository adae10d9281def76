//! Every io model × framing × way of connecting, through the public API: every record comes out, once.

#![cfg(not(tidemill_model))]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use tidemill::internals::framing::{FRAMINGS, Framing};
use tidemill::internals::io::{IO_MODELS, probe};
use tidemill::internals::sync::{Arc, AtomicU64, Ordering, Signal};
use tidemill::source::Ack;
use tidemill::testing::Collected;
use tidemill::time::{Clock, SystemClock};
use tidemill::{
    Config, DStream, Event, Interval, IoModel, Report, RunLimits, SocketSource, StreamHandle,
    StreamingContext,
};

/// Records of each peer.
const RECORDS: u64 = 2_000;

/// Peers of each case.
const PEERS: u64 = 3;

/// One peer's bytes. Some records are longer than a read buffer, and none is empty unless it may be.
fn stream(framing: Framing, peer: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    if framing == Framing::Relp {
        bytes.extend(b"1 open 30 relp_version=0\ncommands=syslog\n");
    }
    for number in 0..RECORDS {
        let padding = match number % 500 {
            499 => 100_000,
            other => usize::try_from(other % 40).expect("small"),
        };
        let record = format!("p{peer} {number} {}", "x".repeat(padding));
        match framing {
            Framing::OctetCounted => bytes.extend(format!("{} {record}", record.len()).bytes()),
            Framing::Syslog if number % 2 == 0 => {
                bytes.extend(format!("{} {record}", record.len()).bytes());
            }
            Framing::Lines | Framing::Syslog => bytes.extend(format!("{record}\n").bytes()),
            Framing::Relp => {
                let header = format!("{} syslog {} ", number + 2, record.len());
                bytes.extend(format!("{header}{record}\n").bytes());
            }
            Framing::U32 => {
                let len = u32::try_from(record.len()).expect("short");
                bytes.extend(len.to_be_bytes());
                bytes.extend(record.bytes());
            }
        }
    }
    if framing == Framing::Relp {
        bytes.extend(format!("{} close 0\n", RECORDS + 2).bytes());
    }
    bytes
}

/// The answers that the peer of a framing that acknowledges must get: every record, in order.
fn answers() -> String {
    let ours = format!(
        "200 OK\nrelp_version=0\nrelp_software=tidemill,{}\ncommands=syslog",
        env!("CARGO_PKG_VERSION")
    );
    let mut expected = format!("1 rsp {} {ours}\n", ours.len());
    for number in 0..RECORDS {
        expected.push_str(&format!("{} rsp 6 200 OK\n", number + 2));
    }
    expected + &format!("{} rsp 0\n0 serverclose 0\n", RECORDS + 2)
}

/// The output: the number of records, and the count of each.
struct Outcome {
    counts: Collected<u64>,
    names: Collected<(Vec<u8>, u64)>,
}

/// Starts counting the records of `source`; `told` hears of each connection.
fn start(source: SocketSource, told: &Told) -> (StreamHandle, Outcome) {
    let config = Config::new("end-to-end")
        .batch_interval(Interval::millis(100))
        .block_interval(Interval::millis(20))
        .stop_deadline(Duration::from_secs(60));
    let ctx = StreamingContext::new(config).expect("a good configuration");
    ctx.limits(RunLimits {
        until_eof: true,
        duration: Some(Duration::from_secs(60)),
        ..RunLimits::default()
    });
    let records: DStream<[u8]> = ctx.socket(source).expect("a source");
    let counts = records.count().collect();
    let names = records.map(name).count_by_value().collect();
    let told = told.clone();
    ctx.add_listener(move |event: &Event| {
        if let Event::Connected { .. } = event {
            told.connected.fetch_add(1, Ordering::SeqCst);
            told.signal.raise();
        }
    });
    (ctx.start().expect("it starts"), Outcome { counts, names })
}

/// Counts the connected peers.
#[derive(Clone, Default)]
struct Told {
    connected: Arc<AtomicU64>,
    signal: Signal,
}

impl Told {
    fn until_all_are_here(&self) {
        let clock = SystemClock::new();
        let deadline = clock.now().plus(Duration::from_secs(60));
        while self.connected.load(Ordering::SeqCst) < PEERS {
            clock.wait(&self.signal, Some(deadline));
            assert!(clock.now() < deadline, "not every peer was accepted");
        }
    }
}

/// The first two words of a record.
fn name(record: &[u8]) -> Vec<u8> {
    let end = record.iter().enumerate().filter(|(_, byte)| **byte == b' ').nth(1);
    record[..end.map_or(record.len(), |(at, _)| at)].to_vec()
}

fn check(running: StreamHandle, outcome: &Outcome, model: IoModel) {
    let (report, result): (Report, _) = running.finish();
    result.expect("an orderly end");
    let count: u64 = outcome.counts.rows().iter().flat_map(|(_, counts)| counts).sum();
    let mut seen: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
    for (name, times) in outcome.names.rows().into_iter().flat_map(|(_, rows)| rows) {
        *seen.entry(name).or_default() += times;
    }
    assert_eq!(report.left, Vec::<String>::new());
    assert_eq!(report.sources[0].io_model, Some(model));
    assert_eq!(report.sources[0].counter("records"), PEERS * RECORDS);
    assert_eq!(report.sources[0].counter("opened"), PEERS);
    assert_eq!((count, report.records), (PEERS * RECORDS, PEERS * RECORDS));
    assert_eq!(seen.len() as u64, PEERS * RECORDS, "every record is there");
    assert!(seen.values().all(|times| *times == 1), "none is there twice");
}

/// We dial `PEERS` servers.
fn dialled(model: IoModel, framing: Framing) {
    let servers: Vec<TcpListener> =
        (0..PEERS).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
    let addresses = servers.iter().map(|server| server.local_addr().expect("bound").to_string());
    let source = SocketSource::connect(addresses).io_model(model).framing(framing);
    let (running, outcome) = start(source, &Told::default());
    std::thread::scope(|scope| {
        for (server, peer) in servers.iter().zip(0..) {
            scope.spawn(move || {
                let (mut stream_to_us, _) = server.accept().expect("it is dialled");
                stream_to_us.write_all(&stream(framing, peer)).expect("it is read");
            });
        }
    });
    check(running, &outcome, model);
}

/// `PEERS` peers dial us. All connect before the first leaves, because the source ends when the last one does.
fn listening(model: IoModel, framing: Framing, ack: Ack) {
    let source = SocketSource::listen("127.0.0.1:0").io_model(model).framing(framing).ack(ack);
    let told = Told::default();
    let (running, outcome) = start(source, &told);
    let address: SocketAddr = running.local_addrs()[0];
    let mut peers: Vec<TcpStream> =
        (0..PEERS).map(|_| TcpStream::connect(address).expect("it listens")).collect();
    told.until_all_are_here();
    std::thread::scope(|scope| {
        for (mut peer, number) in peers.drain(..).zip(0..) {
            scope.spawn(move || {
                peer.write_all(&stream(framing, number)).expect("it is read");
                if framing.acknowledges() {
                    peer.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
                    let mut answered = String::new();
                    peer.read_to_string(&mut answered).expect("closed in order");
                    assert_eq!(answered, answers());
                }
            });
        }
    });
    check(running, &outcome, model);
}

#[test]
fn what_goes_in_comes_out_once() {
    for row in IO_MODELS {
        if let Err(why) = probe(row.model) {
            eprintln!("{} is not checked: {why}", row.name);
            continue;
        }
        for framing in FRAMINGS {
            println!("{} × {}", row.name, framing.name);
            if framing.framing.acknowledges() {
                listening(row.model, framing.framing, Ack::Received);
                listening(row.model, framing.framing, Ack::Batch);
            } else {
                dialled(row.model, framing.framing);
                listening(row.model, framing.framing, Ack::Log);
            }
        }
    }
}
