//! `MemoryBudget`: the bound of pooled receive buffers, frozen byte ranges and the results of batches.
//!
//! ```text
//!  pool ──lease──▶ Buffer (an io thread reads into it) ──freeze(len)──▶ Bytes (blocks, tasks, log share it)
//!    ▲                                                                    │ last handle dropped
//!    └────────────────────────────────────────────────────────────────────┘
//! ```
//! The results of batches use the same buffers, so memory that input no longer needs is theirs, and the reverse. The budget
//! counts whole buffers, once each, from freeze to the last drop; bytes that were copied together from small reads are
//! counted by length. Any thread may drop a range. Nothing here knows who fills or reads a buffer.

use std::fmt;

use crate::sync::{Arc, AtomicUsize, Gate, Mutex, Ordering, Waker};

/// Bytes that are held between the sockets and the end of their batch, against `store_bytes_max`.
///
/// A `Gate` wakes a reader that found the budget used up once enough was released.
///
/// The results that batches make of the input are counted with it and never held up: the batch that makes them is what
/// frees memory. Readers and the spill keep room for the results that are expected.
pub struct MemoryBudget {
    used: AtomicUsize,
    /// The part of `used` that is results.
    results: AtomicUsize,
    /// The most results at once since the last [`take_results_peak`](MemoryBudget::take_results_peak).
    results_peak: AtomicUsize,
    /// Results that lie in blocks, since then.
    spared: AtomicUsize,
    /// Results that are expected; readers leave room for those that are not there yet.
    expected: AtomicUsize,
    /// Bytes of unfinished records, which are not part of `used`; readers leave room for them.
    unfinished: AtomicUsize,
    max: usize,
    gate: Gate,
    on_pressure: Mutex<Vec<Waker>>,
}

impl fmt::Debug for MemoryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBudget")
            .field("used", &self.used())
            .field("results", &self.results())
            .field("max", &self.max)
            .finish_non_exhaustive()
    }
}

impl MemoryBudget {
    /// A budget of `max` bytes.
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(MemoryBudget {
            used: AtomicUsize::new(0),
            results: AtomicUsize::new(0),
            results_peak: AtomicUsize::new(0),
            spared: AtomicUsize::new(0),
            expected: AtomicUsize::new(0),
            unfinished: AtomicUsize::new(0),
            max,
            gate: Gate::default(),
            on_pressure: Mutex::default(),
        })
    }

    /// Bytes held now.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::SeqCst)
    }

    /// Bytes held now that are results of unfinished batches: an estimate.
    pub fn results(&self) -> usize {
        self.results.load(Ordering::SeqCst)
    }

    /// Bytes of results that are expected of the next batch: readers leave room for those that are not there yet.
    pub fn expected(&self) -> usize {
        self.expected.load(Ordering::SeqCst)
    }

    /// The most bytes of results at once since the last call, with those that were spared.
    pub fn take_results_peak(&self) -> u64 {
        let peak = self.results_peak.swap(self.results(), Ordering::SeqCst);
        peak.saturating_add(self.spared.swap(0, Ordering::SeqCst)) as u64
    }

    /// Notes that results of this many bytes need no memory, because they lie in blocks. They will need it the next time,
    /// if those blocks have left memory by then.
    pub fn spare(&self, bytes: usize) {
        if !self.on_pressure.lock().is_empty() {
            self.spared.fetch_add(bytes, Ordering::SeqCst);
        }
    }

    /// From now on readers leave room for this many bytes of results.
    pub fn expect_results(&self, bytes: u64) {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        if self.expected.swap(bytes, Ordering::SeqCst) != bytes {
            self.wake_readers();
            self.wake_pressed();
        }
    }

    /// The bytes that may be held now: the bound less the results that are expected and not there yet, and less the
    /// unfinished records. Those never take more than half of it: they end only if their connections are read.
    fn room(&self) -> usize {
        let missing = self.expected().saturating_sub(self.results());
        let open = self.max.saturating_sub(missing);
        open - self.unfinished().min(open / 2)
    }

    /// Bytes of records that have begun and not ended; not part of [`used`](MemoryBudget::used).
    pub fn unfinished(&self) -> usize {
        self.unfinished.load(Ordering::SeqCst)
    }

    /// Counts unfinished records, which took `before` bytes and take `after` now.
    pub fn change_unfinished(&self, before: usize, after: usize) {
        if after > before {
            self.unfinished.fetch_add(after - before, Ordering::SeqCst);
            self.wake_pressed();
        } else if after < before {
            self.unfinished.fetch_sub(before - after, Ordering::SeqCst);
            self.wake_readers();
        }
    }

    /// Bytes that must leave memory when it runs short: down to three quarters, where held readers have long been woken.
    pub fn excess(&self) -> usize {
        let (used, room) = (self.used(), self.room());
        used.saturating_sub(room - room / 4)
    }

    /// The bound, in bytes.
    pub fn max(&self) -> usize {
        self.max
    }

    /// Calls `wake` whenever a reader was held and enough was released; it must only post.
    pub fn on_room(&self, wake: impl Fn() + Send + Sync + 'static) {
        self.gate.register(Arc::new(wake));
    }

    /// Calls `wake` whenever results or unfinished records come in and less than an eighth is left; it must only post.
    pub fn on_pressure(&self, wake: impl Fn() + Send + Sync + 'static) {
        self.on_pressure.lock().push(Arc::new(wake));
    }

    /// Returns true if less than an eighth is left: enough for readers to continue while blocks leave memory.
    pub fn is_pressed(&self) -> bool {
        // `used` first: results are taken off it last, and whoever does that looks again.
        let (used, room) = (self.used(), self.room());
        used > room - room / 8
    }

    /// Returns true if there is no room. Asks for no wake-up.
    pub fn is_full(&self) -> bool {
        let (used, room) = (self.used(), self.room());
        used >= room
    }

    /// Returns true if more may be read; if not, the wakers are called once there is room.
    pub fn has_room(&self) -> bool {
        self.gate.has_room(|| self.is_full())
    }

    /// Counts `bytes` until the reservation is dropped.
    pub fn charge(self: &Arc<Self>, bytes: usize) -> Reservation {
        self.used.fetch_add(bytes, Ordering::SeqCst);
        Reservation { account: Arc::clone(self), bytes }
    }

    /// Counts results until the reservation is dropped; none at first.
    pub fn results_charge(self: &Arc<Self>) -> ResultsReservation {
        ResultsReservation { account: Arc::clone(self), bytes: AtomicUsize::new(0) }
    }

    fn release(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::SeqCst);
        self.wake_readers();
    }

    /// Wakes readers that were held, if there is room now.
    fn wake_readers(&self) {
        // Waking at seven eighths keeps a full store from waking its readers for every buffer that comes back.
        self.gate.opened(|| !self.is_pressed());
    }

    fn wake_pressed(&self) {
        if self.is_pressed() {
            self.on_pressure.lock().iter().for_each(|wake| wake());
        }
    }
}

/// Bytes counted by a [`MemoryBudget`] until this is dropped.
#[derive(Debug)]
pub struct Reservation {
    account: Arc<MemoryBudget>,
    bytes: usize,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.account.release(self.bytes);
    }
}

/// Results counted by a [`MemoryBudget`] until this is dropped: an estimate. Nobody waits for room for them.
#[derive(Debug)]
pub struct ResultsReservation {
    account: Arc<MemoryBudget>,
    bytes: AtomicUsize,
}

impl ResultsReservation {
    /// Counts this many bytes more.
    pub fn add(&self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        let account = &self.account;
        self.bytes.fetch_add(bytes, Ordering::SeqCst);
        let results = account.results.fetch_add(bytes, Ordering::SeqCst) + bytes;
        account.results_peak.fetch_max(results, Ordering::SeqCst);
        account.used.fetch_add(bytes, Ordering::SeqCst);
        account.wake_pressed();
    }

    /// Counts nothing any more: these results belong to no batch from now on. Returns their bytes.
    pub fn clear(&self) -> usize {
        let bytes = self.bytes.swap(0, Ordering::SeqCst);
        if bytes > 0 {
            self.account.results.fetch_sub(bytes, Ordering::SeqCst);
            self.account.release(bytes);
        }
        bytes
    }
}

impl Drop for ResultsReservation {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;

    #[test]
    fn a_held_reader_is_woken_once_there_is_room() {
        let account = MemoryBudget::new(1_000);
        let woken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&woken);
        account.on_room(move || {
            count.fetch_add(1, Ordering::SeqCst);
        });
        let charges: Vec<Reservation> = (0..10).map(|_| account.charge(100)).collect();
        assert!(!account.has_room());
        drop(charges);
        assert_eq!(woken.load(Ordering::SeqCst), 1);
        assert!(account.has_room());
    }

    #[test]
    fn results_are_counted_never_held_up_and_told_of_when_memory_runs_short() {
        let (account, woken) = (MemoryBudget::new(1_000), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&woken);
        account.on_pressure(move || {
            count.fetch_add(1, Ordering::SeqCst);
        });
        let results = account.results_charge();
        let check = |used: usize, pressures: usize| {
            assert_eq!((account.used(), account.results()), (used, used));
            assert_eq!(woken.load(Ordering::SeqCst), pressures);
        };
        results.add(800);
        check(800, 0);
        results.add(100);
        check(900, 1);
        results.add(0);
        results.add(600);
        check(1_500, 2);
        assert!(!account.has_room());
        results.clear();
        check(0, 2);
        assert!(account.has_room());
        results.add(5);
        drop(results);
        check(0, 2);
    }

    #[test]
    fn unfinished_records_may_make_memory_short() {
        let (account, woken) = (MemoryBudget::new(1_000), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&woken);
        account.on_pressure(move || {
            count.fetch_add(1, Ordering::SeqCst);
        });
        let _blocks = account.charge(600);
        account.change_unfinished(0, 300);
        assert_eq!((woken.load(Ordering::SeqCst), account.is_full()), (0, false));
        account.change_unfinished(300, 400);
        assert_eq!((woken.load(Ordering::SeqCst), account.is_full()), (1, true));
    }

    #[test]
    fn readers_leave_room_for_results_that_are_expected() {
        let (account, woken) = (MemoryBudget::new(1_000), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&woken);
        account.on_room(move || {
            count.fetch_add(1, Ordering::SeqCst);
        });
        account.expect_results(500);
        let (input, results) = (account.charge(450), account.results_charge());
        assert!(account.has_room() && account.is_pressed());
        let more = account.charge(50);
        assert!(!account.has_room());
        results.add(300);
        assert_eq!((account.room(), account.used(), account.has_room()), (800, 800, false));
        results.add(300);
        assert_eq!((account.room(), account.used(), account.has_room()), (1_000, 1_100, false));
        results.clear();
        account.spare(1);
        account.on_pressure(|| ());
        account.spare(20);
        assert_eq!(
            (account.take_results_peak(), account.take_results_peak(), account.has_room()),
            (620, 0, false)
        );
        drop(more);
        assert_eq!(woken.load(Ordering::SeqCst), 0, "not before seven eighths");
        account.expect_results(0);
        assert_eq!(woken.load(Ordering::SeqCst), 1);
        assert!(account.has_room());
        drop(input);
    }

    #[test]
    fn readers_leave_room_for_unfinished_records_and_are_woken_when_those_end() {
        let (account, woken) = (MemoryBudget::new(1_000), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&woken);
        account.on_room(move || {
            count.fetch_add(1, Ordering::SeqCst);
        });
        account.change_unfinished(0, 250);
        let input = account.charge(750);
        assert_eq!((account.room(), account.has_room(), account.used()), (750, false, 750));
        account.change_unfinished(250, 250);
        assert_eq!(woken.load(Ordering::SeqCst), 0);
        account.change_unfinished(250, 0);
        assert_eq!((woken.load(Ordering::SeqCst), account.has_room()), (1, true));
        drop(input);
        // However many there are, something can be read: without that they never end.
        account.change_unfinished(0, 5_000);
        assert_eq!((account.room(), account.has_room(), account.unfinished()), (500, true, 5_000));
        account.expect_results(900);
        assert_eq!((account.room(), account.has_room()), (50, true));
    }
}

#[cfg(all(test, tidemill_model))]
mod model {
    use super::*;
    use crate::sync::explore::{check, thread};
    use crate::sync::planted::Planted;
    use crate::sync::{Mailbox, Signal};

    const READERS: usize = 2;
    const READS: usize = 3;

    /// Two readers charge half the account at each read, as far as it has room; another thread releases.
    #[test]
    fn every_reader_that_found_the_account_full_is_woken() {
        check(2_000, &[Planted::GateSkipsRecheck], || {
            let (account, held) = (MemoryBudget::new(8), Mailbox::new(READERS * READS));
            let readers = [(); READERS].map(|()| {
                let (account, held, woken) = (account.clone(), held.clone(), Signal::new());
                let raise = woken.clone();
                account.on_room(move || raise.raise());
                thread("reader", move || {
                    for _ in 0..READS {
                        while !account.has_room() {
                            woken.wait();
                        }
                        held.send(account.charge(4)).expect("open");
                    }
                })
            });
            for _ in 0..READERS * READS {
                let charge = held.recv();
                assert!(account.used() <= 8 + 4, "one read of the other reader beyond the bound");
                drop(charge);
            }
            drop(readers);
            assert_eq!(account.used(), 0);
        });
    }
}
