//! Jobs of a pipeline: sources, sinks, filter and window, which every job has, and the options of its kind. Plain data, read on
//! the main thread; runs nothing. It knows no kind by name: they are rows of [`JOBS`].

use crate::settings::diagnostics::Problem;
use crate::settings::pattern::Pattern;
use crate::settings::section::{Found, Section};
use crate::stream::jobs::{JOBS, JobKind};
use crate::time::Interval;

/// A job of every batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Names of sources, at least one, each known.
    pub from: Vec<String>,
    /// Names of sinks, at least one, each known.
    pub to: Vec<String>,
    /// Only records that match are looked at.
    pub filter: Option<Pattern>,
    /// Its kind, with the options of the kind.
    pub kind: JobKind,
    /// Each batch sees the records of this much time; a multiple of the batch interval.
    pub window: Option<Interval>,
    /// The time from one window to the next; a multiple of the batch interval.
    pub slide: Option<Interval>,
}

/// A job whose names are not looked up yet.
pub(super) struct Draft {
    pub(super) from: Vec<Found<String>>,
    pub(super) to: Vec<Found<String>>,
    pub(super) filter: Option<Pattern>,
    /// `None` if it is wrong.
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
        problems.add(
            problem
                .hint(format!("give one of `{}`", kind_names().collect::<Vec<_>>().join("`, `"))),
        );
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

/// Reads the section of the job's kind: its options unless they are wrong, and true if no kind is given at all.
fn read_kind(section: &mut Section<'_>) -> (Option<JobKind>, bool) {
    let mut kinds = Vec::new();
    for row in JOBS {
        if let Some(mut inner) = section.table(row.name, &format!("`{}`", row.name)) {
            kinds.push((row.read)(&mut inner));
            inner.finish();
        }
    }
    let mut given: Vec<_> = kind_names().filter(|kind| section.has(kind)).collect();
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

fn kind_names() -> impl Iterator<Item = &'static str> {
    JOBS.iter().map(|row| row.name)
}
