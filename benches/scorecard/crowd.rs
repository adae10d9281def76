//! The rows with many peers: P2 and P8, and the rates, times and memory of R7 and R8, whose untimed part is
//! `tests/hostile.rs`. The engine is `tidemill run`, the peers are `tidemill load`; the hostile ones live on a thread here.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{ChildStderr, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal as Kill, getrlimit, kill_process, setrlimit};
use serde_json::Value;
use tidemill::receiver::io::{IO_MODELS, probe};
use tidemill::sync::thread::spawn;
use tidemill::sync::{Poison, Signal};
use tidemill::time::{Clock, SystemClock};

use crate::measure::{as_f64, status_kib};
use crate::process::{LIMIT, Owned, TIDEMILL, run_bare, ticks, wait};
use crate::verdict::{Sheet, Target};
use crate::{Options, Outcome};

/// Peers that send, where not all do.
const BUSY: u64 = 100;

/// The models that hold 10,000 connections: `bio` would need as many threads, `pool` leaves all but 64 unread.
const WIDE: [&str; 3] = ["nio", "reactors", "aio"];

/// What listens: the engine, or a bare poller.
pub struct Listening {
    process: Owned,
    address: String,
    /// Kept, so that what it says has somewhere to go.
    said: Option<BufReader<ChildStderr>>,
}

impl Listening {
    fn engine(model: &str, descriptors: Option<u64>) -> Outcome<Self> {
        let before = getrlimit(Resource::Nofile);
        let current = descriptors.or(before.maximum);
        setrlimit(Resource::Nofile, Rlimit { current, ..before })?;
        let mut command = Command::new(TIDEMILL);
        command.args([
            "run",
            "--from",
            "tcp-listen://127.0.0.1:0",
            "--job",
            "count",
            "--to",
            "null",
        ]);
        command.args(["--log-format", "json", "--set", "source.in.connections_max=10100"]);
        command.args(["--io", model]).stdout(Stdio::null()).stderr(Stdio::piped());
        let child = command.spawn();
        setrlimit(Resource::Nofile, before)?;
        let mut process = Owned(child?);
        let mut said = BufReader::new(process.0.stderr.take().ok_or("no standard error")?);
        loop {
            let mut line = String::new();
            said.read_line(&mut line)?;
            let line: Value = serde_json::from_str(&line)?;
            if let Some(address) = line["address"].as_str() {
                let address = address.to_owned();
                return Ok(Listening { process, address, said: Some(said) });
            }
        }
    }

    fn bare() -> Outcome<Self> {
        let (process, address) = run_bare()?;
        Ok(Listening { process, address, said: None })
    }

    fn cpu(&self) -> f64 {
        ticks(&format!("/proc/{}/stat", self.process.0.id())).unwrap_or(0.0) / 100.0
    }

    fn kib(&self, field: &str) -> f64 {
        as_f64(status_kib(&self.process.0.id().to_string(), field))
    }

    fn descriptors(&self) -> usize {
        let dir = format!("/proc/{}/fd", self.process.0.id());
        std::fs::read_dir(dir).map_or(0, Iterator::count)
    }

    /// Stops the engine; what its source counted, and the processor time of its life.
    fn stop(mut self) -> Outcome<(Value, f64)> {
        kill_process(Pid::from_child(&self.process.0), Kill::TERM)?;
        let mut text = String::new();
        self.said.take().ok_or("not an engine")?.read_to_string(&mut text)?;
        let cpu = wait(&mut self.process, LIMIT)?;
        let mut report = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let counters = report.rfind(|line| line["event"] == "source_report");
        Ok((counters.ok_or("no report")?["counters"].clone(), cpu))
    }
}

/// What a load did, and what its receiver took while it sent.
struct Loaded {
    lines: u64,
    bytes: f64,
    seconds: f64,
    cpu_before: f64,
    still: f64,
    kib: f64,
}

/// The share of a core that is taken in the middle of a time in which nearly nothing is sent, opened or closed.
fn quiet_cpu(of: &Listening, seconds: f64) -> f64 {
    let (clock, signal) = (SystemClock::new(), Signal::new());
    let part = Duration::from_secs_f64(seconds / 3.0);
    clock.wait(&signal, Some(clock.now().plus(part)));
    let (start, before) = (clock.now(), of.cpu());
    clock.wait(&signal, Some(start.plus(part)));
    (of.cpu() - before) / clock.now().since(start).as_secs_f64().max(1e-3)
}

/// Runs a load; `quiet` is for how many seconds it does nearly nothing, zero if it works.
fn load(to: &Listening, (busy, idle): (u64, u64), limits: &[&str], quiet: f64) -> Outcome<Loaded> {
    let mut command = Command::new(TIDEMILL);
    command.args(["load", "--json", "--connect", &to.address]).args(limits);
    command.args(["--connections", &busy.to_string(), "--idle", &idle.to_string()]);
    let mut process = Owned(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?);
    let mut stderr = BufReader::with_capacity(1, process.0.stderr.take().ok_or("no stderr")?);
    let mut line = String::new();
    while !line.contains("sending to") {
        line.clear();
        if stderr.read_line(&mut line)? == 0 {
            return Err("the sender could not connect".into());
        }
    }
    let cpu_before = to.cpu();
    let still = quiet_cpu(to, quiet);
    let mut text = String::new();
    let mut out = process.0.stdout.take().ok_or("no output")?;
    out.read_to_string(&mut text)?;
    let kib = to.kib("VmRSS:");
    wait(&mut process, LIMIT)?;
    let report: Value = serde_json::from_str(&text)?;
    let figure = |name: &str| report[name].as_f64().ok_or(format!("no {name} in {text}"));
    let lines = report["lines"].as_u64().ok_or("no lines")?;
    Ok(Loaded {
        lines,
        bytes: figure("bytes")?,
        seconds: figure("seconds")?,
        cpu_before,
        still,
        kib,
    })
}

/// Bytes per CPU-second and per second of one pass, every line counted.
fn pass(model: &str, busy: u64, idle: u64, seconds: f64) -> Outcome<(f64, f64)> {
    let engine = Listening::engine(model, None)?;
    let loaded = load(&engine, (busy, idle), &["--seconds", &seconds.to_string()], 0.0)?;
    let (counters, cpu) = engine.stop()?;
    assert_eq!(counters["records"].as_u64(), Some(loaded.lines), "{model}: every line");
    assert_eq!(counters["opened"].as_u64(), Some(busy + idle), "{model}: every peer");
    Ok((loaded.bytes / (cpu - loaded.cpu_before).max(0.01), loaded.bytes / loaded.seconds))
}

/// Connections that are open and never send.
fn idle(options: &Options) -> u64 {
    if options.smoke { 200 } else { 9_900 }
}

fn offered() -> Vec<&'static str> {
    let rows = IO_MODELS.iter().filter(|row| probe(row.model).is_ok());
    rows.map(|row| row.name).collect()
}

/// The ratios of `figures` to those of the same pairs in `beside`.
fn ratios(figures: &[f64], beside: &[f64]) -> Vec<f64> {
    figures.iter().zip(beside).map(|(figure, beside)| figure / beside).collect()
}

/// P2: every model beside nio at the same connections.
pub fn models(options: &Options, sheet: &mut Sheet) -> Outcome<()> {
    sheet.say(
        "P2: io models, bytes per CPU-second beside nio, job count; of 10,000 connections 100 send",
    )?;
    let mut reactors = Vec::new();
    for (busy, idle) in [(1, 0), (BUSY, 0), (BUSY, idle(options))] {
        let wide = idle > 0;
        let names: Vec<_> =
            offered().into_iter().filter(|name| !wide || WIDE.contains(name)).collect();
        let mut figures = vec![Vec::new(); names.len()];
        for pair in 0..options.pairs {
            for turn in 0..names.len() {
                let at = if pair % 2 == 0 { turn } else { names.len() - 1 - turn };
                figures[at].push(pass(names[at], busy, idle, options.seconds)?.0);
            }
        }
        let nio = names.iter().position(|name| *name == "nio").ok_or("nio is everywhere")?;
        for (name, own) in names.iter().zip(&figures) {
            let target = match (*name, wide, busy) {
                ("aio", true, _) => Target::AtLeast { pass: 1.0, goal: 1.2 },
                ("aio", ..) => Target::AtLeast { pass: 1.0, goal: 1.0 },
                ("bio", _, 1) => Target::AtLeast { pass: 0.95, goal: 0.95 },
                _ => Target::Shown,
            };
            let title = format!("{name}, {} connections", busy + idle);
            sheet.judge((&title, "x nio"), &ratios(own, &figures[nio]), target)?;
            let each: Vec<f64> = own.iter().map(|bytes| bytes / 1e9).collect();
            sheet.judge(("    itself", "GB/CPU-s"), &each, Target::Shown)?;
            if *name == "reactors" {
                reactors.push(own.clone());
            }
        }
    }
    if let [_, few, many] = &reactors[..] {
        let target = Target::AtLeast { pass: 0.8, goal: 0.95 };
        sheet.judge(("reactors, many beside own 100", "x"), &ratios(many, few), target)?;
    }
    sheet.say("  bio and pool with 10,000 connections: not run, they cannot read so many")
}

/// P8: what idle connections cost.
pub fn crowd(options: &Options, sheet: &mut Sheet) -> Outcome<()> {
    let idle = idle(options);
    sheet.say(&format!("P8: 100 busy connections and {idle} idle ones"))?;
    // The kernel counts processor time in ticks of 10 ms.
    let quiet = if options.smoke { 0.6 } else { 9.0 };
    let seconds = quiet.to_string();
    let still = ["--rate", "1", "--seconds", &seconds];
    let per_idle = |make: &dyn Fn() -> Outcome<Listening>| -> Outcome<(f64, f64)> {
        let alone = load(&make()?, (1, 0), &still, quiet)?;
        let crowded = load(&make()?, (1, idle), &still, quiet)?;
        Ok(((crowded.kib - alone.kib) * 1024.0 / as_f64(idle), crowded.still))
    };
    let (bytes, _) = per_idle(&Listening::bare)?;
    sheet.judge(("bare poller, memory per idle connection", "B"), &[bytes], Target::Shown)?;
    for model in offered().into_iter().filter(|name| WIDE.contains(name)) {
        let (mut many, mut few) = (Vec::new(), Vec::new());
        for pair in 0..options.pairs {
            for crowded in [pair % 2 == 0, pair % 2 != 0] {
                let rate = pass(model, BUSY, if crowded { idle } else { 0 }, options.seconds)?.1;
                if crowded { many.push(rate) } else { few.push(rate) }
            }
        }
        let target = Target::AtLeast { pass: 0.8, goal: 0.95 };
        sheet.judge(
            (&format!("{model}, rate beside 100 alone"), "x"),
            &ratios(&many, &few),
            target,
        )?;
        let (bytes, cpu) = per_idle(&|| Listening::engine(model, None))?;
        let target = Target::AtMost { pass: 1024.0, goal: 256.0 };
        sheet.judge(("    memory per idle connection", "B"), &[bytes], target)?;
        let target = Target::AtMost { pass: 1.0, goal: 0.1 };
        sheet.judge(("    idle CPU, batches of 1 s", "%"), &[cpu * 100.0], target)?;
    }
    Ok(())
}

/// R7: an honest sender beside peers that come and go, with few descriptors.
pub fn flood(options: &Options, sheet: &mut Sheet) -> Outcome<()> {
    let idle = idle(options);
    sheet.say(&format!(
        "R7: {idle} connections and 1,000 more a second, 256 descriptors, one honest sender"
    ))?;
    let clock = SystemClock::new();
    for model in offered().into_iter().filter(|name| WIDE.contains(name)) {
        let (mut kept, mut recovery) = (Vec::new(), Vec::new());
        for _ in 0..options.pairs {
            let engine = Listening::engine(model, Some(256))?;
            let seconds = options.seconds.to_string();
            let calm = load(&engine, (1, 0), &["--seconds", &seconds], 0.0)?;
            let before = engine.descriptors();
            let over = Arc::new(AtomicBool::new(false));
            let (address, ended) = (engine.address.clone(), Arc::clone(&over));
            let peers = spawn("hostile", &Poison::new(), move || besiege(&address, idle, &ended))?;
            let stormy = load(&engine, (1, 0), &["--seconds", &seconds], 0.0);
            over.store(true, Ordering::SeqCst);
            peers.join();
            let end = clock.now();
            let stormy = stormy?;
            while engine.descriptors() > before && clock.now().since(end) < LIMIT {
                clock.wait(&Signal::new(), Some(clock.now().plus(Duration::from_millis(2))));
            }
            recovery.push(clock.now().since(end).as_secs_f64());
            kept.push(stormy.bytes / stormy.seconds / (calm.bytes / calm.seconds));
            let (counters, _) = engine.stop()?;
            let records = counters["records"].as_u64();
            assert_eq!(records, Some(calm.lines + stormy.lines), "{model}: every honest line");
        }
        let target = Target::AtLeast { pass: 0.8, goal: 0.95 };
        sheet.judge((&format!("{model}, honest rate beside its own calm"), "x"), &kept, target)?;
        let target = Target::AtMost { pass: 1.0, goal: 0.2 };
        sheet.judge(("    until descriptors are back", "s"), &recovery, target)?;
    }
    Ok(())
}

/// Opens `idle` connections and holds them, then a thousand a second that close at once, until it is over.
fn besiege(address: &str, idle: u64, over: &AtomicBool) {
    let (clock, signal, mut held) = (SystemClock::new(), Signal::new(), Vec::new());
    while !over.load(Ordering::SeqCst) {
        for _ in 0..10 {
            // One that is refused was turned away, as it should be.
            if let Ok(peer) = TcpStream::connect(address)
                && (held.len() as u64) < idle / 4
            {
                held.push(peer);
            }
        }
        clock.wait(&signal, Some(clock.now().plus(Duration::from_millis(10))));
    }
}

/// R8: streams without an end beside an honest sender.
pub fn endless(options: &Options, sheet: &mut Sheet) -> Outcome<()> {
    let total: usize = if options.smoke { 64 << 20 } else { 1 << 30 };
    sheet.say(&format!("R8: {} MiB without a line feed on 100 connections", total >> 20))?;
    for model in offered() {
        let engine = Listening::engine(model, None)?;
        let mut peers = (0..BUSY)
            .map(|_| TcpStream::connect(&engine.address))
            .collect::<std::io::Result<Vec<_>>>()?;
        let flood = vec![b'x'; 64 << 10];
        for _ in 0..total / (flood.len() * peers.len()) {
            for peer in &mut peers {
                peer.write_all(&flood)?;
            }
        }
        let most = engine.kib("VmHWM:") / 1024.0;
        // Connections times records of 1 MiB, and 64 MiB.
        let target = Target::AtMost { pass: as_f64(BUSY) + 64.0, goal: as_f64(BUSY) + 64.0 };
        sheet.judge((&format!("{model}, most memory"), "MiB"), &[most], target)?;
        engine.stop()?;
    }
    Ok(())
}
