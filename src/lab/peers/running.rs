//! A peer that runs: its processes as one, and what it has counted or written so far. Main thread. Must not know which
//! program it is. Dropping it ends its processes.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::lab::process::{Heard, Lines, Process};
use crate::lab::sample::{Sample, cpu_of};
use crate::sync::{Arc, Signal, StopToken};
use crate::time::{Clock, Moment};

/// The time between two looks at a growing file.
const LOOK: Duration = Duration::from_millis(2);

/// The longest time that a process may take to end once it has said its number.
const END_MAX: Duration = Duration::from_secs(10);

/// Bytes of a file that are read at a time to count its lines.
const PIECE_BYTES: usize = 256 << 10;

/// The way in which a peer shows what it has taken.
pub(super) enum Counted {
    /// It ends once its connection is closed, and its last words are the number of lines.
    AtTheEnd(Lines),
    /// It says `count N` again and again: all lines so far.
    Always(Lines),
    /// It writes every line to this file.
    InFile(PathBuf),
}

/// Lines and bytes that were sent to a peer in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) lines: u64,
    pub(super) bytes: u64,
}

/// A peer's processes.
pub(super) struct Running {
    processes: Vec<Process>,
    counted: Counted,
    clock: Arc<dyn Clock>,
    /// Processor time of processes that have ended.
    ended_cpu: Duration,
    /// Ends every wait at once.
    stop: StopToken,
}

impl Running {
    pub(super) fn new(
        processes: Vec<Process>,
        counted: Counted,
        clock: &Arc<dyn Clock>,
    ) -> Running {
        Running {
            processes,
            counted,
            clock: Arc::clone(clock),
            ended_cpu: Duration::ZERO,
            stop: StopToken::new(),
        }
    }

    /// From now on a stop ends every wait for it.
    pub(super) fn end_with(&mut self, stop: &StopToken) {
        if let Counted::AtTheEnd(lines) | Counted::Always(lines) = &mut self.counted {
            lines.end_with(stop);
        }
        self.stop = stop.clone();
    }

    /// All its processes at this moment.
    pub(super) fn sample(&self) -> Sample {
        let samples = self.processes.iter().map(|process| Sample::of(process.id()));
        samples.fold(Sample::default(), |all, one| Sample {
            anonymous_bytes: all.anonymous_bytes + one.anonymous_bytes,
            peak_bytes: all.peak_bytes + one.peak_bytes,
            threads: all.threads + one.threads,
            switches: all.switches + one.switches,
            files: all.files + one.files,
        })
    }

    /// Processor time of all its processes so far.
    pub(super) fn cpu(&self) -> Duration {
        let running = self.processes.iter().map(|process| cpu_of(process.id())).sum::<Duration>();
        running + self.ended_cpu
    }

    /// Waits until it has taken everything, and checks that it has counted right.
    ///
    /// # Errors
    /// If it has not until the deadline, ends, or counts something else.
    pub(super) fn wait_for(&mut self, all: Amount, deadline: Moment) -> Result<()> {
        let counted = match &self.counted {
            Counted::AtTheEnd(lines) => last_number(lines, deadline)?,
            Counted::Always(lines) => number_of_at_least(lines, all.lines, deadline)?,
            Counted::InFile(path) => {
                self.grows_to(path, all.bytes, deadline)?;
                all.lines
            }
        };
        if counted != all.lines {
            let text = format!("{} lines were sent and the peer counted {counted}", all.lines);
            return Err(Error::Failed(text));
        }
        if let Counted::AtTheEnd(_) = self.counted {
            for mut process in self.processes.drain(..) {
                self.ended_cpu += process.wait(END_MAX)?;
            }
        }
        Ok(())
    }

    fn grows_to(&self, path: &Path, bytes: u64, deadline: Moment) -> Result<()> {
        let stopped = Signal::new();
        self.stop.wakes(&stopped);
        loop {
            let there = fs::metadata(path).map_or(0, |file| file.len());
            if there >= bytes {
                return Ok(());
            }
            if self.clock.now() >= deadline || self.stop.is_stopped() {
                let text =
                    format!("the peer had written {there} of {bytes} bytes at the end of the wait");
                return Err(Error::Failed(text));
            }
            self.clock.wait(&stopped, Some(self.clock.now().plus(LOOK)));
        }
    }

    /// Checks what was written, where counting takes time that belongs to no run.
    ///
    /// # Errors
    /// If the file cannot be read or holds another number of lines.
    pub(super) fn check(&self, all: Amount) -> Result<()> {
        let Counted::InFile(path) = &self.counted else { return Ok(()) };
        let written = lines_of(path)?;
        if written == all.lines {
            return Ok(());
        }
        Err(Error::Failed(format!("{} lines were sent and the peer wrote {written}", all.lines)))
    }
}

/// The number on the last line before the end.
fn last_number(lines: &Lines, deadline: Moment) -> Result<u64> {
    let said = lines.rest(deadline)?;
    let last = said.last().map(String::as_str).unwrap_or_default();
    last.trim().parse().map_err(|_| Error::Failed(format!("the peer said `{last}` for a number")))
}

/// The first number behind `count` that is at least this.
fn number_of_at_least(lines: &Lines, least: u64, deadline: Moment) -> Result<u64> {
    let mut last = 0;
    while last < least {
        match lines.next(deadline) {
            Heard::Line(line) => last = number_behind_count(&line).unwrap_or(last),
            Heard::End => return Err(Error::Failed("the peer ended before its time".to_owned())),
            Heard::Silence => {
                let text =
                    format!("the peer had counted {last} of {least} lines at the end of the wait");
                return Err(Error::Failed(text));
            }
        }
    }
    Ok(last)
}

fn number_behind_count(line: &str) -> Option<u64> {
    line.strip_prefix("count ")?.trim().parse().ok()
}

fn lines_of(path: &Path) -> Result<u64> {
    let refused = |err| Error::io(format!("cannot read {}", path.display()), err);
    let (mut file, mut piece, mut lines) =
        (File::open(path).map_err(refused)?, vec![0; PIECE_BYTES], 0);
    loop {
        match file.read(&mut piece).map_err(refused)? {
            0 => return Ok(lines),
            len => lines += memchr::memchr_iter(b'\n', &piece[..len]).count() as u64,
        }
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;
    use crate::time::SystemClock;

    /// A shell as a peer that shows what it has taken in this way.
    fn shell(script: &str, counted: fn(Lines) -> Counted) -> (Running, Moment) {
        let clock = SystemClock::new() as Arc<dyn Clock>;
        let mut command = Command::new("sh");
        let mut process =
            Process::start(command.args(["-c", script]).stdout(Stdio::piped()), &clock)
                .expect("a shell");
        let lines = process.output_lines().expect("a thread");
        let deadline = clock.now().plus(Duration::from_secs(60));
        (Running::new(vec![process], counted(lines), &clock), deadline)
    }

    fn amount(lines: u64) -> Amount {
        Amount { lines, bytes: 10 * lines }
    }

    #[test]
    fn a_number_at_the_end_must_be_that_of_what_was_sent() {
        let check = |script, expected: Result<(), &str>| {
            let (mut peer, deadline) = shell(script, Counted::AtTheEnd);
            let found = peer.wait_for(amount(7), deadline).map_err(|err| err.to_string());
            assert_eq!(found, expected.map_err(str::to_owned), "{script}");
        };
        check("echo ' 7'", Ok(()));
        check("echo 6", Err("7 lines were sent and the peer counted 6"));
        check("echo no", Err("the peer said `no` for a number"));
        check(":", Err("the peer said `` for a number"));
    }

    #[test]
    fn counts_are_heard_until_all_is_there() {
        let (mut peer, deadline) =
            shell("echo count 3; echo x; echo count 7; sleep 60", Counted::Always);
        peer.wait_for(amount(7), deadline).expect("it says 7");
        assert!(peer.sample().threads > 0 && peer.sample().peak_bytes > 0);
        let (mut peer, deadline) = shell("echo count 3; echo count 9; sleep 60", Counted::Always);
        let err = peer.wait_for(amount(7), deadline).expect_err("too many");
        assert!(err.to_string().ends_with("the peer counted 9"), "{err}");
        let (mut peer, deadline) = shell("echo count 3", Counted::Always);
        assert!(peer.wait_for(amount(7), deadline).is_err(), "it ended");
    }

    #[test]
    fn a_file_must_hold_every_line() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("out");
        let clock = SystemClock::new() as Arc<dyn Clock>;
        let mut peer = Running::new(Vec::new(), Counted::InFile(path.clone()), &clock);
        let late = peer.wait_for(amount(1), clock.now()).expect_err("there is no file");
        assert!(late.to_string().contains("0 of 10 bytes"), "{late}");
        fs::write(&path, "one\ntwo\nthr").expect("a file");
        peer.wait_for(amount(1), clock.now()).expect("there are 11 bytes");
        let wrong = peer.check(amount(1)).expect_err("two lines");
        assert_eq!(wrong.to_string(), "1 lines were sent and the peer wrote 2");
        peer.check(amount(2)).expect("two lines");
    }
}
