//! `LaneOrder`: keeps the input of a lane in its order where some of it is refused: records after a refused one are refused too,
//! until that one is taken. Otherwise later records would lie in the log, could not be used, and would hold the room that the
//! first one waits for. Pure; runs on the thread `wal-sync`.

use std::collections::BTreeMap;

/// The place of a record in the order of input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lane {
    /// Records of one lane stay in order; those of different lanes know nothing of each other.
    pub lane: u32,
    /// Its number in the lane; they count up.
    pub number: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct LaneOrder {
    /// The first record of each lane that was refused and is not taken yet.
    refused: BTreeMap<u32, u64>,
}

impl LaneOrder {
    /// Returns true if a record may be taken: no earlier one waits.
    pub(crate) fn passes(&self, at: Lane) -> bool {
        self.refused.get(&at.lane).is_none_or(|first| at.number <= *first)
    }

    /// Notes that a record was refused.
    pub(crate) fn refused(&mut self, at: Lane) {
        let first = self.refused.entry(at.lane).or_insert(at.number);
        *first = at.number.min(*first);
    }

    /// Notes that a record was taken.
    pub(crate) fn taken(&mut self, at: Lane) {
        if self.refused.get(&at.lane) == Some(&at.number) {
            self.refused.remove(&at.lane);
        }
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;

    /// Sends records of lanes, each with the answer to "is there room"; expects these to be taken.
    fn check(records: &[(u32, u64, bool)], expected: &[bool]) {
        let mut order = LaneOrder::default();
        let come = |(lane, number, has_room): &(u32, u64, bool)| {
            let at = Lane { lane: *lane, number: *number };
            let taken = order.passes(at) && *has_room;
            if taken {
                order.taken(at)
            } else {
                order.refused(at)
            }
            taken
        };
        assert_eq!(records.iter().map(come).collect::<Vec<_>>(), expected, "{records:?}");
    }

    #[test]
    fn what_follows_a_refused_record_waits_for_it() {
        check(&[(0, 1, true), (0, 2, true)], &[true, true]);
        check(&[(0, 1, false), (0, 2, true), (1, 2, true)], &[false, false, true]);
        check(
            &[(0, 1, false), (0, 2, true), (0, 1, true), (0, 2, true)],
            &[false, false, true, true],
        );
        check(&[(0, 1, false), (0, 1, false), (0, 2, true)], &[false, false, false]);
        // The second is refused once more, and the third comes before the next try.
        check(
            &[(0, 1, false), (0, 1, true), (0, 2, false), (0, 3, true), (0, 2, true), (0, 3, true)],
            &[false, true, false, false, true, true],
        );
    }
}
