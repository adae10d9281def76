//! `Planted`: defects of the durable layers, one at a time, to show that the crash tests would find them.
//!
//! Only `--cfg tidemill_planted` compiles them in; otherwise [`planted`] is a constant `false` and the branch is gone.
//! The defect in force belongs to the operating system's thread: tests do not disturb each other.

#[cfg(tidemill_planted)]
use std::cell::Cell;

/// A defect, named for what the code does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Planted {
    /// A sync of data reports success without a sync.
    SkipSync,
    /// A group is acknowledged once it is written, before it is synced.
    AckBeforeSync,
    /// A checksum that does not match is taken for one that does.
    IgnoreCrc,
    /// A file gets its final name before its bytes are synced.
    RenameBeforeSync,
    /// The sink `sqlite` commits the rows of a batch, and then the mark that they are committed.
    #[cfg(feature = "sqlite")]
    MarkAfterRows,
}

/// Whether this defect is in force.
#[cfg(not(tidemill_planted))]
pub(crate) const fn planted(_defect: Planted) -> bool {
    false
}

#[cfg(tidemill_planted)]
thread_local! {
    static IN_FORCE: Cell<Option<Planted>> = const { Cell::new(None) };
}

/// Whether this defect is in force.
#[cfg(tidemill_planted)]
pub(crate) fn planted(defect: Planted) -> bool {
    IN_FORCE.get() == Some(defect)
}

/// Runs `body` with a defect in force.
#[cfg(all(test, tidemill_planted, not(tidemill_model)))]
pub(crate) fn with<T>(defect: Planted, body: impl FnOnce() -> T) -> T {
    IN_FORCE.set(Some(defect));
    let result = body();
    IN_FORCE.set(None);
    result
}
