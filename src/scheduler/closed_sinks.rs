//! Sinks whose reader is gone, as that of a pipe may be. The stream continues without such a sink. Once nobody takes the rows
//! of any output, it ends, and the current batch is not committed. Runs on the thread `job-loop`.

use crate::exec::Failure;
use crate::metrics::Event;
use crate::sync::Arc;

use super::job_set::JobRef;
use super::{JobLoop, SchedulerNotice};

impl JobLoop {
    /// The outcome of a job with closed sinks taken out; `None` if the run ends because every output is closed.
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
        self.abandon_batch();
        self.stop_with(SchedulerNotice::OutputClosed(why));
        None
    }

    /// Reports each closed sink once.
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
