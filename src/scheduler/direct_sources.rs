//! The direct sources of a stream: what each batch takes of them, and when one has ended. Called by the job loop.

use std::collections::BTreeMap;

use crate::blocks::manager::{EvictedBlock, StoredBlock};
use crate::blocks::{BlockId, BlockInfo};
use crate::error::Result;
use crate::metrics::{ConditionHandle, ConditionKind, Event, EventBus, ReceiverCounters};
use crate::source::direct::{DirectSource, Losses, Planned, Portion, Purpose};
use crate::stream::{BatchInput, Graph};
use crate::sync::Arc;
use crate::time::Time;

/// What it takes to read a direct source.
#[derive(Clone)]
pub(crate) struct Reader {
    pub(crate) number: u32,
    pub(crate) name: Arc<str>,
    pub(crate) source: Arc<dyn DirectSource>,
    pub(crate) counters: Arc<ReceiverCounters>,
}

impl Reader {
    /// What a plan takes, of this run or an earlier one.
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

    /// Counts and tells what the batch went without.
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
    /// It cannot be asked.
    away: ConditionHandle,
    /// Tells that the source has ended, once, in a run to the end of the sources.
    on_end: Option<Box<dyn FnOnce() + Send>>,
    /// The batch that takes the last of it, once that is planned.
    last: Option<Time>,
    /// Batches of the stop that are not done, and how many bytes they take that nobody can read later.
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

    /// Whether the last batch of the run is to take the rest of the source.
    pub(super) fn has_a_last_batch(&self) -> bool {
        self.reader.source.is_ending() && self.last.is_none()
    }

    /// Whether the stop is to plan more.
    pub(super) fn has_more_for_the_stop(&self) -> bool {
        !self.closed && (self.has_a_last_batch() || self.reader.source.perishes() > 0)
    }

    /// Counts what nobody can read any more and no batch has processed, in bytes.
    pub(super) fn count_perished(&self) -> u64 {
        let bytes = self.reader.source.perishes() + self.perishing.values().sum::<u64>();
        count_lost(&self.reader.counters, bytes, false);
        bytes
    }

    /// Tells the end if the source holds no more than the last batch takes.
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

/// What the batch `time` takes of each source; nothing of one that cannot be asked, which is a condition. At the stop those
/// that end with this run give their last, and the others what nobody can read later: the rest is there for the next run.
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

/// The batch went without what is lost: it is told, and the rows that reach back to the batch are incomplete. Asked before
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

/// The batch is done. With a log it may be read again for what operators keep of it, and the log says when it is not.
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

/// How many bytes a batch takes of direct sources.
pub(super) fn bytes(input: &BatchInput) -> u64 {
    let portions = input.direct.values().flat_map(|planned| &planned.portions);
    portions.map(|portion| portion.bytes()).sum()
}

/// What a batch takes of a direct source, as blocks whose records are not in memory: as far as they are not lost.
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
