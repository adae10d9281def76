//! `Lines`: standard error behind a queue. The thread `lines` is the only one that writes; everybody else only puts lines in
//! the queue and never waits for a reader. A full queue drops lines and counts them. It does not know what is in a line.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};

use crate::sync::thread::{self, Thread};
use crate::sync::{Arc, Mutex, Poison, Signal};
use crate::time::{Clock, Moment, SystemClock};

/// Bytes that wait for the reader of standard error.
const WAITING_MAX: usize = 1 << 20;

/// The longest time that the end of the program waits for the lines that are left, where nobody gave a moment.
const LAST_LINES: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(super) struct Lines {
    shared: Arc<Shared>,
    clock: Arc<dyn Clock>,
    /// True if there is a thread that writes; where the operating system gives none, lines are written where they come.
    behind: bool,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    /// Raised when there is something to write.
    filled: Signal,
    /// Raised when all is written.
    written: Signal,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: VecDeque<String>,
    /// Of the lines, and of the one that is being written.
    bytes: usize,
    /// Lines that found no room since the last one that did.
    dropped: u64,
    /// When the program ends, whether or not all is written.
    ends_by: Option<Moment>,
}

impl Lines {
    /// Those of standard error.
    pub(super) fn stderr() -> &'static Lines {
        static STDERR: OnceLock<Lines> = OnceLock::new();
        // A descriptor of its own: who writes to `io::stderr` has its lock meanwhile.
        STDERR.get_or_init(|| match io::stderr().as_fd().try_clone_to_owned() {
            Ok(own) => Lines::new(Patient(File::from(own)), SystemClock::new()),
            Err(_) => Lines::new(io::stderr(), SystemClock::new()),
        })
    }

    pub(super) fn new(to: impl Write + Send + 'static, clock: Arc<dyn Clock>) -> Self {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let writer = thread::spawn("lines", &Poison::new(), move || write(&theirs, to));
        // It may be stuck in a write for good, and ends with the process.
        let behind = writer.map(Thread::abandon).is_ok();
        Lines { shared, clock, behind }
    }

    /// Puts a line in the queue, behind the words of `dropped` about the lines that had no room before it.
    pub(super) fn push(&self, line: String, dropped: impl Fn(u64) -> String) {
        if !self.behind {
            return super::say(&line);
        }
        let mut waiting = self.shared.waiting.lock();
        waiting.push(Some(line), dropped);
        drop(waiting);
        self.shared.filled.raise();
    }

    /// The program ends in this time at the latest.
    pub(super) fn end_within(&self, time: Duration) {
        self.shared.waiting.lock().ends_by = Some(self.clock.now().plus(time));
    }

    /// Waits until all is written, at most until the program ends; `dropped` as for [`push`](Lines::push).
    pub(super) fn finish(&self, dropped: impl Fn(u64) -> String) {
        let now = self.clock.now();
        let mut waiting = self.shared.waiting.lock();
        waiting.push(None, dropped);
        let until = waiting.ends_by.unwrap_or_else(|| now.plus(LAST_LINES));
        drop(waiting);
        self.shared.filled.raise();
        self.written_by(until);
    }

    /// Waits until all is written, at most this long.
    pub(super) fn written_within(&self, time: Duration) {
        self.written_by(self.clock.now().plus(time));
    }

    fn written_by(&self, until: Moment) {
        let all_is_written = || !self.behind || self.shared.waiting.lock().bytes == 0;
        while !all_is_written() && self.clock.now() < until {
            self.clock.wait(&self.shared.written, Some(until));
        }
    }
}

impl Waiting {
    fn push(&mut self, line: Option<String>, dropped: impl Fn(u64) -> String) {
        let notice = (self.dropped > 0).then(|| dropped(self.dropped));
        let lines = || notice.iter().chain(&line);
        let bytes: usize = lines().map(|line| line.len() + 1).sum();
        // One line alone may be as long as it is.
        if self.bytes > 0 && self.bytes + bytes > WAITING_MAX {
            self.dropped += u64::from(line.is_some());
            return;
        }
        self.dropped = 0;
        self.bytes += bytes;
        self.lines.extend(notice);
        self.lines.extend(line);
    }
}

/// The thread `lines`. It ends with the process.
fn write(shared: &Shared, mut to: impl Write) {
    loop {
        let line = shared.waiting.lock().lines.pop_front();
        let Some(mut line) = line else {
            shared.written.raise();
            shared.filled.wait();
            continue;
        };
        line.push('\n');
        // A closed standard error is no reason to stop.
        let _ = to.write_all(line.as_bytes()).and_then(|()| to.flush());
        shared.waiting.lock().bytes -= line.len();
    }
}

/// A file that may be told not to block, as a terminal or pipe that somebody shares is: it is waited for.
struct Patient(File);

impl Write for Patient {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.0.write(bytes) {
                Err(err) if err.kind() == ErrorKind::WouldBlock => {
                    poll(&mut [PollFd::new(&self.0, PollFlags::OUT)], None)?;
                }
                written => return written,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;
    use crate::time::ManualClock;

    fn notice(dropped: u64) -> String {
        format!("{dropped} dropped")
    }

    /// Lines of these lengths while nobody reads, then a short one after `read` of them are read: what is in the queue.
    fn check(lengths: &[usize], read: usize, expected: &[&str]) {
        let mut waiting = Waiting::default();
        let line = |length: &usize| Some("x".repeat(length - 1));
        lengths.iter().for_each(|length| waiting.push(line(length), notice));
        for line in waiting.lines.drain(..read) {
            waiting.bytes -= line.len() + 1;
        }
        waiting.push(Some("last".to_owned()), notice);
        let name = |line: &String| match line.trim_matches('x') {
            "" => "x".to_owned(),
            other => other.to_owned(),
        };
        let lines: Vec<String> = waiting.lines.iter().map(name).collect();
        assert_eq!(lines, expected, "{lengths:?} {read}");
        let bytes: usize = waiting.lines.iter().map(|line| line.len() + 1).sum();
        assert_eq!(waiting.bytes, bytes);
    }

    #[test]
    fn what_has_no_room_is_dropped_and_counted() {
        check(&[], 0, &["last"]);
        check(&[9, 9], 1, &["x", "last"]);
        check(&[WAITING_MAX], 0, &["x"]);
        check(&[WAITING_MAX - 5], 0, &["x", "last"]);
        check(&[WAITING_MAX, 9, 9], 1, &["2 dropped", "last"]);
        check(&[WAITING_MAX - 9, 9, 9, 9], 1, &["x", "2 dropped", "last"]);
        check(&[WAITING_MAX - 9, 10, 9], 0, &["x"]);
        // One that is too long for the queue is not lost where it is alone.
        check(&[2 * WAITING_MAX], 0, &["x"]);
        check(&[9, 2 * WAITING_MAX], 0, &["x", "1 dropped", "last"]);
        check(&[9, 2 * WAITING_MAX], 1, &["1 dropped", "last"]);
    }

    /// A reader that never reads.
    struct Nobody(Signal);

    impl Write for Nobody {
        fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
            self.0.raise();
            Signal::new().wait();
            Ok(0)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_end_waits_no_longer_than_it_may() {
        let clock = Arc::new(ManualClock::new());
        let at_it = Signal::new();
        let theirs = Arc::<ManualClock>::clone(&clock);
        let lines = Lines::new(Nobody(at_it.clone()), theirs);
        lines.end_within(Duration::from_secs(2));
        lines.push("a line".to_owned(), notice);
        at_it.wait();
        let ends = Poison::new();
        let finish = thread::spawn("finish", &ends, move || lines.finish(notice));
        clock.wait_for_sleepers(1);
        clock.advance(Duration::from_secs(2));
        finish.expect("a thread").join();
    }

    #[test]
    fn the_end_waits_for_the_last_line() {
        let (reader, writer) = io::pipe().expect("a pipe");
        let lines = Lines::new(writer, SystemClock::new());
        lines.push("a line".to_owned(), notice);
        lines.finish(notice);
        let mut said = [0; 7];
        io::Read::read_exact(&mut { reader }, &mut said).expect("written");
        assert_eq!(&said, b"a line\n");
    }
}
