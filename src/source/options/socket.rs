//! The source `socket`: TCP peers. Its options, with the defaults of pipeline files, as the library and a pipeline file give
//! them; what else it is started with comes from the stream.

use std::path::PathBuf;

use crate::framing::Framing;
use crate::settings::diagnostics::Problem;
use crate::settings::key::Key;
use crate::settings::pattern::Pattern;
use crate::settings::section::{Section, address};
use crate::settings::units::Address;
use crate::source::Direction;
use crate::source::io::IoModel;

use super::{
    FRAMING, IO_MODEL, RECORD_BYTES, RECORD_BYTES_MAX, Source, SourceRow, read_framing,
    read_io_model, read_record_bytes,
};

/// Threads that read in the io model `pool`, by default.
const POOL_THREADS: usize = 64;
const RATE_MIN: u64 = 100;
const INITIAL_RATE: u64 = 10_000;

/// Its row.
pub(super) const ROW: SourceRow = SourceRow {
    name: "socket",
    about: "Records from TCP peers, which are dialled or dial in.",
    keys: &[
        Key {
            name: "connect",
            takes: "a list of `HOST:PORT`",
            default: "",
            about: "The servers that are dialled; or `listen`.",
        },
        Key {
            name: "listen",
            takes: "`ADDR:PORT`",
            default: "",
            about: "The address where peers dial in; or `connect`.",
        },
        IO_MODEL,
        FRAMING,
        Key {
            name: "connections_max",
            takes: "1 to 1000000",
            default: "what the io model takes",
            about: "The most connections at once.",
        },
        Key {
            name: "ack",
            takes: "`log`, `received` or `batch`",
            default: "log",
            about: "The moment at which a record is acknowledged.",
        },
        RECORD_BYTES,
        Key {
            name: "pool_threads",
            takes: "1 to 10000",
            default: "64",
            about: "The threads of the io model `pool`.",
        },
        Key {
            name: "reactor_threads",
            takes: "1 to 1000",
            default: "cores",
            about: "The event loops of the io model `reactors`.",
        },
        Key {
            name: "rate_max",
            takes: "a number",
            default: "none",
            about: "The most records per second.",
        },
        Key {
            name: "backpressure",
            takes: "`true` or `false`",
            default: "false",
            about: "The rate follows what batches can process.",
        },
        Key {
            name: "initial_rate",
            takes: "a number",
            default: "10000, at most `rate_max`",
            about: "The rate before the first batch.",
        },
        Key {
            name: "rate_min",
            takes: "a number",
            default: "100, at most `rate_max`",
            about: "The lowest rate of `backpressure`.",
        },
        Key {
            name: "identity",
            takes: "a regular expression",
            default: "none",
            about: "Finds `sender` and `number`, by which repeats are left out.",
        },
        Key {
            name: "dead_letter",
            takes: "a path",
            default: "none",
            about: "The directory of over-long records that are acknowledged.",
        },
    ],
    example: "[source.NAME.socket]\nlisten = \"127.0.0.1:5514\"",
    read,
};

/// A source of TCP peers, which are dialled or dial in; for [`StreamingContext::socket`](crate::StreamingContext::socket). The
/// fields are those of the pipeline file; the methods of the same names set them.
///
/// A dialled server is dialled again after every end of its connection, after 100 ms at first and up to 10 s. Bytes of plain TCP
/// that are not yet in the log when the process dies are lost; a framing that acknowledges loses none that it acknowledged.
///
/// ```
/// use tidemill::source::{Framing, RateLimits};
/// use tidemill::{Config, IoModel, SocketSource, StreamingContext, testing::ManualClock};
///
/// let ctx = StreamingContext::with_clock(Config::new("doc"), ManualClock::new())?;
/// let source = SocketSource::listen("0.0.0.0:5514")
///     .named("syslog")
///     .framing(Framing::Syslog)
///     .io_model(IoModel::Reactors)
///     .reactors(2)
///     .connections_max(500)
///     .record_bytes_max(64 << 10)
///     .rate(RateLimits { initial: 5_000, ..RateLimits::default() })
///     .rate_max(50_000)
///     .backpressure(true);
/// ctx.socket_text(source)?.count().print(1);
/// let server = SocketSource::connect(["10.0.0.1:9999", "10.0.0.2:9999"]).io_model(IoModel::Pool);
/// ctx.socket(server.pool_threads(16).once())?.count().print(1);
/// # Ok::<(), tidemill::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketSource {
    /// The side that begins a connection, and the addresses.
    pub direction: Direction,
    /// The way sockets are read; nio by default.
    pub io_model: IoModel,
    /// The way bytes are cut into records; lines by default.
    pub framing: Framing,
    /// The moment at which a record is acknowledged to its peer; after the sync of the log by default. Without effect if the
    /// framing does not acknowledge.
    pub ack: Ack,
    /// The directory where over-long records of a framing that acknowledges go, whole; none by default, and then they are
    /// shortened.
    pub dead_letter: Option<PathBuf>,
    /// An expression that finds the sender (group `sender`) and its number (group `number`) in a record; none by default.
    pub identity: Option<Pattern>,
    /// The most bytes of a record; a longer one is dropped and counted. 1 MiB by default.
    pub record_bytes_max: usize,
    /// The most connections at once; by default what the row of the io model says, 10,000 or 1,000.
    pub connections_max: Option<usize>,
    /// Threads of the io model `pool`; 64 by default.
    pub pool_threads: usize,
    /// Event loops of the io model `reactors`; one for each core if none is given.
    pub reactors: Option<usize>,
    /// The name in messages and reports; `sourceN` by default.
    pub name: Option<String>,
    /// Dials again when its peer closes; true by default. Otherwise the source ends then.
    pub dials_again: bool,
    /// The bounds of the rate; none by default.
    pub rate: RateLimits,
}

/// The bounds of a source's rate, in records per second. By default there is none.
///
/// ```
/// use tidemill::SocketSource;
/// use tidemill::source::RateLimits;
///
/// let limits = RateLimits { max: Some(50_000), backpressure: true, ..RateLimits::default() };
/// assert_eq!((limits.initial, limits.min), (10_000, 100));
/// let source = SocketSource::connect(["127.0.0.1:9999"]).rate(limits);
/// assert_eq!(source.rate.max, Some(50_000));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimits {
    /// The highest rate; none by default.
    pub max: Option<u64>,
    /// The rate follows what batches can process; false by default, and then `initial` and `min` have no effect.
    pub backpressure: bool,
    /// The rate before the first batch; 10,000 by default, and never more than `max`.
    pub initial: u64,
    /// The lowest rate that back-pressure sets; 100 by default, and never more than `max`.
    pub min: u64,
}

/// The moment at which a record is acknowledged to its peer, by a framing that acknowledges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ack {
    /// After the sync of the log: an acknowledged record is never lost. It needs a state directory.
    #[default]
    Log,
    /// As soon as it was read: what is in memory when the process dies is lost.
    Received,
    /// When its batch is done: without a state directory the peer sends again what a crash lost, once it connects again.
    Batch,
}

impl Default for RateLimits {
    /// No limit; 10,000 to begin with and at least 100 if backpressure is switched on.
    fn default() -> Self {
        RateLimits { max: None, backpressure: false, initial: INITIAL_RATE, min: RATE_MIN }
    }
}

impl SocketSource {
    /// Creates a source that dials these `HOST:PORT`s, again and again with bounded back-off when they do not answer or go away.
    /// Names are looked up anew for each dial.
    pub fn connect<S: Into<String>>(addresses: impl IntoIterator<Item = S>) -> Self {
        SocketSource::new(Direction::Connect(addresses.into_iter().map(Into::into).collect()))
    }

    /// Creates a source that listens on `ADDR:PORT`. Port 0 takes a free one, see
    /// [`StreamHandle::local_addrs`](crate::StreamHandle::local_addrs).
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

    /// Sets the highest rate at which records are read, per second; none by default, and zero counts as one.
    pub fn rate_max(mut self, records: u64) -> Self {
        self.rate.max = Some(records.max(1));
        self
    }

    /// Lets the rate follow what batches can process; off by default. The rate starts at the lesser of the highest one and
    /// 10,000 records per second and never falls below the lesser of the highest one and 100.
    pub fn backpressure(mut self, follow: bool) -> Self {
        self.rate.backpressure = follow;
        self
    }

    /// Sets every bound of the rate at once.
    pub fn rate(mut self, limits: RateLimits) -> Self {
        self.rate = limits;
        self
    }

    /// Sets the way sockets are read; `nio` by default. A system that cannot run `aio` uses `nio` and says so, as
    /// [`Event::IoModelFallback`](crate::Event::IoModelFallback).
    pub fn io_model(mut self, model: IoModel) -> Self {
        self.io_model = model;
        self
    }

    /// Sets the way bytes are cut into records; lines by default.
    pub fn framing(mut self, framing: Framing) -> Self {
        self.framing = framing;
        self
    }

    /// Sets the moment at which a record is acknowledged to its peer, if the framing acknowledges; by default after the sync of
    /// the log, which needs a state directory.
    ///
    /// ```
    /// use tidemill::source::{Ack, Framing};
    /// # use tidemill::{Config, Error, SocketSource, StreamingContext, testing::ManualClock};
    /// # let ctx = StreamingContext::with_clock(Config::new("doc"), ManualClock::new())?;
    /// let relp = SocketSource::listen("0.0.0.0:2514").framing(Framing::Relp);
    /// assert!(matches!(ctx.socket(relp.clone()), Err(Error::Usage(_))), "there is no log");
    /// ctx.socket(relp.ack(Ack::Batch))?.count().print(1);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn ack(mut self, ack: Ack) -> Self {
        self.ack = ack;
        self
    }

    /// Sets a directory for over-long records of a framing that acknowledges: each is kept there whole, in a file of its own,
    /// and acknowledged once that is durable. Without it they are shortened.
    ///
    /// ```
    /// use tidemill::SocketSource;
    /// use tidemill::source::Framing;
    ///
    /// let relp = SocketSource::listen("0.0.0.0:2514").framing(Framing::Relp).dead_letter("/var/lib/long");
    /// assert!(relp.dead_letter.is_some());
    /// ```
    pub fn dead_letter(mut self, directory: impl Into<PathBuf>) -> Self {
        self.dead_letter = Some(directory.into());
        self
    }

    /// Sets an expression by which repeats are recognised and left out, an [`Identity`](crate::stream::Identity): what a sender
    /// sends again after a broken link because it did not learn that it had arrived. A sender's numbers must never begin anew
    /// under the same name.
    ///
    /// ```
    /// use tidemill::SocketSource;
    /// use tidemill::config::Pattern;
    ///
    /// let identity = Pattern::new(r"^\S+ (?<sender>\w+) .* seq=(?<number>\d+)").expect("an expression");
    /// let source = SocketSource::listen("0.0.0.0:2514").identity(identity);
    /// assert!(source.identity.is_some());
    /// ```
    pub fn identity(mut self, identity: impl Into<Pattern>) -> Self {
        self.identity = Some(identity.into());
        self
    }

    /// Sets the most bytes of a record, 1 MiB by default. A longer one is dropped and counted, or shortened if the framing
    /// acknowledges.
    pub fn record_bytes_max(mut self, bytes: usize) -> Self {
        self.record_bytes_max = bytes;
        self
    }

    /// Sets the most connections at once; by default 10,000, or 1,000 for `bio`. Further peers are turned away and counted. It
    /// is lowered, with an event, where the process may not have as many files open.
    pub fn connections_max(mut self, connections: usize) -> Self {
        self.connections_max = Some(connections);
        self
    }

    /// Sets the number of threads that read in the io model `pool`; 64 by default, and zero counts as one. A connection occupies
    /// one until it ends; further ones wait unread.
    pub fn pool_threads(mut self, threads: usize) -> Self {
        self.pool_threads = threads.max(1);
        self
    }

    /// Sets the number of event loops of the io model `reactors`; by default one for each core, and zero counts as one.
    pub fn reactors(mut self, reactors: usize) -> Self {
        self.reactors = Some(reactors.max(1));
        self
    }

    /// Sets the source's name in messages, reports and the state directory; `sourceN` by default, where N is its number, from 0.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Ends the source when its peer closes, instead of dialling again.
    pub fn once(mut self) -> Self {
        self.dials_again = false;
        self
    }

    /// The address that it listens on, if it does and that is one.
    pub(crate) fn listen_address(&self) -> Option<Address> {
        match &self.direction {
            Direction::Listen(address) => Address::parse(address).ok(),
            Direction::Connect(_) => None,
        }
    }
}

fn read(section: &mut Section<'_>) -> Option<Source> {
    let direction = read_direction(section);
    let io_model = read_io_model(section);
    let framing = read_framing(section);
    let connections_max = section.number("connections_max", 1..=1_000_000);
    let connections_max = connections_max.map(|found| found.value);
    check_acknowledging(section, framing);
    let acks = [("log", Ack::Log), ("received", Ack::Received), ("batch", Ack::Batch)];
    // A wrong value is an error already; taken for the default it would be a second one.
    let otherwise = if section.has("ack") { Ack::Received } else { Ack::Log };
    let ack = section.choice("ack", "time to acknowledge", &acks).map_or(otherwise, |f| f.value);
    let record_bytes_max = read_record_bytes(section);
    let pool_threads = section.number("pool_threads", 1..=10_000).map_or(POOL_THREADS, |f| f.value);
    let reactors = section.number("reactor_threads", 1..=1_000).map(|found| found.value);
    let rate = read_rate(section);
    let identity = read_identity(section);
    let dead_letter = section.path("dead_letter");
    Some(Source::Socket(SocketSource {
        io_model,
        framing,
        record_bytes_max,
        connections_max,
        pool_threads,
        reactors,
        rate,
        ack,
        identity,
        dead_letter,
        ..SocketSource::new(direction?)
    }))
}

/// Peers of a framing that acknowledges dial in; without one there is nobody to acknowledge to.
fn check_acknowledging(section: &Section<'_>, framing: Framing) {
    let problems = section.problems;
    if framing.acknowledges() {
        if section.has("connect") {
            let title = format!("peers that speak `{}` dial in", framing.name());
            let problem = Problem::new(&section.key_at("connect"), title);
            problems.add(problem.hint("write `listen = \"127.0.0.1:2514\"`"));
        }
        return;
    }
    for key in ["ack", "dead_letter"].into_iter().filter(|key| section.has(key)) {
        let why = "needs a framing that acknowledges";
        let title = format!("`{key}` {why}: `{}` does not", framing.name());
        let problem = Problem::new(&section.key_at(key), title);
        problems.add(problem.hint("write `framing = \"relp\"`, or leave it out"));
    }
}

fn read_direction(section: &mut Section<'_>) -> Option<Direction> {
    let problems = section.problems;
    let (given_connect, given_listen) = (section.has("connect"), section.has("listen"));
    let connect = section.texts("connect");
    let listen = section.address("listen");
    match (given_connect, given_listen) {
        (true, true) => {
            let title = "a `socket` source takes `connect` or `listen`, not both";
            let problem = Problem::new(&section.key_at("listen"), title).label("the second");
            problems.add(problem.also(&section.key_at("connect"), "the first"));
            None
        }
        (false, false) => {
            let title = "a `socket` source needs `connect` or `listen`";
            let hint = "write `connect = [\"127.0.0.1:9999\"]` or `listen = \"127.0.0.1:5514\"`";
            problems.add(Problem::new(&section.at, title).hint(hint));
            None
        }
        (true, false) => {
            let read = |found| {
                let address = address("connect", &found, problems)?;
                if address.port == 0 {
                    problems.add(Problem::new(&found.at, "port 0 cannot be dialled"));
                }
                Some(address.to_string())
            };
            Some(Direction::Connect(connect?.into_iter().filter_map(read).collect()))
        }
        (false, true) => listen.map(|found| Direction::Listen(found.value.to_string())),
    }
}

fn read_rate(section: &mut Section<'_>) -> RateLimits {
    let rates = 1..=u64::MAX;
    let max = section.number("rate_max", rates.clone()).map(|found| found.value);
    let backpressure = section.truth("backpressure").unwrap_or(false);
    let initial = section.number("initial_rate", rates.clone());
    let min = section.number("rate_min", rates);
    if let Some(max) = max {
        for (key, given) in [("initial_rate", &initial), ("rate_min", &min)] {
            if let Some(given) = given.as_ref().filter(|given| given.value > max) {
                let title = format!("`{key}` is {}, more than `rate_max`, {max}", given.value);
                section.problems.add(Problem::new(&given.at, title));
            }
        }
    }
    let least = max.unwrap_or(u64::MAX);
    RateLimits {
        max,
        backpressure,
        initial: initial.map_or(INITIAL_RATE.min(least), |found| found.value),
        min: min.map_or(RATE_MIN.min(least), |found| found.value),
    }
}

fn read_identity(section: &mut Section<'_>) -> Option<Pattern> {
    let found = section.pattern("identity")?;
    let names: Vec<_> = found.value.regex().capture_names().flatten().collect();
    if !names.contains(&"sender") || !names.contains(&"number") {
        let problem = Problem::new(&found.at, "`identity` needs the groups `sender` and `number`");
        section.problems.add(problem.hint(r"write them as `(?<sender>\S+) (?<number>\d+)`"));
        return None;
    }
    Some(found.value)
}
