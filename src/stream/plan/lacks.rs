//! `Lacks`: the batches that ran without lost input, and the rows that are incomplete for it. Pure.
//!
//! A job's rows at t show the batches in (t − reach, t] of its sources, where the reach is that of the windows above it.
//! What a state made of such a batch is not marked for ever: only the rows of that time.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::stream::BatchInput;
use crate::sync::Arc;
use crate::time::Time;

/// The input of a job's rows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reads {
    /// The sources above it, by number.
    pub(crate) sources: Arc<[u32]>,
    /// The reach of the windows above it.
    pub(crate) reach: Duration,
    /// The reach of those of them that are below a state.
    pub(crate) below_states: Duration,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lacks {
    /// Batches that lacked a part of their input from a source.
    inputs: BTreeSet<(Time, u32)>,
    /// Batches of which windows below states took in nothing.
    states: BTreeSet<Time>,
}

impl Lacks {
    /// Notes that the batch lacked a part of its input from this source.
    pub(crate) fn input(&mut self, time: Time, source: u32) {
        self.inputs.insert((time, source));
    }

    /// Notes that windows below states took in nothing of the batch.
    pub(crate) fn states(&mut self, time: Time) {
        self.states.insert(time);
    }

    /// True if a job's rows of this batch are incomplete.
    pub(crate) fn are_in(&self, reads: &Reads, input: &BatchInput) -> bool {
        let own = |source: &u32| input.direct.get(source).is_some_and(|own| !own.losses.is_empty());
        reads.sources.iter().any(own) || self.reach(reads, input.time)
    }

    fn reach(&self, reads: &Reads, time: Time) -> bool {
        let within = |at: Time, reach: Duration| at <= time && age(at, time) < reach;
        let input =
            |(at, source): &(Time, u32)| within(*at, reads.reach) && reads.sources.contains(source);
        self.inputs.iter().any(input)
            || self.states.iter().any(|at| within(*at, reads.below_states))
    }

    /// No window at `time` or later reaches back to what is older than the longest one.
    pub(crate) fn forget(&mut self, time: Time, longest: Duration) {
        let young = |at: Time| at > time || age(at, time) < longest;
        self.inputs.retain(|(at, _)| young(*at));
        self.states.retain(|at| young(*at));
    }
}

fn age(at: Time, now: Time) -> Duration {
    Duration::from_millis(now.as_millis().saturating_sub(at.as_millis()))
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;

    /// The batch at 5 s lacks input of source 1, that at 6 s states: whether rows at `time` are incomplete.
    fn check(sources: &[u32], reach: u64, below_states: u64, time: u64, expected: bool) {
        let mut lacks = Lacks::default();
        lacks.input(Time::from_millis(5_000), 1);
        lacks.states(Time::from_millis(6_000));
        let reads = Reads {
            sources: sources.into(),
            reach: Duration::from_secs(reach),
            below_states: Duration::from_secs(below_states),
        };
        let time = Time::from_millis(time);
        assert_eq!(
            lacks.reach(&reads, time),
            expected,
            "{sources:?} {reach} {below_states} {time:?}"
        );
        lacks.forget(time, reads.reach);
        assert_eq!(lacks.reach(&reads, time), expected, "what is needed is not forgotten");
    }

    #[test]
    fn rows_are_incomplete_as_long_as_their_window_reaches_back() {
        for (time, expected) in
            [(4_000, false), (5_000, true), (7_000, true), (7_999, true), (8_000, false)]
        {
            check(&[1], 3, 0, time, expected);
            check(&[0, 1, 2], 3, 0, time, expected);
            check(&[0, 2], 3, 0, time, false);
            check(&[], 3, 0, time, false);
        }
        check(&[1], 0, 0, 5_000, false);
        check(&[0], 3, 3, 6_000, true);
        check(&[0], 3, 3, 8_999, true);
        check(&[0], 3, 3, 9_000, false);
        check(&[0], 3, 0, 6_000, false);
    }

    #[test]
    fn what_no_window_reaches_is_forgotten() {
        let mut lacks = Lacks::default();
        lacks.input(Time::from_millis(1_000), 0);
        lacks.states(Time::from_millis(1_000));
        lacks.forget(Time::from_millis(2_999), Duration::from_secs(2));
        assert_eq!((lacks.inputs.len(), lacks.states.len()), (1, 1));
        lacks.forget(Time::from_millis(3_000), Duration::from_secs(2));
        assert_eq!((lacks.inputs.len(), lacks.states.len()), (0, 0));
    }
}
