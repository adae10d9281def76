//! The answer to each path: health, metrics, and the tables as JSON or CSV. Reads the inspector; knows no sockets.

use std::fmt::{self, Write};
use std::time::Duration;

use indicatif::HumanBytes;
use serde_json::{Map, Value, json};

use crate::context::{Inspector, ReceiverStatus};
use crate::metrics::{BatchRecord, Condition, STAGES};
use crate::source::PausedBy;
use crate::source::io::IoModel;
use crate::stream::KeptPart;
use crate::time::{Moment, Time};

use super::look::Look;
use super::request::Request;
use super::shown::{Shown, Starting};
use super::table as figures;
use super::text::{self, Format};

/// Number of batches to show if the request has no `limit`.
const LIMIT_DEFAULT: usize = 100;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const CSV: &str = "text/csv; charset=utf-8";

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) status: u16,
    pub(super) kind: &'static str,
    /// The request header that chose the format; empty if none did.
    pub(super) vary: &'static str,
    pub(super) body: String,
}

impl Page {
    pub(super) fn text(status: u16, text: impl Into<String>) -> Page {
        let mut body = text.into();
        body.push('\n');
        Page { status, kind: TEXT, vary: "", body }
    }

    fn json(value: &Value) -> Page {
        Page { status: 200, kind: JSON, vary: "", body: format!("{value}\n") }
    }

    fn csv(rows: &[Map<String, Value>], columns: &[&str]) -> Page {
        let mut body = columns.join(",");
        body.push('\n');
        for row in rows {
            let cells: Vec<String> = columns.iter().map(|column| cell(row.get(*column))).collect();
            body.push_str(&cells.join(","));
            body.push('\n');
        }
        Page { status: 200, kind: CSV, vary: "", body }
    }
}

/// Answers a request.
pub(super) fn answer(request: &Request, shown: &Shown) -> Page {
    match (shown, request.path.as_str()) {
        (_, "/") => Page::text(200, INDEX),
        (_, "/healthz") => Page::text(200, "alive"),
        (_, "/metrics") => metrics(&Look::of(shown), Format::wanted(&request.accept)),
        (_, "/api/v1/status") => Page::json(&Value::Object(status(shown))),
        (Shown::Stream(_), "/api/v1/status.csv") => table(&[status(shown)]),
        (Shown::Starting(starting), path) => answer_early(path, starting),
        (Shown::Stream(stream), _) => answer_of(request, stream),
    }
}

/// Answers a request before there is a stream.
fn answer_early(path: &str, starting: &Starting) -> Page {
    if path == "/readyz" || path.starts_with("/api/v1/") {
        return Page::text(503, starting.to_string());
    }
    Page::text(404, "nothing is here")
}

impl fmt::Display for Starting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (HumanBytes(self.read_bytes), HumanBytes(self.log_bytes)) {
            _ if self.log_bytes == 0 => f.write_str("starting"),
            (read, all) => write!(f, "recovering, {read} of {all}"),
        }
    }
}

/// Answers a request about a stream.
fn answer_of(request: &Request, stream: &Inspector) -> Page {
    let limit = match request.query_value("limit").map(str::parse::<usize>) {
        None => LIMIT_DEFAULT,
        Some(Ok(limit)) => limit,
        Some(Err(_)) => return Page::text(400, "`limit` must be a whole number"),
    };
    match request.path.as_str() {
        "/readyz" => match stream.unready() {
            reasons if reasons.is_empty() => Page::text(200, "ready"),
            reasons => Page::text(503, reasons.join("\n")),
        },
        "/api/v1/batches" => Page::json(&json!(batches(stream, limit))),
        "/api/v1/batches.csv" => Page::csv(&batches(stream, limit), &BATCH_COLUMNS),
        "/api/v1/receivers" => Page::json(&json!(receivers(stream))),
        "/api/v1/receivers.csv" => table(&receivers(stream)),
        path => match path.strip_prefix("/api/v1/batches/").map(str::parse::<u64>) {
            Some(Ok(time)) => one_batch(stream, Time::from_millis(time)),
            _ => Page::text(404, "nothing is here"),
        },
    }
}

const INDEX: &str = "tidemill
/metrics /healthz /readyz
/api/v1/status /api/v1/batches?limit= /api/v1/batches/{time} /api/v1/receivers (each table also as .csv)";

fn metrics(look: &Look, format: Format) -> Page {
    let (kind, body) = (format.content_type(), text::encode(look, format));
    Page { status: 200, kind, vary: "Accept", body }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// The texts of the status, and all figures.
fn status(shown: &Shown) -> Map<String, Value> {
    let mut status = match shown {
        Shown::Starting(_) => object(json!({"starting": true})),
        Shown::Stream(stream) => status_of(stream),
    };
    status.insert("version".to_owned(), json!(env!("CARGO_PKG_VERSION")));
    status.extend(figures::status(&Look::of(shown)));
    status
}

fn status_of(stream: &Inspector) -> Map<String, Value> {
    let config = stream.config();
    object(json!({
        "name": config.name,
        "started_ms": stream.started_at().as_millis(),
        "uptime_ms": millis(stream.uptime()),
        "unready": stream.unready(),
        "stopping": stream.is_stopping(),
        "batch_interval_ms": config.batch_interval.as_millis(),
        "block_interval_ms": config.block_interval.as_millis(),
        "workers": config.workers,
        "kept": kept(stream),
        "conditions": stream.conditions().iter().map(condition).collect::<Vec<_>>(),
        "reload_message": stream.reloaded().said,
    }))
}

fn condition(condition: &Condition) -> Value {
    json!({
        "kind": condition.kind.name(),
        "subject": condition.subject,
        "since_ms": condition.since.as_millis(),
        "cause": condition.cause,
        "needs": condition.needs,
    })
}

/// The memory of each window and state, the largest first.
fn kept(stream: &Inspector) -> Vec<Value> {
    let part =
        |part: KeptPart| json!({"kind": part.kind(), "name": part.name, "bytes": part.bytes});
    stream.kept().into_iter().map(part).collect()
}

const BATCH_COLUMNS: [&str; 17] = [
    "batch_time_ms",
    "state",
    "records",
    "bytes",
    "blocks",
    "failures",
    "error",
    "scheduling_delay_us",
    "processing_us",
    "total_us",
    "read_us",
    "cut_us",
    "stored_us",
    "allocated_us",
    "started_us",
    "finished_us",
    "committed_us",
];

fn batches(stream: &Inspector, limit: usize) -> Vec<Map<String, Value>> {
    stream.batches(limit).iter().map(batch).collect()
}

fn one_batch(stream: &Inspector, time: Time) -> Page {
    match stream.batch(time) {
        Some(record) => Page::json(&Value::Object(batch(&record))),
        None => Page::text(404, "no such batch is remembered"),
    }
}

fn batch(batch: &BatchRecord) -> Map<String, Value> {
    let moments = &batch.moments;
    let since = |from: Option<Moment>, to: Option<Moment>| Some(micros(to?.since(from?)));
    let mut row = object(json!({
        "batch_time_ms": batch.time.as_millis(),
        "state": batch.state.name(),
        "records": batch.records,
        "bytes": batch.bytes,
        "blocks": batch.blocks,
        "failures": batch.failures,
        "error": batch.error,
        "scheduling_delay_us": since(Some(moments.due), moments.started),
        "processing_us": since(moments.started, moments.committed),
        "total_us": since(Some(moments.due), moments.committed),
    }));
    for (stage, name) in STAGES {
        row.insert(format!("{name}_us"), json!(moments.stage(stage).map(micros)));
    }
    row
}

fn receivers(stream: &Inspector) -> Vec<Map<String, Value>> {
    let row = |receiver: ReceiverStatus| {
        let mut row = object(json!({
            "source": receiver.source,
            "io_model": receiver.io_model.map(IoModel::name),
            "listens": receiver.local,
            "addresses": receiver.addresses,
            "paused_by": receiver.paused_by.map(PausedBy::name),
        }));
        row.extend(figures::receiver(&receiver));
        row
    };
    stream.receivers().into_iter().map(row).collect()
}

/// A table whose columns are the keys of its first row.
fn table(rows: &[Map<String, Value>]) -> Page {
    let columns: Vec<&str> =
        rows.first().map(|row| row.keys().map(String::as_str).collect()).unwrap_or_default();
    Page::csv(rows, &columns)
}

/// A cell of a CSV table (RFC 4180), quoted if necessary.
fn cell(value: Option<&Value>) -> String {
    let text = match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    if !text.contains([',', '"', '\n', '\r']) {
        return text;
    }
    let mut quoted = String::with_capacity(text.len() + 2);
    // Writing to a string cannot fail.
    let _ = write!(quoted, "\"{}\"", text.replace('"', "\"\""));
    quoted
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;

    #[test]
    fn cells_are_quoted_where_they_must_be() {
        let check = |value: Value, expected: &str| assert_eq!(cell(Some(&value)), expected);
        check(json!("a b"), "a b");
        check(json!("a,\"b\""), "\"a,\"\"b\"\"\"");
        check(json!(5), "5");
        check(json!(null), "");
        check(json!("a\nb"), "\"a\nb\"");
    }
}
