//! The command line: one file per subcommand, each with a `run` that returns a result. What was typed is resolved to
//! typed options once, here; nothing below knows that there is a command line. Runs on the main thread.

pub mod args;
mod build;
mod compare;
mod control;
mod doctor;
mod flags;
pub mod inspect;
mod judge;
mod latency;
mod lines;
mod load;
mod log;
mod messages;
mod progress;
mod reload;
mod run;
mod signals;
mod soak;
mod standard;
pub mod validate;

use std::ffi::OsString;
use std::io::{self, Write};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser, Subcommand};

use crate::error::{Error, Result};
use crate::lab::SUBCOMMAND;
use crate::settings::suggest;
use crate::wording::{escaped_bytes, escaped_lines};

pub use load::LoadArgs;
pub use log::Log;

const EXAMPLES: &str = "\
Examples:
  tidemill run --from generate:rate=5000 --job wordcount
      see it work, with the embedded data server
  tidemill run --from tcp://127.0.0.1:9999 --job wordcount --every 1s
      count the words of `nc -lk 9999`
  tidemill load --listen 127.0.0.1:9999 --rate 10000
      a data server to dial";

/// A micro-batch stream engine made of threads: sockets to blocks to batches.
#[derive(Debug, Parser)]
#[command(name = "tidemill", version, about, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(args::RunArgs),
    Validate(args::ValidateArgs),
    Inspect(inspect::InspectArgs),
    /// A data server: sends lines over TCP, paced or as fast as they are taken.
    Load(LoadArgs),
    Doctor(doctor::DoctorArgs),
    Compare(compare::CompareArgs),
    /// A process of a comparison; `compare` starts it.
    #[command(name = SUBCOMMAND, hide = true)]
    CompareChild,
}

impl Cli {
    /// The command line as it was typed. A mistake in it, or a question for help, is answered, and ends the program.
    pub fn typed() -> Cli {
        Cli::read(std::env::args_os()).unwrap_or_else(|err| std::process::exit(answer(&err)))
    }

    fn read<T>(words: impl IntoIterator<Item = T>) -> Result<Cli, clap::Error>
    where
        T: Into<OsString>,
    {
        let words: Vec<OsString> = words.into_iter().map(Into::into).collect();
        // What is said of a slip repeats words, and a terminal must not obey them.
        let safe = || words.iter().map(|word| escaped_bytes(word.as_encoded_bytes()));
        let parsed = Cli::try_parse_from(&words)
            .map_err(|err| Cli::try_parse_from(safe()).err().unwrap_or(err));
        parsed.map_err(|mut err| {
            let given = match err.get(ContextKind::InvalidSubcommand) {
                Some(ContextValue::String(given)) if err.kind() == ErrorKind::InvalidSubcommand => {
                    given.clone()
                }
                _ => return err,
            };
            let cli = Cli::command();
            let known = cli.get_subcommands().filter(|known| !known.is_hide_set());
            let known: Vec<&str> = known.map(clap::Command::get_name).collect();
            let hint = suggest::hint(&given, "commands", &known);
            err.remove(ContextKind::SuggestedSubcommand);
            err.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![hint.into()]));
            err
        })
    }

    /// The writer of the lines of a run; `None` for the other subcommands, which speak to the one who typed.
    pub fn log(&self) -> Option<Log> {
        match &self.command {
            Command::Run(args) => Some(Log::of(args)),
            _ => None,
        }
    }

    /// Runs what was typed; results go to standard output, everything else to standard error.
    ///
    /// # Errors
    /// As the subcommand says.
    pub fn run(self) -> Result<()> {
        let env = |name: &str| std::env::var(name).ok();
        let out = &mut Readers(io::stdout());
        let done = match self.command {
            // Its consoles flush each batch, and a stuck one must not hold the end.
            Command::Run(args) => return run::run(&args, &env),
            Command::Validate(args) => {
                validate::run(&args, &env, &mut Shown(Readers(io::stderr())))
            }
            Command::Inspect(args) => inspect::run(&args, &mut Shown(out)),
            Command::Load(args) => load::run(args, out),
            Command::Doctor(args) => doctor::run(&args, out),
            Command::Compare(args) => compare::run(&args, out),
            Command::CompareChild => compare::run_child(),
        };
        // What is left in the buffer would be written at the exit, where nobody hears that it fails.
        done.and_then(|()| Readers(io::stdout()).flush().map_err(unwritable))
    }
}

/// Prints what is said of what was typed: help, or a mistake. The exit code.
fn answer(said: &clap::Error) -> i32 {
    let printed = said.print().and_then(|()| io::stdout().flush());
    match unless_gone(printed, ()) {
        Err(err) if !said.use_stderr() => {
            let err = unwritable(err);
            complain(&err);
            err.exit_code().into()
        }
        _ => said.exit_code(),
    }
}

/// The error for standard output that takes nothing.
fn unwritable(err: io::Error) -> Error {
    Error::io("cannot write to standard output", err)
}

/// Text for people: what a terminal obeys is escaped, but for the ends of lines. It takes whole characters, as `write!`
/// hands them over.
struct Shown<W>(W);

impl<W: Write> Write for Shown<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write_all(escaped_lines(&String::from_utf8_lossy(bytes)).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// The destination of results. A reader that is gone, as `head` is once it has enough, is no failure: the rest goes
/// nowhere, and the exit code is what it would be.
struct Readers<W>(W);

impl<W: Write> Write for Readers<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        unless_gone(self.0.write(bytes), bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        unless_gone(self.0.flush(), ())
    }
}

fn unless_gone<T>(written: io::Result<T>, otherwise: T) -> io::Result<T> {
    match written {
        Err(err) if err.kind() == io::ErrorKind::BrokenPipe => Ok(otherwise),
        written => written,
    }
}

/// Says what went wrong on standard error. Texts about files and options come with their own layout.
pub fn complain(err: &Error) {
    match err {
        Error::Config(text) | Error::Usage(text) if text.starts_with("error") => say(text),
        err => say(&format!("error: {err}")),
    }
}

/// Writes lines to standard error; a closed one is no reason to stop. What a terminal obeys is escaped: names and paths of
/// others are part of texts.
pub(crate) fn say(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", escaped_lines(text));
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;

    #[test]
    fn a_slip_in_a_command_is_recognised() {
        let check = |typed: &str, expected: &str| {
            let err = Cli::read(["tidemill", typed]).expect_err("no such command");
            let said = err.to_string();
            assert!(said.contains(expected) && said.matches("tip:").count() == 1, "{said}");
            assert_eq!(err.exit_code(), 2);
        };
        check("rnu", "did you mean `run`?");
        check("Run", "did you mean `run`?");
        check("runn", "did you mean `run`?");
        check("validte", "did you mean `validate`?");
        check("inspekt", "did you mean `inspect`?");
        check(
            "compare-chil",
            "known commands: `run`, `validate`, `inspect`, `load`, `doctor`, `compare`",
        );
        check("words.toml", "known commands: `run`");
    }
}
