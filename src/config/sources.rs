//! Sources of a pipeline: where records come from. Plain data, and how it is read; opens nothing.

use std::path::PathBuf;

use crate::framing::{FRAMINGS, Framing};
use crate::load::LINE_LEN;
use crate::source::direct::OnLost;
use crate::source::direct::files::{self, BATCH_BYTES_MAX, OPEN_FILES_MAX, select};
use crate::source::io::{IO_MODELS, IoModel};

use super::Pattern;
use crate::settings::diagnostics::{Problem, Problems};
use crate::settings::section::{Found, Section, address};
use crate::settings::units::Address;

const RECORD_BYTES_MAX: usize = 1 << 20;
const POOL_THREADS: usize = 64;
const RATE_MIN: u64 = 100;
const INITIAL_RATE: u64 = 10_000;
const WORDS: usize = 1_000;
/// The longest line that is generated, and the longest record that is accepted, in bytes.
const RECORD_BYTES_LIMIT: usize = 1 << 30;

/// Where records come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// TCP peers.
    Socket(SocketSource),
    /// The embedded data server, dialled like any other.
    Generate(GenerateSource),
    /// Files of a directory.
    Files(FilesSource),
}

/// Who begins a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peers {
    /// The engine dials these data servers; at least one.
    Connect(Vec<Address>),
    /// Peers dial in here.
    Listen(Address),
}

/// Records from TCP peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketSource {
    /// Who begins a connection.
    pub peers: Peers,
    /// How sockets are read; nio by default.
    pub io_model: IoModel,
    /// How bytes are cut into records; lines by default.
    pub framing: Framing,
    /// A longer record is dropped and counted; 1 MiB by default.
    pub record_bytes_max: usize,
    /// The most connections at a time; by default what the io model's row says.
    pub connections_max: usize,
    /// Threads of the io model `pool`; 64 by default.
    pub pool_threads: usize,
    /// Event loops of the io model `reactors`; one for each core if none is given.
    pub reactor_threads: Option<usize>,
    /// Bounds of the rate.
    pub rate: RateLimits,
    /// When a record is acknowledged to its peer.
    pub ack: Ack,
    /// Finds the sender (group `sender`) and its number (group `number`) in a record.
    pub identity: Option<Pattern>,
    /// The directory where over-long records of a framing that acknowledges go, whole.
    pub dead_letter: Option<PathBuf>,
}

/// Bounds of a source's rate, in records per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimits {
    /// The highest rate.
    pub max: Option<u64>,
    /// Whether the rate follows what batches can process; false by default.
    pub backpressure: bool,
    /// The rate before the first batch; the lesser of `max` and 10,000 by default.
    pub initial: u64,
    /// The lowest rate that backpressure sets; 100 by default.
    pub min: u64,
}

/// When a record is acknowledged to its peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ack {
    /// After the sync of the log.
    #[default]
    Log,
    /// As soon as it was read.
    Received,
    /// When its batch is committed.
    Batch,
}

/// Records made by the embedded data server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GenerateSource {
    /// Lines per second; as many as possible if none.
    pub rate: Option<u64>,
    /// Lines in all; without an end if none, unless a file is replayed.
    pub records: Option<u64>,
    /// Mean bytes of a line with its line feed; 100 by default.
    pub line_len: usize,
    /// Different words; 1,000 by default.
    pub words: usize,
    /// The seed of the words; 1 by default.
    pub seed: u64,
    /// A file whose lines are replayed once instead.
    pub file: Option<PathBuf>,
    /// How the data server is read; nio by default.
    pub io_model: IoModel,
}

impl Default for RateLimits {
    /// No limit; 10,000 to begin with and at least 100 if backpressure is switched on.
    fn default() -> Self {
        RateLimits { max: None, backpressure: false, initial: INITIAL_RATE, min: RATE_MIN }
    }
}

impl GenerateSource {
    /// Whether it ends by itself.
    pub fn ends(&self) -> bool {
        self.records.is_some() || self.file.is_some()
    }
}

/// Records from the files of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilesSource {
    /// The directory.
    pub directory: PathBuf,
    /// How bytes are cut into records; lines by default.
    pub framing: Framing,
    /// A longer record is dropped and counted; 1 MiB by default.
    pub record_bytes_max: usize,
    /// A batch takes about so many bytes at most; 256 MiB by default.
    pub batch_bytes_max: u64,
    /// What happens when input is lost that was never processed; the stream stops by default.
    pub on_lost: OnLost,
    /// Globs of the names that are read, which the default `exclude` is not for; all if none are given.
    pub include: Option<Vec<String>>,
    /// Globs of the names that are passed over; [`EXCLUDED`](crate::source::direct::files::select::EXCLUDED) if none are given.
    pub exclude: Option<Vec<String>>,
    /// Whether what symbolic links lead to is read; true by default.
    pub follow_links: bool,
    /// Whether line feeds are escaped in the lines; false by default.
    pub unescape: bool,
    /// Files that stay open from batch to batch; 256 by default.
    pub open_files_max: usize,
}

impl From<&FilesSource> for files::FilesSource {
    fn from(source: &FilesSource) -> Self {
        let mut files = files::FilesSource::new(&source.directory)
            .framing(source.framing)
            .record_bytes_max(source.record_bytes_max)
            .batch_bytes_max(source.batch_bytes_max)
            .on_lost(source.on_lost)
            .follow_links(source.follow_links)
            .unescape(source.unescape)
            .open_files_max(source.open_files_max);
        // A pipeline file whose globs are none is refused before.
        if let Some(globs) = &source.include {
            files = files.include(globs).expect("globs");
        }
        if let Some(globs) = &source.exclude {
            files = files.exclude(globs).expect("globs");
        }
        files
    }
}

/// Reads `[source.NAME]`; none if it is wrong.
pub(super) fn read(mut section: Section<'_>) -> Option<Source> {
    let socket = section.table("socket", "a `socket` source");
    let generate = section.table("generate", "a `generate` source");
    let files = section.table("files", "a `files` source");
    let (problems, at, empty) = (section.problems, section.at.clone(), section.is_empty());
    section.of_kinds().finish();
    match (socket, generate, files) {
        (Some(section), None, None) => read_socket(section).map(Source::Socket),
        (None, Some(section), None) => Some(Source::Generate(read_generate(section))),
        (None, None, Some(section)) => read_files(section).map(Source::Files),
        (None, None, None) => {
            if empty {
                let problem = Problem::new(&at, "a source needs a kind").label("no kind");
                problems.add(problem.hint("write `[source.NAME.socket]`, `.generate` or `.files`"));
            }
            None
        }
        _ => {
            problems.add(Problem::new(&at, "a source has one kind").label("more than one kind"));
            None
        }
    }
}

fn io_model(section: &mut Section<'_>) -> IoModel {
    let choices: Vec<_> = IO_MODELS.iter().map(|row| (row.name, row.model)).collect();
    section.choice("io_model", "io model", &choices).map_or(IoModel::Nio, |found| found.value)
}

fn framing(section: &mut Section<'_>) -> Framing {
    let choices: Vec<_> = FRAMINGS.iter().map(|row| (row.name, row.framing)).collect();
    section.choice("framing", "framing", &choices).map_or(Framing::Lines, |found| found.value)
}

fn read_socket(mut section: Section<'_>) -> Option<SocketSource> {
    let peers = read_peers(&mut section);
    let io_model = io_model(&mut section);
    let framing = framing(&mut section);
    let connections = io_model.row().connections_max;
    let connections_max = section.number("connections_max", 1..=1_000_000);
    check_acknowledging(&section, framing);
    let acks = [("log", Ack::Log), ("received", Ack::Received), ("batch", Ack::Batch)];
    // A wrong value is an error already; taken for the default it would be a second one.
    let otherwise = if section.has("ack") { Ack::Received } else { Ack::Log };
    let ack = section.choice("ack", "time to acknowledge", &acks).map_or(otherwise, |f| f.value);
    let source = SocketSource {
        peers: peers.clone().unwrap_or(Peers::Connect(Vec::new())),
        io_model,
        framing,
        record_bytes_max: read_record_bytes(&mut section),
        connections_max: connections_max.map_or(connections, |found| found.value),
        pool_threads: section.number("pool_threads", 1..=10_000).map_or(POOL_THREADS, |f| f.value),
        reactor_threads: section.number("reactor_threads", 1..=1_000).map(|found| found.value),
        rate: read_rate(&mut section),
        ack,
        identity: read_identity(&mut section),
        dead_letter: section.path("dead_letter"),
    };
    section.finish();
    peers.map(|_| source)
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
        let names = FRAMINGS.iter().filter(|row| row.acknowledges).map(|row| row.name);
        let names: Vec<_> = names.map(|name| format!("`framing = \"{name}\"`")).collect();
        problems.add(problem.hint(format!("write {}, or leave it out", names.join(" or "))));
    }
}

fn read_peers(section: &mut Section<'_>) -> Option<Peers> {
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
                Some(address)
            };
            Some(Peers::Connect(connect?.into_iter().filter_map(read).collect()))
        }
        (false, true) => listen.map(|found| Peers::Listen(found.value)),
    }
}

fn read_record_bytes(section: &mut Section<'_>) -> usize {
    let Some(found) = section.bytes("record_bytes_max") else { return RECORD_BYTES_MAX };
    match usize::try_from(found.value).ok().filter(|b| (1..=RECORD_BYTES_LIMIT).contains(b)) {
        Some(bytes) => bytes,
        None => {
            let problem = Problem::new(&found.at, "`record_bytes_max` must be 1B to 1GiB");
            section.problems.add(problem.label("out of range"));
            RECORD_BYTES_MAX
        }
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

fn read_generate(mut section: Section<'_>) -> GenerateSource {
    let source = GenerateSource {
        rate: section.number("rate", 1..=1_000_000_000).map(|found| found.value),
        records: section.number("records", 1..=u64::MAX).map(|found| found.value),
        line_len: section.number("line_len", 1..=RECORD_BYTES_LIMIT).map_or(LINE_LEN, |f| f.value),
        words: section.number("words", 1..=10_000_000).map_or(WORDS, |found| found.value),
        seed: section.number("seed", 0..=u64::MAX).map_or(1, |found| found.value),
        file: section.path("file"),
        io_model: io_model(&mut section),
    };
    if source.file.is_some() {
        for key in ["line_len", "words", "seed"].into_iter().filter(|key| section.has(key)) {
            let title = format!("`{key}` has no effect: the lines come from `file`");
            section.problems.add(Problem::warning(&section.key_at(key), title));
        }
    }
    section.finish();
    source
}

fn read_files(mut section: Section<'_>) -> Option<FilesSource> {
    let directory = section.path("directory");
    if !section.has("directory") {
        section.problems.add(Problem::new(&section.at, "a `files` source needs a `directory`"));
    }
    let source = FilesSource {
        directory: directory.clone().unwrap_or_default(),
        framing: framing(&mut section),
        record_bytes_max: read_record_bytes(&mut section),
        batch_bytes_max: read_batch_bytes(&mut section),
        on_lost: read_on_lost(&mut section),
        include: section.texts("include").map(|globs| read_globs(globs, section.problems)),
        exclude: section.texts_or_none("exclude").map(|globs| read_globs(globs, section.problems)),
        follow_links: section.truth("follow_links").unwrap_or(true),
        unescape: section.truth("unescape").unwrap_or(false),
        open_files_max: section
            .number("open_files_max", 0..=100_000)
            .map_or(OPEN_FILES_MAX, |found| found.value),
    };
    if source.unescape && !source.framing.is_lines() {
        let title = format!("`unescape` is for lines: `{}` needs none", source.framing.name());
        section.problems.add(Problem::new(&section.at_of("unescape"), title));
    }
    if source.framing.acknowledges() {
        let name = source.framing.name();
        let title = format!("`{name}` is a dialogue with a peer: files have none");
        section.problems.add(Problem::new(&section.at_of("framing"), title));
    }
    section.finish();
    directory.map(|_| source)
}

fn read_globs(globs: Vec<Found<String>>, problems: &Problems) -> Vec<String> {
    for glob in &globs {
        if let Err(why) = select::parse(&glob.value) {
            let problem = Problem::new(&glob.at, format!("`{}` is no glob", glob.value));
            problems.add(problem.label(why));
        }
    }
    globs.into_iter().map(|glob| glob.value).collect()
}

fn read_on_lost(section: &mut Section<'_>) -> OnLost {
    let ways = [("stop", OnLost::Stop), ("skip", OnLost::Skip)];
    section.choice("on_lost", "way to lose input", &ways).map_or(OnLost::Stop, |found| found.value)
}

fn read_batch_bytes(section: &mut Section<'_>) -> u64 {
    let Some(found) = section.bytes("batch_bytes_max") else { return BATCH_BYTES_MAX };
    if found.value == 0 {
        let problem = Problem::new(&found.at, "`batch_bytes_max` must be at least 1B");
        section.problems.add(problem.label("out of range"));
    }
    found.value
}
