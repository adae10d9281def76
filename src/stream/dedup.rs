//! Repeats: records that a peer sent again after a broken link, recognised by the sender's own numbers and left out.
//!
//! ```text
//!  records ─▶ (sender, number) by a regular expression ─▶ one task per sender, in block order ─▶ those not seen before
//!                                                          state: intervals of seen numbers
//! ```
//! Only a number that was seen is a repeat: a gap is never closed by guessing, so nothing is left out that did not come. The
//! seen numbers are a keyed state like any other: it changes with the commit of a batch and survives a restart. Runs
//! on the workers; it knows no sockets.

use std::borrow::Cow;

use regex::bytes::{Captures, Regex};
use serde::{Deserialize, Serialize};

use super::state::spec::{State, StateSpec, WhenFull};
use super::{DStream, Graph, SourceInfo};
use crate::exec::Out;
use crate::metrics::ReceiverCounters;
use crate::settings::pattern::Pattern;
use crate::sync::{Arc, Mutex, Ordering};

/// Senders that are remembered; beyond it those that were silent for longest are forgotten.
pub const SENDERS_MAX: u64 = 100_000;

/// Intervals of seen numbers that are remembered of each sender; beyond it the lowest is forgotten.
pub const INTERVALS_MAX: usize = 1_024;

/// The sender of a record and the number that the sender gave it, found by a regular expression. With it a source leaves out
/// what a peer sends again after a broken link: see [`SocketSource::identity`](crate::SocketSource::identity).
#[derive(Clone, Debug)]
pub struct Identity(Regex);

impl Identity {
    /// By an expression over the record with the groups `sender` and `number`; `None` if it lacks one of them. A record that
    /// does not match, or whose number is not one of 64 bits, has no identity and is never a repeat.
    ///
    /// ```
    /// use tidemill::stream::{Identity, Regex};
    ///
    /// let expression = Regex::new(r"^(?<sender>\S+) (?<number>\d+) ").unwrap();
    /// assert!(Identity::new(expression).is_some());
    /// ```
    pub fn new(expression: Regex) -> Option<Identity> {
        let has = |name: &str| expression.capture_names().flatten().any(|found| found == name);
        (has("sender") && has("number")).then_some(Identity(expression))
    }

    /// The sender and the number.
    fn of<'a>(&self, record: &'a [u8]) -> Option<(&'a [u8], u64)> {
        let found: Captures<'a> = self.0.captures(record)?;
        let number = std::str::from_utf8(found.name("number")?.as_bytes()).ok()?;
        Some((found.name("sender")?.as_bytes(), number.parse().ok()?))
    }
}

impl From<Identity> for Pattern {
    fn from(identity: Identity) -> Pattern {
        Pattern::of(identity.0)
    }
}

/// The numbers that were seen of one sender: closed intervals, rising, never adjacent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Seen(Vec<(u64, u64)>);

impl Seen {
    /// Adds a number; false if it is there already.
    fn insert(&mut self, number: u64) -> bool {
        let at = self.0.partition_point(|(_, last)| *last < number);
        if self.0.get(at).is_some_and(|(first, _)| *first <= number) {
            return false;
        }
        let behind = at.checked_sub(1).filter(|at| self.0[*at].1 + 1 == number);
        let before = self.0.get(at).is_some_and(|(first, _)| first.checked_sub(1) == Some(number));
        match (behind, before) {
            (Some(left), true) => self.0[left].1 = self.0.remove(at).1,
            (Some(left), false) => self.0[left].1 = number,
            (None, true) => self.0[at].0 = number,
            (None, false) => self.0.insert(at, (number, number)),
        }
        if self.0.len() > INTERVALS_MAX {
            self.0.remove(0);
        }
        true
    }
}

/// The name of the state that knows the repeats of a source.
pub(crate) fn identity_state(source: &str) -> String {
    format!("identity of {source}")
}

/// The counters of a source; there are none before its receiver is.
type Counted = Arc<Mutex<Option<Arc<ReceiverCounters>>>>;

/// The repeat counters of each source.
#[derive(Debug, Default)]
pub(super) struct Repeats(Mutex<Vec<(u32, Counted)>>);

impl Graph {
    /// The records of a source without those that came before. Order is kept among the records of a sender.
    pub fn without_repeats(
        self: &Arc<Self>,
        records: &DStream<[u8]>,
        source: &SourceInfo,
        identity: Identity,
    ) -> DStream<[u8]> {
        let counted = Counted::default();
        self.repeats.0.lock().push((source.source, Arc::clone(&counted)));
        let identified = records.map(move |record: &[u8]| match identity.of(record) {
            Some((sender, number)) => (Some(sender.to_vec()), (number, record.to_vec())),
            None => (None, (0, record.to_vec())),
        });
        let spec = StateSpec::new().keys_max(SENDERS_MAX, WhenFull::ExpireOldest);
        let check = move |_,
                          sender: &Option<Vec<u8>>,
                          come: Option<&Vec<Numbered>>,
                          seen: &mut State<'_, Seen>| {
            let come = come?;
            if sender.is_none() {
                return Some(come.iter().map(|(_, record)| record.clone()).collect());
            }
            let mut numbers = seen.get().cloned().unwrap_or_default();
            let new = come.iter().filter(|(number, _)| numbers.insert(*number));
            let new: Vec<Vec<u8>> = new.map(|(_, record)| record.clone()).collect();
            seen.update(numbers);
            if let Some(counters) = &*counted.lock() {
                counters.repeats.add((come.len() - new.len()) as u64);
            }
            Some(new)
        };
        let new = identified.group_by_key().map_with_state(spec, check);
        let new = new.named(&identity_state(&source.name));
        new.flat_map(|records: &Vec<Vec<u8>>, out: &mut Out<'_, [u8]>| {
            records.iter().for_each(|record| out.push(record))
        })
    }

    /// From now on `counters` counts the repeats of a source: each one that a task leaves out.
    pub(crate) fn count_repeats(&self, source: u32, counters: &Arc<ReceiverCounters>) {
        for (_, counted) in self.repeats.0.lock().iter().filter(|(of, _)| *of == source) {
            *counted.lock() = Some(Arc::clone(counters));
        }
    }

    /// Bytes as text; what is not UTF-8 becomes U+FFFD and is counted.
    pub fn as_text(&self, records: &DStream<[u8]>) -> DStream<str> {
        let bad = Arc::clone(&self.bad_utf8);
        records.flat_map(move |record, out: &mut Out<'_, str>| {
            let text = String::from_utf8_lossy(record);
            if let Cow::Owned(_) = text {
                bad.fetch_add(1, Ordering::Relaxed);
            }
            out.push(&text);
        })
    }
}

/// A record and its number.
type Numbered = (u64, Vec<u8>);

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn identity(expression: &str) -> Identity {
        Identity::new(Regex::new(expression).expect("a good expression")).expect("both groups")
    }

    #[test]
    fn who_sent_what() {
        let identity = identity(r"^(?<sender>\S+) (?<number>\d+) ");
        let check = |record: &str, expected: Option<(&str, u64)>| {
            let expected = expected.map(|(sender, number)| (sender.as_bytes(), number));
            assert_eq!(identity.of(record.as_bytes()), expected, "{record}");
        };
        check("a 7 text", Some(("a", 7)));
        check("b 007 text", Some(("b", 7)));
        check("a 18446744073709551615 text", Some(("a", u64::MAX)));
        check("a 18446744073709551616 text", None);
        check("a x text", None);
        check("", None);
        assert!(Identity::new(Regex::new("(?<sender>a)").expect("good")).is_none());
    }

    #[test]
    fn numbers_are_kept_as_intervals() {
        let check = |numbers: &[u64], expected: &[(u64, u64)]| {
            let mut seen = Seen::default();
            for number in numbers {
                assert!(seen.insert(*number), "{number} of {numbers:?}");
                assert!(!seen.insert(*number), "{number} again");
            }
            assert_eq!(seen.0, expected, "{numbers:?}");
        };
        check(&[], &[]);
        check(&[1, 2, 3], &[(1, 3)]);
        check(&[3, 2, 1], &[(1, 3)]);
        check(&[1, 3, 2], &[(1, 3)]);
        check(&[5, 1, 9], &[(1, 1), (5, 5), (9, 9)]);
        check(&[u64::MAX, 0, u64::MAX - 1], &[(0, 0), (u64::MAX - 1, u64::MAX)]);
    }

    #[test]
    fn the_lowest_interval_is_forgotten_beyond_the_bound() {
        let mut seen = Seen::default();
        let count = INTERVALS_MAX as u64 + 1;
        (0..count).for_each(|number| assert!(seen.insert(number * 2)));
        assert_eq!(seen.0.len(), INTERVALS_MAX);
        assert!(seen.insert(0), "forgotten: taken for new rather than lost");
        assert!(!seen.insert(count * 2 - 2));
    }

    proptest! {
        #[test]
        fn seen_is_a_set(numbers in prop::collection::vec(0..60_u64, 0..200)) {
            let (mut seen, mut set) = (Seen::default(), BTreeSet::new());
            for number in numbers {
                prop_assert_eq!(seen.insert(number), set.insert(number));
                prop_assert!(seen.0.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
            }
            let all: BTreeSet<u64> = seen.0.iter().flat_map(|(first, last)| *first..=*last).collect();
            prop_assert_eq!(all, set);
        }
    }
}
