//! `Pause`: reports that a source is not read because the store is full, and that it is read again. Any thread.

use indicatif::HumanBytes;

use crate::memory::budget::MemoryBudget;
use crate::metrics::{ConditionHandle, ConditionKind, Event, EventBus};
use crate::sync::{Arc, AtomicBool, Ordering};

/// The reason why a source is not read now; [`ReceiverStatus::paused_by`](crate::ReceiverStatus::paused_by) has it.
///
/// ```
/// use tidemill::source::PausedBy;
///
/// assert_eq!(PausedBy::Store.name(), "store");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PausedBy {
    /// The log has not taken the earlier input yet: its disk is the bottleneck.
    Log,
    /// Earlier blocks are not stored yet.
    Blocks,
    /// The memory is full: the batches are the bottleneck.
    Store,
    /// The rate limit is used up.
    Rate,
}

impl PausedBy {
    /// The name in metrics and status.
    pub fn name(self) -> &'static str {
        match self {
            PausedBy::Log => "log",
            PausedBy::Blocks => "blocks",
            PausedBy::Store => "store",
            PausedBy::Rate => "rate",
        }
    }
}

/// See the module. One for each source.
pub(crate) struct Pause {
    full: ConditionHandle,
    events: EventBus,
    /// The event that is posted once was posted.
    told: AtomicBool,
}

impl Pause {
    /// Nothing pauses yet; a pause is over whenever the account has room.
    pub(crate) fn new(source: &str, account: &MemoryBudget, events: &EventBus) -> Arc<Self> {
        let full = events.conditions().handle(ConditionKind::StoreFull, source);
        let pause = Arc::new(Pause { full, events: events.clone(), told: AtomicBool::new(false) });
        let room = Arc::clone(&pause);
        account.on_room(move || {
            room.full.end();
        });
        pause
    }

    /// Reading pauses because the store is full.
    pub(crate) fn store_is_full(&self, account: &MemoryBudget) {
        if self.full.lasts() {
            return;
        }
        let store_bytes_max = account.max();
        let size = HumanBytes(store_bytes_max as u64);
        let cause = format!("reading pauses while the store is full (store_bytes_max = {size})");
        self.full.begin(cause, "raise it, shorten batch_interval or add workers if that lasts");
        if !self.told.swap(true, Ordering::Relaxed) {
            let source = self.full.subject().to_owned();
            self.events.post(Event::StoreFull { source, store_bytes_max });
        }
        // The wake-up that ends it may have come before it began.
        if account.has_room() {
            self.full.end();
        }
    }
}
