//! Bytes of peers on a terminal, and in a pipe.

use std::fs::{self, File};
use std::io::Read;
use std::process::{Command, Stdio};

use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};

use crate::program::{Process, read_lines};

/// A terminal of the test's own: the end of the person, and the end that a program writes to.
fn terminal() -> (File, Stdio) {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
    let person = openpt(flags).expect("a terminal");
    grantpt(&person).expect("granted");
    unlockpt(&person).expect("unlocked");
    let program = ioctl_tiocgptpeer(&person, flags).expect("its other end");
    (person.into(), program.into())
}

/// The output for these lines, on a terminal or through a pipe.
fn shown(lines: &[u8], to: &str, on_terminal: bool) -> String {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("lines"), lines).expect("written");
    let from = format!("files://{}", directory.path().display());
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    command.args(["run", "--from", &from, "--job", "lines", "--to", to, "--until-eof", "--quiet"]);
    command.args(["--every", "50ms", "--http", "off"]).stderr(Stdio::inherit());
    if !on_terminal {
        let mut process = Process::start(command.stdout(Stdio::piped()));
        let out = read_lines(process.0.stdout.take().expect("piped"));
        return out.iter().collect::<Vec<_>>().join("\n");
    }
    let (mut person, program) = terminal();
    let mut process = Process::start(command.stdout(program));
    // The command holds the program's end as well, and reading ends once nobody holds it.
    drop(command);
    let mut shown = Vec::new();
    // An error (EIO), not an end, shows that nobody writes any more; earlier output is still there.
    let _ = person.read_to_end(&mut shown);
    assert!(process.0.wait().expect("it ends").success());
    String::from_utf8(shown).expect("UTF-8")
}

#[test]
fn rows_are_escaped_on_a_terminal_alone() {
    let check = |lines: &[u8], to: &str, on_terminal: &str, in_pipe: &str| {
        let [terminal, pipe] = [true, false].map(|it| shown(lines, to, it));
        assert!(terminal.contains(on_terminal), "{terminal:?}");
        assert!(!terminal.contains(['\x1b', '\x07', '\u{9b}']), "{terminal:?}");
        assert!(pipe.contains(in_pipe), "{pipe:?}");
    };
    check(
        b"\x1b]0;x\x07\xc2\x9b2J\xff\n",
        "console",
        r"\u{1b}]0;x\u{7}\u{9b}2J\xff",
        "\x1b]0;x\x07\u{9b}2J\u{fffd}",
    );
    check(b"\x1b[1m\xc2\x9b2J\n", "json", r#"["\u001b[1m\u009b2J"]"#, "[\"\\u001b[1m\u{9b}2J\"]");
    check("plain ü\n".as_bytes(), "console", "plain ü\r\n", "plain ü\n");
}
