//! The direct sources of a stream: the input that each batch takes of them, and their end. Called by the job loop.

use std::collections::BTreeMap;

use crate::blocks::manager::{EvictedBlock, StoredBlock};
use crate::blocks::{BlockId, BlockInfo};
use crate::error::Result;
use crate::metrics::{ConditionHandle, ConditionKind, Event, EventBus, ReceiverCounters};
use crate::source::direct::{DirectSource, Losses, Planned, Portion, Purpose};
use crate::stream::{BatchInput, Graph};
use crate::sync::Arc;
use crate::time::Time;

/// Reads a direct source for the batches.
#[derive(Clone)]
pub(crate) struct Reader {
    pub(crate) number: u32,
    pub(crate) name: Arc<str>,
    pub(crate) source: Arc<dyn DirectSource>,
    pub(crate) counters: Arc<ReceiverCounters>,
}

impl Reader {
    /// The input of a plan, of this run or an earlier one.
    pub(super) fn read(&self, plan: Vec<u8>, losses: Losses) -> Result<Planned> {
        if plan.is_empty() {
            return Ok(Planned::default());
        }
        let losses = Arc::new(losses);
        let portion =
            |part| Arc::new(Portion::new(part, Arc::clone(&self.counters), Arc::clone(&losses)));
        let portions = self.source.read(&plan)?.into_iter().map(portion).collect();
        Ok(Planned { plan, portions, losses })
    }

    /// Counts and reports the input that the batch went without.
    fn tell_losses(&self, losses: &Losses, events: &EventBus) {
        let lost = losses.report();
        if lost.ranges == 0 {
            return;
        }
        let processed = losses.purpose() == Purpose::Rebuild;
        count_lost(&self.counters, lost.bytes, processed);
        events.post(Event::InputLost {
            source: self.name.to_string(),
            ranges: lost.ranges,
            bytes: lost.bytes,
            records: lost.records,
            what: lost.to_string(),
            processed,
        });
    }

    /// The plan is not read again.
    pub(super) fn commit(&self, plan: &[u8]) {
        if !plan.is_empty() {
            self.source.committed(plan);
        }
    }
}

/// Counts bytes that a batch went without.
pub(crate) fn count_lost(counters: &ReceiverCounters, bytes: u64, processed: bool) {
    match processed {
        true => counters.lost_for_windows_bytes.add(bytes),
        false => counters.lost_bytes.add(bytes),
    }
}

/// A direct source that was started.
pub(crate) struct Direct {
    pub(super) reader: Reader,
    events: EventBus,
    /// Lasts while it cannot be asked.
    away: ConditionHandle,
    /// Reports the end of the source, once, in a run to the end of the sources.
    on_end: Option<Box<dyn FnOnce() + Send>>,
    /// The batch that takes its last input, once that is planned.
    last: Option<Time>,
    /// Batches of the stop that are not done, with the bytes they take that nobody can read later.
    perishing: BTreeMap<Time, u64>,
    /// The stop has planned all that it can.
    closed: bool,
}

impl Direct {
    pub(crate) fn new(reader: Reader, events: EventBus, on_end: Box<dyn FnOnce() + Send>) -> Self {
        let away = events.conditions().handle(ConditionKind::SourceAway, &*reader.name);
        Direct {
            reader,
            events,
            away,
            on_end: Some(on_end),
            last: None,
            perishing: BTreeMap::new(),
            closed: false,
        }
    }

    /// True if the last batch of the run must still take the rest of the source.
    pub(super) fn has_a_last_batch(&self) -> bool {
        self.reader.source.is_ending() && self.last.is_none()
    }

    /// True if the stop must plan more.
    pub(super) fn has_more_for_the_stop(&self) -> bool {
        !self.closed && (self.has_a_last_batch() || self.reader.source.perishes() > 0)
    }

    /// Counts the bytes that no batch has processed and nobody can read any more.
    pub(super) fn count_perished(&self) -> u64 {
        let bytes = self.reader.source.perishes() + self.perishing.values().sum::<u64>();
        count_lost(&self.reader.counters, bytes, false);
        bytes
    }

    /// Reports the end if the source holds no more than the last batch takes.
    pub(crate) fn end_if_last(&mut self) {
        if self.reader.source.is_ending()
            && let Some(on_end) = self.on_end.take()
        {
            let source = self.reader.name.to_string();
            self.events.post(Event::SourceEnded { source, error: None });
            on_end();
        }
    }

    fn plan(&mut self, time: Time, draining: bool) -> Result<Planned> {
        if !draining || self.has_a_last_batch() {
            let planned = self.read(self.reader.source.plan(time)?)?;
            self.away.end();
            return Ok(planned);
        }
        let plan = self.reader.source.plan_perishing(time)?;
        self.closed = plan.is_none();
        let planned = self.read(plan)?;
        let bytes = planned.portions.iter().map(|portion| portion.bytes()).sum();
        self.perishing.insert(time, bytes);
        Ok(planned)
    }

    fn read(&self, plan: Option<Vec<u8>>) -> Result<Planned> {
        let reader = &self.reader;
        let losses =
            Losses::new(&reader.name, Purpose::Process, reader.source.on_lost(), Vec::new());
        reader.read(plan.unwrap_or_default(), losses)
    }
}

/// Plans the input that the batch `time` takes of each source; a source that cannot be asked gives none, which is a condition.
/// At the stop the sources that end with this run give their last input, and the others only what nobody can read later: the
/// rest is there for the next run.
pub(super) fn plan(sources: &mut [Direct], time: Time, draining: bool) -> BTreeMap<u32, Planned> {
    let mut all = BTreeMap::new();
    for direct in sources {
        match direct.plan(time, draining) {
            Ok(planned) => {
                all.insert(direct.reader.number, planned);
                if direct.reader.source.is_ending() {
                    direct.last.get_or_insert(time);
                }
            }
            Err(err) => {
                direct.closed = draining;
                direct.reader.counters.errors.add(1);
                direct.away.begin(err.to_string(), "");
            }
        }
    }
    all
}

/// Reports the lost input that the batch went without; the rows that reach back to the batch are incomplete. Called before
/// the graph commits the batch.
pub(super) fn tell_losses(sources: &[Direct], input: &BatchInput, graph: &Graph) {
    for direct in sources {
        let planned = input.direct.get(&direct.reader.number);
        if let Some(planned) = planned.filter(|planned| !planned.losses.is_empty()) {
            direct.reader.tell_losses(&planned.losses, &direct.events);
            graph.lacks_input(input.time, direct.reader.number);
        }
    }
}

/// The batch is done. With a log its input may be read again to rebuild operators, and the log says when that is over.
pub(super) fn done(sources: &mut [Direct], input: &BatchInput, logged: bool) {
    for direct in sources {
        direct.perishing.remove(&input.time);
        if !logged && let Some(planned) = input.direct.get(&direct.reader.number) {
            direct.reader.commit(&planned.plan);
        }
        if direct.last.is_some_and(|last| input.time >= last) {
            direct.end_if_last();
        }
    }
}

/// The number of bytes that a batch takes of direct sources.
pub(super) fn bytes(input: &BatchInput) -> u64 {
    let portions = input.direct.values().flat_map(|planned| &planned.portions);
    portions.map(|portion| portion.bytes()).sum()
}

/// The input that a batch takes of a direct source, as blocks whose records are not in memory; lost ranges are left out.
pub(super) fn blocks(input: &BatchInput, source: u32) -> Vec<Arc<StoredBlock>> {
    let portions = input.direct.get(&source).map_or(&[][..], |planned| &planned.portions);
    let block = |(number, portion): (u64, &Arc<Portion>)| {
        let info = BlockInfo {
            id: BlockId { source, number },
            framing: portion.framing(),
            records: portion.records(),
            bytes: portion.bytes(),
            first_read: None,
            chunks: 0..0,
        };
        StoredBlock::elsewhere(info, Arc::new(Unread(Arc::clone(portion))))
    };
    (0..).zip(portions).map(block).collect()
}

/// Records that are read where they lie.
#[derive(Debug)]
struct Unread(Arc<Portion>);

impl EvictedBlock for Unread {
    fn for_each_range(&self, each: &mut dyn FnMut(&[u8])) -> Result<()> {
        self.0.for_each_range_left(each)
    }
}
