//! Results that a sink does not accept: they count towards the memory bound, so that blocks leave memory or reading stops
//! earlier.

use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::time::Duration;

use tidemill::internals::sync::{Arc, AtomicU64, Mailbox, Ordering};
use tidemill::sink::{self, BatchMeta, CommitKey, Sink};
use tidemill::testing::ManualClock;
use tidemill::{Config, Interval, Result, SocketSource, StreamHandle, StreamingContext};

const MIB: usize = 1 << 20;
const LINE: usize = 64;

/// A sink that accepts nothing until the test releases it, and counts its rows then.
struct Stands {
    entered: Mailbox<()>,
    release: Mailbox<()>,
    rows: Arc<AtomicU64>,
}

impl Sink for Stands {
    fn committed(&mut self, _key: &CommitKey) -> Result<bool> {
        Ok(false)
    }

    fn write(&mut self, _key: &CommitKey, _meta: &BatchMeta, rows: &sink::Rows) -> Result<()> {
        // Both are closed once the test releases the sink.
        let _ = self.entered.send(());
        self.release.recv();
        self.rows.fetch_add(rows.len() as u64, Ordering::SeqCst);
        Ok(())
    }

    fn commit(&mut self, _key: &CommitKey) -> Result<()> {
        Ok(())
    }
}

/// The rows that a record becomes.
#[derive(Clone, Copy)]
enum Rows {
    /// The record as it was received.
    Itself,
    /// This many rows.
    Made(usize),
}

/// A stream on a manual clock, and its sink.
struct Rig {
    copies: usize,
    clock: ManualClock,
    running: StreamHandle,
    peer: TcpStream,
    entered: Mailbox<()>,
    release: Mailbox<()>,
    rows: Arc<AtomicU64>,
    sent: usize,
}

fn rig(config: Config, rows_are: Rows) -> Rig {
    let clock = ManualClock::new();
    let config = config.batch_interval(Interval::secs(1)).workers(2);
    let ctx = StreamingContext::with_clock(config, clock.clone()).expect("good options");
    let lines = ctx.socket(SocketSource::listen("127.0.0.1:0")).expect("a source");
    let (entered, release) = (Mailbox::new(1), Mailbox::new(1));
    let rows = Arc::new(AtomicU64::new(0));
    let (enters, waits, count) = (entered.clone(), release.clone(), Arc::clone(&rows));
    let (copies, lines) = match rows_are {
        Rows::Itself => (1, lines),
        Rows::Made(count) => {
            (count, lines.flat_map(move |line, out| (0..count).for_each(|_| out.push(line))))
        }
    };
    lines.save(Stands { entered: enters, release: waits, rows: count });
    let running = ctx.start().expect("started");
    let peer = TcpStream::connect(running.local_addrs()[0]).expect("connected");
    peer.set_write_timeout(Some(Duration::from_millis(300))).expect("a time-out");
    Rig { copies, clock, running, peer, entered, release, rows, sent: 0 }
}

fn text(lines: usize) -> Vec<u8> {
    [b"x".repeat(LINE - 1), b"\n".to_vec()].concat().repeat(lines)
}

impl Rig {
    fn read(&self) -> usize {
        let receivers = self.running.inspector().receivers();
        usize::try_from(receivers[0].counter("bytes")).expect("it fits")
    }

    /// Sends this many bytes and waits until they are read.
    fn send(&mut self, bytes: usize) {
        self.peer.write_all(&text(bytes / LINE)).expect("there is room");
        self.sent += bytes / LINE * LINE;
        while self.read() < self.sent {
            std::thread::yield_now();
        }
    }

    /// Makes a batch of this many bytes; its rows are with the sink on return.
    fn batch(&mut self, bytes: usize) {
        self.send(bytes);
        self.clock.advance(Duration::from_secs(1));
        self.entered.recv().expect("the sink is called");
    }

    /// Sends until TCP holds the sender; returns the number of bytes that the engine has read then.
    fn send_until_held(&mut self) -> usize {
        let text = text(1_000);
        loop {
            let at = self.sent % text.len();
            match self.peer.write(&text[at..]) {
                Ok(taken) => self.sent += taken,
                Err(err) if matches!(err.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return self.read();
                }
                Err(err) => panic!("{err}"),
            }
        }
    }

    /// Releases the sink; then every record is a row, and all memory is freed.
    fn end(mut self) {
        self.release.close();
        self.entered.close();
        while !self.sent.is_multiple_of(LINE) {
            let rest = text(1)[self.sent % LINE..].to_vec();
            match self.peer.write(&rest) {
                Ok(taken) => self.sent += taken,
                Err(err) => assert!(
                    matches!(err.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
                    "{err}"
                ),
            }
        }
        drop(self.peer);
        let inspector = self.running.inspector();
        let is_open = || inspector.receivers()[0].counter("open") > 0;
        while is_open() {
            // One batch for each tick: a clock that runs ahead of the engine would let it coalesce all of them.
            let done = inspector.progress().batches;
            self.clock.advance(Duration::from_secs(1));
            while is_open() && inspector.progress().batches == done {
                std::thread::yield_now();
            }
        }
        let report = self.running.stop().expect("drained");
        let records = (self.sent / LINE) as u64;
        let rows = records * self.copies as u64;
        assert_eq!((report.records, self.rows.load(Ordering::SeqCst)), (records, rows));
        let memory = inspector.memory();
        assert_eq!((memory.used, memory.results, memory.spilled.bytes), (0, 0, 0));
    }
}

#[test]
fn rows_that_a_sink_does_not_take_hold_the_reading() {
    let mut rig = rig(Config::new("held").store_bytes_max(4 * MIB as u64), Rows::Made(1));
    rig.batch(3 * MIB / 2);
    let memory = rig.running.inspector().memory();
    assert!(memory.results > 3 * MIB / 2 && memory.used > 3 * MIB, "{memory:?}");
    let read = rig.send_until_held();
    assert!(read < 5 * MIB / 2, "{read} bytes were read: a store of 4 MiB has results of 1.5 MiB");
    rig.end();
}

/// 16 MiB arrive before the first tick of a stream whose store holds 4.
fn check_that_batches_fit(rows_are: Rows) {
    let dir = tempfile::tempdir().expect("a directory");
    let config = Config::new("fits").store_bytes_max(4 * MIB as u64).spill_dir(dir.path());
    let mut rig = rig(config.block_bytes_max(MIB as u64 / 4), rows_are);
    rig.send(16 * MIB);
    let inspector = rig.running.inspector();
    assert!(inspector.memory().spilled.bytes > 13 * MIB as u64, "{:?}", inspector.memory());
    let mut batches = 0;
    while rig.rows.load(Ordering::SeqCst) < (16 * MIB / LINE) as u64 {
        rig.clock.advance(Duration::from_secs(1));
        rig.entered.recv().expect("the sink is called");
        let memory = inspector.memory();
        assert!(memory.used <= 4 * MIB, "batch {batches}: {memory:?}");
        rig.release.send(()).expect("the sink waits");
        batches += 1;
        while inspector.progress().batches < batches {
            std::thread::yield_now();
        }
    }
    assert!((8..16).contains(&batches), "{batches} batches");
    rig.end();
}

#[test]
fn a_batch_takes_no_more_than_has_room_with_its_rows() {
    check_that_batches_fit(Rows::Made(1));
    check_that_batches_fit(Rows::Itself);
}

#[test]
fn rows_that_a_sink_does_not_take_make_blocks_leave_memory() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = Config::new("leave").store_bytes_max(8 * MIB as u64).spill_dir(dir.path());
    // The rows exceed the estimate for a first batch, and no other block comes to wake the spill.
    let mut rig = rig(config, Rows::Made(2));
    rig.batch(5 * MIB / 2);
    let inspector = rig.running.inspector();
    while inspector.memory().spilled.bytes < 2 * MIB as u64 {
        std::thread::yield_now();
    }
    assert!(inspector.memory().results > 5 * MIB, "{:?}", inspector.memory());
    rig.end();
}
