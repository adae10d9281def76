//! Tallies: single events that may be frequent, such as a peer that is turned away. The first is reported at once, later
//! ones in a sum at most every ten seconds for each kind and source. Any thread adds; the thread `events` reports.
//!
//! ```text
//! noted:  x      x x x  x              x                        x
//! told:   1             |4             |1      (nothing)        1
//!         0 s          10 s           20 s               30 s
//! ```
//! Messages are for people; the counters have every single event. Unlike a condition, a tally has no end.

use std::time::Duration;

use crate::sync::{Arc, Mutex, Signal};
use crate::time::{Clock, Moment};

use super::event::Event;
use super::tally::{Tally, TallyKind};

/// The time between two messages of a tally.
const REPEAT: Duration = Duration::from_secs(10);

/// The registry. Clones are handles of the same one.
#[derive(Clone, Debug)]
pub struct Tallies(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Arc<dyn Clock>,
    /// The thread `events` waits on this.
    wake: Signal,
    entries: Mutex<Vec<Entry>>,
}

#[derive(Debug)]
struct Entry {
    /// The sum to report at `tell_at`; an entry with nothing to report is removed then.
    tally: Tally,
    tell_at: Moment,
}

impl Tallies {
    /// Creates an empty registry, which raises `wake` when there is something to report.
    pub(super) fn new(clock: Arc<dyn Clock>, wake: Signal) -> Self {
        Tallies(Arc::new(Inner { clock, wake, entries: Mutex::default() }))
    }

    /// Adds `count` events at a source; `newest` describes the newest of them.
    pub fn add(&self, kind: TallyKind, source: &str, count: u64, newest: impl Into<String>) {
        let mut entries = self.0.entries.lock();
        let known = |entry: &&mut Entry| entry.tally.kind == kind && entry.tally.source == source;
        if let Some(entry) = entries.iter_mut().find(known) {
            entry.tally.count += count;
            entry.tally.newest = newest.into();
            return;
        }
        let (source, newest) = (source.to_owned(), newest.into());
        let tally = Tally { kind, source, count, newest };
        entries.push(Entry { tally, tell_at: self.0.clock.now() });
        drop(entries);
        self.0.wake.raise();
    }

    /// The time of the next message, or of the next entry to remove.
    pub(super) fn due(&self) -> Option<Moment> {
        self.0.entries.lock().iter().map(|entry| entry.tell_at).min()
    }

    /// Takes the messages that are due now. At the `close` this includes those that are due later.
    pub(super) fn take_due(&self, close: bool) -> Vec<Event> {
        let mut entries = self.0.entries.lock();
        if entries.is_empty() {
            return Vec::new();
        }
        let (now, mut events) = (self.0.clock.now(), Vec::new());
        entries.retain_mut(|entry| {
            if now < entry.tell_at && !close {
                return true;
            }
            let some = entry.tally.count > 0;
            if some {
                events.push(Event::Tallied { tally: entry.tally.clone() });
            }
            entry.tally.count = 0;
            entry.tell_at = now.plus(REPEAT);
            some && !close
        });
        events
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;
    use crate::time::ManualClock;

    const KIND: TallyKind = TallyKind::PeerTurnedAway;

    fn registry() -> (ManualClock, Tallies) {
        let clock = ManualClock::new();
        (clock.clone(), Tallies::new(Arc::new(clock), Signal::new()))
    }

    fn told(tallies: &Tallies, close: bool) -> Vec<String> {
        let text = |event: Event| match event {
            Event::Tallied { tally } => tally.text(),
            other => panic!("{other:?}"),
        };
        tallies.take_due(close).into_iter().map(text).collect()
    }

    #[test]
    fn the_first_is_told_at_once_and_then_what_came_since() {
        let (clock, tallies) = registry();
        assert_eq!((tallies.due(), told(&tallies, false)), (None, vec![]));
        tallies.add(KIND, "in", 1, "a:1 (full)");
        assert_eq!(tallies.due(), Some(clock.now()));
        assert_eq!(told(&tallies, false), ["source `in`: a peer was turned away: a:1 (full)"]);
        for number in 2..=5 {
            tallies.add(KIND, "in", 1, format!("a:{number} (full)"));
            clock.advance(Duration::from_secs(2));
        }
        assert_eq!(told(&tallies, false), [""; 0]);
        clock.advance(Duration::from_secs(2));
        let four = "source `in`: 4 peers were turned away, the last: a:5 (full)";
        assert_eq!(told(&tallies, false), [four]);
        clock.advance(REPEAT);
        assert_eq!((told(&tallies, false), tallies.due()), (vec![], None), "it is forgotten");
        tallies.add(KIND, "in", 1, "a:9 (full)");
        assert_eq!(told(&tallies, false), ["source `in`: a peer was turned away: a:9 (full)"]);
    }

    #[test]
    fn kinds_and_sources_are_told_apart_and_the_close_tells_all() {
        let (_, tallies) = registry();
        tallies.add(KIND, "in", 2, "a:1");
        tallies.add(KIND, "out", 1, "b:1");
        tallies.add(TallyKind::RecordOverlong, "in", 1, "c:1");
        let first = told(&tallies, false);
        assert_eq!(first[0], "source `in`: 2 peers were turned away, the last: a:1");
        assert_eq!(
            first[1..],
            ["source `out`: a peer was turned away: b:1", "source `in`: an over-long record: c:1"]
        );
        tallies.add(KIND, "out", 1, "b:2");
        assert_eq!(told(&tallies, true), ["source `out`: a peer was turned away: b:2"]);
        assert_eq!(tallies.due(), None);
    }
}
