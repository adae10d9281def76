//! One run of `tidemill run` with a sender, a reader and two looks at its metrics. Main thread. Must not judge.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::metrics::{Look, look};
use crate::reader::{Batch, JOB, Reader};
use crate::sender::Sender;
use crate::{Outcome, clock};

/// The longest time until the program listens, in nanoseconds, and between two tries to dial it.
const START_MAX: u64 = 30_000_000_000;
const RETRY: u64 = 5_000_000;

/// The time from the first line until figures count, in seconds.
pub const WARM_UP: u64 = 1;

/// What is run.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    pub model: &'static str,
    pub batch_ms: u64,
    pub seconds: u64,
    pub rate: u64,
}

/// Everything that was seen of a run.
#[derive(Debug)]
pub struct Seen {
    pub batches: Vec<Batch>,
    /// The time of the first line, that between two, and their number.
    pub start: u64,
    pub gap: u64,
    pub lines: u64,
    /// The metrics early and late.
    pub early: Look,
    pub late: Look,
}

/// The program, which does not outlive this.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs it once.
pub fn run(setting: &Setting) -> Outcome<Seen> {
    let directory = tempfile::tempdir()?;
    let (address, http) = (free_address()?, free_address()?);
    let path = directory.path().join("truth.toml");
    std::fs::write(&path, text(setting, address, http))?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    command.arg("run").arg(&path).arg("--quiet").stdin(Stdio::null()).stdout(Stdio::piped());
    let mut program = Program(command.spawn()?);
    // After an error the program ends last: neither waits for it.
    let reader = Reader::start(program.0.stdout.take().ok_or("standard output is piped")?)?;
    let mut sender = Sender::start(dial(address)?, setting.rate, setting.seconds)?;
    clock::wait_until(sender.start + WARM_UP * 1_000_000_000);
    let early = look(http, &sender)?;
    clock::wait_until(sender.end() - 500_000_000);
    let late = look(http, &sender)?;
    sender.finish()?;
    // The last batch holds what is under way.
    clock::wait_until(sender.end() + 2 * setting.batch_ms * 1_000_000 + 200_000_000);
    kill_process(Pid::from_child(&program.0), Signal::TERM)?;
    let status = program.0.wait()?;
    if !status.success() {
        return Err(format!("tidemill ended with {status}").into());
    }
    let (batches, Sender { start, gap, lines, .. }) = (reader.finish()?, sender);
    Ok(Seen { batches, start, gap, lines, early, late })
}

fn text(setting: &Setting, address: SocketAddr, http: SocketAddr) -> String {
    let Setting { model, batch_ms, .. } = setting;
    format!(
        "name = 'truth'\nbatch_interval = '{batch_ms}ms'\nhttp = '{http}'\n\
         [source.lines.socket]\nlisten = '{address}'\nio_model = '{model}'\n\
         [job.{JOB}]\nfrom = ['lines']\nlatency = {{}}\nto = ['screen']\n\
         [sink.screen.console]\nformat = 'json'\n"
    )
}

/// An address that was free a moment ago.
fn free_address() -> Outcome<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

fn dial(address: SocketAddr) -> Outcome<TcpStream> {
    let end = clock::nanos() + START_MAX;
    loop {
        match TcpStream::connect(address) {
            Ok(stream) => return Ok(stream),
            Err(err) if clock::nanos() > end => return Err(err.into()),
            Err(_) => clock::wait_until(clock::nanos() + RETRY),
        }
    }
}
