//! `ActiveReceiver`: a source that runs, as the context that started it sees it. Stopped by the thread that stops the
//! stream; the rest may be asked by any. It does not know what the source reads.

use std::net::SocketAddr;

use crate::metrics::ReceiverCounters;
use crate::receiver::io::IoModel;
use crate::receiver::rate::RateLimiter;
use crate::receiver::socket::{Cutter, Steered};
use crate::sync::Arc;
use crate::time::{Clock, Moment};

/// See the module. There are two: of sockets, and a user's own.
pub(crate) trait ActiveReceiver: Send {
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
