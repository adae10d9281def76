//! `Wiring`: the facts of a graph that are fixed before its first batch, and the groups of jobs that share a pass. A value.
//!
//! Nodes and outputs add to it while the program is built. A batch takes it as it is then, so no fact changes below a batch.
//! Knows no operator, no batch and no state.

use std::collections::{HashMap, HashSet};

use super::committed::CommittedBatches;
use crate::memory::budget::MemoryBudget;
use crate::memory::buffer_pool::Pool;
use crate::stream::state::commit::buffer::ChangelogBuffer;
use crate::sync::{Arc, Mutex};
use crate::time::{Interval, Time};

/// See the module.
#[derive(Clone)]
pub(crate) struct Wiring {
    /// The seed of every hash.
    pub(crate) seed: u64,
    /// The buffers of batches' results, and their count.
    pub(crate) pool: Arc<Pool>,
    /// The changes in states that commits leave, if those are kept.
    pub(crate) changelog: Option<Arc<Mutex<ChangelogBuffer>>>,
    /// Jobs of one batch may run at the same time: then none can count on another one.
    jobs_at_once: bool,
    /// Number of outputs below a node.
    outputs_below: HashMap<u32, usize>,
    /// The streams that are computed element by element.
    forks: HashSet<u32>,
    /// The jobs; each is in one group.
    groups: Vec<Group>,
    slides: Vec<Interval>,
    timeouts: bool,
}

/// Jobs that share a pass, directly or through others of them.
#[derive(Clone)]
struct Group {
    /// The streams above them that are computed element by element.
    forks: HashSet<u32>,
    /// In registration order.
    jobs: Vec<usize>,
}

impl Wiring {
    /// No nodes yet. The pool has no bound.
    pub(crate) fn new(seed: u64) -> Self {
        Wiring {
            seed,
            pool: Pool::new(MemoryBudget::new(usize::MAX)),
            changelog: None,
            jobs_at_once: false,
            outputs_below: HashMap::new(),
            forks: HashSet::new(),
            groups: Vec::new(),
            slides: Vec::new(),
            timeouts: false,
        }
    }

    /// Every job computes its streams by itself.
    pub(crate) fn run_jobs_at_once(&mut self) {
        self.jobs_at_once = true;
    }

    /// Adds a stream that is computed element by element.
    pub(crate) fn add_fork(&mut self, node: u32) {
        self.forks.insert(node);
    }

    /// Adds the output of this number, which lies below these nodes.
    pub(crate) fn add_output(&mut self, job: usize, above: &[u32]) {
        for node in above {
            *self.outputs_below.entry(*node).or_default() += 1;
        }
        let is_fork = |node: &u32| self.forks.contains(node);
        let forks: HashSet<u32> = above.iter().copied().filter(is_fork).collect();
        let mut joined = Group { forks, jobs: vec![job] };
        let apart = |group: &mut Group| !group.forks.is_disjoint(&joined.forks);
        let shared: Vec<Group> = self.groups.extract_if(.., apart).collect();
        for group in shared {
            joined.forks.extend(group.forks);
            joined.jobs.extend(group.jobs);
        }
        joined.jobs.sort_unstable();
        self.groups.push(joined);
    }

    /// Adds the slide of a window.
    pub(crate) fn add_slide(&mut self, slide: Interval) {
        self.slides.push(slide);
    }

    /// Notes that some state has a time-out.
    pub(crate) fn add_timeout(&mut self) {
        self.timeouts = true;
    }

    /// Makes commits leave what they changed in states.
    pub(crate) fn keep_changes(&mut self) {
        self.changelog.get_or_insert_default();
    }

    /// True if an output lies below the node.
    pub(crate) fn is_used(&self, node: u32) -> bool {
        self.outputs_below.contains_key(&node)
    }

    /// True if several jobs use the node.
    pub(crate) fn is_shared(&self, node: u32) -> bool {
        self.outputs_below.get(&node).is_some_and(|outputs| *outputs > 1)
    }

    /// The jobs that share a pass with this one, in registration order; it is among them.
    pub(crate) fn group(&self, job: usize) -> &[usize] {
        let group = self.groups.iter().find(|group| group.jobs.contains(&job));
        group.filter(|_| !self.jobs_at_once).map_or(&[], |group| &group.jobs)
    }

    /// True if a window or a time-out may fall due after the batch `last` and up to `time`, so that the batch must run
    /// even if it is empty.
    pub(crate) fn must_run(
        &self,
        committed: &CommittedBatches,
        last: Option<Time>,
        time: Time,
    ) -> bool {
        let from = last.unwrap_or(committed.zero());
        self.timeouts || self.next_end(committed, from).is_some_and(|end| end <= time)
    }

    /// The first end of any window's slide after the batch `time`.
    pub(crate) fn next_end(&self, committed: &CommittedBatches, time: Time) -> Option<Time> {
        self.slides.iter().map(|slide| committed.next_end(*slide, time)).min()
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;

    #[test]
    fn an_empty_batch_runs_if_a_slide_ends_in_it_or_a_key_may_time_out() {
        let (mut wiring, mut committed) = (Wiring::new(0), CommittedBatches::default());
        let time = Time::from_millis;
        committed.begin(time(1_000), Interval::secs(1));
        let runs = |wiring: &Wiring, last: Option<u64>, at: u64| {
            wiring.must_run(&committed, last.map(time), time(at))
        };
        assert!(!runs(&wiring, None, 9_000), "nothing waits for a time");
        wiring.add_slide(Interval::secs(3));
        let found = [(None, 2_000), (None, 3_000), (Some(3_000), 5_000)];
        assert_eq!(found.map(|(last, at)| runs(&wiring, last, at)), [false, true, false]);
        assert!(runs(&wiring, Some(5_000), 7_000), "the slide ended while no batch ran");
        wiring.add_timeout();
        assert!(runs(&wiring, Some(3_000), 4_000));
    }

    /// The nodes above each job; all but 9 are computed element by element.
    fn check(jobs: &[&[u32]], expected: &[&[usize]]) {
        let mut wiring = Wiring::new(0);
        (0..9).for_each(|node| wiring.add_fork(node));
        (0..).zip(jobs).for_each(|(job, above)| wiring.add_output(job, above));
        for (job, expected) in (0..).zip(expected) {
            assert_eq!(wiring.group(job), *expected, "job {job} of {jobs:?}");
        }
        wiring.run_jobs_at_once();
        assert!((0..jobs.len()).all(|job| wiring.group(job).len() <= 1));
    }

    #[test]
    fn jobs_are_in_one_group_if_a_chain_of_shared_streams_connects_them() {
        check(&[&[1], &[1], &[2]], &[&[0, 1], &[0, 1], &[2]]);
        check(&[&[], &[], &[9], &[9]], &[&[0], &[1], &[2], &[3]]);
        check(&[&[1], &[2], &[3], &[2, 1]], &[&[0, 1, 3], &[0, 1, 3], &[2], &[0, 1, 3]]);
        check(&[&[1, 2], &[2, 3], &[3, 4]], &[&[0, 1, 2], &[0, 1, 2], &[0, 1, 2]]);
    }
}
