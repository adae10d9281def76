//! R5: the disk is full and emptied again, under the log and under the file sink. The disk is a small file system in
//! memory that this mounts under a fresh directory and unmounts at the end; without the right to mount, the row says so.
//!
//! ```text
//!  numbered lines ─TCP─▶ tidemill run ─▶ state_dir ─┐ one of them on the small disk
//!                                     └▶ files ─────┘     fill ─ is the peer held? ─ empty ─ does it go on? ─ exact?
//! ```
//! Lines are sent by a thread of this process, so that it knows what the engine took.

use std::fs;
use std::io::{self, BufRead, BufReader, BufWriter, ErrorKind, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::geteuid;
use tidemill::internals::lab::process::Process;
use tidemill::internals::settings::units::as_f64;
use tidemill::internals::sync::thread::{self, Thread};
use tidemill::internals::sync::{Mutex, Poison};

use crate::disk::Disk;
use crate::process::{self, TIDEMILL, directory};
use crate::verdict::{Sheet, Target};
use crate::wait::{LIMIT, deadline, now, pause_until, seconds_since};
use crate::{Options, Outcome};

/// The small disk: room for three segments of the log and some checkpoints.
const DISK_BYTES: u64 = 224 << 20;

/// Bytes of a numbered line, its end included.
const LINE_BYTES: u64 = 100;

/// Lines that the sender hands over at once.
const LINES_AT_ONCE: usize = 640;

/// From one piece to the next: about 16 MB/s, so that the small disk is full of ballast and not of output.
const APART: Duration = Duration::from_millis(4);

/// The time between two looks at something.
const LOOK: Duration = Duration::from_millis(20);

/// A peer that gets rid of nothing for this long is held.
const HELD: Duration = Duration::from_secs(2);

/// The part of the pipeline that lies on the small disk.
#[derive(Clone, Copy, Debug, PartialEq)]
enum On {
    Log,
    /// A file for each batch.
    Sink,
    /// Batches gathered in larger files.
    Rolled,
}

/// The file that takes all the room that is left on the small disk.
struct Ballast(PathBuf);

impl Ballast {
    fn fill(disk: &Disk) -> Outcome<Ballast> {
        let path = disk.path().join("ballast");
        let mut file = fs::OpenOptions::new().create(true).append(true).open(&path)?;
        // The last page is filled with small pieces.
        for piece in [1 << 20, 4096, 1] {
            loop {
                match file.write(&vec![b'x'; piece]) {
                    Ok(_) => {}
                    Err(err) if err.kind() == ErrorKind::StorageFull => break,
                    Err(err) => return Err(err.into()),
                }
            }
        }
        Ok(Ballast(path))
    }

    fn remove(self) -> Outcome<()> {
        Ok(fs::remove_file(self.0)?)
    }
}

/// An engine between the sender and the files.
struct Run {
    engine: Process,
    files: PathBuf,
    sent: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    said: PathBuf,
    /// The sender, and what it ended with. Dropped after the engine, without which it ends.
    sender: Option<Thread>,
    lines: Arc<Mutex<Option<io::Result<u64>>>>,
}

/// Sends numbered lines until it must stop. Returns their number.
fn send(to: TcpStream, sent: &AtomicU64, stop: &AtomicBool) -> io::Result<u64> {
    let mut out = BufWriter::with_capacity(LINES_AT_ONCE * 100, to);
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..LINES_AT_ONCE {
            out.write_all(line(number).as_bytes())?;
            number += 1;
        }
        out.flush()?;
        sent.store(number, Ordering::Relaxed);
        pause_until(now().plus(APART));
    }
    Ok(number)
}

pub fn full(options: &Options, sheet: &mut Sheet) -> Outcome<()> {
    sheet.say("R5: disk full and emptied again: the peer is held, the stream goes on by itself, the output is exact")?;
    if !geteuid().is_root() {
        return sheet.say(
            "  not run: needs root to mount (unshare -rm cargo bench --bench scorecard -- r5)",
        );
    }
    for on in [On::Log, On::Sink, On::Rolled] {
        let (mut seconds, mut held, mut lines) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..options.pairs {
            let disk = match Disk::mount(DISK_BYTES) {
                Ok(disk) => disk,
                Err(err) => return sheet.say(&format!("  not run: cannot mount: {err}")),
            };
            let found = once(on, &disk)?;
            seconds.push(found.resumed);
            held.push(as_f64(found.taken) / 1e6);
            lines.push(as_f64(found.lines) / 1e6);
        }
        let name = match on {
            On::Log => "log",
            On::Sink => "file sink",
            On::Rolled => "rolled files",
        };
        let target = Target::AtMost { pass: 5.0, goal: 1.0 };
        sheet
            .line(&format!("{name}: room until lines are taken and written again"), "s")
            .judge(&seconds, target)?;
        sheet.line(&format!("    {name}: taken on the full disk"), "MB").show(&held)?;
        sheet.line(&format!("    {name}: lines, none lost or repeated"), "M").show(&lines)?;
    }
    Ok(())
}

/// The figures of one run.
struct Found {
    /// Seconds from the room on the disk until the engine continued.
    resumed: f64,
    /// Bytes that were taken while the disk was full.
    taken: u64,
    /// Lines in the output.
    lines: u64,
}

fn once(on: On, disk: &Disk) -> Outcome<Found> {
    let home = directory()?;
    let (small, large) = (disk.path(), home.path());
    let (state, files) = match on {
        On::Log => (small.join("state"), large.join("files")),
        On::Sink | On::Rolled => (large.join("state"), small.join("files")),
    };
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let file = large.join("pipeline.toml");
    fs::write(&file, pipeline(on, address, &state, &files))?;
    let mut run = Run::start(&file, address, files)?;
    run.send(address)?;
    run.until("lines are written", |run| Ok(run.written()? > 0))?;
    let ballast = Ballast::fill(disk)?;
    let before = run.sent.load(Ordering::Relaxed);
    run.until_held()?;
    let (held_at, written) = (run.sent.load(Ordering::Relaxed), run.written()?);
    ballast.remove()?;
    let emptied = now();
    run.until("it goes on", |run| {
        Ok(run.sent.load(Ordering::Relaxed) > held_at && run.written()? > written)
    })?;
    let resumed = seconds_since(emptied);
    let lines = run.lines()?;
    run.until("every line is written", |run| Ok(run.written()? >= lines * LINE_BYTES))?;
    run.engine.terminate()?;
    run.engine.wait(LIMIT)?;
    exact(&run.files, lines)?;
    Ok(Found { resumed, taken: (held_at - before) * LINE_BYTES, lines })
}

/// Little is kept in memory, so that the peer is held soon.
fn pipeline(on: On, address: SocketAddr, state: &Path, files: &Path) -> String {
    let roll = if on == On::Rolled { "roll = { bytes = '8MiB' }\n" } else { "" };
    format!(
        "batch_interval = '100ms'\nstate_dir = '{}'\nhttp = 'off'\nstore_bytes_max = '32MiB'\n\
         [source.in.socket]\nlisten = '{address}'\n[job.all]\nfrom = ['in']\nto = ['files']\nlines = {{}}\n\
         [sink.files.file]\npath = '{}'\nformat = 'text'\n{roll}",
        state.display(),
        files.display(),
    )
}

impl Run {
    fn start(file: &Path, address: SocketAddr, files: PathBuf) -> Outcome<Run> {
        let said = file.with_file_name("said");
        let log = fs::File::create(&said)?;
        let mut command = Command::new(TIDEMILL);
        command.arg("run").arg(file).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let engine = process::start(&mut command)?;
        let (sent, stop) = (Arc::default(), Arc::default());
        let mut run = Run { engine, files, sent, stop, said, sender: None, lines: Arc::default() };
        run.until("it listens", |_| Ok(TcpStream::connect(address).is_ok()))?;
        Ok(run)
    }

    /// Starts the sender.
    fn send(&mut self, address: SocketAddr) -> Outcome<()> {
        let stream = TcpStream::connect(address)?;
        // A sender that is held for ever would be waited for without an end.
        stream.set_write_timeout(Some(LIMIT))?;
        let (sent, stop) = (Arc::clone(&self.sent), Arc::clone(&self.stop));
        let lines = Arc::clone(&self.lines);
        let body = move || *lines.lock() = Some(send(stream, &sent, &stop));
        self.sender = Some(thread::spawn("sender", &Poison::new(), body)?);
        Ok(())
    }

    /// Stops the sender. Returns the number of its lines.
    fn lines(&mut self) -> Outcome<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.sender.take().ok_or("nothing is sent")?.join();
        Ok(self.lines.lock().take().ok_or("the sender panicked")??)
    }

    fn until(&mut self, what: &str, mut so: impl FnMut(&Run) -> Outcome<bool>) -> Outcome<()> {
        let end = deadline();
        while !so(self)? {
            let ended = self.engine.has_ended()?;
            if ended || now() > end {
                let said = fs::read_to_string(&self.said)?;
                return Err(format!("waited in vain until {what} (ended: {ended}): {said}").into());
            }
            pause_until(now().plus(LOOK));
        }
        Ok(())
    }

    /// Waits until the peer gets rid of nothing for a while.
    fn until_held(&mut self) -> Outcome<()> {
        let (mut last, mut since) = (self.sent.load(Ordering::Relaxed), now());
        self.until("the peer is held", move |run| {
            let (sent, now) = (run.sent.load(Ordering::Relaxed), now());
            if sent != last {
                (last, since) = (sent, now);
            }
            Ok(now.since(since) >= HELD)
        })
    }

    /// Bytes of output; of files that are not named yet they may be more than what is committed.
    fn written(&self) -> Outcome<u64> {
        Ok(outputs(&self.files)?
            .iter()
            .filter_map(|(_, file)| fs::metadata(file).ok())
            .map(|meta| meta.len())
            .sum())
    }
}

fn line(number: u64) -> String {
    format!("{number:099}\n")
}

/// The files of the output with the times of their batches, in order.
fn outputs(files: &Path) -> Outcome<Vec<(u64, PathBuf)>> {
    let Ok(entries) = fs::read_dir(files) else { return Ok(Vec::new()) };
    let time = |path: &Path| {
        path.extension().filter(|end| *end == "txt" || *end == "open")?;
        path.file_stem()?
            .to_str()?
            .trim_start_matches('.')
            .strip_prefix("all-")?
            .split('-')
            .next()?
            .parse()
            .ok()
    };
    let mut found: Vec<(u64, PathBuf)> =
        entries.flatten().filter_map(|entry| Some((time(&entry.path())?, entry.path()))).collect();
    found.sort_unstable();
    Ok(found)
}

/// The files, one behind the other, hold every line once and in order.
fn exact(files: &Path, lines: u64) -> Outcome<()> {
    let mut number = 0;
    for (_, file) in outputs(files)? {
        assert!(file.extension().is_some_and(|end| end == "txt"), "{}: named", file.display());
        for found in BufReader::new(fs::File::open(&file)?).lines() {
            let found = found? + "\n";
            if found != line(number) {
                return Err(
                    format!("{}: {found:?} where line {number} belongs", file.display()).into()
                );
            }
            number += 1;
        }
    }
    if number == lines {
        Ok(())
    } else {
        Err(format!("{number} lines of {lines} were written").into())
    }
}
