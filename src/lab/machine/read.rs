//! What the kernel shows of a machine in `/proc` and `/sys`: a pure parser for each file, and the places where the files lie.
//! Main thread. Must not know what the facts are for.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::settings::units::as_f64;

/// Where the kernel names the flaws of the processor, a file each.
const FLAWS: &str = "/sys/devices/system/cpu/vulnerabilities";

/// Where each core has a directory.
const CORES: &str = "/sys/devices/system/cpu";

/// Where the kernel says if a core runs several threads.
pub(super) const SMT: &str = "/sys/devices/system/cpu/smt/control";

/// The longest line that a C library has about itself.
const LIBRARY_LINE_MAX: usize = 120;

/// A file as text, trimmed; empty if it cannot be read.
pub(super) fn text(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

/// The value of the first line `name : value`.
fn value_of(text: &str, name: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_once(':').map(|(_, value)| value.trim().to_owned())
}

/// The processor's name in `/proc/cpuinfo`; where it has none, as on ARM, the numbers of its maker and its design.
pub(super) fn processor(cpu_info: &str) -> Option<String> {
    value_of(cpu_info, "model name").filter(|name| !name.is_empty()).or_else(|| {
        let (maker, part) =
            (value_of(cpu_info, "CPU implementer")?, value_of(cpu_info, "CPU part")?);
        Some(format!("implementer {maker}, part {part}"))
    })
}

/// Number of cores in `/proc/stat`.
pub(super) fn cores(stat: &str) -> u64 {
    let is_core = |line: &&str| {
        line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    stat.lines().filter(is_core).count() as u64
}

/// Processor time of all cores since the machine started, in the kernel's ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ticks {
    /// Idle time with it.
    all: u64,
    /// The part that the host took for others while a thread here was ready to run.
    stolen: u64,
}

impl Ticks {
    /// The percentage that the host took since `start`; `None` if no time has passed.
    pub(super) fn steal_percent_since(self, start: Ticks) -> Option<f64> {
        let all = self.all.checked_sub(start.all).filter(|all| *all > 0)?;
        let stolen = self.stolen.saturating_sub(start.stolen).min(all);
        Some(as_f64(stolen) / as_f64(all) * 100.0)
    }
}

/// The processor time in `/proc/stat`. Time of guests is part of the user time.
pub(super) fn ticks(stat: &str) -> Ticks {
    let fields = stat.lines().find_map(|line| line.strip_prefix("cpu ")).unwrap_or_default();
    let ticks: Vec<u64> =
        fields.split_whitespace().take(8).map_while(|field| field.parse().ok()).collect();
    let all = ticks.iter().fold(0_u64, |all, ticks| all.saturating_add(*ticks));
    Ticks { all, stolen: ticks.get(7).copied().unwrap_or(0) }
}

/// The load average of the last minute in `/proc/loadavg`.
pub(super) fn load_average(text: &str) -> Option<f64> {
    let average = text.split_whitespace().next().and_then(|word| word.parse().ok());
    average.filter(|average: &f64| average.is_finite())
}

/// Bytes of memory in `/proc/meminfo`.
pub(super) fn memory_bytes(text: &str) -> Option<u64> {
    let kib: u64 = value_of(text, "MemTotal")?.split_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1024)
}

/// The words for what the file [`SMT`] says.
pub(super) fn smt(control: &str) -> &'static str {
    match control {
        "on" => "on",
        "off" | "forceoff" => "off",
        "notsupported" | "notimplemented" => "not there",
        _ => super::UNKNOWN,
    }
}

/// The governors of all cores, each once.
pub(super) fn governors() -> String {
    let cores = fs::read_dir(CORES).into_iter().flatten().flatten();
    let governor = |core: fs::DirEntry| text(core.path().join("cpufreq/scaling_governor"));
    let all: BTreeSet<String> = cores.map(governor).filter(|name| !name.is_empty()).collect();
    if all.is_empty() {
        return "none that this machine shows".to_owned();
    }
    all.into_iter().collect::<Vec<_>>().join(", ")
}

/// The hypervisor, by what the processor and the firmware say.
pub(super) fn virtualised(cpu_info: &str) -> String {
    let flags = ["flags", "Features"].iter().find_map(|name| value_of(cpu_info, name));
    let flagged = flags.unwrap_or_default().split_whitespace().any(|flag| flag == "hypervisor");
    let said = [
        text("/sys/hypervisor/type"),
        text("/proc/device-tree/hypervisor/compatible"),
        [text("/sys/class/dmi/id/sys_vendor"), text("/sys/class/dmi/id/product_name")].join(" "),
    ];
    hypervisor(flagged, &said)
}

/// The words for the processor's flag and the texts of a hypervisor, a device tree and the firmware.
fn hypervisor(flagged: bool, said: &[String; 3]) -> String {
    // Firmware names the machine whether it is a virtual one or not.
    let [kernel, tree, firmware] = said;
    let virtual_firmware = ["QEMU", "KVM", "VMware", "VirtualBox", "Virtual Machine", "Xen", "EC2"];
    let names = [kernel, tree].into_iter().find(|name| !name.trim().is_empty());
    let is_virtual =
        virtual_firmware.iter().any(|name| firmware.contains(name)) && !firmware.contains(".metal");
    match names.or_else(|| (flagged || is_virtual).then_some(firmware)) {
        None => "no sign of it".to_owned(),
        Some(name) if name.trim().is_empty() => "yes, by a hypervisor without a name".to_owned(),
        Some(name) => format!("yes: {}", name.trim_matches(['\0', ' '])),
    }
}

/// The kernel's name, release and architecture.
pub(super) fn kernel() -> String {
    let release = text("/proc/sys/kernel/osrelease");
    let release = if release.is_empty() { super::UNKNOWN } else { &release };
    format!("{} {release} {}", std::env::consts::OS, std::env::consts::ARCH)
}

/// Each flaw that the processor has, with what the kernel does against it.
pub(super) fn mitigations() -> String {
    let files = fs::read_dir(FLAWS).into_iter().flatten().flatten();
    let named =
        files.map(|file| (file.file_name().to_string_lossy().into_owned(), text(file.path())));
    let named: Vec<(String, String)> = named.collect();
    let mut found: Vec<String> =
        named.iter().filter_map(|(name, state)| flaw(name, state)).collect();
    found.sort();
    match (named.is_empty(), found.is_empty()) {
        (true, _) => super::UNKNOWN.to_owned(),
        (false, true) => "none that the processor needs".to_owned(),
        (false, false) => found.join("; "),
    }
}

/// The line for one flaw; `None` if the processor does not have it.
fn flaw(name: &str, state: &str) -> Option<String> {
    let has = !state.is_empty() && !state.starts_with("Not affected");
    has.then(|| format!("{name}: {}", state.strip_prefix("Mitigation: ").unwrap_or(state)))
}

/// The C library that this process uses.
pub(super) fn c_library() -> Option<String> {
    if cfg!(target_env = "musl") {
        return Some("musl, linked into the program".to_owned());
    }
    let path = library_path(&text("/proc/self/maps"))?;
    Some(library_version(&fs::read(&path).ok()?).unwrap_or(path))
}

/// The file of the C library in `/proc/self/maps`.
fn library_path(maps: &str) -> Option<String> {
    let paths = maps.lines().filter_map(|line| line.find('/').map(|at| &line[at..]));
    let is_library = |path: &&str| {
        let name = path.rsplit('/').next().unwrap_or_default();
        name.starts_with("libc.so") || name.starts_with("libc-2")
    };
    paths.into_iter().find(is_library).map(str::to_owned)
}

/// The version that the GNU C library holds as a sentence: it has no other way to be asked without the language C.
fn library_version(library: &[u8]) -> Option<String> {
    let at = memchr::memmem::find(library, b"GNU C Library ")?;
    let rest = &library[at..library.len().min(at + LIBRARY_LINE_MAX)];
    let line = rest.split(|byte| matches!(byte, b'\n' | 0)).next()?;
    let line = String::from_utf8_lossy(line);
    Some(line.trim_end_matches('.').replace("stable release version ", ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(processor(text).as_deref(), expected, "{text}");
        };
        check("processor : 0\nmodel name\t: AMD EPYC\nmodel name : B", Some("AMD EPYC"));
        let arm = "CPU implementer\t: 0x41\nCPU part\t: 0xd0c\n";
        check(arm, Some("implementer 0x41, part 0xd0c"));
        check("model name :\nbogomips: 1", None);
        check("", None);
    }

    #[test]
    fn cores_and_their_time() {
        let stat = "cpu  10 1 5 100 4 0 2 8 3 0\ncpu0 5 0 0 0\ncpu1 5 0 0 0\ncpufreq 1\nctxt 7\n";
        assert_eq!((cores(stat), ticks(stat)), (2, Ticks { all: 130, stolen: 8 }));
        assert_eq!((cores(""), ticks("")), (0, Ticks::default()));
        assert_eq!(ticks("cpu  1 2 x 9 9 9 9 9"), Ticks { all: 3, stolen: 0 });
        let most = format!("cpu  {0} {0}", u64::MAX);
        assert_eq!(ticks(&most).all, u64::MAX);
    }

    #[test]
    fn stolen_time() {
        let check = |start: (u64, u64), end: (u64, u64), expected| {
            let [start, end] = [start, end].map(|(all, stolen)| Ticks { all, stolen });
            assert_eq!(end.steal_percent_since(start), expected, "{start:?} {end:?}");
        };
        check((1_000, 100), (2_000, 120), Some(2.0));
        check((1_000, 100), (1_000, 100), None);
        // Counters that go backwards, and more stolen than there was.
        check((1_000, 100), (900, 90), None);
        check((1_000, 100), (1_010, 90), Some(0.0));
        check((0, 0), (1, u64::MAX), Some(100.0));
    }

    #[test]
    fn numbers_of_other_files() {
        assert_eq!(load_average("0.62 1.20 1.45 1/99 23840"), Some(0.62));
        assert_eq!(
            (load_average(""), load_average("inf"), load_average("NaN 1")),
            (None, None, None)
        );
        assert_eq!(memory_bytes("MemTotal:       24 kB\nMemFree: 1 kB"), Some(24 * 1024));
        assert_eq!(memory_bytes("MemFree: 1 kB"), None);
        assert_eq!((smt("on"), smt("forceoff")), ("on", "off"));
        assert_eq!((smt("notsupported"), smt("")), ("not there", "unknown"));
    }

    #[test]
    fn hypervisors() {
        let check = |flagged, said: [&str; 3], expected| {
            assert_eq!(hypervisor(flagged, &said.map(str::to_owned)), expected, "{said:?}");
        };
        check(false, ["", "", " "], "no sign of it");
        check(false, ["", "", "LENOVO 20XW"], "no sign of it");
        check(true, ["", "", " "], "yes, by a hypervisor without a name");
        check(true, ["", "", "QEMU Standard PC"], "yes: QEMU Standard PC");
        check(false, ["", "", "Amazon EC2 c7g.large"], "yes: Amazon EC2 c7g.large");
        check(false, ["", "", "Amazon EC2 c7g.metal"], "no sign of it");
        check(false, ["xen", "", "HP"], "yes: xen");
        check(false, ["", "linux,kvm\0", " "], "yes: linux,kvm");
    }

    #[test]
    fn flaws_that_the_processor_has() {
        let check = |state: &str, expected: Option<&str>| {
            assert_eq!(flaw("mds", state).as_deref(), expected, "{state}");
        };
        check("Not affected", None);
        check("", None);
        check("Vulnerable", Some("mds: Vulnerable"));
        check(
            "Mitigation: Clear CPU buffers; SMT disabled",
            Some("mds: Clear CPU buffers; SMT disabled"),
        );
    }

    #[test]
    fn c_libraries() {
        let maps =
            "55d3-55d4 r--p 0 fe:00 2 /usr/bin/head\n7f-80 r-xp 0 fe:00 3 /usr/lib/libc.so.6\n";
        assert_eq!(library_path(maps).as_deref(), Some("/usr/lib/libc.so.6"));
        assert_eq!(library_path("55-56 rw-p 0 0:0 0 [heap]\n1-2 r 0 0 4 /lib/libcrypto.so"), None);
        let check = |library: &[u8], expected: Option<&str>| {
            assert_eq!(library_version(library).as_deref(), expected);
        };
        let debian =
            b"\0GNU C Library (Debian GLIBC 2.36-9) stable release version 2.36.\nCopyright";
        check(debian, Some("GNU C Library (Debian GLIBC 2.36-9) 2.36"));
        check(b"GNU C Library ", Some("GNU C Library "));
        check(b"something else", None);
    }
}
