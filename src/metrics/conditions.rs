//! Conditions: the problems that hold the engine up now, and their durations. A registry that any thread writes and reads.
//!
//! ```text
//!  any thread ─ begin(kind, subject, cause, needs) ─▶ registry ─▶ thread `events`: at the begin, every 10 s, at the end
//!             ─ end(kind, subject) ────────────────▶    │
//!                                                       └─▶ /readyz, /metrics, /api/v1/status read it
//! ```
//! A kind and a subject identify a condition. The subject is a name from the configuration or a path, never a peer, so that
//! the number of conditions is bounded. A condition is over once it has not begun again for its kind's settling time: a
//! store that is full, has room for a moment and is full again is one condition, not a flood of messages. Nothing runs
//! while there is no condition: the thread `events` waits for the next message only while one lasts.

use std::time::Duration;

use crate::sync::{Arc, AtomicBool, AtomicU64, Mutex, Ordering, Signal};
use crate::time::{Clock, Moment};

use super::condition::{CONDITIONS, Condition, ConditionKind};
use super::event::Event;

mod watch;

use watch::Watched;
pub use watch::{Slow, Watch};

/// The time between two messages about a condition that lasts.
pub const REPEAT: Duration = Duration::from_secs(10);

/// The registry. Clones are handles of the same one.
///
/// ```
/// use tidemill::metrics::{ConditionKind, EventBus};
/// let events = EventBus::new();
/// let conditions = events.conditions();
/// let (kind, path) = (ConditionKind::LogRefuses, "/var/lib/tidemill");
/// assert!(conditions.begin(kind, path, "no space left on device", "free 64 MiB on this disk"));
/// // While it lasts, only its cause and what it needs may change.
/// assert!(!conditions.begin(kind, path, "no space left on device", "free 32 MiB on this disk"));
/// assert_eq!(conditions.lasting()[0].needs, "free 32 MiB on this disk");
/// assert!(conditions.end(kind, path));
/// assert!(!conditions.end(kind, path));
/// ```
///
/// For something that is tried again and again, a [`ConditionHandle`] costs one load of an atomic while all is well:
///
/// ```
/// # use tidemill::metrics::{ConditionKind, EventBus};
/// # fn write() -> std::io::Result<()> { Ok(()) }
/// # let events = EventBus::new();
/// let failing = events.conditions().handle(ConditionKind::SpillFails, "/var/spill");
/// match write() {
///     Ok(()) => failing.end(),
///     Err(err) => failing.begin(err.to_string(), "free 8 MiB on this disk"),
/// };
/// ```
#[derive(Clone, Debug)]
pub struct Conditions(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Arc<dyn Clock>,
    /// The thread `events` waits on this.
    wake: Signal,
    /// True if there is an entry; for a check without the lock.
    any: AtomicBool,
    entries: Mutex<Vec<Entry>>,
    /// Number of times that each kind began.
    begun: Vec<AtomicU64>,
    /// Operations that usually end soon, and become a condition if they do not.
    watched: Mutex<Vec<Arc<Watched>>>,
}

/// The cause and remedy of a condition.
struct Because {
    cause: String,
    needs: String,
}

#[derive(Debug)]
struct Entry {
    condition: Condition,
    since: Moment,
    /// The time of the next message; `since` before the first one.
    tell_at: Moment,
    /// True if its begin was reported.
    told: bool,
    /// The time at which it ended, unless it has begun again since then.
    ended: Option<Moment>,
}

impl Entry {
    /// The time from which it is over for good, if it does not begin again.
    fn settled(&self) -> Option<Moment> {
        self.ended.map(|at| at.plus(self.condition.kind.row().settles))
    }

    /// The time at which the thread `events` must check it next.
    fn due(&self) -> Moment {
        self.settled().map_or(self.tell_at, |at| at.min(self.tell_at))
    }

    fn lasts_at(&self, now: Moment) -> bool {
        self.settled().is_none_or(|at| now < at)
    }
}

impl Conditions {
    /// Creates an empty registry, which raises `wake` when there is something to report.
    pub(super) fn new(clock: Arc<dyn Clock>, wake: Signal) -> Self {
        let begun = CONDITIONS.iter().map(|_| AtomicU64::new(0)).collect();
        let (any, entries, watched) = (AtomicBool::new(false), Mutex::default(), Mutex::default());
        Conditions(Arc::new(Inner { clock, wake, any, entries, begun, watched }))
    }

    /// Creates a watch over the operations of one thread: an operation that takes too long is a condition until it ends.
    pub fn watch(&self, kind: ConditionKind, subject: impl Into<String>, slow: Slow) -> Watch {
        let watched = Arc::new(Watched::new(kind, subject.into(), slow));
        self.0.watched.lock().push(Arc::clone(&watched));
        Watch::new(self.clone(), watched)
    }

    pub(super) fn now(&self) -> Moment {
        self.0.clock.now()
    }

    /// Makes the thread `events` check what is due.
    pub(super) fn wake(&self) {
        self.0.wake.raise();
    }

    /// Begins a condition, or updates the cause of one that lasts. True if it begins now; false if it lasts, or ended only
    /// a moment ago.
    pub fn begin(
        &self,
        kind: ConditionKind,
        subject: &str,
        cause: impl Into<String>,
        needs: impl Into<String>,
    ) -> bool {
        let because = Because { cause: cause.into(), needs: needs.into() };
        self.begin_with(kind, subject, because, || ())
    }

    fn begin_with(
        &self,
        kind: ConditionKind,
        subject: &str,
        Because { cause, needs }: Because,
        locked: impl FnOnce(),
    ) -> bool {
        let mut entries = self.0.entries.lock();
        locked();
        let now = self.0.clock.now();
        let settled = |entry: &Entry| !entry.lasts_at(now);
        if let Some(entry) = find(&mut entries, kind, subject).filter(|entry| !settled(entry)) {
            entry.ended = None;
            (entry.condition.cause, entry.condition.needs) = (cause, needs);
            return false;
        }
        let since = self.0.clock.wall_time();
        let condition = Condition { kind, subject: subject.to_owned(), cause, needs, since };
        entries.push(Entry { condition, since: now, tell_at: now, told: false, ended: None });
        self.0.begun[kind as usize].fetch_add(1, Ordering::Relaxed);
        self.0.any.store(true, Ordering::SeqCst);
        drop(entries);
        self.0.wake.raise();
        true
    }

    /// Ends a condition; true if it lasted.
    pub fn end(&self, kind: ConditionKind, subject: &str) -> bool {
        self.0.any.load(Ordering::SeqCst) && self.end_with(kind, subject, || ())
    }

    fn end_with(&self, kind: ConditionKind, subject: &str, locked: impl FnOnce()) -> bool {
        let mut entries = self.0.entries.lock();
        locked();
        let Some(entry) = find(&mut entries, kind, subject).filter(|it| it.ended.is_none()) else {
            return false;
        };
        entry.ended = Some(self.0.clock.now());
        drop(entries);
        self.0.wake.raise();
        true
    }

    /// Creates a handle of one condition.
    pub fn handle(&self, kind: ConditionKind, subject: impl Into<String>) -> ConditionHandle {
        let (conditions, subject) = (self.clone(), subject.into());
        ConditionHandle { conditions, kind, subject, lasts: AtomicBool::new(false) }
    }

    /// The conditions that last now, in the order in which they began.
    pub fn lasting(&self) -> Vec<Condition> {
        if !self.0.any.load(Ordering::SeqCst) {
            return Vec::new();
        }
        let now = self.0.clock.now();
        let entries = self.0.entries.lock();
        let lasting = entries.iter().filter(|entry| entry.lasts_at(now));
        lasting.map(|entry| entry.condition.clone()).collect()
    }

    /// Number of times that each kind of condition began.
    pub fn begun(&self) -> Vec<(ConditionKind, u64)> {
        let begun = CONDITIONS.iter().zip(&self.0.begun);
        begun.map(|(row, count)| (row.kind, count.load(Ordering::Relaxed))).collect()
    }

    /// The time of the next message, if any.
    pub(super) fn due(&self) -> Option<Moment> {
        let watched = self.0.watched.lock().iter().filter_map(|watched| watched.due()).min();
        if !self.0.any.load(Ordering::SeqCst) {
            return watched;
        }
        let told = self.0.entries.lock().iter().map(Entry::due).min();
        told.into_iter().chain(watched).min()
    }

    /// Takes the messages that are due now. At the `close` this includes the ends of conditions that have not settled.
    pub(super) fn take_due(&self, close: bool) -> Vec<Event> {
        let (mut events, now) = (Vec::new(), self.0.clock.now());
        self.0.watched.lock().iter().for_each(|watched| watched.look(self, now));
        if !self.0.any.load(Ordering::SeqCst) {
            return events;
        }
        let mut entries = self.0.entries.lock();
        entries.retain_mut(|entry| tell(entry, now, close, &mut events));
        self.0.any.store(!entries.is_empty(), Ordering::SeqCst);
        events
    }
}

/// Adds the message that is due for a condition, if any; false if the condition is over.
fn tell(entry: &mut Entry, now: Moment, close: bool, events: &mut Vec<Event>) -> bool {
    let condition = || entry.condition.clone();
    if !entry.told {
        entry.told = true;
        entry.tell_at = now.plus(REPEAT);
        events.push(Event::ConditionBegan { condition: condition() });
    }
    if let Some(ended) = entry.ended.filter(|_| close || !entry.lasts_at(now)) {
        let lasted = ended.since(entry.since);
        events.push(Event::ConditionEnded { condition: condition(), lasted });
        return false;
    }
    if now >= entry.tell_at {
        entry.tell_at = now.plus(REPEAT);
        let lasted = now.since(entry.since);
        events.push(Event::ConditionLasts { condition: condition(), lasted });
    }
    true
}

fn find<'a>(entries: &'a mut [Entry], kind: ConditionKind, subject: &str) -> Option<&'a mut Entry> {
    // Search from the newest: one that has settled may still wait for its last message.
    let is_it =
        |entry: &&mut Entry| entry.condition.kind == kind && entry.condition.subject == subject;
    entries.iter_mut().rev().find(is_it)
}

/// One condition, for frequent checks: if nothing changes, a call costs one load of an atomic.
#[derive(Debug)]
pub struct ConditionHandle {
    conditions: Conditions,
    kind: ConditionKind,
    subject: String,
    /// Changed under the registry's lock only.
    lasts: AtomicBool,
}

impl ConditionHandle {
    /// The subject of the condition.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// True if the condition lasts.
    pub fn lasts(&self) -> bool {
        self.lasts.load(Ordering::SeqCst)
    }

    /// Begins the condition, or updates the cause of one that lasts. True if it begins now.
    pub fn begin(&self, cause: impl Into<String>, needs: impl Into<String>) -> bool {
        let because = Because { cause: cause.into(), needs: needs.into() };
        let set = || self.lasts.store(true, Ordering::SeqCst);
        self.conditions.begin_with(self.kind, &self.subject, because, set)
    }

    /// Ends the condition; true if it lasted.
    pub fn end(&self) -> bool {
        let clear = || self.lasts.store(false, Ordering::SeqCst);
        self.lasts() && self.conditions.end_with(self.kind, &self.subject, clear)
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;
    use crate::time::ManualClock;

    const KIND: ConditionKind = ConditionKind::LogRefuses;

    fn registry() -> (ManualClock, Conditions) {
        let clock = ManualClock::new();
        (clock.clone(), Conditions::new(Arc::new(clock), Signal::new()))
    }

    /// The messages, a word each: the event and, in seconds, its duration.
    fn told(conditions: &Conditions) -> Vec<(&'static str, u64)> {
        let word = |event: Event| match event {
            Event::ConditionBegan { .. } => ("began", 0),
            Event::ConditionLasts { lasted, .. } => ("lasts", lasted.as_secs()),
            Event::ConditionEnded { lasted, .. } => ("ended", lasted.as_secs()),
            other => panic!("{other:?}"),
        };
        conditions.take_due(false).into_iter().map(word).collect()
    }

    #[test]
    fn names_are_words_of_their_own_and_rows_in_the_order_of_the_kinds() {
        for (at, row) in CONDITIONS.iter().enumerate() {
            assert_eq!((row.kind as usize, row.kind.name()), (at, row.name));
            assert!(row.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'));
            let same = CONDITIONS.iter().filter(|other| other.name == row.name).count();
            assert_eq!(same, 1, "{}", row.name);
        }
    }

    #[test]
    fn a_condition_is_told_when_it_begins_every_ten_seconds_and_when_it_ends() {
        let (clock, conditions) = registry();
        let second = Duration::from_secs(1);
        assert_eq!((conditions.due(), told(&conditions)), (None, vec![]));
        assert!(conditions.begin(KIND, "a", "full", ""));
        assert_eq!(conditions.due(), Some(Moment::default()));
        assert_eq!(told(&conditions), [("began", 0)]);
        clock.advance(second * 9);
        assert!(!conditions.begin(KIND, "a", "fuller", "room"), "it lasts");
        assert_eq!(told(&conditions), []);
        clock.advance(second);
        assert_eq!(told(&conditions), [("lasts", 10)]);
        assert_eq!(conditions.lasting()[0].cause, "fuller");
        clock.advance(second * 2);
        assert!(conditions.end(KIND, "a") && !conditions.end(KIND, "a"));
        assert_eq!(told(&conditions), [], "it may begin again at once");
        clock.advance(second);
        assert_eq!((conditions.lasting(), told(&conditions)), (vec![], vec![("ended", 12)]));
        assert_eq!(conditions.due(), None);
    }

    #[test]
    fn what_begins_again_at_once_is_one_condition() {
        let (clock, conditions) = registry();
        let handle = conditions.handle(KIND, "a");
        for _ in 0..20 {
            handle.begin("full", "room");
            clock.advance(Duration::from_millis(300));
            assert!(handle.end() && !handle.end());
            clock.advance(Duration::from_millis(300));
            assert!(!handle.lasts() && conditions.lasting().len() == 1);
        }
        assert_eq!(told(&conditions), [("began", 0)]);
        assert_eq!(conditions.begun()[KIND as usize], (KIND, 1));
        clock.advance(Duration::from_secs(1));
        handle.begin("full", "room");
        assert_eq!(told(&conditions), [("ended", 11), ("began", 0)]);
    }

    #[test]
    fn subjects_are_told_apart() {
        let (_, conditions) = registry();
        conditions.begin(KIND, "a", "full", "");
        conditions.begin(KIND, "b", "full", "");
        conditions.begin(ConditionKind::SpillFails, "a", "full", "4 KiB");
        let texts = || conditions.lasting().iter().map(Condition::text).collect::<Vec<_>>();
        assert_eq!(texts(), ["log `a`: full", "log `b`: full", "spill `a`: full; 4 KiB"]);
        assert!(conditions.end(KIND, "a"));
        assert_eq!(conditions.lasting()[0].over_text(), "log `a` takes writes again");
    }
}
