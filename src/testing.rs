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
use crate::storage::Storage;
use crate::stream::DStream;
use crate::sync::Arc;

pub use crate::stream::Collected;
pub use crate::time::ManualClock;

/// The size of a segment of a log in memory, in bytes: a record takes half of that at most.
const TEST_SEGMENT_BYTES: u64 = 4 << 20;

impl StreamingContext {
    /// Keeps the log and the checkpoints in `storage` instead of a `state_dir`, such as a
    /// [`MemoryStorage`](crate::storage::MemoryStorage) that loses power.
    pub fn state_storage(&self, storage: Arc<dyn Storage>) {
        self.keep_state_in(storage, TEST_SEGMENT_BYTES);
    }

    /// A stream that takes one entry for each batch, split into `partitions`. `None`: the source has no batch at all, which
    /// differs from an empty one; past the end every batch is empty.
    pub fn queue_stream<T: Send + Sync + 'static>(
        &self,
        batches: Vec<Option<Vec<T>>>,
        partitions: usize,
    ) -> DStream<T> {
        self.graph().queue_stream(batches, partitions)
    }
}
