//! A process that does not outlive its owner, the lines that it writes, each waited for with a deadline, and the processor
//! time that it took. Knows nothing of what the lines mean.
//!
//! The owner may be any thread. A thread `lab-lines` for each pipe reads lines as long as they are taken: like a terminal
//! that is held, it lets a process that writes more wait.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdin, ChildStdout, Command};
use std::time::Duration;

use rustix::process::{Pid, Signal as Kill, WaitId, WaitIdOptions, kill_process, waitid};

use super::sample::cpu_of;
use crate::error::{Error, Result};
use crate::sync::thread::{self, Thread};
use crate::sync::{Arc, Mailbox, Poison, Signal, StopToken};
use crate::time::{Clock, Moment};

/// The most lines that wait to be taken.
const LINES_MAX: usize = 16;

/// The time between two looks at a process that should end.
const LOOK: Duration = Duration::from_millis(2);

/// A running process. Dropping it kills the process and waits for it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    clock: Arc<dyn Clock>,
}

impl Process {
    /// Starts a command, whose pipes are those that it asks for.
    ///
    /// # Errors
    /// If the system cannot start it.
    pub fn start(command: &mut Command, clock: &Arc<dyn Clock>) -> Result<Process> {
        let program = command.get_program().display().to_string();
        let child = command.spawn();
        let child = child.map_err(|err| Error::io(format!("cannot start {program}"), err))?;
        Ok(Process { child, clock: Arc::clone(clock) })
    }

    /// Its number, for `/proc`.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its standard input, which must be piped; once.
    pub(super) fn input(&mut self) -> ChildStdin {
        self.child.stdin.take().expect("standard input is piped and taken once")
    }

    /// Its standard output, which must be piped; once.
    pub fn output(&mut self) -> ChildStdout {
        self.child.stdout.take().expect("standard output is piped and taken once")
    }

    /// The lines of its standard output, which must be piped; once.
    ///
    /// # Errors
    /// If the system gives no thread to read them.
    pub fn output_lines(&mut self) -> Result<Lines> {
        let output = self.output();
        Lines::start(output, &self.clock)
    }

    /// The lines of its standard error, which must be piped; once.
    ///
    /// # Errors
    /// If the system gives no thread to read them.
    pub fn error_lines(&mut self) -> Result<Lines> {
        let messages = self.child.stderr.take().expect("standard error is piped and taken once");
        Lines::start(messages, &self.clock)
    }

    /// True if it has ended.
    ///
    /// # Errors
    /// If the system cannot say.
    pub fn has_ended(&mut self) -> Result<bool> {
        let ended = self.child.try_wait();
        Ok(ended.map_err(|err| Error::io("cannot ask for a process", err))?.is_some())
    }

    /// Asks it to stop, as a service manager does.
    ///
    /// # Errors
    /// If it was waited for already.
    pub fn terminate(&self) -> Result<()> {
        let sent = kill_process(Pid::from_child(&self.child), Kill::TERM);
        sent.map_err(|err| Error::io("cannot stop a process", err.into()))
    }

    /// Waits for its end. Returns the processor time that it took, as the kernel counts it until the process is reaped.
    ///
    /// # Errors
    /// If it takes longer than `limit`, or the system cannot say.
    pub fn wait(&mut self, limit: Duration) -> Result<Duration> {
        let system = |err| Error::io("cannot wait for a process", err);
        let (never, until) = (Signal::new(), self.clock.now().plus(limit));
        let pid = Pid::from_child(&self.child);
        let ask = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        while waitid(WaitId::Pid(pid), ask).map_err(|err| system(err.into()))?.is_none() {
            if self.clock.now() >= until {
                return Err(Error::Failed(format!("process {pid:?} took longer than {limit:?}")));
            }
            self.clock.wait(&never, Some(self.clock.now().plus(LOOK)));
        }
        let cpu = cpu_of(self.id());
        self.child.wait().map_err(system)?;
        Ok(cpu)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; one that is stuck must not stay.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The lines that a process writes to a pipe.
#[derive(Debug)]
pub struct Lines {
    lines: Mailbox<String>,
    clock: Arc<dyn Clock>,
    reader: Option<Thread>,
    stop: StopToken,
}

/// The result of waiting for a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A line without its end.
    Line(String),
    /// The process has closed the pipe, or nobody wants to know any more: no line will come.
    End,
    /// No line came until the deadline.
    Silence,
}

impl Lines {
    fn start(pipe: impl Read + Send + 'static, clock: &Arc<dyn Clock>) -> Result<Lines> {
        let lines = Mailbox::new(LINES_MAX);
        let heard = lines.clone();
        let body = move || {
            for line in BufReader::new(pipe).lines().map_while(std::result::Result::ok) {
                if heard.send(line).is_err() {
                    break;
                }
            }
            heard.close();
        };
        let reader = thread::spawn("lab-lines", &Poison::new(), body);
        let reader = reader.map_err(|err| Error::io("cannot start a thread", err))?;
        let (clock, stop) = (Arc::clone(clock), StopToken::new());
        Ok(Lines { lines, clock, reader: Some(reader), stop })
    }

    /// From now on a stop is the end of the lines.
    pub(super) fn end_with(&mut self, stop: &StopToken) {
        stop.wakes(self.lines.signal());
        self.stop = stop.clone();
    }

    /// The next line.
    pub fn next(&self, deadline: Moment) -> Heard {
        loop {
            if let Some(line) = self.lines.try_recv() {
                return Heard::Line(line);
            }
            if self.stop.is_stopped() || self.lines.is_closed_and_empty() {
                return Heard::End;
            }
            if self.clock.now() >= deadline {
                return Heard::Silence;
            }
            self.clock.wait(self.lines.signal(), Some(deadline));
        }
    }

    /// All lines that are left, to the end of the pipe.
    ///
    /// # Errors
    /// If the end does not come until the deadline.
    pub fn rest(&self, deadline: Moment) -> Result<Vec<String>> {
        let mut rest = Vec::new();
        loop {
            match self.next(deadline) {
                Heard::Line(line) => rest.push(line),
                Heard::End => return Ok(rest),
                Heard::Silence => {
                    return Err(Error::Failed("a process did not end in time".to_owned()));
                }
            }
        }
    }
}

impl Drop for Lines {
    /// While the process runs, the reader waits for a line that may never come.
    fn drop(&mut self) {
        self.lines.close();
        self.reader.take().into_iter().for_each(Thread::abandon);
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use std::process::Stdio;

    use super::*;
    use crate::time::SystemClock;

    const LIMIT: Duration = Duration::from_secs(30);

    fn shell(script: &str) -> (Process, Lines, Arc<dyn Clock>) {
        let clock = SystemClock::new() as Arc<dyn Clock>;
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdout(Stdio::piped());
        let mut process = Process::start(&mut command, &clock).expect("there is a shell");
        let lines = process.output_lines().expect("a thread");
        (process, lines, clock)
    }

    #[test]
    fn lines_come_one_by_one_and_end() {
        let (mut process, lines, clock) = shell("echo one; echo two; echo; printf three");
        let deadline = clock.now().plus(LIMIT);
        assert_eq!(lines.next(deadline), Heard::Line("one".to_owned()));
        assert_eq!(lines.rest(deadline).expect("it ends"), ["two", "", "three"]);
        assert_eq!(lines.next(deadline), Heard::End);
        process.wait(LIMIT).expect("it ended");
    }

    #[test]
    fn a_silent_process_is_not_waited_for() {
        let (mut process, lines, clock) = shell("exec sleep 60");
        assert_eq!(lines.next(clock.now().plus(Duration::from_millis(5))), Heard::Silence);
        assert!(lines.rest(clock.now()).is_err());
        let late = process.wait(Duration::from_millis(5)).expect_err("it sleeps");
        assert!(late.to_string().contains("took longer than 5ms"), "{late}");
        assert!(!process.has_ended().expect("a child"));
        process.terminate().expect("it runs");
        process.wait(LIMIT).expect("it ended");
        assert_eq!(lines.next(clock.now().plus(LIMIT)), Heard::End);
    }

    #[test]
    fn a_stop_ends_the_wait_for_a_line() {
        let (_process, mut lines, clock) = shell("exec sleep 60");
        let stop = StopToken::new();
        lines.end_with(&stop);
        let other = stop.clone();
        let stopper = thread::spawn("stopper", &Poison::new(), move || other.stop());
        assert_eq!(lines.next(clock.now().plus(LIMIT)), Heard::End);
        stopper.expect("a thread").join();
    }

    #[test]
    fn processor_time_is_that_of_the_process() {
        let (mut process, _lines, _) = shell("i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done");
        assert!(process.wait(LIMIT).expect("it ends") > Duration::ZERO);
    }
}
