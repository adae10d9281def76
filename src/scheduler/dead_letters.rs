//! Dead letters: the input of a batch with a job that was given up, kept by a worker before the batch is done. A letter that
//! finds no room on the disk is tried again until there is room, like a job whose sink finds none; letters that are kept
//! already are not written again. Runs on the thread `job-loop`, but for [`put_aside`].

use super::{JobLoop, Message, ROOM_RETRY, direct_sources};
use crate::error::Result;
use crate::metrics::{BatchState, ConditionKind, Event, EventBus};
use crate::sink::{DeadLetter, DeadLetters};
use crate::stream::{BatchInput, Graph};
use crate::sync::Arc;
use crate::time::Time;

/// The places of the letters of a batch, each with the number of its source.
pub(crate) type Kept = Vec<(u32, String)>;

impl JobLoop {
    /// No job of the batch is left: it is done, or a worker puts its input aside.
    pub(super) fn jobs_over(&mut self, time: Time) {
        self.put_aside(time, Kept::new());
    }

    /// Tries again to keep the letters that had no room, once it is time.
    pub(super) fn put_aside_again(&mut self) {
        if let Some((time, kept)) = self.jobs.letters.take().filter(|_| !self.jobs.set.is_aborted())
        {
            self.put_aside(time, kept);
        }
    }

    fn put_aside(&mut self, time: Time, mut kept: Kept) {
        let given_up = self.jobs.set.given_up(time).zip(self.parts.dead_letters.clone());
        let Some(((input, _), letters)) = given_up else {
            return self.batch_done(time, BatchState::Done);
        };
        let (graph, scheduler) = (Arc::clone(&self.parts.graph), self.scheduler.clone());
        let events = self.parts.events.clone();
        self.parts.workers.submit(vec![Box::new(move |_| {
            let outcome = put_aside(&graph, &input, letters.as_ref(), &mut kept, &events);
            drop(input);
            scheduler.post(Message::PutAside { time, outcome, kept });
        })]);
    }

    pub(super) fn was_put_aside(&mut self, time: Time, outcome: Result<()>, kept: Kept) {
        let place = self.parts.dead_letters.as_ref().map(|it| it.place()).unwrap_or_default();
        let conditions = self.parts.events.conditions();
        match outcome {
            Ok(()) => {
                conditions.end(ConditionKind::DeadLetterFails, &place);
                self.batch_done(time, BatchState::DeadLetter);
            }
            Err(err) if err.passes() => {
                let cause = format!("batch {time} waits: {err}");
                conditions.begin(
                    ConditionKind::DeadLetterFails,
                    &place,
                    cause,
                    "room for its records",
                );
                self.jobs.letters = Some((time, kept));
                self.jobs.room_at = Some(self.parts.clock.now().plus(ROOM_RETRY));
            }
            Err(err) => self.fail(time, err),
        }
    }
}

/// Keeps the input of a batch, a letter for each source that has records in it and is not among the kept.
fn put_aside(
    graph: &Graph,
    input: &BatchInput,
    letters: &dyn DeadLetters,
    kept: &mut Kept,
    events: &EventBus,
) -> Result<()> {
    for source in graph.sources() {
        let number = usize::try_from(source.source).expect("sources are counted in u32");
        let mut blocks = input.blocks.get(number).cloned().unwrap_or_default();
        blocks.extend(direct_sources::blocks(input, source.source));
        if !blocks.is_empty() && kept.iter().all(|(of, _)| *of != source.source) {
            let (pipeline, name) = (graph.pipeline(), &source.name);
            let letter = DeadLetter { pipeline, time: input.time, source: name, blocks: &blocks };
            kept.push((source.source, letters.keep(&letter)?));
        }
    }
    let places = kept.iter().map(|(_, place)| place.clone()).collect();
    let (time, records) = (input.time, input.all_records());
    events.post(Event::BatchPutAside { time, records, places });
    Ok(())
}
