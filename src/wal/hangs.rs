//! The condition of a log whose disk hangs. Runs on the thread `wal-sync`.

use std::time::Duration;

use crate::metrics::{ConditionKind, Conditions, Slow, Watch};

/// The longest time for a write of a group or a release of segments, before the disk counts as hanging.
const SLOW: Duration = Duration::from_secs(10);

/// The watch over a log in this place.
pub(super) fn watch_over(conditions: &Conditions, place: String) -> Watch {
    let seconds = SLOW.as_secs();
    let slow = Slow {
        after: SLOW,
        cause: format!(
            "a write or sync has not returned for {seconds} s, and nothing becomes durable meanwhile"
        ),
        needs: "its disk must answer".to_owned(),
    };
    conditions.watch(ConditionKind::LogHangs, place, slow)
}
