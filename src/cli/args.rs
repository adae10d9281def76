//! The options of `tidemill run` and `tidemill validate`, as typed. What they mean together is decided in `flags`;
//! names of io models, framings and jobs come from their tables.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::config::{LOG_LEVELS, LogLevel};
use crate::error::EXIT_CODES;
use crate::framing::FRAMINGS;
use crate::settings::units;
use crate::sink::{SINKS, ShortForm};
use crate::source::io::IO_MODELS;
use crate::stream::jobs::{JOBS, JobRow};
use crate::wording::either;

const RUN_EXAMPLES: &str = "\
Examples:
  tidemill run words.toml
      run a pipeline file
  tidemill run words.toml --set source.lines.io_model=bio --batches 10
      the same with one key changed, for ten batches
  tidemill run --from tcp://127.0.0.1:9999 --job wordcount --every 1s
      count the words that a data server sends, once a second
  tidemill run --from tcp-listen://127.0.0.1:5514 --job 'grep=error' --to json
      accept connections, show the lines with `error` as JSON
  tidemill run --from generate:rate=1000,records=10000 --job topk=5 --until-eof
      make ten thousand lines, then stop
  tidemill run --from files:///var/log/app --job wordcount --until-eof
      count the words of the files that are there, then stop
  tidemill run words.toml --set 'retired=[\"source:old\"]' --set renamed.state:new=state:old
      give up what the state_dir holds of one name, carry another over

Results go to standard output and nothing else does. Ctrl-C drains and reports; another one, a second
or more after it, stops at once. SIGHUP reads the pipeline file again: rates, log_level and workers follow it.";

const VALIDATE_EXAMPLES: &str = "\
Errors go to standard error as FILE:LINE:COLUMN with the line, a caret and a hint.
Exit codes: 0 the file is good; 2 usage; 78 the file is wrong.";

/// Run a pipeline: a file, or one described by options.
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = run_help())]
pub struct RunArgs {
    /// The pipeline file (TOML); without it --from and --job describe the pipeline
    #[arg(value_name = "FILE", required_unless_present_any = ["from", "job"])]
    pub file: Option<PathBuf>,

    /// Where records come from: tcp://HOST:PORT[,HOST:PORT...] dials, tcp-listen://ADDR:PORT accepts,
    /// files://DIR reads a directory's files, new and growing ones,
    /// generate:[KEY=VALUE,...] makes lines (keys: rate, records, line_len, words, seed, file)
    #[arg(long, value_name = "SOURCE", conflicts_with = "file", requires = "job")]
    pub from: Option<String>,

    /// The jobs; the help lists the table of them.
    #[arg(long, value_name = "JOB", conflicts_with = "file", requires = "from", help = job_help())]
    pub job: Vec<String>,

    /// The time between two batches, as 200ms or 1s [default: 1s]
    #[arg(long, value_name = "DURATION")]
    pub every: Option<String>,

    /// Look only at records that match this regular expression
    #[arg(long = "where", value_name = "REGEX", conflicts_with = "file")]
    pub filter: Option<String>,

    /// Each batch sees the records of this much time
    #[arg(long, value_name = "DURATION", conflicts_with = "file")]
    pub window: Option<String>,

    /// How often the window is looked at
    #[arg(long, value_name = "DURATION", conflicts_with = "file", requires = "window")]
    pub slide: Option<String>,

    /// How sockets are read; the help lists the table of io models.
    #[arg(long, value_name = "MODEL", conflicts_with = "file", help = io_help())]
    pub io: Option<String>,

    /// What a record is; the help lists the table of framings.
    #[arg(long, value_name = "FRAMING", conflicts_with = "file", help = framing_help())]
    pub framing: Option<String>,

    /// Where rows go; the help lists the table of sinks.
    #[arg(long, value_name = "SINK", conflicts_with = "file", help = sink_help())]
    pub to: Option<String>,

    /// Where the log and the checkpoints are kept
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<String>,

    /// Stop after this many batches
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub batches: Option<u64>,

    /// Stop after this time, as 30s or 5m
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub duration: Option<Duration>,

    /// Stop when every source has ended and everything that was read is processed. If records came after
    /// the last window that was due, the next one is put out once, under the time of its end; with a `state_dir` it is kept
    /// for the next run instead
    #[arg(long)]
    pub until_eof: bool,

    /// Go on without input that was lost before it was processed, as far as an earlier run had planned it
    #[arg(long)]
    pub give_up_lost: bool,

    /// Set any key of the pipeline: source.lines.io_model=bio, workers=2; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,

    /// Where /metrics, /healthz, /readyz and /api/v1 are served, or `off` [default: 127.0.0.1:4040 or the next free port]
    #[arg(long, value_name = "ADDR:PORT|off")]
    pub http: Option<String>,

    /// Say nothing on standard error but warnings and errors, as with --log-level warn
    #[arg(long, short)]
    pub quiet: bool,

    /// How messages on standard error are written
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,

    /// What is worth a message: error, warn, info, or debug, which has a line for each connection
    /// [default: `log_level` of the pipeline file, or info]
    #[arg(long, value_name = "LEVEL", value_parser = log_level)]
    pub log_level: Option<LogLevel>,
}

/// How messages on standard error are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people
    #[default]
    Text,
    /// A JSON object on each line
    Json,
}

/// Check a pipeline file without running it.
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = VALIDATE_EXAMPLES)]
pub struct ValidateArgs {
    /// The pipeline file (TOML)
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// Set any key of the pipeline, as in `run`; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

fn run_help() -> String {
    let rows = EXIT_CODES.iter().map(|(code, meaning)| format!("\n  {code:<3}  {meaning}"));
    format!("{RUN_EXAMPLES}\n\nExit codes:{}", rows.collect::<String>())
}

fn job_help() -> String {
    format!("What to do: {}; may be given several times", job_flags())
}

/// Everything that `--job` takes, those without a value first: `count, lines or grep=REGEX`.
pub(super) fn job_flags() -> String {
    let bare = JOBS.iter().filter(|row| row.value.is_none());
    let valued = JOBS.iter().filter(|row| row.value.is_some());
    either(&bare.chain(valued).map(JobRow::flag).collect::<Vec<_>>())
}

fn io_help() -> String {
    table_help("How sockets are read", "nio", IO_MODELS.iter().map(|row| (row.name, row.about)))
}

fn framing_help() -> String {
    table_help("What a record is", "lines", FRAMINGS.iter().map(|row| (row.name, row.about)))
}

/// The forms of `--to`: the words, and then those that a value follows.
pub(super) fn sink_forms() -> impl Iterator<Item = &'static ShortForm> {
    let all = || SINKS.iter().flat_map(|kind| kind.short_forms);
    let words = all().filter(|form| form.value.is_empty());
    words.chain(all().filter(|form| !form.value.is_empty()))
}

/// The help of `--to`.
fn sink_help() -> String {
    let form = |form: &ShortForm| format!("{}{}{}", form.begins, form.value, form.more);
    let forms: Vec<_> = sink_forms().map(form).collect();
    format!("Where rows go: {} [default: console]", either(&forms))
}

fn table_help<'a>(
    what: &str,
    default: &str,
    rows: impl Iterator<Item = (&'a str, &'a str)>,
) -> String {
    let rows: Vec<_> = rows.map(|(name, about)| format!("{name} ({about})")).collect();
    format!("{what}: {} [default: {default}]", rows.join(", "))
}

fn log_level(text: &str) -> Result<LogLevel, String> {
    let row = LOG_LEVELS.iter().find(|(name, _)| *name == text);
    row.map(|(_, level)| *level).ok_or_else(|| "a level is error, warn, info or debug".to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    match units::duration(text) {
        Ok(duration) if duration.is_zero() => Err("a duration is more than 0".to_owned()),
        Ok(duration) => Ok(duration),
        Err(_) => Err("a duration has a unit, as in 500ms, 30s or 5m".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[derive(Debug, Parser)]
    struct Run {
        #[command(flatten)]
        args: RunArgs,
    }

    fn check(line: &str, good: bool) {
        let words = std::iter::once("run").chain(line.split_whitespace());
        let parsed = Run::try_parse_from(words);
        assert_eq!(parsed.is_ok(), good, "{line}: {parsed:?}");
        if let Err(err) = parsed {
            assert_eq!(err.exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn what_goes_together() {
        Run::command().debug_assert();
        check("a.toml", true);
        check("a.toml --every 2s --batches 3 --set a=1 --set b=2 --http off", true);
        check("a.toml --from tcp://h:1", false);
        check("a.toml --job count", false);
        check("--from tcp://h:1 --job count", true);
        check("--from tcp://h:1", false);
        check("--job count", false);
        check("", false);
        check("a.toml --batches 0", false);
        check("a.toml --duration 30", false);
        check("a.toml --duration 30s --until-eof --quiet --log-format json", true);
        check("a.toml --log-format xml", false);
        check("--from generate: --job count --job lines --slide 1s", false);
        check("--from generate: --job count --slide 1s --window 2s", true);
        check("a.toml --frm x", false);
    }

    #[test]
    fn help_names_every_row_of_the_tables() {
        // Words, because clap wraps its help at the terminal's width.
        let help = Run::command().render_long_help().to_string();
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        for name in IO_MODELS.iter().map(|row| row.name).chain(FRAMINGS.iter().map(|row| row.name))
        {
            assert!(help.contains(&format!("{name} (")), "{name}:\n{help}");
        }
        for row in JOBS {
            assert!(help.contains(&row.flag()), "{}:\n{help}", row.name);
        }
        assert!(help.contains("Examples:"));
    }
}
