//! Rows beside rsyslog: RELP with acknowledgement after the sync (P16), lines from TCP to files (P9).
//!
//! Both programs run as people run them, in processes of their own, from files that this writes; the sender is the same
//! for both, and the order alternates. rsyslogd runs privately: its own configuration, pid file and directory.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tidemill::internals::lab::process::Process;
use tidemill::internals::lab::sample::cpu_of;
use tidemill::internals::lab::stats::{alternate, ratios};
use tidemill::internals::load::WINDOW;
use tidemill::internals::settings::units::as_f64;

use crate::kind::Kind;
use crate::load::{Load, Peers};
use crate::process::{self, TIDEMILL, child, directory, said};
use crate::verdict::{Sheet, Target};
use crate::wait::{seconds_since, until};
use crate::{Options, Outcome};

/// Bytes of a record, or their mean.
pub const RECORD_BYTES: usize = 98;

/// The time between two looks at a growing output.
const LOOK: Duration = Duration::from_millis(5);

/// Who receives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Who {
    Rsyslog,
    Tidemill,
    /// One thread that reads and writes, with a file for each interval like the engine's. Lines only.
    Plain,
}

/// The framing that is sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum What {
    Relp,
    Lines,
}

/// A receiving program with its output.
pub struct Receiver {
    process: Process,
    pub address: SocketAddr,
    pub output: PathBuf,
    /// Removed at the end.
    _directory: TempDir,
}

impl Receiver {
    pub fn start(who: Who, what: What) -> Outcome<Receiver> {
        let directory = directory()?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let (path, output) = (directory.path(), directory.path().join("out"));
        let mut command = match who {
            Who::Rsyslog => {
                let file = path.join("rsyslog.conf");
                fs::write(&file, rsyslog_file(what, address.port(), path))?;
                let mut command = Command::new("rsyslogd");
                command.arg("-n").arg("-f").arg(file).arg("-i").arg(path.join("pid"));
                command
            }
            Who::Tidemill => {
                let file = path.join("pipeline.toml");
                fs::write(&file, pipeline_file(what, address, path))?;
                let mut command = Command::new(TIDEMILL);
                command.arg("run").arg(file).arg("--quiet");
                command
            }
            Who::Plain => {
                fs::create_dir(&output)?;
                let mut command = child(Kind::ToFiles)?;
                command.args(["--address", &address.to_string()]);
                command.args(["--every", "200", "--state"]).arg(&output);
                command
            }
        };
        let log = fs::File::create(path.join("said"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let process = process::start(&mut command)?;
        let receiver = Receiver { process, address, output, _directory: directory };
        receiver.until("it listens", || Ok(TcpStream::connect(address).is_ok()))?;
        Ok(receiver)
    }

    /// Waits until something is so.
    pub fn until(&self, what: &str, so: impl FnMut() -> Outcome<bool>) -> Outcome<()> {
        until(what, LOOK, so).map_err(|err| {
            let said = fs::read_to_string(self._directory.path().join("said"));
            format!("{err}: {}", said.unwrap_or_default()).into()
        })
    }

    /// Processor time so far, in seconds.
    fn cpu_seconds(&self) -> f64 {
        cpu_of(self.process.id()).as_secs_f64()
    }

    /// Bytes of committed output.
    pub fn written(&self) -> Outcome<u64> {
        if self.output.is_file() {
            return Ok(fs::metadata(&self.output)?.len());
        }
        let Ok(files) = fs::read_dir(&self.output) else { return Ok(0) };
        let committed =
            files.flatten().filter(|file| !file.file_name().as_encoded_bytes().starts_with(b"."));
        // A file may be renamed between its listing and this look.
        Ok(committed.filter_map(|file| file.metadata().ok()).map(|meta| meta.len()).sum())
    }
}

fn rsyslog_file(what: What, port: u16, path: &Path) -> String {
    let module = if what == What::Relp { "imrelp" } else { "imtcp" };
    let path = path.display();
    format!(
        "global(workDirectory=\"{path}\" maxMessageSize=\"8k\")\nmodule(load=\"{module}\")\n\
         template(name=\"raw\" type=\"string\" string=\"%rawmsg%\\n\")\n\
         input(type=\"{module}\" port=\"{port}\")\n\
         action(type=\"omfile\" file=\"{path}/out\" template=\"raw\" asyncWriting=\"off\"\n\
         flushOnTXEnd=\"on\" ioBufferSize=\"64k\")\n"
    )
}

fn pipeline_file(what: What, address: SocketAddr, path: &Path) -> String {
    let path = path.display();
    let (state, framing) = match what {
        What::Relp => (format!("state_dir = '{path}/state'\n"), "relp"),
        What::Lines => (String::new(), "lines"),
    };
    format!(
        "batch_interval = '200ms'\n{state}http = 'off'\n[source.in.socket]\nlisten = '{address}'\nframing = '{framing}'\n\
         [job.all]\nfrom = ['in']\nto = ['files']\nlines = {{}}\n[sink.files.file]\npath = '{path}/out'\nformat = 'text'\n"
    )
}

/// True if rsyslogd is here; otherwise the row says that it was not run.
fn is_there(sheet: &mut Sheet) -> Outcome<bool> {
    let version = said("rsyslogd", &["-v"]);
    let first = version.lines().next().unwrap_or_default().to_owned();
    sheet.say(&if first.is_empty() {
        "  not run: rsyslogd (apt install rsyslog rsyslog-relp)".to_owned()
    } else {
        format!("  beside {first}")
    })?;
    Ok(!first.is_empty())
}

pub fn relp(options: &Options, sheet: &mut Sheet) -> Outcome<()> {
    sheet.say(&format!(
        "P16: RELP, window {WINDOW}, records of {RECORD_BYTES} bytes on average to files, acknowledged after the sync of the log, beside \
         rsyslog imrelp, which acknowledges before the record is safe"
    ))?;
    if !is_there(sheet)? {
        return Ok(());
    }
    let one = Target::AtLeast { pass: 1.0, goal: 2.0 };
    let eight = Target::AtLeast { pass: 2.0, goal: 5.0 };
    for (clients, target) in [(1, one), (8, eight)] {
        let [theirs, ours] = alternate(options.pairs, |side| {
            acknowledged([Who::Rsyslog, Who::Tidemill][side], clients, options.seconds)
        })?;
        let [their_rates, our_rates] =
            [&theirs, &ours].map(|side| side.iter().map(|run| run.rate / 1e3).collect::<Vec<_>>());
        let [their_cpu, our_cpu] = [&theirs, &ours]
            .map(|side| side.iter().map(|run| run.cpu_per_million).collect::<Vec<_>>());
        let name = format!("{clients} client{}", if clients == 1 { "" } else { "s" });
        let ratios = ratios(&our_rates, &their_rates);
        sheet.line(&format!("{name}: tidemill / rsyslog"), "x").judge(&ratios, target)?;
        sheet.line(&format!("{name}: tidemill, acknowledged"), "k/s").show(&our_rates)?;
        sheet.line(&format!("{name}: rsyslog, acknowledged"), "k/s").show(&their_rates)?;
        sheet.line(&format!("{name}: tidemill, processor"), "s per M").show(&our_cpu)?;
        sheet.line(&format!("{name}: rsyslog, processor"), "s per M").show(&their_cpu)?;
    }
    Ok(())
}

/// One run of a receiver that acknowledges.
struct Acknowledged {
    /// Records acknowledged per second.
    rate: f64,
    /// Seconds of the receiver's processor time for 10^6 of them.
    cpu_per_million: f64,
}

/// Each line begins with a stamp: what begins with a `z` rsyslog takes for compressed.
fn acknowledged(who: Who, clients: u64, seconds: f64) -> Outcome<Acknowledged> {
    let receiver = Receiver::start(who, What::Relp)?;
    let before = receiver.cpu_seconds();
    let (length, seconds) = ((RECORD_BYTES + 1).to_string(), seconds.to_string());
    let limits = ["--framing", "relp", "--stamp", "--line-len", &length, "--seconds", &seconds];
    let peers = Peers { busy: clients, idle: 0 };
    let loaded = Load::connect(&receiver.address.to_string(), peers, &limits)?.finish()?;
    let (answered, bytes) = (loaded.figure("acknowledged")?, loaded.figure("acknowledged_bytes")?);
    receiver.until("everything is written", || {
        // Each record has a line feed in the file.
        Ok(as_f64(receiver.written()?) >= bytes + answered)
    })?;
    let cpu = receiver.cpu_seconds() - before;
    let rate = loaded.figure("acknowledged_per_second")?;
    Ok(Acknowledged { rate, cpu_per_million: cpu * 1e6 / answered.max(1.0) })
}

/// Lines of about the asked time for rsyslog.
const LINES_PER_SECOND: f64 = 500_000.0;

pub fn lines(options: &Options, sheet: &mut Sheet) -> Outcome<()> {
    sheet.say("P9: lines from TCP to files, one connection, beside rsyslog imtcp -> omfile")?;
    if !is_there(sheet)? {
        return Ok(());
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a number of lines"
    )]
    let count = (options.seconds * LINES_PER_SECOND) as u64;
    let all = [Who::Rsyslog, Who::Tidemill, Who::Plain];
    let mut sides = [const { Vec::new() }; 3];
    for pair in 0..options.pairs {
        for turn in 0..all.len() {
            let side = (turn + pair) % all.len();
            sides[side].push(to_files(all[side], count)?);
        }
    }
    let [theirs, ours, plain] = &sides;
    let target = Target::AtLeast { pass: 5.0, goal: 10.0 };
    for (name, unit, of) in [
        ("lines", "M/s", (|run| run.rate / 1e6) as fn(&ToFiles) -> f64),
        ("bytes for a second of processor", "MB", |run| run.bytes_per_cpu_second / 1e6),
    ] {
        let beside = |side: &[ToFiles]| -> Vec<f64> {
            ours.iter().zip(side).map(|(ours, theirs)| of(ours) / of(theirs)).collect()
        };
        sheet.line(&format!("{name}: tidemill / rsyslog"), "x").judge(&beside(theirs), target)?;
        let shown = format!("{name}: tidemill / a thread that reads, writes and syncs");
        sheet.line(&shown, "x").show(&beside(plain))?;
        for (who, side) in [("tidemill", ours), ("rsyslog", theirs), ("the plain thread", plain)] {
            let figures: Vec<f64> = side.iter().map(of).collect();
            sheet.line(&format!("{name}: {who}"), unit).show(&figures)?;
        }
    }
    let sent: Vec<f64> = ours.iter().map(|run| run.sent / 1e6).collect();
    sheet.line("lines: the sender, while it sent to tidemill", "M/s").show(&sent)
}

/// One run of a receiver that writes files.
struct ToFiles {
    /// Lines per second from the first byte to the last line in a file.
    rate: f64,
    bytes_per_cpu_second: f64,
    /// Lines per second that the sender got rid of.
    sent: f64,
}

fn to_files(who: Who, lines: u64) -> Outcome<ToFiles> {
    let receiver = Receiver::start(who, What::Lines)?;
    let before = receiver.cpu_seconds();
    let limits = ["--line-len", "100", "--records", &lines.to_string()];
    let loaded = Load::connect(&receiver.address.to_string(), Peers::ONE, &limits)?.finish()?;
    let sending = loaded.figure("seconds")?;
    receiver.until("everything is written", || Ok(receiver.written()? >= loaded.bytes))?;
    let seconds = sending + seconds_since(loaded.ended);
    let cpu = receiver.cpu_seconds() - before;
    Ok(ToFiles {
        rate: as_f64(lines) / seconds,
        bytes_per_cpu_second: as_f64(loaded.bytes) / cpu.max(0.01),
        sent: as_f64(lines) / sending,
    })
}
