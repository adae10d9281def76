//! Signals, on the thread `signals`: what each one asks for is decided by [`Decider`], a pure function of the signals
//! before; who started the watch carries it out.
//!
//! | signal | what it asks for |
//! |---|---|
//! | SIGINT, SIGTERM | the first: a stop in order; one more within a second counts as the first; a later one: the end at once |
//! | SIGHUP | nothing if it was ignored at the start (nohup); on a terminal: a stop; otherwise: to read the pipeline file again |
//! | SIGUSR1, SIGUSR2 | nothing: a signal that somebody sends by mistake does not end a stream |

use std::fs;
use std::io::{IsTerminal, stderr, stdin, stdout};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::{Handle, Signals};

use crate::error::{EXIT_FAILED, Error, Result};
use crate::sync::Poison;
use crate::sync::planted::{Planted, planted};
use crate::sync::thread::{self, Thread};
use crate::time::{Clock, Moment, SystemClock};

/// A second stop signal within this time counts as the first: supervisors signal a process and then its group.
pub(super) const SAME_SIGNAL: Duration = Duration::from_secs(1);

/// The request of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// A stop in order.
    Stop,
    /// The end of the process, whatever is in flight.
    EndAtOnce,
    /// To read the pipeline file again.
    Reload,
    /// Nothing.
    Nothing,
}

/// The meaning of SIGHUP for this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hangup {
    /// It was ignored at the start and stays so.
    Ignored,
    /// The terminal is gone.
    Stops,
    /// An operator changed the pipeline file.
    Reloads,
}

impl Hangup {
    /// Looks at how this process was started.
    pub(super) fn of_this_process() -> Hangup {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        if ignores(&status, SIGHUP) {
            return Hangup::Ignored;
        }
        match stdin().is_terminal() || stdout().is_terminal() || stderr().is_terminal() {
            true => Hangup::Stops,
            false => Hangup::Reloads,
        }
    }
}

/// True if a process with this `/proc/PID/status` ignores the signal: the mask has a bit for each, from 1 on.
fn ignores(status: &str, signal: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

/// See the module.
#[derive(Debug)]
pub(super) struct Decider {
    hangup: Hangup,
    /// When the first signal to stop came.
    stopped: Option<Moment>,
}

impl Decider {
    pub(super) fn new(hangup: Hangup) -> Self {
        Decider { hangup, stopped: None }
    }

    fn decide(&mut self, signal: i32, now: Moment) -> Action {
        match (signal, self.hangup) {
            (SIGINT | SIGTERM, _) | (SIGHUP, Hangup::Stops) => match self.stopped {
                None => {
                    self.stopped = Some(now);
                    Action::Stop
                }
                Some(first)
                    if now.since(first) < SAME_SIGNAL && !planted(Planted::SecondSignalAtOnce) =>
                {
                    Action::Nothing
                }
                Some(_) => Action::EndAtOnce,
            },
            (SIGHUP, Hangup::Reloads) if self.stopped.is_none() => Action::Reload,
            _ => Action::Nothing,
        }
    }

    /// The signals that are watched; the others keep what they had.
    fn watched(&self) -> Vec<i32> {
        let mut watched = vec![SIGINT, SIGTERM, SIGUSR1, SIGUSR2];
        if self.hangup != Hangup::Ignored {
            watched.push(SIGHUP);
        }
        watched
    }
}

/// The thread that waits for signals; dropping it ends it.
pub(super) struct SignalWatch {
    handle: Handle,
    thread: Option<Thread>,
}

impl SignalWatch {
    /// Calls `act` with what each signal asks for; the process ends after [`Action::EndAtOnce`]. One that comes while
    /// `act` runs is acted on afterwards.
    pub(super) fn start(
        mut decider: Decider,
        mut act: impl FnMut(Action) + Send + 'static,
        poison: &Poison,
    ) -> Result<Self> {
        let system = |err| Error::io("cannot watch signals", err);
        let mut signals = Signals::new(decider.watched()).map_err(system)?;
        let handle = signals.handle();
        let clock = SystemClock::new();
        let body = move || {
            for signal in signals.forever() {
                let action = decider.decide(signal, clock.now());
                act(action);
                if action == Action::EndAtOnce {
                    signal_hook::low_level::exit(i32::from(EXIT_FAILED));
                }
            }
        };
        let thread = thread::spawn("signals", poison, body).map_err(system)?;
        Ok(SignalWatch { handle, thread: Some(thread) })
    }
}

impl Drop for SignalWatch {
    fn drop(&mut self) {
        self.handle.close();
        self.thread.take().into_iter().for_each(Thread::join);
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;

    /// Signals with the millisecond at which each comes, and what the last one asks for.
    fn check(hangup: Hangup, signals: &[(i32, u64)], expected: Action) {
        let mut decider = Decider::new(hangup);
        let mut last = Action::Nothing;
        for (signal, ms) in signals {
            last = decider.decide(*signal, Moment::from_nanos(ms * 1_000_000));
        }
        assert_eq!(last, expected, "{hangup:?} {signals:?}");
    }

    #[test]
    fn what_signals_ask_for() {
        use Action::{EndAtOnce, Nothing, Reload, Stop};
        use Hangup::{Ignored, Reloads, Stops};
        check(Reloads, &[(SIGTERM, 5)], Stop);
        check(Reloads, &[(SIGINT, 5)], Stop);
        check(Reloads, &[(SIGTERM, 5), (SIGTERM, 5)], Nothing);
        check(Reloads, &[(SIGTERM, 5), (SIGINT, 1_004)], Nothing);
        check(Reloads, &[(SIGTERM, 5), (SIGTERM, 1_005)], EndAtOnce);
        // What counted as the first does not move the second.
        check(Reloads, &[(SIGTERM, 5), (SIGTERM, 900), (SIGTERM, 1_006)], EndAtOnce);
        check(Reloads, &[(SIGHUP, 5)], Reload);
        check(Reloads, &[(SIGHUP, 5), (SIGHUP, 6)], Reload);
        check(Reloads, &[(SIGTERM, 5), (SIGHUP, 2_000)], Nothing);
        check(Stops, &[(SIGHUP, 5)], Stop);
        check(Stops, &[(SIGHUP, 5), (SIGTERM, 2_000)], EndAtOnce);
        check(Ignored, &[(SIGHUP, 5)], Nothing);
        check(Reloads, &[(SIGUSR1, 5), (SIGUSR2, 6)], Nothing);
    }

    /// A supervisor's second signal, to the group of the process, would cut its drain short.
    #[cfg(tidemill_planted)]
    #[test]
    fn planted_an_end_at_once_by_the_same_signal_is_found_out() {
        use crate::sync::planted::with;
        let twice = || check(Hangup::Reloads, &[(SIGTERM, 5), (SIGTERM, 5)], Action::EndAtOnce);
        with(Planted::SecondSignalAtOnce, twice);
        check(Hangup::Reloads, &[(SIGTERM, 5), (SIGTERM, 5)], Action::Nothing);
    }

    #[test]
    fn what_a_process_ignores() {
        let status = "Name:\tx\nSigBlk:\t0000000000000001\nSigIgn:\t0000000000001001\nSigCgt:\t0\n";
        let check = |signal: i32, expected: bool| assert_eq!(ignores(status, signal), expected);
        check(SIGHUP, true);
        check(SIGINT, false);
        check(13, true);
        assert!(!ignores("", SIGHUP));
    }
}
