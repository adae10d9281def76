//! Real peers: the machine's programs that a test needs.

use std::io::{self, Write};

/// The machine's programs that a test needs; false, and said so, if one is missing.
pub fn are_there(programs: &[&str], install: &str) -> bool {
    let missing = programs.iter().find(|program| {
        let mut paths = std::env::split_paths("/usr/sbin:/usr/bin:/sbin:/bin");
        !paths.any(|directory| directory.join(program).exists())
    });
    let Some(missing) = missing else { return true };
    assert!(
        std::env::var("TIDEMILL_REQUIRE_PEERS").as_deref() != Ok("1"),
        "{missing} is required and not installed ({install})"
    );
    let _ = writeln!(io::stdout(), "not run: {missing} ({install})");
    false
}
