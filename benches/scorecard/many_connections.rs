//! The rows with many peers that mean well: P2, the io models beside each other, and P8, what idle connections cost.

use tidemill::internals::io::{IO_MODELS, probe};
use tidemill::internals::lab::stats::{alternate, alternating, ratios};
use tidemill::internals::settings::units::as_f64;

use crate::listening::{BARE, Listening, Steady};
use crate::load::{Load, Peers};
use crate::verdict::{Sheet, Target};
use crate::wait::pause;
use crate::{Options, Outcome};

/// Peers that send, where not all do.
const BUSY: u64 = 100;

/// The models that hold 10,000 connections: `bio` would need as many threads, `pool` leaves all but a few unread.
pub const WIDE: [&str; 3] = ["nio", "reactors", "aio"];

/// The models that this system and the options offer.
pub fn offered(options: &Options) -> Vec<&'static str> {
    let rows = IO_MODELS.iter().filter(|row| probe(row.model).is_ok());
    rows.map(|row| row.name).filter(|name| options.wants(name)).collect()
}

/// Connections that are open and never send.
fn idle(options: &Options) -> u64 {
    if options.smoke { 100 } else { 9_900 }
}

/// One run in a process of its own.
fn pass(model: &str, peers: Peers, seconds: f64) -> Outcome<Steady> {
    let listening = Listening::start(model)?;
    let steady = listening.steady(peers, seconds)?;
    if model != BARE {
        let opened = listening.stop()?["opened"].as_u64();
        assert_eq!(opened, Some(peers.all()), "{model}: every peer");
    }
    Ok(steady)
}

/// Bytes per CPU-second of each model that can hold the shape, the pairs in alternating order.
struct Measured {
    names: Vec<&'static str>,
    figures: Vec<Vec<f64>>,
}

impl Measured {
    fn new(options: &Options, peers: Peers) -> Outcome<Self> {
        let holds = |name: &&str| peers.all() <= BUSY || WIDE.contains(name);
        let names: Vec<_> = offered(options).into_iter().filter(holds).chain([BARE]).collect();
        let mut figures = vec![Vec::new(); names.len()];
        for pair in 0..options.pairs {
            for at in alternating(pair, names.len()) {
                figures[at].push(pass(names[at], peers, options.seconds)?.per_cpu_second);
            }
        }
        Ok(Measured { names, figures })
    }

    fn of(&self, name: &str) -> Option<&[f64]> {
        let at = self.names.iter().position(|known| *known == name)?;
        Some(&self.figures[at])
    }

    fn show(&self, sheet: &mut Sheet, peers: Peers) -> Outcome<()> {
        let (all, busy) = (peers.all(), peers.busy);
        let many = all > BUSY;
        for (name, own) in self.names.iter().zip(&self.figures) {
            let target = match (*name, busy) {
                ("aio", _) if many => Target::AtLeast { pass: 1.0, goal: 1.2 },
                ("aio", _) => Target::AtLeast { pass: 1.0, goal: 1.0 },
                ("bio", 1) => Target::AtLeast { pass: 0.95, goal: 0.95 },
                _ => Target::Shown,
            };
            let title = format!("{name}, {all} connections, {busy} of them busy");
            if let Some(nio) = self.of("nio") {
                sheet.line(&title, "x nio").judge(&ratios(own, nio), target)?;
            }
            let each: Vec<f64> = own.iter().map(|bytes| bytes / 1e9).collect();
            sheet.line(&format!("    {name} itself"), "GB/CPU-s").show(&each)?;
        }
        Ok(())
    }
}

/// P2: every model beside nio at the same connections.
pub fn models(options: &Options, sheet: &mut Sheet) -> Outcome<()> {
    sheet.say("P2: io models, bytes per CPU-second beside nio, job count, lines of 100 bytes")?;
    let idle = idle(options);
    let hundred = Peers { busy: BUSY, idle: 0 };
    let mostly_idle = Peers { busy: BUSY, idle };
    let all = match options.smoke {
        true => vec![Peers::ONE, mostly_idle],
        false => vec![Peers::ONE, hundred, mostly_idle, Peers { busy: BUSY + idle, idle: 0 }],
    };
    let mut few = None;
    for peers in all.into_iter().filter(|peers| options.wants_connections(peers.all())) {
        let measured = Measured::new(options, peers)?;
        measured.show(sheet, peers)?;
        if peers.all() > BUSY
            && let Some(few) = &few
        {
            fall(sheet, peers, &measured, few)?;
        }
        if peers == hundred {
            few = Some(measured);
        }
    }
    sheet.say("  bio and pool with 10,000 connections: not run, they cannot read so many")
}

/// The rate that a model keeps from few connections to many; the kernel's part of the fall is what `bare` shows.
fn fall(sheet: &mut Sheet, peers: Peers, many: &Measured, few: &Measured) -> Outcome<()> {
    for name in &many.names {
        let (Some(many), Some(few)) = (many.of(name), few.of(name)) else { continue };
        let target = match *name {
            "reactors" => Target::AtLeast { pass: 0.8, goal: 0.95 },
            _ => Target::Shown,
        };
        let title = format!("{name}, {} with {} busy, beside own 100", peers.all(), peers.busy);
        sheet.line(&title, "x").judge(&ratios(many, few), target)?;
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
        let shapes = [idle, 0].map(|idle| Peers { busy: BUSY, idle });
        let [many, few] = alternate(options.pairs, |side| {
            Outcome::Ok(pass(name, shapes[side], options.seconds)?.per_second)
        })?;
        let target = judged(name, Target::AtLeast { pass: 0.8, goal: 0.95 });
        sheet
            .line(&format!("{name}, rate beside 100 alone"), "x")
            .judge(&ratios(&many, &few), target)?;
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
        let (alone, crowded) = (rest(name, 0, seconds)?, rest(name, idle, seconds)?);
        bytes.push((crowded.own - alone.own) * 1024.0 / as_f64(idle));
        crowded_cpu.push(crowded.share * 100.0);
        alone_cpu.push(alone.share * 100.0);
    }
    let target = judged(name, Target::AtMost { pass: 1024.0, goal: 256.0 });
    sheet.line("    memory per idle connection", "B").judge(&bytes, target)?;
    let target = judged(name, Target::AtMost { pass: 1.0, goal: 0.1 });
    sheet.line("    idle CPU, batches of 1 s, 1 line/s", "%").judge(&crowded_cpu, target)?;
    sheet.line("    the same without the idle connections", "%").show(&alone_cpu)
}

/// A process that has nearly nothing to do.
struct Rest {
    /// Memory of its own, in KiB.
    own: f64,
    /// Its share of a core.
    share: f64,
}

/// Well after the connections were made and long before they end.
fn rest(name: &str, idle: u64, seconds: f64) -> Outcome<Rest> {
    let listening = Listening::start(name)?;
    // A load ends with its last line, a second before its time is over; closing must not be in the figure.
    let sending = (seconds + 3.0).to_string();
    let limits = ["--rate", "1", "--seconds", &sending];
    let load = Load::connect(&listening.address, Peers { busy: 1, idle }, &limits)?;
    pause(0.5);
    let share = listening.share_of_core(seconds);
    let own = listening.kib("RssAnon:");
    load.finish()?;
    Ok(Rest { own, share })
}
