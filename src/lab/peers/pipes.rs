//! Peers that are pipes: a small tool that dials and reads, and another one that counts lines. Main thread. They end by
//! themselves once the sender has closed, and say the number of lines.

use std::process::{Command, Stdio};

use super::running::{Counted, Running};
use super::{Found, PeerRow, Setting, Starter, version};
use crate::error::Result;
use crate::lab::process::Process;
use crate::sync::Arc;
use crate::time::Clock;

pub(super) const NC_WC: PeerRow = PeerRow {
    name: "nc | wc -l",
    install: "apt install netcat-openbsd",
    dials: true,
    warms_up: false,
    find: || found(&NC, &WC),
};

pub(super) const NC_MAWK: PeerRow = PeerRow {
    name: "nc | mawk",
    install: "apt install netcat-openbsd mawk",
    dials: true,
    warms_up: false,
    find: || found(&NC, &MAWK),
};

pub(super) const SOCAT_WC: PeerRow = PeerRow {
    name: "socat | wc -l",
    install: "apt install socat",
    dials: true,
    warms_up: false,
    find: || found(&SOCAT, &WC),
};

/// A program of a pipe.
struct Tool {
    program: &'static str,
    /// Its words; `PORT` is replaced.
    words: &'static [&'static str],
    /// The words that ask for its version, and what the line with the version holds.
    asks: &'static [&'static str],
    marker: &'static str,
}

const NC: Tool =
    Tool { program: "nc", words: &["127.0.0.1", "PORT"], asks: &["-h"], marker: "netcat" };

const SOCAT: Tool = Tool {
    program: "socat",
    words: &["-u", "TCP:127.0.0.1:PORT", "-"],
    asks: &["-V"],
    marker: "version",
};

const WC: Tool = Tool { program: "wc", words: &["-l"], asks: &["--version"], marker: "wc" };

const MAWK: Tool = Tool {
    program: "mawk",
    words: &["END { print NR }"],
    asks: &["-W", "version"],
    marker: "mawk",
};

impl Tool {
    fn version(&self) -> Option<String> {
        version(self.program, self.asks, self.marker)
    }

    fn command(&self, port: u16) -> Command {
        let mut command = Command::new(self.program);
        let port = port.to_string();
        command.args(self.words.iter().map(|word| word.replace("PORT", &port)));
        command.stderr(Stdio::null());
        command
    }

    /// The command as it is typed.
    fn typed(&self) -> String {
        let quoted = |word: &&str| {
            if word.contains(' ') { format!("'{word}'") } else { (*word).to_owned() }
        };
        let words = self.words.iter().map(quoted);
        std::iter::once(self.program.to_owned()).chain(words).collect::<Vec<_>>().join(" ")
    }
}

fn found(reads: &'static Tool, counts: &'static Tool) -> Option<Found> {
    let version = format!("{}; {}", reads.version()?, counts.version()?);
    let command = format!("{} | {}", reads.typed(), counts.typed());
    let start: Starter = Box::new(|setting, clock| start(reads, counts, setting, clock));
    Some(Found { version, command, start })
}

fn start(
    reads: &Tool,
    counts: &Tool,
    setting: &Setting<'_>,
    clock: &Arc<dyn Clock>,
) -> Result<Running> {
    let mut first = reads.command(setting.port);
    let mut first = Process::start(first.stdin(Stdio::null()).stdout(Stdio::piped()), clock)?;
    let mut second = counts.command(setting.port);
    let second = second.stdin(Stdio::from(first.output())).stdout(Stdio::piped());
    let mut second = Process::start(second, clock)?;
    let lines = second.output_lines()?;
    Ok(Running::new(vec![first, second], Counted::AtTheEnd(lines), clock))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_shown_as_they_are_typed() {
        let typed = |reads: &Tool, counts: &Tool| format!("{} | {}", reads.typed(), counts.typed());
        assert_eq!(typed(&NC, &MAWK), "nc 127.0.0.1 PORT | mawk 'END { print NR }'");
        assert_eq!(typed(&SOCAT, &WC), "socat -u TCP:127.0.0.1:PORT - | wc -l");
        let words = SOCAT.command(7);
        let words: Vec<_> = words.get_args().map(|word| word.to_string_lossy()).collect();
        assert_eq!(words, ["-u", "TCP:127.0.0.1:7", "-"]);
    }
}
