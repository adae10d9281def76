//! The memory of this machine, or of the container around the process. Read once, when a `Config` is resolved.
//!
//! A control group limits the processes in it and in those below it, so the least limit on the way from the process's own
//! group to the root counts. Both versions of control groups are looked at: a machine may have either, or both.

use std::fs;

/// Taken for the machine's memory where the operating system does not say.
const UNKNOWN_BYTES: u64 = 1 << 30;

/// The directories of control groups, of the second version and of the first.
const UNIFIED: &str = "/sys/fs/cgroup";
const FIRST: &str = "/sys/fs/cgroup/memory";

/// The memory that this process can count on, in bytes: the machine's, or less if a control group limits it.
pub(super) fn total_bytes() -> u64 {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    total(&read("/proc/meminfo"), &read("/proc/self/cgroup"), read)
}

/// The same, of what these files hold; `read` gives the text of others, empty where there is none.
fn total(meminfo: &str, groups: &str, read: impl Fn(&str) -> String) -> u64 {
    let machine = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = machine.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    let machine = kib.map_or(UNKNOWN_BYTES, |kib| kib.saturating_mul(1024));
    // A group without a limit says `max`, or a number beyond all memory.
    let limits = limit_files(groups).into_iter().filter_map(|file| read(&file).trim().parse().ok());
    limits.fold(machine, u64::min)
}

/// The files that may hold a limit: of the groups that `/proc/self/cgroup` names, of all above them, and of the root, which
/// is the container's own group where it sees no other.
fn limit_files(groups: &str) -> Vec<String> {
    let mut files = vec![format!("{UNIFIED}/memory.max"), format!("{FIRST}/memory.limit_in_bytes")];
    for line in groups.lines() {
        // NUMBER:CONTROLLERS:PATH, with no controllers in the second version.
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (root, file) = match controllers {
            "" => (UNIFIED, "memory.max"),
            first if first.split(',').any(|name| name == "memory") => {
                (FIRST, "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let mut path = path.trim_matches('/');
        while !path.is_empty() {
            files.push(format!("{root}/{path}/{file}"));
            path = path.rsplit_once('/').map_or("", |(above, _)| above);
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `files`: the limits that there are.
    fn check(meminfo: &str, groups: &str, files: &[(&str, &str)], expected: u64) {
        let read = |path: &str| {
            let found = files.iter().find(|(name, _)| format!("/sys/fs/cgroup/{name}") == path);
            found.map_or(String::new(), |(_, text)| format!("{text}\n"))
        };
        assert_eq!(total(meminfo, groups, read), expected, "{meminfo:?} {groups:?} {files:?}");
    }

    #[test]
    fn memory_of_the_machine_or_less() {
        let eight = "MemTotal:       8 kB\nMemFree: 1 kB\n";
        check(eight, "", &[("memory.max", "max")], 8 << 10);
        check("MemFree: 1 kB\nMemTotal: 8 kB\n", "", &[], 8 << 10);
        check(eight, "", &[("memory.max", "4096")], 4 << 10);
        check(eight, "", &[("memory.max", "9223372036854771712")], 8 << 10);
        check("", "", &[], UNKNOWN_BYTES);
        check("MemTotal: x kB\n", "", &[("memory.max", "max")], UNKNOWN_BYTES);
        check("MemTotal: 18446744073709551615 kB\n", "", &[], u64::MAX);
    }

    #[test]
    fn the_least_limit_of_the_groups_above_the_process_counts() {
        let eight = "MemTotal: 8 kB\n";
        let service = "0::/system.slice/tidemill.service\n";
        let own = ("system.slice/tidemill.service/memory.max", "4096");
        let slice = ("system.slice/memory.max", "2048");
        check(eight, service, &[own], 4 << 10);
        check(eight, service, &[own, slice], 2 << 10);
        check(
            eight,
            service,
            &[("system.slice/tidemill.service/memory.max", "max"), slice],
            2 << 10,
        );
        check(eight, service, &[("user.slice/memory.max", "1024")], 8 << 10);
        check(eight, "0::/\n", &[("memory.max", "4096")], 4 << 10);
        let first = "12:cpu,cpuacct:/a\n5:memory:/docker/abc\n1:name=systemd:/docker/abc\n";
        check(eight, first, &[("memory/docker/abc/memory.limit_in_bytes", "4096")], 4 << 10);
        check(eight, first, &[("memory/memory.limit_in_bytes", "4096")], 4 << 10);
        check(eight, first, &[("memory/a/memory.limit_in_bytes", "4096")], 8 << 10);
        check(eight, first, &[("memory/memory.limit_in_bytes", "9223372036854771712")], 8 << 10);
        check(eight, "4:cpu,memory:/x\n", &[("memory/x/memory.limit_in_bytes", "1024")], 1 << 10);
        check(eight, "junk\n0:\n", &[("memory.max", "4096")], 4 << 10);
    }
}
