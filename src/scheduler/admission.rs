//! `Admission`: bounds the input of a batch, so that it and its results fit into `store_bytes_max` together. Pure: the job loop
//! reports the results of each batch, and asks.
//!
//! ```text
//! store_bytes_max │ input of all batches and what is read meanwhile │ room for the results of the batch that runs │
//!                                                                   └─ reserve ≥ ratio × input of one batch
//! ```
//! Nothing can hold results back: they are what ends a batch. So room for them is reserved in advance. Batches run one at a
//! time, so the room of one is enough. The size of results is learned from the batches before; until one was large enough to
//! tell, they are expected to be a little larger than the input.

use std::collections::VecDeque;

/// A ratio of results to input is counted in these parts.
const ONE: u64 = 1_024;

/// The ratio that is expected before any batch is done.
const FIRST: u64 = ONE + ONE / 4;

/// The largest ratio that is expected, so that a batch may always have a sixteenth of the store.
const RATIO_MAX: u64 = 15 * ONE;

/// The number of recent batches that count: the largest ratio among them is expected.
const RECENT: usize = 4;

/// A batch counts if its input is at least this part of the store: the results of a smaller one may be tables whose size
/// says nothing.
const LEAST: u64 = 32;

/// See the module.
#[derive(Debug)]
pub(super) struct Admission {
    store_bytes_max: u64,
    recent: VecDeque<u64>,
}

impl Admission {
    pub(super) fn new(store_bytes_max: usize) -> Self {
        Admission {
            store_bytes_max: store_bytes_max as u64,
            recent: VecDeque::with_capacity(RECENT),
        }
    }

    /// A batch with `input` bytes is done; at most `results` bytes of its results were there at once.
    pub(super) fn done(&mut self, input: u64, results: u64) {
        if input == 0 || input < self.store_bytes_max / LEAST {
            return;
        }
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(share(results, ONE, input));
    }

    /// The bytes of input that a batch may have; a single block may be more.
    pub(super) fn input_max(&self) -> u64 {
        match self.ratio() {
            0 => u64::MAX,
            ratio => share(self.reserve(), ONE, ratio),
        }
    }

    /// The bytes that must stay free for results. Small results have room for those of spilled input as well.
    pub(super) fn reserve(&self) -> u64 {
        match self.ratio() {
            0 => 0,
            ratio => share(self.store_bytes_max, ratio, ONE + ratio).max(self.store_bytes_max / 16),
        }
    }

    /// The ratio that is expected of the next batch: an eighth more than the largest of the last ones.
    fn ratio(&self) -> u64 {
        let largest = self.recent.iter().max();
        largest.map_or(FIRST, |ratio| ratio.saturating_add(ratio / 8).min(RATIO_MAX))
    }
}

/// `bytes` × `part` ÷ `of`.
fn share(bytes: u64, part: u64, of: u64) -> u64 {
    let share = u128::from(bytes) * u128::from(part) / u128::from(of.max(1));
    u64::try_from(share).unwrap_or(u64::MAX)
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STORE: u64 = 1 << 20;
    const KIB: u64 = 1 << 10;

    /// Batches of (input, results), in KiB, before one; the most input that it may have and the reserve, in KiB.
    fn check(batches: &[(u64, u64)], input_max: u64, reserve: u64) {
        let mut fit = Admission::new(1 << 20);
        batches.iter().for_each(|(input, results)| fit.done(input * KIB, results * KIB));
        let found = (fit.input_max() / KIB, fit.reserve() / KIB);
        assert_eq!(found, (input_max, reserve), "{batches:?}");
    }

    #[test]
    fn input_and_its_results_fit() {
        const ANY: u64 = u64::MAX / KIB;
        check(&[], 455, 568);
        check(&[(0, 0), (31, 500)], 455, 568);
        check(&[(100, 0)], ANY, 0);
        check(&[(100, 100)], 481, 542);
        check(&[(100, 100), (500, 0)], 481, 542);
        check(&[(100, 100), (500, 0), (500, 0), (500, 0), (500, 0)], ANY, 0);
        check(&[(500, 0), (500, 0), (500, 0), (100, 300)], 234, 789);
        check(&[(1_000, 10)], 5_957, 64);
        check(&[(32, 100_000)], 64, 960);
    }

    /// A job whose results are always the same: a table, or a window.
    #[test]
    fn results_that_do_not_follow_the_input_leave_it_the_rest() {
        let mut fit = Admission::new(1 << 20);
        for _ in 0..50 {
            fit.done(fit.input_max(), STORE / 2);
        }
        assert!((STORE / 8 * 3..STORE / 2).contains(&fit.input_max()), "{}", fit.input_max());
    }

    proptest! {
        /// Whatever is reported: a batch may have some input, and the results expected of it fit beside it.
        #[test]
        fn what_is_expected_always_fits(
            store in 1u64..1 << 50, batches in prop::collection::vec((any::<u64>(), any::<u64>()), 0..9),
        ) {
            let mut fit = Admission::new(usize::try_from(store).expect("64 bits"));
            batches.iter().for_each(|(input, results)| fit.done(*input, *results));
            prop_assert!(fit.reserve() < store);
            prop_assert!(fit.input_max() >= store / 16);
            prop_assert!(share(fit.input_max(), fit.ratio(), ONE) <= fit.reserve());
        }
    }
}
