//! `KeptWatch`: acts on windows and states that take much of the memory: a condition at a quarter of it, and the end of the
//! stream beyond `kept_bytes_max`. Called by the job loop after each commit.
//!
//! Nothing else bounds them: input could be left unread, but the program asked for these to be kept.

use indicatif::HumanBytes;

use crate::error::{Error, Result};
use crate::metrics::{ConditionHandle, ConditionKind, EventBus};
use crate::stream::{Graph, KEEP_LESS};

/// The bounds of what windows and states keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeptBound {
    /// The memory that the process can count on.
    pub(crate) memory_bytes: u64,
    /// The stream stops beyond this.
    pub(crate) bytes_max: Option<u64>,
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Fine,
    Large,
    TooMuch,
}

impl KeptBound {
    fn judge(self, kept: u64) -> Verdict {
        if self.bytes_max.is_some_and(|most| kept > most) {
            Verdict::TooMuch
        } else if kept >= self.memory_bytes / 4 {
            Verdict::Large
        } else {
            Verdict::Fine
        }
    }
}

/// See the module.
pub(super) struct KeptWatch {
    bound: KeptBound,
    large: ConditionHandle,
}

impl KeptWatch {
    pub(super) fn new(bound: KeptBound, pipeline: &str, events: &EventBus) -> Self {
        let large = events.conditions().handle(ConditionKind::KeptLarge, pipeline);
        KeptWatch { bound, large }
    }

    /// Looks at what windows and states keep now.
    ///
    /// # Errors
    /// If the stream must stop: the text names what keeps the most, and the remedy.
    pub(super) fn look(&self, graph: &Graph) -> Result<()> {
        match self.bound.judge(graph.kept_bytes().value()) {
            Verdict::TooMuch => {
                let text = graph.kept_beyond(self.bound.bytes_max);
                return text.map_or(Ok(()), |text| Err(Error::Failed(text)));
            }
            Verdict::Large if !self.large.lasts() => {
                let memory = HumanBytes(self.bound.memory_bytes);
                let cause =
                    format!("{}, a quarter of the memory ({memory}) or more", graph.kept_text());
                self.large.begin(cause, self.needs());
            }
            Verdict::Large => {}
            Verdict::Fine => {
                self.large.end();
            }
        }
        Ok(())
    }

    fn needs(&self) -> String {
        match self.bound.bytes_max.map(HumanBytes) {
            Some(most) => format!("{KEEP_LESS}; the stream stops beyond kept_bytes_max = {most}"),
            None => format!(
                "{KEEP_LESS}; there is no kept_bytes_max, so nothing stops the stream before memory runs out"
            ),
        }
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;

    #[test]
    fn much_is_a_quarter_of_the_memory_and_too_much_is_what_was_given() {
        let check = |kept: u64, bytes_max: Option<u64>, expected: Verdict| {
            let bound = KeptBound { memory_bytes: 1_000, bytes_max };
            assert_eq!(bound.judge(kept), expected, "{kept} {bytes_max:?}");
        };
        check(0, None, Verdict::Fine);
        check(249, None, Verdict::Fine);
        check(250, None, Verdict::Large);
        check(u64::MAX, None, Verdict::Large);
        check(249, Some(300), Verdict::Fine);
        check(300, Some(300), Verdict::Large);
        check(301, Some(300), Verdict::TooMuch);
        check(100, Some(100), Verdict::Fine);
        check(101, Some(100), Verdict::TooMuch);
        check(2_000, Some(3_000), Verdict::Large);
    }
}
