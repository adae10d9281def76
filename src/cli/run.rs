//! `tidemill run`: builds the stream that a pipeline describes, runs it to its end, says what happened on standard error.
//!
//! Results go to standard output by the console sinks and nothing else does. Runs on the main thread; the listener that
//! writes messages runs on the thread `events`, and queues them for the thread `lines`: who does not read them holds nothing up.

use std::fs;
use std::time::Duration;

use serde_json::json;

use crate::config::{Http, Pipeline};
use crate::context::RunLimits;
use crate::dashboard::{HttpOptions, HttpServer, Starting};
use crate::error::{Error, Result};
use crate::metrics::Event;
use crate::net::descriptors;
use crate::settings::units::Env;
use crate::storage::Access;
use crate::sync::thread;
use crate::sync::{Arc, Poison};
use crate::time::{Clock, SystemClock, join_until};
use crate::wal;

use super::args::RunArgs;
use super::build::Built;
use super::control::Control;
use super::judge;
use super::log::Log;
use super::messages::Messages;
use super::standard;

/// The longest time that threads and files may take to end after the report.
const LETTING_GO: Duration = Duration::from_millis(500);

/// The longest time after `stop_deadline` that the last messages may wait for who reads them; with the end of the process
/// a second.
const LAST_WORDS: Duration = Duration::from_millis(800);

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
    standard::expect_output(&pipeline, &messages)?;
    if let Err(err) = descriptors::raise_limit() {
        messages.warn(&format!("cannot raise the limit of open files: {err}"));
    }
    messages.say("start", &start_text(&pipeline), json!({"version": env!("CARGO_PKG_VERSION")}));
    // Before anything is opened: a taken address costs nothing yet, and a long start can be watched.
    let starting = Starting { read_bytes: 0, log_bytes: log_bytes(&pipeline) };
    let http = serve(starting, &pipeline, &messages)?.map(Arc::new);
    judge::before_start(&pipeline, args.give_up_lost)?;
    let poison = Poison::new();
    let stream = Built::new(&pipeline, &poison, Access::Write)?;
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
    let control = Control::new(args, &pipeline, &messages, &poison);
    let signals = control.watch()?;
    let running = stream.context.start()?;
    if let Some(http) = http.as_ref() {
        http.show(running.inspector());
    }
    control.runs(&running);
    let (report, outcome) = running.finish();
    messages.report(&report);
    messages.0.end_within(report.left_of_deadline + LAST_WORDS);
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
