//! `Undue`: the records that outputs below windows have taken in since their windows were last due, and their next due time.
//! Pure; asked by the scheduler's thread. Knows no rows: it counts records of sources.

use std::collections::BTreeMap;

use crate::stream::plan::committed::CommittedBatches;
use crate::stream::plan::lacks::Reads;
use crate::stream::{BatchInput, Graph};
use crate::time::{Interval, Time};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Undue {
    /// Those outputs that slide by more than one batch.
    outputs: Vec<Waits>,
}

/// An output that does not fall due in each batch.
#[derive(Debug)]
struct Waits {
    /// The output's place in registration order.
    output: usize,
    slide: Interval,
    reads: Reads,
    /// Records of each source since the slide ended last.
    since: BTreeMap<u32, u64>,
}

impl Undue {
    /// An output that falls due whenever `slide` ends.
    pub(crate) fn add(&mut self, output: usize, slide: Interval, reads: Reads) {
        self.outputs.push(Waits { output, slide, reads, since: BTreeMap::new() });
    }

    /// Forgets all records: their batches run again.
    pub(crate) fn forget(&mut self) {
        self.outputs.iter_mut().for_each(|waits| waits.since.clear());
    }

    /// Counts a batch that is done; `records_of` gives its number of records of a source.
    fn took_in(
        &mut self,
        committed: &CommittedBatches,
        time: Time,
        records_of: impl Fn(u32) -> u64,
    ) {
        for waits in &mut self.outputs {
            if committed.is_due(waits.slide, time) {
                waits.since.clear();
                continue;
            }
            // A window that is shorter than its slide never shows what came too early for it.
            let end = committed.next_end(waits.slide, time).as_millis();
            if u128::from(end.saturating_sub(time.as_millis())) >= waits.reads.reach.as_millis() {
                continue;
            }
            for source in waits.reads.sources.iter() {
                let records = records_of(*source);
                if records > 0 {
                    *waits.since.entry(*source).or_default() += records;
                }
            }
        }
    }

    /// Records that are in a window which was not due since; each once, in however many windows it is.
    fn records(&self) -> u64 {
        let mut of_source = BTreeMap::<u32, u64>::new();
        for (source, records) in self.outputs.iter().flat_map(|waits| &waits.since) {
            // Each output counts from some batch on: the one that counts from the earliest has what the others have.
            let most = of_source.entry(*source).or_default();
            *most = (*most).max(*records);
        }
        of_source.values().sum()
    }
}

impl BatchInput {
    /// Records of a source, in its portions as far as they were read.
    fn records_of(&self, source: u32) -> u64 {
        let portions = self.direct.get(&source).into_iter().flat_map(|planned| &planned.portions);
        self.block_records(source) + portions.map(|portion| portion.records()).sum::<u64>()
    }
}

impl Graph {
    /// A batch is done and not committed yet; its records count unless they were put aside. Returns the number of records in
    /// windows that were not due since.
    pub fn took_in(&self, input: &BatchInput, counts: bool) -> u64 {
        let mut undue = self.undue.lock();
        let records_of = |source| if counts { input.records_of(source) } else { 0 };
        undue.took_in(&self.committed(), input.time, records_of);
        undue.records()
    }

    /// The outputs with records in windows that were not due since, by their place, and when each is due next after the
    /// batch `last`.
    pub fn owed(&self, last: Time) -> Vec<(usize, Time)> {
        let (undue, committed) = (self.undue.lock(), self.committed());
        let owed = undue.outputs.iter().filter(|waits| !waits.since.is_empty());
        owed.map(|waits| (waits.output, committed.next_end(waits.slide, last))).collect()
    }

    /// The first end of any window's slide after the batch `last`.
    pub fn next_end(&self, last: Time) -> Option<Time> {
        self.wiring().next_end(&self.committed(), last)
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::sync::Arc;

    /// Goes through batches of one second with these numbers of records of the sources 0 and 1. Compares after each the
    /// records in windows that were not due; windows are (slide, length, sources).
    fn check(windows: &[(u64, u64, &[u32])], batches: &[[u64; 2]], expected: &[u64]) {
        let (mut committed, mut undue) = (CommittedBatches::default(), Undue::default());
        committed.begin(Time::from_millis(1_000), Interval::secs(1));
        for (output, (slide, length, sources)) in windows.iter().enumerate() {
            let (reach, below_states) = (Duration::from_secs(*length), Duration::ZERO);
            let reads = Reads { sources: Arc::from(*sources), reach, below_states };
            undue.add(output, Interval::secs(*slide), reads);
        }
        let mut found = Vec::new();
        for (second, records) in (1..).zip(batches) {
            let time = Time::from_millis(second * 1_000);
            undue.took_in(&committed, time, |source| records[source as usize]);
            committed.commit(time, Duration::ZERO);
            found.push(undue.records());
        }
        assert_eq!(found, expected, "{windows:?} {batches:?}");
    }

    #[test]
    fn records_wait_from_one_end_of_a_slide_to_the_next() {
        check(&[], &[[1, 1]; 3], &[0, 0, 0]);
        check(&[(3, 3, &[0])], &[[5, 9], [1, 9], [7, 9], [2, 9]], &[5, 6, 0, 2]);
        check(&[(2, 2, &[0]), (3, 3, &[0])], &[[1, 0]; 6], &[1, 2, 1, 1, 2, 0]);
        check(&[(2, 2, &[0]), (3, 3, &[1])], &[[1, 10]; 4], &[11, 20, 1, 10]);
        // Of a slide of 3 s a window of 1 s shows the last batch alone.
        check(&[(3, 1, &[0])], &[[1, 0]; 4], &[0, 0, 0, 0]);
        check(&[(3, 2, &[0])], &[[1, 0]; 4], &[0, 1, 0, 0]);
        check(&[(2, 6, &[0])], &[[4, 0], [0, 0], [0, 0]], &[4, 0, 0]);
    }
}
