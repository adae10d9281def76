//! How much memory this machine, or the container around the process, has. Read once, when a `Config` is resolved.

use std::fs;

/// Taken for the machine's memory where the operating system does not say.
const UNKNOWN_BYTES: u64 = 1 << 30;

/// The memory that this process can count on, in bytes: the machine's, or less if a control group limits it.
pub(super) fn total_bytes() -> u64 {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    total(&read("/proc/meminfo"), &read("/sys/fs/cgroup/memory.max"))
}

fn total(meminfo: &str, limit: &str) -> u64 {
    let machine = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = machine.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    let machine = kib.map_or(UNKNOWN_BYTES, |kib| kib.saturating_mul(1024));
    // A group without a limit says `max`.
    limit.trim().parse().map_or(machine, |limit: u64| limit.min(machine))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(meminfo: &str, limit: &str, expected: u64) {
        assert_eq!(total(meminfo, limit), expected, "{meminfo:?} {limit:?}");
    }

    #[test]
    fn memory_of_the_machine_or_less() {
        check("MemTotal:       8 kB\nMemFree: 1 kB\n", "max\n", 8 << 10);
        check("MemFree: 1 kB\nMemTotal: 8 kB\n", "", 8 << 10);
        check("MemTotal: 8 kB\n", "4096\n", 4 << 10);
        check("MemTotal: 8 kB\n", "9223372036854771712\n", 8 << 10);
        check("", "", UNKNOWN_BYTES);
        check("MemTotal: x kB\n", "max", UNKNOWN_BYTES);
        check("MemTotal: 18446744073709551615 kB\n", "", u64::MAX);
    }
}
