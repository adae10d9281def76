//! The ledger of long unfinished records, and the choice of the one that is given up. Pure: no locks, no clocks.

use crate::sync::Arc;

/// Places in the ledger that are kept although no record has one.
const PLACES_KEPT: usize = 64;

/// The record of one connection in the ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Held {
    /// Its memory; 0 if nobody has this place, or the record is given up.
    bytes: usize,
    /// When it came into the ledger, as a running number.
    since: u64,
}

/// The record that is given up is the oldest of those that take at least the mean. So a sender of short records is safe from
/// senders of long ones, and no record displaces many others.
fn victim(held: &[Held]) -> Option<usize> {
    let total: u128 = held.iter().map(|held| held.bytes as u128).sum();
    let count = held.iter().filter(|held| held.bytes > 0).count() as u128;
    let long = |held: &Held| held.bytes > 0 && held.bytes as u128 * count >= total;
    let long = held.iter().enumerate().filter(|(_, held)| long(held));
    long.min_by_key(|(_, held)| held.since).map(|(place, _)| place)
}

/// A place in the ledger.
pub(crate) type Place = usize;

/// All long records, by place. `O` is their owner.
pub(crate) struct Ledger<O> {
    held: Vec<Held>,
    owned: Vec<Owned<O>>,
    free: Vec<Place>,
    /// The memory of all of them.
    pub(crate) bytes: usize,
    next: u64,
}

struct Owned<O> {
    by: Arc<O>,
    memory: Memory,
}

/// The holder of the memory of a record in the ledger.
enum Memory {
    Parked(Vec<u8>),
    /// With its connection, which reads a piece.
    Out,
    /// The same, and it is given up as soon as it comes back.
    Doomed,
    GivenUp,
}

/// The fate of a record that was parked, or is asked back.
#[derive(Debug, PartialEq)]
pub(crate) enum Parked {
    Here,
    /// Give it up yourself.
    Doomed(Vec<u8>),
}

impl<O> Default for Ledger<O> {
    fn default() -> Self {
        Ledger { held: Vec::new(), owned: Vec::new(), free: Vec::new(), bytes: 0, next: 0 }
    }
}

impl<O> Ledger<O> {
    pub(crate) fn add(&mut self, by: &Arc<O>) -> Place {
        self.next += 1;
        let held = Held { bytes: 0, since: self.next };
        let owned = Owned { by: Arc::clone(by), memory: Memory::Out };
        match self.free.pop() {
            Some(place) => {
                (self.held[place], self.owned[place]) = (held, owned);
                place
            }
            None => {
                self.held.push(held);
                self.owned.push(owned);
                self.held.len() - 1
            }
        }
    }

    fn count(&mut self, place: Place, bytes: usize) {
        let before = std::mem::replace(&mut self.held[place].bytes, bytes);
        self.bytes = self.bytes - before + bytes;
    }

    pub(crate) fn park(&mut self, place: Place, bytes: Vec<u8>) -> Parked {
        if let Memory::Doomed = self.owned[place].memory {
            self.owned[place].memory = Memory::GivenUp;
            return Parked::Doomed(bytes);
        }
        self.count(place, bytes.capacity());
        self.owned[place].memory = Memory::Parked(bytes);
        Parked::Here
    }

    /// Gives a record's memory back to its connection; `None` if it was given up, and then the place is free.
    pub(crate) fn take(&mut self, place: Place) -> Option<Vec<u8>> {
        match std::mem::replace(&mut self.owned[place].memory, Memory::Out) {
            Memory::Parked(bytes) => Some(bytes),
            Memory::GivenUp => {
                self.remove(place);
                None
            }
            Memory::Out | Memory::Doomed => {
                unreachable!("a record is asked back where it was parked")
            }
        }
    }

    pub(crate) fn remove(&mut self, place: Place) {
        self.count(place, 0);
        self.free.push(place);
        if self.free.len() == self.held.len() && self.free.len() > PLACES_KEPT {
            // The table of a flood is not kept.
            *self = Ledger { next: self.next, ..Ledger::default() };
        }
    }

    /// The next record that is given up while the bound is exceeded, with its memory if that is here.
    pub(crate) fn choose(&mut self, bytes_max: usize) -> Option<(Arc<O>, Option<Vec<u8>>)> {
        let place = (self.bytes > bytes_max).then(|| victim(&self.held)).flatten()?;
        self.count(place, 0);
        let owned = &mut self.owned[place];
        let (memory, bytes) = match std::mem::replace(&mut owned.memory, Memory::GivenUp) {
            Memory::Parked(bytes) => (Memory::GivenUp, Some(bytes)),
            Memory::Out | Memory::Doomed | Memory::GivenUp => (Memory::Doomed, None),
        };
        owned.memory = memory;
        Some((Arc::clone(&owned.by), bytes))
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Who is given up among records of this age, the oldest first, and size.
    fn check(bytes: &[usize], expected: Option<usize>) {
        let held: Vec<Held> =
            (0..).zip(bytes).map(|(since, bytes)| Held { bytes: *bytes, since }).collect();
        assert_eq!(victim(&held), expected, "{bytes:?}");
        // It does not depend on the places.
        let reversed: Vec<Held> = held.iter().rev().copied().collect();
        let place = victim(&reversed).map(|place| bytes.len() - 1 - place);
        assert_eq!(place, expected, "{bytes:?}");
    }

    #[test]
    fn the_oldest_of_at_least_the_mean_is_given_up() {
        check(&[], None);
        check(&[0, 0], None);
        check(&[5], Some(0));
        check(&[5, 5, 5], Some(0));
        check(&[4, 5, 6], Some(1));
        check(&[1, 9, 1, 9], Some(1));
        check(&[0, 1, 9], Some(2));
        // One long record does not make room by the short ones of others.
        check(&[1, 1, 1, 1, 100], Some(4));
        // Nor do many that are all a little shorter than the longest.
        check(&[2, 99, 99, 100], Some(1));
        check(&[1 << 30, 1, (1 << 30) + 1], Some(0));
        check(&[usize::MAX, usize::MAX], Some(0));
    }

    /// The most bytes that a connection reads at once, of records of at most this length, while this much is allowed.
    const READ: usize = 64;
    const RECORD: usize = 256;
    const BOUND: usize = 1_000;

    /// The next step of a connection: it reads this many more bytes, or its record ends.
    #[derive(Clone, Debug)]
    enum Step {
        Reads(usize, usize),
        Ends(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let reads = (0..30usize, 1..=READ).prop_map(|(who, bytes)| Step::Reads(who, bytes));
        let step = prop_oneof![8 => reads, 1 => (0..30usize).prop_map(Step::Ends)];
        prop::collection::vec(step, 1..400)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn the_bound_holds_and_short_records_are_safe(steps in steps()) {
            let mut ledger = Ledger::<usize>::default();
            let mut places = [None::<Place>; 30];
            for step in steps {
                let (Step::Reads(who, _) | Step::Ends(who)) = step;
                let place = places[who].unwrap_or_else(|| ledger.add(&Arc::new(who)));
                places[who] = Some(place);
                let before = ledger.held[place].bytes;
                let record = if before == 0 { Some(Vec::new()) } else { ledger.take(place) };
                let Some(mut record) = record else {
                    places[who] = None;
                    continue;
                };
                match step {
                    Step::Reads(_, bytes) if record.len() + bytes <= RECORD => {
                        record.reserve_exact(bytes);
                        record.resize(record.len() + bytes, 0);
                        prop_assert_eq!(ledger.park(place, record), Parked::Here);
                    }
                    _ => {
                        ledger.remove(place);
                        places[who] = None;
                    }
                }
                prop_assert!(ledger.bytes <= BOUND + READ, "one read beyond the bound");
                while let Some((owner, bytes)) = ledger.choose(BOUND) {
                    let bytes = bytes.expect("all are parked").capacity();
                    let left: Vec<usize> = ledger.held.iter().map(|held| held.bytes).collect();
                    let longer = left.iter().any(|other| *other > bytes);
                    let all = left.iter().filter(|bytes| **bytes > 0).count() + 1;
                    let mean = (left.iter().sum::<usize>() + bytes) / all;
                    prop_assert!(bytes >= mean || !longer, "{} of {} bytes", owner, bytes);
                    // What was given up is learned with the next piece.
                    let place = places[*owner].take().expect("it has a place");
                    prop_assert_eq!(ledger.take(place), None);
                }
                prop_assert!(ledger.bytes <= BOUND);
                let held: usize = ledger.held.iter().map(|held| held.bytes).sum();
                prop_assert_eq!(ledger.bytes, held);
            }
        }
    }

    #[test]
    fn a_record_that_is_read_when_it_is_chosen_is_given_up_when_it_comes_back() {
        let mut ledger = Ledger::<&str>::default();
        let (one, other) = (ledger.add(&Arc::new("one")), ledger.add(&Arc::new("other")));
        assert_eq!(ledger.park(one, vec![0; 10]), Parked::Here);
        assert_eq!(ledger.take(one), Some(vec![0; 10]));
        assert_eq!(ledger.park(other, vec![0; 5]), Parked::Here);
        let (owner, bytes) = ledger.choose(12).expect("15 bytes are there");
        assert_eq!((*owner, bytes, ledger.bytes), ("one", None, 5));
        assert!(ledger.choose(12).is_none(), "one is enough");
        assert_eq!(ledger.park(one, vec![0; 11]), Parked::Doomed(vec![0; 11]));
        assert_eq!((ledger.take(one), ledger.bytes), (None, 5));
        // One that ends before it comes back ends as any other.
        let again = ledger.add(&Arc::new("again"));
        assert_eq!(again, one, "the place is free");
        ledger.park(again, vec![0; 10]);
        ledger.take(again);
        assert!(ledger.choose(12).is_some());
        ledger.remove(again);
        ledger.remove(other);
        assert_eq!((ledger.bytes, ledger.free.len()), (0, 2));
    }

    #[test]
    fn the_table_of_a_flood_is_not_kept() {
        let mut ledger = Ledger::<usize>::default();
        let places: Vec<Place> = (0..1_000).map(|who| ledger.add(&Arc::new(who))).collect();
        places.iter().for_each(|place| drop(ledger.park(*place, vec![0; 4])));
        places.iter().for_each(|place| drop((ledger.take(*place), ledger.remove(*place))));
        assert_eq!((ledger.held.capacity(), ledger.free.capacity(), ledger.bytes), (0, 0, 0));
    }
}
