//! The messages of `validate` and of the start of `run` about directories and ports that two parts of a pipeline, or two
//! programs, would share. None of these conflicts is found by trying.

use std::fs;
use std::io::Write as _;
use std::mem::MaybeUninit;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use rustix::fs::inotify;
use tempfile::TempDir;

use crate::program::Program;

/// A pipeline file in a directory of its own.
struct Case(TempDir);

impl Case {
    fn new(text: &str) -> Case {
        let directory = tempfile::tempdir().expect("a directory");
        let text = text.replace("DIR", &directory.path().display().to_string());
        fs::write(directory.path().join("p.toml"), text).expect("written");
        Case(directory)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn start(&self, command: &str, options: &[&str]) -> Program {
        let file = self.path("p.toml").display().to_string();
        Program::start(&[&[command, &file][..], options].concat())
    }

    /// The output of a command, and its exit code.
    fn says(&self, command: &str, options: &[&str]) -> (Option<i32>, String) {
        let (code, _, said) = self.start(command, options).finish();
        (code, said.join("\n"))
    }
}

const LOOP: &str = "[source.in.files]\ndirectory = 'DIR/in'\n[job.j]\nfrom = ['in']\nto = ['out']\nlines = {}\n\
    [sink.out.file]\npath = 'DIR/out'\n";

#[test]
fn a_loop_is_found_through_links_and_before_the_directories_are_there() {
    let case = Case::new(LOOP);
    assert_eq!(case.says("validate", &[]).0, Some(0), "two directories that are not there yet");
    fs::create_dir(case.path("in")).expect("made");
    assert_eq!(case.says("validate", &[]).0, Some(0));
    symlink("in", case.path("out")).expect("linked");
    for command in ["validate", "run"] {
        let (code, said) = case.says(command, &[]);
        assert_eq!(code, Some(78), "{said}");
        assert!(
            said.contains("source `in` reads what sink `out` writes: an endless loop"),
            "{said}"
        );
    }
    assert_eq!(fs::read_dir(case.path("in")).expect("there").count(), 0, "nothing was opened");
}

#[test]
fn options_are_compared_like_a_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().display();
    let (from, to) = (format!("files://{path}"), format!("file://{path}/./"));
    let args =
        ["run", "--from", &from, "--job", "lines", "--to", &to, "--until-eof", "--http", "off"];
    let (code, _, said) = Program::start(&args).finish();
    assert_eq!(code, Some(2), "{said:?}");
    assert!(said.join("\n").contains("an endless loop"), "{said:?}");
}

/// Warnings about the machine change no exit code: the obstacle may be gone when the pipeline starts.
#[test]
fn a_taken_port_and_a_running_program_are_warnings() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("bound").port();
    let case = Case::new(&format!(
        "state_dir = 'DIR/state'\nhttp = 'off'\n[source.in.socket]\nlisten = '127.0.0.1:{port}'\n\
         [job.j]\nfrom = ['in']\nto = ['out']\nlines = {{}}\n[sink.out.file]\npath = 'DIR/out'\n"
    ));
    let (code, said) = case.says("validate", &[]);
    assert_eq!(code, Some(0), "{said}");
    let warning = format!("source `in` cannot listen on 127.0.0.1:{port} now: the port is taken");
    assert!(said.contains(&warning), "{said}");
    drop(taken);
    let (code, said) = case.says("validate", &[]);
    assert!(code == Some(0) && !said.contains("warning"), "{said}");
    let program = case.start("run", &[]);
    program.wait_for("listening on");
    let (code, said) = case.says("validate", &[]);
    assert_eq!(code, Some(0), "{said}");
    let pid = program.process.0.id();
    assert!(said.contains(&format!("running already, pid {pid}")), "{said}");
    assert!(!said.contains("cannot listen"), "its own port is no second warning: {said}");
    program.stop();
}

#[test]
fn what_a_crash_left_of_a_dead_letter_is_named_and_stays() {
    let case = Case::new(
        "name = 'p'\nbatch_interval = '50ms'\nhttp = 'off'\non_failure = { then = 'dead_letter' }\n\
         [source.in.generate]\nrecords = 9\n[job.j]\nfrom = ['in']\nto = ['out']\ncount = {}\n\
         [sink.out.null]\n",
    );
    let letter = "dead-letter/.p-5000-in.0123456789abcdef.open";
    fs::create_dir(case.path("dead-letter")).expect("made");
    // The second one is another pipeline's.
    for name in [letter, "dead-letter/.q-5000-in.0123456789abcdef.open"] {
        fs::write(case.path(name), "half").expect("written");
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        command.current_dir(case.path("")).args(["run", "p.toml", "--until-eof"]);
        let (code, _, said) = Program::of(&mut command).finish();
        let said = said.join("\n");
        assert_eq!(code, Some(0), "{said}");
        let named = format!("WARN {letter} (4 B) is an unfinished dead letter");
        assert!(said.contains(&named), "{said}");
        assert_eq!(said.matches("unfinished dead letter").count(), 1, "{said}");
        assert!(case.path(name).exists());
    }
}

/// The head of an over-long record is on the disk when the process is killed.
#[test]
fn what_a_kill_left_of_an_over_long_record_is_named() {
    let case = Case::new(
        "name = 'p'\nhttp = 'off'\nstate_dir = 'DIR/state'\n[source.s.socket]\nlisten = '127.0.0.1:0'\nframing = 'relp'\n\
         record_bytes_max = '1KiB'\ndead_letter = 'DIR/dl'\n[job.j]\nfrom = ['s']\nto = ['out']\ncount = {}\n[sink.out.null]\n",
    );
    fs::create_dir(case.path("dl")).expect("made");
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC).expect("a watch");
    inotify::add_watch(&watch, case.path("dl"), inotify::WatchFlags::MODIFY).expect("watched");
    let mut program = case.start("run", &["--log-format", "json"]);
    let mut peer = TcpStream::connect(program.listening()).expect("it listens");
    peer.write_all(b"1 open 30 relp_version=0\ncommands=syslog\n2 syslog 5000 ").expect("it reads");
    peer.write_all(&[b'x'; 3000]).expect("it reads");
    let mut room = [MaybeUninit::uninit(); 512];
    let mut changes = inotify::Reader::new(&watch, &mut room);
    while changes.next().expect("a change").file_name() != Some(c".s-0.open") {}
    program.process.kill();
    assert!(case.path("dl/.s-0.open").exists(), "it is left");
    let program = case.start("run", &["--log-format", "json"]);
    let told = program.event("dead_letter_unfinished");
    assert_eq!((&told["source"], &told["removed"]), (&"s".into(), &true.into()), "{told}");
    let file = case.path("dl/.s-0.open");
    assert_eq!(told["file"], file.display().to_string(), "{told}");
    assert!(!file.exists(), "it is removed");
    program.listening();
    program.stop();
}
