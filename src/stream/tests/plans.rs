//! Plans are a function of graph, input, jobs and what the batch has computed: whatever is planned beside, dropped, abandoned
//! or tried again, changes neither rows nor states nor the plans.

use std::collections::HashSet;

use super::*;
use crate::stream::state::commit::changelog::Changes;
use crate::sync::AtomicBool;

type Pair = (u8, i64);

/// An operator, and the places of the streams above it among those before it.
#[derive(Clone, Copy, Debug)]
struct Step {
    kind: u8,
    left: u8,
    right: u8,
}

#[derive(Clone, Debug)]
struct Spec {
    steps: Vec<Step>,
    /// The places of the streams that have an output.
    outputs: Vec<u8>,
    batches: Vec<Vec<Pair>>,
    workers: usize,
    partitions: usize,
    at_once: bool,
}

fn spec() -> impl Strategy<Value = Spec> {
    let step = (any::<u8>(), any::<u8>(), any::<u8>());
    let step = step.prop_map(|(kind, left, right)| Step { kind, left, right });
    let batch = prop::collection::vec((0_u8..4, -9_i64..9), 0..8);
    (
        prop::collection::vec(step, 1..6),
        prop::collection::vec(any::<u8>(), 1..4),
        prop::collection::vec(batch, 1..5),
        (1_usize..3, 1_usize..4, any::<bool>()),
    )
        .prop_map(|(steps, outputs, batches, (workers, partitions, at_once))| Spec {
            steps,
            outputs,
            batches,
            workers,
            partitions,
            at_once,
        })
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the shape of the operator's function")]
fn keep(_: Time, key: &u8, value: Option<&i64>, state: &mut State<'_, i64>) -> Option<Pair> {
    let sum = state.get().unwrap_or(&0).wrapping_add(*value.unwrap_or(&1));
    match value {
        None => {}
        Some(_) if sum % 5 == 0 && state.exists() => state.remove(),
        Some(_) => state.update(sum),
    }
    Some((*key, sum))
}

fn derived(step: Step, streams: &[DStream<Pair>]) -> DStream<Pair> {
    let at = |place: u8| &streams[usize::from(place) % streams.len()];
    let (left, right) = (at(step.left), at(step.right));
    let secs = |number: u8| Interval::secs(1 + u64::from(number));
    let (length, slide) = (secs(step.right % 3), secs(step.right % 2));
    let add = |a: &i64, b: &i64| a.wrapping_add(*b);
    let state = || {
        let spec = StateSpec::new().timeout(Interval::secs(2));
        left.map_with_state(spec.initial([(1, 10), (2, 25)]), keep)
    };
    match step.kind % 14 {
        0 => left.map(|(key, value)| ((key + 1) % 4, value.wrapping_mul(3))),
        1 => left.filter(|(_, value)| value % 3 != 0),
        2 => left.union(right),
        3 => left.reduce_by_key(add),
        4 => {
            let joined = left.reduce_by_key(add).join(&right.reduce_by_key(add));
            joined.map(|(key, (a, b))| (*key, a.wrapping_mul(31).wrapping_add(*b)))
        }
        5 => left.window(length, slide),
        6 => left.reduce_by_key_and_window(length, slide, add),
        7 => (*state()).clone(),
        8 => state().snapshots(),
        9 => left.update_state_by_key(|_, values, sum: Option<&i64>| {
            let sum = values.iter().fold(*sum.unwrap_or(&0), |sum, value| sum.wrapping_add(*value));
            (sum % 5 != 0).then_some(sum)
        }),
        10 => left.repartition(3),
        11 => left.persist(),
        12 => left.count().map(|count| (0, i64::try_from(*count).expect("few"))),
        _ => left.transform(|_, batch| batch.filter(|(key, _)| *key != 2)),
    }
}

struct Program {
    rig: Rig,
    rows: Vec<Collected<Pair>>,
    inputs: Vec<Arc<BatchInput>>,
}

impl Program {
    /// The closure at the top falls at these of its calls.
    fn new(spec: &Spec, falls: &[usize]) -> Program {
        let mut rig = Rig::new(spec.workers);
        rig.partitions = spec.partitions;
        rig.graph.keep_changes();
        let (calls, falls) = (AtomicUsize::new(0), falls.to_vec());
        let top = rig.queue(&spec.batches).map(move |pair| {
            assert!(!falls.contains(&calls.fetch_add(1, Ordering::SeqCst)), "planned");
            *pair
        });
        let mut streams = vec![top];
        for step in &spec.steps {
            streams.push(derived(*step, &streams));
        }
        let output = |place: &u8| streams[usize::from(*place) % streams.len()].collect();
        let rows = spec.outputs.iter().map(output).collect();
        if spec.at_once {
            rig.graph.run_jobs_at_once();
        }
        rig.graph.begin(Time::from_millis(1_000));
        // A batch beyond the queue: windows and states move on.
        let inputs = (0..=spec.batches.len() as u64).map(|index| rig.input(index, Vec::new()));
        let inputs = inputs.collect();
        Program { rig, rows, inputs }
    }

    fn plan(&self, batch: &mut OpenBatch, job: usize) -> Plan {
        batch.plan(job, &self.rig.clock, self.rig.clock.now()).expect("nothing in the plan fails")
    }

    /// The plans of these jobs, as shown.
    fn shown(&self, batch: &OpenBatch, jobs: &[usize]) -> Vec<String> {
        let planned = batch.plan_jobs(jobs, &self.rig.clock, self.rig.clock.now());
        let planned = planned.expect("nothing in the plan fails");
        let (mut names, tasks) = (HashSet::new(), planned.plans().map(|planned| &planned.plan));
        assert!(tasks.flat_map(Plan::tasks).all(|name| names.insert(name)), "names are unique");
        planned.plans().map(|planned| format!("{:?}", planned.plan)).collect()
    }

    /// The plans of all jobs of a batch that has just begun: together, and each alone.
    fn all_shown(&self, input: &Arc<BatchInput>) -> Vec<Vec<String>> {
        let (batch, jobs) = (self.rig.graph.open_batch(input), 0..self.rows.len());
        let together = self.shown(&batch, &Vec::from_iter(jobs.clone()));
        jobs.map(|job| self.shown(&batch, &[job])).chain([together]).collect()
    }

    /// Commits a batch whose jobs have run, and returns the changes in states.
    fn commit(&self, batch: OpenBatch) -> Changes {
        let time = batch.time();
        batch.commit();
        self.rig.graph.changes(time, 0).expect("they are kept")
    }

    fn sorted_rows(&self) -> Vec<Vec<(Time, Vec<Pair>)>> {
        let sorted = |(time, mut rows): (Time, Vec<Pair>)| {
            rows.sort_unstable();
            (time, rows)
        };
        let of = |rows: &Collected<Pair>| rows.rows().into_iter().map(sorted).collect();
        self.rows.iter().map(of).collect()
    }

    /// Runs each job once, and commits.
    fn step(&self, input: &Arc<BatchInput>) -> Changes {
        let mut batch = self.rig.graph.open_batch(input);
        for job in 0..self.rows.len() {
            let plan = self.plan(&mut batch, job);
            self.rig.run_plan(plan).expect("it succeeds");
        }
        self.commit(batch)
    }

    /// The same, with everything between that must leave no trace; each job is tried until it succeeds.
    fn disturbed_step(&self, input: &Arc<BatchInput>, dice: &mut Dice) -> Changes {
        let (mut batch, first) = (self.rig.graph.open_batch(input), self.all_shown(input));
        for job in 0..self.rows.len() {
            loop {
                self.disturb(&mut batch, input, dice, job);
                let plan = self.plan(&mut batch, job);
                if self.rig.run_plan(plan).is_ok() {
                    break;
                }
            }
            assert_eq!(self.all_shown(input), first, "a new batch knows nothing of this one");
        }
        self.commit(batch)
    }

    fn disturb(
        &self,
        batch: &mut OpenBatch,
        input: &Arc<BatchInput>,
        dice: &mut Dice,
        next: usize,
    ) {
        match dice.roll(5) {
            0 => {}
            1 => drop(self.plan(batch, next)),
            2 => {
                let mut abandoned = self.rig.graph.open_batch(input);
                for job in 0..=dice.roll(self.rows.len()) {
                    let plan = self.plan(&mut abandoned, job);
                    // It may fall, as any attempt. Its rows go nowhere.
                    let _ = self.rig.run_plan(Plan { finish: Box::new(|_| Ok(())), ..plan });
                }
            }
            _ => {
                let mut jobs = Vec::from_iter(0..self.rows.len());
                jobs.rotate_left(dice.roll(self.rows.len()));
                jobs.truncate(1 + dice.roll(self.rows.len()));
                let shown = self.shown(batch, &jobs);
                assert_eq!(self.shown(batch, &jobs), shown, "{jobs:?}");
            }
        }
    }
}

/// Random numbers, used again from the first once all were used.
struct Dice {
    rolls: Vec<u8>,
    next: usize,
}

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        let roll = usize::from(self.rolls[self.next % self.rolls.len()]);
        self.next += 1;
        roll % below
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn planning_leaves_no_trace(
        spec in spec(),
        falls in prop::collection::vec(0_usize..60, 0..4),
        rolls in prop::collection::vec(any::<u8>(), 1..40),
    ) {
        let (plain, disturbed) = (Program::new(&spec, &[]), Program::new(&spec, &falls));
        let mut dice = Dice { rolls, next: 0 };
        for (input, other) in plain.inputs.iter().zip(&disturbed.inputs) {
            let (changes, others) = (plain.step(input), disturbed.disturbed_step(other, &mut dice));
            prop_assert_eq!(changes, others);
        }
        prop_assert_eq!(plain.sorted_rows(), disturbed.sorted_rows());
    }
}

/// The rows of a job whose first planning fails behind a shuffle.
fn rows_after_a_failed_planning() -> Vec<Pair> {
    let (rig, fell) = (Rig::new(1), AtomicBool::new(false));
    let sums = rig.queue(&[vec![(1, 1), (1, 2)]]).reduce_by_key(|a, b| a + b);
    let sums = sums.transform(move |_, batch| {
        assert!(fell.swap(true, Ordering::SeqCst), "once");
        batch
    });
    let (rows, input) = (sums.collect(), rig.input(0, Vec::new()));
    assert_eq!(rig.run(&input).expect_err("it falls"), "panicked: once");
    rig.run(&input).expect("it succeeds");
    rows.rows().remove(0).1
}

#[test]
fn a_failed_planning_leaves_nothing_for_the_next() {
    assert_eq!(rows_after_a_failed_planning(), [(1, 3)]);
}

#[cfg(tidemill_planted)]
#[test]
fn planted_a_failed_planning_that_is_kept_is_found() {
    use crate::sync::planted::{Planted, with};
    assert_ne!(with(Planted::FailedPlanningIsKept, rows_after_a_failed_planning), [(1, 3)]);
}

/// The plan of the last output of a graph.
fn check(attach: impl FnOnce(DStream<Pair>), expected: &[&str]) {
    let rig = Rig::new(2);
    attach(rig.queue(&[vec![(1, 1), (2, 2)]]));
    let plan = rig.plan(rig.graph.outputs().len() - 1, &rig.input(0, Vec::new()));
    let shown = plan.expect("nothing fails").to_string();
    assert_eq!(shown.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn a_plan_shows_what_each_stage_is_and_needs() {
    let add = |a: &i64, b: &i64| a + b;
    check(
        |pairs| drop(pairs.map(|pair| *pair).collect()),
        &["0 copy: 2 tasks, each needs its own partition"],
    );
    check(
        |pairs| drop(pairs.reduce_by_key(add).filter(|_| true).collect()),
        &[
            "0 fold of node 2: 2 tasks, each needs its own partition",
            "1 merge of node 2: 2 tasks, each needs all partitions",
            "2 copy: 2 tasks, each needs its own partition",
        ],
    );
    check(
        |pairs| drop(pairs.map_with_state(StateSpec::new(), keep).collect()),
        &[
            "0 fold of node 2: 2 tasks, each needs its own partition",
            "1 merge of node 2: 2 tasks, each needs all partitions",
            "2 state of node 2: 2 tasks, each needs its own partition",
            "3 publish of node 2: 1 task, each needs all partitions",
            "4 copy: 2 tasks, each needs its own partition",
        ],
    );
    // A user's closure may read what it likes, and a union has other numbers than its right side.
    check(
        |pairs| drop(pairs.reduce_by_key(add).transform(|_, batch| batch).collect()),
        &[
            "0 fold of node 2: 2 tasks, each needs its own partition",
            "1 merge of node 2: 2 tasks, each needs all partitions",
            "2 copy: 2 tasks, each needs all partitions",
        ],
    );
    check(
        |pairs| drop(pairs.union(&pairs.reduce_by_key(add)).collect()),
        &[
            "0 fold of node 2: 2 tasks, each needs its own partition",
            "1 merge of node 2: 2 tasks, each needs all partitions",
            "2 copy: 4 tasks, each needs all partitions",
        ],
    );
}
