//! `RunningSource`: a source that runs, as the context that started it sees it. Stopped by the thread that stops the
//! stream; the rest may be asked by any. It does not know what the source reads.

use std::net::SocketAddr;

use crate::memory::budget::MemoryBudget;
use crate::metrics::ReceiverCounters;
use crate::source::engine::RateOptions;
use crate::source::ingest::block_cutter::BlockCutter;
use crate::source::ingest::handover::Cut;
use crate::source::ingest::rate_limit::RateLimiter;
use crate::source::io::IoModel;
use crate::source::pause::PausedBy;
use crate::sync::Arc;
use crate::time::{Clock, Moment, Time};

/// See the module. There are two: of sockets, and a user's own.
pub(crate) trait RunningSource: Send {
    /// The source's name.
    fn source(&self) -> &str;

    /// Its number.
    fn number(&self) -> u32;

    /// The io model in use, if it reads sockets.
    fn io_model(&self) -> Option<IoModel>;

    /// Where it listens.
    fn local_addrs(&self) -> &[SocketAddr] {
        &[]
    }

    /// What it did so far.
    fn counters(&self) -> &Arc<ReceiverCounters>;

    /// What the scheduler needs of it at each tick.
    fn cutter(&self) -> Cutter;

    /// Its rate limit, if it has one.
    fn limiter(&self) -> Option<&Arc<RateLimiter>>;

    /// What the scheduler needs to set its rate, if that follows the batches.
    fn steered(&self) -> Option<Steered>;

    /// Receives no more, cuts and pushes what was received; returns what is left at the deadline, in words.
    fn stop(&mut self, clock: &Arc<dyn Clock>, deadline: Moment) -> Vec<String>;

    /// After the stop, once nothing more is going to be answered: closes the connections that stayed for their answers.
    /// Returns what is left at the deadline, in words.
    fn close(self: Box<Self>, _clock: &Arc<dyn Clock>, _deadline: Moment) -> Vec<String> {
        Vec::new()
    }
}

/// The generator, as the scheduler sees it.
#[derive(Clone)]
pub(crate) struct Cutter(pub(crate) Arc<BlockCutter>);

impl Cutter {
    /// What is not read waits for this; nothing if it is read.
    pub(crate) fn paused_by(&self, account: &MemoryBudget) -> Option<PausedBy> {
        self.0.paused_by().or_else(|| account.is_full().then_some(PausedBy::Store))
    }

    /// Cuts for the batch of the tick `time`.
    pub(crate) fn cut_for(&self, time: Time) -> Cut {
        self.0.cut_for(time)
    }
}

/// A receiver whose rate follows what batches can process.
pub(crate) struct Steered {
    pub(crate) source: u32,
    pub(crate) limiter: Arc<RateLimiter>,
}

impl Steered {
    /// None if the rate does not follow the batches.
    pub(crate) fn new(source: u32, limiter: &Arc<RateLimiter>, rate: RateOptions) -> Option<Self> {
        let (min, max) = rate.follows?;
        limiter.set_bounds(min, max);
        Some(Steered { source, limiter: Arc::clone(limiter) })
    }

    /// The lowest rate now; a reload of the pipeline file may change it.
    pub(crate) fn min(&self) -> u64 {
        self.limiter.bounds().map_or(0, |(min, _)| min)
    }

    /// The highest rate now.
    pub(crate) fn max(&self) -> u64 {
        self.limiter.bounds().map_or(u64::MAX, |(_, max)| max)
    }
}
