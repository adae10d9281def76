//! `Book`: the batches of a job and partition that an output remembers: the newest keys, a bounded number of them.
//!
//! A batch of which the book has the key is committed; one of the same time and another key is another batch. Batches older
//! than all keys, if some were forgotten, came before them: outputs of a job come in the order of its batches, as long as
//! one state directory planned all of them. Pure; knows neither files nor databases.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::owner::Written;

/// Keys that are remembered of a job and partition.
pub(super) const KEYS_MAX: usize = 256;

/// The memory of a job and partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Book {
    /// The job, as it stands in names.
    pub(super) job: String,
    pub(super) part: u32,
    /// The newest keys, in order.
    keys: VecDeque<Written>,
    /// True once older ones were forgotten.
    is_trimmed: bool,
    /// The newest label that was there when the output was adopted: batches up to it that were planned before starts were
    /// counted are committed.
    adopted: Option<u64>,
}

/// The answer of a book about a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    Committed,
    /// A batch of this time, and another one.
    Other(Written),
    No,
}

impl Book {
    pub(super) fn new(job: &str, part: u32) -> Self {
        Book { job: job.to_owned(), part, ..Book::default() }
    }

    /// Looks up a key. `in_order`: true if all that is in the book came in the order in which the asking state planned
    /// its batches.
    pub(super) fn look(&self, key: &Written, in_order: bool) -> Known {
        if let Some(known) = self.keys.iter().rev().find(|known| known.time == key.time) {
            return if known == key { Known::Committed } else { Known::Other(*known) };
        }
        let is_older = self.keys.front().is_none_or(|oldest| key.time < oldest.time);
        let is_adopted = key.run == 0 && self.adopted.is_some_and(|newest| key.time <= newest);
        match is_older && (is_adopted || self.is_trimmed && in_order) {
            true => Known::Committed,
            false => Known::No,
        }
    }

    /// Adds the newest key; returns the one that is forgotten for it.
    pub(super) fn push(&mut self, key: Written) -> Option<Written> {
        self.keys.push_back(key);
        let excess = self.keys.len() > KEYS_MAX;
        self.is_trimmed |= excess;
        if excess { self.keys.pop_front() } else { None }
    }

    /// The key that is forgotten for the next one.
    #[cfg(feature = "sqlite")]
    pub(super) fn next_to_forget(&self) -> Option<Written> {
        self.keys.front().filter(|_| self.keys.len() >= KEYS_MAX).copied()
    }

    /// Takes over keys that were remembered elsewhere: the newest of so many.
    pub(super) fn take_over(&mut self, keys: impl Iterator<Item = Written>, of: u64) {
        let mut taken = 0;
        for key in keys {
            self.push(key);
            taken += 1;
        }
        self.is_trimmed |= taken < of;
    }

    /// Forgets the newest key.
    pub(super) fn take_back(&mut self) {
        self.keys.pop_back();
    }

    /// Remembers the newest label that was there before there was anything to remember it by.
    pub(super) fn adopt(&mut self, newest: u64) {
        self.adopted = self.adopted.max(Some(newest));
    }

    /// The keys, in order.
    pub(super) fn keys(&self) -> impl Iterator<Item = &Written> {
        self.keys.iter()
    }

    pub(super) fn has_something(&self) -> bool {
        !self.keys.is_empty() || self.adopted.is_some()
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;
    use crate::owner::PlanDigest;

    fn key(time: u64) -> Written {
        Written { time, run: 1, mark: 7, digest: PlanDigest([1; 16]) }
    }

    fn old(time: u64) -> Written {
        Written { run: 0, mark: 0, ..key(time) }
    }

    /// Asks a book with keys for these times, and with this adopted label, about a key.
    fn check(times: std::ops::Range<u64>, adopted: Option<u64>, key_of: Written, says: [Known; 2]) {
        let mut book = Book::new("a", 0);
        adopted.into_iter().for_each(|newest| book.adopt(newest));
        for time in times.clone() {
            let _ = book.push(key(time));
        }
        let found = [book.look(&key_of, true), book.look(&key_of, false)];
        assert_eq!(found, says, "{times:?} {adopted:?} {key_of:?}");
    }

    #[test]
    fn what_a_book_says_of_a_key() {
        let (yes, no) = ([Known::Committed; 2], [Known::No; 2]);
        check(5..10, None, key(7), yes);
        check(5..10, None, key(10), no);
        // Nothing was forgotten, so it was not there.
        check(5..10, None, key(4), no);
        let other = Written { digest: PlanDigest([2; 16]), ..key(7) };
        check(5..10, None, other, [Known::Other(key(7)); 2]);
        check(5..10, None, Written { mark: 8, ..key(7) }, [Known::Other(key(7)); 2]);
        check(5..10, None, old(7), [Known::Other(key(7)); 2]);
        // Some were forgotten.
        check(1..301, None, key(45), yes);
        check(1..301, None, key(44), [Known::Committed, Known::No]);
        check(1..301, None, key(301), no);
        // A label is enough for batches from before starts were counted, where it was adopted.
        check(50..61, Some(40), old(40), yes);
        check(50..61, Some(40), old(41), no);
        check(50..61, Some(40), key(40), no);
        check(0..0, Some(40), old(40), yes);
        check(0..0, None, old(40), no);
    }

    #[test]
    fn keys_between_two_of_a_job_are_not_known() {
        let mut book = Book::new("a", 0);
        book.push(key(5));
        book.push(key(7));
        assert_eq!(book.look(&key(6), true), Known::No);
        book.take_back();
        assert_eq!(book.look(&key(7), true), Known::No);
        book.take_over([key(8), key(9)].into_iter(), 4);
        assert_eq!(book.look(&key(4), true), Known::Committed, "some are not remembered");
    }
}
