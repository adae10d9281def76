//! A child process and the lines that it says, each waited for with a deadline. Dropping it kills the child and waits for
//! it. Used by the main thread; the thread `compare-out` of each child reads its lines.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use super::protocol::{BEGIN, ChildMessage, Role};
use crate::error::{Error, Result};
use crate::sync::thread::{self, Thread};
use crate::sync::{Arc, Mailbox, Poison};
use crate::time::{Clock, Moment};

/// The hidden subcommand that a child is started with.
pub(crate) const SUBCOMMAND: &str = "compare-child";

/// Lines that wait to be looked at; a child says fewer.
const LINES_MAX: usize = 16;

/// A running child.
pub(super) struct Process {
    child: Child,
    /// Held open: its end tells the child to stop.
    stdin: ChildStdin,
    lines: Mailbox<String>,
    clock: Arc<dyn Clock>,
    reader: Option<Thread>,
}

impl Process {
    /// Starts `program` in this role.
    pub(super) fn start(program: &Path, role: &Role, clock: &Arc<dyn Clock>) -> Result<Process> {
        let system = |err| Error::io(format!("cannot start {}", program.display()), err);
        let mut child = Command::new(program)
            .arg(SUBCOMMAND)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(system)?;
        let mut stdin = child.stdin.take().expect("it is piped");
        let stdout = child.stdout.take().expect("it is piped");
        let lines = Mailbox::new(LINES_MAX);
        let heard = lines.clone();
        let body = move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if heard.send(line).is_err() {
                    break;
                }
            }
            heard.close();
        };
        let reader = thread::spawn("compare-out", &Poison::new(), body).map_err(system);
        let role = serde_json::to_string(role).expect("plain data");
        let told = writeln!(stdin, "{role}").map_err(system);
        let (reader, failure) = match (reader, told) {
            (Ok(reader), Ok(())) => (Some(reader), None),
            (Ok(reader), Err(err)) => (Some(reader), Some(err)),
            (Err(err), _) => (None, Some(err)),
        };
        let process = Process { child, stdin, lines, clock: Arc::clone(clock), reader };
        failure.map_or(Ok(process), Err)
    }

    /// Its number, for `/proc`.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Tells it that all connections are made.
    pub(super) fn begin(&mut self) {
        // A child that is gone cannot be told; what it said last explains it.
        let _ = writeln!(self.stdin, "{BEGIN}");
    }

    /// The next thing it says.
    ///
    /// # Errors
    /// What failed in the child, or that it said nothing until the deadline, or ended.
    pub(super) fn hear(&self, deadline: Moment) -> Result<ChildMessage> {
        loop {
            if let Some(line) = self.lines.try_recv() {
                return match serde_json::from_str(&line) {
                    Ok(ChildMessage::Failed(text)) => Err(Error::Failed(text)),
                    Ok(said) => Ok(said),
                    Err(err) => Err(Error::Failed(format!("the child said nonsense: {err}"))),
                };
            }
            if self.lines.is_closed_and_empty() {
                return Err(Error::Failed("the child ended before its time".to_owned()));
            }
            if self.clock.now() >= deadline {
                return Err(Error::Failed("the child did not end in time".to_owned()));
            }
            self.clock.wait(self.lines.signal(), Some(deadline));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // After its last line a child only has to exit; one that is stuck must not stay.
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.lines.close();
        self.reader.take().into_iter().for_each(Thread::join);
    }
}
