//! Real peers of syslog. rsyslog feeds numbered lines from a file over RELP through kill -9 (R1 of the scorecard):
//! `tidemill` is killed at random moments and started again. Every line is in the output once, because repeated records are
//! recognised by their numbers (`identity`). Others send the framing `syslog`.
//!
//! rsyslogd runs privately: its own configuration, pid file and working directory. `TIDEMILL_KILLS` sets the number of
//! kills, `TIDEMILL_SEED` their moments. A sender of our own, which is stricter, is in `durability.rs`.

#![cfg(not(tidemill_model))]
#![expect(
    clippy::disallowed_methods,
    reason = "a test's peers and readers are threads of the test, not of the engine"
)]

mod program;

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tidemill::internals::sync::Mutex;

use program::peers::are_there;
use program::pipeline::{Pipeline, number_of};
use program::{Process, Program, Random, WATCHDOG, number_from_env};

/// After this long without a line no more lines come; longer than rsyslog waits before it tries again.
const SILENCE: Duration = Duration::from_secs(20);

/// The tests run one at a time: each keeps the machine busy.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// All received records, into files and on the screen.
const JOBS: &str = "[job.all]\nfrom = ['in']\nto = ['files']\nlines = {}\n\
    [job.seen]\nfrom = ['in']\nto = ['screen']\nlines = {}\n[sink.screen.console]\nformat = 'json'\n";

/// Waits until it has printed all unseen lines, or none for a long time.
fn see_all(program: &Program, unseen: &mut BTreeSet<u64>) {
    while let Some(line) = (!unseen.is_empty()).then(|| program.out.recv_timeout(SILENCE)) {
        match line {
            Ok(line) => take_seen(&line, unseen),
            Err(_) => return,
        }
    }
}

/// Removes the numbers of a batch's lines from `unseen`.
fn take_seen(batch: &str, unseen: &mut BTreeSet<u64>) {
    let batch: Value = serde_json::from_str(batch).unwrap_or_default();
    for row in batch["rows"].as_array().into_iter().flatten() {
        if let Some(number) = row[0].as_str().and_then(number_of) {
            unseen.remove(&number);
        }
    }
}

/// A private rsyslogd that follows a file and sends its lines.
fn rsyslog(pipeline: &Pipeline) -> Process {
    let directory = pipeline.path("rsyslog");
    fs::create_dir_all(&directory).expect("a directory");
    let (path, work) = (pipeline.path("in.log"), directory.display());
    let text = format!(
        "global(workDirectory=\"{work}\" maxMessageSize=\"8k\")\n\
         module(load=\"imfile\")\nmodule(load=\"omrelp\")\n\
         template(name=\"raw\" type=\"string\" string=\"%msg%\")\n\
         input(type=\"imfile\" File=\"{}\" Tag=\"fed\" ruleset=\"out\")\n\
         ruleset(name=\"out\") {{\n\
         action(type=\"omrelp\" target=\"127.0.0.1\" port=\"{}\" template=\"raw\" timeout=\"10\"\n\
         action.resumeRetryCount=\"-1\" action.resumeInterval=\"1\")\n}}\n",
        path.display(),
        pipeline.address.port()
    );
    let config = directory.join("rsyslog.conf");
    fs::write(&config, text).expect("written");
    let log = File::create(directory.join("said")).expect("a file");
    let mut command = Command::new("rsyslogd");
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.arg("-n").arg("-f").arg(&config).arg("-i").arg(directory.join("pid"));
    Process::start(command.stdout(log.try_clone().expect("a descriptor")).stderr(log))
}

fn append_lines(path: &Path, numbers: std::ops::Range<u64>) {
    let text: String =
        numbers.map(|number| format!("{number} a line of the file that is fed\n")).collect();
    let mut file = OpenOptions::new().create(true).append(true).open(path).expect("a file");
    file.write_all(text.as_bytes()).expect("written");
}

/// Lines that are appended before each kill.
const LINES_PER_KILL: u64 = 2_000;

#[test]
fn rsyslog_feeds_through_kills_and_no_line_is_lost() {
    if !are_there(&["rsyslogd"], "apt install rsyslog rsyslog-relp") {
        return;
    }
    let _one = ONE_AT_A_TIME.lock();
    let (kills, seed) =
        (number_from_env("TIDEMILL_KILLS", 50), number_from_env("TIDEMILL_SEED", 1));
    let (pipeline, mut random) = (Pipeline::relp("log", JOBS), Random(seed));
    let input = pipeline.path("in.log");
    append_lines(&input, 0..1);
    let mut unseen = BTreeSet::from([0]);
    let rsyslog = rsyslog(&pipeline);
    let mut end = 1;
    for _ in 0..kills {
        append_lines(&input, end..end + LINES_PER_KILL);
        end += LINES_PER_KILL;
        let mut run = pipeline.start_only();
        // One of five dies during its start; the others some time after rsyslog is back.
        if random.below(5) > 0 {
            run.event("connected");
        }
        let silence = Duration::from_millis(random.below(120));
        while run.err.recv_timeout(silence).is_ok() {}
        run.process.kill();
        unseen.extend(end - LINES_PER_KILL..end);
        run.out.iter().for_each(|line| take_seen(&line, &mut unseen));
    }
    append_lines(&input, end..end + LINES_PER_KILL);
    unseen.extend(end..end + LINES_PER_KILL);
    end += LINES_PER_KILL;
    // Written lines are not always printed before a kill.
    pipeline.numbers("all").keys().for_each(|number| {
        unseen.remove(number);
    });
    let run = pipeline.start();
    // rsyslog may send with several workers, so no line is the last one.
    see_all(&run, &mut unseen);
    run.stop();
    drop(rsyslog);
    let output = pipeline.numbers("all");
    let lost: Vec<u64> = (0..end).filter(|number| !output.contains_key(number)).collect();
    let repeated = output.values().filter(|times| **times > 1).count();
    println!("{kills} kills, seed {seed}: {end} lines, {} lost, {repeated} repeated", lost.len());
    assert_eq!(lost, Vec::<u64>::new(), "seed {seed}");
    // Lines that were on their way when the link broke arrive twice, and are recognised by their numbers.
    assert_eq!(repeated, 0, "seed {seed}");
}

/// A `tidemill` that prints the records that it receives in the framing `syslog`.
fn prints_syslog() -> Program {
    let from = ["run", "--from", "tcp-listen://127.0.0.1:0", "--framing", "syslog"];
    let to = ["--job", "lines", "--every", "50ms", "--to", "json"];
    Program::start(
        &[&from[..], &to, &["--log-format", "json", "--log-level", "debug", "--http", "off"]]
            .concat(),
    )
}

/// Its first printed records, this many.
fn printed(run: &Program, count: usize) -> Vec<String> {
    let mut got = Vec::new();
    while got.len() < count {
        let Ok(line) = run.out.recv_timeout(WATCHDOG) else { break };
        let batch: Value = serde_json::from_str(&line).expect("JSON");
        let rows = batch["rows"].as_array().expect("rows").clone();
        got.extend(rows.iter().map(|row| row[0].as_str().expect("text").to_owned()));
    }
    got
}

fn check_syslog(command: &mut Command, fed: &str, expected: &[&str]) {
    let run = prints_syslog();
    let port = run.listening().port().to_string();
    let mut sender = command.arg(&port).stdin(Stdio::piped()).spawn().expect("it starts");
    sender.stdin.take().expect("piped").write_all(fed.as_bytes()).expect("it reads");
    assert!(sender.wait().expect("it ends").success());
    let got = printed(&run, expected.len());
    assert_eq!(got.len(), expected.len(), "{got:?}");
    for (got, expected) in got.iter().zip(expected) {
        assert!(got.starts_with('<') && got.ends_with(expected), "{got}");
    }
}

#[test]
fn logger_and_nc_send_syslog() {
    if !are_there(&["logger", "nc"], "apt install bsdutils netcat-openbsd") {
        return;
    }
    let mut counted = Command::new("logger");
    counted.args(["-T", "--octet-count", "-n", "127.0.0.1", "-P"]);
    check_syslog(&mut counted, "one\ntwo words\n", &["one", "two words"]);
    let mut nc = Command::new("nc");
    nc.args(["-N", "127.0.0.1"]);
    check_syslog(&mut nc, "<13>a: one\n<13>a: two words\n", &["one", "two words"]);
}

/// syslog-ng, installed or unpacked below the directory `TIDEMILL_SYSLOG_NG`: its Debian packages cannot be installed
/// beside rsyslog's. `None` if it is not there, which is never an error.
fn syslog_ng() -> Option<Command> {
    let Some(root) = std::env::var_os("TIDEMILL_SYSLOG_NG").map(PathBuf::from) else {
        let program = ["/usr/sbin/syslog-ng", "/usr/bin/syslog-ng"].map(Path::new);
        let found = program.into_iter().find(|path| path.exists()).map(Command::new);
        if found.is_none() {
            let _ = writeln!(io::stdout(), "not run: syslog-ng (apt install syslog-ng-core)");
        }
        return found;
    };
    let modules = fs::read_dir(root.join("usr/lib/syslog-ng")).expect("it is unpacked there");
    let modules = modules.map(|entry| entry.expect("listed").path()).find(|path| path.is_dir());
    let libraries = ["lib", "usr/lib"].map(|lib| root.join(lib)).into_iter().flat_map(|lib| {
        let below = fs::read_dir(lib).into_iter().flatten();
        below.map(|entry| entry.expect("listed").path()).filter(|path| path.is_dir())
    });
    let mut command = Command::new(root.join("usr/sbin/syslog-ng"));
    command.env("LD_LIBRARY_PATH", std::env::join_paths(libraries).expect("paths"));
    command.arg("--module-path").arg(modules.expect("its modules"));
    Some(command)
}

/// It sends each line twice: with its length before it, and with a line feed after it.
#[test]
fn syslog_ng_sends_both_kinds_of_frames() {
    let Some(mut syslog_ng) = syslog_ng() else { return };
    let _one = ONE_AT_A_TIME.lock();
    let (run, directory) = (prints_syslog(), tempfile::tempdir().expect("a directory"));
    let (port, path) = (run.listening().port(), |name: &str| directory.path().join(name));
    let input = path("in.log");
    File::create(&input).expect("a file");
    let text = format!(
        "@version: 3.38\nsource s {{ file(\"{}\" flags(no-parse) follow-freq(0.1)); }};\n\
         destination counted {{ syslog(\"127.0.0.1\" transport(\"tcp\") port({port}) persist-name(\"counted\")); }};\n\
         destination ended {{ network(\"127.0.0.1\" port({port}) flags(syslog-protocol)); }};\n\
         log {{ source(s); destination(counted); destination(ended); }};\n",
        input.display()
    );
    fs::write(path("syslog-ng.conf"), text).expect("written");
    let log = File::create(path("said")).expect("a file");
    syslog_ng.args(["--foreground", "--no-caps"]);
    let places = [("-f", "syslog-ng.conf"), ("-R", "persist"), ("-p", "pid"), ("-c", "control")];
    places.iter().for_each(|(option, name)| {
        syslog_ng.arg(option).arg(path(name));
    });
    let _peer =
        Process::start(syslog_ng.stdout(log.try_clone().expect("a descriptor")).stderr(log));
    run.event("connected");
    run.event("connected");
    append_lines(&input, 0..100);
    let mut got = printed(&run, 200);
    got.sort_by_key(|record| {
        let number = record.split("] ").last().and_then(number_of);
        number.unwrap_or_else(|| panic!("{record}"))
    });
    let said = fs::read_to_string(path("said")).expect("text");
    assert_eq!(got.len(), 200, "{said}");
    for (at, record) in got.iter().enumerate() {
        let line = format!(" {} a line of the file that is fed", at / 2);
        assert!(record.starts_with("<13>1 ") && record.ends_with(&line), "{record}");
    }
}
