//! `Row`: one row gives a figure its name, kind and help in `/metrics` and its name in the JSON and CSV tables. The rows
//! themselves are in `rows`.
//!
//! To add a figure, add a row there. To rename a figure, keep the earlier name as a [`Kind::Old`] row.

use std::time::Duration;

use serde_json::{Value as Json, json};

use super::look::{Look, StreamLook};
use super::process::Process;
use super::shown::Starting;
use crate::context::ReceiverStatus;
use crate::metrics::Times;
use crate::source::io::IoModel;

/// The version of the program and the compiler that built it.
const BUILD: [&str; 2] = [env!("CARGO_PKG_VERSION"), env!("TIDEMILL_RUSTC")];

/// The kind of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It only rises, from the start on.
    Counter,
    /// A current value.
    Gauge,
    /// A distribution of times.
    Histogram,
    /// 1, with labels that hold the information.
    Info,
    /// An earlier name of another row, for its users. In OpenMetrics, the only format that had it, it has no type; the
    /// classic format does not have it.
    Old,
}

/// The value of a figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value {
    Count(u64),
    Is(bool),
    Time(Duration),
}

impl From<u64> for Value {
    fn from(count: u64) -> Self {
        Value::Count(count)
    }
}

impl From<usize> for Value {
    fn from(count: usize) -> Self {
        Value::Count(count as u64)
    }
}

impl From<bool> for Value {
    fn from(is_so: bool) -> Self {
        Value::Is(is_so)
    }
}

impl From<Duration> for Value {
    fn from(time: Duration) -> Self {
        Value::Time(time)
    }
}

impl Value {
    pub(super) fn json(self) -> Json {
        match self {
            Value::Count(count) => json!(count),
            Value::Is(is_so) => json!(is_so),
            Value::Time(time) => json!(time.as_secs_f64()),
        }
    }
}

/// Takes the values of a row's labels, and the figure.
pub(super) type Take<'a> = dyn FnMut(&[&str], Value) + 'a;

/// The origin of a row's value.
#[derive(Clone, Copy)]
pub(super) enum Origin {
    /// The program: 1.
    Build,
    /// Both a start and a stream have it.
    Always(fn(&Look) -> Value),
    /// A start; shown only while it lasts.
    Starting(fn(&Starting) -> Value),
    /// A stream; not shown before it runs.
    Stream(fn(&StreamLook) -> Option<Value>),
    /// The process.
    Process(fn(&Process) -> Option<Value>),
    /// The counter of that name of each source.
    Counter(&'static str),
    /// Each source.
    Source(fn(&ReceiverStatus) -> Option<Value>),
    /// A stream has several, distinguished by the labels.
    Many(fn(&StreamLook, &mut Take<'_>)),
    /// A stream has several distributions, distinguished by the label.
    Times(fn(&StreamLook) -> Vec<(&'static str, Times)>),
}

/// A figure.
#[derive(Clone, Copy)]
pub(super) struct Row {
    /// Its name in `/metrics`, without the suffix of its kind (`_total`, `_info`); empty if it is not there.
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) labels: &'static [&'static str],
    /// The help text: what the figure counts.
    pub(super) help: &'static str,
    json: Named,
    pub(super) from: Origin,
}

/// The name of a figure in JSON and CSV.
#[derive(Clone, Copy)]
enum Named {
    /// Its name in `/metrics` without `tidemill_` and `receiver_`.
    Alike,
    As(&'static str),
    Nothing,
}

pub(super) const fn counter(name: &'static str, help: &'static str, from: Origin) -> Row {
    Row::new(Kind::Counter, name, help, from)
}

pub(super) const fn gauge(name: &'static str, help: &'static str, from: Origin) -> Row {
    Row::new(Kind::Gauge, name, help, from)
}

pub(super) const fn histogram(name: &'static str, help: &'static str, from: Origin) -> Row {
    Row::new(Kind::Histogram, name, help, from).not_in_json()
}

pub(super) const fn old(name: &'static str, help: &'static str, from: Origin) -> Row {
    Row::new(Kind::Old, name, help, from).not_in_json()
}

impl Row {
    pub(super) const fn new(
        kind: Kind,
        name: &'static str,
        help: &'static str,
        from: Origin,
    ) -> Row {
        let labels: &[&str] = match from {
            Origin::Counter(_) | Origin::Source(_) => &["source", "io_model"],
            _ => &[],
        };
        Row { name, kind, labels, help, json: Named::Alike, from }
    }

    /// The row with these labels.
    pub(super) const fn by(self, labels: &'static [&'static str]) -> Row {
        Row { labels, ..self }
    }

    /// The row with this name in JSON and CSV.
    pub(super) const fn json_as(self, name: &'static str) -> Row {
        Row { json: Named::As(name), ..self }
    }

    /// The row only in `/metrics`.
    pub(super) const fn not_in_json(self) -> Row {
        Row { json: Named::Nothing, ..self }
    }

    /// Its name in JSON and CSV, if it is there.
    pub(super) fn json(&self) -> Option<&'static str> {
        match self.json {
            Named::Nothing => None,
            Named::As(name) => Some(name),
            Named::Alike => {
                let name = self.name.strip_prefix("tidemill_").unwrap_or(self.name);
                Some(name.strip_prefix("receiver_").unwrap_or(name))
            }
        }
    }

    /// The unit of its values, which its name ends with if it has one.
    pub(super) fn unit(&self) -> Option<&'static str> {
        let of_kind = self.kind != Kind::Info && self.kind != Kind::Old;
        let ends =
            |unit: &&&str| self.name.strip_suffix(**unit).is_some_and(|rest| rest.ends_with('_'));
        ["seconds", "bytes"].iter().find(ends).filter(|_| of_kind).copied()
    }

    /// Hands out all its values except distributions.
    pub(super) fn each(&self, look: &Look, take: &mut Take<'_>) {
        let stream = look.stream.as_ref();
        match self.from {
            Origin::Build => take(&BUILD, Value::Count(1)),
            Origin::Always(value) => take(&[], value(look)),
            Origin::Starting(value) => look.starting.iter().for_each(|it| take(&[], value(it))),
            Origin::Stream(value) => {
                stream.and_then(value).into_iter().for_each(|it| take(&[], it))
            }
            Origin::Process(value) => value(&look.process).into_iter().for_each(|it| take(&[], it)),
            Origin::Many(values) => stream.into_iter().for_each(|it| values(it, take)),
            Origin::Counter(_) | Origin::Source(_) => {
                for receiver in stream.iter().flat_map(|stream| &stream.receivers) {
                    let labels: Vec<&str> =
                        self.labels.iter().map(|label| label_of(receiver, label)).collect();
                    self.of_source(receiver).into_iter().for_each(|it| take(&labels, it));
                }
            }
            Origin::Times(_) => {}
        }
    }

    pub(super) fn of_source(&self, receiver: &ReceiverStatus) -> Option<Value> {
        match self.from {
            Origin::Counter(name) => Some(receiver.counter(name).into()),
            Origin::Source(value) => value(receiver),
            _ => None,
        }
    }
}

fn label_of<'a>(receiver: &'a ReceiverStatus, label: &str) -> &'a str {
    match label {
        "source" => &receiver.source,
        "io_model" => receiver.io_model.map_or("none", IoModel::name),
        _ => receiver.paused_by.map_or("none", |by| by.name()),
    }
}
