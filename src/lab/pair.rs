//! A run's two processes as their parent sees them: a receiver and, once it listens, a sender. Main thread.
//!
//! ```text
//! parent ── Role ──▶ receiver ── Ready(address) ──▶ parent ── Role ──▶ sender ── Started ──▶ parent ── BEGIN ──▶ receiver
//!                        ◀════════════ TCP over loopback ═══════════════╝
//!                    receiver ── Received ──▶ parent ◀── Sent ── sender
//! ```

use std::io::Write;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::time::Duration;

use super::process::{Heard, Lines, Process};
use super::protocol::{BEGIN, ChildMessage, Role, Sent};
use crate::error::{Error, Result};
use crate::sync::{Arc, StopToken};
use crate::time::{Clock, Moment};

/// The hidden subcommand that a child is started with.
pub(crate) const SUBCOMMAND: &str = "compare-child";

/// This program again, in a role.
pub(super) struct ChildProcess {
    process: Process,
    /// Held open: its end tells the child to stop.
    stdin: ChildStdin,
    lines: Lines,
}

impl ChildProcess {
    /// Starts the program in this role.
    ///
    /// # Errors
    /// If the system cannot start it.
    pub(super) fn start(start: &Start<'_>, role: &Role) -> Result<ChildProcess> {
        let Start { program, clock, stop, .. } = *start;
        let mut command = Command::new(program);
        command.arg(SUBCOMMAND).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = Process::start(&mut command, clock)?;
        let (stdin, mut lines) = (process.input(), process.output_lines()?);
        lines.end_with(stop);
        let role = serde_json::to_string(role).expect("plain data");
        let mut child = ChildProcess { process, stdin, lines };
        writeln!(child.stdin, "{role}")
            .map_err(|err| Error::io(format!("cannot start {}", program.display()), err))?;
        Ok(child)
    }

    /// The next message.
    ///
    /// # Errors
    /// What failed in the child, or that it said nothing until the deadline, or ended.
    pub(super) fn hear(&self, deadline: Moment) -> Result<ChildMessage> {
        let failed = |text: &str| Err(Error::Failed(text.to_owned()));
        match self.lines.next(deadline) {
            Heard::End => failed("the child ended before its time"),
            Heard::Silence => failed("the child did not end in time"),
            Heard::Line(line) => match serde_json::from_str(&line) {
                Ok(ChildMessage::Failed(text)) => Err(Error::Failed(text)),
                Ok(message) => Ok(message),
                Err(err) => failed(&format!("the child said nonsense: {err}")),
            },
        }
    }
}

/// The settings of a pair that do not depend on what is measured.
pub(super) struct Start<'a> {
    pub(super) program: &'a Path,
    /// The longest time that either process may take until it is ready.
    pub(super) grace: Duration,
    pub(super) clock: &'a Arc<dyn Clock>,
    /// Ends every wait for a process at once.
    pub(super) stop: &'a StopToken,
}

/// A receiver and a sender whose connections are made.
pub(super) struct Pair {
    receiver: ChildProcess,
    sender: ChildProcess,
    /// The moment when all connections were made.
    pub(super) started: Moment,
    /// The same by the wall clock, as the sender tells it.
    pub(super) wall_nanos: u64,
}

impl Pair {
    /// Starts the receiver, then the sender in the role that `send` makes of the receiver's address and process.
    ///
    /// # Errors
    /// What failed in a child, or that one was not ready in time.
    pub(super) fn start(
        start: &Start<'_>,
        receive: &Role,
        send: impl FnOnce(String, u32) -> Role,
    ) -> Result<Pair> {
        let Start { grace, clock, .. } = *start;
        let mut receiver = ChildProcess::start(start, receive)?;
        let ChildMessage::Ready { address } = receiver.hear(clock.now().plus(grace))? else {
            return Err(unexpected("receiver"));
        };
        let sender = ChildProcess::start(start, &send(address, receiver.process.id()))?;
        let ChildMessage::Started { wall_nanos } = sender.hear(clock.now().plus(grace))? else {
            return Err(unexpected("sender"));
        };
        // A child that is gone cannot be told; what it said last explains it.
        let _ = writeln!(receiver.stdin, "{BEGIN}");
        Ok(Pair { receiver, sender, started: clock.now(), wall_nanos })
    }

    /// The receiver's process, for `/proc`.
    pub(super) fn receiver(&self) -> u32 {
        self.receiver.process.id()
    }

    /// Waits for the reports of both, and checks that every line arrived.
    ///
    /// # Errors
    /// What failed in a child, that one did not end until the deadline, or that lines are missing.
    pub(super) fn finish(self, deadline: Moment) -> Result<(Sent, ChildMessage)> {
        let ChildMessage::Sent(sent) = self.sender.hear(deadline)? else {
            return Err(unexpected("sender"));
        };
        let report = self.receiver.hear(deadline)?;
        match report.records() {
            None => Err(unexpected("receiver")),
            Some(records) if records != sent.lines => {
                Err(Error::Failed(format!("{} lines were sent and {records} counted", sent.lines)))
            }
            Some(_) => Ok((sent, report)),
        }
    }
}

pub(super) fn unexpected(who: &str) -> Error {
    Error::Failed(format!("the {who} answered something else"))
}
