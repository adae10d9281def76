//! `SocketSource`: what a program says of a source that reads sockets. Plain data, made on the caller's thread; opens nothing,
//! and knows neither the context nor how the source is started.

use crate::config::{self, Ack, Peers, RateLimits};
use crate::framing::Framing;
use crate::source::Direction;
use crate::source::io::IoModel;
use crate::stream::Identity;

/// The longest record by default, in bytes.
pub(super) const RECORD_BYTES_MAX: usize = 1 << 20;

/// Threads that read in the io model `pool`, by default.
const POOL_THREADS: usize = 64;

/// A socket source, with the defaults of the pipeline file.
#[derive(Clone, Debug)]
pub struct SocketSource {
    pub(super) direction: Direction,
    pub(super) io_model: IoModel,
    pub(super) framing: Framing,
    pub(super) ack: Ack,
    pub(super) dead_letter: Option<std::path::PathBuf>,
    pub(super) identity: Option<Identity>,
    pub(super) record_bytes_max: usize,
    pub(super) connections_max: Option<usize>,
    pub(super) pool_threads: usize,
    pub(super) reactors: Option<usize>,
    pub(super) name: Option<String>,
    pub(super) dials_again: bool,
    pub(super) rate: RateLimits,
}

impl SocketSource {
    /// Dials these `HOST:PORT`s, again and again with bounded back-off when they do not answer or go away.
    pub fn connect<S: Into<String>>(addresses: impl IntoIterator<Item = S>) -> Self {
        SocketSource::new(Direction::Connect(addresses.into_iter().map(Into::into).collect()))
    }

    /// Listens on `ADDR:PORT`; port 0 takes a free one, see [`StreamHandle::local_addrs`](super::StreamHandle::local_addrs).
    pub fn listen(address: impl Into<String>) -> Self {
        SocketSource::new(Direction::Listen(address.into()))
    }

    fn new(direction: Direction) -> Self {
        SocketSource {
            direction,
            io_model: IoModel::Nio,
            framing: Framing::Lines,
            ack: Ack::Log,
            dead_letter: None,
            identity: None,
            record_bytes_max: RECORD_BYTES_MAX,
            connections_max: None,
            pool_threads: POOL_THREADS,
            reactors: None,
            name: None,
            dials_again: true,
            rate: RateLimits::default(),
        }
    }

    /// The highest rate at which records are read, per second; none by default.
    pub fn rate_max(mut self, records: u64) -> Self {
        self.rate.max = Some(records.max(1));
        self
    }

    /// Lets the rate follow what batches can process; off by default. The rate starts at the lesser of the highest one
    /// and 10,000 records per second and never falls below the lesser of the highest one and 100.
    pub fn backpressure(mut self, follow: bool) -> Self {
        self.rate.backpressure = follow;
        self
    }

    /// All about the source's rate at once.
    pub fn rate(mut self, limits: RateLimits) -> Self {
        self.rate = limits;
        self
    }

    /// The way sockets are read; `nio` by default.
    pub fn io_model(mut self, model: IoModel) -> Self {
        self.io_model = model;
        self
    }

    /// How bytes are cut into records; lines by default.
    pub fn framing(mut self, framing: Framing) -> Self {
        self.framing = framing;
        self
    }

    /// When a record is acknowledged to its peer, if the framing acknowledges; by default after the sync of the log, which
    /// needs a directory for its state.
    pub fn ack(mut self, ack: Ack) -> Self {
        self.ack = ack;
        self
    }

    /// A directory for over-long records of a framing that acknowledges: each is kept there whole, in a file of its own, and
    /// acknowledged once that is durable. Without it they are shortened.
    pub fn dead_letter(mut self, directory: impl Into<std::path::PathBuf>) -> Self {
        self.dead_letter = Some(directory.into());
        self
    }

    /// By which repeats are recognised and left out: what a sender sends again after a broken link because it did not learn
    /// that it had arrived. A sender's numbers must never begin anew under the same name.
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// Longer records are dropped and counted, or shortened if the framing acknowledges; 1 MiB by default.
    pub fn record_bytes_max(mut self, bytes: usize) -> Self {
        self.record_bytes_max = bytes;
        self
    }

    /// Connections at once at most; by default what the io model's row in `IO_MODELS` says.
    pub fn connections_max(mut self, connections: usize) -> Self {
        self.connections_max = Some(connections);
        self
    }

    /// How many threads read in the io model `pool`; 64 by default. A connection occupies one until it ends.
    pub fn pool_threads(mut self, threads: usize) -> Self {
        self.pool_threads = threads.max(1);
        self
    }

    /// How many event loops the io model `reactors` has; by default one for each core.
    pub fn reactors(mut self, reactors: usize) -> Self {
        self.reactors = Some(reactors.max(1));
        self
    }

    /// The source's name in messages and reports; `sourceN` by default.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Ends the source when its peer closes, instead of dialling again.
    pub fn once(mut self) -> Self {
        self.dials_again = false;
        self
    }
}

impl From<&config::SocketSource> for SocketSource {
    fn from(source: &config::SocketSource) -> Self {
        let peers = match &source.peers {
            Peers::Connect(addresses) => {
                SocketSource::connect(addresses.iter().map(ToString::to_string))
            }
            Peers::Listen(address) => SocketSource::listen(address.to_string()),
        };
        let peers = match source.reactor_threads {
            Some(threads) => peers.reactors(threads),
            None => peers,
        };
        let peers = source.dead_letter.iter().fold(peers, SocketSource::dead_letter);
        let identity =
            source.identity.as_ref().and_then(|found| Identity::new(found.regex().clone()));
        let peers = identity.into_iter().fold(peers, SocketSource::identity);
        peers
            .io_model(source.io_model)
            .framing(source.framing)
            .ack(source.ack)
            .record_bytes_max(source.record_bytes_max)
            .connections_max(source.connections_max)
            .rate(source.rate)
            .pool_threads(source.pool_threads)
    }
}
