//! Memory: a sink that blocks holds the sender, unless blocks can leave memory.

use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::time::Duration;

use tidemill::internals::sync::{Mailbox, Ordering};
use tidemill::{Config, RunLimits};

use crate::{SECOND, slow, small, thread_yield};

#[test]
fn a_sink_that_blocks_holds_the_sender_within_the_memory_bound() {
    const BYTES: u64 = 64 << 20;
    let line = [b"x".repeat(99), b"\n".to_vec()].concat();
    let release = Mailbox::<()>::new(1);
    let waits = release.clone();
    let limits = RunLimits { until_eof: true, ..RunLimits::default() };
    let (ctx, records) = small(
        move || {
            waits.recv();
        },
        60 * SECOND,
        limits,
    );
    let running = ctx.start().expect("started");
    let mut peer = TcpStream::connect(running.local_addrs()[0]).expect("connected");
    peer.set_write_timeout(Some(Duration::from_millis(300))).expect("a time-out");
    let inspector = running.inspector();
    let (lines, mut sent, mut held) = (line.repeat(655), 0_u64, 0);
    while sent < BYTES {
        if !send_some(&mut peer, &lines, &mut sent, BYTES) {
            held += 1;
            // TCP holds the sender: the store is full, and stays within its bound.
            assert!(sent < BYTES / 2, "{sent} bytes were taken while nothing was processed");
            release.close();
        }
        let memory = inspector.memory();
        let bound = memory.bound + memory.bound / 10;
        assert!(memory.used <= bound, "{memory:?}");
    }
    assert!(held > 0, "the sender was never held");
    drop(peer);
    let (report, outcome) = running.finish();
    outcome.expect("drained");
    // The limit of bytes cuts the last line off only if it is no multiple of a line.
    assert_eq!(report.records, BYTES.div_ceil(100));
    assert_eq!(records.load(Ordering::SeqCst), BYTES.div_ceil(100));
    assert_eq!(inspector.memory().used, 0, "everything was given back");
}

/// Sends more of the lines, which repeat after the last one, up to `end` bytes in all; false if the peer accepts nothing.
fn send_some(peer: &mut TcpStream, lines: &[u8], sent: &mut u64, end: u64) -> bool {
    let at = usize::try_from(*sent).expect("small") % lines.len();
    let rest = lines.len().min(at + usize::try_from(end - *sent).expect("small"));
    match peer.write(&lines[at..rest]) {
        Ok(taken) => *sent += taken as u64,
        Err(err) if matches!(err.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            return false;
        }
        Err(err) => panic!("{err}"),
    }
    true
}

#[test]
fn a_sink_that_blocks_does_not_hold_the_sender_while_blocks_can_leave_memory() {
    const BYTES: u64 = 64 << 20;
    let dir = tempfile::tempdir().expect("a directory");
    let line = [b"x".repeat(99), b"\n".to_vec()].concat();
    let release = Mailbox::<()>::new(1);
    let waits = release.clone();
    let limits = RunLimits { until_eof: true, ..RunLimits::default() };
    let config = Config::new("spills")
        .store_bytes_max(8 << 20)
        .spill_dir(dir.path().join("spill"))
        .stop_deadline(60 * SECOND);
    let work = move || {
        waits.recv();
    };
    let (ctx, records) = slow(config, work, limits);
    let running = ctx.start().expect("started");
    let mut peer = TcpStream::connect(running.local_addrs()[0]).expect("connected");
    let inspector = running.inspector();
    let within = || {
        let memory = inspector.memory();
        assert!(memory.used <= memory.bound + memory.bound / 10, "{memory:?}");
        memory
    };
    let (lines, mut sent) = (line.repeat(655), 0);
    while sent < BYTES {
        let rest = lines.len().min(usize::try_from(BYTES - sent).expect("small"));
        peer.write_all(&lines[..rest]).expect("taken, although nothing is processed");
        sent += rest as u64;
        within();
    }
    drop(peer);
    let spilled = within().spilled;
    assert!(spilled.bytes > BYTES / 2 && spilled.file_bytes > 0, "{spilled:?}");
    assert!(spilled.file_bytes < spilled.bytes / 10, "the same line again and again: {spilled:?}");
    release.close();
    while inspector.progress().records < sent.div_ceil(100) {
        within();
        thread_yield();
    }
    let (report, outcome) = running.finish();
    outcome.expect("drained");
    assert_eq!(
        (report.records, records.load(Ordering::SeqCst)),
        (sent.div_ceil(100), sent.div_ceil(100))
    );
    let memory = inspector.memory();
    assert_eq!((memory.used, memory.spilled.bytes, memory.spilled.file_bytes), (0, 0, 0));
    let left = std::fs::read_dir(dir.path().join("spill")).expect("there").count();
    assert_eq!(left, 0, "every file is removed, and the stream's own directory");
}

#[test]
fn a_disk_without_room_holds_the_sender_and_loses_nothing() {
    const BYTES: u64 = 48 << 20;
    let dir = tempfile::tempdir().expect("a directory");
    let release = Mailbox::<()>::new(1);
    let waits = release.clone();
    let limits = RunLimits { until_eof: true, ..RunLimits::default() };
    let config = Config::new("spills")
        .store_bytes_max(2 << 20)
        .spill_dir(dir.path())
        .spill_bytes_max(256 << 10)
        .stop_deadline(60 * SECOND);
    let work = move || {
        waits.recv();
    };
    let (ctx, _) = slow(config, work, limits);
    let running = ctx.start().expect("started");
    let mut peer = TcpStream::connect(running.local_addrs()[0]).expect("connected");
    peer.set_write_timeout(Some(Duration::from_millis(300))).expect("a time-out");
    let inspector = running.inspector();
    // Numbers do not compress to a hundredth, unlike one line that repeats.
    let mut lines = Vec::new();
    (0..1_000_000_u64).for_each(|n| {
        writeln!(lines, "{:016x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).expect("memory")
    });
    let (mut sent, mut held) = (0, 0);
    while sent < BYTES {
        if !send_some(&mut peer, &lines, &mut sent, BYTES) {
            held += 1;
            assert!(sent < BYTES / 2, "{sent} bytes were taken while nothing was processed");
            release.close();
        }
        let memory = inspector.memory();
        assert!(memory.spilled.file_bytes <= 256 << 10, "{memory:?}");
    }
    drop(peer);
    let (report, outcome) = running.finish();
    outcome.expect("drained");
    assert!(held > 0 && inspector.memory().spilled.failures > 0);
    assert_eq!(report.records, BYTES.div_ceil(17));
}
