//! The load's one thread, `load-0`: gathers the connections, sends what is due, and closes. It knows no command line.
//!
//! | phase | what moves in it | how it ends |
//! |---|---|---|
//! | gather | peers dial in or are dialled | all are there, or stop |
//! | serve | pieces go to those who can take one; peers are replaced | a limit, the file's end, a stop, all lost |
//! | finish | lines begun are finished, answers waited for, connections closed | see [`finish`] |
//!
//! What wakes it: sockets, a peer that dials in, the stop (all three through the poll), and the clock: through the
//! alarm while it waits for sockets, or directly while it waits for the next tick.

mod answers;
mod finish;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use mio::Waker;

use super::alarm::Alarm;
use super::cut::{FileLines, Lines};
use super::peers::{Peer, Peers};
use super::piece::{Body, Piece};
use super::room::Room;
use super::schedule::Pace;
use super::text::{Text, TextOptions};
use super::{Answers, End, Event, Framing, LoadOptions, Progress, Report, Target};
use crate::sync::{Arc, Mailbox, Poison, Signal, StopToken};
use crate::time::{Clock, Moment};
use crate::wording::{by_number, count};
use crate::{Error, Result};

/// The most bytes in a piece: one write's worth; larger ones bring nothing on loopback.
const PIECE_BYTES: usize = 256 << 10;

/// The least, however many connections share [`OWN_BYTES_MAX`].
const PIECE_BYTES_MIN: usize = 4 << 10;

/// Bytes in all pieces that have a buffer of their own, about: slow connections hold theirs.
const OWN_BYTES_MAX: usize = 64 << 20;

/// A paced piece holds at least this many lines, if they are due: dealing single lines to many connections costs more in
/// system calls than in lines.
const LINES_PER_PIECE_MIN: u64 = 32;

/// From this many bytes per second the text is kept in memory instead of made again.
const KEEP_TEXT_RATE: u64 = 8 << 20;

/// Pieces sent before it looks for a stop and for peers.
const PIECES_PER_TURN: usize = 16;

/// Waits shorter than this are waits for the clock alone: a hand-over from the alarm's thread would make a tick late.
const TICK_WAIT_MAX: Duration = Duration::from_millis(5);

/// A stamp: 19 digits and a space.
const STAMP_BYTES: usize = 20;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Server {
    options: LoadOptions,
    clock: Arc<dyn Clock>,
    stop: StopToken,
    /// Raised by a stop, for the waits on the clock.
    signal: Signal,
    alarm: Alarm,
    peers: Peers,
    lines: Lines,
    /// True if pieces are ranges of the text; otherwise they have buffers of their own.
    shares_text: bool,
    pace: Option<Pace>,
    /// Lines that may be dealt in all.
    lines_max: u64,
    /// Bytes that may be dealt in all.
    bytes_max: u64,
    piece_bytes: usize,
    /// Lines taken from the source so far; the next one's number.
    dealt: u64,
    dealt_bytes: u64,
    /// Nothing more will be dealt: no room in `bytes_max`, or no more lines.
    source_ended: bool,
    /// The pieces that broken connections did not get.
    returned: Vec<Piece>,
    /// Connections that have a piece now.
    busy: usize,
    spare: Vec<Vec<u8>>,
    start: Moment,
    /// The wall clock at the start, in nanoseconds since the epoch.
    start_wall: u64,
    end: Option<Moment>,
    /// When the last piece was sent or the last answer came.
    last_done: Moment,
    answers: Answers,
    behind: Duration,
    served: u64,
    lost: u64,
    /// The last accept failed, and this was told.
    refusing: bool,
    progress: Progress,
    events: Mailbox<Event>,
}

/// The lines that carry a stamp.
struct Stamps {
    /// The number of the first line at hand.
    first: u64,
    /// The distance of lines with a stamp.
    every: u64,
}

/// The result of sending to one connection.
enum Sent {
    /// It has nothing left to send.
    All,
    /// The kernel takes no more now.
    Blocked,
    /// The connection is broken.
    Lost(io::Error),
}

impl Server {
    /// Binds or resolves, opens the file, prepares the text; no connection is made yet.
    pub(super) fn open(
        options: LoadOptions,
        clock: Arc<dyn Clock>,
        poison: &Poison,
        stop: StopToken,
        events: Mailbox<Event>,
        progress: Progress,
    ) -> Result<Self> {
        let overhead = options.stamp.map_or(0, |_| STAMP_BYTES);
        let lines = match &options.file {
            Some(path) => Lines::File(FileLines::open(path, overhead)?),
            None => Lines::Text(Box::new(Text::new(text_options(&options, overhead)))),
        };
        let peers = Peers::open(&options)?;
        let waker = peers.waker();
        // Waking fails only when the poll is gone, and then nobody waits.
        let wake = move || drop(waker.wake());
        let alarm = Alarm::start(Arc::clone(&clock), poison, wake)
            .map_err(|err| Error::io("cannot start a thread", err))?;
        let signal = Signal::new();
        stop.wakes(&signal);
        let pace = options.rate.map(Pace::new);
        let within =
            pace.zip(options.limit.duration).map(|(pace, duration)| pace.lines_within(duration));
        let lines_max = options.limit.records.unwrap_or(u64::MAX).min(within.unwrap_or(u64::MAX));
        Ok(Server {
            shares_text: options.file.is_none()
                && options.stamp.is_none()
                && options.framing == Framing::Lines
                && keeps_text(&options),
            lines_max,
            bytes_max: options.limit.bytes.unwrap_or(u64::MAX),
            piece_bytes: (OWN_BYTES_MAX / options.connections).clamp(PIECE_BYTES_MIN, PIECE_BYTES),
            start: clock.now(),
            last_done: clock.now(),
            start_wall: 0,
            end: None,
            options,
            clock,
            stop,
            signal,
            alarm,
            peers,
            lines,
            pace,
            dealt: 0,
            dealt_bytes: 0,
            source_ended: false,
            returned: Vec::new(),
            busy: 0,
            spare: Vec::new(),
            answers: Answers::default(),
            behind: Duration::ZERO,
            served: 0,
            lost: 0,
            refusing: false,
            progress,
            events,
        })
    }

    pub(super) fn local_addrs(&self) -> &[SocketAddr] {
        self.peers.local_addrs()
    }

    pub(super) fn waker(&self) -> Arc<Waker> {
        self.peers.waker()
    }

    /// Runs all phases; returns when the load has ended.
    pub(super) fn run(mut self) -> Report {
        let end = self.gather_and_serve();
        let finished = self.finish(!matches!(end, Ok(End::Done)));
        let end = end.and_then(|end| finished.map(|()| end)).and_then(|end| self.judge(end));
        Report {
            lines: self.progress.lines(),
            bytes: self.progress.bytes(),
            answers: (self.options.framing != Framing::Lines).then_some(self.answers),
            seconds: self.last_done.since(self.start).as_secs_f64(),
            behind: self.behind,
            connections: self.served,
            lost: self.lost,
            end,
        }
    }

    /// A peer that was dialled and lost makes the end an error, even if the others took everything; so does a record that
    /// was not acknowledged.
    fn judge(&self, end: End) -> Result<End> {
        let dialled = matches!(self.options.target, Target::Connect(_));
        if end == End::Done && dialled && self.lost > 0 {
            return Err(Error::Failed(format!(
                "{} of {} closed before the end",
                self.lost,
                count(self.served, "peer")
            )));
        }
        let Answers { refused, unanswered, .. } = self.answers;
        if end == End::Done && (refused, unanswered) != (0, 0) {
            return Err(Error::Failed(format!(
                "of the records {refused} were refused, {unanswered} not answered"
            )));
        }
        Ok(end)
    }

    fn gather_and_serve(&mut self) -> Result<End> {
        while !self.peers.is_complete() {
            if self.stop.is_stopped() {
                return Ok(End::Stopped);
            }
            if self.peers.is_listening() {
                self.accept();
                if !self.peers.is_complete() {
                    self.peers.wait(None)?;
                }
            } else {
                let addr = self.peers.dial_one()?;
                self.tell(Event::Connected(addr));
            }
        }
        self.served = self.peers.live() as u64;
        // With RELP each has its offers to send.
        self.busy = self.peers.all().filter(|peer| peer.piece.is_some()).count();
        self.start = self.clock.now();
        self.last_done = self.start;
        self.start_wall = u64::try_from(self.clock.wall().as_nanos()).unwrap_or(u64::MAX);
        self.end = self.options.limit.duration.map(|duration| self.start.plus(duration));
        self.tell(Event::Started { connections: self.peers.live(), idle: self.peers.idle() });
        let end = self.serve();
        self.note_what_is_late();
        end
    }

    /// At the end: what was due and is not sent counts as late, too.
    fn note_what_is_late(&mut self) {
        let now = self.clock.now();
        let mut oldest =
            self.peers.all().filter_map(|peer| peer.piece.as_ref()).map(|piece| piece.due).min();
        oldest = self.returned.iter().map(|piece| piece.due).chain(oldest).min();
        if !self.all_dealt() && self.allowed(now) > self.dealt {
            let next = self.pace.map_or(0, |pace| pace.due_nanos(self.dealt));
            oldest = Some(oldest.map_or(next, |oldest| oldest.min(next)));
        }
        if let Some(due) = oldest {
            self.note_behind(due, now);
        }
    }

    fn all_dealt(&self) -> bool {
        self.source_ended || self.dealt >= self.lines_max
    }

    fn serve(&mut self) -> Result<End> {
        loop {
            if self.stop.is_stopped() {
                return Ok(End::Stopped);
            }
            let before = self.clock.now();
            self.send_turn()?;
            if self.all_dealt() && self.busy == 0 && self.returned.is_empty() {
                return Ok(End::Done);
            }
            if self.end.is_some_and(|end| before >= end) {
                return Ok(End::Done);
            }
            if self.peers.live() == 0 && !self.peers.is_listening() {
                return Err(Error::Failed(format!(
                    "{} closed before the end",
                    by_number(self.served, "the peer", &format!("all {} peers", self.served))
                )));
            }
            // A slot may have become free for someone who waits in the listen queue since long.
            self.accept();
            self.wait()?;
        }
    }

    /// Waits for whatever comes first of what could let it send more, or end.
    fn wait(&mut self) -> Result<()> {
        let now = self.clock.now();
        let next = if self.peers.has_ready() { self.next_due(now) } else { None };
        let next = [next, self.end].into_iter().flatten().min();
        match next {
            Some(next) if self.peers.has_ready() && next.since(now) <= TICK_WAIT_MAX => {
                if next > now {
                    self.clock.wait(&self.signal, Some(next));
                }
                self.peers.wait(Some(Duration::ZERO))
            }
            // Everyone is slow, nobody is there, or nothing is due for long: sockets, a stop or the alarm wake it.
            _ => {
                self.alarm.set(next);
                self.peers.wait(None)
            }
        }
    }

    /// When there will be something to deal; none if everything was dealt.
    fn next_due(&self, now: Moment) -> Option<Moment> {
        if !self.returned.is_empty() {
            return Some(now);
        }
        if self.all_dealt() {
            return None;
        }
        let tick = |pace: Pace| self.start.plus(Duration::from_nanos(pace.wake_nanos(self.dealt)));
        Some(self.pace.filter(|_| self.allowed(now) <= self.dealt).map_or(now, tick))
    }

    /// Goes on with what was begun, then deals new pieces to those whose turn it is.
    fn send_turn(&mut self) -> Result<()> {
        self.hear_answers();
        while let Some(slot) = self.peers.next_resumable() {
            self.send_to(slot);
        }
        for _ in 0..PIECES_PER_TURN {
            let Some(slot) = self.peers.next_ready() else { break };
            let Some(piece) = self.next_piece(slot)? else {
                self.peers.keep_turn(slot);
                break;
            };
            if let Some(peer) = self.peers.peer(slot) {
                peer.piece = Some(piece);
                self.busy += 1;
                self.send_to(slot);
            }
        }
        Ok(())
    }

    fn send_to(&mut self, slot: usize) {
        let Some(peer) = self.peers.peer(slot) else { return };
        match write_piece(peer, self.lines.bytes(), &self.progress) {
            Sent::All => {
                let piece = peer.piece.take();
                self.peers.requeue(slot);
                self.piece_done(piece);
            }
            Sent::Blocked => {}
            Sent::Lost(err) => self.lose(slot, err),
        }
    }

    fn piece_done(&mut self, piece: Option<Piece>) {
        let Some(piece) = piece else { return };
        self.busy -= 1;
        self.progress.add(piece.lines(), 0);
        self.last_done = self.clock.now();
        self.note_behind(piece.due, self.last_done);
        self.spare.extend(piece.into_buffer());
    }

    fn note_behind(&mut self, due_nanos: u64, now: Moment) {
        if self.pace.is_some() {
            let due = self.start.plus(Duration::from_nanos(due_nanos));
            self.behind = self.behind.max(now.since(due));
        }
    }

    /// Takes a broken connection out; what it did not get goes to others, but for frames of RELP.
    fn lose(&mut self, slot: usize, err: io::Error) {
        let Some(mut peer) = self.peers.remove(slot) else { return };
        self.lost += 1;
        if let Some(mut piece) = peer.piece.take() {
            self.busy -= 1;
            let part = piece.rewind(self.lines.bytes());
            self.progress.add(part.lines, 0);
            match &mut peer.session {
                // Its frames are numbered for this connection: they are not sent to another.
                Some(session) => session.withdraw(piece.lines()),
                None if piece.rest(self.lines.bytes()).is_empty() => {}
                None => self.returned.push(piece),
            }
        }
        self.answers.unanswered +=
            peer.session.as_ref().map_or(0, |session| session.unanswered() as u64);
        let error = Error::io(format!("the peer {} is gone", peer.addr), err);
        self.tell(Event::PeerLost { peer: peer.addr, error });
    }

    /// The lines that may have been dealt by now.
    fn allowed(&self, now: Moment) -> u64 {
        let is_over = self.end.is_some_and(|end| now >= end);
        match self.pace {
            // The last lines were due after the last tick and before the end.
            Some(_) if is_over => self.lines_max,
            Some(pace) => pace.due_lines(self.elapsed(now)).min(self.lines_max),
            None if is_over => self.dealt,
            None => self.lines_max,
        }
    }

    /// Nanoseconds since the start.
    fn elapsed(&self, now: Moment) -> u64 {
        u64::try_from(now.since(self.start).as_nanos()).unwrap_or(u64::MAX)
    }

    /// The next piece for this connection, if anything is due.
    fn next_piece(&mut self, slot: usize) -> Result<Option<Piece>> {
        if let Some(piece) = self.returned.pop() {
            return Ok(Some(piece));
        }
        let now = self.clock.now();
        let mut lines = self.allowed(now).saturating_sub(self.dealt);
        if lines == 0 || self.source_ended {
            return Ok(None);
        }
        if self.pace.is_some() {
            let share = lines.div_ceil(self.peers.live().max(1) as u64);
            lines = lines.min(share.max(LINES_PER_PIECE_MIN));
        }
        lines = lines.min(self.peers.peer(slot).map_or(0, |peer| peer.room()));
        let hard_bytes = self.bytes_max.saturating_sub(self.dealt_bytes);
        let cut =
            self.lines.cut(Room { lines, soft_bytes: self.piece_bytes as u64, hard_bytes })?;
        if cut.lines == 0 {
            self.source_ended = true;
            return Ok(None);
        }
        let elapsed = self.elapsed(now);
        let due = self.pace.map_or(elapsed, |pace| pace.due_nanos(self.dealt));
        let body = self.body(slot, cut.range, elapsed);
        self.dealt += cut.lines;
        Ok(Some(Piece::new(body, cut.lines, due)))
    }

    /// The cut in the form that this connection is sent.
    fn body(&mut self, slot: usize, cut: Range<usize>, elapsed: u64) -> Body {
        if self.shares_text {
            self.dealt_bytes += cut.len() as u64;
            return Body::Text(cut);
        }
        let mut buffer = empty(&mut self.spare);
        let bytes = &self.lines.bytes()[cut];
        match self.options.stamp {
            Some(every) => {
                let stamps = Stamps { first: self.dealt, every };
                self.stamp(&mut buffer, bytes, &stamps, elapsed);
            }
            None => buffer.extend_from_slice(bytes),
        }
        self.dealt_bytes += buffer.len() as u64;
        let Some(session) = self.peers.peer(slot).and_then(|peer| peer.session.as_mut()) else {
            return Body::Own(buffer);
        };
        let mut frames = empty(&mut self.spare);
        session.push_lines(&buffer, &mut frames);
        self.spare.push(buffer);
        Body::Own(frames)
    }

    /// Copies lines from number `first` on, every `stamps.every`th with the time at which it should be sent before it; without a
    /// rate that is now.
    fn stamp(&self, buffer: &mut Vec<u8>, lines: &[u8], stamps: &Stamps, elapsed: u64) {
        let Stamps { first, every } = *stamps;
        let (mut number, mut rest) = (first, lines);
        while !rest.is_empty() {
            let plain = number.next_multiple_of(every) - number;
            let (before, from) = rest.split_at(after_lines(rest, plain));
            buffer.extend_from_slice(before);
            if from.is_empty() {
                break;
            }
            number += plain;
            let due = self.pace.map_or(elapsed, |pace| pace.due_nanos(number));
            push_stamp(buffer, self.start_wall.saturating_add(due));
            let (line, behind) = from.split_at(after_lines(from, 1));
            buffer.extend_from_slice(line);
            (number, rest) = (number + 1, behind);
        }
    }

    fn accept(&mut self) {
        let (events, served, refusing) = (&self.events, &mut self.served, &mut self.refusing);
        self.peers.accept_waiting(|accepted| {
            let again = std::mem::replace(refusing, accepted.is_err()) && *refusing;
            let event = match accepted {
                Ok(addr) => {
                    *served += 1;
                    Event::Connected(addr)
                }
                Err(_) if again => return,
                Err(error) => Event::NotAccepted(error),
            };
            // Nobody looking is no reason to stop.
            let _ = events.try_send(event);
        });
    }

    fn tell(&self, event: Event) {
        // Nobody looking is no reason to stop.
        let _ = self.events.try_send(event);
    }
}

/// Writes until the piece is sent or the kernel takes no more.
fn write_piece(peer: &mut Peer, text: &[u8], progress: &Progress) -> Sent {
    let Some(piece) = &mut peer.piece else { return Sent::All };
    loop {
        let rest = piece.rest(text);
        if rest.is_empty() {
            return Sent::All;
        }
        match peer.stream.write(rest) {
            Ok(0) => return Sent::Lost(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                piece.advance(written);
                progress.add(0, written as u64);
            }
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => return Sent::Blocked,
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return Sent::Lost(err),
        }
    }
}

/// One of the buffers that were used before, or a new one.
fn empty(spare: &mut Vec<Vec<u8>>) -> Vec<u8> {
    let mut buffer = spare.pop().unwrap_or_default();
    buffer.clear();
    buffer
}

/// The end of this many lines of the text, or of all of it.
fn after_lines(text: &[u8], lines: u64) -> usize {
    let Some(last) = lines.checked_sub(1) else { return 0 };
    let last = usize::try_from(last).unwrap_or(usize::MAX);
    memchr::memchr_iter(b'\n', text).nth(last).map_or(text.len(), |at| at + 1)
}

/// Appends nanoseconds in 19 digits and a space.
fn push_stamp(buffer: &mut Vec<u8>, nanos: u64) {
    let mut digits = [b' '; STAMP_BYTES];
    let mut rest = nanos;
    for digit in digits[..STAMP_BYTES - 1].iter_mut().rev() {
        *digit = b'0' + u8::try_from(rest % 10).expect("one digit");
        rest /= 10;
    }
    buffer.extend_from_slice(&digits);
}

/// True if this load is fast enough to keep a period of its text in memory.
fn keeps_text(options: &LoadOptions) -> bool {
    options.rate.is_none_or(|rate| rate.saturating_mul(options.line_len as u64) >= KEEP_TEXT_RATE)
}

fn text_options(options: &LoadOptions, overhead: usize) -> TextOptions {
    let counted = if options.stamp == Some(1) { overhead } else { 0 };
    TextOptions {
        seed: options.seed,
        line_len: options.line_len.saturating_sub(counted).max(2),
        words: options.words,
        keep: keeps_text(options),
        overhead,
    }
}
