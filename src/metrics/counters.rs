//! Counters that io threads raise once per read, never per record, and that any thread may read.

use crate::sync::{AtomicU64, Ordering};

macro_rules! counters {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $field:ident,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Default)]
        pub struct $name {
            $($(#[$doc])* pub $field: Counter,)*
        }

        impl $name {
            /// Every counter with its name, in the order of the fields.
            pub fn all(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($field), self.$field.value()),)*]
            }
        }
    };
}

/// A count that any thread raises and reads. It orders nothing: another thread may see two counts change in either order.
///
/// ```
/// use tidemill::metrics::ReceiverCounters;
///
/// let counters = ReceiverCounters::default();
/// counters.records.add(3);
/// counters.open.set(2);
/// counters.open.sub(1);
/// assert_eq!((counters.records.value(), counters.open.value()), (3, 1));
/// assert!(counters.all().contains(&("records", 3)));
/// ```
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `count`.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// Replaces one part of the sum by another, for gauges that many threads change.
    #[doc(hidden)]
    pub fn change(&self, before: u64, after: u64) {
        if after >= before {
            self.add(after - before);
        } else {
            self.sub(before - after);
        }
    }

    /// Subtracts `count`, for gauges.
    pub fn sub(&self, count: u64) {
        self.0.fetch_sub(count, Ordering::Relaxed);
    }

    /// Sets the count, for gauges.
    pub fn set(&self, count: u64) {
        self.0.store(count, Ordering::Relaxed);
    }

    /// Raises the count to `count` if it is lower, for maxima.
    #[doc(hidden)]
    pub fn raise_to(&self, count: u64) {
        self.0.fetch_max(count, Ordering::Relaxed);
    }

    /// The count now.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

counters! {
    /// The counters of one receiver since its start.
    ReceiverCounters {
        /// Whole records handed over.
        records,
        /// Bytes read from sockets.
        bytes,
        /// Records dropped because they were longer than `record_bytes_max`, or unfinished beyond `unfinished_bytes_max`.
        overlong,
        /// Unfinished records that were given up because all of them took more than `unfinished_bytes_max`. They were
        /// dropped or put aside, or their connection was closed.
        given_up,
        /// Records of which only the first `record_bytes_max` bytes were kept, in framings that acknowledge.
        truncated,
        /// Records dropped because the peer closed in the middle of a frame.
        cut_off,
        /// Records that a broken connection cut, kept as far as they arrived.
        broken_off,
        /// Repeated records that were left out, where the sender's identity is known; counted each time a task does so.
        repeats,
        /// Over-long records that were put aside whole, in framings that acknowledge.
        put_aside,
        /// Connections closed because of a malformed frame.
        malformed,
        /// Connections that were made, in either direction.
        opened,
        /// Connections open now.
        open,
        /// Connections that ended with a network error.
        resets,
        /// Peers turned away at the connection limit or for lack of file descriptors.
        refused,
        /// Accepted connections that wait unread for a thread now; only in the io model `pool`.
        waiting,
        /// The longest time that an accepted connection waited for a thread since the start, in microseconds; only in
        /// `pool`.
        waited_us_max,
        /// Times that accepting had to wait because the system refused it, mostly for lack of file descriptors.
        accept_waits,
        /// Dial attempts that failed.
        retries,
        /// Times that reading stopped because the store or the queue was full.
        pauses,
        /// Errors that a receiver reported, or ticks at which a source could not be asked.
        errors,
        /// Files, or parts of files, that are not read, and other things of note about files.
        skipped,
        /// Bytes of input that was gone before it was processed, of replayable sources.
        lost_bytes,
        /// Bytes of removed files that are still open because they are read to their ends; now.
        removed_files_bytes,
        /// Bytes of processed input that was gone when windows would have read it again.
        lost_for_windows_bytes,
        /// Bytes received of records that have begun and not ended; now. After the stop: the bytes that it discarded.
        unfinished_bytes,
    }
}
