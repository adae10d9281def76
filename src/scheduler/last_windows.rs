//! `Closing`: emits the windows that were not due when the input ended, once. Runs on the thread `job-loop`.
//!
//! Each output below such windows gets its next batch, under the time at which it would have been due, as if the stream had
//! continued to there without input. Windows that others look at need their own ends on the way, so each end of a slide is a
//! batch, for the outputs that still wait. With a state directory nothing is emitted: the next run continues the windows.

use super::JobLoop;
use crate::time::Time;

/// See the module.
#[derive(Debug, Default)]
pub(super) enum Closing {
    /// The input has not ended.
    #[default]
    No,
    /// It has; the outputs that wait are known once every batch is done.
    Asked,
    /// The outputs that wait, by their place, and the batch that each waits for.
    Owed(Vec<(usize, Time)>),
}

impl Closing {
    /// The input has ended.
    pub(super) fn begin(&mut self) {
        *self = Closing::Asked;
    }
}

impl JobLoop {
    /// Begins the next batch that emits windows after the end of the input; false if there is none.
    pub(super) fn close_windows(&mut self) -> bool {
        if self.log.is_some() || self.jobs.set.is_aborted() || self.jobs.set.batches() > 0 {
            return false;
        }
        let Some(last) = self.allocator.last else { return false };
        if matches!(self.stop.closing, Closing::Asked) {
            self.stop.closing = Closing::Owed(self.parts.graph.owed(last));
        }
        let Closing::Owed(owed) = &self.stop.closing else { return false };
        let next = self.parts.graph.next_end(last);
        let Some(time) = next.filter(|next| owed.iter().any(|(_, end)| end >= next)) else {
            return false;
        };
        let waits: Vec<usize> =
            owed.iter().filter(|(_, end)| *end >= time).map(|(output, _)| *output).collect();
        self.allocate_now(time, |output| waits.contains(&output));
        true
    }
}
