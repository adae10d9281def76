//! The handler behind the io seam: splits the bytes of a connection into whole records and queues the ranges.
//!
//! ```text
//!  64 KiB buffer ─▶ splitter ─▶ joined record ─copy─▶ RecordBuffer ─┐
//!                           └▶ big ranges ─freeze, no copy──────────┼─▶ range queue ─▶ block cutter
//!                           └▶ small ranges ─copy─▶ RecordBuffer ───┘
//! ```
//! Runs on the io threads. A read of at least [`FREEZE_BYTES`] keeps its buffer; less is copied together, so that ten bytes do
//! not pin a buffer. The records that one turn gathered from all connections are one range. A connection without a partial record
//! owns no buffer. Nothing here knows sockets, blocks' numbers, jobs or sinks.

use std::collections::VecDeque;

use crate::blocks::Range;
use crate::framing::{Found, Framing, Splitter};
use crate::memory::budget::MemoryBudget;
use crate::memory::buffer_pool::{BUFFER_BYTES, Buffer, Pool};
use crate::metrics::{Event, EventBus, ReceiverCounters, TallyKind};
use crate::source::ingest::backlog_trigger::BacklogTrigger;
use crate::source::ingest::block_cutter::BlockCutter;
use crate::source::ingest::rate_limit::RateLimiter;
use crate::source::ingest::record_buffer::RecordBuffer;
use crate::source::io::{Closed, Disposition, Flow, Handler, HandlerFactory, Peer, Remote, Waker};
use crate::source::pause::Pause;
use crate::source::socket::acks::Acks;
use crate::source::socket::oversized::OversizedStore;
use crate::source::socket::unfinished::{Owner, OwnerOptions, Unfinished, UnfinishedRecord, Way};
use crate::sync::planted::{Planted, planted};
use crate::sync::{Arc, AtomicUsize, Ordering, Signal};
use crate::time::{Clock, Moment};

/// Whole records of one buffer that are worth keeping in place, in bytes; less is copied together.
const FREEZE_BYTES: usize = BUFFER_BYTES / 4;

/// State that the handlers of one receiver share.
pub(crate) struct Intake {
    pub(crate) source: String,
    pub(crate) framing: Framing,
    pub(crate) ack: AckAt,
    pub(crate) record_bytes_max: usize,
    pub(crate) cutter: Arc<BlockCutter>,
    pub(crate) account: Arc<MemoryBudget>,
    pub(crate) counters: Arc<ReceiverCounters>,
    pub(crate) events: EventBus,
    pub(crate) observer: Arc<dyn Observer>,
    /// Reports that the full store stops the reading.
    pub(crate) pause: Arc<Pause>,
    /// The rate limit, if there is one.
    pub(crate) limiter: Option<Arc<RateLimiter>>,
    /// Counts records that can be cut, if batches wait for records.
    pub(crate) arrivals: Option<Arc<BacklogTrigger>>,
    /// The store of whole over-long records, if the framing acknowledges and there is one.
    pub(crate) asides: Option<Arc<OversizedStore>>,
    /// The unfinished records of all sources.
    pub(crate) unfinished: Arc<Unfinished>,
    /// The pool of the read buffers.
    pub(crate) pool: Arc<Pool>,
    /// The handlers that may still hand something over.
    pub(crate) handing: Handing,
}

/// The moment at which a record is acknowledged to its peer, if the framing acknowledges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AckAt {
    /// Once it is queued for the next block.
    Queued,
    /// Once the log that holds it was synced.
    Durable,
    /// Once its batch is committed.
    Committed,
}

/// Counts the handlers that have not handed everything over yet.
#[derive(Clone, Default)]
pub(crate) struct Handing {
    handlers: Arc<AtomicUsize>,
    less: Signal,
}

impl Handing {
    /// Waits until every handler has handed everything over, or until the deadline; returns the number of those that have not.
    pub(crate) fn wait(&self, clock: &dyn Clock, deadline: Moment) -> usize {
        loop {
            let handlers = self.handlers.load(Ordering::SeqCst);
            if handlers == 0 || clock.now() >= deadline {
                return handlers;
            }
            clock.wait(&self.less, Some(deadline));
        }
    }
}

/// Observes connections: the receiver's supervisor. Called on io threads; it only posts.
pub(crate) trait Observer: Send + Sync {
    fn opened(&self, peer: Peer);
    fn closed(&self, peer: Peer, how: &Closed);
}

pub(crate) struct IntakeHandlers(pub(crate) Arc<Intake>);

impl HandlerFactory for IntakeHandlers {
    type Handler = IntakeHandler;

    fn handler(&self, waker: Waker) -> IntakeHandler {
        let wakes = Signal::new();
        let (signal, io) = (wakes.clone(), waker);
        let number = self.0.cutter.queue().register(Arc::new(move || {
            signal.raise();
            io();
        }));
        self.0.handing.handlers.fetch_add(1, Ordering::SeqCst);
        IntakeHandler {
            intake: Arc::clone(&self.0),
            number,
            wakes,
            handed_over: false,
            found: Found::default(),
            gathered: RecordBuffer::default(),
            backlog: VecDeque::new(),
        }
    }
}

/// The half of an io thread that knows records.
pub(crate) struct IntakeHandler {
    intake: Arc<Intake>,
    number: u64,
    /// Raised with the io thread's waker; waited on only when the thread ends.
    wakes: Signal,
    /// It has announced that nothing more comes from it.
    handed_over: bool,
    found: Found,
    /// Short ranges of all connections since the last end of a turn.
    gathered: RecordBuffer,
    /// Ranges that the full queue refused: at most those of one read, for then reading stops.
    backlog: VecDeque<Range>,
}

/// The state of one connection.
pub(crate) struct Session {
    splitter: Box<dyn Splitter>,
    peer: Peer,
    /// The acknowledgements that the peer is owed, if the framing acknowledges.
    answers: Option<Box<Acks>>,
    unfinished: UnfinishedRecord,
}

impl Handler for IntakeHandler {
    type Session = Session;

    fn ready(&mut self) -> bool {
        let room = self.send_all() && self.intake.cutter.queue().has_room();
        let counters = &self.intake.counters;
        let ready = room
            && self.intake.account.has_room()
            && !(planted(Planted::HonestStarved)
                && counters.refused.value() + counters.malformed.value() > 0);
        if !ready {
            self.paused(room);
        }
        ready && self.intake.limiter.as_ref().is_none_or(|limiter| limiter.is_ready())
    }

    fn read_max(&mut self) -> usize {
        self.intake.limiter.as_ref().map_or(usize::MAX, |limiter| limiter.read_max())
    }

    fn open(&mut self, peer: Peer, remote: Remote) -> Session {
        let intake = &self.intake;
        intake.counters.opened.add(1);
        intake.counters.open.add(1);
        intake.events.post(Event::Connected { source: intake.source.clone(), peer: peer.address });
        intake.observer.opened(peer);
        let max =
            if planted(Planted::RecordLimitOff) { usize::MAX } else { intake.record_bytes_max };
        let acknowledges = intake.framing.acknowledges();
        let answers = acknowledges.then(|| Box::new(Acks::new(remote)));
        let splitter = match intake.asides {
            Some(_) => intake.framing.splitter_putting_aside(max),
            None => intake.framing.splitter(max),
        };
        Session { splitter, peer, answers, unfinished: UnfinishedRecord::default() }
    }

    fn received(&mut self, session: &mut Session, buffer: &mut Buffer, len: usize) -> Flow {
        if session.unfinished.is_parked()
            && let Err(why) = self.resume(session)
        {
            return Flow::Close(why);
        }
        let mut found = std::mem::take(&mut self.found);
        found.clear();
        let outcome = session.splitter.feed(buffer.filled(len), &mut found);
        let answers = session.answers.as_mut();
        let noted = answers.map_or(Ok(()), |answers| self.note(answers, &mut found));
        self.count(&found, session.peer);
        self.take(&mut found, buffer, len, session.answers.as_deref_mut());
        self.note_unfinished(session);
        if let Some(limiter) = &self.intake.limiter {
            limiter.take(found.records, len as u64);
        }
        self.found = found;
        match outcome.map_err(|malformed| malformed.0).and(noted) {
            Ok(()) => Flow::Continue,
            Err(why) => {
                self.intake.counters.malformed.add(1);
                self.tally(
                    TallyKind::FrameMalformed,
                    1,
                    format!("{} ({why})", session.peer.address),
                );
                Flow::Close(why)
            }
        }
    }

    fn replies(&mut self, session: &mut Session, out: &mut Vec<u8>) {
        if let Some(answers) = &mut session.answers {
            answers.fetch(out);
        }
    }

    fn disposition(&self, session: &Session) -> Disposition {
        let Some(answers) = &session.answers else { return Disposition::Open };
        match answers.disposition() {
            Disposition::Open if session.unfinished.is_closing() => Disposition::Closing,
            disposition => disposition,
        }
    }

    fn idle(&mut self) {
        self.gathered.release_below(BUFFER_BYTES - FREEZE_BYTES);
        self.found.shrink();
    }

    fn farewell(&mut self, session: &mut Session, out: &mut Vec<u8>) {
        if let Some(answers) = &mut session.answers {
            answers.farewell(out);
        }
    }

    fn closed(&mut self, mut session: Session, how: Closed) {
        let intake = Arc::clone(&self.intake);
        let resumed = self.resume(&mut session);
        session.unfinished.release(&intake.unfinished);
        let how = match (resumed, how) {
            (Err(why), Closed::End) => Closed::Refused(why),
            (_, how) => how,
        };
        match &how {
            Closed::End | Closed::Reset(_) => {
                let mut found = std::mem::take(&mut self.found);
                found.clear();
                session.splitter.end(&mut found);
                self.take_joined(&mut found, session.answers.as_deref_mut());
                self.count(&found, session.peer);
                if matches!(how, Closed::Reset(_)) && found.records > 0 {
                    self.count_broken_off(found.records, session.peer);
                }
                self.found = found;
                // The observer may end the run on this, so the tail must be queued first.
                self.end_of_turn();
            }
            Closed::Stopped | Closed::Refused(_) => {}
        }
        // Records that a stop drops stay counted for its report.
        if !matches!(how, Closed::Stopped) {
            session.unfinished.ended(&intake.counters);
        }
        if matches!(how, Closed::Reset(_)) {
            intake.counters.resets.add(1);
        }
        intake.counters.open.sub(1);
        let why = describe(&how);
        intake.events.post(Event::Disconnected {
            source: intake.source.clone(),
            peer: session.peer.address,
            why,
        });
        intake.observer.closed(session.peer, &how);
    }

    fn end_of_turn(&mut self) {
        self.flush_gathered();
        self.send_backlog();
    }

    fn finish(&mut self) {
        self.end_of_turn();
        while !self.send_all() {
            // The cutter cuts until the handlers have handed everything over, so room comes, and with it the wake-up.
            self.wakes.wait();
        }
        self.has_handed_over();
    }
}

impl Drop for IntakeHandler {
    fn drop(&mut self) {
        self.has_handed_over();
        self.intake.cutter.queue().forget(self.number);
    }
}

impl IntakeHandler {
    /// Queues the findings of one pass, in order: the joined record, then the ranges, and the spliced records among them.
    fn take(
        &mut self,
        found: &mut Found,
        buffer: &mut Buffer,
        len: usize,
        mut answers: Option<&mut Acks>,
    ) {
        self.take_joined(found, answers.as_deref_mut());
        let whole: usize = found.ranges.iter().map(std::ops::Range::len).sum();
        let frozen = (whole >= FREEZE_BYTES).then(|| {
            self.flush_gathered();
            buffer.freeze(len)
        });
        let mut spliced = found.spliced.iter().peekable();
        for (index, (range, &records)) in found.ranges.iter().zip(&found.range_records).enumerate()
        {
            while let Some((_, record)) = spliced.next_if(|(before, _)| *before <= index) {
                self.copy(record, 1, answers.as_deref_mut());
            }
            match &frozen {
                None => {
                    let bytes = &buffer.filled(len)[range.clone()];
                    self.copy(bytes, records, answers.as_deref_mut());
                }
                Some(bytes) => {
                    self.flush_gathered();
                    let mut queued = Range::new(bytes.slice(range.clone()), records);
                    if let Some(answers) = answers.as_deref_mut() {
                        answers.add_receipt(records, &mut queued.receipts);
                    }
                    self.queue(queued);
                }
            }
        }
        for (_, record) in spliced {
            self.copy(record, 1, answers.as_deref_mut());
        }
    }

    /// Notes the answers that the peer is owed for one piece, and puts over-long records aside.
    fn note(&self, answers: &mut Acks, found: &mut Found) -> Result<(), String> {
        if let Some(asides) = &self.intake.asides {
            answers.put_aside(std::mem::take(&mut found.aside), asides);
        }
        answers.note(found)
    }

    fn count(&self, found: &Found, peer: Peer) {
        self.intake.counters.records.add(found.records);
        if found.overlong > 0 || found.truncated > 0 {
            self.count_lost(found, peer);
        }
    }

    fn count_lost(&self, found: &Found, peer: Peer) {
        let (counters, from, max) =
            (&self.intake.counters, peer.address, self.intake.record_bytes_max);
        let became = match (&self.intake.asides, self.intake.framing.acknowledges()) {
            // Counted when they are safe.
            (Some(_), true) => "put aside",
            (None, true) => {
                counters.truncated.add(found.overlong);
                "shortened"
            }
            (_, false) => {
                counters.overlong.add(found.overlong);
                "dropped"
            }
        };
        if found.overlong > 0 {
            let newest = format!("from {from} (record_bytes_max = {max}), {became}");
            self.tally(TallyKind::RecordOverlong, found.overlong, newest);
        }
        if found.truncated > 0 {
            counters.cut_off.add(found.truncated);
            let newest = format!("from {from}, which closed in the middle of it");
            self.tally(TallyKind::RecordCutOff, found.truncated, newest);
        }
    }

    /// Counts records without an end because their connection broke: nobody knows if they are whole, so they are kept and
    /// reported.
    fn count_broken_off(&self, records: u64, peer: Peer) {
        self.intake.counters.broken_off.add(records);
        let newest = format!("from {}, kept as far as it came", peer.address);
        self.tally(TallyKind::RecordBrokenOff, records, newest);
    }

    fn tally(&self, kind: TallyKind, count: u64, newest: String) {
        self.intake.events.tallies().add(kind, &self.intake.source, count, newest);
    }

    /// A long record stays where it lies; a short one is copied together with others.
    fn take_joined(&mut self, found: &mut Found, answers: Option<&mut Acks>) {
        match found.joined.len() {
            0 => {}
            1..FREEZE_BYTES => self.copy(&found.joined, 1, answers),
            _ => {
                self.flush_gathered();
                let record = std::mem::take(&mut found.joined);
                let charge = Some(self.intake.account.charge(record.capacity()));
                let mut range = Range { charge, ..Range::new(record.into(), 1) };
                if let Some(answers) = answers {
                    answers.add_receipt(1, &mut range.receipts);
                }
                self.queue(range);
            }
        }
    }

    /// Takes a long unfinished record back before its next piece.
    fn resume(&self, session: &mut Session) -> Result<(), String> {
        let Session { splitter, unfinished, .. } = session;
        unfinished.resume(splitter.as_mut(), &self.intake.unfinished)
    }

    /// Counts the bytes that the connection holds of an unfinished record.
    fn note_unfinished(&self, session: &mut Session) {
        let Session { splitter, peer, answers, unfinished } = session;
        let intake = &self.intake;
        unfinished.count(splitter.pending(), &intake.counters);
        unfinished.note(splitter.as_mut(), &intake.unfinished, || {
            let remote = answers.as_ref().map(|answers| answers.remote());
            let way = match (&intake.asides, answers) {
                (Some(asides), Some(answers)) => Way::PutAside(answers.putting(asides)),
                (None, Some(_)) => Way::Close,
                (_, None) => Way::Drop,
            };
            Owner::new(OwnerOptions {
                source: &intake.source,
                peer: peer.address,
                counters: &intake.counters,
                way,
                remote,
            })
        });
    }

    /// Gathers this many whole records.
    fn copy(&mut self, bytes: &[u8], records: u64, answers: Option<&mut Acks>) {
        if !self.gathered.has_room_for(bytes.len()) {
            self.flush_gathered();
        }
        self.gathered.append(&[bytes], records);
        if let Some(answers) = answers {
            answers.add_receipt(records, &mut self.gathered.receipts);
        }
    }

    fn flush_gathered(&mut self) {
        if let Some(range) = self.gathered.take(&self.intake.account) {
            self.intake.pool.shed();
            self.queue(range);
        }
    }

    fn queue(&mut self, mut range: Range) {
        if self.intake.ack == AckAt::Committed {
            range.receipts_at_commit = std::mem::take(&mut range.receipts);
        }
        self.backlog.push_back(range);
        self.send_backlog();
    }

    /// Queues the backlog; false if the queue stays full, and then the waker is called once it has room.
    fn send_all(&mut self) -> bool {
        loop {
            self.send_backlog();
            if self.backlog.is_empty() {
                return true;
            }
            // Asking is what marks this handler as starved: without it nobody would call the waker.
            if planted(Planted::BacklogAsksForNothing) || !self.intake.cutter.queue().has_room() {
                return false;
            }
        }
    }

    fn send_backlog(&mut self) {
        while let Some(mut range) = self.backlog.pop_front() {
            let records = range.records;
            let receipts = match self.intake.ack {
                AckAt::Queued => std::mem::take(&mut range.receipts),
                AckAt::Durable | AckAt::Committed => Vec::new(),
            };
            if let Err(range) = self.intake.cutter.offer(range) {
                let receipts = if receipts.is_empty() { range.receipts } else { receipts };
                self.backlog.push_front(Range { receipts, ..range });
                return;
            }
            receipts.iter().for_each(|receipt| receipt.to.acknowledge(receipt.upto));
            if let Some(arrivals) = &self.intake.arrivals {
                arrivals.add(records);
            }
        }
    }

    /// Announces once that nothing more comes from this handler.
    fn has_handed_over(&mut self) {
        if !std::mem::replace(&mut self.handed_over, true) {
            self.intake.handing.handlers.fetch_sub(1, Ordering::SeqCst);
            self.intake.handing.less.raise();
        }
    }

    fn paused(&self, queue_has_room: bool) {
        let intake = &self.intake;
        intake.counters.pauses.add(1);
        if queue_has_room {
            intake.pause.store_is_full(&intake.account);
        }
    }
}

fn describe(how: &Closed) -> String {
    match how {
        Closed::End => "closed by the peer".to_owned(),
        Closed::Reset(err) => format!("broken: {err}"),
        Closed::Refused(why) => format!("closed by us: {why}"),
        Closed::Stopped => "closed by the stop".to_owned(),
    }
}
