//! The seeds of tests that draw their cases; the crash tests, a program of their own, take the same. Knows no test.

/// The seed that `TIDEMILL_SEED` asks for.
pub(crate) fn env_seed() -> Option<u64> {
    number("TIDEMILL_SEED")
}

/// The seeds of a test: one if `TIDEMILL_SEED` names it, otherwise `TIDEMILL_SEEDS` or `count` of them.
pub(crate) fn seeds(count: u64) -> std::ops::Range<u64> {
    let many = number("TIDEMILL_SEEDS").unwrap_or(count);
    env_seed().map_or(0..many, |seed| seed..seed + 1)
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}
