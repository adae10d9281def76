//! The methods of `Graph` that the context and the scheduler call: registration, states, batches.
//!
//! Nodes register while the program is built; after that the graph only passes batches on. Runs on the thread that builds the
//! program and then on the scheduler's. Knows no streams and no operators.

use std::time::Duration;

use super::dedup::Repeats;
use super::kept::Kept;
use super::late::{Late, OnLate, RunLease};
use super::plan::committed::CommittedBatches;
use super::plan::wiring::Wiring;
use super::plan::{Job, Output};
use super::state::commit::{Changelog, StateInfo};
use super::{BatchInput, Graph, GraphOptions, NodePlanner, Registered, Settings, SourceInfo};
use crate::memory::buffer_pool::Pool;
use crate::sink::SharedSink;
use crate::sync::{Arc, AtomicU64, Mutex, Ordering};
use crate::time::Time;

impl Graph {
    /// An empty graph.
    pub fn new(options: GraphOptions) -> Arc<Graph> {
        Arc::new(Graph {
            pipeline: options.pipeline.into(),
            console: options.console,
            settings: Settings {
                workers: options.workers.max(1),
                seed: options.seed,
                batch_interval: options.batch_interval,
            },
            bad_utf8: Arc::new(AtomicU64::new(0)),
            repeats: Repeats::default(),
            wiring: Mutex::new(Arc::new(Wiring::new(options.seed))),
            committed: Mutex::default(),
            kept: Kept::default(),
            compactor: Arc::default(),
            replayed: Mutex::default(),
            late: Late::default(),
            undue: Mutex::default(),
            registered: Mutex::new(Registered::default()),
        })
    }

    /// The sinks of all outputs, each once, in the order of the outputs.
    pub fn sinks(&self) -> Vec<SharedSink> {
        self.registered.lock().sinks.clone()
    }

    /// The pipeline's name.
    pub fn pipeline(&self) -> &str {
        &self.pipeline
    }

    /// The sources of blocks, in the order in which they were made.
    pub fn sources(&self) -> Vec<SourceInfo> {
        self.registered.lock().sources.clone()
    }

    /// The outputs, in the order in which they were registered: each is a job of every batch.
    pub fn outputs(&self) -> Vec<Arc<Output>> {
        self.registered.lock().outputs.clone()
    }

    /// Number of records of text streams that were not UTF-8 and were fixed, counted each time one is read.
    pub fn bad_utf8(&self) -> u64 {
        self.bad_utf8.load(Ordering::Relaxed)
    }

    /// The names of the operators with state, in the order in which they were built.
    pub fn state_names(&self) -> Vec<Arc<str>> {
        self.registered.lock().stateful.iter().map(|(_, name)| Arc::clone(name)).collect()
    }

    /// The states with a changelog, in the order in which they were built: those of keys, not windows.
    pub fn states(&self) -> Vec<StateInfo> {
        self.changelogs().into_iter().map(|(info, _)| info).collect()
    }

    pub(super) fn changelogs(&self) -> Vec<(StateInfo, Arc<dyn Changelog>)> {
        let registered = self.registered.lock();
        let name = |node: u32| {
            let known = registered.stateful.iter().find(|(other, _)| *other == node);
            known.map(|(_, name)| name.to_string()).unwrap_or_default()
        };
        let info = |(node, holds, changelog): &(u32, String, Arc<dyn Changelog>)| {
            (StateInfo { name: name(*node), holds: holds.clone() }, Arc::clone(changelog))
        };
        registered.changelogs.iter().map(info).collect()
    }

    /// The seed of every hash; a replay uses the one of the first run.
    pub fn seed(&self) -> u64 {
        self.wiring.lock().seed
    }

    /// Sets the seed of every hash, before the first batch.
    pub fn set_seed(&self, seed: u64) {
        self.wire(|wiring| wiring.seed = seed);
    }

    /// From now on this pool's account counts what unfinished batches have made, and rows lie in its buffers.
    pub fn make_results_in(&self, pool: &Arc<Pool>) {
        self.wire(|wiring| wiring.pool = Arc::clone(pool));
    }

    /// True if no batch leaves anything behind that the next one needs: no state, no windows.
    pub fn is_stateless(&self) -> bool {
        self.registered.lock().keepers.is_empty()
    }

    /// The age of the oldest batch that restores all windows.
    pub fn longest_window(&self) -> Duration {
        self.registered.lock().reach.0
    }

    /// The age of the oldest batch that, with the states as they were, restores the windows below states: those show
    /// what states made of records.
    pub fn longest_window_below_state(&self) -> Duration {
        self.registered.lock().reach.1
    }

    /// Checks that the graph can run.
    ///
    /// # Errors
    /// Lists the problems, each on a line: lengths that do not fit, streams of two contexts, names of states given
    /// twice.
    pub fn check(&self) -> crate::error::Result<()> {
        let registered = self.registered.lock();
        let mut problems = registered.problems.clone();
        for (number, (_, name)) in registered.stateful.iter().enumerate() {
            if registered.stateful[..number].iter().any(|(_, other)| other == name) {
                problems.push(format!("two operators with state are called `{name}`"));
            }
        }
        let said = (!problems.is_empty()).then(|| problems.join("\n"));
        said.map_or(Ok(()), |text| Err(crate::error::Error::Usage(text)))
    }

    /// Begins a run of the graph; `on_late` is notified of what comes too late. `None` if a run lasts already.
    pub fn begin_run(&self, on_late: OnLate) -> Option<RunLease> {
        self.late.begin(on_late)
    }

    /// True while a run lasts.
    pub fn is_running(&self) -> bool {
        self.late.is_running()
    }

    /// Notifies the run of something that came too late for it; false if there is no run.
    pub fn tell_late(&self, what: impl FnOnce() -> String) -> bool {
        self.late.tell(what)
    }

    /// A queue, which cannot be read again, and an operator below it that needs to read it again after a restart.
    pub fn queue_window(&self) -> Option<(Arc<str>, String)> {
        self.registered.lock().queue_window.clone()
    }

    /// The first operator that slides over a length of time, if there is one.
    pub fn window(&self) -> Option<String> {
        self.registered.lock().windows.first().cloned()
    }

    /// Called before the first batch if the jobs of a batch run at the same time: then each computes by itself what is not
    /// shuffled or kept.
    pub fn run_jobs_at_once(&self) {
        self.wire(Wiring::run_jobs_at_once);
    }

    /// Called once before the first batch, with its time: slides are counted from one interval before it.
    pub fn begin(&self, first: Time) {
        let interval = self.settings.batch_interval;
        self.settle(|committed| committed.begin(first, interval));
    }

    /// Notes that an earlier run has committed the batch: its changes are in the states.
    pub fn was_committed(&self, time: Time) {
        let longest = self.longest_window();
        self.settle(|committed| committed.commit(time, longest));
    }

    /// A batch of this run is committed.
    pub(super) fn has_committed(&self, input: &BatchInput, is_replay: bool) {
        if is_replay {
            *self.replayed.lock() = Some(input.time);
        }
        self.begin(input.time);
        self.was_committed(input.time);
    }

    /// True if a window or a time-out may fall due after the batch `last` and up to `time`: then the batch runs even if
    /// nothing was received.
    pub fn must_run(&self, last: Option<Time>, time: Time) -> bool {
        self.wiring().must_run(&self.committed(), last, time)
    }

    /// The facts that are fixed before the first batch.
    pub(super) fn wiring(&self) -> Arc<Wiring> {
        Arc::clone(&self.wiring.lock())
    }

    /// Changes those facts, for the batches that begin later.
    pub(super) fn wire(&self, change: impl FnOnce(&mut Wiring)) {
        change(Arc::make_mut(&mut self.wiring.lock()));
    }

    /// What is committed.
    pub(super) fn committed(&self) -> Arc<CommittedBatches> {
        Arc::clone(&self.committed.lock())
    }

    /// Changes what is committed, for the batches that begin later.
    fn settle(&self, change: impl FnOnce(&mut CommittedBatches)) {
        change(Arc::make_mut(&mut self.committed.lock()));
    }

    /// The job of the output at this place.
    pub(super) fn job(&self, output: usize) -> Option<Arc<Job>> {
        Some(Arc::clone(&self.registered.lock().outputs.get(output)?.job))
    }

    /// The nodes that keep something from batch to batch, with what plans them.
    pub(super) fn keepers(&self) -> Vec<(u32, NodePlanner)> {
        self.registered.lock().keepers.clone()
    }

    /// These sinks belong to the program, whether an output uses them or not.
    pub(crate) fn add_sinks(&self, sinks: &[SharedSink]) {
        let mut registered = self.registered.lock();
        for sink in sinks {
            if !registered.sinks.iter().any(|known| known.is_same(sink)) {
                registered.sinks.push(sink.clone());
            }
        }
    }

    /// Notes that the batch lacks a part of its input from this source: its rows, and those of the windows that reach back
    /// to it, are incomplete.
    pub fn lacks_input(&self, time: Time, source: u32) {
        self.settle(|committed| committed.lacks.input(time, source));
    }

    /// Notes that windows below states take in nothing of this batch, which was done before a restart.
    pub fn lacks_states(&self, time: Time) {
        self.settle(|committed| committed.lacks.states(time));
    }

    pub(super) fn next_node(&self) -> u32 {
        let mut registered = self.registered.lock();
        registered.nodes += 1;
        registered.nodes
    }

    pub(super) fn problem(&self, text: String) {
        self.registered.lock().problems.push(text);
    }

    /// An operator was given a time of no length.
    pub(super) fn too_short(&self, operator: &str, what: &str) {
        self.problem(format!("{operator}: the {what} must be at least 1ms"));
    }

    /// A node with state is called `kind#n` in build order until it gets a name.
    pub(super) fn add_stateful(&self, node: u32, kind: &str) {
        let mut registered = self.registered.lock();
        let name = format!("{kind}#{}", registered.stateful.len()).into();
        registered.stateful.push((node, name));
    }

    /// A state with a changelog; returns its number.
    pub(super) fn add_changelog(
        &self,
        node: u32,
        holds: String,
        changelog: Arc<dyn Changelog>,
    ) -> u32 {
        let mut registered = self.registered.lock();
        registered.changelogs.push((node, holds, changelog));
        u32::try_from(registered.changelogs.len() - 1).expect("operators are fewer than 2^32")
    }

    pub(super) fn rename_state(&self, node: u32, name: &Arc<str>) {
        let mut registered = self.registered.lock();
        if let Some(state) = registered.stateful.iter_mut().find(|state| state.0 == node) {
            state.1 = Arc::clone(name);
        }
    }
}
