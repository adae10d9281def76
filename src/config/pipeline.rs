//! `Pipeline`: everything that a pipeline file says, read and checked as a whole. The options of the command line go
//! the same way, as [`Setting`]s laid over the file or standing alone. Main thread; starts nothing.

mod links;
mod names;
mod options;
mod places;
mod summary;

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

use self::links::{
    Names, check_acknowledging, check_store, check_windows, link, values, warn_of_late_answers,
};
use self::names::Changes;
use self::options::read_config;
use super::given::GivenKeys;
use super::jobs::Job;
use super::log_level::{LOG_LEVELS, LogLevel};
use super::sinks;
use super::sources;
use super::{Config, Resolved, jobs};
use crate::settings::diagnostics::{At, Problem, Problems, Texts};
use crate::settings::section::Section;
use crate::settings::tree::{self, Setting, Table};
use crate::settings::units::{Address, Env, show_bytes};
use crate::sink::SinkKind;
use crate::source::Source;

/// The largest pipeline file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A pipeline, all of it good.
#[derive(Clone, Debug, PartialEq)]
pub struct Pipeline {
    /// The options of the stream; they resolve.
    pub config: Config,
    /// The directory of the log and the checkpoints.
    pub state_dir: Option<PathBuf>,
    /// The address of the HTTP server.
    pub http: Http,
    /// Host names that the HTTP server answers to besides the loopback ones.
    pub http_hosts: Vec<String>,
    /// Sources by name, in the order of the file.
    pub sources: Vec<(String, Source)>,
    /// Jobs by name, in the order of the file.
    pub jobs: Vec<(String, Job)>,
    /// Sinks by name, in the order of the file.
    pub sinks: Vec<(String, SinkKind)>,
    /// Warnings of what is probably not meant, ready to print.
    pub warnings: Vec<String>,
    /// The level of messages that are written; the command line may say otherwise.
    pub log_level: LogLevel,
    /// Every key that was given, so that a later reading can be compared.
    pub given: GivenKeys,
}

/// The address of the HTTP server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Http {
    /// On 127.0.0.1:4040, or the next free port.
    Default,
    /// Here.
    At(Address),
    /// Nowhere.
    Off,
}

impl Pipeline {
    /// Reads the text of a pipeline file; `origin` is its name for messages, `env` gives the value of a variable.
    ///
    /// ```
    /// use tidemill::internals::config::Pipeline;
    /// let text = "batch_intervall = '1s'";
    /// let err = Pipeline::parse(text, "words.toml", &|_| None).unwrap_err();
    /// assert!(err.to_string().contains("did you mean `batch_interval`?"));
    /// ```
    ///
    /// # Errors
    /// [`Error::Config`] with everything that is wrong, rendered with `FILE:LINE:COLUMN`, the line and a hint.
    pub fn parse(text: &str, origin: &str, env: &Env<'_>) -> Result<Self> {
        Pipeline::parse_with(text, origin, env, &[])
    }

    /// Reads the text of a pipeline file with options of the command line laid over it.
    ///
    /// # Errors
    /// As [`parse`](Pipeline::parse); [`Error::Usage`] if only the options are wrong.
    pub fn parse_with(
        text: &str,
        origin: &str,
        env: &Env<'_>,
        settings: &[Setting],
    ) -> Result<Self> {
        let texts = Texts { origin: Some(origin), text, flags: Vec::new() };
        read(texts, env, settings)
    }

    /// Reads a pipeline file from disk, with options of the command line laid over it.
    ///
    /// # Errors
    /// As [`parse_with`](Pipeline::parse_with); [`Error::Config`] if the file cannot be read.
    pub fn read(path: &Path, env: &Env<'_>, settings: &[Setting]) -> Result<Self> {
        let text = read_file(path)?;
        Pipeline::parse_with(&text, &path.display().to_string(), env, settings)
    }

    /// The pipeline that options of the command line describe without a file.
    ///
    /// # Errors
    /// [`Error::Usage`] with everything that is wrong.
    pub fn from_settings(settings: &[Setting]) -> Result<Self> {
        read(Texts::default(), &|_| None, settings)
    }

    /// The options of the stream, resolved.
    pub fn resolved(&self) -> Resolved {
        self.config.resolve().expect("a pipeline is read only if its options resolve")
    }

    /// The names of `generate` sources that never end by themselves.
    pub fn endless<'a>(&'a self) -> Vec<&'a str> {
        let endless = |(name, source): &'a (String, Source)| match source {
            Source::Generate(source) if !source.ends() => Some(name.as_str()),
            _ => None,
        };
        self.sources.iter().filter_map(endless).collect()
    }
}

/// Reads the bytes of a pipeline file, no more than a bound.
fn read_file(path: &Path) -> Result<String> {
    let shown = path.display();
    let fail = |err: std::io::Error| Error::Config(format!("error: cannot read {shown}: {err}"));
    let file = fs::File::open(path).map_err(fail)?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let most = show_bytes(FILE_BYTES_MAX);
        return Err(Error::Config(format!("error: {shown} is larger than {most}")));
    }
    String::from_utf8(bytes).map_err(|err| {
        let good = &err.as_bytes()[..err.utf8_error().valid_up_to()];
        let line = good.iter().filter(|byte| **byte == b'\n').count() + 1;
        Error::Config(format!("error: {shown}:{line}: not UTF-8"))
    })
}

/// The one way to a pipeline: file and options to a tree, the tree to values, the values checked together.
pub(super) fn read(mut texts: Texts<'_>, env: &Env<'_>, settings: &[Setting]) -> Result<Pipeline> {
    let problems = Problems::default();
    let mut table = tree::parse(texts.text, env, &problems);
    let unread = problems.errors() > 0 && table.0.is_empty();
    texts.flags = settings.iter().map(|setting| setting.flag.clone()).collect();
    let mut pipeline = None;
    if !unread {
        for (index, setting) in settings.iter().enumerate() {
            tree::set(&mut table, index, setting, &problems);
        }
        pipeline = read_root(&table, &problems);
    }
    let warnings = problems.finish(&texts)?;
    let pipeline = pipeline.expect("without an error there is a pipeline");
    Ok(Pipeline { warnings, ..pipeline })
}

fn read_root(table: &Table, problems: &Problems) -> Option<Pipeline> {
    let mut root = Section::root(table, problems);
    let config = read_config(&mut root);
    let sources = Names::read("source", &mut root, sources::read);
    let job = |(entry, section): (&tree::Entry, Option<_>)| {
        Some((entry.key.clone(), jobs::read(section?)))
    };
    let drafts: Vec<_> = root.named("job").into_iter().filter_map(job).collect();
    let sinks = Names::read("sink", &mut root, sinks::read);
    if drafts.is_empty() && !root.has("job") {
        let problem = Problem::new(&At::Whole, "the pipeline has no job");
        problems.add(problem.hint(
            "write `[job.NAME]` with `from`, `to` and one of `wordcount = {}`, `count = {}`, ...",
        ));
    }
    let batch = config.batch;
    check_windows(&root, &drafts, batch);
    check_store(&root, &sources, &config.config);
    let remembers = root.has("state_dir");
    check_acknowledging(&root, &sources, remembers);
    let longest = config.config.decide().trigger.map_or(batch, |trigger| trigger.timeout);
    warn_of_late_answers(&root, &sources, longest);
    let state_dir = root.path("state_dir");
    let changes = Changes::read(&mut root);
    let jobs_named: Vec<String> = drafts.iter().map(|(name, _)| name.clone()).collect();
    changes.check(&sources, &sinks, &jobs_named, problems);
    if !remembers {
        changes.warn_without_state(problems);
    }
    let config = changes.into_config(config.config);
    let pipeline = Pipeline {
        config: state_dir.iter().fold(config, Config::state_dir),
        state_dir,
        http: read_http(&mut root),
        http_hosts: values(root.texts("http_hosts").unwrap_or_default()),
        jobs: link(drafts, &sources, &sinks, problems),
        sources: sources.good(),
        sinks: sinks.good(),
        warnings: Vec::new(),
        log_level: root
            .choice("log_level", "level", &LOG_LEVELS)
            .map_or_else(LogLevel::default, |found| found.value),
        given: GivenKeys::of(table),
    };
    root.finish();
    if problems.errors() == 0 {
        places::check(table, &pipeline, problems);
    }
    (problems.errors() == 0).then_some(pipeline)
}

fn read_http(root: &mut Section<'_>) -> Http {
    let Some(found) = root.text("http") else { return Http::Default };
    if found.value == "off" {
        return Http::Off;
    }
    match Address::parse(&found.value) {
        Ok(address) => Http::At(address),
        Err(why) => {
            let problem = Problem::new(&found.at, "`http` takes ADDR:PORT or `off`").label(why);
            root.problems.add(problem);
            Http::Default
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{CatchUp, Then, Trigger};
    use crate::framing::Framing;
    use crate::sink::{FileFormat, FileOptions, Roll};
    use crate::source::options::FilesOptions as FilesSource;
    use crate::source::{Ack, SocketSource};
    use crate::time::Interval;

    /// Reads as a version would that supports everything.
    fn parse(text: &str) -> Result<Pipeline> {
        let texts = Texts { origin: Some("p.toml"), text, flags: Vec::new() };
        read(texts, &|_| None, &[])
    }

    fn around(piece: &str, job: &str) -> String {
        format!(
            "{piece}\n[source.a.socket]\nlisten = 'h:1'\n[job.j]\nfrom = ['a']\nto = ['s']\n{job}\n[sink.s.null]\n"
        )
    }

    fn good(piece: &str, job: &str) -> Pipeline {
        parse(&around(piece, job)).unwrap_or_else(|err| panic!("{err}"))
    }

    /// The first line of each error.
    fn check(piece: &str, job: &str, expected: &[&str]) {
        let shown = parse(&around(piece, job)).err().map(|err| err.to_string()).unwrap_or_default();
        let titles: Vec<_> =
            shown.lines().filter_map(|line| line.strip_prefix("error: ")).collect();
        assert_eq!(titles, expected, "{piece} {job}:\n{shown}");
    }

    #[test]
    fn windows_are_multiples_of_the_batch_interval() {
        check("", "count = {}\nwindow = '30s'\nslide = '1s'", &[]);
        check("", "count = {}\nwindow = '30s'", &[]);
        check(
            "batch_interval = '2s'",
            "count = {}\nwindow = '3s'\nslide = '1s'",
            &[
                "`window` 3s is not a multiple of the batch interval 2s",
                "`slide` 1s is not a multiple of the batch interval 2s",
            ],
        );
        check(
            "batch_interval = '200ms'",
            "count = {}\nwindow = '1500ms'",
            &["`window` 1500ms is not a multiple of the batch interval 200ms"],
        );
        check("", "count = {}\nslide = '1s'", &["`slide` needs a `window`"]);
        check("", "count = {}\nwindow = 30", &["`window` needs a unit of time"]);
        let job = &good("", "latency = {}\nwindow = '30s'\nslide = '1s'").jobs[0].1;
        assert_eq!((job.window, job.slide), (Some(Interval::secs(30)), Some(Interval::secs(1))));
    }

    #[test]
    fn triggers() {
        let trigger = "trigger = { records = 1000, timeout = '200ms' }";
        let expected = Trigger { records: 1_000, timeout: Interval::millis(200) };
        assert_eq!(good(trigger, "count = {}").resolved().trigger, Some(expected));
        check(
            &format!("batch_interval = '1s'\n{trigger}"),
            "count = {}",
            &["a pipeline has `trigger` or `batch_interval`, not both"],
        );
        check(
            trigger,
            "count = {}\nwindow = '2s'\nslide = '1s'",
            &["`window` cannot be used with `trigger`", "`slide` cannot be used with `trigger`"],
        );
        check(
            "trigger = { records = 0 }",
            "count = {}",
            &["`trigger` needs `timeout`", "`records` must be 1 to 18446744073709551615"],
        );
    }

    #[test]
    fn directories_and_http() {
        let text = "state_dir = 'state'\nspill_dir = 'spill'\nspill_bytes_max = '1GiB'\ncatch_up = 'replay'\n\
            http = '127.0.0.1:0'\nhttp_hosts = ['a.example']\non_failure = { then = 'dead_letter' }";
        let pipeline = good(text, "count = {}");
        assert_eq!(pipeline.state_dir, Some(PathBuf::from("state")));
        let spill = super::super::Spill { directory: PathBuf::from("spill"), bytes_max: 1 << 30 };
        assert_eq!(pipeline.resolved().spill, Some(spill));
        assert_eq!(pipeline.resolved().catch_up, CatchUp::Replay);
        assert_eq!(pipeline.http, Http::At(Address { host: "127.0.0.1".to_owned(), port: 0 }));
        assert_eq!(pipeline.http_hosts, ["a.example"]);
        assert_eq!(pipeline.resolved().on_failure.then, Then::DeadLetter);
        check("spill_bytes_max = '1GiB'", "count = {}", &["`spill_bytes_max` needs a `spill_dir`"]);
        check("http = '4040'", "count = {}", &["`http` takes ADDR:PORT or `off`"]);
        check("state_dir = ''", "count = {}", &["`state_dir` is empty"]);
        check("catch_up = 'replays'", "count = {}", &["unknown way to catch up `replays`"]);
    }

    fn socket(keys: &str) -> Result<SocketSource> {
        let text = around(&format!("[source.b.socket]\nlisten = 'h:2'\n{keys}"), "count = {}");
        parse(&text).map(|pipeline| match pipeline.sources.into_iter().next() {
            Some((_, Source::Socket(socket))) => socket,
            other => panic!("{other:?}"),
        })
    }

    fn check_socket(keys: &str, expected: &str) {
        let shown = socket(keys).expect_err("refused").to_string();
        assert_eq!(shown.lines().next(), Some(expected), "{shown}");
    }

    #[test]
    fn rates_and_acknowledgements() {
        let defaults = socket("").expect("good").rate;
        assert_eq!((defaults.max, defaults.initial, defaults.min), (None, 10_000, 100));
        let limited = socket("rate_max = 50\nbackpressure = true").expect("good").rate;
        assert_eq!((limited.initial, limited.min, limited.backpressure), (50, 50, true));
        check_socket(
            "rate_max = 5\nrate_min = 6",
            "error: `rate_min` is 6, more than `rate_max`, 5",
        );
        check_socket("rate_max = 0", "error: `rate_max` must be 1 to 18446744073709551615");
        let of_reactors = |text| socket(text).expect("good").reactors;
        assert_eq!((of_reactors(""), of_reactors("reactor_threads = 3")), (None, Some(3)));
        check_socket("reactor_threads = 0", "error: `reactor_threads` must be 1 to 1000");
        let relp = "framing = 'relp'\n";
        let keys = format!("{relp}ack = 'batch'\npool_threads = 3\ndead_letter = 'd'");
        let source = socket(&keys).expect("good");
        assert_eq!((source.ack, source.pool_threads), (Ack::Batch, 3));
        check_socket(&format!("{relp}ack = 'logg'\n"), "error: unknown time to acknowledge `logg`");
        check_socket(
            "ack = 'log'",
            "error: `ack` needs a framing that acknowledges: `lines` does not",
        );
        check_socket(
            relp,
            "error: `b` acknowledges records after the sync of the log, and without `state_dir` there is none",
        );
        socket(r"identity = '(?<sender>\S+) (?<number>\d+)'").expect("good");
        check_socket(
            "identity = '(?<sender>a)'",
            "error: `identity` needs the groups `sender` and `number`",
        );
    }

    #[test]
    fn files() {
        let text = "[source.f.files]\ndirectory = 'in'\n[sink.o.file]\npath = 'out'\nformat = 'csv'\n\
            roll = { bytes = '64MiB', age = '10m' }";
        let pipeline = good(text, "lines = {}");
        let source = FilesSource {
            directory: PathBuf::from("in"),
            framing: Framing::Lines,
            record_bytes_max: 1 << 20,
            batch_bytes_max: 256 << 20,
            on_lost: crate::source::direct::OnLost::Stop,
            include: None,
            exclude: None,
            follow_links: true,
            unescape: false,
            open_files_max: 256,
        };
        assert_eq!(pipeline.sources[0].1, Source::Files(source));
        let options = pipeline.sinks[0].1.options_of::<FileOptions>().expect("a file");
        let roll = Some(Roll { bytes: Some(64 << 20), age: Some(Duration::from_secs(600)) });
        let path = PathBuf::from("out");
        let expected =
            FileOptions { path, format: FileFormat::Csv, roll, ..FileOptions::default() };
        assert_eq!(*options, expected);
        check("[source.f.files]", "lines = {}", &["a `files` source needs a `directory`"]);
        check(
            "[source.f.files]\ndirectory = 'in'\nbatch_bytes_max = '0B'",
            "lines = {}",
            &["`batch_bytes_max` must be at least 1B"],
        );
        check(
            "[source.f.files]\ndirectory = 'in'\nframing = 'relp'",
            "lines = {}",
            &["`relp` is a dialogue with a peer: files have none"],
        );
        check(
            "[source.f.files]\ndirectory = 'in'\non_lost = 'skip'\n[source.g.files]\ndirectory = 'i'\non_lost = 'go'",
            "lines = {}",
            &["unknown way to lose input `go`"],
        );
        check(
            "[sink.o.file]\npath = 'o'\nroll = {}",
            "lines = {}",
            &["`roll` needs `bytes`, `age` or both"],
        );
        check("[sink.o.file]", "lines = {}", &["a `file` sink needs a `path`"]);
    }
}
