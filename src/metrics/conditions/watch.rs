//! `Watch`: an operation that usually ends soon, and is a condition if it does not. It has no thread: the thread `events`
//! checks.
//!
//! ```text
//!  begin ─▶ since when ─ nobody looks yet ─▶ wakes `events` ─ so much later ─▶ that one again? the condition begins
//!  end ───▶ none ─ the condition lasts ─▶ it ends                             another one? looks again, none? nobody looks
//! ```
//! So operations that begin and end all the time wake the thread once per `after`, and an idle watch costs nothing.

use std::time::Duration;

use super::{ConditionKind, Conditions};
use crate::sync::{Arc, Mutex};
use crate::time::Moment;

/// See the module. A watch belongs to one thread, which runs one operation at a time.
#[derive(Debug)]
pub struct Watch {
    conditions: Conditions,
    watched: Arc<Watched>,
}

/// A watched operation, and the words of its condition.
#[derive(Debug)]
pub(super) struct Watched {
    kind: ConditionKind,
    subject: String,
    cause: String,
    needs: String,
    after: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The time at which the operation began; `None` if none runs.
    since: Option<Moment>,
    /// The problem of this operation, if not always the same.
    cause: Option<String>,
    /// The time at which the thread `events` checks it next.
    look_at: Option<Moment>,
    /// True if the condition has begun.
    lasts: bool,
}

/// The limit of a watched operation, and the words of the condition beyond it.
#[derive(Clone, Debug)]
pub struct Slow {
    /// The longest time that an operation may take.
    pub after: Duration,
    /// The problem.
    pub cause: String,
    /// The remedy.
    pub needs: String,
}

impl Watch {
    pub(super) fn new(conditions: Conditions, watched: Arc<Watched>) -> Watch {
        Watch { conditions, watched }
    }

    /// An operation begins.
    pub fn begin(&self) {
        self.begins(None);
    }

    /// An operation begins; `cause` is the problem if it takes too long.
    pub fn begin_with(&self, cause: String) {
        self.begins(Some(cause));
    }

    fn begins(&self, cause: Option<String>) {
        let now = self.conditions.now();
        let mut state = self.watched.state.lock();
        (state.since, state.cause) = (Some(now), cause);
        if state.look_at.is_none() {
            state.look_at = Some(now.plus(self.watched.after));
            drop(state);
            self.conditions.wake();
        }
    }

    /// The operation has ended.
    pub fn end(&self) {
        let mut state = self.watched.state.lock();
        state.since = None;
        if std::mem::take(&mut state.lasts) {
            drop(state);
            self.conditions.end(self.watched.kind, &self.watched.subject);
        }
    }
}

impl Watched {
    pub(super) fn new(kind: ConditionKind, subject: String, slow: Slow) -> Watched {
        let Slow { after, cause, needs } = slow;
        Watched { kind, subject, cause, needs, after, state: Mutex::default() }
    }

    /// The time of the next check.
    pub(super) fn due(&self) -> Option<Moment> {
        self.state.lock().look_at
    }

    /// Checks the operation if that is due: its condition begins, or the next check is set, or the checks end.
    pub(super) fn look(&self, conditions: &Conditions, now: Moment) {
        let mut state = self.state.lock();
        if state.look_at.is_none_or(|at| now < at) {
            return;
        }
        let ends_at = state.since.map(|since| since.plus(self.after));
        state.look_at = ends_at.filter(|at| now < *at);
        if ends_at.is_some() && state.look_at.is_none() && !state.lasts {
            state.lasts = true;
            // Under the lock, so that an end comes after it.
            let cause = state.cause.as_deref().unwrap_or(&self.cause);
            conditions.begin(self.kind, &self.subject, cause, &*self.needs);
        }
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::super::Event;
    use super::*;
    use crate::sync::Signal;
    use crate::time::{Clock, ManualClock};

    const AFTER: u64 = 10;

    /// Begins (`b`), ends (`e`), or a number of seconds that pass; `expected` holds each message with its second.
    fn check(story: &str, expected: &[(u64, &str)]) {
        let clock = ManualClock::new();
        let (wake, mut woken, mut told, mut second) = (Signal::new(), 0, Vec::new(), 0);
        let conditions = Conditions::new(Arc::new(clock.clone()), wake.clone());
        let slow = Slow {
            after: Duration::from_secs(AFTER),
            cause: "it hangs".to_owned(),
            needs: "it must not".to_owned(),
        };
        let watch = conditions.watch(ConditionKind::LogHangs, "/state", slow);
        for word in story.split_whitespace() {
            match word {
                "b" => watch.begin(),
                "e" => watch.end(),
                seconds => {
                    for _ in 0..seconds.parse::<u64>().expect("seconds") {
                        clock.advance(Duration::from_secs(1));
                        second += 1;
                        let due = conditions.due().is_some_and(|at| at <= clock.now());
                        woken += u64::from(due);
                        for event in conditions.take_due(false) {
                            told.push((
                                second,
                                match event {
                                    Event::ConditionBegan { .. } => "began",
                                    Event::ConditionLasts { .. } => "lasts",
                                    Event::ConditionEnded { .. } => "ended",
                                    other => panic!("{other:?}"),
                                },
                            ));
                        }
                    }
                }
            }
        }
        assert_eq!(told, expected, "{story}");
        assert!(woken <= second / AFTER + 2 * told.len() as u64 + 1, "{story}: {woken} looks");
    }

    #[test]
    fn what_takes_long_is_a_condition_until_it_is_over() {
        check("b 9 e 20", &[]);
        check("b 35 e 5", &[(10, "began"), (20, "lasts"), (30, "lasts"), (36, "ended")]);
        // One operation after the other, none of them long.
        check("b 4 e b 4 e b 4 e b 4 e b 4 e 30", &[]);
        // The third one is long; the check comes ten seconds after its begin.
        check("b 4 e b 3 e b 12 e 5", &[(17, "began"), (20, "ended")]);
        check("b 12 e 2 b 11 e 5", &[(10, "began"), (13, "ended"), (24, "began"), (26, "ended")]);
        // It began again before it had settled.
        check("b 12 e b 15 e 5", &[(10, "began"), (13, "ended"), (22, "began"), (28, "ended")]);
    }
}
