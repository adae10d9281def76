//! The condition of a sink whose call does not return: a pipe that nobody reads, a terminal that was stopped, a disk that hangs.
//! The thread that called it is held, so the thread `events` looks; see [`Watch`]. Any thread.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use super::Sink;
use crate::metrics::{ConditionKind, Conditions, Slow, Watch};
use crate::sync::{Arc, Mutex, MutexGuard};

/// The time of a call after which its sink counts as one that hangs.
const SLOW: Duration = Duration::from_secs(10);

/// Who looks at the calls of a sink; nobody before the start.
#[derive(Clone, Default)]
pub(super) struct Calls(Arc<Mutex<Option<Arc<Watch>>>>);

impl Calls {
    /// From now on a call that does not return is a condition of this subject.
    pub(super) fn watch(&self, conditions: &Conditions, subject: &str, needs: &str) {
        let cause = format!("a call has not returned for {} s", SLOW.as_secs());
        let slow = Slow { after: SLOW, cause, needs: needs.to_owned() };
        let watch = conditions.watch(ConditionKind::SinkHangs, subject, slow);
        *self.0.lock() = Some(Arc::new(watch));
    }

    /// A call begins on this sink, which is locked, and ends with what is returned. `lacks` is what the sink has not done
    /// meanwhile, as "has not closed".
    pub(super) fn begin<'a>(
        &self,
        sink: MutexGuard<'a, Box<dyn Sink>>,
        lacks: impl FnOnce() -> String,
    ) -> Called<'a> {
        let watch = self.0.lock().clone();
        if let Some(watch) = &watch {
            watch.begin_with(format!("{} for {} s", lacks(), SLOW.as_secs()));
        }
        Called { sink, watch }
    }
}

/// A sink that is called. One at a time: it holds the sink's lock.
pub(super) struct Called<'a> {
    sink: MutexGuard<'a, Box<dyn Sink>>,
    watch: Option<Arc<Watch>>,
}

impl Deref for Called<'_> {
    type Target = dyn Sink;

    fn deref(&self) -> &Self::Target {
        &**self.sink
    }
}

impl DerefMut for Called<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut **self.sink
    }
}

impl Drop for Called<'_> {
    fn drop(&mut self) {
        // Before the lock is free: the next call begins after it.
        if let Some(watch) = &self.watch {
            watch.end();
        }
    }
}
