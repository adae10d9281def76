//! `tidemill validate FILE`: the same code path as the start of `run`, without starting. Main thread.

use std::io::{self, Write};
use std::net::{IpAddr, TcpListener};
use std::path::Path;

use crate::config::{Http, Pipeline, Source};
use crate::error::{Error, Result};
use crate::settings::units::{Address, Env};
use crate::storage::Directory;

use super::args::ValidateArgs;

/// Checks a pipeline file; warnings and a summary go to `out` (standard error), which ends with the highest input rate
/// that the memory bound allows.
///
/// # Errors
/// [`Error::Config`] with everything that is wrong with the file, ready to print; [`Error::Usage`] if `--set` is wrong;
/// [`Error::Io`] if `out` cannot be written.
pub fn run(args: &ValidateArgs, env: &Env<'_>, out: &mut dyn Write) -> Result<()> {
    let pipeline = args.pipeline(env)?;
    let fail = |err| Error::io("cannot write to standard error", err);
    for warning in pipeline.warnings.iter().chain(&warnings_of_machine(&pipeline)) {
        writeln!(out, "{warning}\n").map_err(fail)?;
    }
    writeln!(out, "{} is good\n{}", args.file.display(), pipeline.summary()).map_err(fail)
}

/// Obstacles to a start on this machine now. It may be gone when the pipeline starts, so none of it is an error.
fn warnings_of_machine(pipeline: &Pipeline) -> Vec<String> {
    if let Some(pid) = pipeline.state_dir.as_deref().and_then(running_pid) {
        let who = pid.map_or(String::new(), |pid| format!(", pid {pid}"));
        // Its ports are taken for the same reason.
        return vec![format!("warning: running already{who}: `state_dir` is in use")];
    }
    let mut addresses = Vec::new();
    if let Http::At(address) = &pipeline.http {
        addresses.push(("`http`".to_owned(), address.clone()));
    }
    for (name, source) in &pipeline.sources {
        if let Source::Socket(socket) = source
            && let Some(address) = socket.listen_address()
        {
            addresses.push((format!("source `{name}`"), address));
        }
    }
    let taken = addresses.into_iter().filter_map(|(who, address)| cannot_listen(&who, &address));
    let sinks = pipeline
        .sinks
        .iter()
        .filter_map(|(name, sink)| Some(format!("warning: sink `{name}`: {}", sink.in_the_way()?)));
    taken.chain(sinks).collect()
}

/// None if no process uses the state directory; the inner value is the process id, where the lock names it.
fn running_pid(state_dir: &Path) -> Option<Option<u32>> {
    Directory::read_only(state_dir).and_then(|directory| directory.holding_pid()).ok().flatten()
}

/// The reason why nobody could listen at an address. Names are not looked up: that may take long.
fn cannot_listen(who: &str, address: &Address) -> Option<String> {
    let host = if address.host == "localhost" { "127.0.0.1" } else { &address.host };
    let ip: IpAddr = host.parse().ok()?;
    let err = TcpListener::bind((ip, address.port)).err()?;
    let why = match err.kind() {
        io::ErrorKind::AddrInUse => "the port is taken".to_owned(),
        _ => err.to_string(),
    };
    Some(format!("warning: {who} cannot listen on {address} now: {why}"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// The text that validating a file prints, and its exit code.
    fn validate(text: &str, set: &[&str]) -> (String, u8) {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("p.toml");
        fs::write(&file, text).expect("written");
        let args = ValidateArgs { file, set: set.iter().map(|set| (*set).to_owned()).collect() };
        let mut out = Vec::new();
        let (text, code) = match run(&args, &|_| None, &mut out) {
            Ok(()) => (String::from_utf8(out).expect("UTF-8"), 0),
            Err(err) => (err.to_string(), err.exit_code()),
        };
        (text.replace(&format!("{}/", dir.path().display()), ""), code)
    }

    fn check(text: &str, set: &[&str], expected: &str, expected_code: u8) {
        let (shown, code) = validate(text, set);
        assert_eq!((shown.trim(), code), (expected, expected_code));
    }

    const GOOD: &str = "workers = 2\nstore_bytes_max = '64MiB'\n[source.lines.generate]\nrate = 9\n\
        [job.words]\nfrom = ['lines']\nto = ['screen']\nwordcount = {}\n[sink.screen.console]\n";

    #[test]
    fn a_good_file_is_summed_up() {
        let expected = "p.toml is good\n\
            pipeline tidemill: a batch every 500ms, blocks every 200ms, workers 2\n\
            source lines: generates 9 lines/s, io model nio\n\
            job words: wordcount of lines, to screen\n\
            sink screen: console, spark\n\
            highest input rate: 128MiB/s (store_bytes_max 64MiB ÷ batch_interval 500ms)";
        check(GOOD, &["batch_interval=500ms"], expected, 0);
    }

    #[test]
    fn a_wrong_file_exits_78_and_a_wrong_option_2() {
        check(
            "name = a",
            &[],
            "error: string values must be quoted, expected literal string\n\
            \x20--> p.toml:1:8\n  |\n1 | name = a\n  |        ^",
            78,
        );
        check(
            GOOD,
            &["workers=0"],
            "error: `workers` must be 1 to 1024: out of range\n --> command line: --set workers=0",
            2,
        );
    }

    #[test]
    fn files_that_cannot_be_read() {
        let args = ValidateArgs { file: "no/such/file.toml".into(), set: Vec::new() };
        let err = run(&args, &|_| None, &mut Vec::new()).expect_err("missing");
        assert_eq!(err.exit_code(), 78);
        assert!(err.to_string().starts_with("error: cannot read no/such/file.toml: "), "{err}");
        let (shown, code) = validate(&"#".repeat((1 << 20) + 1), &[]);
        assert_eq!((shown.as_str(), code), ("error: p.toml is larger than 1MiB", 78));
    }
}
