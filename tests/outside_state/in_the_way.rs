//! Directory entries that have the name of a file that a start opens but are no files: the start is refused with the
//! remedy, nothing hangs, and `inspect` says the same.

use std::fs;
use std::path::Path;
use std::process::Command;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::program::Program;
use crate::verdicts::inspect;

const PIPELINE: &str = "http = 'off'\nstate_dir = 'state'\n[source.in.generate]\nrecords = 5\n\
    [job.j]\nfrom = ['in']\nto = ['out']\nlines = {}\n[sink.out.file]\npath = 'out'\n";

/// The entry with the file's name.
#[derive(Clone, Copy, Debug)]
enum There {
    Pipe,
    Directory,
    Socket,
}

impl There {
    fn make(self, path: &Path) {
        fs::create_dir_all(path.parent().expect("below the world")).expect("made");
        let kind = match self {
            There::Pipe => FileType::Fifo,
            There::Socket => FileType::Socket,
            There::Directory => return fs::create_dir(path).expect("made"),
        };
        mknodat(CWD, path, kind, Mode::RUSR | Mode::WUSR, 0).expect("made");
    }

    fn shown(self) -> &'static str {
        match self {
            There::Pipe => "a pipe",
            There::Directory => "a directory",
            There::Socket => "a socket",
        }
    }
}

/// A start with this entry reports it and ends, and succeeds once the entry is moved away.
fn check(name: &str, there: There) {
    let world = tempfile::tempdir().expect("a directory");
    fs::write(world.path().join("p.toml"), PIPELINE).expect("written");
    let run = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        command.current_dir(world.path()).args(["run", "p.toml", "--until-eof"]);
        let (code, _, said) = Program::of(&mut command).finish();
        (code, said.join("\n"))
    };
    there.make(&world.path().join(name));
    let verdict = inspect(world.path(), "state", "p.toml", &[]);
    let (code, said) = run();
    assert_eq!(code, Some(1), "{name}, {there:?}: {said}");
    verdict.expect(code, &said);
    let remedy = format!("{name} is {}, no regular file: move it away", there.shown());
    assert!(said.contains(&remedy), "{said}");
    fs::rename(world.path().join(name), world.path().join("away")).expect("moved");
    let (code, said) = run();
    assert_eq!(code, Some(0), "{name}, {there:?}: {said}");
}

#[test]
fn what_is_no_file_holds_no_start_up_and_is_named() {
    for name in ["state/.lock", "state/segments", "out/.lock"] {
        check(name, There::Pipe);
        check(name, There::Directory);
    }
    check("state/.lock", There::Socket);
    check("out/.lock", There::Socket);
}
