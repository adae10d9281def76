//! `tidemill validate FILE`: the same code path as the start of `run`, without starting. Main thread.

use std::io::Write;

use crate::config::units::Env;
use crate::error::{Error, Result};

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
    for warning in &pipeline.warnings {
        writeln!(out, "{warning}\n").map_err(fail)?;
    }
    writeln!(out, "{} is good\n{}", args.file.display(), pipeline.summary()).map_err(fail)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// What validating a file prints, and its exit code.
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
