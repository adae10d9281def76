//! The parts of a pipeline together: names that jobs give, and values that must fit together. Main thread; reads no file.

use crate::config::jobs::{Draft, Job};
use crate::config::{Config, STORE_BYTES_MIN};
use crate::settings::diagnostics::{At, Problem, Problems};
use crate::settings::section::{Found, Section};
use crate::settings::units::show_bytes;
use crate::settings::{suggest, tree};
use crate::sink::SinkKind;
use crate::source::{Ack, Source};
use crate::time::Interval;
use crate::wording::plural;

/// The sources or the sinks: every name that was given, so that one error in them causes no second one elsewhere.
pub(super) struct Names<T> {
    holder: &'static str,
    given: Vec<(String, At, Option<T>)>,
}

impl<T> Names<T> {
    pub(super) fn read<'a>(
        holder: &'static str,
        root: &mut Section<'a>,
        read: impl Fn(Section<'a>) -> Option<T>,
    ) -> Self {
        let one = |(entry, section): (&tree::Entry, Option<_>)| {
            (entry.key.clone(), entry.key_at.clone(), section.and_then(&read))
        };
        Names { holder, given: root.named(holder).into_iter().map(one).collect() }
    }

    /// A problem for each name that is not there.
    fn check(&self, wanted: &[Found<String>], problems: &Problems) {
        let names: Vec<_> = self.given.iter().map(|(name, ..)| name.as_str()).collect();
        for found in wanted.iter().filter(|found| !names.contains(&found.value.as_str())) {
            let title = format!("unknown {} `{}`", self.holder, found.value);
            let hint = suggest::hint(&found.value, &plural(self.holder), &names);
            problems.add(Problem::new(&found.at, title).hint(hint));
        }
    }

    /// Every name that was given, with what it stands for, if that is good.
    pub(super) fn all(&self) -> impl Iterator<Item = (&str, Option<&T>)> {
        self.given.iter().map(|(name, _, value)| (name.as_str(), value.as_ref()))
    }

    /// A warning for each that no job names.
    fn warn_unused(&self, used: &[String], problems: &Problems) {
        for (name, at, _) in self.given.iter().filter(|(name, ..)| !used.contains(name)) {
            let title = format!("no job uses the {} `{name}`", self.holder);
            problems.add(Problem::warning(at, title));
        }
    }

    pub(super) fn good(self) -> Vec<(String, T)> {
        self.given.into_iter().filter_map(|(name, _, value)| Some((name, value?))).collect()
    }
}

/// Looks up the names that jobs give.
pub(super) fn link(
    drafts: Vec<(String, Draft)>,
    sources: &Names<Source>,
    sinks: &Names<SinkKind>,
    problems: &Problems,
) -> Vec<(String, Job)> {
    let mut jobs = Vec::new();
    let (mut used_sources, mut used_sinks) = (Vec::new(), Vec::new());
    for (name, draft) in drafts {
        sources.check(&draft.from, problems);
        sinks.check(&draft.to, problems);
        let Draft { from, to, filter, kind, window, slide } = draft;
        let (window, slide) = (window.map(|found| found.value), slide.map(|found| found.value));
        let (from, to) = (values(from), values(to));
        used_sources.extend_from_slice(&from);
        used_sinks.extend_from_slice(&to);
        // A job that does nothing good has a problem already; its names still count as used.
        if let Some(kind) = kind {
            jobs.push((name, Job { from, to, filter, kind, window, slide }));
        }
    }
    sources.warn_unused(&used_sources, problems);
    sinks.warn_unused(&used_sinks, problems);
    jobs
}

/// Windows and slides are multiples of the batch interval, and have none if batches are cut by a trigger.
pub(super) fn check_windows(root: &Section<'_>, drafts: &[(String, Draft)], batch: Interval) {
    for (_, draft) in drafts {
        for (key, found) in [("window", &draft.window), ("slide", &draft.slide)] {
            let Some(found) = found else { continue };
            let value = found.value;
            if root.has("trigger") {
                let problem =
                    Problem::new(&found.at, format!("`{key}` cannot be used with `trigger`"));
                root.problems.add(problem.also(&root.key_at("trigger"), "given here"));
            } else if !value.is_multiple_of(batch) {
                let title =
                    format!("`{key}` {value} is not a multiple of the batch interval {batch}");
                root.problems.add(Problem::new(&found.at, title));
            }
        }
    }
}

/// A record that is larger than the whole store could never be kept, and one that is larger than all unfinished ones may be
/// would never end.
pub(super) fn check_store(root: &Section<'_>, sources: &Names<Source>, config: &Config) {
    let decided = config.decide();
    // A wrong value is an error already.
    let given = root.has("unfinished_bytes_max") && decided.unfinished_bytes_max > 0;
    let bounds = [
        ("store_bytes_max", decided.store_bytes_max.max(STORE_BYTES_MIN)),
        ("unfinished_bytes_max", if given { decided.unfinished_bytes_max } else { u64::MAX }),
    ];
    for (name, at, source) in &sources.given {
        let Some(Source::Socket(socket)) = source else { continue };
        let record = socket.record_bytes_max as u64;
        if let Some((key, bound)) = bounds.iter().find(|(_, bound)| record > *bound) {
            let (record, bound) = (show_bytes(record), show_bytes(*bound));
            let title =
                format!("`record_bytes_max` of `{name}` is {record}, more than `{key}`, {bound}");
            root.problems.add(Problem::new(at, title));
        }
    }
}

/// The time that rsyslog's omrelp waits for an answer by default, before it breaks the connection and sends again (`timeout`).
const OMRELP_TIMEOUT: Interval = Interval::secs(90);

/// If a batch acknowledges, a sender waits for the interval, and for the run of the batch on top.
pub(super) fn warn_of_late_answers(root: &Section<'_>, sources: &Names<Source>, wait: Interval) {
    if wait.as_millis() < OMRELP_TIMEOUT.as_millis() / 3 {
        return;
    }
    let answers_late = |source: &Option<Source>| match source {
        Some(Source::Socket(socket)) => socket.framing.acknowledges() && socket.ack == Ack::Batch,
        _ => false,
    };
    for (name, at, _) in sources.given.iter().filter(|(_, _, source)| answers_late(source)) {
        let title = format!(
            "`{name}` acknowledges a record when its batch is committed, {wait} and more after it came; rsyslog's omrelp \
             breaks the connection after {OMRELP_TIMEOUT} without an answer, and sends again"
        );
        let hint =
            "a shorter `batch_interval`, `ack = \"log\"`, or more than that as omrelp's `timeout`";
        root.problems.add(Problem::warning(at, title).hint(hint));
    }
}

/// Acknowledging after the sync of a log needs a log.
pub(super) fn check_acknowledging(root: &Section<'_>, sources: &Names<Source>, remembers: bool) {
    for (name, at, source) in &sources.given {
        if let Some(Source::Socket(socket)) = source
            && socket.framing.acknowledges()
            && socket.ack == Ack::Log
            && !remembers
        {
            let title = format!(
                "`{name}` acknowledges records after the sync of the log, and without `state_dir` there is none"
            );
            let hint = "write `state_dir = \"DIRECTORY\"` for the pipeline, or `ack = \"received\"` or `ack = \"batch\"` \
                 for this source";
            root.problems.add(Problem::new(at, title).hint(hint));
        }
    }
}

pub(super) fn values(found: Vec<Found<String>>) -> Vec<String> {
    found.into_iter().map(|found| found.value).collect()
}
