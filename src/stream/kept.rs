//! `Kept`: the memory that windows and states keep from batch to batch, in all and of each, and the message when it is too
//! much.
//!
//! A node changes its figure on the workers, as it takes a batch's changes in, and at a commit by the changes themselves.
//! Figures are estimates: tables by their places, texts and lists as far as their types let them be seen (see `heap`).

use indicatif::HumanBytes;

use super::Graph;
use crate::metrics::Counter;
use crate::sync::{Arc, Mutex};

/// The memory that all nodes keep.
#[derive(Debug, Default)]
pub(super) struct Kept {
    total: Arc<Counter>,
    nodes: Mutex<Vec<(u32, Arc<Counter>)>>,
}

/// The memory that one node keeps. Clones count together.
#[derive(Clone, Debug)]
pub(super) struct NodeKept {
    total: Arc<Counter>,
    own: Arc<Counter>,
}

impl Kept {
    /// Bytes that all nodes keep.
    pub(super) fn total(&self) -> &Arc<Counter> {
        &self.total
    }

    /// The figure of a node.
    pub(super) fn of(&self, node: u32) -> NodeKept {
        let mut nodes = self.nodes.lock();
        let own = match nodes.iter().find(|(other, _)| *other == node) {
            Some((_, own)) => Arc::clone(own),
            None => {
                nodes.push((node, Arc::default()));
                Arc::clone(&nodes[nodes.len() - 1].1)
            }
        };
        NodeKept { total: Arc::clone(&self.total), own }
    }
}

impl NodeKept {
    /// Replaces the `before` bytes of the node by `after` bytes.
    pub(super) fn change(&self, before: u64, after: u64) {
        for counter in [&self.total, &self.own] {
            counter.add(after);
            counter.sub(before);
        }
    }
}

/// The memory that one window or state keeps from batch to batch: see [`Inspector::kept`](crate::Inspector::kept).
///
/// ```
/// # use tidemill::{testing::ManualClock, Config, Interval, StreamingContext};
/// # let ctx = StreamingContext::with_clock(Config::new("doc"), ManualClock::new())?;
/// let letters = ctx.queue_stream(vec![Some(vec!['a', 'b'])], 1);
/// letters.count_by_value_and_window(Interval::secs(2), Interval::secs(1)).named("letters").collect();
/// ctx.run_batches(2)?;
/// let kept = ctx.inspector().expect("the stream runs").kept();
/// assert_eq!((kept[0].name.as_str(), kept[0].kind()), ("letters", "window"));
/// assert!(kept[0].bytes > 0);
/// # Ok::<(), tidemill::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptPart {
    /// The name of the operator; in a pipeline file that of its job.
    pub name: String,
    /// True for a state of keys, false for a window.
    pub is_state: bool,
    /// An estimate of its memory, in bytes.
    pub bytes: u64,
}

impl KeptPart {
    /// The word for it: `state` or `window`.
    pub fn kind(&self) -> &'static str {
        if self.is_state { "state" } else { "window" }
    }
}

/// Advice for windows and states that keep too much.
pub(crate) const KEEP_LESS: &str = "let keys time out, have fewer of them, or shorten the window";

impl Graph {
    /// Bytes that windows and states keep from batch to batch, about.
    pub fn kept_bytes(&self) -> &Arc<Counter> {
        self.kept.total()
    }

    /// The same of each, the largest first.
    pub fn kept_parts(&self) -> Vec<KeptPart> {
        let registered = self.registered.lock();
        let nodes = self.kept.nodes.lock();
        let part = |(node, bytes): &(u32, Arc<Counter>)| {
            let (_, name) = registered.stateful.iter().find(|(other, _)| other == node)?;
            let is_state = registered.changelogs.iter().any(|(other, ..)| other == node);
            Some(KeptPart { name: name.to_string(), is_state, bytes: bytes.value() })
        };
        let mut parts: Vec<KeptPart> = nodes.iter().filter_map(part).collect();
        parts.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.name.cmp(&b.name)));
        parts
    }

    /// The memory that windows and states keep, in words, with the largest of them.
    pub(crate) fn kept_text(&self) -> String {
        let all = HumanBytes(self.kept_bytes().value());
        match self.kept_parts().first() {
            Some(part) => {
                let (kind, name, bytes) = (part.kind(), &part.name, HumanBytes(part.bytes));
                format!("windows and states keep {all}, most of it ({bytes}) the {kind} `{name}`")
            }
            None => format!("windows and states keep {all}"),
        }
    }

    /// The reason why the stream cannot continue, if windows and states keep more than this.
    pub(crate) fn kept_beyond(&self, bytes_max: Option<u64>) -> Option<String> {
        let most = bytes_max.filter(|most| self.kept_bytes().value() > *most)?;
        let (kept, most) = (self.kept_text(), HumanBytes(most));
        Some(format!(
            "{kept}: more than kept_bytes_max = {most}; {KEEP_LESS}, or raise kept_bytes_max"
        ))
    }
}
