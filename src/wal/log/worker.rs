//! The thread `wal-sync`: takes the pending records as one group, writes and syncs it, and calls each record's receipt. It
//! knows neither who appends nor what a record means.

use std::collections::VecDeque;

use super::{Pending, Receipt, Shared};
use crate::error::{Error, Result};
use crate::metrics::Watch;
use crate::storage::needs;
use crate::sync::{Arc, Ordering, Poison};
use crate::wal::NotLogged;
use crate::wal::format::Position;
use crate::wal::lane_order::{Lane, LaneOrder};
use crate::wal::room::no_room;
use crate::wal::segment_writer::{Failure, Record, Writer};

/// The next work of `wal-sync`.
struct Work {
    group: Vec<Pending>,
    release: Option<u64>,
    closed: bool,
}

/// The body of `wal-sync`.
pub(super) struct Worker {
    pub(super) shared: Arc<Shared>,
    pub(super) writer: Writer,
    pub(super) order: LaneOrder,
    pub(super) poison: Poison,
    /// Everything taken is durable, and nothing more is taken.
    pub(super) in_order: bool,
}

impl Worker {
    pub(super) fn run(mut self) {
        loop {
            let work = self.next();
            if work.group.is_empty() && work.release.is_none() {
                if work.closed {
                    self.know_checkpoint();
                    let watch = self.watch();
                    let closed = self.writer.close();
                    *self.shared.mended.lock() = self.writer.mended.take();
                    watch.iter().for_each(|watch| watch.end());
                    self.look_at_counts();
                    match closed {
                        Ok(()) => self.in_order = true,
                        Err(Failure::Retry(err) | Failure::Fatal(err)) => self.end(&ended(&err)),
                    }
                    return;
                }
                self.shared.work.wait();
                continue;
            }
            let watch = self.watch();
            let outcome = self.carry_out(work);
            watch.iter().for_each(|watch| watch.end());
            self.look_at_counts();
            if let Err(reason) = outcome {
                self.end(&reason);
                return;
            }
        }
    }

    /// Begins the watch over a call to the disk.
    fn watch(&self) -> Option<Arc<Watch>> {
        let watch = self.shared.hanging.lock().clone();
        watch.inspect(|watch| watch.begin())
    }

    /// Notifies the engine before the owners of records that are not durable.
    fn end(&self, reason: &Arc<str>) {
        self.poison.set(reason.as_ref());
        self.shared.fail(reason);
    }

    fn next(&mut self) -> Work {
        let bytes_max = self.writer.options.group_bytes_max.min(self.writer.body_max());
        let left = self.writer.body_left();
        let mut state = self.shared.state.lock();
        let group = state.take_group(bytes_max, left);
        let work = Work { group, release: state.release.take(), closed: state.closed };
        drop(state);
        self.shared.room.notify_all();
        work
    }

    /// Copies the writer's counts.
    fn look_at_counts(&self) {
        let segments = self.writer.files.lock().len();
        self.shared.counts.look(self.writer.syncs(), segments);
    }

    fn know_checkpoint(&mut self) {
        let number = self.shared.checkpoint.load(Ordering::SeqCst);
        self.writer.listing.checkpointed(number);
    }

    /// Writes a group and releases segments; the error is the reason why the log ends.
    fn carry_out(&mut self, mut work: Work) -> Result<(), Arc<str>> {
        self.know_checkpoint();
        self.writer.reserve = self.shared.reserve.load(Ordering::SeqCst);
        if self.shared.shortage.reason().is_some() {
            // The group may need the room.
            self.release(work.release.take())?;
        }
        let taken = work.group.len();
        let group = self.admitted(work.group)?;
        let admitted = group.len();
        if !group.is_empty() && self.write(group)? && admitted == taken {
            self.accepts();
        }
        self.release(work.release)
    }

    /// Notes that writes are refused, for a reason that passes; any other reason ends the log.
    fn refuses(&self, err: &Error) -> Result<Arc<str>, Arc<str>> {
        if !err.passes() {
            return Err(ended(err));
        }
        self.shared.counts.refused.add(1);
        let needs = err.of_system().map(|err| needs(err, self.writer.missing_bytes()));
        if let Some(handle) = &*self.shared.refusing.lock() {
            handle.begin(err.to_string(), needs.unwrap_or_default());
        }
        Ok(err.to_string().into())
    }

    fn accepts(&self) {
        if let Some(handle) = &*self.shared.refusing.lock() {
            handle.end();
        }
    }

    /// Releases the segments below `first`. If the log was short of room, checks for room for a segment of input.
    fn release(&mut self, first: Option<u64>) -> Result<(), Arc<str>> {
        let Some(first) = first else { return Ok(()) };
        let released = self.writer.release(first);
        let count = released.map_err(|(Failure::Retry(err) | Failure::Fatal(err))| ended(&err))?;
        self.shared.counts.released.add(count as u64);
        if self.shared.shortage.reason().is_some() && self.writer.fill(1).is_ok() {
            self.shared.shortage.end();
            self.accepts();
        }
        Ok(())
    }

    /// The part of a group that may be written; refuses input if the disk has no room for it beside the reserve.
    fn admitted(&mut self, group: Vec<Pending>) -> Result<Vec<Pending>, Arc<str>> {
        let passes = |pending: &Pending| pending.input.is_none_or(|at| self.order.passes(at));
        let (group, late): (Vec<_>, Vec<_>) = group.into_iter().partition(passes);
        self.give_back(late, &"a record before it waits for room".into());
        if group.iter().all(|pending| pending.input.is_none()) {
            return Ok(group);
        }
        let Err(err) = self.writer.admit(group.iter().map(Pending::size).sum()) else {
            self.shared.shortage.end();
            return Ok(group);
        };
        let reason = match self.refuses(&err) {
            Ok(reason) => reason,
            Err(reason) => {
                self.end(&reason);
                let failed = NotLogged::Failed(Arc::clone(&reason));
                group.into_iter().for_each(|pending| (pending.receipt)(Err(failed.clone())));
                return Err(reason);
            }
        };
        self.shared.shortage.begin(Arc::clone(&reason));
        let (input, rest): (Vec<_>, Vec<_>) =
            group.into_iter().partition(|pending| pending.input.is_some());
        self.give_back(input, &reason);
        Ok(rest)
    }

    /// Refuses input; its sender may append it again.
    fn give_back(&mut self, input: Vec<Pending>, reason: &Arc<str>) {
        for Pending { receipt, input, .. } in input {
            input.into_iter().for_each(|at| self.order.refused(at));
            receipt(Err(NotLogged::Retry(Arc::clone(reason))));
        }
    }

    /// Writes a group. Returns false if it was refused.
    fn write(&mut self, group: Vec<Pending>) -> Result<bool, Arc<str>> {
        let lanes: Vec<Option<Lane>> = group.iter().map(|pending| pending.input).collect();
        let (records, mut receipts): (Vec<Record>, VecDeque<Receipt>) =
            group.into_iter().map(|pending| (pending.record, pending.receipt)).unzip();
        let counts = &self.shared.counts;
        let bytes: usize = records.iter().map(Record::length).sum();
        let mut durable = |positions: Vec<Position>| {
            counts.groups.add(1);
            counts.records.add(positions.len() as u64);
            counts.bytes.add(bytes as u64);
            for (position, receipt) in positions.into_iter().zip(receipts.drain(..)) {
                receipt(Ok(position));
            }
        };
        let records: Vec<&Record> = records.iter().collect();
        let committed = self.writer.commit(&records, &mut durable);
        *self.shared.synced.lock() = self.writer.listing.now().segments.last().copied();
        let (taken, refused) = lanes.split_at(lanes.len() - receipts.len());
        taken.iter().flatten().for_each(|at| self.order.taken(*at));
        refused.iter().flatten().for_each(|at| self.order.refused(*at));
        let refused = match committed {
            Ok(()) => return Ok(true),
            Err(Failure::Retry(err)) => self.refuses(&err),
            Err(Failure::Fatal(err)) => Err(ended(&err)),
        };
        let (refusal, outcome) = match refused {
            Ok(reason) => (NotLogged::Retry(reason), Ok(false)),
            Err(reason) => {
                self.end(&reason);
                (NotLogged::Failed(Arc::clone(&reason)), Err(reason))
            }
        };
        for receipt in receipts {
            receipt(Err(refusal.clone()));
        }
        outcome
    }
}

impl Drop for Worker {
    /// Runs after a panic too: nobody may wait for a log that has ended, or take it for one that was closed in order.
    fn drop(&mut self) {
        if !self.in_order {
            self.shared.fail(&"the thread wal-sync has ended".into());
        }
    }
}

/// Takes the room that a log needs from its start on: a segment to write, and the reserve. A log that has segments runs
/// without the reserve, which only input needs; the reason for that is returned.
///
/// # Errors
/// If there is no room even for that; the text says how much is needed.
pub(super) fn first_room(writer: &mut Writer) -> Result<Option<Arc<str>>> {
    let Err(err) = writer.fill(1) else { return Ok(None) };
    let is_new = writer.files.lock().is_empty();
    if !is_new && writer.spares.len() > 0 {
        return Ok(Some(err.to_string().into()));
    }
    let wanted = if is_new { writer.reserve + 1 } else { 1 };
    let missing = (wanted - writer.spares.len()) as u64 * writer.options.segment_bytes;
    Err(no_room(missing, &writer.storage.name(), &err))
}

fn ended(err: &Error) -> Arc<str> {
    if let Error::Failed(lost) = err {
        return format!("the log ends here: {lost}").into();
    }
    format!("the log ends here and recovers at the next start: {err}").into()
}
