//! The state of the stream at one moment: all figures of an answer are taken from the same look.

use super::process::Process;
use super::shown::{Shown, Starting};
use crate::config::Resolved;
use crate::context::{Done, Inspector, Memory, ReceiverStatus};
use crate::journal::LogFigures;
use crate::metrics::{Condition, ConditionKind, Reloaded, STAGES, Times};
use crate::stream::KeptPart;

/// See the module.
pub(super) struct Look {
    /// The stream; `None` while it starts.
    pub(super) stream: Option<StreamLook>,
    /// The progress of the start; `None` once there is a stream.
    pub(super) starting: Option<Starting>,
    pub(super) process: Process,
}

/// A stream at one moment.
pub(super) struct StreamLook {
    inspector: Inspector,
    pub(super) done: Done,
    pub(super) memory: Memory,
    pub(super) reloaded: Reloaded,
    pub(super) is_ready: bool,
    pub(super) receivers: Vec<ReceiverStatus>,
    pub(super) log: Option<LogFigures>,
}

impl Look {
    /// Takes a look at the current state.
    pub(super) fn of(shown: &Shown) -> Look {
        let (stream, starting) = match shown {
            Shown::Starting(starting) => (None, Some(*starting)),
            Shown::Stream(inspector) => (Some(StreamLook::of(inspector)), None),
        };
        Look { stream, starting, process: Process::read() }
    }

    /// True if there is a stream and it works.
    pub(super) fn is_ready(&self) -> bool {
        self.stream.as_ref().is_some_and(|stream| stream.is_ready)
    }
}

impl StreamLook {
    fn of(inspector: &Inspector) -> StreamLook {
        StreamLook {
            done: inspector.progress(),
            memory: inspector.memory(),
            reloaded: inspector.reloaded(),
            is_ready: inspector.is_ready(),
            receivers: inspector.receivers(),
            log: inspector.log(),
            inspector: inspector.clone(),
        }
    }

    pub(super) fn config(&self) -> &Resolved {
        self.inspector.config()
    }

    pub(super) fn events_dropped(&self) -> u64 {
        self.inspector.events_dropped()
    }

    pub(super) fn kept(&self) -> Vec<KeptPart> {
        self.inspector.kept()
    }

    pub(super) fn conditions(&self) -> Vec<Condition> {
        self.inspector.conditions()
    }

    pub(super) fn conditions_begun(&self) -> Vec<(ConditionKind, u64)> {
        self.inspector.conditions_begun()
    }

    /// The lateness of each timer's ticks.
    pub(super) fn ticks(&self) -> Vec<(&'static str, Times)> {
        let times = self.inspector.times();
        vec![("job", times.job_ticks.merged()), ("cut", times.cut_ticks.merged())]
    }

    /// The duration of each stage of a batch.
    pub(super) fn stages(&self) -> Vec<(&'static str, Times)> {
        let stages = STAGES.iter().zip(&self.inspector.times().stages);
        stages.map(|((_, name), latency)| (*name, latency.merged())).collect()
    }
}
