//! `WindowSpan`: the length and the slide of a window; `WindowAt`: a window at one time. Plain data.

use crate::time::{Interval, Time};

/// The length and the slide of a window, both multiples of the batch interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowSpan {
    /// The time that the window reaches back.
    pub length: Interval,
    /// The time from one end of the window to the next.
    pub slide: Interval,
}

/// A window at the time of a batch.
#[derive(Clone, Copy)]
pub(super) struct WindowAt {
    pub(super) time: Time,
    pub(super) length: Interval,
}

impl WindowAt {
    /// True if the window does not reach back to the batch `at`.
    pub(super) fn is_past(self, at: Time) -> bool {
        self.time.as_millis().saturating_sub(at.as_millis()) >= self.length.as_millis()
    }
}
