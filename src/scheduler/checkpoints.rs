//! `Checkpoints`: the times at which a checkpoint is due. Pure: [`super::durability`] reports and asks.
//!
//! With room: a second and ten batches apart. While the log is short of room: soon after each batch, and once more after that,
//! since the log keeps what the checkpoint before the newest needs; then a second apart for as long as that lasts, so that
//! records are released as soon as nothing holds them.

use std::time::Duration;

use crate::time::Moment;

/// A checkpoint is due after this many batches,
const BATCHES: u64 = 10;

/// and this long after the last one.
const PAUSE: Duration = Duration::from_secs(1);

/// Pause between two while the log is short of room and there is something new to cover.
const SHORT_PAUSE: Duration = Duration::from_millis(50);

/// The number of checkpoints after a batch that release something; another one gains nothing.
const AFTER_BATCH: u32 = 2;

/// See the module.
#[derive(Debug)]
pub(super) struct Checkpoints {
    /// Batches done since the last one.
    batches: u64,
    /// The number of checkpoints that were asked for since the last batch.
    after_batch: u32,
    last: Moment,
}

impl Checkpoints {
    pub(super) fn new(now: Moment) -> Self {
        Checkpoints { batches: 0, after_batch: 0, last: now }
    }

    /// A batch is done.
    pub(super) fn batch_done(&mut self) {
        self.batches += 1;
        self.after_batch = 0;
    }

    /// True if a batch was done since the last one.
    pub(super) fn is_behind(&self) -> bool {
        self.batches > 0
    }

    /// Returns true if one is due now. `is_short`: the log has no room.
    pub(super) fn is_due(&self, now: Moment, is_short: bool) -> bool {
        match is_short {
            true => now >= self.due_while_short(),
            false => self.batches >= BATCHES && now >= self.last.plus(PAUSE),
        }
    }

    /// The time at which one is due while the log has no room.
    pub(super) fn due_while_short(&self) -> Moment {
        let gains = self.after_batch < AFTER_BATCH;
        self.last.plus(if gains { SHORT_PAUSE } else { PAUSE })
    }

    /// One was asked for.
    pub(super) fn asked(&mut self, now: Moment) {
        self.batches = 0;
        self.after_batch = self.after_batch.saturating_add(1);
        self.last = now;
    }

    /// One that was due could not be asked for, because the one before is being written.
    pub(super) fn put_off(&mut self, now: Moment) {
        self.last = now;
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::from_nanos(millis * 1_000_000)
    }

    /// Looks each 10 ms for two seconds, with batches done at these moments; the moments of the checkpoints.
    fn check(is_short: bool, batches: &[u64], expected: &[u64]) {
        let mut checkpoints = Checkpoints::new(at(0));
        let mut found = Vec::new();
        for now in (0..2_200).step_by(10) {
            for _ in batches.iter().filter(|batch| **batch == now) {
                checkpoints.batch_done();
            }
            if checkpoints.is_due(at(now), is_short) {
                checkpoints.asked(at(now));
                found.push(now);
            }
        }
        assert_eq!(found, expected, "{is_short} {batches:?}");
    }

    #[test]
    fn in_time_they_follow_ten_batches_and_a_second() {
        check(false, &[], &[]);
        check(false, &[10; 9], &[]);
        check(false, &[10; 10], &[1_000]);
        check(false, &[[10; 10], [1_500; 10]].concat(), &[1_000, 2_000]);
        check(false, &[[10; 9], [1_500; 9]].concat(), &[1_500]);
    }

    #[test]
    fn without_room_two_follow_each_batch_and_then_one_each_second() {
        check(true, &[], &[50, 100, 1_100, 2_100]);
        check(true, &[10], &[50, 100, 1_100, 2_100]);
        check(true, &[10, 500, 520], &[50, 100, 500, 550, 600, 1_600]);
        check(true, &[700, 760, 800, 810], &[50, 100, 700, 750, 800, 850, 900, 1_900]);
    }
}
