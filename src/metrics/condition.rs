//! `Condition`: a problem that lasts and holds the engine up. The closed set of kinds, each with its words. Plain data.

use std::time::Duration;

use crate::time::Time;

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident {
        name: $name:literal, noun: $noun:literal, help: $help:literal, over: $over:literal,
        unready: $unready:literal, settles: $settles:literal,
    })*) => {
        /// The kinds of conditions: a closed set, whose rows are [`CONDITIONS`]. Kinds are added from version to version.
        ///
        /// ```
        /// use tidemill::metrics::{CONDITIONS, ConditionKind};
        ///
        /// assert_eq!(ConditionKind::StoreFull.name(), "store_full");
        /// assert!(CONDITIONS.iter().any(|row| row.kind == ConditionKind::StoreFull && !row.unready));
        /// ```
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum ConditionKind {
            $($(#[$doc])* $kind,)*
        }

        /// Every kind of condition, in the order of the enum.
        pub const CONDITIONS: &[ConditionRow] = &[
            $(ConditionRow {
                kind: ConditionKind::$kind,
                name: $name,
                noun: $noun,
                help: $help,
                over: $over,
                unready: $unready,
                settles: Duration::from_secs($settles),
            },)*
        ];
    };
}

// `over` completes a sentence that begins with the noun and the subject.
kinds! {
    /// The log takes no writes; reading stops once its queue is full.
    LogRefuses {
        name: "log_refuses_writes", noun: "log", help: "The log takes no writes",
        over: "takes writes again", unready: true, settles: 1,
    }
    /// No checkpoint can be written, so no segment of the log is freed.
    CheckpointFails {
        name: "checkpoint_fails", noun: "checkpoint", help: "No checkpoint can be written",
        over: "is written again", unready: true, settles: 1,
    }
    /// Blocks cannot leave memory.
    SpillFails {
        name: "spill_fails", noun: "spill", help: "Blocks cannot leave memory",
        over: "takes blocks again", unready: true, settles: 1,
    }
    /// A dead letter cannot be kept.
    DeadLetterFails {
        name: "dead_letter_fails", noun: "dead letters", help: "A dead letter cannot be kept",
        over: "are kept again", unready: true, settles: 1,
    }
    /// A sink takes no rows, because it has no room or because it fails.
    SinkFails {
        name: "sink_fails", noun: "job", help: "A sink takes no rows",
        over: "put out its rows", unready: true, settles: 1,
    }
    /// A sink cannot be reached or written to, for a reason that can pass.
    SinkAway {
        name: "sink_away", noun: "sink", help: "A sink cannot be reached or written to",
        over: "is away no longer", unready: true, settles: 1,
    }
    /// A source cannot be reached or read.
    SourceAway {
        name: "source_away", noun: "source", help: "A source cannot be reached or read",
        over: "is there again", unready: true, settles: 1,
    }
    /// Reading pauses because the store is full: normal for a stream that is slower than its sources.
    StoreFull {
        name: "store_full", noun: "source", help: "Reading pauses because the store is full",
        over: "is read again", unready: false, settles: 10,
    }
    /// Unfinished records fill their bound, so the largest old ones are treated as over-long.
    UnfinishedFull {
        name: "unfinished_full", noun: "source", help: "Unfinished records fill their bound",
        over: "has fewer unfinished records", unready: false, settles: 10,
    }
    /// Windows and states keep a large part of the memory.
    KeptLarge {
        name: "kept_large", noun: "pipeline", help: "Windows and states keep much of the memory",
        over: "keeps less", unready: false, settles: 10,
    }
    /// A sink cannot finish work that is due, such as a file that is old enough.
    SinkUnfinished {
        name: "sink_unfinished", noun: "sink", help: "A sink cannot finish what is due",
        over: "finished what was due", unready: true, settles: 1,
    }
    /// A write of the log does not return, so nothing more becomes durable.
    LogHangs {
        name: "log_hangs", noun: "log", help: "A write or sync of the log does not return",
        over: "is synced again", unready: true, settles: 1,
    }
    /// A call of a sink does not return, so the rows of its jobs wait.
    SinkHangs {
        name: "sink_hangs", noun: "sink", help: "A call of a sink does not return",
        over: "takes rows again", unready: true, settles: 1,
    }
}

/// The name, words and rules of a kind of condition: a row of [`CONDITIONS`].
#[derive(Clone, Copy, Debug)]
pub struct ConditionRow {
    /// The kind.
    pub kind: ConditionKind,
    /// Its name in metrics, status and events.
    pub name: &'static str,
    /// The noun for its subject.
    pub noun: &'static str,
    /// Its meaning.
    pub help: &'static str,
    /// The verb phrase for its end: what the subject does again.
    pub over: &'static str,
    /// True if the stream is not ready while it lasts.
    pub unready: bool,
    /// The condition is over if it has not begun again for this long.
    pub settles: Duration,
}

impl ConditionKind {
    /// The row of the kind in [`CONDITIONS`].
    ///
    /// ```
    /// use tidemill::metrics::ConditionKind;
    ///
    /// assert_eq!(ConditionKind::StoreFull.name(), "store_full");
    /// assert!(!ConditionKind::StoreFull.row().unready);
    /// ```
    pub fn row(self) -> &'static ConditionRow {
        // The rows are in the order of the enum.
        &CONDITIONS[self as usize]
    }

    /// The name of the kind in metrics, status and events.
    ///
    /// ```
    /// use tidemill::metrics::ConditionKind;
    ///
    /// assert_eq!(ConditionKind::StoreFull.name(), "store_full");
    /// assert!(!ConditionKind::StoreFull.row().unready);
    /// ```
    pub fn name(self) -> &'static str {
        self.row().name
    }
}

/// A problem that lasts and holds the engine up, such as a sink that is away. It is an event when it begins, every ten seconds,
/// and when it ends; [`Inspector::conditions`](crate::Inspector::conditions) has those that last.
///
/// ```
/// use tidemill::metrics::{Condition, ConditionKind};
/// use tidemill::Time;
///
/// let condition = Condition {
///     kind: ConditionKind::SinkAway,
///     subject: "orders".to_owned(),
///     cause: "connection refused".to_owned(),
///     needs: "its server must be there".to_owned(),
///     since: Time::from_millis(1_000),
/// };
/// assert_eq!(condition.text(), "sink `orders`: connection refused; its server must be there");
/// assert_eq!(condition.over_text(), "sink `orders` is away no longer");
/// assert_eq!((condition.kind.name(), condition.kind.row().unready), ("sink_away", true));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Its kind.
    pub kind: ConditionKind,
    /// Its subject: a name from the configuration, or a path.
    pub subject: String,
    /// The problem.
    pub cause: String,
    /// The remedy; empty if nobody can do anything about it.
    pub needs: String,
    /// The time at which it began, by the wall clock.
    pub since: Time,
}

impl Condition {
    /// The condition as a sentence: ``log `/state`: no space left on device; free 64 MiB``.
    pub fn text(&self) -> String {
        let (noun, subject, cause) = (self.kind.row().noun, &self.subject, &self.cause);
        let semicolon = if self.needs.is_empty() { "" } else { "; " };
        format!("{noun} `{subject}`: {cause}{semicolon}{}", self.needs)
    }

    /// Its end as a sentence: ``log `/state` takes writes again``.
    pub fn over_text(&self) -> String {
        let row = self.kind.row();
        format!("{} `{}` {}", row.noun, self.subject, row.over)
    }
}
