//! The machine and the build that figures belong to. Reads a few files of `/proc` and asks git once; main thread.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Names and values, in the order of the page.
pub type Facts = Vec<(&'static str, String)>;

/// The facts of this machine and this program at the wall time `now`.
pub fn facts(now: Duration, command_line: &str) -> Facts {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let build = if cfg!(debug_assertions) { "debug: not fit for figures" } else { "release" };
    vec![
        ("date", date(now.as_secs())),
        (
            "processor",
            first_of(&read("/proc/cpuinfo"), "model name").unwrap_or("unknown".to_owned()),
        ),
        ("cores", cores.to_string()),
        ("memory", first_of(&read("/proc/meminfo"), "MemTotal").unwrap_or("unknown".to_owned())),
        (
            "kernel",
            format!("{} {}", std::env::consts::OS, read("/proc/sys/kernel/osrelease").trim()),
        ),
        ("compiler", built_by(env!("TIDEMILL_RUSTC"))),
        ("tidemill", format!("{} ({build})", env!("CARGO_PKG_VERSION"))),
        ("commit", commit()),
        ("command", command_line.to_owned()),
    ]
}

/// The fact of this name; empty if there is none.
pub fn fact<'a>(facts: &'a Facts, name: &str) -> &'a str {
    facts.iter().find(|(fact, _)| *fact == name).map_or("", |(_, value)| value)
}

/// The compiler that built this program, as it names itself.
fn built_by(said: &str) -> String {
    if said.is_empty() { "unknown".to_owned() } else { said.to_owned() }
}

/// The value of the first line `name : value`.
fn first_of(text: &str, name: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_once(':').map(|(_, value)| value.trim().to_owned())
}

/// The commit that was built, if the build said so; otherwise that of the tree around this program.
fn commit() -> String {
    if let Some(commit) = option_env!("TIDEMILL_COMMIT") {
        return commit.to_owned();
    }
    let program = std::env::current_exe().unwrap_or_default();
    let described = Command::new("git")
        .arg("-C")
        .arg(program.parent().unwrap_or(Path::new(".")))
        .args(["describe", "--always", "--dirty=, changed", "--abbrev=12"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    match described {
        Ok(output) if output.status.success() => {
            format!(
                "{} (of the tree around the program)",
                String::from_utf8_lossy(&output.stdout).trim()
            )
        }
        _ => "unknown".to_owned(),
    }
}

/// Seconds since the epoch as a date and a time of day, UTC.
fn date(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days since 0000-03-01, so that the leap day is the last of its year.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02} UTC", rest / 3_600, rest / 60 % 60)
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
    }

    #[test]
    fn facts_are_found() {
        assert_eq!(first_of("a : 1\nb\t: x y \n", "b"), Some("x y".to_owned()));
        assert_eq!(first_of("a : 1", "c"), None);
        assert_eq!(built_by(""), "unknown");
        assert!(built_by(env!("TIDEMILL_RUSTC")).starts_with("rustc 1."));
        assert!(facts(Duration::ZERO, "x").iter().all(|(_, value)| !value.is_empty()));
    }
}
