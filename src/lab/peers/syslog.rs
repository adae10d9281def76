//! Peers that are syslog daemons: they listen and write every line to a file, as people run them, with configuration, pid
//! file and directory of their own. Main thread. They never end by themselves.

use std::path::Path;
use std::process::{Command, Stdio};

use super::running::{Counted, Running};
use super::{Found, PeerRow, Setting, version};
use crate::error::Result;
use crate::lab::process::Process;
use crate::lab::report_files;
use crate::lab::shape::Shape;

pub(super) const RSYSLOG: PeerRow = PeerRow {
    name: "rsyslog",
    install: "apt install rsyslog",
    dials: false,
    warms_up: false,
    find: rsyslog,
};

pub(super) const SYSLOG_NG: PeerRow = PeerRow {
    name: "syslog-ng",
    install: "apt install syslog-ng-core, which takes the place of rsyslog",
    dials: false,
    warms_up: false,
    find: syslog_ng,
};

/// The file with what was written, and the one with what the daemon said.
const OUTPUT: &str = "out";

/// The longest message of a daemon is at least this.
const MESSAGE_BYTES_MIN: u64 = 8 << 10;

/// Lines are a quarter longer than their mean at most; this leaves room.
fn message_bytes(shape: &Shape) -> u64 {
    shape.record_bytes.saturating_mul(2).max(MESSAGE_BYTES_MIN)
}

fn rsyslog() -> Option<Found> {
    let version = version("rsyslogd", &["-v"], "rsyslogd")?;
    let command = "rsyslogd -n -f FILE -i PID  # imtcp at PORT, omfile with the template %rawmsg%";
    Some(Found {
        version: version.trim_end_matches(" compiled with:").to_owned(),
        command: command.to_owned(),
        start: Box::new(|setting, clock| {
            let mut command = Command::new("rsyslogd");
            command.arg("-n").arg("-f").arg(setting.directory.join("conf"));
            command.arg("-i").arg(setting.directory.join("pid"));
            start(command, &rsyslog_text(setting), setting, |command| {
                Process::start(command, clock)
            })
            .map(|(process, output)| Running::new(vec![process], output, clock))
        }),
    })
}

fn rsyslog_text(setting: &Setting<'_>) -> String {
    let (path, port, most) =
        (setting.directory.display(), setting.port, message_bytes(setting.shape));
    let sessions = setting.shape.connections.saturating_add(1);
    format!(
        "global(workDirectory=\"{path}\" maxMessageSize=\"{most}\")\nmodule(load=\"imtcp\" maxSessions=\"{sessions}\")\n\
         template(name=\"raw\" type=\"string\" string=\"%rawmsg%\\n\")\n\
         input(type=\"imtcp\" port=\"{port}\" address=\"127.0.0.1\")\n\
         action(type=\"omfile\" file=\"{path}/{OUTPUT}\" template=\"raw\" asyncWriting=\"off\" flushOnTXEnd=\"on\"\n\
         ioBufferSize=\"64k\")\n"
    )
}

fn syslog_ng() -> Option<Found> {
    let version = version("syslog-ng", &["--version"], "syslog-ng")?;
    let number = config_version(&version);
    let command =
        "syslog-ng --foreground -f FILE  # network() at PORT, file() with the template $MSG";
    Some(Found {
        version,
        command: command.to_owned(),
        start: Box::new(move |setting, clock| {
            let mut command = Command::new("syslog-ng");
            command.args(["--foreground", "--no-caps"]);
            for (option, name) in
                [("-f", "conf"), ("-R", "persist"), ("-p", "pid"), ("-c", "control")]
            {
                command.arg(option).arg(setting.directory.join(name));
            }
            let text = syslog_ng_text(setting, &number);
            start(command, &text, setting, |command| Process::start(command, clock))
                .map(|(process, output)| Running::new(vec![process], output, clock))
        }),
    })
}

/// The number for the first line of a file: of `syslog-ng 4 (4.8.1)` it is `4.8`. A file with a later one is refused.
fn config_version(said: &str) -> String {
    let inside = said.split(['(', ')']).nth(1).unwrap_or_default();
    let mut parts = inside.split('.').filter(|part| part.parse::<u32>().is_ok());
    match (parts.next(), parts.next()) {
        (Some(major), Some(minor)) => format!("{major}.{minor}"),
        _ => "3.38".to_owned(),
    }
}

fn syslog_ng_text(setting: &Setting<'_>, number: &str) -> String {
    let (path, port, most) =
        (setting.directory.display(), setting.port, message_bytes(setting.shape));
    let sessions = setting.shape.connections.saturating_add(1);
    // Each connection has a part of the window of messages, which may not be smaller than 100.
    let window = sessions.saturating_mul(1_000);
    format!(
        "@version: {number}\noptions {{ stats-freq(0); log-msg-size({most}); }};\n\
         source s {{ network(ip(\"127.0.0.1\") port({port}) transport(\"tcp\") flags(no-parse)\n\
         max-connections({sessions}) log-iw-size({window})); }};\n\
         destination d {{ file(\"{path}/{OUTPUT}\" template(\"$MSG\\n\")); }};\n\
         log {{ source(s); destination(d); flags(flow-control); }};\n"
    )
}

/// Writes the configuration and starts the daemon, which says nothing: what it has to say is not in the way of a run.
fn start(
    mut command: Command,
    text: &str,
    setting: &Setting<'_>,
    begin: impl FnOnce(&mut Command) -> Result<Process>,
) -> Result<(Process, Counted)> {
    let directory: &Path = setting.directory;
    report_files::write(directory, "conf", text)?;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Ok((begin(&mut command)?, Counted::InFile(directory.join(OUTPUT))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_name_port_directory_and_limits() {
        let shape = Shape { connections: 9, record_bytes: 64 << 10, ..Shape::default() };
        let setting = Setting { port: 77, shape: &shape, directory: Path::new("/x") };
        let text = rsyslog_text(&setting);
        for part in
            ["port=\"77\"", "file=\"/x/out\"", "maxMessageSize=\"131072\"", "maxSessions=\"10\""]
        {
            assert!(text.contains(part), "{part}:\n{text}");
        }
        let text = syslog_ng_text(&setting, "4.8");
        for part in ["@version: 4.8\n", "port(77)", "file(\"/x/out\"", "max-connections(10)"] {
            assert!(text.contains(part), "{part}:\n{text}");
        }
        assert_eq!(message_bytes(&Shape::default()), MESSAGE_BYTES_MIN);
    }

    #[test]
    fn a_configuration_is_not_newer_than_its_program() {
        let check =
            |said: &str, expected: &str| assert_eq!(config_version(said), expected, "{said}");
        check("syslog-ng 3 (3.38.1)", "3.38");
        check("syslog-ng 4 (4.8.0-2)", "4.8");
        check("syslog-ng", "3.38");
        check("syslog-ng (x.y)", "3.38");
    }
}
