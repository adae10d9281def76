//! `UnfinishedRecord`: the memory that one connection holds of the record that it has begun, and its place between two pieces.
//! Lives with the connection on its io thread.

use super::{GivenUp, How, Owner, Place, Unfinished};
use crate::framing::Splitter;
use crate::metrics::ReceiverCounters;
use crate::sync::Arc;
use crate::sync::planted::{Planted, planted};

/// See the module. A connection that has sent nothing has none of this.
#[derive(Default)]
pub(crate) struct UnfinishedRecord(Option<Box<Counted>>);

#[derive(Default)]
struct Counted {
    /// The memory that is counted of it while it is short, in bytes.
    bytes: usize,
    /// Number of its bytes that have come; they are in its source's `unfinished_bytes`.
    come: usize,
    /// Its place in the ledger while it is long.
    place: Option<Place>,
    /// Made when it is long for the first time.
    owner: Option<Arc<Owner>>,
}

impl UnfinishedRecord {
    /// True if its memory is in the ledger: then [`resume`](Self::resume) comes before the splitter is used.
    pub(crate) fn is_parked(&self) -> bool {
        self.0.as_ref().is_some_and(|counted| counted.place.is_some())
    }

    /// True if the connection must be closed because its record was given up.
    pub(crate) fn is_closing(&self) -> bool {
        let owner = self.0.as_ref().and_then(|counted| counted.owner.as_ref());
        owner.is_some_and(|owner| owner.is_closing())
    }

    /// Takes the record back, or notifies the splitter that it was given up.
    ///
    /// # Errors
    /// The reason for which the connection must be closed.
    pub(crate) fn resume(
        &mut self,
        splitter: &mut dyn Splitter,
        unfinished: &Unfinished,
    ) -> Result<(), String> {
        let Some(counted) = &mut self.0 else { return Ok(()) };
        let (Some(place), Some(owner)) = (counted.place, &counted.owner) else { return Ok(()) };
        match unfinished.take(place, owner) {
            Ok(bytes) => {
                splitter.put_back(bytes);
                Ok(())
            }
            Err(GivenUp { begin, len, how }) => {
                // The thread that gave it up has subtracted it from its source's `unfinished_bytes`.
                (counted.place, counted.come) = (None, 0);
                match how {
                    How::Closed(why) => Err(why),
                    How::Overlong => splitter.give_up(&begin, len).map_err(|malformed| malformed.0),
                }
            }
        }
    }

    /// Counts the memory of the splitter after a piece, and parks it if it is long. Costs nothing but a look while that does
    /// not change.
    pub(crate) fn note(
        &mut self,
        splitter: &mut dyn Splitter,
        unfinished: &Unfinished,
        owner: impl FnOnce() -> Arc<Owner>,
    ) {
        let held = splitter.held();
        let is_same = match &self.0 {
            None => held == 0,
            Some(counted) => held == counted.bytes && counted.place.is_none(),
        };
        if is_same || planted(Planted::UnfinishedUncounted) {
            return;
        }
        let counted = self.0.get_or_insert_default();
        if unfinished.is_long(held) && splitter.pending() > 0 {
            unfinished.change_small(std::mem::take(&mut counted.bytes), 0);
            let owner = counted.owner.get_or_insert_with(owner);
            counted.place = Some(unfinished.park(counted.place, owner, splitter.lend()));
        } else {
            counted.release(unfinished);
            unfinished.change_small(0, held);
            counted.bytes = held;
        }
    }

    /// Counts the bytes of the record that have come.
    pub(crate) fn count(&mut self, come: usize, counters: &ReceiverCounters) {
        let before = self.0.as_ref().map_or(0, |counted| counted.come);
        if come != before {
            self.0.get_or_insert_default().come = come;
            counters.unfinished_bytes.change(before as u64, come as u64);
        }
    }

    /// The record has ended, or is gone with its connection.
    pub(crate) fn ended(&mut self, counters: &ReceiverCounters) {
        self.count(0, counters);
    }

    /// The connection is over: its memory is not counted any more. The connection has the record.
    pub(crate) fn release(&mut self, unfinished: &Unfinished) {
        self.0.iter_mut().for_each(|counted| counted.release(unfinished));
    }
}

impl Counted {
    fn release(&mut self, unfinished: &Unfinished) {
        self.place.take().into_iter().for_each(|place| unfinished.leave(place));
        unfinished.change_small(std::mem::take(&mut self.bytes), 0);
    }
}
