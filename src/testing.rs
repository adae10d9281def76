//! Tools for tests of streams, users' and ours: a clock that the test moves, streams out of queues, batches one by one. With
//! [`start_driven`](StreamingContext::start_driven) a test also has the running stream.
//!
//! ```
//! use tidemill::testing::ManualClock;
//! use tidemill::{Config, Interval, StreamingContext};
//!
//! let config = Config::new("test").batch_interval(Interval::secs(1));
//! let ctx = StreamingContext::with_clock(config, ManualClock::new())?;
//! let numbers = ctx.queue_stream(vec![Some(vec![1, 2, 3]), Some(vec![])], 2);
//! let sums = numbers.reduce(|a, b| a + b).collect();
//! ctx.run_batches(2)?;
//! let rows: Vec<_> = sums.rows().into_iter().map(|(time, rows)| (time.as_millis(), rows)).collect();
//! assert_eq!(rows, [(1_000, vec![6]), (2_000, vec![])]);
//! # Ok::<(), tidemill::Error>(())
//! ```

use crate::context::StreamingContext;
use crate::stream::DStream;
use crate::sync::Arc;

pub use crate::storage::MemoryStorage;
#[doc(hidden)]
pub use crate::storage::Storage;
pub use crate::stream::Collected;
pub use crate::time::ManualClock;

/// The size of a segment of a log in memory, in bytes: a record takes half of that at most.
const TEST_SEGMENT_BYTES: u64 = 4 << 20;

impl StreamingContext {
    /// Keeps the log and the checkpoints in `storage` in place of a [`state_dir`](crate::Config::state_dir), such as a
    /// [`MemoryStorage`], which has an example. Segments of the log have 4 MiB, so a record takes 2 MiB at most.
    ///
    /// ```
    /// use tidemill::testing::{ManualClock, MemoryStorage};
    /// use tidemill::{Config, StreamingContext};
    /// use std::sync::Arc;
    ///
    /// let ctx = StreamingContext::with_clock(Config::new("doc"), ManualClock::new())?;
    /// ctx.state_storage(Arc::new(MemoryStorage::new(7)));
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn state_storage(&self, storage: Arc<dyn Storage>) {
        self.keep_state_in(storage, TEST_SEGMENT_BYTES);
    }

    /// Adds a source that takes one entry of `batches` for each batch, split into `partitions`, at least one. `None` says that
    /// the source has no batch at all, which differs from an empty one: a union or transform of it fails, by name. Past the end
    /// every batch is empty.
    ///
    /// A queue is no source of records that are received: it works on any clock, it never ends, it is not in the log, and its
    /// elements are not counted as records. With a state directory its entries count on over restarts.
    ///
    /// ```
    /// use tidemill::testing::ManualClock;
    /// use tidemill::{Config, StreamingContext};
    ///
    /// let ctx = StreamingContext::with_clock(Config::new("doc"), ManualClock::new())?;
    /// let numbers = ctx.queue_stream(vec![Some(vec![1, 2, 3]), Some(vec![])], 2);
    /// let counts = numbers.count().collect();
    /// ctx.run_batches(3)?;
    /// assert_eq!(counts.rows().iter().map(|(_, rows)| rows[0]).collect::<Vec<_>>(), [3, 0, 0]);
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn queue_stream<T: Send + Sync + 'static>(
        &self,
        batches: Vec<Option<Vec<T>>>,
        partitions: usize,
    ) -> DStream<T> {
        self.graph().queue_stream(batches, partitions)
    }
}
