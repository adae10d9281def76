//! The rows: which processes are compared, what must be equal, and what the scorecard asks of each.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use clap::ValueEnum;
use tidemill::sync::Signal;
use tidemill::time::{Clock, SystemClock};

use crate::keys;
use crate::kind::Kind;
use crate::measure::{Figures, as_f64, status_kib};
use crate::process::{Owned, Sender, Sent, TIDEMILL, run, said};
use crate::verdict::{Sheet, Spread, Target};
use crate::{
    Options, Outcome, delay, durable, full, hostile, many_connections, overload, restart,
    stalled_sink, syslog, volumes,
};

/// The rows that can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Row {
    /// Ingest into sealed blocks beside a bare receive loop.
    P1,
    /// Socket wordcount beside a tuned single thread.
    P3,
    /// The fixed cost of a batch beside a bare hand-over.
    P5,
    /// Many keys, one hot key, growth, beside ten thousand keys.
    P12,
    /// Windows beside single batches.
    P13,
    /// Start, size and memory.
    P15,
    /// The io models beside nio.
    P2,
    /// Idle connections.
    P8,
    /// Lines from TCP to files beside rsyslog.
    P9,
    /// Ingest with the log beside ingest without it; the delay of an acknowledgement.
    P10,
    /// A start that finds a log.
    P11,
    /// RELP with acknowledgement after the sync beside rsyslog.
    P16,
    /// Killed under load and started again.
    R1,
    /// Small disks that many times their size passes through.
    Volumes,
    /// A full disk that is emptied again.
    R5,
    /// A flood of connections with few descriptors.
    R7,
    /// Streams without an end.
    R8,
    /// A sink that stops for a while at full input.
    R9,
    /// Three times what a job can do, and then less again.
    Overload,
}

impl Row {
    /// Measures the row and prints its lines.
    pub fn measure(self, options: &Options, sheet: &mut Sheet) -> Outcome<()> {
        match self {
            Row::P1 => ingest(options, sheet),
            Row::P3 => wordcount(options, sheet),
            Row::P5 => fixed_cost(options, sheet),
            Row::P12 => keys::keys(options, sheet),
            Row::P13 => keys::windows(options, sheet),
            Row::P15 => start(options, sheet),
            Row::P2 => many_connections::models(options, sheet),
            Row::P8 => many_connections::many_connections(options, sheet),
            Row::P9 => syslog::lines(options, sheet),
            Row::P10 => {
                durable::cost(options, sheet)?;
                delay::delay(options, sheet)
            }
            Row::P11 => durable::recovery(options, sheet),
            Row::P16 => syslog::relp(options, sheet),
            Row::R1 => restart::restart(options, sheet),
            Row::Volumes => volumes::volumes(options, sheet),
            Row::R5 => full::full(options, sheet),
            Row::R7 => hostile::flood(options, sheet),
            Row::R8 => hostile::endless(options, sheet),
            Row::R9 => stalled_sink::stalled_sink(options, sheet),
            Row::Overload => overload::overload(options, sheet),
        }
    }
}

/// A side of a pair: what the child does, and with which options.
struct Side {
    name: &'static str,
    kind: Kind,
    options: Vec<String>,
    target: Target,
}

impl Side {
    fn new(name: &'static str, kind: Kind, options: &[&str], target: Target) -> Self {
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        Side { name, kind, options, target }
    }

    /// One pass of exactly so many lines.
    fn pass(&self, lines: u64) -> Outcome<(Figures, Sent)> {
        let sender = Sender::start(&["--records".to_owned(), lines.to_string()])?;
        let address = ["--address".to_owned(), sender.address.clone()];
        let figures = run(self.kind, &[&self.options[..], &address].concat())?;
        let sent = sender.finish()?;
        assert_eq!((sent.lines, sent.bytes), (lines, figures.bytes), "{}: bytes", self.name);
        if self.kind != Kind::Discard {
            assert_eq!(figures.records, lines, "{}: every line was received", self.name);
        }
        Ok((figures, sent))
    }
}

const P1: Target = Target::AtLeast { pass: 0.90, goal: 0.97 };

fn ingest(options: &Options, sheet: &mut Sheet) -> Outcome<()> {
    sheet.say("P1: ingest, nio, 1 connection, lines of 100 bytes, beside recv(256 KiB) counting line feeds")?;
    let baseline = Side::new("bare loop", Kind::Lines, &[], Target::Shown);
    let engines = [
        Side::new("count to null, batches of 100 ms", Kind::Count, &["--every", "100"], P1),
        Side::new("sealed blocks only, batches of 10 ms", Kind::Sealed, &["--every", "10"], P1),
        Side::new("bare loop that keeps 100 ms", Kind::Kept, &["--every", "100"], Target::Shown),
        Side::new("bare loop that keeps 10 ms", Kind::Kept, &["--every", "10"], Target::Shown),
    ];
    compare(options, sheet, &baseline, &engines)
}

fn wordcount(options: &Options, sheet: &mut Sheet) -> Outcome<()> {
    sheet.say("P3: socket wordcount, batches of 100 ms, beside a tuned single thread that reports as often")?;
    let baseline =
        Side::new("tuned single thread", Kind::Words, &["--every", "100"], Target::Shown);
    let (one, two) =
        (Target::AtLeast { pass: 0.6, goal: 0.85 }, Target::AtLeast { pass: 1.0, goal: 1.6 });
    let engines = [
        Side::new("1 worker", Kind::Wordcount, &["--workers", "1"], one),
        Side::new("2 workers", Kind::Wordcount, &["--workers", "2"], two),
    ];
    compare(options, sheet, &baseline, &engines)
}

/// Pairs of the baseline with each engine side, in alternating order, on exactly the same bytes.
fn compare(options: &Options, sheet: &mut Sheet, baseline: &Side, engines: &[Side]) -> Outcome<()> {
    let lines = lines_for(baseline, options)?;
    let alone = Side::new("sender alone", Kind::Discard, &[], Target::Shown);
    let alone: Vec<f64> = (0..options.pairs.min(3))
        .map(|_| Ok(alone.pass(lines)?.0))
        .collect::<Outcome<Vec<_>>>()?
        .iter()
        .map(|figures| as_f64(lines) / figures.seconds / 1e6)
        .collect();
    sheet.judge(("sender alone, discarded by the kernel", "M lines/s"), &alone, Target::Shown)?;
    for engine in engines {
        let (mut bare, mut ours, mut senders) = (Vec::new(), Vec::new(), Vec::new());
        for pair in 0..options.pairs {
            let bare_first = pair % 2 == 0;
            for side in [bare_first, !bare_first] {
                let (figures, sent) = if side { baseline } else { engine }.pass(lines)?;
                senders.push(sent.cpu_seconds * 1e9 / as_f64(sent.bytes));
                if side { bare.push(figures) } else { ours.push(figures) }
            }
        }
        for (bare, ours) in bare.iter().zip(&ours) {
            assert_eq!(bare.sum, ours.sum, "{}: the same words", engine.name);
        }
        show(sheet, engine, (&bare, &ours), &senders)?;
    }
    Ok(())
}

/// How many lines take about the asked time.
fn lines_for(baseline: &Side, options: &Options) -> Outcome<u64> {
    let probe = 2_000_000;
    let rate = baseline.pass(probe)?.0.rate();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive rate")]
    let lines = (rate * options.seconds) as u64;
    Ok(lines.max(100_000))
}

fn show(
    sheet: &mut Sheet,
    engine: &Side,
    (bare, ours): (&[Figures], &[Figures]),
    senders: &[f64],
) -> Outcome<()> {
    let each = |of: &[Figures], figure: fn(&Figures) -> f64| -> Vec<f64> {
        of.iter().map(figure).collect()
    };
    let both = |figure: fn(&Figures) -> f64| -> Vec<f64> {
        bare.iter().zip(ours).map(|(bare, ours)| figure(ours) / figure(bare)).collect()
    };
    sheet.judge((engine.name, "x"), &both(Figures::rate), engine.target)?;
    sheet.judge(
        ("    baseline", "M lines/s"),
        &each(bare, |side| side.rate() / 1e6),
        Target::Shown,
    )?;
    sheet.judge(
        ("    engine", "M lines/s"),
        &each(ours, |side| side.rate() / 1e6),
        Target::Shown,
    )?;
    sheet.judge(("    baseline", "CPU s/GB"), &each(bare, Figures::cpu_per_gb), Target::Shown)?;
    sheet.judge(("    engine", "CPU s/GB"), &each(ours, Figures::cpu_per_gb), Target::Shown)?;
    let inverse: Vec<f64> = both(Figures::cpu_per_gb).iter().map(|ratio| 1.0 / ratio).collect();
    sheet.judge(
        ("    bytes per CPU-second, engine beside baseline", "x"),
        &inverse,
        Target::Shown,
    )?;
    sheet.judge(("    sender", "CPU s/GB"), senders, Target::Shown)?;
    sheet.judge(
        ("    engine, most memory", "MiB"),
        &each(ours, |side| as_f64(side.peak_kib) / 1024.0),
        Target::Shown,
    )
}

fn fixed_cost(options: &Options, sheet: &mut Sheet) -> Outcome<()> {
    sheet.say("P5: fixed cost of a batch on 2 workers, tick to committed by the engine's events, job wordcount")?;
    let hand_over = run(Kind::HandOver, &["--rounds".to_owned(), "2000".to_owned()])?;
    sheet.judge(("bare hand-over, both threads hot", "us"), &hand_over.micros, Target::Shown)?;
    sheet.judge(("bare hand-over after 9 ms of sleep", "us"), &hand_over.beside, Target::Shown)?;
    let rounds = |every: f64| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a small positive number"
        )]
        let rounds = (options.seconds * as_f64(options.pairs as u64) / every) as u64;
        ["--rounds".to_owned(), rounds.max(5).to_string()]
    };
    let every = |ms: &str, block: &str| {
        ["--every".to_owned(), ms.to_owned(), "--block".to_owned(), block.to_owned()]
    };
    let empty = run(Kind::Batches, &[&rounds(0.01)[..], &every("10", "10")].concat())?;
    cost(sheet, "empty batch", &empty, (50.0, 10.0))?;
    // Ten lines of a few words in each block: what is left is what blocks and batches cost, not words.
    let few = ["--rate", "1000", "--words", "10", "--line-len", "20"].map(str::to_owned);
    let sender = Sender::start(&few)?;
    let address = ["--address".to_owned(), sender.address.clone()];
    let blocks = [&address[..], &every("100", "10")].concat();
    let counted = run(Kind::Blocks, &[&blocks[..], &rounds(0.5)].concat())?;
    sheet.judge(("blocks in a batch", ""), &counted.micros[1..], Target::Shown)?;
    drop(sender);
    let sender = Sender::start(&few)?;
    let address = ["--address".to_owned(), sender.address.clone()];
    let blocks = [&address[..], &every("100", "10"), &rounds(0.1)].concat();
    cost(sheet, "batch of 10 blocks", &run(Kind::Batches, &blocks)?, (200.0, 60.0))
}

/// The operating system wakes a timer late; the row is about what the engine adds.
fn cost(sheet: &mut Sheet, name: &str, figures: &Figures, (pass, goal): (f64, f64)) -> Outcome<()> {
    assert!(!figures.micros.is_empty(), "{name}: batches were run");
    let late = Spread::of(&figures.beside).median;
    let net: Vec<f64> = figures.micros.iter().map(|micros| micros - late).collect();
    sheet.judge(
        (&format!("{name}, less the timer's lateness"), "us"),
        &net,
        Target::AtMost { pass, goal },
    )?;
    sheet.judge(
        (&format!("    {name}, from the nominal tick"), "us"),
        &figures.micros,
        Target::Shown,
    )?;
    sheet.judge(("    lateness of a bare timer", "us"), &figures.beside, Target::Shown)
}

fn start(options: &Options, sheet: &mut Sheet) -> Outcome<()> {
    sheet.say(
        "P15: start, size, memory (Spark, not run here: 4.4 s to the first result, 390-630 MB)",
    )?;
    let clock = SystemClock::new();
    let times = if options.pairs > 1 { options.pairs * 4 } else { 2 };
    let (mut bare, mut first) = (Vec::new(), Vec::new());
    for _ in 0..times {
        let begin = clock.now();
        said(TIDEMILL, &["--version"]);
        bare.push(clock.now().since(begin).as_secs_f64());
        let sender = Sender::start(&["--rate".to_owned(), "10000".to_owned()])?;
        let begin = clock.now();
        let mut engine = engine(&sender, &["--every", "100ms", "--to", "json"])?;
        let stdout = engine.0.stdout.take().ok_or("no output")?;
        let result = BufReader::new(stdout)
            .lines()
            .find(|line| line.as_ref().is_ok_and(|line| !line.contains("\"records\":0,")));
        first.push(clock.now().since(begin).as_secs_f64());
        assert!(result.is_some_and(|line| line.is_ok()), "there was a result");
    }
    sheet.judge(
        ("process start to first result of a 100 ms batch", "s"),
        &first,
        Target::AtMost { pass: 0.15, goal: 0.12 },
    )?;
    sheet.judge(("    start and end of a process that does nothing", "s"), &bare, Target::Shown)?;
    size(sheet)?;
    memory(options, sheet)
}

fn engine(sender: &Sender, options: &[&str]) -> Outcome<Owned> {
    let from = format!("tcp://{}", sender.address);
    let mut command = Command::new(TIDEMILL);
    command.args(["run", "--from", &from, "--job", "wordcount", "--quiet"]).args(options);
    Ok(Owned(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?))
}

fn size(sheet: &mut Sheet) -> Outcome<()> {
    let mib = |bytes: u64| as_f64(bytes) / f64::from(1 << 20);
    let built = mib(fs::metadata(TIDEMILL)?.len());
    let target = Target::AtMost { pass: 15.0, goal: 8.0 };
    let stripped = std::env::temp_dir().join(format!("tidemill-stripped-{}", std::process::id()));
    said("strip", &["-o", &stripped.to_string_lossy(), TIDEMILL]);
    match fs::metadata(&stripped) {
        Ok(file) => {
            fs::remove_file(&stripped)?;
            sheet.judge(("binary, stripped", "MiB"), &[mib(file.len())], target)?;
        }
        Err(_) => sheet.say("  binary, stripped: not run, there is no `strip` here")?,
    }
    sheet.judge(("    as this bench built it, with line tables", "MiB"), &[built], Target::Shown)
}

/// What is resident after a while at 10,000 lines/s.
fn memory(options: &Options, sheet: &mut Sheet) -> Outcome<()> {
    let (clock, signal) = (SystemClock::new(), Signal::new());
    for every in ["100ms", "1s"] {
        let sender = Sender::start(&["--rate".to_owned(), "10000".to_owned()])?;
        let engine = engine(&sender, &["--every", every, "--to", "null"])?;
        let wait = Duration::from_secs_f64(if options.smoke { 1.2 } else { 5.0 });
        clock.wait(&signal, Some(clock.now().plus(wait)));
        let process = engine.0.id().to_string();
        let most = as_f64(status_kib(&process, "VmHWM:")) / 1024.0;
        assert!(most > 0.0, "it runs");
        let name = format!("most resident memory at 10,000 lines/s, batches of {every}");
        sheet.judge((&name, "MiB"), &[most], Target::AtMost { pass: 20.0, goal: 10.0 })?;
    }
    Ok(())
}
