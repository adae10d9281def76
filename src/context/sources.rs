//! The sources of a context as they were added, and what each is started with. Plain data; opens nothing.

use crate::config::Resolved;
use crate::journal::Wanted;
use crate::metrics::EventBus;
use crate::net::lookup::Names;
use crate::source::direct::{DirectSource, DirectStart};
use crate::source::{
    Ack, AckAt, CustomOptions, RECORD_BYTES_MAX, RateLimits, RateOptions, Receiver, ReceiverSlot,
    SocketOptions, SocketSource, When,
};
use crate::sync::{Arc, Mutex};
use crate::time::Clock;

use super::RunLimits;
use super::names::positions_of;

/// A source that a user's own [`Receiver`] feeds, with its options; for
/// [`StreamingContext::receiver`](super::StreamingContext::receiver).
///
/// ```
/// use tidemill::source::RateLimits;
/// use tidemill::{Config, ReceiverHandle, ReceiverSource, StreamingContext, testing::ManualClock};
///
/// let ctx = StreamingContext::with_clock(Config::new("doc"), ManualClock::new())?;
/// let source = ReceiverSource::new(|handle: &ReceiverHandle| handle.store(b"to be"))
///     .named("play")
///     .record_bytes_max(64 << 10)
///     .rate(RateLimits { backpressure: true, ..RateLimits::default() })
///     .rate_max(50_000);
/// ctx.receiver(source)?.count().print(1);
/// # Ok::<(), tidemill::Error>(())
/// ```
#[derive(Clone)]
pub struct ReceiverSource {
    name: Option<String>,
    receiver: ReceiverSlot,
    record_bytes_max: usize,
    rate: RateLimits,
}

impl std::fmt::Debug for ReceiverSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReceiverSource").field("name", &self.name).finish_non_exhaustive()
    }
}

impl ReceiverSource {
    /// Creates a source that runs this receiver, with no rate limit and records of at most 1 MiB. Clones of the source share the
    /// receiver, which only one running stream can have.
    pub fn new(receiver: impl Receiver + 'static) -> Self {
        ReceiverSource {
            name: None,
            receiver: Arc::new(Mutex::new(Some(Box::new(receiver)))),
            record_bytes_max: RECORD_BYTES_MAX,
            rate: RateLimits::default(),
        }
    }

    /// Sets the source's name in messages, reports and the state directory; `sourceN` by default, where N is its number, from 0.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets the most bytes of a record; 1 MiB by default. A longer one is dropped and counted as `overlong`.
    pub fn record_bytes_max(mut self, bytes: usize) -> Self {
        self.record_bytes_max = bytes;
        self
    }

    /// Sets the most records per second that the receiver may store; by default there is no limit, and zero counts as one.
    /// [`store`](crate::ReceiverHandle::store) waits beyond it.
    pub fn rate_max(mut self, records: u64) -> Self {
        self.rate.max = Some(records.max(1));
        self
    }

    /// Sets every bound of the rate at once; a later [`rate_max`](ReceiverSource::rate_max) changes the highest one.
    pub fn rate(mut self, limits: RateLimits) -> Self {
        self.rate = limits;
        self
    }
}

/// A source with its name; its number is its place.
pub(super) struct Added {
    pub(super) name: String,
    pub(super) kind: Kind,
}

/// Where the records of a source come from.
pub(super) enum Kind {
    Socket(SocketSource),
    Receiver(ReceiverSource),
    Direct { name: Option<String>, source: Arc<dyn DirectSource> },
}

impl Kind {
    /// The name it was given, if any.
    pub(super) fn name(&self) -> Option<&str> {
        match self {
            Kind::Socket(source) => source.name.as_deref(),
            Kind::Receiver(source) => source.name.as_deref(),
            Kind::Direct { name, .. } => name.as_deref(),
        }
    }
}

/// What a source is started with.
pub(super) enum Start {
    Socket(SocketOptions),
    Receiver(CustomOptions),
    Direct(DirectOptions),
}

/// What a direct source is started with, and by what name and number.
pub(super) struct DirectOptions {
    pub(super) name: String,
    pub(super) number: u32,
    pub(super) source: Arc<dyn DirectSource>,
    pub(super) ends: When,
}

impl DirectOptions {
    /// What the source is told when the stream starts.
    pub(super) fn direct_start(&self, events: &EventBus, clock: &Arc<dyn Clock>) -> DirectStart {
        DirectStart {
            source: self.name.clone(),
            events: events.clone(),
            counters: Arc::default(),
            until_eof: self.ends == When::Eof,
            clock: Arc::clone(clock),
        }
    }
}

impl Start {
    /// Its options, if it is direct.
    pub(super) fn direct(&self) -> Option<&DirectOptions> {
        match self {
            Start::Direct(options) => Some(options),
            Start::Socket(_) | Start::Receiver(_) => None,
        }
    }

    /// Whether it has no receiver.
    pub(super) fn is_direct(&self) -> bool {
        matches!(self, Start::Direct(_))
    }

    /// The source's name.
    pub(super) fn name(&self) -> &str {
        match self {
            Start::Socket(options) => &options.source,
            Start::Receiver(options) => &options.source,
            Start::Direct(options) => &options.name,
        }
    }

    /// Longer records are dropped on their way to the log.
    pub(super) fn record_bytes_max(&self) -> usize {
        match self {
            Start::Socket(options) => options.record_bytes_max,
            Start::Receiver(options) => options.record_bytes_max,
            // Its records are never in the log.
            Start::Direct(_) => 0,
        }
    }

    /// Its options, if it is a socket.
    pub(super) fn socket(&self) -> Option<&SocketOptions> {
        match self {
            Start::Socket(options) => Some(options),
            Start::Receiver(_) | Start::Direct(_) => None,
        }
    }

    /// Whether the source ends by itself.
    pub(super) fn ends(&self) -> When {
        match self {
            Start::Socket(options) => options.ends,
            Start::Receiver(options) => options.ends,
            Start::Direct(options) => options.ends,
        }
    }
}

impl Added {
    /// Its name for the log, and what the log holds of it.
    pub(super) fn wanted(&self) -> Wanted {
        let what = match &self.kind {
            Kind::Socket(_) | Kind::Receiver(_) => "received records".to_owned(),
            Kind::Direct { source, .. } => positions_of(source.kind()),
        };
        Wanted { name: self.name.clone(), what, generated: self.kind.name().is_none() }
    }

    pub(super) fn start(&self, number: u32, config: &Resolved, limits: RunLimits) -> Start {
        let ends = if limits.until_eof { When::Eof } else { When::Never };
        match &self.kind {
            Kind::Socket(source) => Start::Socket(self.socket(number, source, config, limits)),
            Kind::Receiver(source) => Start::Receiver(CustomOptions {
                source: self.name.clone(),
                number,
                receiver: Arc::clone(&source.receiver),
                record_bytes_max: source.record_bytes_max,
                block_interval: config.block_interval,
                block_bytes_max: config.block_bytes_max,
                ends,
                rate: rate_options(source.rate),
            }),
            Kind::Direct { source, .. } => Start::Direct(DirectOptions {
                name: self.name.clone(),
                number,
                source: Arc::clone(source),
                ends,
            }),
        }
    }

    fn socket(
        &self,
        number: u32,
        source: &SocketSource,
        config: &Resolved,
        limits: RunLimits,
    ) -> SocketOptions {
        let source = source.clone();
        let connections_max = source.io_model.row().connections_max;
        SocketOptions {
            source: self.name.clone(),
            number,
            direction: source.direction,
            names: Names::of_system(),
            io_model: source.io_model,
            framing: source.framing,
            ack: match source.ack {
                Ack::Received => AckAt::Queued,
                Ack::Log => AckAt::Durable,
                Ack::Batch => AckAt::Committed,
            },
            dead_letter: source.dead_letter.filter(|_| source.framing.acknowledges()),
            record_bytes_max: source.record_bytes_max,
            connections_max: source.connections_max.unwrap_or(connections_max),
            pool_threads: source.pool_threads,
            reactors: source.reactors.unwrap_or_else(cores),
            block_interval: config.block_interval,
            block_bytes_max: config.block_bytes_max,
            rate: rate_options(source.rate),
            ends: if limits.until_eof || !source.dials_again { When::Eof } else { When::Never },
        }
    }
}

/// No limit, a fixed one, or one that follows the batches.
pub(super) fn rate_options(limits: RateLimits) -> Option<RateOptions> {
    let RateLimits { max, backpressure, initial, min } = limits;
    let most = max.unwrap_or(u64::MAX);
    match (backpressure, max) {
        (true, _) => {
            let follows = Some((min.min(most), most));
            Some(RateOptions { initial: initial.min(most), follows })
        }
        (false, Some(max)) => Some(RateOptions { initial: max, follows: None }),
        (false, None) => None,
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
