//! What the kernel tells of a process, read from `/proc`; where there is none, everything is zero. Pure parsers, and one
//! reader for each file.

use std::fs;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// A process at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sample {
    /// Memory of its own, in bytes: heap and stacks, not program code.
    pub(crate) anonymous_bytes: u64,
    /// The most memory it had so far, with program code.
    pub(crate) peak_bytes: u64,
    /// Threads.
    pub(crate) threads: u64,
    /// Context switches of the threads that live now, voluntary and not.
    pub(crate) switches: u64,
    /// Open descriptors.
    pub(crate) files: u64,
}

impl Sample {
    /// A process of this machine, now.
    pub(crate) fn of(process: u32) -> Sample {
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

/// The number of a line such as `VmHWM:    1234 kB`; zero if it is not there.
fn field(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn switches(status: &str) -> u64 {
    field(status, "voluntary_ctxt_switches:") + field(status, "nonvoluntary_ctxt_switches:")
}

/// CPU time that this process has used so far, in all its threads, also those that have ended.
pub(crate) fn own_cpu() -> Duration {
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
    fn cpu_time_goes_on() {
        let before = own_cpu();
        assert!((0..1_000_000).map(std::hint::black_box).sum::<u64>() > 0);
        assert!(own_cpu() > before);
    }
}
