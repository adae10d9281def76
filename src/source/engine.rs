//! The options that every receiver shares, sockets and a user's own: the parts of the engine that it uses, its end, and its rate.
//! Also makes its block cutter and its rate limit. It knows no kind of source.

use crate::error::Result;
use crate::framing::Framing;
use crate::memory::budget::MemoryBudget;
use crate::memory::buffer_pool::Pool;
use crate::metrics::{EngineTimes, EventBus};
use crate::source::ingest::backlog_trigger::BacklogTrigger;
use crate::source::ingest::block_cutter::{BlockCutter, CutterOptions};
use crate::source::ingest::chunk_log::EngineLog;
use crate::source::ingest::rate_limit::RateLimiter;
use crate::source::socket::unfinished::Unfinished;
use crate::sync::thread::Thread;
use crate::sync::{Arc, Poison, StopToken};
use crate::time::{Clock, Interval, Moment, join_until};

/// The end of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Never by itself: a lost peer is dialled again.
    Never,
    /// When every peer has closed: the end of file of `--until-eof`.
    Eof,
}

/// The rate at which a source may be read, in records per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RateOptions {
    /// The rate at the start.
    pub(crate) initial: u64,
    /// The lowest and the highest rate, if it follows what batches can process.
    pub(crate) follows: Option<(u64, u64)>,
}

/// The parts of the engine that a receiver uses.
#[derive(Clone)]
pub(crate) struct Engine {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) poison: Poison,
    pub(crate) account: Arc<MemoryBudget>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) events: EventBus,
    pub(crate) times: Arc<EngineTimes>,
    /// Counts what can be cut, if batches wait for records.
    pub(crate) arrivals: Option<Arc<BacklogTrigger>>,
    /// The unfinished records of all sources.
    pub(crate) unfinished: Arc<Unfinished>,
    /// The log that makes input durable before it is stored, if there is one.
    pub(crate) log: Option<EngineLog>,
}

/// Called once when a source is over, with its number and, if the end was not in order, the error. It only posts.
pub(crate) type OnEnd = Arc<dyn Fn(u32, Option<String>) + Send + Sync>;

/// The options of a receiver's blocks.
pub(super) struct BlockOptions {
    pub(super) framing: Framing,
    pub(super) interval: Interval,
    pub(super) bytes_max: u64,
}

impl Engine {
    /// Makes the block cutter of the source of this number.
    pub(super) fn cutter(&self, number: u32, blocks: BlockOptions) -> Arc<BlockCutter> {
        BlockCutter::new(CutterOptions {
            name: format!("rx{number}"),
            source: number,
            framing: blocks.framing,
            block_interval: blocks.interval,
            block_bytes_max: blocks.bytes_max,
            clock: Arc::clone(&self.clock),
            account: Arc::clone(&self.account),
            poison: self.poison.clone(),
            log: self.log.as_ref().map(|log| log.of(number)),
        })
    }

    /// Makes the rate limit of a source, if it has one.
    pub(super) fn limiter(&self, rate: Option<RateOptions>) -> Option<Arc<RateLimiter>> {
        rate.map(|rate| RateLimiter::new(rate.initial, Arc::clone(&self.clock)))
    }

    /// Starts the thread `rxN-rate`, which wakes the handlers that the rate limit holds.
    pub(super) fn start_limiter(
        &self,
        limiter: &Arc<RateLimiter>,
        cutter: &Arc<BlockCutter>,
        stop: &StopToken,
    ) -> Result<Thread> {
        let (handlers, name) = (Arc::clone(cutter), format!("{}-rate", cutter.name()));
        limiter.start(&name, stop, &self.poison, move || handlers.queue().wake())
    }
}

/// Joins threads by the deadline; describes those that did not end.
pub(super) fn join_all(threads: Vec<Thread>, clock: &dyn Clock, deadline: Moment) -> Vec<String> {
    threads.into_iter().filter_map(|thread| join_until(clock, thread, deadline).left()).collect()
}
