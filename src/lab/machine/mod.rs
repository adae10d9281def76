//! The machine and the build that figures belong to, and the load of the machine at the start and the end of a measurement.
//! Reads small files of `/proc` and `/sys` and starts nothing; main thread. Knows no run.
//!
//! A machine that does other things spoils figures, so [`busy`] says what a reader must know of it.

mod read;

use std::time::{Duration, UNIX_EPOCH};

use super::results::{self, Fact, Load, Tool};
use crate::page::Unit;
use crate::settings::units::as_f64;
use crate::source::io::{IoModel, probe};
use crate::wording::count;

/// Names and values, in the order of the page.
pub type Facts = Vec<(&'static str, String)>;

/// What a fact is if the machine does not show it.
const UNKNOWN: &str = "unknown";

/// The load average of each core at the start above which the machine is busy.
pub(crate) const LOAD_MAX: f64 = 0.5;

/// The percentage of processor time that the host may take for others before the machine is busy.
pub(crate) const STEAL_MAX: f64 = 2.0;

/// The facts of this machine and this program at the wall time `now`, for a measurement that keeps no results.
pub fn facts(now: Duration, command_line: &str) -> Facts {
    let Tool { version, commit, build, compiler } = tool();
    let mut facts = vec![("date", date(now.as_secs()))];
    facts.extend(lasting());
    facts.extend([("compiler", compiler), ("tidemill", version), ("build", build)]);
    let load = load_average().map_or(UNKNOWN.to_owned(), |load| format!("{load:.2}"));
    facts.extend([
        ("commit", commit),
        ("load average", load),
        ("command", command_line.to_owned()),
    ]);
    facts
}

/// The facts that do not change while something is measured.
fn lasting() -> Facts {
    let cpu_info = read::text("/proc/cpuinfo");
    let or_unknown = |text: Option<String>| text.unwrap_or_else(|| UNKNOWN.to_owned());
    let (usable, online) = (usable_cores(), online_cores());
    let cores = if usable == online { online.to_string() } else { format!("{usable} of {online}") };
    let memory = read::memory_bytes(&read::text("/proc/meminfo"));
    vec![
        ("processor", or_unknown(read::processor(&cpu_info))),
        ("cores", cores),
        ("threads of a core (SMT)", read::smt(&read::text(read::SMT)).to_owned()),
        ("frequency governor", read::governors()),
        ("virtualised", read::virtualised(&cpu_info)),
        ("memory", memory.map_or(UNKNOWN.to_owned(), |bytes| Unit::MEMORY.shown(as_f64(bytes)))),
        ("kernel", read::kernel()),
        ("mitigations", read::mitigations()),
        ("io_uring", probe(IoModel::Aio).err().unwrap_or_else(|| "allowed".to_owned())),
        ("C library", or_unknown(read::c_library())),
    ]
}

/// This program.
pub(crate) fn tool() -> Tool {
    let debug = cfg!(debug_assertions).then(|| "debug: not fit for figures".to_owned());
    Tool {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: env!("TIDEMILL_COMMIT").to_owned(),
        build: debug.unwrap_or_else(|| env!("TIDEMILL_PROFILE").to_owned()),
        compiler: built_by(env!("TIDEMILL_RUSTC")),
    }
}

fn usable_cores() -> u64 {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as u64
}

/// Number of cores that run. The load average counts the threads of all of them, also of those that this program may not use.
fn online_cores() -> u64 {
    read::cores(&read::text("/proc/stat")).max(usable_cores())
}

fn load_average() -> Option<f64> {
    read::load_average(&read::text("/proc/loadavg"))
}

/// The machine while something is measured.
#[derive(Debug)]
pub(crate) struct Watch {
    machine: results::Machine,
    /// Processor time at the start.
    start: read::Ticks,
}

impl Watch {
    /// Looks at the machine before the first run, at the wall time `now`.
    pub(crate) fn start(now: Duration) -> Watch {
        let fact = |(name, value): (&'static str, String)| Fact::new(name, value);
        let load = load(now, None);
        let machine = results::Machine {
            facts: lasting().into_iter().map(fact).collect(),
            cores: online_cores(),
            start: load,
            end: load,
        };
        Watch { machine, start: read::ticks(&read::text("/proc/stat")) }
    }

    /// The machine from the start to the wall time `now`.
    pub(crate) fn machine(&self, now: Duration) -> results::Machine {
        let steal = read::ticks(&read::text("/proc/stat")).steal_percent_since(self.start);
        results::Machine { end: load(now, steal), ..self.machine.clone() }
    }
}

fn load(now: Duration, steal_percent: Option<f64>) -> Load {
    Load { wall_seconds: now.as_secs(), load_average: load_average(), steal_percent }
}

/// The reasons to doubt figures of this machine; `None` if it did nothing else.
pub(crate) fn busy(machine: &results::Machine) -> Option<String> {
    let cores = machine.cores.max(1);
    let load = machine.start.load_average.filter(|load| load / as_f64(cores) > LOAD_MAX);
    let load = load.map(|load| {
        format!("the load average was {load:.2} on {} at the start", count(cores, "core"))
    });
    let steal = machine.end.steal_percent.filter(|steal| *steal > STEAL_MAX);
    let steal = steal.map(|steal| format!("the host took {steal:.1} % of the processor time"));
    let reasons: Vec<String> = load.into_iter().chain(steal).collect();
    (!reasons.is_empty()).then(|| format!("busy machine: {}", reasons.join(", and ")))
}

/// The fact of this name; empty if there is none.
pub fn fact<'a>(facts: &'a Facts, name: &str) -> &'a str {
    facts.iter().find(|(fact, _)| *fact == name).map_or("", |(_, value)| value)
}

/// The compiler that built this program, as it names itself.
fn built_by(said: &str) -> String {
    if said.is_empty() { UNKNOWN.to_owned() } else { said.to_owned() }
}

/// The end of the year 9999: a date has four digits for its year.
const LAST_SECOND: u64 = 253_402_300_799;

/// Seconds since the epoch as a date and a time of day, UTC.
pub(crate) fn date(seconds: u64) -> String {
    let at = UNIX_EPOCH + Duration::from_secs(seconds.min(LAST_SECOND));
    let text = humantime::format_rfc3339_seconds(at).to_string();
    format!("{} {} UTC", &text[..10], &text[11..16])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        let check = |seconds, expected| assert_eq!(date(seconds), expected);
        check(0, "1970-01-01 00:00 UTC");
        check(951_782_399, "2000-02-28 23:59 UTC");
        check(951_782_400, "2000-02-29 00:00 UTC");
        check(951_868_800, "2000-03-01 00:00 UTC");
        check(1_735_689_599, "2024-12-31 23:59 UTC");
        check(4_107_542_400, "2100-03-01 00:00 UTC");
        // A file of results may say anything.
        assert!(date(u64::MAX).ends_with("UTC"));
    }

    #[test]
    fn every_fact_has_a_value() {
        assert_eq!(built_by(""), UNKNOWN);
        assert!(built_by(env!("TIDEMILL_RUSTC")).starts_with("rustc 1."));
        let facts = facts(Duration::ZERO, "x");
        assert!(facts.iter().all(|(_, value)| !value.is_empty()), "{facts:?}");
        assert_eq!(fact(&facts, "command"), "x");
        assert_eq!(fact(&facts, "nothing"), "");
    }

    #[test]
    fn a_watch_sees_both_ends() {
        let watch = Watch::start(Duration::from_secs(5));
        let machine = watch.machine(Duration::from_secs(7));
        assert_eq!((machine.start.wall_seconds, machine.end.wall_seconds), (5, 7));
        assert!(machine.cores > 0 && machine.facts.len() > 8, "{machine:?}");
    }

    #[test]
    fn a_busy_machine_is_named() {
        let check = |cores, load_average, steal_percent, expected: Option<&str>| {
            let start = Load { load_average, ..Load::default() };
            let end = Load { load_average: Some(99.0), steal_percent, ..Load::default() };
            let machine = results::Machine { cores, start, end, ..results::Machine::default() };
            assert_eq!(busy(&machine).as_deref(), expected, "{machine:?}");
        };
        check(2, None, None, None);
        check(2, Some(1.0), Some(2.0), None);
        let load = "busy machine: the load average was 1.01 on 2 cores at the start";
        check(2, Some(1.01), None, Some(load));
        let one = "busy machine: the load average was 0.60 on 1 core at the start";
        check(0, Some(0.6), Some(0.0), Some(one));
        let steal = "the host took 2.1 % of the processor time";
        check(2, Some(0.0), Some(2.1), Some(&format!("busy machine: {steal}")));
        check(2, Some(1.01), Some(2.1), Some(&format!("{load}, and {steal}")));
    }
}
