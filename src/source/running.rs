//! `RunningSource`: a source that runs, as the context that started it sees it. The thread that stops the stream stops it; any
//! thread may read the rest. It does not know what the source reads.

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

/// See the module.
pub(crate) struct RunningSource {
    /// The source's name.
    pub(crate) source: String,
    pub(crate) number: u32,
    /// The io model in use, if it reads sockets; another one than asked for where the system cannot run that.
    pub(crate) io_model: Option<IoModel>,
    /// The addresses at which it listens.
    pub(crate) local_addrs: Vec<SocketAddr>,
    pub(crate) counters: Arc<ReceiverCounters>,
    /// Cuts its blocks at each tick.
    pub(crate) cutter: Cutter,
    /// Its rate limit, if it has one.
    pub(crate) limiter: Option<Arc<RateLimiter>>,
    pub(super) rate: Option<RateOptions>,
    pub(super) supervisor: Box<dyn Supervisor>,
}

/// The threads that receive for a source: of sockets, or of a user's own receiver.
pub(super) trait Supervisor: Send {
    /// Receives no more, and hands over everything received; returns a description of each thread that is left at the deadline.
    fn stop(&mut self, clock: &dyn Clock, deadline: Moment) -> Vec<String>;

    /// Closes the connections that stayed for their answers; returns a description of each thread that is left at the deadline.
    fn close(self: Box<Self>, _clock: &dyn Clock, _deadline: Moment) -> Vec<String> {
        Vec::new()
    }
}

impl RunningSource {
    /// The limiter that the scheduler steers, if the rate follows the batches.
    pub(crate) fn steered(&self) -> Option<Steered> {
        Steered::new(self.number, self.limiter.as_ref()?, self.rate?)
    }

    /// Receives no more, then cuts and pushes everything received; returns a description of what is left at the deadline.
    /// Connections that are owed an answer stay until the close.
    pub(crate) fn stop(&mut self, clock: &dyn Clock, deadline: Moment) -> Vec<String> {
        let mut left = self.supervisor.stop(clock, deadline);
        let unstored = self.cutter.0.stop(deadline).into_iter();
        left.extend(unstored.map(|what| format!("source `{}`: {what}", self.source)));
        left
    }

    /// After the stop, once nothing more will be answered: closes the connections that stayed for their answers. Returns a
    /// description of each thread that is left at the deadline.
    pub(crate) fn close(self, clock: &dyn Clock, deadline: Moment) -> Vec<String> {
        self.supervisor.close(clock, deadline)
    }
}

/// The block cutter, as the scheduler sees it.
#[derive(Clone)]
pub(crate) struct Cutter(pub(crate) Arc<BlockCutter>);

impl Cutter {
    /// The reason why the source is not read now, if it is not.
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
    /// Returns `None` if the rate does not follow the batches.
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
