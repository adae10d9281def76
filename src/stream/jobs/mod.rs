//! The built-in jobs over byte records, a file each, and the table of them. Pipeline files, the command line and the documents
//! read the table; nothing outside this directory knows a job by its name.
//!
//! ```text
//! [job.NAME] ─ JobRow::read ─▶ JobOptions ─ attach(records, output) ─▶ nodes of the graph ─▶ sinks
//! ```
//! A new job is a file with its row, and a line in [`JOBS`]. It is read and attached on the main thread before the start, and
//! runs on the workers. A job does not know where its records come from, nor what its sinks are.

mod count;
pub(super) mod distinct;
pub(super) mod grep;
pub(crate) mod latency;
pub(super) mod lines;
mod ordered;
pub(super) mod topk;
mod wordcount;

use std::fmt::Debug;

use super::DStream;
pub(crate) use super::WindowSpan as Window;
use crate::settings::key::Key;
use crate::settings::options::{AnyOptions, SameOptions};
use crate::settings::pattern::Pattern;
use crate::settings::section::Section;
use crate::settings::tree::Given;
use crate::sink::{Row, SharedSink};
use crate::sync::Arc;

pub use count::Count;
pub use wordcount::WordCount;

/// Every kind of job, in the order in which messages list them.
pub const JOBS: &[JobRow] =
    &[count::ROW, lines::ROW, grep::ROW, wordcount::ROW, topk::ROW, latency::ROW, distinct::ROW];

/// A kind of job, as a pipeline file and the command line give it and as the documents show it.
#[derive(Clone, Debug)]
pub struct JobRow {
    /// Its name in pipeline files and on the command line.
    pub name: &'static str,
    /// The rows that it makes, in a sentence or two.
    pub about: &'static str,
    /// The keys of its section.
    pub keys: &'static [Key],
    /// Its section as a line of a pipeline file.
    pub example: &'static str,
    /// The value of `--job NAME=VALUE`; `None` if the job takes none.
    pub value: Option<FlagValue>,
    /// Reads its section; `None` if that is wrong, and then the section has a problem more.
    pub(crate) read: fn(&mut Section<'_>) -> Option<JobKind>,
}

impl JobRow {
    /// The argument of `--job`, as `count` or `grep=REGEX`.
    pub fn flag(&self) -> String {
        match &self.value {
            None => self.name.to_owned(),
            Some(value) => format!("{}={}", self.name, value.shown),
        }
    }
}

/// The value that a job is given on the command line.
#[derive(Clone, Debug)]
pub struct FlagValue {
    /// The key of the job's section that it sets.
    pub key: &'static str,
    /// Its placeholder in help texts.
    pub shown: &'static str,
    /// True if the job cannot do without.
    pub required: bool,
    /// Makes the value of the key out of the text.
    pub given: fn(String) -> Given,
}

/// The options of one kind of job, read and good.
pub trait JobOptions: SameOptions + Debug + Send + Sync {
    /// The row of its kind in [`JOBS`].
    fn row(&self) -> &'static JobRow;

    /// Adds the job to the graph: it reads these records and writes its rows to the output.
    fn attach(&self, records: &DStream<[u8]>, output: JobOutput<'_>);
}

/// The options of a job of any kind, such as [`WordCount`].
pub type JobKind = AnyOptions<dyn JobOptions>;

impl<T: JobOptions> From<T> for JobKind {
    fn from(options: T) -> Self {
        AnyOptions::new(Arc::new(options))
    }
}

/// Everything about a job but its kind and its records.
#[derive(Debug)]
pub struct JobOutput<'a> {
    /// The job's name.
    pub name: &'a str,
    /// The window whose records the job sees; `None`: it sees those of each batch.
    pub window: Option<Window>,
    /// The destinations of its rows.
    pub sinks: Vec<SharedSink>,
}

impl<'a> JobOutput<'a> {
    /// The output of a job that sees the records of each batch.
    pub fn of_batches(name: &'a str, sinks: Vec<SharedSink>) -> Self {
        JobOutput { name, window: None, sinks }
    }

    /// The number of rows of a batch beyond which no sink looks.
    fn rows_max(&self) -> usize {
        self.sinks.iter().map(SharedSink::rows_max).max().unwrap_or(0)
    }

    /// Writes each batch of these rows to the sinks.
    fn save<T: Row + ?Sized + 'static>(self, rows: &DStream<T>) {
        rows.named(self.name).save_to(self.name, self.sinks);
    }
}

/// The records that match.
pub fn matching(records: &DStream<[u8]>, pattern: &Pattern) -> DStream<[u8]> {
    let pattern = pattern.regex().clone();
    records.filter(move |record| pattern.is_match(record))
}
