//! The records that make a batch's commit durable: its changes of states, and its end. A full disk may refuse some of them:
//! those alone are appended again, so that repeated attempts do not themselves fill the log. The job loop appends; receipts
//! run on the thread `wal-sync`.

use super::record::{self, Committed, Parts};
use super::{Journal, Live};
use crate::error::{Error, Result};
use crate::sync::{Arc, Mutex};
use crate::wal::{NotLogged, Position, Record};

/// Records of a commit that are not durable yet.
#[derive(Clone, Debug)]
pub(crate) struct CommitRecords {
    /// The batch.
    index: u64,
    records: Vec<Record>,
}

#[cfg(test)]
impl CommitRecords {
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }
}

/// The fate of records that were appended together: the refused ones, and the reason.
pub(crate) type CommitOutcome = Result<(), (CommitRecords, NotLogged)>;

/// Called once with that, on the thread `wal-sync`; it must only post.
pub(crate) type CommitReceipt = Box<dyn FnOnce(CommitOutcome) + Send>;

/// The state of the records that were appended together.
struct Appended {
    live: Arc<Mutex<Live>>,
    index: u64,
    /// Number of records on their way.
    left: usize,
    refused: Vec<Record>,
    reason: Option<NotLogged>,
    receipt: Option<CommitReceipt>,
}

impl Journal {
    /// The records of a batch's end and of its changes of states.
    ///
    /// # Errors
    /// If the log takes no record as long as one of them.
    pub(crate) fn commit(&self, commit: Committed, parts: &Parts) -> Result<CommitRecords> {
        let most = self.shared.log.record_bytes_max();
        let mut records = record::changed(commit.index, parts, most);
        if let Some(long) = records.iter().find(|record| record.length() > most) {
            return Err(Error::Failed(format!(
                "the state of a key is too large for the log in {}: batch {} changes {} bytes of it at once, and a segment \
                 of the log takes {most}; keep less for each key, or give a `state_dir` on a larger disk",
                self.shared.log.name(),
                commit.index,
                long.length(),
            )));
        }
        let changed = u32::try_from(records.len()).expect("a batch has fewer records than that");
        records.push(record::committed(Committed { changed, ..commit }));
        Ok(CommitRecords { index: commit.index, records })
    }

    /// Appends records of a commit. If nothing was changed they may ride with the next sync: their loss only repeats a commit.
    /// If the log has ended, which poisons the engine, `receipt` is dropped.
    pub(crate) fn append_commit(&self, commit: CommitRecords, receipt: CommitReceipt) {
        let CommitRecords { index, records } = commit;
        let appended = Arc::new(Mutex::new(Appended {
            live: Arc::clone(&self.shared.live),
            index,
            left: records.len(),
            refused: Vec::new(),
            reason: None,
            receipt: Some(receipt),
        }));
        for record in records {
            let (appended, again) = (Arc::clone(&appended), record.clone());
            let _ = self.shared.log.append(record, move |outcome| {
                let told = appended.lock().take(outcome, again);
                if let Some((receipt, outcome)) = told {
                    receipt(outcome);
                }
            });
        }
    }
}

impl Appended {
    /// Takes the fate of one record. Returns the receipt and the outcome after the last.
    fn take(
        &mut self,
        outcome: Result<Position, NotLogged>,
        record: Record,
    ) -> Option<(CommitReceipt, CommitOutcome)> {
        self.left -= 1;
        match outcome {
            Ok(at) => {
                let mut live = self.live.lock();
                let oldest = live.commits.entry(self.index).or_insert(at.segment);
                *oldest = (*oldest).min(at.segment);
            }
            Err(reason) => {
                self.refused.push(record);
                self.reason = Some(reason);
            }
        }
        if self.left > 0 {
            return None;
        }
        let records = std::mem::take(&mut self.refused);
        let outcome = match self.reason.take() {
            Some(reason) => Err((CommitRecords { index: self.index, records }, reason)),
            None => Ok(()),
        };
        self.receipt.take().map(|receipt| (receipt, outcome))
    }
}
