//! The pool of receive buffers: leased, filled, frozen to shared ranges, and given back with the last of those.
//!
//! A buffer is initialised once and never again, so a read costs one copy, kernel to buffer. Any thread may drop a range. It
//! does not know who fills or reads a buffer.

use bytes::Bytes;

use super::budget::{MemoryBudget, Reservation};
use crate::sync::planted::{Planted, planted};
use crate::sync::{Arc, AtomicUsize, Mutex, MutexGuard, Ordering};

/// The size of a pooled buffer, in bytes.
pub const BUFFER_BYTES: usize = 64 * 1024;

/// Once more buffers than this are being read into (8 MiB), each reader takes one at a time.
const READING_MANY: usize = 128;

/// Free buffers that are kept even if the budget is used up.
const FREE_MIN: usize = 16;

/// Free buffers, and the budget that counts the buffers in use. The pool keeps free buffers as long as they and what the
/// budget counts fit into its bound together.
#[derive(Debug)]
pub struct Pool {
    free: Mutex<Free>,
    /// The number of free buffers.
    count: AtomicUsize,
    /// The number of buffers that hold memory to be read into.
    reading: AtomicUsize,
    account: Arc<MemoryBudget>,
}

#[derive(Debug, Default)]
struct Free {
    buffers: Vec<Box<[u8]>>,
    /// The fewest free buffers since the last trim: this many were of no use.
    low_water: usize,
}

impl Pool {
    /// An empty pool; buffers are made as they are needed and reused.
    pub fn new(account: Arc<MemoryBudget>) -> Arc<Self> {
        let (count, reading) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Pool { free: Mutex::new(Free::default()), count, reading, account })
    }

    /// The budget that counts this pool's buffers.
    pub fn account(&self) -> &Arc<MemoryBudget> {
        &self.account
    }

    /// A buffer that leases its memory when it is first needed.
    pub fn buffer(self: &Arc<Self>) -> Buffer {
        Buffer { pool: Arc::clone(self), data: None }
    }

    /// Bytes of the free buffers.
    pub fn free_bytes(&self) -> usize {
        self.count.load(Ordering::SeqCst) * BUFFER_BYTES
    }

    /// The most free buffers that may be kept now.
    fn free_max(&self) -> usize {
        let room = self.account.max().saturating_sub(self.account.used());
        (room / BUFFER_BYTES).max(FREE_MIN)
    }

    /// Gives back to the allocator an eighth of the buffers that nobody needed since the last trim, and what does not fit.
    pub fn trim(&self) {
        let free = self.free.lock();
        let keep = free.buffers.len() - free.low_water.div_ceil(8).min(free.buffers.len());
        self.keep(free, keep.min(self.free_max()));
    }

    /// Gives back to the allocator the free buffers that do not fit beside what the budget counts, which includes memory
    /// from outside this pool. Costs two loads if there are none.
    pub fn shed(&self) {
        let most = self.free_max();
        if self.count.load(Ordering::SeqCst) > most {
            self.keep(self.free.lock(), most);
        }
    }

    fn keep(&self, mut free: MutexGuard<'_, Free>, most: usize) {
        let most = most.min(free.buffers.len());
        let surplus = free.buffers.split_off(most);
        free.low_water = most;
        self.count.store(most, Ordering::SeqCst);
        drop(free);
        drop(surplus);
    }

    fn lease(&self) -> Box<[u8]> {
        let mut free = self.free.lock();
        let buffer = free.buffers.pop();
        free.low_water = free.low_water.min(free.buffers.len());
        self.count.store(free.buffers.len(), Ordering::SeqCst);
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
        let mut free = self.free.lock();
        if free.buffers.len() < self.free_max() {
            free.buffers.push(buffer);
            self.count.store(free.buffers.len(), Ordering::SeqCst);
        }
        // Otherwise it goes back to the allocator, after the lock.
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
        self.data.get_or_insert_with(|| {
            self.pool.reading.fetch_add(1, Ordering::SeqCst);
            self.pool.lease()
        })
    }

    /// The first `len` bytes, after a read.
    pub fn filled(&self, len: usize) -> &[u8] {
        self.data.as_deref().map_or(&[], |data| &data[..len])
    }

    /// Hands the first `len` bytes on as a shared range, counted until its last handle is dropped.
    pub fn freeze(&mut self, len: usize) -> Bytes {
        let Some(data) = self.data.take() else { return Bytes::new() };
        self.pool.reading.fetch_sub(1, Ordering::SeqCst);
        let charge = self.pool.account.charge(data.len());
        Bytes::from_owner(Frozen { data, len, pool: Arc::clone(&self.pool), _charge: charge })
    }

    /// Gives unused memory back, so that an idle thread holds none.
    pub fn release(&mut self) {
        if let Some(data) = self.data.take() {
            self.pool.reading.fetch_sub(1, Ordering::SeqCst);
            self.pool.give_back(data);
        }
    }

    /// Returns true if a read may fill several buffers. Where many threads read, their buffers take much memory.
    pub fn may_be_many(&self) -> bool {
        self.pool.reading.load(Ordering::SeqCst) < READING_MANY
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
    _charge: Reservation,
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
        let account = MemoryBudget::new(1 << 20);
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
        let pool = Pool::new(MemoryBudget::new(1 << 20));
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
    fn a_reader_takes_one_buffer_where_many_are_read_into() {
        let pool = Pool::new(MemoryBudget::new(1 << 20));
        let mut buffers: Vec<Buffer> = (0..READING_MANY).map(|_| pool.buffer()).collect();
        assert!(buffers[0].may_be_many(), "none of them has memory");
        buffers.iter_mut().for_each(|buffer| assert_eq!(buffer.space().len(), BUFFER_BYTES));
        assert!(!buffers[0].may_be_many());
        drop(buffers[0].freeze(1));
        assert!(buffers[0].may_be_many());
        drop(buffers);
        assert_eq!(pool.reading.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn a_trim_gives_back_what_was_not_needed() {
        let pool = Pool::new(MemoryBudget::new(1 << 30));
        let mut buffers: Vec<Buffer> = (0..16).map(|_| pool.buffer()).collect();
        buffers.iter_mut().for_each(|buffer| assert_eq!(buffer.space().len(), BUFFER_BYTES));
        drop(buffers);
        pool.trim();
        assert_eq!(pool.free.lock().buffers.len(), 16, "all were needed since the start");
        pool.trim();
        assert_eq!((pool.free.lock().buffers.len(), pool.free_bytes()), (14, 14 * BUFFER_BYTES));
    }

    #[test]
    fn free_buffers_and_what_is_counted_fit_into_the_bound_together() {
        let account = MemoryBudget::new(40 * BUFFER_BYTES);
        let pool = Pool::new(Arc::clone(&account));
        let fill = |count| {
            let mut buffers: Vec<Buffer> = (0..count).map(|_| pool.buffer()).collect();
            buffers.iter_mut().for_each(|buffer| drop(buffer.freeze(0)));
        };
        let check = |free: usize| assert_eq!(pool.free_bytes(), free * BUFFER_BYTES);
        let mut all: Vec<Buffer> = (0..40).map(|_| pool.buffer()).collect();
        all.iter_mut().for_each(|buffer| assert_eq!(buffer.space().len(), BUFFER_BYTES));
        drop(all);
        check(40);
        // What was copied together has memory of its own: free buffers make room for it.
        let copied = account.charge(20 * BUFFER_BYTES);
        check(40);
        pool.shed();
        check(20);
        let more = account.charge(20 * BUFFER_BYTES);
        pool.trim();
        check(FREE_MIN);
        fill(5);
        drop((copied, more));
        let mut all: Vec<Buffer> = (0..30).map(|_| pool.buffer()).collect();
        all.iter_mut().for_each(|buffer| assert_eq!(buffer.space().len(), BUFFER_BYTES));
        let full = account.charge(40 * BUFFER_BYTES);
        drop(all);
        check(FREE_MIN);
        drop(full);
    }
}

#[cfg(all(test, tidemill_model))]
mod model {
    use super::*;
    use crate::sync::Mailbox;
    use crate::sync::explore::{check, thread};

    /// Two readers lease, fill and freeze; another thread reads the ranges and drops them.
    #[test]
    fn a_buffer_goes_round_and_is_never_shared() {
        check(1_000, &[Planted::FrozenBufferIsLost], || {
            let (pool, frozen) = (Pool::new(MemoryBudget::new(1 << 20)), Mailbox::new(1));
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
