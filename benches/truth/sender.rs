//! The sender: an open loop over one connection. Line i is due `i ÷ rate` after the start and carries that time. A thread of
//! its own sends; the main thread may look how far it is.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;

use tidemill::internals::sync::thread::{self, Thread};
use tidemill::internals::sync::{AtomicU64, Mutex, Ordering, Poison};
use tidemill::time::tighten_timer_slack;

use crate::{Outcome, clock};

/// The time between two looks at what is due.
const TICK: u64 = 250_000;

/// From the order to send to the first line.
const LEAD: u64 = 50_000_000;

/// Words behind the time of each line, which then has 100 bytes.
const WORDS: &str =
    "the mill stands at the gate of the pond and turns with every tide that leaves it by day or";

/// A sender at work.
pub struct Sender {
    /// The time of the first line, in nanoseconds since the epoch.
    pub start: u64,
    /// The same for line `i` is `start + i * gap`.
    pub gap: u64,
    /// Lines of the whole run.
    pub lines: u64,
    sent: Arc<AtomicU64>,
    failed: Arc<Mutex<Option<String>>>,
    thread: Option<Thread>,
}

impl Sender {
    pub fn start(stream: TcpStream, rate: u64, seconds: u64) -> Outcome<Sender> {
        let (gap, lines) = (1_000_000_000 / rate.max(1), rate.saturating_mul(seconds));
        let start = clock::nanos() + LEAD;
        let (sent, failed) = (Arc::<AtomicU64>::default(), Arc::<Mutex<Option<String>>>::default());
        let (counter, why) = (Arc::clone(&sent), Arc::clone(&failed));
        stream.set_nodelay(true)?;
        let body = move || {
            let lines = Lines { start, gap, count: lines };
            if let Err(err) = lines.send(stream, &counter) {
                *why.lock() = Some(err.to_string());
            }
        };
        let thread = Some(thread::spawn("sender", &Poison::new(), body)?);
        Ok(Sender { start, gap, lines, sent, failed, thread })
    }

    /// Lines that were handed to the kernel.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// The time of the last line.
    pub fn end(&self) -> u64 {
        self.start + self.gap * self.lines
    }

    /// Waits for the last line.
    ///
    /// # Errors
    /// If the connection broke.
    pub fn finish(&mut self) -> Outcome<()> {
        self.thread.take().into_iter().for_each(Thread::join);
        match self.failed.lock().take() {
            Some(why) => Err(why.into()),
            None => Ok(()),
        }
    }
}

struct Lines {
    start: u64,
    gap: u64,
    count: u64,
}

impl Lines {
    /// Sends what is due at each tick, in one write, and closes the connection at the end.
    fn send(&self, mut stream: TcpStream, sent: &AtomicU64) -> std::io::Result<()> {
        tighten_timer_slack();
        let (mut next, mut text) = (0, Vec::new());
        while next < self.count {
            let now = clock::nanos();
            let due = now.checked_sub(self.start).map_or(0, |since| since / self.gap + 1);
            let due = due.min(self.count);
            text.clear();
            for line in next..due {
                writeln!(text, "{:019} {WORDS}", self.start + line * self.gap)?;
            }
            stream.write_all(&text)?;
            next = next.max(due);
            sent.store(next, Ordering::Relaxed);
            clock::wait_until(now + TICK);
        }
        Ok(())
    }
}

impl Drop for Sender {
    /// After an error the program may not read any more.
    fn drop(&mut self) {
        self.thread.take().into_iter().for_each(Thread::abandon);
    }
}
