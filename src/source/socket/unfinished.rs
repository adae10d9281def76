//! `Unfinished`: bounds the memory of the records that have begun and not ended, over all connections of all sources, by giving
//! records up.
//!
//! ```text
//!  connection ─ less than the threshold: counted with all other small ones
//!             └ more: parked in the ledger between two pieces ─ beyond the bound ─▶ a victim is taken out of it by the reader
//! ```
//! A long record's memory belongs to the connection while a piece of it is read, and to the ledger in between. So the io
//! thread that goes beyond the bound takes the victim's memory at once, on whichever thread that is read, and the victim
//! learns of it with its next piece: its record is an over-long one from then on. A connection that is closed instead is closed
//! by its io thread. Only connections with a long unfinished record come here, once for each piece. Knows no sockets.

mod ledger;
#[cfg(all(test, tidemill_model))]
mod model;
mod record;
#[cfg(all(test, not(tidemill_model)))]
mod tests;

use std::net::SocketAddr;

use indicatif::HumanBytes;

pub(crate) use self::ledger::Place;
use self::ledger::{Ledger, Parked};
pub(crate) use self::record::UnfinishedRecord;
use super::oversized::Putting;
use crate::framing::{AsidePart, BEGIN_BYTES};
use crate::memory::budget::MemoryBudget;
use crate::metrics::{ConditionHandle, ConditionKind, EventBus, ReceiverCounters, TallyKind};
use crate::source::io::Remote;
use crate::sync::planted::{Planted, planted};
use crate::sync::{Arc, AtomicBool, AtomicUsize, Condvar, Mutex, Ordering};

/// The most memory of an unfinished record that is not in the ledger, in bytes.
const SMALL_MAX: usize = 4096;

/// The same if the memory is so small for the number of connections that small records alone could exceed it.
const SMALL_MIN: usize = 256;

/// The most bytes that a record takes beside its own: header and terminator.
const FRAME_BYTES: usize = BEGIN_BYTES;

/// The treatment of a record that is given up.
pub(crate) enum Way {
    /// It is dropped up to its end.
    Drop,
    /// Its connection is closed, without an answer to it.
    Close,
    /// It goes whole to a file.
    PutAside(Arc<Putting>),
}

/// A connection that has had a long unfinished record.
pub(crate) struct Owner {
    pub(crate) source: String,
    pub(crate) peer: SocketAddr,
    pub(crate) counters: Arc<ReceiverCounters>,
    pub(crate) way: Way,
    /// Notifies its io thread, if the framing acknowledges.
    pub(crate) remote: Option<Remote>,
    closing: AtomicBool,
    given_up: Mutex<Option<GivenUp>>,
    done: Condvar,
}

/// The options of an owner.
pub(crate) struct OwnerOptions<'a> {
    pub(crate) source: &'a str,
    pub(crate) peer: SocketAddr,
    pub(crate) counters: &'a Arc<ReceiverCounters>,
    pub(crate) way: Way,
    /// Notifies its io thread, if the framing acknowledges.
    pub(crate) remote: Option<Remote>,
}

/// The received part of a record that was given up.
pub(crate) struct GivenUp {
    /// Its first bytes.
    pub(crate) begin: Vec<u8>,
    pub(crate) len: usize,
    pub(crate) how: How,
}

pub(crate) enum How {
    /// It is over-long from now on: its received part is dropped, or on its way to a file.
    Overlong,
    /// The reason for which the connection must be closed.
    Closed(String),
}

impl Way {
    fn words(&self) -> &'static str {
        match self {
            Way::Drop => "its record is dropped",
            Way::Close => "its connection is closed",
            Way::PutAside(_) => "its record is put aside",
        }
    }
}

impl Owner {
    pub(crate) fn new(options: OwnerOptions<'_>) -> Arc<Self> {
        Arc::new(Owner {
            source: options.source.to_owned(),
            peer: options.peer,
            counters: Arc::clone(options.counters),
            way: options.way,
            remote: options.remote,
            closing: AtomicBool::new(false),
            given_up: Mutex::default(),
            done: Condvar::new(),
        })
    }

    /// True if the connection must be closed because its record was given up.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    /// The received part of the record, which begins with these bytes, is gone: notifies its connection.
    fn given_up(&self, begin: Vec<u8>, len: usize, how: How) {
        let closes = matches!(how, How::Closed(_));
        *self.given_up.lock() = Some(GivenUp { begin, len, how });
        if !planted(Planted::GivenUpTellsNobody) {
            self.done.notify_all();
        }
        if closes {
            self.closing.store(true, Ordering::SeqCst);
            self.remote.iter().for_each(Remote::ask);
        }
    }

    /// The fate of the record, for the connection; waits while it is being written.
    fn wait(&self) -> GivenUp {
        let mut given_up = self.given_up.lock();
        loop {
            match given_up.take() {
                Some(given_up) => return given_up,
                None => self.done.wait(&mut given_up),
            }
        }
    }
}

/// Limits of all sources of a stream, added up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sources {
    /// The longest record that one of them takes.
    pub(crate) record_bytes_max: usize,
    /// The connections that they may have at once.
    pub(crate) connections_max: usize,
}

/// See the module.
pub(crate) struct Unfinished {
    bytes_max: usize,
    /// Records of less memory than this are not in the ledger.
    threshold: usize,
    /// Long records may always take this much, the length of one of the longest, however much the small ones take.
    least: usize,
    /// Bytes of the small ones.
    small: AtomicUsize,
    /// Bytes of those that were given up and wait to be written.
    leaving: Arc<AtomicUsize>,
    account: Arc<MemoryBudget>,
    ledger: Mutex<Ledger<Owner>>,
    events: EventBus,
    /// A record was given up, and there is not much more room since.
    is_full: AtomicBool,
    /// The condition of each source that had to give up records.
    full: Mutex<Vec<ConditionHandle>>,
}

impl Unfinished {
    /// Without records; `bytes_max` is the most memory that they may take, counted by the account.
    pub(crate) fn new(
        bytes_max: usize,
        sources: Sources,
        account: &Arc<MemoryBudget>,
        events: &EventBus,
    ) -> Arc<Self> {
        Arc::new(Unfinished {
            bytes_max,
            threshold: threshold(bytes_max, sources.connections_max),
            least: sources.record_bytes_max.saturating_add(FRAME_BYTES),
            small: AtomicUsize::new(0),
            leaving: Arc::default(),
            account: Arc::clone(account),
            ledger: Mutex::default(),
            events: events.clone(),
            is_full: AtomicBool::new(false),
            full: Mutex::default(),
        })
    }

    /// The most memory that unfinished records may take, in bytes.
    pub(crate) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// True if a record with this much memory belongs into the ledger.
    pub(crate) fn is_long(&self, held: usize) -> bool {
        held >= self.threshold
    }

    /// The memory of a connection without a long record has changed.
    pub(crate) fn change_small(&self, before: usize, after: usize) {
        if after <= before {
            self.small.fetch_sub(before - after, Ordering::SeqCst);
            self.account.change_unfinished(before, after);
            return;
        }
        self.small.fetch_add(after - before, Ordering::SeqCst);
        self.account.change_unfinished(before, after);
        if self.account.unfinished() > self.bytes_max {
            self.settle();
        }
    }

    /// Keeps a long record until its connection's next piece, and gives up records that do not fit.
    pub(crate) fn park(&self, place: Option<Place>, owner: &Arc<Owner>, bytes: Vec<u8>) -> Place {
        let (place, parked) = self.change(|ledger| {
            let place = place.unwrap_or_else(|| ledger.add(owner));
            (place, ledger.park(place, bytes))
        });
        if let Parked::Doomed(bytes) = parked {
            self.give_up(owner, bytes);
        }
        self.settle();
        place
    }

    /// Gives up long records until the others fit.
    fn settle(&self) {
        while let Some((owner, bytes)) = self.change(|ledger| ledger.choose(self.long_max())) {
            bytes.into_iter().for_each(|bytes| self.give_up(&owner, bytes));
        }
    }

    /// Gives a record back to its connection for the next piece.
    ///
    /// # Errors
    /// Its fate if it was given up; then its place is free.
    pub(crate) fn take(&self, place: Place, owner: &Owner) -> Result<Vec<u8>, GivenUp> {
        self.change(|ledger| ledger.take(place)).ok_or_else(|| owner.wait())
    }

    /// Frees a place: its record, which is with its connection, has ended or is short now.
    pub(crate) fn leave(&self, place: Place) {
        self.change(|ledger| ledger.remove(place));
    }

    /// Changes the ledger, and afterwards the account, for that may wake readers.
    fn change<T>(&self, change: impl FnOnce(&mut Ledger<Owner>) -> T) -> T {
        let mut ledger = self.ledger.lock();
        let before = ledger.bytes;
        let result = change(&mut ledger);
        let after = ledger.bytes;
        drop(ledger);
        self.account.change_unfinished(before, after);
        if after < before && self.is_full.load(Ordering::SeqCst) {
            self.end_if_not_full();
        }
        result
    }

    fn begin_full(&self, source: &str) {
        let mut full = self.full.lock();
        if !full.iter().any(|handle| handle.subject() == source) {
            full.push(self.events.conditions().handle(ConditionKind::UnfinishedFull, source));
        }
        let handle = full.iter().find(|handle| handle.subject() == source);
        if let Some(handle) = handle.filter(|handle| !handle.lasts()) {
            let most = HumanBytes(self.bytes_max as u64);
            handle.begin(
                format!(
                    "records that have begun and not ended take all of unfinished_bytes_max = {most}; the oldest long ones are \
                     given up"
                ),
                "raise it, or lower connections_max or record_bytes_max",
            );
        }
        drop(full);
        self.is_full.store(true, Ordering::SeqCst);
        // The wake-up that ends it may have come before it began.
        self.end_if_not_full();
    }

    /// A quarter of the bound is free: ends the condition, unless that room is gone again within a moment.
    fn end_if_not_full(&self) {
        if self.account.unfinished() <= self.bytes_max - self.bytes_max / 4 {
            self.is_full.store(false, Ordering::SeqCst);
            self.full.lock().iter().for_each(|handle| {
                handle.end();
            });
        }
    }

    /// The most bytes of long records beside the small ones.
    fn long_max(&self) -> usize {
        let small = self.small.load(Ordering::SeqCst);
        self.bytes_max.saturating_sub(small).max(self.least)
    }

    /// Gives up the received part of a record, on the io thread of the reader that exceeds the bound.
    fn give_up(&self, owner: &Owner, bytes: Vec<u8>) {
        let (begin, len) = (bytes[..bytes.len().min(BEGIN_BYTES)].to_vec(), bytes.len());
        owner.counters.given_up.add(1);
        owner.counters.unfinished_bytes.sub(len as u64);
        match &owner.way {
            Way::Drop => {
                owner.counters.overlong.add(1);
                owner.given_up(begin, len, How::Overlong);
            }
            Way::Close => owner.given_up(begin, len, How::Closed(self.why())),
            Way::PutAside(putting) => owner.given_up(begin, len, self.put_aside(putting, bytes)),
        }
        self.tell(owner, len as u64);
    }

    fn why(&self) -> String {
        let most = HumanBytes(self.bytes_max as u64);
        format!("unfinished records take more than unfinished_bytes_max = {most}")
    }

    /// Makes its source's disk thread write it. Its memory is counted until then; if that disk is slower than the peers,
    /// connections are closed instead.
    fn put_aside(&self, putting: &Putting, bytes: Vec<u8>) -> How {
        let held = bytes.capacity();
        if self.leaving.load(Ordering::SeqCst) > self.bytes_max / 4 {
            let why = self.why();
            return How::Closed(format!(
                "{why}, and those that are put aside are not written fast enough"
            ));
        }
        let leaving = Leaving::new(held, &self.leaving, &self.account);
        putting.put_counted(vec![AsidePart { bytes, is_last: false }], Box::new(leaving));
        How::Overlong
    }

    /// Reports a record that was given up, and that there is no room.
    fn tell(&self, owner: &Owner, bytes: u64) {
        self.begin_full(&owner.source);
        let (came, most) = (HumanBytes(bytes), HumanBytes(self.bytes_max as u64));
        let (peer, how) = (owner.peer, owner.way.words());
        let newest =
            format!("from {peer}, which sent {came} of it; {how} (unfinished_bytes_max = {most})");
        self.events.tallies().add(TallyKind::RecordGivenUp, &owner.source, 1, newest);
    }
}

/// Counts the memory of a record that was given up and waits to be written.
struct Leaving {
    bytes: usize,
    leaving: Arc<AtomicUsize>,
    account: Arc<MemoryBudget>,
}

impl Leaving {
    fn new(bytes: usize, leaving: &Arc<AtomicUsize>, account: &Arc<MemoryBudget>) -> Self {
        leaving.fetch_add(bytes, Ordering::SeqCst);
        account.change_unfinished(0, bytes);
        Leaving { bytes, leaving: Arc::clone(leaving), account: Arc::clone(account) }
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.leaving.fetch_sub(self.bytes, Ordering::SeqCst);
        self.account.change_unfinished(self.bytes, 0);
    }
}

/// The least memory of a record in the ledger: small, so that the others take at most half of what there is.
fn threshold(bytes_max: usize, connections_max: usize) -> usize {
    (bytes_max / 2 / connections_max.max(1)).clamp(SMALL_MIN, SMALL_MAX)
}
