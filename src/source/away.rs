//! `Away`: reports that a source cannot reach its peer, with the number of attempts. Used by the thread that dials, or that runs
//! a user's own receiver.
//!
//! A connection that had proved itself and ended is a tally: it is made again. A failed attempt, or an earlier end, is a
//! condition: one message at its begin, one every ten seconds with the number of attempts, and one when the peer is there again.

use std::time::Duration;

use crate::metrics::{ConditionHandle, ConditionKind, EventBus, Tallies, TallyKind};
use crate::source::socket::dialer::Wait;

/// See the module. One for each address.
pub(super) struct Away {
    source: String,
    /// The address, if the source has one.
    address: Option<String>,
    condition: ConditionHandle,
    tallies: Tallies,
    /// Attempts since it was there last.
    attempts: u64,
}

impl Away {
    pub(super) fn new(source: &str, address: Option<&str>, events: &EventBus) -> Self {
        let subject = address.map(|address| format!("{source} -> {address}"));
        let subject = subject.unwrap_or_else(|| source.to_owned());
        Away {
            source: source.to_owned(),
            address: address.map(str::to_owned),
            condition: events.conditions().handle(ConditionKind::SourceAway, subject),
            tallies: events.tallies().clone(),
            attempts: 0,
        }
    }

    /// An attempt failed, or its connection is over; the next one comes after a wait.
    pub(super) fn again(&mut self, wait: Wait, why: &str) {
        let next = seconds(wait.wait);
        if wait.had_proved {
            self.is_there();
            let address = self.address.as_ref().map(|address| format!("{address}: "));
            let newest = format!("{}{why}; the next in {next}", address.unwrap_or_default());
            return self.tallies.add(TallyKind::Reconnects, &self.source, 1, newest);
        }
        self.attempts += 1;
        let attempts = match self.attempts {
            1 => "tried once".to_owned(),
            attempts => format!("tried {attempts} times"),
        };
        self.condition.begin(format!("{why} ({attempts}, the next in {next})"), "");
    }

    /// A new attempt begins that cannot tell when it succeeds: the peer counts as there unless the attempt fails at once.
    pub(super) fn is_tried(&self) {
        self.condition.end();
    }

    /// The peer is there.
    pub(super) fn is_there(&mut self) {
        self.attempts = 0;
        self.condition.end();
    }
}

fn seconds(wait: Duration) -> String {
    format!("{:.1} s", wait.as_secs_f64())
}
