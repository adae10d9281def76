//! Pooled receive buffers, frozen byte ranges, and the account that bounds them.
//!
//! ```text
//!  pool ──lease──▶ Buffer (an io thread reads into it) ──freeze(len)──▶ Bytes (blocks, tasks, log share it)
//!    ▲                                                                    │ last handle dropped
//!    └────────────────────────────────────────────────────────────────────┘
//! ```
//! What batches make uses the same buffers, so memory that the one needs no more is the other's.
//! A buffer is initialised once and never again, so a read costs one copy, kernel to buffer. The account counts whole
//! buffers, once each, from freeze to the last drop; what was copied together from small reads is counted by length.
//! Any thread may drop a range. Nothing here knows who fills or reads a buffer.

use std::fmt;

use bytes::Bytes;

use crate::sync::planted::{Planted, planted};
use crate::sync::{Arc, AtomicBool, AtomicUsize, Mutex, Ordering};

/// The size of a pooled buffer, in bytes.
pub const BUFFER_BYTES: usize = 64 * 1024;

type Waker = Box<dyn Fn() + Send + Sync>;

/// How many bytes are held between the sockets and the end of their batch, against `store_bytes_max`.
///
/// A reader that finds the account full is marked and woken once enough was released. The order that makes this safe:
/// the reader sets `starved`, then looks at `used` again; a release lowers `used`, then looks at `starved`. With
/// sequentially consistent accesses one of the two sees the other.
///
/// What batches make of the input, their results, is counted with it and never held up: the batch that makes it is what
/// frees memory. Readers and the spill keep room for what is expected of it.
pub struct Account {
    used: AtomicUsize,
    /// The part of `used` that is results.
    results: AtomicUsize,
    /// The most results since somebody asked.
    results_peak: AtomicUsize,
    /// Results that lie in blocks, since somebody asked.
    spared: AtomicUsize,
    /// So many results are expected; what of them is not there yet is not for readers.
    expected: AtomicUsize,
    max: usize,
    starved: AtomicBool,
    wakers: Mutex<Vec<Waker>>,
    on_pressure: Mutex<Vec<Waker>>,
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account")
            .field("used", &self.used())
            .field("results", &self.results())
            .field("max", &self.max)
            .finish_non_exhaustive()
    }
}

impl Account {
    /// An account for at most `max` bytes.
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Account {
            used: AtomicUsize::new(0),
            results: AtomicUsize::new(0),
            results_peak: AtomicUsize::new(0),
            spared: AtomicUsize::new(0),
            expected: AtomicUsize::new(0),
            max,
            starved: AtomicBool::new(false),
            wakers: Mutex::default(),
            on_pressure: Mutex::default(),
        })
    }

    /// Bytes held now.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::SeqCst)
    }

    /// How many of the bytes held now are results of unfinished batches: an estimate.
    pub fn results(&self) -> usize {
        self.results.load(Ordering::SeqCst)
    }

    /// How many bytes of results are expected of the next batch: readers leave room for what of them is not there yet.
    pub fn expected(&self) -> usize {
        self.expected.load(Ordering::SeqCst)
    }

    /// The most results that there were at once since this was asked for the last time, with those that were spared.
    pub fn take_results_peak(&self) -> u64 {
        let peak = self.results_peak.swap(self.results(), Ordering::SeqCst);
        peak.saturating_add(self.spared.swap(0, Ordering::SeqCst)) as u64
    }

    /// Results of so many bytes need no memory, because they lie in blocks. They will the next time, if those have left
    /// memory by then.
    pub fn spare(&self, bytes: usize) {
        if !self.on_pressure.lock().is_empty() {
            self.spared.fetch_add(bytes, Ordering::SeqCst);
        }
    }

    /// From now on readers leave room for so many bytes of results.
    pub fn expect_results(&self, bytes: u64) {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        if self.expected.swap(bytes, Ordering::SeqCst) != bytes {
            self.wake_readers();
            self.wake_pressed();
        }
    }

    /// The bytes that may be held now: the bound less the results that are expected and not there yet.
    fn room(&self) -> usize {
        let missing = self.expected().saturating_sub(self.results());
        self.max.saturating_sub(missing)
    }

    /// How many bytes are to leave memory when it runs short: down to three quarters, where held readers have been woken
    /// for long.
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
        self.wakers.lock().push(Box::new(wake));
    }

    /// Calls `wake` whenever results come in and less than an eighth is left; it must only post.
    pub fn on_pressure(&self, wake: impl Fn() + Send + Sync + 'static) {
        self.on_pressure.lock().push(Box::new(wake));
    }

    /// Less than an eighth is left: enough for readers to go on while something leaves memory.
    pub fn is_pressed(&self) -> bool {
        // `used` first: results are taken off it last, and who does that looks again.
        let (used, room) = (self.used(), self.room());
        used > room - room / 8
    }

    /// Whether there is no room, for those who only look.
    pub fn is_full(&self) -> bool {
        let (used, room) = (self.used(), self.room());
        used >= room
    }

    /// Whether more may be read; if not, the wakers are called once there is room.
    pub fn has_room(&self) -> bool {
        if !self.is_full() {
            return true;
        }
        self.starved.store(true, Ordering::SeqCst);
        !self.is_full() && !planted(Planted::AccountSkipsRecheck)
    }

    /// Counts `bytes` until the charge is dropped.
    pub fn charge(self: &Arc<Self>, bytes: usize) -> Charge {
        self.used.fetch_add(bytes, Ordering::SeqCst);
        Charge { account: Arc::clone(self), bytes }
    }

    /// Counts results, none at first, until it is dropped.
    pub fn results_charge(self: &Arc<Self>) -> ResultsCharge {
        ResultsCharge { account: Arc::clone(self), bytes: AtomicUsize::new(0) }
    }

    fn release(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::SeqCst);
        self.wake_readers();
    }

    /// Wakes readers that were held, if there is room now.
    fn wake_readers(&self) {
        // Waking at seven eighths keeps a full store from waking its readers for every buffer that comes back.
        if !self.is_pressed()
            && self.starved.load(Ordering::SeqCst)
            && self.starved.swap(false, Ordering::SeqCst)
        {
            for wake in self.wakers.lock().iter() {
                wake();
            }
        }
    }

    fn wake_pressed(&self) {
        if self.is_pressed() {
            self.on_pressure.lock().iter().for_each(|wake| wake());
        }
    }
}

/// Bytes counted by an [`Account`] until this is dropped.
#[derive(Debug)]
pub struct Charge {
    account: Arc<Account>,
    bytes: usize,
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.account.release(self.bytes);
    }
}

/// Results counted by an [`Account`] until this is dropped. They are an estimate, and they are never waited for.
#[derive(Debug)]
pub struct ResultsCharge {
    account: Arc<Account>,
    bytes: AtomicUsize,
}

impl ResultsCharge {
    /// Counts so many bytes more.
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

    /// Counts nothing any more: what there is belongs to no batch from now on. Returns how much that is.
    pub fn clear(&self) -> usize {
        let bytes = self.bytes.swap(0, Ordering::SeqCst);
        if bytes > 0 {
            self.account.results.fetch_sub(bytes, Ordering::SeqCst);
            self.account.release(bytes);
        }
        bytes
    }
}

impl Drop for ResultsCharge {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Free buffers, and the account that those in use are counted by.
#[derive(Debug)]
pub struct Pool {
    free: Mutex<Free>,
    account: Arc<Account>,
}

#[derive(Debug, Default)]
struct Free {
    buffers: Vec<Box<[u8]>>,
    /// The fewest free buffers since the last trim: so many were of no use.
    low_water: usize,
}

impl Pool {
    /// An empty pool; buffers are made as they are needed and reused.
    pub fn new(account: Arc<Account>) -> Arc<Self> {
        Arc::new(Pool { free: Mutex::new(Free::default()), account })
    }

    /// The account of this pool's buffers.
    pub fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// A buffer that leases its memory when it is first needed.
    pub fn buffer(self: &Arc<Self>) -> Buffer {
        Buffer { pool: Arc::clone(self), data: None }
    }

    /// Gives back to the allocator an eighth of the buffers that nobody needed since the last trim.
    pub fn trim(&self) {
        let mut free = self.free.lock();
        let keep = free.buffers.len() - free.low_water.div_ceil(8).min(free.buffers.len());
        let surplus = free.buffers.split_off(keep);
        free.low_water = free.buffers.len();
        drop(free);
        drop(surplus);
    }

    fn lease(&self) -> Box<[u8]> {
        let mut free = self.free.lock();
        let buffer = free.buffers.pop();
        free.low_water = free.low_water.min(free.buffers.len());
        drop(free);
        buffer.unwrap_or_else(|| vec![0; BUFFER_BYTES].into_boxed_slice())
    }

    /// An empty vector with the memory of a buffer.
    pub fn lease_vec(&self) -> Vec<u8> {
        let mut bytes = self.lease().into_vec();
        bytes.clear();
        bytes
    }

    /// Takes the memory of such a vector back, unless it has grown.
    pub fn give_back_vec(&self, mut bytes: Vec<u8>) {
        if bytes.capacity() == BUFFER_BYTES {
            bytes.resize(BUFFER_BYTES, 0);
            self.give_back(bytes.into_boxed_slice());
        }
    }

    fn give_back(&self, buffer: Box<[u8]>) {
        self.free.lock().buffers.push(buffer);
    }
}

/// A place to read into. It owns memory only between the first [`space`](Buffer::space) and [`freeze`](Buffer::freeze).
#[derive(Debug)]
pub struct Buffer {
    pool: Arc<Pool>,
    data: Option<Box<[u8]>>,
}

impl Buffer {
    /// All of the buffer's bytes, to read into.
    pub fn space(&mut self) -> &mut [u8] {
        self.data.get_or_insert_with(|| self.pool.lease())
    }

    /// The first `len` bytes, after a read.
    pub fn filled(&self, len: usize) -> &[u8] {
        self.data.as_deref().map_or(&[], |data| &data[..len])
    }

    /// Hands the first `len` bytes on as a shared range, counted until its last handle is dropped.
    pub fn freeze(&mut self, len: usize) -> Bytes {
        let Some(data) = self.data.take() else { return Bytes::new() };
        let charge = self.pool.account.charge(data.len());
        Bytes::from_owner(Frozen { data, len, pool: Arc::clone(&self.pool), _charge: charge })
    }

    /// Gives unused memory back, so that an idle thread holds none.
    pub fn release(&mut self) {
        if let Some(data) = self.data.take() {
            self.pool.give_back(data);
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.release();
    }
}

/// The owner behind a frozen range: returns the buffer to its pool with the last handle.
struct Frozen {
    data: Box<[u8]>,
    len: usize,
    pool: Arc<Pool>,
    _charge: Charge,
}

impl AsRef<[u8]> for Frozen {
    fn as_ref(&self) -> &[u8] {
        &self.data[..self.len]
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        if !planted(Planted::FrozenBufferIsLost) {
            self.pool.give_back(std::mem::take(&mut self.data));
        }
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;

    #[test]
    fn a_frozen_buffer_is_counted_until_its_last_handle_is_dropped() {
        let account = Account::new(1 << 20);
        let pool = Pool::new(Arc::clone(&account));
        let mut buffer = pool.buffer();
        buffer.space()[..5].copy_from_slice(b"hello");
        let all = buffer.freeze(5);
        let part = all.slice(1..3);
        drop(all);
        assert_eq!((&part[..], account.used()), (&b"el"[..], BUFFER_BYTES));
        drop(part);
        assert_eq!((account.used(), pool.free.lock().buffers.len()), (0, 1));
    }

    #[test]
    fn a_vector_has_the_memory_of_a_buffer_and_gives_it_back_unless_it_has_grown() {
        let pool = Pool::new(Account::new(1 << 20));
        let check = |len: usize, free: usize| {
            let mut bytes = pool.lease_vec();
            assert_eq!((bytes.len(), bytes.capacity()), (0, BUFFER_BYTES));
            bytes.resize(len, 1);
            pool.give_back_vec(bytes);
            assert_eq!(pool.free.lock().buffers.len(), free, "{len}");
        };
        check(0, 1);
        check(BUFFER_BYTES, 1);
        check(BUFFER_BYTES + 1, 0);
        check(1, 1);
        assert_eq!(pool.lease().len(), BUFFER_BYTES);
    }

    #[test]
    fn a_held_reader_is_woken_once_there_is_room() {
        let account = Account::new(1_000);
        let woken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&woken);
        account.on_room(move || {
            count.fetch_add(1, Ordering::SeqCst);
        });
        let charges: Vec<Charge> = (0..10).map(|_| account.charge(100)).collect();
        assert!(!account.has_room());
        drop(charges);
        assert_eq!(woken.load(Ordering::SeqCst), 1);
        assert!(account.has_room());
    }

    #[test]
    fn results_are_counted_never_held_up_and_told_of_when_memory_runs_short() {
        let (account, woken) = (Account::new(1_000), Arc::new(AtomicUsize::new(0)));
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
    fn readers_leave_room_for_results_that_are_expected() {
        let (account, woken) = (Account::new(1_000), Arc::new(AtomicUsize::new(0)));
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
    fn a_trim_gives_back_what_was_not_needed() {
        let pool = Pool::new(Account::new(1 << 30));
        let mut buffers: Vec<Buffer> = (0..16).map(|_| pool.buffer()).collect();
        buffers.iter_mut().for_each(|buffer| assert_eq!(buffer.space().len(), BUFFER_BYTES));
        drop(buffers);
        pool.trim();
        assert_eq!(pool.free.lock().buffers.len(), 16, "all were needed since the start");
        pool.trim();
        assert_eq!(pool.free.lock().buffers.len(), 14);
    }
}

#[cfg(all(test, tidemill_model))]
mod model {
    use super::*;
    use crate::sync::explore::{check, thread};
    use crate::sync::{Mailbox, Signal};

    const READERS: usize = 2;
    const READS: usize = 3;

    /// Two readers charge half the account at each read, as far as it has room; another thread releases.
    #[test]
    fn every_reader_that_found_the_account_full_is_woken() {
        check(2_000, &[Planted::AccountSkipsRecheck], || {
            let (account, held) = (Account::new(8), Mailbox::new(READERS * READS));
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

    /// Two readers lease, fill and freeze; another thread reads the ranges and drops them.
    #[test]
    fn a_buffer_goes_round_and_is_never_shared() {
        check(1_000, &[Planted::FrozenBufferIsLost], || {
            let (pool, frozen) = (Pool::new(Account::new(1 << 20)), Mailbox::new(1));
            let readers = [1, 2].map(|mark: u8| {
                let (pool, frozen) = (Arc::clone(&pool), frozen.clone());
                thread("reader", move || {
                    let mut buffer = pool.buffer();
                    for _ in 0..2 {
                        buffer.space()[..2].fill(mark);
                        let bytes = buffer.freeze(2);
                        frozen.send((mark, bytes.slice(..1), bytes)).expect("open");
                    }
                })
            });
            for _ in 0..4 {
                let (mark, part, whole) = frozen.recv().expect("open");
                assert_eq!((&whole[..], &part[..]), (&[mark, mark][..], &[mark][..]));
                drop(whole);
                assert!(pool.account().used() >= BUFFER_BYTES, "a part still counts the buffer");
            }
            drop(readers);
            let free = pool.free.lock().buffers.len();
            assert_eq!((pool.account().used(), (1..=4).contains(&free)), (0, true), "{free} free");
        });
    }
}
