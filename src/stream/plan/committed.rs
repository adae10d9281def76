//! `CommittedBatches`: what is committed of the stream as a whole: the zero of slides, the last batch, lost input. A value.
//!
//! Beside the input, planning reads only this and the committed states and windows. It changes when a batch is committed or
//! its input is lost, never while one is planned. Knows no operator.

use std::time::Duration;

use super::lacks::Lacks;
use crate::time::{Interval, Time};

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct CommittedBatches {
    /// One interval before the first batch: slides are counted from here.
    zero: Option<Time>,
    /// The last committed batch.
    last: Option<Time>,
    /// The input that batches lacked.
    pub(crate) lacks: Lacks,
}

impl CommittedBatches {
    /// The first batch is `first`, one `interval` after the zero that slides are counted from. Later calls change nothing.
    pub(crate) fn begin(&mut self, first: Time, interval: Interval) {
        let zero = first.as_millis().saturating_sub(interval.as_millis());
        self.zero.get_or_insert(Time::from_millis(zero));
    }

    /// Slides are counted from here.
    pub(crate) fn zero(&self) -> Time {
        self.zero.unwrap_or_default()
    }

    /// True once the zero is fixed.
    pub(crate) fn has_begun(&self) -> bool {
        self.zero.is_some()
    }

    /// The batch `time` is committed; `longest` is the reach of the longest window.
    pub(crate) fn commit(&mut self, time: Time, longest: Duration) {
        self.last = Some(time);
        self.lacks.forget(time, longest);
    }

    /// True if a slide ends in the batch `time`: after the last committed batch, up to this one.
    pub(crate) fn is_due(&self, slide: Interval, time: Time) -> bool {
        self.next_end(slide, self.last.unwrap_or(self.zero())) <= time
    }

    /// The first multiple of `slide`, counted from the zero, after the batch `time`.
    pub(crate) fn next_end(&self, slide: Interval, time: Time) -> Time {
        let zero = self.zero();
        let since = time.as_millis().saturating_sub(zero.as_millis());
        let slides = since.checked_div(slide.as_millis()).unwrap_or_default();
        zero.plus(slide, slides.saturating_add(1))
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;

    #[test]
    fn a_slide_is_due_once_also_after_missed_ticks() {
        let mut committed = CommittedBatches::default();
        let (time, slide) = (Time::from_millis, Interval::secs(2));
        committed.begin(time(1_000), Interval::secs(1));
        let mut check = |at: u64, due: bool| {
            assert_eq!(committed.is_due(slide, time(at)), due, "{at}");
            committed.commit(time(at), Duration::ZERO);
        };
        check(1_000, false);
        check(2_000, true);
        check(3_000, false);
        // The tick at 4 s was missed: its window falls due at 5 s, and the next one at 6 s as usual.
        check(5_000, true);
        check(6_000, true);
        check(11_000, true);
        check(11_500, false);
    }
}
