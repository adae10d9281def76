//! `tidemill run`: builds the stream that a pipeline describes, runs it to its end, says what happened on standard error.
//!
//! Results go to standard output by the console sinks and nothing else does. Runs on the main thread; the listener that
//! writes messages runs on the thread `events`.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use serde_json::json;

use crate::config::units::Env;
use crate::config::{
    self, ConsoleFormat, GenerateSource, Http, Job, JobKind, LineFeeds, Pipeline, SinkKind, Source,
};
use crate::context::{RunLimits, SocketSource, StreamingContext};
use crate::dashboard::{HttpOptions, HttpServer, Starting};
use crate::direct::files::FilesSource;
use crate::dstream::DStream;
use crate::dstream::builtin::{Builtin, Scope};
use crate::error::{Error, Result};
use crate::load::{self, Limit, Load, LoadOptions, Target};
use crate::metrics::Event;
use crate::net::descriptors;
use crate::sink::{self, Console, Existing, Format, Memory, Null, ROWS_SHOWN, SharedSink, Writer};
use crate::sync::thread;
use crate::sync::{Arc, Poison};
use crate::time::{Clock, Interval, SystemClock, join_until};
use crate::wal;
use crate::wal::storage::{Directory, Storage};

use super::args::RunArgs;
use super::control::Control;
use super::log::Log;
use super::messages::Messages;

/// How long after the report threads and files may take to end.
const LETTING_GO: Duration = Duration::from_millis(500);

/// Runs a pipeline to its end.
///
/// # Errors
/// What is wrong with the pipeline or the options, what made the stream fail, or what a drain left.
pub(super) fn run(args: &RunArgs, env: &Env<'_>) -> Result<()> {
    let pipeline = args.pipeline(env)?;
    let messages = Messages(Log::of(args));
    if args.log_level.is_none() {
        messages.0.set_level(pipeline.log_level);
    }
    for warning in &pipeline.warnings {
        messages.warn(warning);
    }
    if let Err(err) = descriptors::raise_limit() {
        messages.warn(&format!("cannot raise the limit of open files: {err}"));
    }
    messages.say("start", &start_text(&pipeline), json!({"version": env!("CARGO_PKG_VERSION")}));
    // Before anything is opened: a taken address costs nothing yet, and a long start can be watched.
    let starting = Starting { read_bytes: 0, log_bytes: log_bytes(&pipeline) };
    let http = serve(starting, &pipeline, &messages)?.map(Arc::new);
    let poison = Poison::new();
    let stream = Built::new(&pipeline, &poison)?;
    stream.context.limits(RunLimits {
        batches: args.batches,
        duration: args.duration,
        until_eof: args.until_eof,
        give_up_lost: args.give_up_lost,
    });
    let listener = messages.clone();
    let shown = http.clone();
    stream.context.add_listener(move |event: &Event| {
        if let (Event::Recovering { bytes }, Some(http)) = (event, &shown) {
            http.show(Starting { read_bytes: *bytes, ..starting });
        }
        listener.event(event);
    });
    for (name, server) in &stream.servers {
        let address = server.local_addr().map(|address| address.to_string()).unwrap_or_default();
        let text = format!("source `{name}`: embedded data server on {address}");
        messages.say("data_server", &text, json!({"source": name, "address": address}));
    }
    // Watched before anything is received: a signal during the start stops in order like any later one.
    let control = Control::new(args, &pipeline, &messages);
    let signals = control.watch(&poison)?;
    let running = stream.context.start()?;
    if let Some(http) = http.as_ref() {
        http.show(running.inspector());
    }
    control.runs(&running);
    let (report, outcome) = running.finish();
    messages.report(&report);
    let_go((http, signals, stream));
    outcome
}

/// Drops what is left, at most for a moment: the end of the process lets go of the rest, for a disk or a peer may hang.
fn let_go(rest: impl Send + 'static) {
    let clock = SystemClock::new();
    let dropping = thread::spawn("end", &Poison::new(), move || drop(rest));
    let joined = dropping.map(|it| join_until(clock.as_ref(), it, clock.now().plus(LETTING_GO)));
    // The report is out: what is stuck holds nothing that counts.
    drop(joined);
}

/// Starts the HTTP server. Where nobody asked for it, a machine without a free port is no reason not to run.
fn serve(
    starting: Starting,
    pipeline: &Pipeline,
    messages: &Messages,
) -> Result<Option<HttpServer>> {
    let hosts = pipeline.http_hosts.clone();
    let started = match &pipeline.http {
        Http::Off => return Ok(None),
        Http::At(address) => {
            let address = address.to_string();
            let options = HttpOptions { address, next_free: false, hosts, ip_hosts: true };
            HttpServer::start(starting, &options).map_err(|err| {
                Error::Failed(format!("{err}; choose another address with --http, or --http off"))
            })?
        }
        Http::Default => {
            let options = HttpOptions { hosts, ..HttpOptions::default() };
            match HttpServer::start(starting, &options) {
                Ok(server) => server,
                Err(err) => {
                    messages.warn(&format!("{err}; running without it"));
                    return Ok(None);
                }
            }
        }
    };
    let address = started.address();
    messages.say("http", &format!("http://{address}/"), json!({"address": address}));
    Ok(Some(started))
}

/// The bytes that an earlier run's log has at most: segments have their room from the begin on.
fn log_bytes(pipeline: &Pipeline) -> u64 {
    let entries = pipeline.state_dir.iter().filter_map(|dir| fs::read_dir(dir).ok()).flatten();
    let segments =
        entries.flatten().filter(|entry| wal::is_segment(&entry.file_name().to_string_lossy()));
    segments.filter_map(|entry| entry.metadata().ok()).map(|about| about.len()).sum()
}

fn start_text(pipeline: &Pipeline) -> String {
    let version = env!("CARGO_PKG_VERSION");
    // The summary's first word is `pipeline`.
    format!("tidemill {version}, {}", pipeline.summary())
}

/// A stream built from a pipeline, and the data servers that feed it.
struct Built {
    context: StreamingContext,
    servers: Vec<(String, Load)>,
}

impl Built {
    fn new(pipeline: &Pipeline, poison: &Poison) -> Result<Self> {
        let context = StreamingContext::new(pipeline.config.clone())?;
        let mut servers = Vec::new();
        let mut streams = HashMap::new();
        for (name, source) in &pipeline.sources {
            let socket = match source {
                Source::Files(files) => {
                    let files = FilesSource::from(files).named(name);
                    streams.insert(name.as_str(), context.files(files)?);
                    continue;
                }
                Source::Socket(socket) => SocketSource::from(socket),
                Source::Generate(generate) => {
                    let server = start_server(generate, poison)?;
                    let address = server.local_addr().map(|address| address.to_string());
                    servers.push((name.clone(), server));
                    SocketSource::connect(address).io_model(generate.io_model).once()
                }
            };
            streams.insert(name.as_str(), context.socket(socket.named(name))?);
        }
        let console = Writer::new(Box::new(std::io::stdout()));
        let sinks = pipeline.sinks.iter().map(|(name, kind)| {
            let sink = sink(kind, &console)?;
            Ok((name.as_str(), sink.named(name)))
        });
        let sinks: HashMap<&str, SharedSink> = sinks.collect::<Result<_>>()?;
        // Also those that no job uses: the file names them, so they are not gone.
        let in_order = pipeline.sinks.iter().filter_map(|(name, _)| sinks.get(name.as_str()));
        context.graph().add_sinks(&in_order.cloned().collect::<Vec<_>>());
        for (name, job) in &pipeline.jobs {
            let batch_interval = context.config().batch_interval;
            attach((name, job), batch_interval, &streams, &sinks)?;
        }
        Ok(Built { context, servers })
    }
}

/// The embedded data server of a `generate` source, on a free port of the loopback interface.
fn start_server(source: &GenerateSource, poison: &Poison) -> Result<Load> {
    let options = LoadOptions {
        target: Target::Listen("127.0.0.1:0".to_owned()),
        framing: load::Framing::Lines,
        rate: source.rate,
        limit: Limit { records: source.records, ..Limit::default() },
        line_len: source.line_len,
        words: source.words,
        connections: 1,
        idle: 0,
        file: source.file.clone(),
        stamp: None,
        seed: source.seed,
    };
    load::start(options, SystemClock::new() as Arc<dyn Clock>, poison)
}

fn existing_output(existing: config::Existing) -> Existing {
    match existing {
        config::Existing::Refuse => Existing::Committed,
        config::Existing::Append => Existing::Append,
    }
}

fn sink(kind: &SinkKind, console: &Writer) -> Result<SharedSink> {
    match kind {
        SinkKind::Console { format } => {
            let format = match format {
                ConsoleFormat::Spark => Format::Spark(ROWS_SHOWN),
                ConsoleFormat::Json => Format::Json,
            };
            Ok(SharedSink::new(Console::new(console.clone(), format)))
        }
        SinkKind::Memory => Ok(SharedSink::new(Memory::new())),
        SinkKind::Null => Ok(SharedSink::new(Null)),
        SinkKind::File { path, format, roll, line_feeds, existing } => {
            let storage = Arc::new(Directory::open(path)?) as Arc<dyn Storage>;
            let existing = existing_output(*existing);
            let roll = roll.map(|roll| sink::Roll { bytes: roll.bytes, age: roll.age });
            let file = sink::File::open(storage, (*format).into(), existing, roll)?;
            let line_feeds = line_feeds.map(|given| match given {
                LineFeeds::Escape => sink::LineFeeds::Escape,
                LineFeeds::Keep => sink::LineFeeds::Keep,
            });
            Ok(SharedSink::new(line_feeds.into_iter().fold(file, sink::File::line_feeds)))
        }
        SinkKind::Sqlite { path, table, existing } => {
            let existing = existing_output(*existing);
            Ok(SharedSink::new(sink::Sqlite::open(path, table, existing)?))
        }
    }
}

fn attach(
    (name, job): (&str, &Job),
    batch_interval: Interval,
    streams: &HashMap<&str, DStream<[u8]>>,
    sinks: &HashMap<&str, SharedSink>,
) -> Result<()> {
    let missing =
        |what: &str, name: &str| Error::Config(format!("error: no {what} is called `{name}`"));
    let mut stream: Option<DStream<[u8]>> = None;
    for from in &job.from {
        let source = streams.get(from.as_str()).ok_or_else(|| missing("source", from))?;
        stream = Some(stream.map_or_else(|| source.clone(), |stream| stream.union(source)));
    }
    let stream = stream.ok_or_else(|| missing("source", ""))?;
    let to =
        job.to.iter().map(|to| sinks.get(to.as_str()).cloned().ok_or_else(|| missing("sink", to)));
    let filter = job.filter.as_ref().map(|pattern| pattern.regex().clone());
    // A window that is not said to slide slides with every batch.
    let slide = job.slide.unwrap_or(batch_interval);
    let scope = Scope { filter, window: job.window.map(|length| (length, slide)) };
    builtin(&job.kind).attach(name, &stream, scope, to.collect::<Result<_>>()?);
    Ok(())
}

fn builtin(kind: &JobKind) -> Builtin {
    match kind {
        JobKind::Count => Builtin::Count,
        JobKind::Lines => Builtin::Lines,
        JobKind::Grep(pattern) => Builtin::Grep(pattern.regex().clone()),
        JobKind::WordCount => Builtin::Wordcount,
        JobKind::TopK(topk) => Builtin::TopK {
            n: topk.n,
            field: topk.field,
            separator: topk.separator.as_ref().map(|text| text.as_bytes().to_vec()),
        },
        JobKind::Latency => Builtin::Latency,
    }
}
