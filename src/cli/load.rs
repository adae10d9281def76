//! `tidemill load`: what was typed to a [`LoadOptions`], and what happens to lines on standard error. The load itself
//! is `crate::load`; a thread named `signals` turns Ctrl-C and SIGTERM into a stop.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use indicatif::{HumanBytes, HumanCount, ProgressBar};
use serde_json::json;

use super::say;
use super::signals::{Action, Decider, Hangup, SignalWatch};
use crate::load::{
    self, End, Event, Framing, LINE_LEN, Limit, Load, LoadOptions, Report, Target, WINDOW, WORDS,
};
use crate::settings::units;
use crate::sync::{Arc, Poison};
use crate::time::{Clock, SystemClock};
use crate::wording::{count, grouped};
use crate::{Error, Result};

/// The time between two lines of progress.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

const EXAMPLES: &str = "\
Examples:
  Serve whoever dials port 9999 (the data server of the wordcount example), as fast as they read:
    tidemill load --listen 127.0.0.1:9999
  Ten million lines over four connections, exactly, and a line of JSON with what was sent:
    tidemill load --listen 127.0.0.1:9999 --records 10M --connections 4 --json
  An open loop for latencies: each line carries the time at which it should have been sent:
    tidemill load --connect 127.0.0.1:5514 --rate 10k --seconds 60 --stamp
  Replay a log file, paced; and keep 9,900 idle connections beside 100 busy ones:
    tidemill load --connect 127.0.0.1:5514 --file access.log --rate 50k
    tidemill load --connect 127.0.0.1:5514 --connections 100 --idle 9900
  A RELP client, as rsyslog's omrelp is one: how many records are acknowledged, and how fast:
    tidemill load --connect 127.0.0.1:2514 --framing relp --connections 8 --records 1M

Ctrl-C stops and reports; a second one stops at once.
Exit codes: 0 done; 1 a peer was gone before the limit (--connect), not all was acknowledged (relp) or the system
refused; 2 usage.";

/// A data server: sends lines over TCP, paced or as fast as they are taken.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct LoadArgs {
    #[command(flatten)]
    target: TargetArgs,

    /// How lines are sent: as they are, or as frames of RELP, whose answers are waited for and counted; needs --connect
    #[arg(long, value_name = "NAME", value_parser = ["lines", "relp"], default_value = "lines")]
    framing: String,

    /// With relp: records that a connection leaves unanswered at most [default: 128]
    #[arg(long, value_name = "RECORDS", value_parser = units::typed_count)]
    window: Option<u64>,

    /// Lines per second in all, open loop: line i is due i ÷ LINES after the start, whatever the peers do [default:
    /// unlimited]
    #[arg(long, value_name = "LINES", value_parser = units::typed_count)]
    rate: Option<u64>,

    /// Stop after this time, such as 10, 2.5s or 1m
    #[arg(long, value_name = "TIME", value_parser = units::typed_seconds)]
    seconds: Option<Duration>,

    /// Stop after exactly so many lines, such as 10_000_000 or 10M
    #[arg(long, value_name = "LINES", value_parser = units::typed_count)]
    records: Option<u64>,

    /// Stop before more than so many bytes, such as 10MiB; only whole lines are sent, and headers of relp do not count
    #[arg(long, value_name = "SIZE", value_parser = units::typed_bytes)]
    bytes: Option<u64>,

    /// Mean bytes of a line, with its line feed and its stamp
    #[arg(long, value_name = "BYTES", value_parser = units::typed_bytes, default_value_t = LINE_LEN as u64)]
    line_len: u64,

    /// Size of the vocabulary; words are Zipf(1.0) distributed
    #[arg(long, value_name = "WORDS", value_parser = units::typed_count, default_value_t = WORDS as u64)]
    words: u64,

    /// Connections to send to; with --listen, sending starts when so many peers have come
    #[arg(long, value_name = "N", value_parser = units::typed_count, default_value_t = 1)]
    connections: u64,

    /// Connections that are held open besides and never sent to
    #[arg(long, value_name = "N", value_parser = units::typed_count, default_value_t = 0)]
    idle: u64,

    /// Send this file's lines once, byte for byte, instead of text
    #[arg(long, value_name = "FILE", conflicts_with_all = ["line_len", "words", "seed"])]
    file: Option<PathBuf>,

    /// Start each line with its intended send time (19 digits of nanoseconds since the epoch) and a space
    #[arg(long)]
    stamp: bool,

    /// With --stamp: only the first line and every so many after it have a stamp, for loads that are too fast for more
    #[arg(long, value_name = "LINES", value_parser = units::typed_count, default_value_t = 1, requires = "stamp")]
    stamp_every: u64,

    /// Chooses the text: the same seed gives the same bytes
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,

    /// Also print the report as one line of JSON on standard output
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct TargetArgs {
    /// Let peers dial in to this address; port 0 takes any free one
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<String>,

    /// Dial this address
    #[arg(long, value_name = "HOST:PORT")]
    connect: Option<String>,
}

impl LoadArgs {
    fn options(&self) -> Result<LoadOptions> {
        let target = match (&self.target.listen, &self.target.connect) {
            (Some(addr), None) => Target::Listen(addr.clone()),
            (None, Some(addr)) => Target::Connect(addr.clone()),
            _ => return Err(Error::Usage("one of --listen and --connect is needed".to_owned())),
        };
        if self.stamp_every == 0 {
            return Err(Error::Usage("--stamp-every is at least 1".to_owned()));
        }
        Ok(LoadOptions {
            target,
            framing: self.framing()?,
            rate: self.rate,
            limit: Limit { duration: self.seconds, records: self.records, bytes: self.bytes },
            line_len: size(self.line_len, "--line-len")?,
            words: size(self.words, "--words")?,
            connections: size(self.connections, "--connections")?,
            idle: size(self.idle, "--idle")?,
            file: self.file.clone(),
            stamp: self.stamp.then_some(self.stamp_every),
            seed: self.seed,
        })
    }

    fn framing(&self) -> Result<Framing> {
        match (self.framing.as_str(), self.window) {
            ("relp", None) => Ok(Framing::Relp { window: WINDOW }),
            ("relp", Some(window)) => Ok(Framing::Relp { window: size(window, "--window")? }),
            (_, None) => Ok(Framing::Lines),
            (_, Some(_)) => Err(Error::Usage("--window is for --framing relp".to_owned())),
        }
    }
}

fn size(value: u64, option: &str) -> Result<usize> {
    usize::try_from(value).map_err(|_| Error::Usage(format!("{option} is too large")))
}

/// Runs a load to its end and reports: one line on standard error, and with `--json` one on `out`.
///
/// # Errors
/// Usage, what the system refuses, a thread's panic, and a peer that was dialled and closed before the limit.
pub fn run(args: LoadArgs, out: &mut dyn Write) -> Result<()> {
    let (clock, poison) = (SystemClock::new(), Poison::new());
    let load = load::start(args.options()?, Arc::clone(&clock) as Arc<dyn Clock>, &poison)?;
    let stopper = load.stopper();
    let signals = SignalWatch::start(
        Decider::new(Hangup::of_this_process()),
        move |action| match action {
            // It reads no file again: a hang-up is an end like any other.
            Action::Stop | Action::Reload => stopper.stop(),
            Action::EndAtOnce => say("load: stopped at once by a second signal"),
            Action::Nothing => {}
        },
        &poison,
    )?;
    for addr in load.local_addrs() {
        say(&format!("load: listening on {addr}"));
    }
    follow(&load, clock.as_ref());
    let report = load.join()?;
    drop(signals);
    say(&readable(&report));
    if args.json {
        let written = writeln!(out, "{}", machine(&report)).and_then(|()| out.flush());
        written.map_err(super::unwritable)?;
    }
    report.end.map(|_| ())
}

/// Tells what happens until the load has ended; how far it got, about once a second, only to a terminal.
fn follow(load: &Load, clock: &dyn Clock) {
    let spinner = io::stderr().is_terminal().then(ProgressBar::new_spinner);
    let progress = load.progress();
    let (mut lines, mut next) = (0, clock.now().plus(PROGRESS_EVERY));
    while !load.events().is_closed_and_empty() {
        while let Some(event) = load.events().try_recv() {
            tell(&event);
        }
        if spinner.is_some() && clock.now() >= next {
            next = clock.now().plus(PROGRESS_EVERY);
            let before = std::mem::replace(&mut lines, progress.lines());
            let text = format!(
                "{}, {}/s",
                grouped(lines, "line"),
                HumanCount(lines.saturating_sub(before))
            );
            spinner.iter().for_each(|spinner| {
                spinner.set_message(format!("{text}, {}", HumanBytes(progress.bytes())));
                spinner.tick();
            });
        }
        if !load.events().is_closed_and_empty() {
            clock.wait(load.signal(), spinner.as_ref().map(|_| next));
        }
    }
    spinner.iter().for_each(ProgressBar::finish_and_clear);
}

fn tell(event: &Event) {
    match event {
        Event::Connected(_) => {}
        Event::Started { connections, idle } => {
            let connections = count(*connections, "connection");
            say(&format!("load: sending to {connections}, {idle} idle"))
        }
        Event::PeerLost { error, .. } => say(&format!("load: {error}")),
        Event::NotAccepted(error) => say(&format!("load: {error}; trying again")),
    }
}

/// A rate over the time a load took; zero if it took none.
fn per_second(amount: u64, report: &Report) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a rate is shown with a few digits")]
    let amount = amount as f64;
    if report.seconds > 0.0 { amount / report.seconds } else { 0.0 }
}

fn end_name(report: &Report) -> &'static str {
    match report.end {
        Ok(End::Done) => "done",
        Ok(End::Stopped) => "stopped",
        Err(_) => "failed",
    }
}

fn readable(report: &Report) -> String {
    let lost = if report.lost > 0 { format!(" ({} lost)", report.lost) } else { String::new() };
    let answers = report.answers.map_or(String::new(), |answers| {
        format!(
            "; {} acknowledged ({:.0}/s), {} refused, {} not answered",
            HumanCount(answers.acknowledged),
            per_second(answers.acknowledged, report),
            HumanCount(answers.refused),
            HumanCount(answers.unanswered),
        )
    });
    format!(
        "load: {}: {}, {} in {:.3} s: {:.0} lines/s, {:.1} MB/s{answers}; {}{lost}; \
         fell behind by at most {:.3} ms",
        end_name(report),
        grouped(report.lines, "line"),
        grouped(report.bytes, "byte"),
        report.seconds,
        per_second(report.lines, report),
        per_second(report.bytes, report) / 1e6,
        count(report.connections, "connection"),
        report.behind.as_secs_f64() * 1e3,
    )
}

fn machine(report: &Report) -> serde_json::Value {
    let mut value = json!({
        "end": end_name(report),
        "lines": report.lines,
        "bytes": report.bytes,
        "seconds": report.seconds,
        "lines_per_second": per_second(report.lines, report),
        "bytes_per_second": per_second(report.bytes, report),
        "behind_us": u64::try_from(report.behind.as_micros()).unwrap_or(u64::MAX),
        "connections": report.connections,
        "lost": report.lost,
    });
    if let Some(answers) = report.answers {
        value["acknowledged"] = answers.acknowledged.into();
        value["acknowledged_bytes"] = answers.acknowledged_bytes.into();
        value["acknowledged_per_second"] = per_second(answers.acknowledged, report).into();
        value["refused"] = answers.refused.into();
        value["unanswered"] = answers.unanswered.into();
    }
    value
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::load::Answers;

    #[derive(Debug, Parser)]
    struct Typed {
        #[command(flatten)]
        load: LoadArgs,
    }

    fn parse(typed: &str) -> Option<LoadOptions> {
        let typed =
            Typed::try_parse_from(std::iter::once("load").chain(typed.split_whitespace())).ok()?;
        typed.load.options().ok()
    }

    fn listening() -> LoadOptions {
        LoadOptions {
            target: Target::Listen(":9".to_owned()),
            framing: Framing::Lines,
            rate: None,
            limit: Limit::default(),
            line_len: 100,
            words: 10_000,
            connections: 1,
            idle: 0,
            file: None,
            stamp: None,
            seed: 1,
        }
    }

    fn check(typed: &str, expected: Option<LoadOptions>) {
        assert_eq!(parse(typed), expected, "{typed}");
    }

    #[test]
    fn what_is_typed() {
        check("--listen :9", Some(listening()));
        check(
            "--connect h:9",
            Some(LoadOptions { target: Target::Connect("h:9".to_owned()), ..listening() }),
        );
        check(
            "--listen :9 --rate 10k --stamp",
            Some(LoadOptions { rate: Some(10_000), stamp: Some(1), ..listening() }),
        );
        let sparse = LoadOptions { stamp: Some(1_000), ..listening() };
        check("--listen :9 --stamp --stamp-every 1k", Some(sparse));
        check("--listen :9 --stamp-every 1k", None);
        check("--listen :9 --stamp --stamp-every 0", None);
        let limit = Limit {
            duration: Some(Duration::from_millis(2_500)),
            records: Some(10_000_000),
            bytes: Some(10 << 20),
        };
        check(
            "--listen :9 --seconds 2.5 --records 10_000_000 --bytes 10MiB",
            Some(LoadOptions { limit, ..listening() }),
        );
        let many = LoadOptions {
            connections: 100,
            idle: 9_900,
            line_len: 1024,
            words: 5,
            seed: 7,
            ..listening()
        };
        check(
            "--listen :9 --connections 100 --idle 9900 --line-len 1KiB --words 5 --seed 7",
            Some(many),
        );
        check(
            "--listen :9 --file a.log",
            Some(LoadOptions { file: Some("a.log".into()), ..listening() }),
        );
        let relp = |window| LoadOptions {
            target: Target::Connect("h:9".to_owned()),
            framing: Framing::Relp { window },
            ..listening()
        };
        check("--connect h:9 --framing relp", Some(relp(128)));
        check("--connect h:9 --framing relp --window 1k", Some(relp(1_000)));
        check("--connect h:9 --window 9", None);
        check("--connect h:9 --framing u32", None);
        check("", None);
        check("--listen :9 --connect h:9", None);
        check("--listen :9 --file a.log --seed 2", None);
        check("--listen :9 --rate fast", None);
    }

    #[test]
    fn reports_are_one_line() {
        let mut report = Report {
            lines: 1_000,
            bytes: 100_000,
            answers: None,
            seconds: 0.5,
            behind: Duration::from_micros(1_500),
            connections: 2,
            lost: 1,
            end: Ok(End::Done),
        };
        assert_eq!(
            readable(&report),
            "load: done: 1,000 lines, 100,000 bytes in 0.500 s: 2000 lines/s, 0.2 MB/s; 2 connections (1 lost); \
             fell behind by at most 1.500 ms"
        );
        assert_eq!(machine(&report)["behind_us"], 1_500);
        assert_eq!(machine(&report)["lines_per_second"], 2_000.0);
        assert!(machine(&report).get("acknowledged").is_none());
        report.answers = Some(Answers {
            acknowledged: 990,
            acknowledged_bytes: 9_900,
            refused: 7,
            unanswered: 3,
        });
        let said = "; 990 acknowledged (1980/s), 7 refused, 3 not answered; 2 connections";
        assert!(readable(&report).contains(said));
        assert_eq!(machine(&report)["acknowledged_bytes"], 9_900);
        assert_eq!(machine(&report)["unanswered"], 3);
    }
}
