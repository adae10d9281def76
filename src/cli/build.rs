//! From a pipeline to the stream that it describes: for a run, or for a look that changes nothing.

use std::collections::HashMap;

use crate::config::{GenerateSource, Job, Pipeline, Source};
use crate::context::StreamingContext;
use crate::error::{Error, Result};
use crate::load::{self, Limit, Load, LoadOptions, Target};
use crate::sink::{Opening, SharedSink, Writer};
use crate::source::SocketSource;
use crate::source::direct::files::FilesSource;
use crate::storage::Access;
use crate::stream::DStream;
use crate::stream::jobs::{JobOutput, Window, matching};
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
                Source::Socket(socket) => socket.clone(),
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
        let opening = Opening { console: &console, access };
        let sinks = pipeline
            .sinks
            .iter()
            .map(|(name, sink)| Ok((name.as_str(), sink.open(&opening)?.named(name))));
        let sinks: HashMap<&str, SharedSink> = sinks.collect::<Result<_>>()?;
        // Also those that no job uses: the file names them, so they are not gone.
        let in_order = pipeline.sinks.iter().filter_map(|(name, _)| sinks.get(name.as_str()));
        context.graph().add_sinks(&in_order.cloned().collect::<Vec<_>>());
        let batch_interval = context.config().batch_interval;
        let ends = Ends { streams: &streams, sinks: &sinks, batch_interval };
        for (name, job) in &pipeline.jobs {
            attach(name, job, &ends)?;
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

/// The streams and sinks that jobs lie between, by name.
struct Ends<'a> {
    streams: &'a HashMap<&'a str, DStream<[u8]>>,
    sinks: &'a HashMap<&'a str, SharedSink>,
    batch_interval: Interval,
}

/// Adds a job to the stream's graph.
fn attach(name: &str, job: &Job, ends: &Ends<'_>) -> Result<()> {
    let missing =
        |what: &str, name: &str| Error::Config(format!("error: no {what} is called `{name}`"));
    let mut stream: Option<DStream<[u8]>> = None;
    for from in &job.from {
        let source = ends.streams.get(from.as_str()).ok_or_else(|| missing("source", from))?;
        stream = Some(stream.map_or_else(|| source.clone(), |stream| stream.union(source)));
    }
    let mut records = stream.ok_or_else(|| missing("source", ""))?;
    if let Some(pattern) = &job.filter {
        records = matching(&records, pattern);
    }
    let sink =
        |to: &String| ends.sinks.get(to.as_str()).cloned().ok_or_else(|| missing("sink", to));
    let sinks = job.to.iter().map(sink).collect::<Result<_>>()?;
    // A window that is not said to slide slides with every batch.
    let slide = job.slide.unwrap_or(ends.batch_interval);
    let window = job.window.map(|length| Window { length, slide });
    job.kind.attach(&records, JobOutput { name, window, sinks });
    Ok(())
}
