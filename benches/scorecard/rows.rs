//! The rows: which processes are compared, what must be equal, and what the scorecard asks of each.

use std::fs;
use std::process::{Command, Stdio};

use clap::ValueEnum;
use tidemill::internals::lab::process::Process;
use tidemill::internals::lab::sample::figure;
use tidemill::internals::lab::stats::{alternate, median, ratios};
use tidemill::internals::settings::units::as_f64;

use crate::kind::Kind;
use crate::load::Load;
use crate::measure::Figures;
use crate::process::{self, TIDEMILL, line, run, said};
use crate::verdict::{Sheet, Target};
use crate::wait::{now, pause, seconds_since};
use crate::{
    Options, Outcome, delay, durable, full, hostile, keys, many_connections, overload, restart,
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

    /// One pass of exactly this many lines.
    fn pass(&self, lines: u64) -> Outcome<Pass> {
        let load = Load::listen(&["--records", &lines.to_string()])?;
        let figures = run(self.kind, &[&self.options[..], &load.reader()].concat())?;
        let sent = load.finish()?;
        assert_eq!((sent.lines, sent.bytes), (lines, figures.bytes), "{}: bytes", self.name);
        if self.kind != Kind::Discard {
            assert_eq!(figures.records, lines, "{}: every line was received", self.name);
        }
        Ok(Pass { figures, sender_per_gb: sent.cpu_seconds * 1e9 / as_f64(sent.bytes) })
    }
}

struct Pass {
    figures: Figures,
    /// Processor seconds of the sender for 10^9 bytes.
    sender_per_gb: f64,
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
    let rate = |_| Ok(as_f64(lines) / alone.pass(lines)?.figures.seconds / 1e6);
    let alone = (0..options.pairs.min(3)).map(rate).collect::<Outcome<Vec<f64>>>()?;
    sheet.line("sender alone, discarded by the kernel", "M lines/s").show(&alone)?;
    for engine in engines {
        let sides = [baseline, engine];
        let [bare, ours] = alternate(options.pairs, |side| sides[side].pass(lines))?;
        for (bare, ours) in bare.iter().zip(&ours) {
            assert_eq!(bare.figures.sum, ours.figures.sum, "{}: the same words", engine.name);
        }
        show(sheet, engine, &Passes { bare, ours })?;
    }
    Ok(())
}

/// The number of lines that take about the asked time.
fn lines_for(baseline: &Side, options: &Options) -> Outcome<u64> {
    let probe = 2_000_000;
    let rate = baseline.pass(probe)?.figures.rate();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive rate")]
    let lines = (rate * options.seconds) as u64;
    Ok(lines.max(100_000))
}

/// The passes of two sides, pair by pair.
struct Passes {
    bare: Vec<Pass>,
    ours: Vec<Pass>,
}

fn show(sheet: &mut Sheet, engine: &Side, passes: &Passes) -> Outcome<()> {
    let each = |of: &[Pass], figure: fn(&Figures) -> f64| -> Vec<f64> {
        of.iter().map(|pass| figure(&pass.figures)).collect()
    };
    let Passes { bare, ours } = passes;
    let rates = [bare, ours].map(|side| each(side, |it| it.rate() / 1e6));
    let costs = [bare, ours].map(|side| each(side, Figures::cpu_per_gb));
    sheet.line(engine.name, "x").judge(&ratios(&rates[1], &rates[0]), engine.target)?;
    sheet.line("    baseline", "M lines/s").show(&rates[0])?;
    sheet.line("    engine", "M lines/s").show(&rates[1])?;
    sheet.line("    baseline", "CPU s/GB").show(&costs[0])?;
    sheet.line("    engine", "CPU s/GB").show(&costs[1])?;
    let inverse = ratios(&costs[0], &costs[1]);
    sheet.line("    bytes per CPU-second, engine beside baseline", "x").show(&inverse)?;
    let senders: Vec<f64> = bare.iter().chain(ours).map(|pass| pass.sender_per_gb).collect();
    sheet.line("    sender", "CPU s/GB").show(&senders)?;
    let most = each(ours, |side| as_f64(side.peak_kib) / 1024.0);
    sheet.line("    engine, most memory", "MiB").show(&most)
}

fn fixed_cost(options: &Options, sheet: &mut Sheet) -> Outcome<()> {
    sheet.say("P5: fixed cost of a batch on 2 workers, tick to committed by the engine's events, job wordcount")?;
    let hand_over = run(Kind::HandOver, &["--rounds".to_owned(), "2000".to_owned()])?;
    sheet.line("bare hand-over, both threads hot", "us").show(&hand_over.micros)?;
    sheet.line("bare hand-over after 9 ms of sleep", "us").show(&hand_over.beside)?;
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
    cost(sheet, "empty batch", &empty, Target::AtMost { pass: 50.0, goal: 10.0 })?;
    // Ten lines of a few words in each block: what is left is what blocks and batches cost, not words.
    let few = ["--rate", "1000", "--words", "10", "--line-len", "20"];
    let load = Load::listen(&few)?;
    let blocks = [&load.reader()[..], &every("100", "10"), &rounds(0.5)].concat();
    let counted = run(Kind::Blocks, &blocks)?;
    sheet.line("blocks in a batch", "").show(&counted.micros[1..])?;
    drop(load);
    let load = Load::listen(&few)?;
    let blocks = [&load.reader()[..], &every("100", "10"), &rounds(0.1)].concat();
    let figures = run(Kind::Batches, &blocks)?;
    let target = Target::AtMost { pass: 200.0, goal: 60.0 };
    cost(sheet, "batch of 10 blocks", &figures, target)
}

/// The operating system wakes a timer late; the row is about what the engine adds.
fn cost(sheet: &mut Sheet, name: &str, figures: &Figures, target: Target) -> Outcome<()> {
    assert!(!figures.micros.is_empty(), "{name}: batches were run");
    let late = median(&figures.beside);
    let net: Vec<f64> = figures.micros.iter().map(|micros| micros - late).collect();
    sheet.line(&format!("{name}, less the timer's lateness"), "us").judge(&net, target)?;
    sheet.line(&format!("    {name}, from the nominal tick"), "us").show(&figures.micros)?;
    sheet.line("    lateness of a bare timer", "us").show(&figures.beside)
}

fn start(options: &Options, sheet: &mut Sheet) -> Outcome<()> {
    sheet.say(
        "P15: start, size, memory (Spark, not run here: 4.4 s to the first result, 390-630 MB)",
    )?;
    let times = if options.pairs > 1 { options.pairs * 4 } else { 2 };
    let (mut bare, mut first) = (Vec::new(), Vec::new());
    for _ in 0..times {
        let begin = now();
        said(TIDEMILL, &["--version"]);
        bare.push(seconds_since(begin));
        let load = Load::listen(&["--rate", "10000"])?;
        let begin = now();
        let mut engine = engine(&load, &["--every", "100ms", "--to", "json"])?;
        let lines = engine.output_lines()?;
        while line(&lines)?.contains("\"records\":0,") {}
        first.push(seconds_since(begin));
    }
    sheet
        .line("process start to first result of a 100 ms batch", "s")
        .judge(&first, Target::AtMost { pass: 0.15, goal: 0.12 })?;
    sheet.line("    start and end of a process that does nothing", "s").show(&bare)?;
    size(sheet)?;
    memory(options, sheet)
}

fn engine(load: &Load, options: &[&str]) -> Outcome<Process> {
    let from = format!("tcp://{}", load.address);
    let mut command = Command::new(TIDEMILL);
    command.args(["run", "--from", &from, "--job", "wordcount", "--quiet"]).args(options);
    process::start(command.stdout(Stdio::piped()).stderr(Stdio::null()))
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
            sheet.line("binary, stripped", "MiB").judge(&[mib(file.len())], target)?;
        }
        Err(_) => sheet.say("  binary, stripped: not run, there is no `strip` here")?,
    }
    sheet.line("    as this bench built it, with line tables", "MiB").show(&[built])
}

/// The memory that is resident after a while at 10,000 lines/s.
fn memory(options: &Options, sheet: &mut Sheet) -> Outcome<()> {
    for every in ["100ms", "1s"] {
        let load = Load::listen(&["--rate", "10000"])?;
        let engine = engine(&load, &["--every", every, "--to", "null"])?;
        pause(if options.smoke { 1.2 } else { 5.0 });
        let status = format!("/proc/{}/status", engine.id());
        let most = as_f64(figure(&status, "VmHWM:")) / 1024.0;
        assert!(most > 0.0, "it runs");
        let name = format!("most resident memory at 10,000 lines/s, batches of {every}");
        sheet.line(&name, "MiB").judge(&[most], Target::AtMost { pass: 20.0, goal: 10.0 })?;
    }
    Ok(())
}
