//! AIO: io_uring completions, on the thread `rxN-io-0`: multishot receive over provided buffers.
//!
//! ```text
//!  pool ─lease─▶ buffers[id] ─provide─▶ kernel ─completion(id, len)─▶ handler (freezes or copies) ─▶ provide again
//! ```
//! The kernel picks the buffer. A frozen one goes to the handler without a copy, and a fresh one takes its place. While the
//! handler is not ready, used buffers are held back: the kernel runs out of them, answers ENOBUFS, and the receive requests
//! that ended with it are armed again once the handler is ready. So at most all buffers are in flight. Peers are accepted by
//! accept(2) when a multishot poll of a listener fires: a multishot accept does not return the address, and a peer that is
//! gone by then has none any more. It would save no system call, since asking for the address is one. The ring is made and
//! used on one thread. `unsafe` is in [`Ring`] alone, which is in this file; `driver` has the loop that uses it.

mod driver;
mod key;

use std::io;

use io_uring::types::CancelBuilder;
use io_uring::{IoUring, cqueue, squeue};
use rustix::io::Errno;

use crate::memory::buffer_pool::{BUFFER_BYTES, Buffer, Pool};
use crate::sync::Arc;
use crate::sync::kernel::{AtomicU16, AtomicU32, AtomicU64, Ordering};

pub(super) use driver::start;

/// Buffers that the kernel may fill; 64 KiB each was the one size ahead of plain reads. A power of two.
const BUFFERS: u16 = 128;

/// The most that can be in flight, in bytes.
pub(super) const IN_FLIGHT_MAX: usize = BUFFERS as usize * BUFFER_BYTES;

/// Submissions that may wait for the next system call.
const SUBMISSIONS: u32 = 256;

/// Completions that the kernel may queue before they overflow.
const COMPLETIONS: u32 = 4096;

/// The only group of buffers in a ring.
const GROUP: u16 = 0;

/// A buffer as the kernel reads it in the shared table: `struct io_uring_buf`.
#[derive(Default)]
#[repr(C)]
struct Provided {
    address: AtomicU64,
    len: AtomicU32,
    id: AtomicU16,
    /// In the first entry: the number of buffers that were ever provided, modulo 2^16. In the others it means nothing.
    tail: AtomicU16,
}

/// The table of provided buffers, shared with the kernel, which only reads it. It must lie at a page's start.
#[repr(C, align(4096))]
struct Table([Provided; BUFFERS as usize]);

/// The ring with its buffers: everything that the kernel may touch, and the order in which it is taken back.
struct Ring {
    uring: IoUring,
    table: Box<Table>,
    /// By id. One that the kernel holds is not touched here.
    buffers: Vec<Buffer>,
    /// Ids that wait to be provided again.
    held: Vec<u16>,
    tail: u16,
}

impl Ring {
    fn new(pool: &Arc<Pool>) -> io::Result<Self> {
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_coop_taskrun()
            .setup_defer_taskrun()
            .setup_cqsize(COMPLETIONS)
            .build(SUBMISSIONS)?;
        let mut ring = Ring {
            uring,
            table: Box::new(Table(std::array::from_fn(|_| Provided::default()))),
            buffers: (0..BUFFERS).map(|_| pool.buffer()).collect(),
            held: (0..BUFFERS).collect(),
            tail: 0,
        };
        ring.register()?;
        ring.provide_held();
        Ok(ring)
    }

    #[expect(unsafe_code, reason = "the kernel is given an address to read")]
    fn register(&mut self) -> io::Result<()> {
        let address = self.table.0.as_ptr().addr() as u64;
        // SAFETY: the table is page-aligned, has `BUFFERS` entries laid out as `io_uring_buf`, and lives on the heap
        // until `drop` has ended every request; the kernel only reads it, and we write it through atomics.
        unsafe { self.uring.submitter().register_buf_ring_with_flags(address, BUFFERS, GROUP, 0) }
    }

    /// Gives the kernel every buffer that was held back.
    fn provide_held(&mut self) {
        if self.held.is_empty() {
            return;
        }
        for id in std::mem::take(&mut self.held) {
            let entry = &self.table.0[usize::from(self.tail % BUFFERS)];
            let space = self.buffers[usize::from(id)].space();
            let len = u32::try_from(space.len()).expect("a buffer is 64 KiB");
            entry.address.store(space.as_mut_ptr().expose_provenance() as u64, Ordering::Relaxed);
            entry.len.store(len, Ordering::Relaxed);
            entry.id.store(id, Ordering::Relaxed);
            self.tail = self.tail.wrapping_add(1);
        }
        // The kernel reads the tail first and then the entries below it.
        self.table.0[0].tail.store(self.tail, Ordering::Release);
    }

    /// Queues a request. No request here names memory of ours: the kernel picks buffers from the table.
    #[expect(unsafe_code, reason = "a request names descriptors and memory")]
    fn push(&mut self, entry: squeue::Entry, key: u64) {
        let entry = entry.user_data(key);
        loop {
            // SAFETY: the descriptors in it are open, and closed only after a `submit` (see `Loop::close` in `driver`); the only
            // addresses, of times to wait, are static; receives write only into provided buffers, which outlive them.
            if unsafe { self.uring.submission().push(&entry) }.is_ok() {
                return;
            }
            self.submit();
        }
    }

    /// Hands queued requests to the kernel, without waiting.
    fn submit(&mut self) {
        if !self.uring.submission().is_empty() {
            check(self.uring.submit());
        }
    }

    /// Submits, and waits for a completion.
    fn wait(&mut self) {
        check(self.uring.submit_and_wait(1));
    }

    /// The completions that are there.
    fn completions(&mut self, into: &mut Vec<cqueue::Entry>) {
        into.clear();
        into.extend(self.uring.completion());
    }

    /// Ends every request. After that the kernel touches no buffer any more.
    fn cancel_all(&mut self) -> io::Result<()> {
        self.submit();
        match self.uring.submitter().register_sync_cancel(None, CancelBuilder::any()) {
            // Nothing was under way.
            Err(err) if err.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => Ok(()),
            ended => ended,
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let ended =
            self.cancel_all().and_then(|()| self.uring.submitter().unregister_buf_ring(GROUP));
        if ended.is_err() {
            // Memory that the kernel may still write to is never given back.
            std::mem::forget(std::mem::take(&mut self.buffers));
        }
    }
}

/// A wait that was interrupted, or that first wants completions to be taken, is a wake-up like any other.
fn check(entered: io::Result<usize>) {
    if let Err(err) = entered {
        let expected = [Errno::INTR, Errno::BUSY, Errno::AGAIN].map(Errno::raw_os_error);
        assert!(
            err.raw_os_error().is_some_and(|code| expected.contains(&code)),
            "io_uring_enter failed: {err}"
        );
    }
}

/// Checks that this system offers what the model needs; the error is the reason.
pub(super) fn probe() -> Result<(), String> {
    let pool = Pool::new(crate::memory::budget::MemoryBudget::new(0));
    Ring::new(&pool).map(drop).map_err(|err| refusal(&err))
}

fn refusal(err: &io::Error) -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let kernel = read("/proc/sys/kernel/osrelease");
    let why = match err.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::PERM | Errno::ACCESS) => match &*read("/proc/sys/kernel/io_uring_disabled") {
            "2" => "it is switched off by the sysctl kernel.io_uring_disabled = 2".to_owned(),
            "1" => "the sysctl kernel.io_uring_disabled = 1 allows it only to privileged \
                    processes and the group in kernel.io_uring_group"
                .to_owned(),
            _ => "a seccomp filter or security module forbids it, as default containers do; \
                  allow the io_uring system calls"
                .to_owned(),
        },
        Some(Errno::NOSYS) => {
            format!("the kernel ({kernel}) was built without it, or a seccomp filter hides it")
        }
        Some(Errno::INVAL) => format!("the kernel ({kernel}) is older than 6.1"),
        Some(Errno::NOMEM) => "the limit of locked memory (RLIMIT_MEMLOCK) is too low".to_owned(),
        _ => "the system refused it".to_owned(),
    };
    format!("io_uring cannot be used: {why} ({err})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_laid_out_as_the_kernel_reads_it() {
        assert_eq!(size_of::<Provided>(), size_of::<io_uring::types::BufRingEntry>());
        assert_eq!(size_of::<Provided>(), 16);
        assert_eq!(std::mem::offset_of!(Provided, tail), 14);
        assert_eq!(align_of::<Table>(), 4096);
    }

    #[test]
    fn a_refusal_says_what_to_change() {
        let check = |errno: Errno, expected: &str| {
            let why = refusal(&io::Error::from(errno));
            assert!(why.contains(expected) && !why.contains('\n'), "{why}");
        };
        check(Errno::NOSYS, "seccomp filter hides it");
        check(Errno::INVAL, "older than 6.1");
        check(Errno::NOMEM, "RLIMIT_MEMLOCK");
        check(Errno::MFILE, "the system refused it");
        check(Errno::PERM, "io_uring");
    }
}
