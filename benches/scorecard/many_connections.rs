//! The rows with many peers that mean well: P2, the io models beside each other, and P8, what idle connections cost.

use tidemill::source::io::{IO_MODELS, probe};
use tidemill::time::SystemClock;

use crate::listening::{BARE, Listening, Load, Steady, pause};
use crate::measure::as_f64;
use crate::verdict::{Sheet, Target};
use crate::{Options, Outcome};

/// Peers that send, where not all do.
const BUSY: u64 = 100;

/// The models that hold 10,000 connections: `bio` would need as many threads, `pool` leaves all but a few unread.
pub const WIDE: [&str; 3] = ["nio", "reactors", "aio"];

/// Busy and idle connections.
type Shape = (u64, u64);

/// The models that this system and the options offer.
pub fn offered(options: &Options) -> Vec<&'static str> {
    let rows = IO_MODELS.iter().filter(|row| probe(row.model).is_ok());
    rows.map(|row| row.name).filter(|name| options.wants(name)).collect()
}

/// Connections that are open and never send.
fn idle(options: &Options) -> u64 {
    if options.smoke { 100 } else { 9_900 }
}

/// The ratios of `figures` to those of the same pairs in `beside`.
fn ratios(figures: &[f64], beside: &[f64]) -> Vec<f64> {
    figures.iter().zip(beside).map(|(figure, beside)| figure / beside).collect()
}

/// One run in a process of its own.
fn pass(model: &str, (busy, idle): Shape, seconds: f64) -> Outcome<Steady> {
    let listening = Listening::start(model)?;
    let steady = listening.steady((busy, idle), seconds)?;
    if model != BARE {
        let opened = listening.stop()?["opened"].as_u64();
        assert_eq!(opened, Some(busy + idle), "{model}: every peer");
    }
    Ok(steady)
}

/// Bytes per CPU-second of each model that can hold the shape, the pairs in alternating order.
struct Measured {
    names: Vec<&'static str>,
    figures: Vec<Vec<f64>>,
}

impl Measured {
    fn new(options: &Options, shape: Shape) -> Outcome<Self> {
        let holds = |name: &&str| shape.0 + shape.1 <= BUSY || WIDE.contains(name);
        let names: Vec<_> = offered(options).into_iter().filter(holds).chain([BARE]).collect();
        let mut figures = vec![Vec::new(); names.len()];
        for pair in 0..options.pairs {
            for turn in 0..names.len() {
                let at = if pair % 2 == 0 { turn } else { names.len() - 1 - turn };
                figures[at].push(pass(names[at], shape, options.seconds)?.per_cpu_second);
            }
        }
        Ok(Measured { names, figures })
    }

    fn of(&self, name: &str) -> Option<&[f64]> {
        let at = self.names.iter().position(|known| *known == name)?;
        Some(&self.figures[at])
    }

    fn show(&self, sheet: &mut Sheet, (busy, idle): Shape) -> Outcome<()> {
        let many = busy + idle > BUSY;
        for (name, own) in self.names.iter().zip(&self.figures) {
            let target = match (*name, busy) {
                ("aio", _) if many => Target::AtLeast { pass: 1.0, goal: 1.2 },
                ("aio", _) => Target::AtLeast { pass: 1.0, goal: 1.0 },
                ("bio", 1) => Target::AtLeast { pass: 0.95, goal: 0.95 },
                _ => Target::Shown,
            };
            let title = format!("{name}, {} connections, {busy} of them busy", busy + idle);
            if let Some(nio) = self.of("nio") {
                sheet.judge((&title, "x nio"), &ratios(own, nio), target)?;
            }
            let each: Vec<f64> = own.iter().map(|bytes| bytes / 1e9).collect();
            sheet.judge((&format!("    {name} itself"), "GB/CPU-s"), &each, Target::Shown)?;
        }
        Ok(())
    }
}

/// P2: every model beside nio at the same connections.
pub fn models(options: &Options, sheet: &mut Sheet) -> Outcome<()> {
    sheet.say("P2: io models, bytes per CPU-second beside nio, job count, lines of 100 bytes")?;
    let idle = idle(options);
    let all: &[Shape] = match options.smoke {
        true => &[(1, 0), (BUSY, idle)],
        false => &[(1, 0), (BUSY, 0), (BUSY, idle), (BUSY + idle, 0)],
    };
    let mut few = None;
    for shape in all.iter().copied().filter(|shape| options.wants_connections(shape.0 + shape.1)) {
        let measured = Measured::new(options, shape)?;
        measured.show(sheet, shape)?;
        if shape.0 + shape.1 > BUSY
            && let Some(few) = &few
        {
            fall(sheet, shape, &measured, few)?;
        }
        if shape == (BUSY, 0) {
            few = Some(measured);
        }
    }
    sheet.say("  bio and pool with 10,000 connections: not run, they cannot read so many")
}

/// What is left at many connections of what a model does at few; the kernel's part of the fall is what `bare` shows.
fn fall(sheet: &mut Sheet, (busy, idle): Shape, many: &Measured, few: &Measured) -> Outcome<()> {
    for name in &many.names {
        let (Some(many), Some(few)) = (many.of(name), few.of(name)) else { continue };
        let target = match *name {
            "reactors" => Target::AtLeast { pass: 0.8, goal: 0.95 },
            _ => Target::Shown,
        };
        let title = format!("{name}, {} with {busy} busy, beside own 100", busy + idle);
        sheet.judge((&title, "x"), &ratios(many, few), target)?;
    }
    Ok(())
}

/// P8: what idle connections cost.
pub fn many_connections(options: &Options, sheet: &mut Sheet) -> Outcome<()> {
    let idle = idle(options);
    sheet.say(&format!(
        "P8: {BUSY} busy connections and {idle} idle ones; then 1 line/s and {idle} idle ones"
    ))?;
    let names = offered(options).into_iter().filter(|name| WIDE.contains(name));
    for name in names.chain([BARE]) {
        let (mut many, mut few) = (Vec::new(), Vec::new());
        for pair in 0..options.pairs {
            for crowded in [pair % 2 == 0, pair % 2 != 0] {
                let shape = (BUSY, if crowded { idle } else { 0 });
                let rate = pass(name, shape, options.seconds)?.per_second;
                if crowded { many.push(rate) } else { few.push(rate) }
            }
        }
        let target = judged(name, Target::AtLeast { pass: 0.8, goal: 0.95 });
        sheet.judge(
            (&format!("{name}, rate beside 100 alone"), "x"),
            &ratios(&many, &few),
            target,
        )?;
        resting(options, sheet, name, idle)?;
    }
    Ok(())
}

/// The baseline is only shown.
fn judged(name: &str, target: Target) -> Target {
    if name == BARE { Target::Shown } else { target }
}

/// Memory and processor time while nearly nothing is sent.
fn resting(options: &Options, sheet: &mut Sheet, name: &str, idle: u64) -> Outcome<()> {
    let seconds = if options.smoke { 0.3 } else { 6.0 };
    let pairs = if options.smoke { 1 } else { options.pairs.min(3) };
    let (mut bytes, mut crowded_cpu, mut alone_cpu) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..pairs {
        let (alone, alone_share) = rest(name, 0, seconds)?;
        let (crowded, share) = rest(name, idle, seconds)?;
        bytes.push((crowded - alone) * 1024.0 / as_f64(idle));
        crowded_cpu.push(share * 100.0);
        alone_cpu.push(alone_share * 100.0);
    }
    let target = judged(name, Target::AtMost { pass: 1024.0, goal: 256.0 });
    sheet.judge(("    memory per idle connection", "B"), &bytes, target)?;
    let target = judged(name, Target::AtMost { pass: 1.0, goal: 0.1 });
    sheet.judge(("    idle CPU, batches of 1 s, 1 line/s", "%"), &crowded_cpu, target)?;
    sheet.judge(("    the same without the idle connections", "%"), &alone_cpu, Target::Shown)
}

/// KiB of its own and the share of a core, well after the connections were made and long before they end.
fn rest(name: &str, idle: u64, seconds: f64) -> Outcome<(f64, f64)> {
    let listening = Listening::start(name)?;
    // A load ends with its last line, a second before its time is over; closing must not be in the figure.
    let sending = (seconds + 3.0).to_string();
    let load = Load::start(&listening, (1, idle), &["--rate", "1", "--seconds", &sending])?;
    pause(&SystemClock::new(), 0.5);
    let share = listening.share_of_core(seconds);
    let own = listening.kib("RssAnon:");
    load.finish()?;
    Ok((own, share))
}
