//! The kernel's figures of a process, read from `/proc`; where there is none, everything is zero. Pure parsers, and one
//! reader for each file. Any thread.

use std::fs;
use std::time::Duration;

use rustix::param::clock_ticks_per_second;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::settings::units::as_f64;

/// A process at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sample {
    /// Memory of its own, in bytes: heap and stacks, not program code.
    pub anonymous_bytes: u64,
    /// The most memory it had so far, with program code.
    pub peak_bytes: u64,
    /// Threads.
    pub threads: u64,
    /// Context switches of the threads that live now, voluntary and not.
    pub switches: u64,
    /// Open descriptors.
    pub files: u64,
}

impl Sample {
    /// A process of this machine, now.
    pub fn of(process: u32) -> Sample {
        let read = |path: String| fs::read_to_string(path).unwrap_or_default();
        let status = read(format!("/proc/{process}/status"));
        let entries = |path: String| fs::read_dir(path).into_iter().flatten().flatten();
        let switches = entries(format!("/proc/{process}/task"))
            .filter_map(|task| fs::read_to_string(task.path().join("status")).ok())
            .map(|status| switches(&status));
        Sample {
            anonymous_bytes: field(&status, "RssAnon:") * 1024,
            peak_bytes: field(&status, "VmHWM:") * 1024,
            threads: field(&status, "Threads:"),
            switches: switches.sum(),
            files: entries(format!("/proc/{process}/fd")).count() as u64,
        }
    }
}

/// The number behind `name` at the start of a line of a file, such as `VmHWM:` of `/proc/PID/status`; zero if it cannot be
/// read.
pub fn figure(file: &str, name: &str) -> u64 {
    field(&fs::read_to_string(file).unwrap_or_default(), name)
}

/// The number of a line such as `VmHWM:    1234 kB`; zero if it is not there.
fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn switches(status: &str) -> u64 {
    field(status, "voluntary_ctxt_switches:") + field(status, "nonvoluntary_ctxt_switches:")
}

/// Processor time that a process has used so far, user and system, to the kernel's tick.
pub fn cpu_of(process: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    Duration::from_secs(1).mul_f64(as_f64(ticks(&stat)) / as_f64(clock_ticks_per_second()))
}

/// User and system time in `/proc/PID/stat`. The second field is a name in parentheses, which may hold spaces.
fn ticks(stat: &str) -> u64 {
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum()
}

/// Processor time that this process has used so far, in all its threads, also those that have ended.
pub fn own_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_a_status_file() {
        let status = "Name:\tx\nVmHWM:\t    1234 kB\nThreads:\t7\nvoluntary_ctxt_switches:\t5\n\
            nonvoluntary_ctxt_switches:\t6\n";
        let check = |name, expected| assert_eq!(field(status, name), expected, "{name}");
        check("VmHWM:", 1234);
        check("Threads:", 7);
        check("RssAnon:", 0);
        check("Name:", 0);
        assert_eq!(switches(status), 11);
        assert_eq!(Sample::of(u32::MAX), Sample::default());
    }

    #[test]
    fn processor_time_in_a_stat_file() {
        let check = |stat, expected| assert_eq!(ticks(stat), expected, "{stat}");
        check("7 (a) b) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20", 300);
        check("7 (a) S 1 2 3", 0);
        check("", 0);
    }

    #[test]
    fn cpu_time_goes_on() {
        let before = own_cpu();
        assert!((0..1_000_000).map(std::hint::black_box).sum::<u64>() > 0);
        assert!(own_cpu() > before);
    }
}
