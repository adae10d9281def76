//! `DStream` and the graph: sources, operators and outputs, and the plan that they make of each batch.
//!
//! ```text
//! source ─▶ operator ─▶ operator ─▶ output        one output is one job; the graph lists them in order
//!   compute() ◀── compute() ◀── compute() ◀── Output::plan(input)      stages gather in the planner on the way back
//! ```
//! Nodes are built once and asked for each batch and attempt; what they return is lazy. Planning runs on the scheduler's
//! thread and costs nothing per record; the plan runs on the workers. Nothing here knows receivers or the context.

mod dedup;
mod delivery;
mod input;
pub mod jobs;
mod kept;
mod late;
mod missing;
mod node;
mod ops;
mod outputs;
mod plan;
mod sources;
mod state;

#[cfg(all(test, not(tidemill_model)))]
mod memory_tests;
#[cfg(all(test, not(tidemill_model)))]
mod tests;
mod window;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::exec::Plan;
use crate::memory::buffer_pool::Pool;
use crate::sink::{SharedSink, Writer};
use crate::sync::thread::panic_text;
use crate::sync::{Arc, AtomicU64, Mutex, Ordering};
use crate::time::{Clock, Interval, Time};

pub(crate) use dedup::identity_state;
pub use dedup::{INTERVALS_MAX, Identity, SENDERS_MAX};
pub use input::{BatchInput, Replay};
pub(crate) use jobs::latency::stamp;
pub(crate) use kept::KEEP_LESS;
pub use kept::KeptPart;
pub use late::{OnLate, RunLease};
pub use outputs::Collected;
pub(crate) use plan::JobPast;
pub use plan::Output;
pub use state::Stateful;
pub(crate) use state::changelog::{Census, Counting};
pub use state::changelog::{Changes, Restore, StateInfo};
pub use state::spec::{State, StateCounts, StateKey, StateSpec, StateValue, WhenFull};
pub use window::persist::Remembered;

use dedup::Repeats;
use late::Late;
use missing::Missing;
use node::{Compute, Node};
use plan::batch_scope::BatchScope;
use plan::{Job, Planner};
use state::changelog::{Changelog, Compactor};
use window::undue::Undue;

/// What the graph is told when it is made.
#[derive(Clone, Debug)]
pub struct GraphOptions {
    /// The pipeline's name.
    pub pipeline: String,
    /// How many workers run the plans.
    pub workers: usize,
    /// The seed of every hash.
    pub seed: u64,
    /// From one batch to the next; windows are multiples of it.
    pub batch_interval: Interval,
    /// Where `print` prints.
    pub console: Writer,
}

/// A source of blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceInfo {
    /// Its number: the index into [`BatchInput::blocks`].
    pub source: u32,
    /// Its name.
    pub name: Arc<str>,
}

/// The streams of one context: sources and outputs, and the nodes between them.
pub struct Graph {
    pipeline: Arc<str>,
    console: Writer,
    settings: Settings,
    bad_utf8: Arc<AtomicU64>,
    repeats: Repeats,
    epoch: Arc<BatchScope>,
    walker: Arc<Mutex<Compactor>>,
    /// The last batch that was run again: its changes are kept already.
    replayed: Mutex<Option<Time>>,
    late: Late,
    undue: Mutex<Undue>,
    registered: Mutex<Registered>,
    /// The jobs of the outputs, by their numbers.
    jobs: Arc<Mutex<Vec<Arc<Job>>>>,
}

#[derive(Clone, Copy, Debug)]
struct Settings {
    workers: usize,
    seed: u64,
    batch_interval: Interval,
}

#[derive(Default)]
struct Registered {
    sources: Vec<SourceInfo>,
    outputs: Vec<Arc<Output>>,
    /// The sinks of the outputs, each once.
    sinks: Vec<SharedSink>,
    nodes: u32,
    /// Operators with state: the node, and the name by which the state is found again.
    stateful: Vec<(u32, Arc<str>)>,
    /// Those of them that are saved: the node, what it holds, and the way to it. Windows are not: they are recomputed.
    saved: Vec<(u32, String, Arc<dyn Changelog>)>,
    /// The nodes that keep something from batch to batch, with what plans them.
    keepers: Vec<(u32, NodePlanner)>,
    /// How far back windows look, and windows below a state.
    reach: (Duration, Duration),
    /// What is wrong with the graph.
    problems: Vec<String>,
    /// The operators that slide over time.
    windows: Vec<String>,
    /// The first of them that a queue lies above, and that queue.
    queue_window: Option<(Arc<str>, String)>,
}

/// Plans a node.
type NodePlanner = Arc<dyn Fn(&mut Planner<'_>) -> Result<(), Missing> + Send + Sync>;

impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Graph").field("pipeline", &self.pipeline).finish_non_exhaustive()
    }
}

impl Graph {
    /// An empty graph.
    pub fn new(options: GraphOptions) -> Arc<Graph> {
        let epoch: Arc<BatchScope> = Arc::default();
        epoch.set_seed(options.seed);
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
            epoch,
            walker: Arc::default(),
            replayed: Mutex::default(),
            late: Late::default(),
            undue: Mutex::default(),
            registered: Mutex::new(Registered::default()),
            jobs: Arc::default(),
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

    /// How many records of text streams were not UTF-8 and were mended, counted each time one is read.
    pub fn bad_utf8(&self) -> u64 {
        self.bad_utf8.load(Ordering::Relaxed)
    }

    /// The names of the operators with state, in the order in which they were built.
    pub fn state_names(&self) -> Vec<Arc<str>> {
        self.registered.lock().stateful.iter().map(|(_, name)| Arc::clone(name)).collect()
    }

    /// The states that are saved, in the order in which they were built: those of keys, not windows.
    pub fn states(&self) -> Vec<StateInfo> {
        self.saved().into_iter().map(|(info, _)| info).collect()
    }

    fn saved(&self) -> Vec<(StateInfo, Arc<dyn Changelog>)> {
        let registered = self.registered.lock();
        let name = |node: u32| {
            let known = registered.stateful.iter().find(|(other, _)| *other == node);
            known.map(|(_, name)| name.to_string()).unwrap_or_default()
        };
        let info = |(node, holds, saved): &(u32, String, Arc<dyn Changelog>)| {
            (StateInfo { name: name(*node), holds: holds.clone() }, Arc::clone(saved))
        };
        registered.saved.iter().map(info).collect()
    }

    /// The seed of every hash; a replay uses the one of the first run.
    pub fn seed(&self) -> u64 {
        self.epoch.seed()
    }

    /// Sets the seed of every hash, before the first batch.
    pub fn set_seed(&self, seed: u64) {
        self.epoch.set_seed(seed);
    }

    /// From now on this pool's account counts what unfinished batches have made, and rows lie in its buffers.
    pub fn make_results_in(&self, pool: &Arc<Pool>) {
        self.epoch.set_pool(pool);
    }

    /// From now on, which is before the first batch, [`changes`](Graph::changes) has what each batch changed in states.
    pub fn keep_changes(&self) {
        self.epoch.keep_changes();
    }

    /// What the batch that was committed last changed in states. Asked once after each commit; nothing unless changes
    /// are [kept](Graph::keep_changes), and nothing of a batch that was [run again](Graph::replay). `input_bytes`: what
    /// the batch's input takes where the changes are kept, and stays there as long as they do.
    pub fn changes(&self, time: Time, input_bytes: u64) -> Option<Changes> {
        if *self.replayed.lock() == Some(time) {
            return None;
        }
        let left = std::mem::take(&mut *self.epoch.left()?.lock());
        let saved: Vec<_> = self.saved().into_iter().map(|(_, saved)| saved).collect();
        Some(self.walker.lock().changes((time, input_bytes), left, &saved))
    }

    /// From now on: whether the log has no room, so that what is kept for states is to be less soon.
    pub fn hurry_walks(&self, hurries: bool) {
        self.walker.lock().hurry(hurries);
    }

    /// What writing all states once takes, about, in bytes.
    pub fn walk_bytes(&self) -> u64 {
        self.walker.lock().walk_bytes()
    }

    /// Whether a batch leaves nothing behind that the next one needs: no state, no windows.
    pub fn is_stateless(&self) -> bool {
        self.registered.lock().keepers.is_empty()
    }

    /// How far back the batches are needed to make all windows what they were.
    pub fn longest_window(&self) -> Duration {
        self.registered.lock().reach.0
    }

    /// How far back the batches are needed, together with the states as they were, to make the windows below states
    /// what they were: those show what states made of records.
    pub fn longest_window_below_state(&self) -> Duration {
        self.registered.lock().reach.1
    }

    /// Runs a batch of before again: what is kept from batch to batch takes it in, at the commit. Batches come in order.
    ///
    /// # Errors
    /// If the batch cannot be computed; the text says why.
    pub fn replay(
        &self,
        input: &Arc<BatchInput>,
        clock: &Arc<dyn Clock>,
        replay: Replay,
    ) -> Result<Plan, String> {
        *self.replayed.lock() = Some(input.time);
        self.epoch.begin(input.time, self.settings.batch_interval);
        let keepers = self.registered.lock().keepers.clone();
        let mut planner = Planner::new(input, clock, &self.epoch, self.settings);
        planner.replay = Some(replay);
        for (_, keeper) in keepers.iter().filter(|(node, _)| self.epoch.is_used(*node)) {
            match catch_unwind(AssertUnwindSafe(|| keeper(&mut planner))) {
                Ok(Ok(()) | Err(Missing::NoBatch(_) | Missing::NotDue)) => {}
                Ok(Err(Missing::Failed(text))) => return Err(text),
                Err(panic) => return Err(format!("panicked: {}", panic_text(panic.as_ref()))),
            }
        }
        Ok(Plan { stages: planner.stages, finish: Box::new(|_| Ok(())) })
    }

    /// Says whether the graph can run.
    ///
    /// # Errors
    /// What is wrong with it, each problem on a line: window lengths that do not fit, names of states given twice.
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

    /// A run of the graph begins, which is told of what comes too late; none if one lasts.
    pub fn begin_run(&self, on_late: OnLate) -> Option<RunLease> {
        self.late.begin(on_late)
    }

    /// Whether a run lasts.
    pub fn is_running(&self) -> bool {
        self.late.is_running()
    }

    /// Tells a run that lasts what came too late for it; false if none does.
    pub fn tell_late(&self, what: impl FnOnce() -> String) -> bool {
        self.late.tell(what)
    }

    /// A queue, which cannot be read again, and an operator below it that would have to after a restart.
    pub fn queue_window(&self) -> Option<(Arc<str>, String)> {
        self.registered.lock().queue_window.clone()
    }

    /// The first operator that slides over a length of time, if there is one.
    pub fn window(&self) -> Option<String> {
        self.registered.lock().windows.first().cloned()
    }

    /// Told before the first batch that the jobs of a batch run at the same time: then each computes by itself what is not
    /// shuffled or kept.
    pub fn run_jobs_at_once(&self) {
        self.epoch.together.never();
    }

    /// Told once before the first batch, with its time: slides are counted from one interval before it.
    pub fn begin(&self, first: Time) {
        self.epoch.begin(first, self.settings.batch_interval);
    }

    /// The batch is done: what it changed in windows and states counts from now on.
    pub fn commit(&self, time: Time) {
        self.epoch.commit(time);
        let longest = self.registered.lock().reach.0;
        self.epoch.lacks(|lacks| lacks.forget(time, longest));
    }

    /// The batch is given up: it leaves no trace in windows and states.
    pub fn abandon(&self, time: Time) {
        self.epoch.abandon(time);
    }

    /// Whether a window or a time-out may fall due after the batch `last` and up to `time`: then the batch runs even if
    /// nothing was received.
    pub fn must_run(&self, last: Option<Time>, time: Time) -> bool {
        self.epoch.must_run(last, time)
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

    /// The batch went on without a part of what it takes of this source: its rows, and those of the windows that reach back
    /// to it, are incomplete.
    pub fn lacks_input(&self, time: Time, source: u32) {
        self.epoch.lacks(|lacks| lacks.input(time, source));
    }

    /// Windows below states take in nothing of this batch, which was done before a restart.
    pub fn lacks_states(&self, time: Time) {
        self.epoch.lacks(|lacks| lacks.states(time));
    }

    fn next_node(&self) -> u32 {
        let mut registered = self.registered.lock();
        registered.nodes += 1;
        registered.nodes
    }

    fn problem(&self, text: String) {
        self.registered.lock().problems.push(text);
    }

    /// A node with state is called `kind#n` in build order until it gets a name.
    fn add_stateful(&self, node: u32, kind: &str) {
        let mut registered = self.registered.lock();
        let name = format!("{kind}#{}", registered.stateful.len()).into();
        registered.stateful.push((node, name));
    }

    /// A state that is saved; returns its number.
    fn add_saved(&self, node: u32, holds: String, saved: Arc<dyn Changelog>) -> u32 {
        let mut registered = self.registered.lock();
        registered.saved.push((node, holds, saved));
        u32::try_from(registered.saved.len() - 1).expect("operators are fewer than 2^32")
    }

    /// A stream whose node keeps something from batch to batch.
    fn keep<T: ?Sized + 'static>(&self, node: u32, stream: DStream<T>) -> DStream<T> {
        let compute = Arc::clone(&stream.node);
        let keeper: NodePlanner = Arc::new(move |cx| compute.compute(cx).map(drop));
        self.registered.lock().keepers.push((node, keeper));
        stream
    }

    /// A window of this length below `line`; returns how far back both look.
    fn reach(&self, line: &StreamLineage, length: Interval) -> (Duration, Duration) {
        let add = |reach: Duration| reach.saturating_add(length.as_duration());
        let below = if line.below_state { add(line.reach.1) } else { line.reach.1 };
        let reach = (add(line.reach.0), below);
        let mut registered = self.registered.lock();
        let known = registered.reach;
        registered.reach = (known.0.max(reach.0), known.1.max(reach.1));
        reach
    }

    fn rename_state(&self, node: u32, name: &Arc<str>) {
        let mut registered = self.registered.lock();
        if let Some(state) = registered.stateful.iter_mut().find(|state| state.0 == node) {
            state.1 = Arc::clone(name);
        }
    }

    fn source<T: ?Sized>(
        self: &Arc<Self>,
        number: Option<u32>,
        node: impl Node<T> + 'static,
    ) -> DStream<T> {
        let line = StreamLineage {
            slide: self.settings.batch_interval,
            above: Arc::default(),
            sources: number.into_iter().collect(),
            state: None,
            reach: (Duration::ZERO, Duration::ZERO),
            below_state: false,
            line_feeds: true,
            queue: None,
        };
        self.stream(line, node)
    }

    fn stream<T: ?Sized>(
        self: &Arc<Self>,
        line: StreamLineage,
        node: impl Node<T> + 'static,
    ) -> DStream<T> {
        DStream { node: Arc::new(node), graph: Arc::clone(self), name: None, line }
    }
}

/// A stream: what its operators make of each batch. Clones are handles of the same stream.
///
/// Several outputs of one stream compute it once: a batch's elements are handed to all of them in one pass, each closure of
/// `map`, `filter` and `flat_map` is called once for each of its elements, and nothing is copied. The pass is made when the
/// first of those jobs begins. What is done with a whole partition or batch is not part of it (`map_partitions`, `glom`,
/// `transform`, `foreach_batch`) and computes its elements again, as do a second attempt of a job and all jobs where
/// `concurrent_jobs` is more than one: [`persist`](DStream::persist) keeps the elements for those. The records of a source
/// are not copied; each job that uses them directly finds them by itself.
///
/// ```
/// # use tidemill::{testing::ManualClock, Config, StreamingContext};
/// # let ctx = StreamingContext::with_clock(Config::new("doc").workers(1), ManualClock::new())?;
/// let numbers = ctx.queue_stream(vec![Some(vec![3, 1, 2, 1])], 1);
/// let results = [
///     numbers.map(|n| n * 10),
///     numbers.filter(|n| *n > 1),
///     numbers.flat_map(|n, out| (0..*n).for_each(|i| out.push(&i))),
///     numbers.map_partitions(|part, out| part.for_each(|n| out.push(n))),
///     numbers.glom().map(Vec::len).map(|n| *n as i32),
///     numbers.union(&numbers).count().map(|n| *n as i32),
///     numbers.repartition(2).reduce(|a, b| a + b),
///     numbers.transform(|_time, batch| batch.filter(|n| *n == 3)),
///     numbers.transform_with(&numbers, |_time, left, right| left.union(&right).filter(|n| *n == 2)),
///     numbers.count_by_value().filter(|(_, count)| *count > 1).map(|(n, _)| *n),
/// ]
/// .map(|stream| stream.collect());
/// let pairs = numbers.map(|n| (n % 2, *n));
/// let names = ctx.queue_stream(vec![Some(vec![(0, "even"), (1, "odd")])], 1);
/// let odd = |pairs: tidemill::DStream<(i32, i32)>| pairs.filter(|(odd, _)| *odd == 1).map(|row| row.1).collect();
/// let keyed = [
///     odd(pairs.reduce_by_key(|a, b| a + b)),
///     odd(pairs.map_values(|n| n + 1)),
///     odd(pairs.flat_map_values(|n, out| out.extend(&[*n, 0]))),
///     odd(pairs.group_by_key().map_values(|all| all[0])),
///     odd(pairs.combine_by_key(|n| *n, |sum, n| *sum -= n, |sum, part| *sum += part)),
///     odd(pairs.join(&names).map_values(|(n, name)| n + name.len() as i32)),
///     odd(pairs.cogroup(&names).map_values(|(left, right)| (left.len() * 10 + right.len()) as i32)),
///     odd(pairs.left_outer_join(&names).map_values(|(n, name)| n + i32::from(name.is_some()))),
///     odd(pairs.right_outer_join(&names).map_values(|(n, _)| n.unwrap_or(0))),
///     odd(pairs.full_outer_join(&names).map_values(|(n, _)| n.unwrap_or(0))),
/// ];
/// ctx.run_batches(1)?;
/// let rows = results.map(|collected| collected.rows()[0].1.clone());
/// assert_eq!(rows[..5], [vec![30, 10, 20, 10], vec![3, 2], vec![0, 1, 2, 0, 0, 1, 0], vec![3, 1, 2, 1], vec![4]]);
/// assert_eq!(rows[5..], [vec![8], vec![7], vec![3], vec![2, 2], vec![1]]);
/// let rows = keyed.map(|collected| collected.rows()[0].1.clone());
/// assert_eq!(rows[..5], [vec![5], vec![4, 2, 2], vec![3, 0, 1, 0, 1, 0], vec![3], vec![1]]);
/// assert_eq!(rows[5..], [vec![6, 4, 4], vec![31], vec![4, 2, 2], vec![3, 1, 1], vec![3, 1, 1]]);
/// # Ok::<(), tidemill::Error>(())
/// ```
pub struct DStream<T: ?Sized> {
    node: Arc<dyn Node<T>>,
    graph: Arc<Graph>,
    name: Option<Arc<str>>,
    line: StreamLineage,
}

/// Where a stream comes from.
#[derive(Clone)]
struct StreamLineage {
    /// From one batch of the stream to the next.
    slide: Interval,
    /// The nodes above, and the stream's own, that may be shared between outputs.
    above: Arc<[u32]>,
    /// The sources above, by number.
    sources: Arc<[u32]>,
    /// The node whose state the stream shows, so that its name is the state's.
    state: Option<u32>,
    /// How far back the windows above look, and those of them that are below a state.
    reach: (Duration, Duration),
    /// Whether a state lies above, or is the stream's own.
    below_state: bool,
    /// Whether the records of the sources above may hold line feeds.
    line_feeds: bool,
    /// A queue above.
    queue: Option<Arc<str>>,
}

impl StreamLineage {
    /// The line of a stream below this one.
    fn below(&self) -> StreamLineage {
        StreamLineage { state: None, ..self.clone() }
    }

    /// The line of a new node below this one.
    fn node(&self, node: u32) -> StreamLineage {
        let above = self.above.iter().copied().chain([node]).collect();
        StreamLineage { above, ..self.below() }
    }

    /// The line of a state below this one.
    fn below_state(&self) -> StreamLineage {
        StreamLineage { below_state: true, ..self.below() }
    }
}

impl<T: ?Sized> Clone for DStream<T> {
    fn clone(&self) -> Self {
        DStream {
            node: Arc::clone(&self.node),
            graph: Arc::clone(&self.graph),
            name: self.name.clone(),
            line: self.line.clone(),
        }
    }
}

impl<T: ?Sized> fmt::Debug for DStream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DStream").field("name", &self.name).finish_non_exhaustive()
    }
}
