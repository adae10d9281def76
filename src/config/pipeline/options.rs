//! The options of the stream as the root of a pipeline says them. Main thread; it knows no source, job or sink, and checks only
//! what the options alone can tell.

use crate::config::{
    BatchTimer, CONCURRENT_JOBS_MAX, CatchUp, Config, OnFailure, Then, Trigger, WORKERS_MAX,
};
use crate::settings::diagnostics::Problem;
use crate::settings::section::Section;
use crate::time::Interval;

pub(super) struct ReadConfig {
    pub(super) config: Config,
    pub(super) batch: Interval,
}

pub(super) fn read_config(root: &mut Section<'_>) -> ReadConfig {
    let name = root.text("name").map_or_else(|| "tidemill".to_owned(), |found| found.value);
    let mut config = Config::new(name);
    let mut batch = config.batch_interval;
    if let Some(found) = root.interval("batch_interval") {
        batch = found.value;
        config = config.batch_interval(batch);
    }
    if let Some(found) = root.interval("block_interval") {
        config = config.block_interval(found.value);
    }
    if let Some(found) = root.number("workers", 1..=WORKERS_MAX) {
        config = config.workers(found.value);
    }
    if let Some(found) = root.number("concurrent_jobs", 1..=CONCURRENT_JOBS_MAX) {
        config = config.concurrent_jobs(found.value);
    }
    if let Some(found) = root.bytes("store_bytes_max") {
        config = config.store_bytes_max(found.value);
    }
    if let Some(found) = root.bytes("block_bytes_max") {
        config = config.block_bytes_max(found.value);
    }
    if let Some(found) = root.duration("stop_deadline") {
        config = config.stop_deadline(found.value);
    }
    if let Some(found) = root.duration("sink_retry") {
        config = config.sink_retry(found.value);
    }
    if let Some(directory) = root.path("spill_dir") {
        config = config.spill_dir(directory);
    }
    if let Some(found) = root.bytes("spill_bytes_max") {
        config = config.spill_bytes_max(found.value);
    }
    if let Some(found) = root.bytes("unfinished_bytes_max") {
        config = config.unfinished_bytes_max(found.value);
    }
    if let Some(found) = root.bytes("kept_bytes_max") {
        config = config.kept_bytes_max(found.value);
    }
    config = config.skip_empty(root.truth("skip_empty").unwrap_or(false));
    if let Some(section) = root.table("on_failure", "`on_failure`") {
        config = read_on_failure(section, config);
    }
    let catch_ups =
        [("replay", CatchUp::Replay), ("coalesce", CatchUp::Coalesce), ("skip", CatchUp::Skip)];
    if let Some(found) = root.choice("catch_up", "way to catch up", &catch_ups) {
        config = config.catch_up(found.value);
    }
    if let Some(Trigger { records, timeout }) = read_trigger(root) {
        config = config.trigger(records, timeout);
    }
    config = read_batch_timer(root, config);
    for (key, why) in config.refused() {
        root.problems.add(Problem::new(&root.at_of(key), why));
    }
    // Decided once: the machine's memory may look different at the next look.
    let store = config.decide().store_bytes_max;
    ReadConfig { config: config.store_bytes_max(store), batch }
}

fn read_on_failure(mut section: Section<'_>, mut config: Config) -> Config {
    let OnFailure { retries, then } = OnFailure::default();
    let retries = section.number("retry", 0..=1_000).map_or(retries, |found| found.value);
    let ways = [("stop", Then::Stop), ("dead_letter", Then::DeadLetter)];
    let then = section.choice("then", "choice", &ways).map_or(then, |found| found.value);
    if let Some(directory) = section.path("directory") {
        if then != Then::DeadLetter {
            let title = "`directory` has no effect without `then = \"dead_letter\"`";
            section.problems.add(Problem::warning(&section.key_at("directory"), title));
        }
        config = config.dead_letter_directory(directory);
    }
    section.finish();
    config.on_failure(OnFailure { retries, then })
}

/// Comes after the trigger, with which it has no effect.
fn read_batch_timer(root: &mut Section<'_>, config: Config) -> Config {
    let timers = [("thread", BatchTimer::Thread), ("loop", BatchTimer::Loop)];
    let Some(found) = root.choice("batch_timer", "batch timer", &timers) else { return config };
    if config.trigger.is_some() {
        let title = "`batch_timer` has no effect with `trigger`: no batch waits for a tick";
        root.problems.add(Problem::warning(&root.key_at("batch_timer"), title));
    }
    config.batch_timer(found.value)
}

fn read_trigger(root: &mut Section<'_>) -> Option<Trigger> {
    let mut section = root.table("trigger", "`trigger`")?;
    if root.has("batch_interval") {
        let title = "a pipeline has `trigger` or `batch_interval`, not both";
        let problem = Problem::new(&root.key_at("trigger"), title);
        root.problems.add(problem.also(&root.key_at("batch_interval"), "given here"));
    }
    let records = section.number("records", 1..=u64::MAX);
    let timeout = section.interval("timeout");
    for key in ["records", "timeout"].into_iter().filter(|key| !section.has(key)) {
        let problem = Problem::new(&section.at, format!("`trigger` needs `{key}`"));
        root.problems
            .add(problem.hint("write `trigger = { records = 1000, timeout = \"200ms\" }`"));
    }
    section.finish();
    Some(Trigger { records: records?.value, timeout: timeout?.value })
}
