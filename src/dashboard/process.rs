//! The system's figures of this process. A figure that the system does not give is left out: a zero would be a lie.

use std::fs;
use std::time::Duration;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

/// This process at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Process {
    /// The CPU time of its threads, in the program and in the system.
    pub(super) cpu: Option<Duration>,
    /// Number of open descriptors.
    pub(super) open_fds: Option<u64>,
    /// The most descriptors that may be open; `None` if there is no limit.
    pub(super) max_fds: Option<u64>,
    /// Memory that is resident, in bytes.
    pub(super) resident_bytes: Option<u64>,
    /// Memory that is mapped, in bytes.
    pub(super) virtual_bytes: Option<u64>,
    /// The time of its start, since the Unix epoch.
    pub(super) started: Option<Duration>,
}

/// The units of the system's figures.
#[derive(Clone, Copy)]
struct Units {
    ticks_per_second: u64,
    page_bytes: u64,
}

impl Process {
    /// Reads the system's figures.
    pub(super) fn read() -> Process {
        let units =
            Units { ticks_per_second: clock_ticks_per_second(), page_bytes: page_size() as u64 };
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let booted = fs::read_to_string("/proc/stat").ok().and_then(|text| booted(&text));
        // The descriptor of the directory itself is one of them.
        let open_fds = fs::read_dir("/proc/self/fd").ok();
        let open_fds = open_fds.map(|entries| (entries.count() as u64).saturating_sub(1));
        let max_fds = getrlimit(Resource::Nofile).current;
        Process { open_fds, max_fds, ..of_stat(&stat, booted, units) }
    }
}

/// Reads `/proc/PID/stat`. Its second field is a name in parentheses, which may hold spaces and parentheses.
fn of_stat(stat: &str, booted: Option<u64>, units: Units) -> Process {
    let fields: Vec<&str> = match stat.rsplit_once(')') {
        Some((_, rest)) => rest.split_whitespace().collect(),
        None => Vec::new(),
    };
    // Fields are counted from 1, as in proc(5); the first one after the name is the third.
    let field = |number: usize| fields.get(number - 3).and_then(|text| text.parse::<u64>().ok());
    let time = |ticks: u64| {
        let (seconds, rest) = (ticks / units.ticks_per_second, ticks % units.ticks_per_second);
        Duration::from_secs(seconds)
            + Duration::from_nanos(rest.saturating_mul(1_000_000_000) / units.ticks_per_second)
    };
    let cpu = field(14).zip(field(15)).map(|(user, system)| time(user.saturating_add(system)));
    let started = field(22)
        .zip(booted)
        .map(|(ticks, booted)| Duration::from_secs(booted).saturating_add(time(ticks)));
    Process {
        cpu,
        resident_bytes: field(24).map(|pages| pages.saturating_mul(units.page_bytes)),
        virtual_bytes: field(23),
        started,
        ..Process::default()
    }
}

/// The time of the system's boot, in seconds since the Unix epoch, from `/proc/stat`.
fn booted(stat: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;

    const UNITS: Units = Units { ticks_per_second: 100, page_bytes: 4096 };

    /// CPU time and start in milliseconds, resident and virtual bytes.
    type Found = (Option<u128>, Option<u128>, Option<u64>, Option<u64>);

    fn check(stat: &str, booted: Option<u64>, expected: Found) {
        let found = of_stat(stat, booted, UNITS);
        let millis = |time: Option<Duration>| time.map(|time| time.as_millis());
        let found =
            (millis(found.cpu), millis(found.started), found.resident_bytes, found.virtual_bytes);
        assert_eq!(found, expected, "{stat:?}");
    }

    #[test]
    fn a_stat_line_is_read_behind_the_name() {
        let rest = "S 1 7 7 0 -1 4194560 9 0 0 0 250 31 0 0 20 0 4 0 1205 123456789 300 18446744073709551615";
        let bytes = (Some(300 * 4096), Some(123_456_789));
        check(
            &format!("7 (tidemill) {rest}"),
            Some(1_000),
            (Some(2_810), Some(1_012_050), bytes.0, bytes.1),
        );
        check(&format!("7 (a) b) (c) {rest}"), None, (Some(2_810), None, bytes.0, bytes.1));
        check("7 (tidemill) S 1 7", Some(1_000), (None, None, None, None));
        check("", Some(1_000), (None, None, None, None));
    }

    #[test]
    fn the_boot_is_found() {
        let check = |text: &str, expected| assert_eq!(booted(text), expected, "{text:?}");
        check("cpu 1 2 3\nbtime 1700000000\nprocesses 5\n", Some(1_700_000_000));
        check("cpu 1 2 3\n", None);
        check("btime x\n", None);
    }

    #[test]
    fn the_system_says_all_of_it() {
        let found = Process::read();
        assert!(found.cpu.is_some() && found.started.is_some(), "{found:?}");
        assert!(found.open_fds.is_some_and(|open| open >= 3), "{found:?}");
        assert!(found.resident_bytes <= found.virtual_bytes && found.resident_bytes > Some(0));
    }
}
