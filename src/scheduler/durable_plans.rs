//! With a log: plans become durable, and batches run whose plans are. Runs on the thread `job-loop`.

use super::JobLoop;
use super::recovery::{Durable, Ready};

impl JobLoop {
    /// Batches that are not done, those that wait for the log included.
    pub(super) fn batches(&self) -> usize {
        self.jobs.batches() + self.durable.as_ref().map_or(0, Durable::batches)
    }

    /// With a log: lets plans become durable, and batches run whose plans are.
    pub(super) fn advance(&mut self) {
        let now = self.parts.clock.now();
        while let Some(durable) = &mut self.durable {
            let running = self.jobs.batches();
            let may_plan = (!self.jobs.is_aborted()).then_some(running);
            let advanced = durable.advance(now, may_plan, &self.scheduler);
            if self.jobs.is_aborted() {
                return;
            }
            if let Err(err) = advanced {
                return self.stop_for(err);
            }
            let sources = self.parts.cutters.len() + self.parts.direct.len();
            match durable.next(running, sources, now) {
                Ok(Some(Ready::Live(input))) => self.admit(input, |_| true),
                Ok(Some(Ready::Rebuild(input))) => self.jobs.admit_one(input.time, input),
                Ok(Some(Ready::Again(input))) => {
                    self.count_waiting(&input);
                    self.admit(input, |_| true);
                }
                Ok(None) => return,
                Err(err) => return self.stop_for(err),
            }
        }
    }
}
