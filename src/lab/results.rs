//! The results of a measurement: everything that a page, a table, a CSV file or a verdict is made of, and nothing else. Plain
//! data, written and read as JSON; any thread. It knows neither processes nor how anything is shown.
//!
//! ```text
//! Results ─┬─ tool, command line, options, machine (facts; its load at start and end), how it ended
//!          ├─ searches   the highest rate that held, of `--latency`
//!          ╰─ cells ──┬─ subject (a model, the bare loop, a peer) and shape (the load)
//!                     ╰─ runs, in the order they were made: pair, turn, figures or why it failed
//! ```
//! Runs of one shape with one pair number were made one after the other and are compared with each other. A reader ignores
//! fields it does not know; fields that were added later have a default. A change that old readers would misread raises
//! [`FORMAT`].

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::protocol::{Sent, Slow, Spread};
use super::sample::Sample;
use super::shape::{Shape, by_shape};

/// The version of the format that this program writes, and the newest that it reads.
pub(crate) const FORMAT: u32 = 1;

/// The most cells of results, runs of a cell, and seconds of a soak (a year has as many). What has more is no measurement.
pub(crate) const CELLS_MAX: usize = 4_000;
pub(crate) const RUNS_MAX: usize = 1_000;
const SECONDS_MAX: usize = 366 * 24 * 3_600;

/// Everything that one measurement learned.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Results {
    /// [`FORMAT`] of the program that wrote them.
    pub(crate) format: u32,
    pub(crate) tool: Tool,
    /// The command line as it was typed.
    pub(crate) command_line: String,
    pub(crate) measurement: Measurement,
    /// Single runs, which decide nothing: no verdict and no ranking may be shown.
    pub(crate) quick: bool,
    /// What was asked for, with defaults, in the order of the page.
    pub(crate) options: Vec<Fact>,
    pub(crate) machine: Machine,
    pub(crate) end: End,
    /// What was measured, shape by shape, the subjects of a shape beside each other.
    #[serde(deserialize_with = "bounded::<_, _, CELLS_MAX>")]
    pub(crate) cells: Vec<Cell>,
    /// The searches of `--latency`.
    #[serde(deserialize_with = "bounded::<_, _, CELLS_MAX>")]
    pub(crate) searches: Vec<Search>,
}

/// The program that measured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Tool {
    pub(crate) version: String,
    pub(crate) commit: String,
    /// The build profile.
    pub(crate) build: String,
    pub(crate) compiler: String,
}

/// The measurement that was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Measurement {
    /// `compare`: shapes of load.
    #[default]
    Models,
    /// `compare --latency`.
    Latency,
    /// `compare --soak`.
    Soak,
}

/// The end of a measurement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum End {
    /// Every run was made that was asked for.
    #[default]
    Complete,
    /// `--time-limit` was over before the intervals were narrow enough.
    TimeLimit,
    /// A signal stopped it.
    Interrupted,
}

/// A name and a value, to be shown as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fact {
    pub(crate) name: String,
    pub(crate) value: String,
}

/// The machine that figures belong to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Machine {
    /// What does not change while it is measured, in the order of the page.
    pub(crate) facts: Vec<Fact>,
    pub(crate) cores: u64,
    /// Before the first run.
    pub(crate) start: Load,
    /// After the last one.
    pub(crate) end: Load,
}

/// The machine at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Load {
    /// Seconds since the epoch.
    pub(crate) wall_seconds: u64,
    /// The load average of the last minute, where the kernel tells it.
    pub(crate) load_average: Option<f64>,
    /// Processor time that the host took away, in percent: at the start within the moment before it, at the end since then.
    pub(crate) steal_percent: Option<f64>,
}

/// A subject under a load.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Cell {
    pub(crate) subject: Subject,
    pub(crate) shape: Shape,
    /// Lines per second that the sender was told to send; `None`: as fast as they are read.
    pub(crate) rate: Option<u64>,
    /// The reason why it was not run at all.
    pub(crate) not_run: Option<String>,
    /// In the order they were made.
    #[serde(deserialize_with = "bounded::<_, _, RUNS_MAX>")]
    pub(crate) runs: Vec<Run>,
}

/// The thing that is measured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Subject {
    pub(crate) kind: SubjectKind,
    /// The name of the io model, [`super::shape::BARE`], or the name of the peer.
    pub(crate) name: String,
    /// Zero; of a model that is compared with itself 1 for the second, and so on.
    pub(crate) twin: u32,
    /// The file that it was read from, where several are shown together.
    pub(crate) origin: Option<String>,
    /// The version that a peer says it is.
    pub(crate) version: Option<String>,
    /// The command line of a peer.
    pub(crate) command: Option<String>,
}

/// The kinds of subjects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SubjectKind {
    /// An io model.
    #[default]
    Model,
    /// The loop that only reads and counts.
    Bare,
    /// Another program.
    Peer,
}

/// One run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Run {
    /// The round it belongs to, from 0.
    pub(crate) pair: u64,
    /// Its place among all runs of the measurement, from 0.
    pub(crate) turn: u64,
    pub(crate) outcome: RunOutcome,
}

/// The outcome of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RunOutcome {
    Done(Box<Figures>),
    /// The reason.
    Failed(String),
}

/// The figures of one run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Figures {
    /// The io model that was used.
    pub(crate) used: String,
    /// The reason why it was not the one that was asked for.
    pub(crate) fallback: Option<String>,
    /// The reason why system calls were not counted.
    pub(crate) uncounted: Option<String>,
    /// From the first to the last byte.
    pub(crate) seconds: f64,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    /// CPU seconds of the receiver in that time.
    pub(crate) cpu: f64,
    /// System calls of the receiver in that time, where the kernel counts them.
    pub(crate) calls: Option<u64>,
    /// The receiver before its first connection.
    pub(crate) before: Sample,
    /// The receiver early and late in the run.
    pub(crate) early: Sample,
    pub(crate) late: Sample,
    /// Seconds from `early` to `late`.
    pub(crate) between: f64,
    pub(crate) sent: Sent,
    /// Connections that were made, read and closed, of a storm of them.
    pub(crate) closed: u64,
    /// Latencies in nanoseconds and how often each came.
    pub(crate) latencies: Vec<(u64, u64)>,
    /// The stages of batches, where they were timed.
    pub(crate) stages: Option<Stages>,
    /// The receiver each second, of a soak.
    #[serde(deserialize_with = "bounded::<_, _, SECONDS_MAX>")]
    pub(crate) seconds_of_soak: Vec<SoakSecond>,
}

/// The stages of a run's batches, the lateness of timers, and slow batches.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Stages {
    /// By stage, in the order of [`crate::metrics::STAGES`].
    pub(crate) times: Vec<Spread>,
    /// The lateness of the job timer's ticks.
    pub(crate) ticks: Spread,
    /// The lateness of the bare timers.
    pub(crate) control: Spread,
    pub(crate) batches: u64,
    /// Ticks that had no batch of their own.
    pub(crate) ticks_lost: u64,
    pub(crate) slow: Slow,
}

/// A second of a soak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct SoakSecond {
    /// Seconds from the start of the run.
    pub(crate) at: f64,
    pub(crate) sample: Sample,
    /// Batches that were done, with their mean times in microseconds.
    pub(crate) batches: u64,
    pub(crate) processing_us: f64,
    pub(crate) delay_us: f64,
}

/// The search for the highest rate that holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Search {
    pub(crate) subject: Subject,
    pub(crate) batch_ms: u64,
    /// Lines per second that are taken without a limit.
    pub(crate) ceiling: u64,
    /// The highest rate that held.
    pub(crate) rate: Option<u64>,
    /// Every rate that was tried, with its 99th percentile in nanoseconds.
    pub(crate) tried: Vec<(u64, u64)>,
}

/// A list of at most so many items: it is refused before it takes more memory.
fn bounded<'de, D, T, const MAX: usize>(reader: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    reader.deserialize_seq(Bounded::<T, MAX>(PhantomData))
}

struct Bounded<T, const MAX: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Bounded<T, MAX> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {MAX} items")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            if list.len() == MAX {
                return Err(A::Error::custom(format!("a list has more than {MAX} items")));
            }
            list.push(item);
        }
        Ok(list)
    }
}

impl Fact {
    pub(crate) fn new(name: &str, value: impl Into<String>) -> Fact {
        Fact { name: name.to_owned(), value: value.into() }
    }
}

impl Subject {
    /// The name that is shown: `nio`, `nio (2)` for the second of a model that is compared with itself, and `nio, FILE` where
    /// several files are shown together.
    pub(crate) fn label(&self) -> String {
        let twin = match self.twin {
            0 => String::new(),
            twin => format!(" ({})", u64::from(twin) + 1),
        };
        let origin = self.origin.as_ref().map_or(String::new(), |origin| format!(", {origin}"));
        format!("{}{twin}{origin}", self.name)
    }
}

impl Cell {
    /// The runs that gave figures.
    pub(crate) fn done(&self) -> impl Iterator<Item = (&Run, &Figures)> {
        self.runs.iter().filter_map(|run| match &run.outcome {
            RunOutcome::Done(figures) => Some((run, &**figures)),
            RunOutcome::Failed(_) => None,
        })
    }

    /// The reasons of runs that failed.
    pub(crate) fn failures(&self) -> impl Iterator<Item = &str> {
        self.runs.iter().filter_map(|run| match &run.outcome {
            RunOutcome::Done(_) => None,
            RunOutcome::Failed(why) => Some(why.as_str()),
        })
    }
}

impl Results {
    /// The shapes, each with its cells, in the order of the cells.
    pub(crate) fn by_shape(&self) -> Vec<(Shape, Vec<&Cell>)> {
        by_shape(&self.cells, |cell| cell.shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_read_back() {
        let figures = Figures { latencies: vec![(5, 2)], seconds: 1.5, ..Figures::default() };
        let run = |pair, outcome| Run { pair, turn: 7, outcome };
        let cell = Cell {
            runs: vec![
                run(0, RunOutcome::Done(Box::new(figures))),
                run(1, RunOutcome::Failed("gone".to_owned())),
            ],
            ..Cell::default()
        };
        let results = Results { format: FORMAT, cells: vec![cell], ..Results::default() };
        let text = serde_json::to_string(&results).expect("plain data");
        let read: Results = serde_json::from_str(&text).expect("as it was written");
        assert_eq!(read, results);
        assert_eq!(read.cells[0].failures().collect::<Vec<_>>(), ["gone"]);
        assert_eq!(read.cells[0].done().count(), 1);
    }

    #[test]
    fn fields_that_are_unknown_or_missing_do_no_harm() {
        let text = r#"{"format":1,"later":[{"x":1}],"cells":[{"shape":{"kind":"latency","connections":3}}]}"#;
        let read: Results = serde_json::from_str(text).expect("what is missing has a default");
        assert_eq!((read.cells[0].shape.connections, read.quick), (3, false));
    }

    #[test]
    fn labels() {
        let check = |twin, expected: &str| {
            let subject = Subject { name: "nio".to_owned(), twin, ..Subject::default() };
            assert_eq!(subject.label(), expected);
        };
        check(0, "nio");
        check(1, "nio (2)");
        check(u32::MAX, "nio (4294967296)");
        let (name, origin) = ("nio".to_owned(), Some("b.json".to_owned()));
        assert_eq!(Subject { name, origin, ..Subject::default() }.label(), "nio, b.json");
    }
}
