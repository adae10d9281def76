//! From a pipeline to the stream that it describes: for a run, or for a look that changes nothing.

use std::collections::HashMap;

use crate::config::{
    self, ConsoleFormat, GenerateSource, Job, JobKind, LineFeeds, Pipeline, SinkKind, Source,
};
use crate::context::{SocketSource, StreamingContext};
use crate::error::{Error, Result};
use crate::load::{self, Limit, Load, LoadOptions, Target};
use crate::sink::{self, Console, Existing, Format, Memory, Null, ROWS_SHOWN, SharedSink, Writer};
use crate::source::direct::files::FilesSource;
use crate::storage::Access;
use crate::stream::DStream;
use crate::stream::jobs::{Builtin, Scope};
use crate::sync::{Arc, Poison};
use crate::time::{Clock, Interval, SystemClock};

/// A stream built from a pipeline, and the data servers that feed it.
pub(super) struct Built {
    pub(super) context: StreamingContext,
    pub(super) servers: Vec<(String, Load)>,
}

impl Built {
    /// Builds the stream; for a look its outputs are not made, locked or changed, and no data server starts.
    ///
    /// # Errors
    /// If an output cannot be opened, or a data server cannot be started.
    pub(super) fn new(pipeline: &Pipeline, poison: &Poison, access: Access) -> Result<Self> {
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
                Source::Generate(generate) if access == Access::Look => {
                    SocketSource::connect(None::<String>).io_model(generate.io_model).once()
                }
                Source::Generate(generate) => {
                    let server = start_server(generate, poison)?;
                    let address = server.local_addr().map(|address| address.to_string());
                    servers.push((name.clone(), server));
                    SocketSource::connect(address).io_model(generate.io_model).once()
                }
            };
            streams.insert(name.as_str(), context.socket(socket.named(name))?);
        }
        let console = Writer::stdout();
        let sinks = pipeline.sinks.iter().map(|(name, kind)| {
            let sink = sink(kind, &console, access)?;
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

fn sink(kind: &SinkKind, console: &Writer, access: Access) -> Result<SharedSink> {
    match kind {
        SinkKind::Console { format, time } => {
            let format = match format {
                ConsoleFormat::Spark => Format::Spark(ROWS_SHOWN),
                ConsoleFormat::Json => Format::Json,
            };
            Ok(SharedSink::new(Console::new(console.clone(), format).time(*time)))
        }
        SinkKind::Memory => Ok(SharedSink::new(Memory::new())),
        SinkKind::Null => Ok(SharedSink::new(Null)),
        SinkKind::File { path, format, roll, line_feeds, time, existing } => {
            let storage = access.open(path)?;
            let existing = existing_output(*existing);
            let roll = roll.map(|roll| sink::Roll { bytes: roll.bytes, age: roll.age });
            let file = sink::File::open(storage, (*format).into(), existing, roll)?.time(*time);
            let line_feeds = line_feeds.map(|given| match given {
                LineFeeds::Escape => sink::LineFeeds::Escape,
                LineFeeds::Keep => sink::LineFeeds::Keep,
            });
            Ok(SharedSink::new(line_feeds.into_iter().fold(file, sink::File::line_feeds)))
        }
        SinkKind::Sqlite { path, table, existing } => {
            let existing = existing_output(*existing);
            Ok(SharedSink::new(sink::Sqlite::open_for(path, table, existing, access)?))
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
