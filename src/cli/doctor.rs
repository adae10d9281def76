//! `tidemill doctor`: probes io models, limits, clock and disk, and says what to change. It measures for a fraction of a
//! second, changes nothing, and knows nothing of pipelines. Runs on the main thread.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use indicatif::HumanCount;
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_getres};
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::settings::units;
use crate::source::io::{self as models, IO_MODELS};
use crate::sync::Signal;
use crate::time::{Clock, SystemClock};
use crate::wording::{by_number, escaped_lines, grouped};

/// Connections that are judged against if none are asked for: the default of `connections_max`.
const CONNECTIONS: u64 = 10_000;

/// Descriptors besides connections: listeners, pollers, files, standard streams.
const OTHER_FILES: u64 = 64;

/// The time for which the lateness of timers is measured, and the period of the timers.
const TIMER_MEASURED: Duration = Duration::from_millis(200);
const TIMER_PERIOD: Duration = Duration::from_millis(5);

/// A timer later than this spoils the latency of short batches.
const TIMER_LATE: Duration = Duration::from_millis(2);

/// The number of syncs of a block of this size, and the median time beyond which acknowledgements become slow.
const SYNCS: usize = 15;
const SYNC_BYTES: usize = 4096;
const SYNC_SLOW: Duration = Duration::from_millis(10);

const EXAMPLES: &str = "\
Examples:
  tidemill doctor
      look at everything, with the disk of this directory
  tidemill doctor --connections 50k --dir /var/lib/tidemill
      fail if so many connections do not fit, and sync the disk where the log will be
  tidemill doctor --json
      the same findings for a program

Exit codes: 0 all that is needed is there; 1 something needed is missing; 2 usage.";

/// Probe io models, limits, clock and disk; say what to change.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct DoctorArgs {
    /// The directory whose disk is synced
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,

    /// Connections that must fit; without it 10,000 are looked at, and a lower limit is only a warning
    #[arg(long, value_name = "N", value_parser = units::typed_count)]
    connections: Option<u64>,

    /// Findings as one JSON object on standard output
    #[arg(long)]
    json: bool,
}

/// The grade of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// As it should be.
    Good,
    /// It works, less well than it could.
    Warning,
    /// Something that was asked for does not work.
    Missing,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            State::Good => "ok",
            State::Warning => "warning",
            State::Missing => "MISSING",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    subject: String,
    state: State,
    found: String,
    /// The advice; empty if there is nothing to do.
    change: String,
}

impl Finding {
    fn good(subject: impl Into<String>, found: impl Into<String>) -> Finding {
        Finding {
            subject: subject.into(),
            state: State::Good,
            found: found.into(),
            change: String::new(),
        }
    }

    fn but(self, state: State, change: impl Into<String>) -> Finding {
        Finding { state, change: change.into(), ..self }
    }
}

/// Looks at everything and prints the findings on `out`.
///
/// # Errors
/// [`Error::Failed`] if something needed is missing, [`Error::Io`] if `out` cannot be written.
pub(super) fn run(args: &DoctorArgs, out: &mut dyn Write) -> Result<()> {
    let clock = SystemClock::new();
    let mut findings: Vec<Finding> =
        IO_MODELS.iter().map(|row| model(row.name, row.about, models::probe(row.model))).collect();
    // `run` raises the soft limit by itself.
    findings.push(files(getrlimit(Resource::Nofile).maximum, args.connections));
    findings.push(backlog(fs::read_to_string("/proc/sys/net/core/somaxconn").ok().as_deref()));
    findings.push(resolution());
    findings.push(lateness(timer_lateness(clock.as_ref())));
    findings.push(disk(&args.dir, sync_times(&args.dir, clock.as_ref())));
    let text = if args.json {
        machine(&findings).to_string() + "\n"
    } else {
        escaped_lines(&table(&findings))
    };
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(super::unwritable)?;
    let missing = findings.iter().filter(|finding| finding.state == State::Missing).count();
    if missing > 0 {
        let are = by_number(missing, "is", "are");
        return Err(Error::Failed(format!("{missing} of the things asked for {are} missing")));
    }
    Ok(())
}

fn model(name: &str, about: &str, probed: Result<(), String>) -> Finding {
    let subject = format!("io model {name}");
    match probed {
        Ok(()) => Finding::good(subject, about),
        Err(why) => Finding::good(subject, why).but(
            State::Warning,
            "`nio` is used instead where it is asked for; mend what the reason names, or choose another model",
        ),
    }
}

fn files(limit: Option<u64>, asked: Option<u64>) -> Finding {
    let wanted = asked.unwrap_or(CONNECTIONS);
    let needed = wanted.saturating_add(OTHER_FILES);
    let subject = "open files (RLIMIT_NOFILE, hard)";
    let Some(limit) = limit.filter(|limit| *limit < needed) else {
        let found = limit.map_or("no limit".to_owned(), |limit| HumanCount(limit).to_string());
        return Finding::good(subject, format!("{found}, for {}", grouped(wanted, "connection")));
    };
    let state = if asked.is_some() { State::Missing } else { State::Warning };
    let found = format!("{}, too few for {}", HumanCount(limit), grouped(wanted, "connection"));
    Finding::good(subject, found).but(
        state,
        format!(
            "`ulimit -Hn {needed}` before the start, or LimitNOFILE={needed} in the systemd unit"
        ),
    )
}

fn backlog(text: Option<&str>) -> Finding {
    /// The queue that a listening source asks the kernel for.
    const WANTED: u64 = 4096;
    let subject = "listen queue (net.core.somaxconn)";
    match text.and_then(|text| text.trim().parse::<u64>().ok()) {
        None => Finding::good(subject, "not known on this system"),
        Some(queue) if queue >= WANTED => Finding::good(subject, HumanCount(queue).to_string()),
        Some(queue) => Finding::good(subject, format!("{queue}: a burst of dialling peers waits"))
            .but(State::Warning, format!("`sysctl -w net.core.somaxconn={WANTED}`")),
    }
}

fn resolution() -> Finding {
    let step = clock_getres(ClockId::Monotonic);
    let nanos = step.tv_sec.saturating_mul(1_000_000_000).saturating_add(step.tv_nsec);
    let finding = Finding::good("clock resolution", format!("{nanos} ns"));
    if nanos <= 1_000 {
        return finding;
    }
    finding.but(State::Warning, "a kernel with high resolution timers (CONFIG_HIGH_RES_TIMERS)")
}

/// The lateness of each wake-up of a timer, from least to most.
fn timer_lateness(clock: &dyn Clock) -> Vec<Duration> {
    let (signal, start) = (Signal::new(), clock.now());
    let mut late = Vec::new();
    let mut due = start.plus(TIMER_PERIOD);
    while due.since(start) <= TIMER_MEASURED {
        clock.wait(&signal, Some(due));
        late.push(clock.now().since(due));
        due = due.plus(TIMER_PERIOD);
    }
    late.sort_unstable();
    late
}

fn lateness(late: Vec<Duration>) -> Finding {
    let (median, worst) = (middle(&late), late.last().copied().unwrap_or_default());
    let found = format!("median {}, worst {} of {}", show(median), show(worst), late.len());
    let finding = Finding::good("timer lateness", found);
    if median < TIMER_LATE {
        return finding;
    }
    finding.but(
        State::Warning,
        "leave a core free, or lower the load beside it: each batch comes late by as much",
    )
}

/// The time of each sync of a small block, from least to most.
fn sync_times(dir: &Path, clock: &dyn Clock) -> io::Result<Vec<Duration>> {
    let mut file = tempfile::tempfile_in(dir)?;
    let mut times = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        let start = clock.now();
        file.write_all(&[0; SYNC_BYTES])?;
        file.sync_data()?;
        times.push(clock.now().since(start));
    }
    times.sort_unstable();
    Ok(times)
}

fn disk(dir: &Path, times: io::Result<Vec<Duration>>) -> Finding {
    let subject = format!("disk sync in {}", dir.display());
    let times = match times {
        Ok(times) => times,
        Err(err) => {
            return Finding::good(subject, format!("cannot write there: {err}"))
                .but(State::Missing, "name a directory that exists and may be written with --dir");
        }
    };
    let (median, worst) = (middle(&times), times.last().copied().unwrap_or_default());
    let found = format!("median {} for 4 KiB, worst {}", show(median), show(worst));
    let finding = Finding::good(subject, found);
    if median <= SYNC_SLOW {
        return finding;
    }
    finding.but(
        State::Warning,
        "put `state_dir` on a faster disk: every acknowledgement waits for a sync",
    )
}

fn middle(sorted: &[Duration]) -> Duration {
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

fn show(time: Duration) -> String {
    match time.as_micros() {
        micros if micros < 1_000 => format!("{micros} µs"),
        _ => format!("{:.1} ms", time.as_secs_f64() * 1e3),
    }
}

fn table(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.subject.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for finding in findings {
        let Finding { subject, state, found, change } = finding;
        text.push_str(&format!("{:<7}  {subject:<width$}  {found}\n", state.name()));
        if !change.is_empty() {
            text.push_str(&format!("{:<7}  {:<width$}  -> {change}\n", "", ""));
        }
    }
    text
}

fn machine(findings: &[Finding]) -> Value {
    let finding = |finding: &Finding| {
        let Finding { subject, state, found, change } = finding;
        let state = state.name().to_lowercase();
        json!({"subject": subject, "state": state, "found": found, "change": change})
    };
    json!({"findings": findings.iter().map(finding).collect::<Vec<_>>()})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(finding: Finding, state: State, found: &str, change: &str) {
        assert_eq!(finding.state, state, "{finding:?}");
        assert!(finding.found.contains(found), "{finding:?}");
        assert!(finding.change.contains(change), "{finding:?}");
        assert_eq!(finding.change.is_empty(), state == State::Good, "{finding:?}");
    }

    #[test]
    fn findings_say_what_to_change() {
        let millis = Duration::from_millis;
        check(model("nio", "one loop", Ok(())), State::Good, "one loop", "");
        check(model("aio", "", Err("refused".to_owned())), State::Warning, "refused", "`nio`");
        check(files(None, Some(1_000_000)), State::Good, "no limit", "");
        check(files(Some(10_064), None), State::Good, "10,064", "");
        check(files(Some(10_063), None), State::Warning, "too few", "ulimit -Hn 10064");
        check(files(Some(1_024), Some(2_000)), State::Missing, "2,000", "LimitNOFILE=2064");
        check(files(Some(u64::MAX), Some(u64::MAX)), State::Good, "", "");
        check(backlog(Some("4096\n")), State::Good, "4,096", "");
        check(backlog(Some("128")), State::Warning, "128", "somaxconn=4096");
        check(backlog(Some("many")), State::Good, "not known", "");
        check(backlog(None), State::Good, "not known", "");
        check(lateness(vec![millis(0), millis(1), millis(9)]), State::Good, "worst 9.0 ms", "");
        check(lateness(vec![millis(2)]), State::Warning, "median 2.0 ms", "core");
        check(lateness(Vec::new()), State::Good, "of 0", "");
        let here = Path::new(".");
        check(disk(here, Ok(vec![millis(1)])), State::Good, "median 1.0 ms", "");
        check(disk(here, Ok(vec![millis(11)])), State::Warning, "11.0 ms", "faster");
        check(
            disk(here, Err(io::ErrorKind::NotFound.into())),
            State::Missing,
            "cannot write",
            "--dir",
        );
    }

    #[test]
    fn the_table_and_the_json_hold_every_finding() {
        let findings =
            [Finding::good("a", "1"), Finding::good("long", "2").but(State::Missing, "mend it")];
        assert_eq!(
            table(&findings),
            "ok       a     1\nMISSING  long  2\n               -> mend it\n"
        );
        let machine = machine(&findings);
        assert_eq!(machine["findings"][1]["state"], "missing");
        assert_eq!(machine["findings"][1]["change"], "mend it");
    }

    #[test]
    fn it_runs_here_and_fails_where_it_cannot_write() {
        let dir = tempfile::tempdir().expect("a directory");
        let args = |dir: PathBuf| DoctorArgs { dir, connections: None, json: false };
        let mut out = Vec::new();
        run(&args(dir.path().to_owned()), &mut out).expect("nothing needed is missing");
        let text = String::from_utf8(out).expect("UTF-8");
        IO_MODELS.iter().for_each(|row| assert!(text.contains(row.name), "{text}"));
        let err = run(&args(dir.path().join("none")), &mut Vec::new()).expect_err("no directory");
        assert_eq!(err.exit_code(), 1);
    }
}
