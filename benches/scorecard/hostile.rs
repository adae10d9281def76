//! The rates, times and memory of R7 and R8: an honest sender beside peers that mean harm. What must never be lost or
//! exceeded is asserted by `tests/hostile/`. The honest sender and the hostile ones are threads of this process.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tidemill::internals::lab::stats::{alternate, ratios};
use tidemill::internals::settings::units::as_f64;
use tidemill::internals::sync::thread::{Thread, spawn};
use tidemill::internals::sync::{Poison, Signal};

use crate::listening::{Listening, POOL_THREADS};
use crate::many_connections::{WIDE, offered};
use crate::verdict::{Sheet, Target};
use crate::wait::{LIMIT, now, pause, pause_until, seconds_since};
use crate::{Options, Outcome};

/// Connections that flood.
const FLOODS: usize = 100;

/// `store_bytes_max` beside records that are almost whole, in MiB.
const STORE_MIB: u64 = 64;

/// Bytes of a line of the honest sender.
const LINE_BYTES: usize = 100;

/// Lines that it writes at once.
const LINES: usize = 600;

/// The longest time that a hostile peer waits to be let in.
const PATIENCE: Duration = Duration::from_millis(250);

/// A sender of lines on one connection, from before the trouble to after it.
struct Honest {
    sent: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    thread: Thread,
}

impl Honest {
    /// As fast as it is read, or this many bytes a second.
    fn start(to: &Listening, pace: Option<f64>) -> Outcome<Self> {
        let mut stream = TcpStream::connect(&to.address)?;
        stream.set_write_timeout(Some(LIMIT))?;
        stream.set_read_timeout(Some(LIMIT))?;
        let (sent, over): (Arc<AtomicU64>, Arc<AtomicBool>) = Default::default();
        let (counted, ended) = (Arc::clone(&sent), Arc::clone(&over));
        let body = move || {
            let piece = [&[b'h'; LINE_BYTES - 1][..], b"\n"].concat().repeat(LINES);
            let start = now();
            while !ended.load(Ordering::SeqCst) && stream.write_all(&piece).is_ok() {
                let sent = counted.fetch_add(piece.len() as u64, Ordering::SeqCst);
                if let Some(pace) = pace {
                    pause_until(start.plus(Duration::from_secs_f64(as_f64(sent) / pace)));
                }
            }
            // The engine closes when it has read the end: then nothing is under way any more.
            let _ = stream.shutdown(Shutdown::Write).and_then(|()| stream.read(&mut [0]));
        };
        Ok(Honest { sent, over, thread: spawn("honest", &Poison::new(), body)? })
    }

    /// Bytes per second while `meanwhile` runs.
    fn rate<T>(&self, meanwhile: impl FnOnce() -> T) -> (f64, T) {
        let (start, before) = (now(), self.sent.load(Ordering::SeqCst));
        let done = meanwhile();
        let bytes = self.sent.load(Ordering::SeqCst) - before;
        (as_f64(bytes) / seconds_since(start), done)
    }

    /// Lines sent in all.
    fn finish(self) -> u64 {
        self.over.store(true, Ordering::SeqCst);
        self.thread.join();
        self.sent.load(Ordering::SeqCst) / LINE_BYTES as u64
    }
}

/// Hostile peers on a thread.
struct Trouble {
    over: Arc<AtomicBool>,
    thread: Thread,
}

impl Trouble {
    /// Runs `body` with a flag that says that it is over, and returns when it says that it is under way.
    fn start(body: impl FnOnce(&AtomicBool, &Signal) + Send + 'static) -> Outcome<Self> {
        let (over, under_way) = (Arc::new(AtomicBool::new(false)), Signal::new());
        let (ended, told) = (Arc::clone(&over), under_way.clone());
        let run = move || {
            body(&ended, &told);
            told.raise();
        };
        let thread = spawn("hostile", &Poison::new(), run)?;
        under_way.wait();
        Ok(Trouble { over, thread })
    }

    fn end(self) {
        self.over.store(true, Ordering::SeqCst);
        self.thread.join();
    }
}

/// This process holds the other end of every connection.
fn raise_descriptors() -> Outcome<()> {
    let limit = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?)
}

/// R7: an honest sender beside peers that come and go, with few descriptors.
pub fn flood(options: &Options, sheet: &mut Sheet) -> Outcome<()> {
    raise_descriptors()?;
    let many = if options.smoke { 400 } else { 10_000 };
    sheet.say(&format!(
        "R7: {many} connections, then 1,000 more a second that close at once; 256 descriptors; one honest sender"
    ))?;
    for model in offered(options).into_iter().filter(|name| WIDE.contains(name)) {
        let engine = Listening::engine(model, Some(256))?;
        let honest = Honest::start(&engine, None)?;
        pause(options.seconds);
        let before = engine.descriptors();
        let (mut recovery, mut came) = (Vec::new(), Vec::new());
        let [calm, stormy] = alternate(options.pairs, |side| {
            if side == 0 {
                return Ok(honest.rate(|| pause(options.seconds)).0);
            }
            let siege = besieged(&engine, &honest, many, options.seconds)?;
            let end = now();
            while engine.descriptors() > before && now().since(end) < LIMIT {
                pause(0.002);
            }
            recovery.push(seconds_since(end));
            came.push(siege.came);
            Outcome::Ok(siege.rate)
        })?;
        let kept = ratios(&stormy, &calm);
        let lines = honest.finish();
        let records = engine.stop()?["records"].as_u64();
        assert_eq!(records, Some(lines), "{model}: every honest line");
        let target = Target::AtLeast { pass: 0.8, goal: 0.95 };
        sheet
            .line(&format!("{model}, honest rate beside its own calm"), "x")
            .judge(&kept, target)?;
        let target = Target::AtMost { pass: 1.0, goal: 0.2 };
        sheet.line("    until descriptors are back", "s").judge(&recovery, target)?;
        sheet.line("    connections a second that came and went", "1/s").show(&came)?;
    }
    Ok(())
}

/// A storm that is over.
struct Siege {
    /// Bytes per second of the honest sender meanwhile.
    rate: f64,
    /// Connections per second that came and went.
    came: f64,
}

fn besieged(engine: &Listening, honest: &Honest, many: usize, seconds: f64) -> Outcome<Siege> {
    let address: SocketAddr = engine.address.parse()?;
    let count = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&count);
    let peers = Trouble::start(move |over, told| besiege(address, many, over, told, &counted))?;
    let first = count.load(Ordering::SeqCst);
    let (rate, came) = honest.rate(|| {
        pause(seconds);
        as_f64(count.load(Ordering::SeqCst) - first) / seconds
    });
    peers.end();
    Ok(Siege { rate, came })
}

/// Opens many connections and holds them, then a thousand a second that close at once, until it is over.
fn besiege(address: SocketAddr, many: usize, over: &AtomicBool, told: &Signal, came: &AtomicU64) {
    let connect = || TcpStream::connect_timeout(&address, PATIENCE).ok();
    let held: Vec<TcpStream> = (0..many).filter_map(|_| connect()).collect();
    told.raise();
    while !over.load(Ordering::SeqCst) {
        let due = now().plus(Duration::from_millis(10));
        came.fetch_add((0..10).filter_map(|_| connect()).count() as u64, Ordering::SeqCst);
        pause_until(due);
    }
    drop(held);
}

/// R8: streams without an end, and bytes that drip, beside an honest sender of 10 MB/s.
pub fn endless(options: &Options, sheet: &mut Sheet) -> Outcome<()> {
    raise_descriptors()?;
    let total: usize = if options.smoke { 32 << 20 } else { 1 << 30 };
    let drips = if options.smoke { 100 } else { 5_000 };
    sheet.say(&format!(
        "R8: {} MiB without a line feed on {FLOODS} connections; a byte a second on {drips} (bio 900, pool 100 of its \
         {POOL_THREADS} threads); an honest sender of 10 MB/s beside them",
        total >> 20
    ))?;
    for model in offered(options) {
        let flooded = |_| {
            disturbed(model, &[], options.seconds, |address| {
                Trouble::start(move |_, _| without_end(address, total / FLOODS))
            })
        };
        let found = (0..options.pairs.min(3)).map(flooded).collect::<Outcome<Vec<_>>>()?;
        let name = format!("{model}, without a line feed");
        show(sheet, &name, &found, FLOODS as u64)?;
        let drips = match model {
            "bio" => drips.min(900),
            "pool" => drips.min(100),
            _ => drips,
        };
        let seconds = options.seconds.max(0.5);
        let found = disturbed(model, &[], options.seconds, |address| {
            let peers = Trouble::start(move |over, told| drip(address, drips, over, told))?;
            pause(seconds);
            Ok(peers)
        })?;
        show(sheet, &format!("{model}, drips"), &[found], drips as u64)?;
    }
    almost_whole(options, sheet)
}

/// R8 again: each connection stops a byte before the end of the longest record. Together they would take all memory.
fn almost_whole(options: &Options, sheet: &mut Sheet) -> Outcome<()> {
    let many = if options.smoke { 200 } else { 5_000 };
    sheet.say(&format!(
        "R8: {many} connections with a record of 1 MiB - 1 each and no line feed (bio 900, pool 100), store_bytes_max \
         {STORE_MIB} MiB; the honest sender of 10 MB/s beside them"
    ))?;
    let store = format!("store_bytes_max={STORE_MIB}MiB");
    for model in offered(options) {
        let many = match model {
            "bio" => many.min(900),
            "pool" => many.min(100),
            _ => many,
        };
        let found = disturbed(model, &["--set", &store], options.seconds, |address| {
            Trouble::start(move |_, _| up_to_the_end(address, many))
        })?;
        show(sheet, &format!("{model}, almost whole"), &[found], STORE_MIB)?;
    }
    Ok(())
}

/// Judges the memory; it may be 64 MiB more than `besides`, the records of all connections or the store, in MiB.
fn show(sheet: &mut Sheet, name: &str, found: &[Disturbed], besides: u64) -> Outcome<()> {
    let kept: Vec<f64> = found.iter().map(|run| run.kept).collect();
    let most: Vec<f64> = found.iter().map(|run| run.most).collect();
    sheet.line(&format!("{name}: honest rate beside calm"), "x").show(&kept)?;
    // Connections times records of 1 MiB, or the store, and 64 MiB.
    let bound = as_f64(besides) + 64.0;
    let target = Target::AtMost { pass: bound, goal: bound };
    sheet.line("    most memory", "MiB").judge(&most, target)
}

/// A run with an honest sender in some trouble.
struct Disturbed {
    /// The part of its calm rate that the honest sender keeps.
    kept: f64,
    /// The most memory of the engine, in MiB.
    most: f64,
}

fn disturbed(
    model: &str,
    settings: &[&str],
    seconds: f64,
    trouble: impl FnOnce(SocketAddr) -> Outcome<Trouble>,
) -> Outcome<Disturbed> {
    let engine = Listening::engine_with(model, None, settings)?;
    let address = engine.address.parse()?;
    let honest = Honest::start(&engine, Some(10e6))?;
    pause(seconds / 2.0);
    let (calm, ()) = honest.rate(|| pause(seconds));
    let (stormy, done) = honest.rate(|| trouble(address).map(Trouble::end));
    done?;
    let most = engine.kib("VmHWM:") / 1024.0;
    let lines = honest.finish();
    let records = engine.stop()?["records"].as_u64().ok_or("no records")?;
    // A drip that its end cuts off is a record of its own.
    assert!(
        (lines..=lines + 5_000).contains(&records),
        "{model}: {lines} honest lines, {records} records"
    );
    Ok(Disturbed { kept: stormy / calm, most })
}

/// This many bytes on each connection, in turn.
fn without_end(address: SocketAddr, each: usize) {
    let mut peers: Vec<TcpStream> =
        (0..FLOODS).filter_map(|_| TcpStream::connect(address).ok()).collect();
    let piece = vec![b'x'; 64 << 10];
    for _ in 0..each / piece.len() {
        for peer in &mut peers {
            // One that is closed by the engine has been answered.
            let _ = peer.write_all(&piece);
        }
    }
}

/// A byte less than the longest record on each connection, in turn, so that all are long at the same time.
fn up_to_the_end(address: SocketAddr, many: usize) {
    let mut peers: Vec<TcpStream> =
        (0..many).filter_map(|_| TcpStream::connect(address).ok()).collect();
    let almost = vec![b'x'; (1 << 20) - 1];
    for piece in almost.chunks(64 << 10) {
        for peer in &mut peers {
            // One that is closed by the engine has been answered.
            let _ = peer.write_all(piece);
        }
    }
}

/// A byte a second on each connection, spread over the second.
fn drip(address: SocketAddr, many: usize, over: &AtomicBool, told: &Signal) {
    let mut peers: Vec<TcpStream> =
        (0..many).filter_map(|_| TcpStream::connect(address).ok()).collect();
    told.raise();
    let share = peers.len().div_ceil(100).max(1);
    while !over.load(Ordering::SeqCst) {
        for part in peers.chunks_mut(share) {
            let due = now().plus(Duration::from_millis(10));
            part.iter_mut().for_each(|peer| drop(peer.write_all(b"x")));
            pause_until(due);
            if over.load(Ordering::SeqCst) {
                break;
            }
        }
    }
}
