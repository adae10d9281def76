//! Sinks whose reader is gone, as that of a pipe may be. The stream goes on without such a sink; once no output is left that
//! anybody takes, it ends, and the batch of that moment is not committed. Runs on the thread `job-loop`.

use crate::exec::Failure;
use crate::metrics::Event;
use crate::sync::Arc;

use super::job_set::JobRef;
use super::{JobLoop, SchedulerNotice};

impl JobLoop {
    /// What the end of a job means as far as sinks are closed; none if the run ends for it.
    pub(super) fn after_closed(
        &mut self,
        job: JobRef,
        outcome: Result<(), Failure>,
    ) -> Option<Result<(), Failure>> {
        let Err(Failure::Closed(why)) = outcome else { return Some(outcome) };
        let ends_run = self.jobs.outputs.iter().all(|output| output.is_closed());
        self.tell_closed(job, &why, ends_run);
        if !ends_run {
            return Some(Ok(()));
        }
        self.parts.graph.abandon(job.time);
        self.stop_with(SchedulerNotice::OutputClosed(why));
        None
    }

    /// Says once of each sink that it is closed.
    fn tell_closed(&mut self, job: JobRef, why: &str, ends_run: bool) {
        let output = Arc::clone(&self.jobs.outputs[job.output]);
        for sink in output.sinks().iter().filter(|sink| sink.is_closed()) {
            if !self.sinks.closed.iter().any(|known| known.is_same(sink)) {
                self.sinks.closed.push(sink.clone());
                let (sink, why) = (sink.name().unwrap_or_default().to_owned(), why.to_owned());
                self.parts.events.post(Event::SinkClosed { sink, why, ends_run });
            }
        }
    }
}
