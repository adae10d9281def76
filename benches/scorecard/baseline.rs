//! The bare loops: the cost of each job without an engine. One thread, one socket, one buffer; main thread of a child.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{IoSliceMut, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use rustix::net::{RecvFlags, recv};
use tidemill::internals::lab::baseline::{LineCount, READ_BYTES};
use tidemill::internals::sync::thread::spawn;
use tidemill::internals::sync::{Mutex, Poison, Signal};
use tidemill::internals::time::{RecurringTimer, Schedule};
use tidemill::time::{Clock, Interval, SystemClock};

use crate::Outcome;
use crate::measure::{Figures, Stopwatch};
use crate::words::Words;

/// The buffers that one read of [`kept`] fills.
type Buffers = [Vec<u8>; 4];

/// Throws everything away in the kernel: what the sender alone can do.
pub fn discard(address: &str) -> Outcome<Figures> {
    let (watch, mut figures) = (Stopwatch::start(), Figures::default());
    let stream = TcpStream::connect(address)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match recv(&stream, &mut buffer[..], RecvFlags::TRUNC) {
            Ok((_, 0)) => break,
            Ok((_, len)) => figures.bytes += len as u64,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    watch.stop(&mut figures);
    Ok(figures)
}

/// Counts line feeds.
pub fn lines(address: &str) -> Outcome<Figures> {
    let (watch, mut figures) = (Stopwatch::start(), Figures::default());
    let mut count = LineCount::default();
    count.read_all(&mut TcpStream::connect(address)?)?;
    (figures.records, figures.bytes) = (count.records, count.bytes);
    watch.stop(&mut figures);
    Ok(figures)
}

/// Counts line feeds and keeps what came for an interval, as an engine must whose batches are that long: buffers of
/// 64 KiB, four to a read, used again when their interval is over. What this costs more than [`lines`] is the memory's.
pub fn kept(address: &str, interval: Interval) -> Outcome<Figures> {
    let (watch, mut figures) = (Stopwatch::start(), Figures::default());
    let mut stream = TcpStream::connect(address)?;
    let (mut kept, mut free) = (VecDeque::<(u64, Buffers)>::new(), Vec::new());
    loop {
        let batch = interval_of(watch.seconds(), interval);
        while kept.front().is_some_and(|(of, _)| *of < batch) {
            free.extend(kept.pop_front().map(|(_, buffers)| buffers));
        }
        let fresh = || std::array::from_fn(|_| vec![0; READ_BYTES / 4]);
        let mut buffers = free.pop().unwrap_or_else(fresh);
        let len =
            stream.read_vectored(&mut buffers.each_mut().map(|part| IoSliceMut::new(part)))?;
        if len == 0 {
            break;
        }
        figures.bytes += len as u64;
        let mut left = len;
        for buffer in &buffers {
            let part = left.min(buffer.len());
            figures.records += memchr::memchr_iter(b'\n', &buffer[..part]).count() as u64;
            left -= part;
        }
        kept.push_back((batch, buffers));
    }
    watch.stop(&mut figures);
    Ok(figures)
}

fn interval_of(seconds: f64, interval: Interval) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small number")]
    let number = (seconds / interval.as_duration().as_secs_f64()) as u64;
    number
}

/// Counts words and hands out the sorted rows of each interval.
pub fn words(address: &str, interval: Interval) -> Outcome<Figures> {
    let (watch, mut figures) = (Stopwatch::start(), Figures::default());
    let (mut words, mut next) = (Words::new(), interval.as_duration().as_secs_f64());
    let (mut stream, mut buffer) = (TcpStream::connect(address)?, vec![0; READ_BYTES]);
    loop {
        let len = stream.read(&mut buffer)?;
        if len == 0 {
            break;
        }
        words.feed(&buffer[..len]);
        let now = watch.seconds();
        if now >= next {
            words.report(&mut figures.sum);
            next = now + interval.as_duration().as_secs_f64();
        }
        // The engine knows how many records a batch has, so the rival counts them too.
        figures.records += memchr::memchr_iter(b'\n', &buffer[..len]).count() as u64;
        figures.bytes += len as u64;
    }
    words.end();
    words.report(&mut figures.sum);
    watch.stop(&mut figures);
    Ok(figures)
}

/// Two threads that wake each other in turn: microseconds of one hand-over. Beside it, the same after a pause, in which
/// both threads slept and the cores with them, as between two ticks.
pub fn hand_over(rounds: u64) -> Outcome<Figures> {
    let micros = ping_pong(rounds, Duration::ZERO)?;
    let beside = ping_pong(rounds / 20, Duration::from_millis(9))?;
    Ok(Figures { records: rounds, micros, beside, ..Figures::default() })
}

fn ping_pong(rounds: u64, pause: Duration) -> Outcome<Vec<f64>> {
    let (turn, poison) = (Arc::new(AtomicU64::new(0)), Poison::new());
    let (clock, here) = (SystemClock::new(), std::thread::current());
    let (theirs, (introduce, introduced)) = (Arc::clone(&turn), mpsc::channel());
    let other = spawn("hand-over", &poison, move || {
        introduce.send(std::thread::current()).expect("the other side waits for it");
        for round in 0..rounds {
            wait_for(&theirs, 2 * round + 1);
            theirs.store(2 * round + 2, Ordering::SeqCst);
            here.unpark();
        }
    })?;
    let there = introduced.recv()?;
    let (mut micros, signal) = (Vec::new(), Signal::new());
    for round in 0..rounds {
        clock.wait(&signal, Some(clock.now().plus(pause)));
        let start = clock.now();
        turn.store(2 * round + 1, Ordering::SeqCst);
        there.unpark();
        wait_for(&turn, 2 * round + 2);
        micros.push(clock.now().since(start).as_secs_f64() * 1e6 / 2.0);
    }
    other.join();
    Ok(micros)
}

fn wait_for(turn: &AtomicU64, value: u64) {
    while turn.load(Ordering::SeqCst) < value {
        std::thread::park();
    }
}

/// The lateness of a recurring timer whose callbacks do nothing: what the operating system adds to every tick.
pub fn timer(interval: Interval, ticks: usize) -> Outcome<Vec<f64>> {
    let (clock, poison) = (SystemClock::new(), Poison::new());
    let schedule = Schedule::aligned(clock.as_ref(), interval);
    let late: Arc<Mutex<Vec<f64>>> = Arc::default();
    let (seen, now) = (Arc::clone(&late), Arc::clone(&clock));
    let tick = move |label| {
        let late = now.now().since(schedule.due_at_label(label));
        seen.lock().push(late.as_secs_f64() * 1e6);
    };
    let timer = RecurringTimer::start("bare", Arc::clone(&clock) as _, schedule, &poison, tick)?;
    let enough = interval.as_duration() * u32::try_from(ticks)? + Duration::from_millis(5);
    let signal = Signal::new();
    clock.wait(&signal, Some(clock.now().plus(enough)));
    timer.stop();
    let late = late.lock().clone();
    Ok(late)
}

/// Accepts on a free port, polls everything that came and counts line feeds: what connections cost any event loop.
pub fn poller() -> Outcome<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    writeln!(std::io::stdout(), "{}", listener.local_addr()?)?;
    Ok(LineCount::default().poll(listener, None)?)
}

/// Listens and writes what comes to files in a directory, one for each interval, which is synced before it gets its name:
/// what the job `lines` into the file sink costs a single thread.
pub fn to_files(address: &str, directory: &str, interval: Interval) -> Outcome<()> {
    let (listener, directory) = (TcpListener::bind(address)?, Path::new(directory));
    let (aside, watch, mut buffer) =
        (directory.join(".aside"), Stopwatch::start(), vec![0; READ_BYTES]);
    let mut number = 0;
    loop {
        let mut stream = listener.accept()?.0;
        let mut open: Option<(u64, File)> = None;
        loop {
            let len = stream.read(&mut buffer)?;
            let now = interval_of(watch.seconds(), interval);
            if let Some((_, file)) = open.take_if(|(of, _)| len == 0 || *of < now) {
                file.sync_data()?;
                fs::rename(&aside, directory.join(number.to_string()))?;
                File::open(directory)?.sync_all()?;
                number += 1;
            }
            if len == 0 {
                break;
            }
            let (_, file) = match &mut open {
                Some(open) => open,
                none => none.insert((now, File::create(&aside)?)),
            };
            file.write_all(&buffer[..len])?;
        }
    }
}
