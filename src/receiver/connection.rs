//! What sits behind the io seam: splits what a connection read into whole records and queues the ranges.
//!
//! ```text
//!  64 KiB buffer ─▶ splitter ─▶ joined record ─copy─▶ gather ─┐
//!                           └▶ big ranges ─freeze, no copy────┼─▶ range queue ─▶ generator
//!                           └▶ small ranges ─copy─▶ gather ───┘
//! ```
//! Runs on the io threads. A read of at least [`FREEZE_BYTES`] keeps its buffer; less is copied together, so that ten
//! bytes do not pin a buffer. What one turn gathered from all connections is one range. A connection without a partial
//! record owns no buffer. Nothing here knows sockets, blocks' numbers, jobs or sinks.

use std::collections::VecDeque;

use bytes::BytesMut;

use crate::block::Range;
use crate::framing::{Found, Framing, Splitter};
use crate::metrics::{Event, EventBus, ReceiverCounters};
use crate::receiver::arrivals::Arrivals;
use crate::receiver::generator::Generator;
use crate::receiver::io::{Closed, Flow, Host, Lane, Peer, Remote, Waker};
use crate::receiver::rate::RateLimiter;
use crate::slab::{Account, BUFFER_BYTES, Buffer};
use crate::sync::planted::{Planted, planted};
use crate::sync::{Arc, AtomicBool, Ordering, Signal};

/// Whole records of one buffer that are worth keeping in place, in bytes; less is copied together.
const FREEZE_BYTES: usize = BUFFER_BYTES / 4;

/// What the gathered copies are allocated in, in bytes.
const GATHER_BYTES: usize = BUFFER_BYTES;

/// What the lanes of one receiver share.
pub(crate) struct Intake {
    pub(crate) source: String,
    pub(crate) framing: Framing,
    pub(crate) record_bytes_max: usize,
    pub(crate) generator: Arc<Generator>,
    pub(crate) account: Arc<Account>,
    pub(crate) counters: Arc<ReceiverCounters>,
    pub(crate) events: EventBus,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) told_full: AtomicBool,
    /// The rate limit, if there is one.
    pub(crate) limiter: Option<Arc<RateLimiter>>,
    /// Counts what can be cut, if batches wait for records.
    pub(crate) arrivals: Option<Arc<Arrivals>>,
}

/// Who wants to know of connections: the receiver's supervisor. Called on io threads; it only posts.
pub(crate) trait Observer: Send + Sync {
    fn opened(&self, peer: Peer);
    fn closed(&self, peer: Peer, how: &Closed);
}

pub(crate) struct IntakeHost(pub(crate) Arc<Intake>);

impl Host for IntakeHost {
    type Lane = IntakeLane;

    fn lane(&self, waker: Waker) -> IntakeLane {
        let wakes = Signal::new();
        let (signal, io) = (wakes.clone(), waker);
        let number = self.0.generator.queue().register(Arc::new(move || {
            signal.raise();
            io();
        }));
        IntakeLane {
            intake: Arc::clone(&self.0),
            number,
            wakes,
            found: Found::default(),
            gather: BytesMut::new(),
            gathered: 0,
            backlog: VecDeque::new(),
        }
    }
}

/// The half of an io thread that knows records.
pub(crate) struct IntakeLane {
    intake: Arc<Intake>,
    number: u64,
    /// Raised with the io thread's waker; waited on only when the thread ends.
    wakes: Signal,
    found: Found,
    gather: BytesMut,
    gathered: u64,
    /// Ranges that the full queue refused: at most what one read brings, for then reading stops.
    backlog: VecDeque<Range>,
}

/// The state of one connection.
pub(crate) struct Session {
    splitter: Box<dyn Splitter>,
    peer: Peer,
}

impl Lane for IntakeLane {
    type Session = Session;

    fn ready(&mut self) -> bool {
        let room = self.send_all() && self.intake.generator.queue().has_room();
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

    fn open(&mut self, peer: Peer, _remote: Remote) -> Session {
        let intake = &self.intake;
        intake.counters.opened.add(1);
        intake.counters.open.add(1);
        intake.events.post(Event::Connected { source: intake.source.clone(), peer: peer.address });
        intake.observer.opened(peer);
        let max =
            if planted(Planted::RecordLimitOff) { usize::MAX } else { intake.record_bytes_max };
        Session { splitter: intake.framing.splitter(max), peer }
    }

    fn received(&mut self, session: &mut Session, buffer: &mut Buffer, len: usize) -> Flow {
        let mut found = std::mem::take(&mut self.found);
        found.clear();
        let outcome = session.splitter.feed(buffer.filled(len), &mut found);
        self.take(&found, buffer, len);
        if let Some(limiter) = &self.intake.limiter {
            limiter.take(found.records, len as u64);
        }
        self.found = found;
        match outcome {
            Ok(()) => Flow::Continue,
            Err(malformed) => {
                self.intake.counters.malformed.add(1);
                Flow::Close(malformed.0)
            }
        }
    }

    /// No framing of this version answers its peer.
    fn replies(&mut self, _session: &mut Session, _out: &mut Vec<u8>) {}

    fn closed(&mut self, mut session: Session, how: Closed) {
        let intake = Arc::clone(&self.intake);
        match &how {
            Closed::End | Closed::Reset(_) => {
                let mut found = std::mem::take(&mut self.found);
                found.clear();
                session.splitter.end(&mut found);
                self.copy_joined(&found);
                self.count(&found);
                self.found = found;
                // The observer may end the run on this, so the tail must be queued first.
                self.turn();
            }
            Closed::Stopped => {
                intake.counters.unfinished_bytes.add(session.splitter.pending() as u64)
            }
            Closed::Refused(_) => {}
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

    fn turn(&mut self) {
        self.flush_gathered();
        self.send_backlog();
    }

    fn finish(&mut self) {
        self.turn();
        while !self.send_all() {
            // The generator cuts until the io threads have ended, so room comes, and with it the wake-up.
            self.wakes.wait();
        }
    }
}

impl Drop for IntakeLane {
    fn drop(&mut self) {
        self.intake.generator.queue().forget(self.number);
    }
}

impl IntakeLane {
    /// Queues what one pass found, in order: the joined record, then the ranges.
    fn take(&mut self, found: &Found, buffer: &mut Buffer, len: usize) {
        self.count(found);
        self.copy_joined(found);
        let records = found.records - u64::from(!found.joined.is_empty());
        let whole: usize = found.ranges.iter().map(std::ops::Range::len).sum();
        if whole < FREEZE_BYTES {
            for range in &found.ranges {
                self.copy(&buffer.filled(len)[range.clone()]);
            }
            self.gathered += records;
            return;
        }
        self.flush_gathered();
        let bytes = buffer.freeze(len);
        for (range, records) in found.ranges.iter().zip(&found.range_records) {
            let bytes = bytes.slice(range.clone());
            self.queue(Range::new(bytes, *records));
        }
    }

    fn count(&self, found: &Found) {
        self.intake.counters.records.add(found.records);
        if found.overlong > 0 {
            self.intake.counters.overlong.add(found.overlong);
        }
    }

    fn copy_joined(&mut self, found: &Found) {
        if !found.joined.is_empty() {
            self.copy(&found.joined);
            self.gathered += 1;
        }
    }

    fn copy(&mut self, bytes: &[u8]) {
        if self.gather.len() + bytes.len() > GATHER_BYTES {
            self.flush_gathered();
        }
        if self.gather.capacity() - self.gather.len() < bytes.len() {
            self.gather.reserve(bytes.len().max(GATHER_BYTES));
        }
        self.gather.extend_from_slice(bytes);
    }

    fn flush_gathered(&mut self) {
        if !self.gather.is_empty() {
            let bytes = self.gather.split().freeze();
            let charge = Some(self.intake.account.charge(bytes.len()));
            let records = std::mem::take(&mut self.gathered);
            self.queue(Range { charge, ..Range::new(bytes, records) });
        }
    }

    fn queue(&mut self, range: Range) {
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
            // Asking is what marks this lane as starved: without it nobody would call the waker.
            if planted(Planted::BacklogAsksForNothing) || !self.intake.generator.queue().has_room()
            {
                return false;
            }
        }
    }

    fn send_backlog(&mut self) {
        while let Some(range) = self.backlog.pop_front() {
            let records = range.records;
            if let Err(range) = self.intake.generator.offer(range) {
                self.backlog.push_front(range);
                return;
            }
            if let Some(arrivals) = &self.intake.arrivals {
                arrivals.add(records);
            }
        }
    }

    fn paused(&self, queue_has_room: bool) {
        let intake = &self.intake;
        intake.counters.pauses.add(1);
        if queue_has_room && !intake.told_full.swap(true, Ordering::Relaxed) {
            let store_bytes_max = intake.account.max();
            intake.events.post(Event::StoreFull { source: intake.source.clone(), store_bytes_max });
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
