//! Jobs of a pipeline: what is done with the records of a batch. Plain data, and how it is read; runs nothing.

use crate::time::Interval;

use super::Pattern;
use crate::settings::diagnostics::Problem;
use crate::settings::section::{Found, Section};

/// Everything that a job can do.
const KINDS: [&str; 6] = ["count", "lines", "grep", "wordcount", "topk", "latency"];
/// Rows of `topk` if `n` is not given.
const TOP: usize = 10;

/// What is done with the records of each batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Names of sources, at least one, each known.
    pub from: Vec<String>,
    /// Names of sinks, at least one, each known.
    pub to: Vec<String>,
    /// Only records that match are looked at.
    pub filter: Option<Pattern>,
    /// What is done.
    pub kind: JobKind,
    /// Each batch sees the records of this much time; a multiple of the batch interval.
    pub window: Option<Interval>,
    /// How often the window is looked at; a multiple of the batch interval.
    pub slide: Option<Interval>,
}

/// What a job does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobKind {
    /// One number: how many records.
    Count,
    /// The records.
    Lines,
    /// The records that match.
    Grep(Pattern),
    /// Words with their counts, the most frequent first.
    WordCount,
    /// The most frequent words or fields with their counts.
    TopK(TopK),
    /// Quantiles of the time from a record's stamp to its batch's end.
    Latency,
}

impl JobKind {
    /// The name in pipeline files and on the command line.
    pub fn name(&self) -> &'static str {
        match self {
            JobKind::Count => "count",
            JobKind::Lines => "lines",
            JobKind::Grep(_) => "grep",
            JobKind::WordCount => "wordcount",
            JobKind::TopK(_) => "topk",
            JobKind::Latency => "latency",
        }
    }
}

/// What `topk` counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopK {
    /// The most rows, at least one; 10 by default.
    pub n: usize,
    /// The field that is counted, from 1; every word by default.
    pub field: Option<usize>,
    /// What separates fields, not empty; white space by default.
    pub separator: Option<String>,
}

impl Default for TopK {
    /// The ten most frequent words.
    fn default() -> Self {
        TopK { n: TOP, field: None, separator: None }
    }
}

/// A job whose names are not looked up yet.
pub(super) struct Draft {
    pub(super) from: Vec<Found<String>>,
    pub(super) to: Vec<Found<String>>,
    pub(super) filter: Option<Pattern>,
    /// None if it is wrong.
    pub(super) kind: Option<JobKind>,
    pub(super) window: Option<Found<Interval>>,
    pub(super) slide: Option<Found<Interval>>,
}

/// Reads `[job.NAME]`.
pub(super) fn read(mut section: Section<'_>) -> Draft {
    let from = names(&mut section, "from", "sources");
    let to = names(&mut section, "to", "sinks");
    let filter = section.pattern("where").map(|found| found.value);
    let window = section.interval("window");
    let slide = section.interval("slide");
    if section.has("slide") && !section.has("window") {
        let problem = Problem::new(&section.key_at("slide"), "`slide` needs a `window`");
        section.problems.add(problem);
    }
    let (kind, nothing) = read_kind(&mut section);
    let (problems, at) = (section.problems, section.at.clone());
    let unknown = section.finish();
    // An unknown key is probably the thing to do, misspelt.
    if nothing && !unknown {
        let problem = Problem::new(&at, "a job needs something to do").label("does nothing");
        problems.add(problem.hint(format!("give one of `{}`", KINDS.join("`, `"))));
    }
    Draft { from, to, filter, kind, window, slide }
}

fn names(section: &mut Section<'_>, key: &'static str, of: &str) -> Vec<Found<String>> {
    if !section.has(key) {
        let problem = Problem::new(&section.at, format!("a job needs `{key}`, a list of {of}"));
        section.problems.add(problem);
    }
    section.texts(key).unwrap_or_default()
}

/// What the job does, unless that is wrong; and whether it does nothing at all.
fn read_kind(section: &mut Section<'_>) -> (Option<JobKind>, bool) {
    let mut kinds = Vec::new();
    for name in KINDS {
        if let Some(inner) = section.table(name, &format!("`{name}`")) {
            kinds.push(read_one(name, inner));
        }
    }
    let mut given: Vec<_> = KINDS.into_iter().filter(|kind| section.has(kind)).collect();
    given.sort_by_key(|kind| section.key_at(kind));
    match given.as_slice() {
        [] => return (None, true),
        [_] => return (kinds.pop().flatten(), false),
        [first, second, ..] => {
            let title = format!("a job does one thing, not `{first}` and `{second}`");
            let problem = Problem::new(&section.key_at(second), title).label("the second");
            section.problems.add(problem.also(&section.key_at(first), "the first"));
        }
    }
    (None, false)
}

fn read_one(name: &str, mut section: Section<'_>) -> Option<JobKind> {
    let kind = match name {
        "count" => Some(JobKind::Count),
        "lines" => Some(JobKind::Lines),
        "wordcount" => Some(JobKind::WordCount),
        "latency" => Some(JobKind::Latency),
        "topk" => Some(JobKind::TopK(read_topk(&mut section))),
        _ => {
            if !section.has("pattern") {
                let problem = Problem::new(&section.at, "`grep` needs a `pattern`");
                section.problems.add(problem.hint("write `grep = { pattern = \"error\" }`"));
            }
            section.pattern("pattern").map(|found| JobKind::Grep(found.value))
        }
    };
    section.finish();
    kind
}

fn read_topk(section: &mut Section<'_>) -> TopK {
    let n = section.number("n", 1..=1_000_000).map_or(TOP, |found| found.value);
    let field = section.number("field", 1..=1_000_000).map(|found| found.value);
    let separator = section.text("separator");
    if let Some(found) = &separator {
        if found.value.is_empty() {
            section.problems.add(Problem::new(&found.at, "`separator` is empty"));
        }
        if !section.has("field") {
            let problem = Problem::new(&section.key_at("separator"), "`separator` needs a `field`");
            section.problems.add(problem.hint("fields are counted from 1: `field = 1`"));
        }
    }
    TopK { n, field, separator: separator.map(|found| found.value) }
}
