//! The replies of one connection, for every io model: what the socket has not taken yet, if the connection is read, and when it
//! ends. Used on the io thread of the connection.
//!
//! ```text
//!  Handler::replies ─fetch─▶ unsent ─write─▶ socket          until there are no more, or the socket takes no more
//!  unsent > reply_bytes_max | Held | peer closed ─▶ not read          all sent, and nothing due ─▶ the end
//! ```
//! The decisions are functions of the unsent bytes, of the peer's close and of the session's [`Disposition`]; the only io is a
//! write that does not block. It knows no poller and no ring: a model waits for room by its own means.

use std::io;

use super::{Disposition, Handler};

/// See the module.
pub(super) struct Replies {
    /// Reply bytes that the socket did not take yet.
    unsent: Vec<u8>,
    /// The most unsent bytes of a connection that is read.
    unsent_max: usize,
    /// The peer has closed: only replies are left to be sent.
    peer_closed: bool,
    /// The connection had its turn to be read and was not.
    passed_over: bool,
}

/// The state of a connection after its replies were sent, as far as the socket took them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AfterSend {
    /// It stays as it was.
    Unchanged,
    /// It was passed over, and is read again from now on.
    Resumes,
    /// Everything is sent and nothing is due: the connection ends.
    Ends,
}

impl Replies {
    /// Of a new connection, which is not read beyond `unsent_max` unsent bytes.
    pub(super) fn new(unsent_max: usize) -> Self {
        Replies { unsent: Vec::new(), unsent_max, peer_closed: false, passed_over: false }
    }

    /// Notes that the peer sends nothing more. It is still sent what it was promised.
    pub(super) fn peer_closed(&mut self) {
        self.peer_closed = true;
    }

    /// True while bytes wait for room in the socket.
    pub(super) fn are_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Returns true if the connection may be read now. If not, a later [`send`](Replies::send) returns
    /// [`AfterSend::Resumes`] once it may.
    pub(super) fn may_read(&mut self, disposition: Disposition) -> bool {
        self.passed_over = self.holds_reading(disposition);
        !self.passed_over
    }

    fn holds_reading(&self, disposition: Disposition) -> bool {
        let too_many = self.unsent.len() > self.unsent_max;
        too_many || self.peer_closed || disposition == Disposition::Held
    }

    /// Returns true if the peer is owed nothing, so that a stop need not wait for it.
    pub(super) fn are_settled(&self, disposition: Disposition) -> bool {
        self.unsent.is_empty() && !disposition.owes()
    }

    /// Returns true if the connection ends by itself. One that is [`Disposition::Closing`] ends although its peer is there.
    fn are_over(&self, disposition: Disposition) -> bool {
        let ends = self.peer_closed || disposition == Disposition::Closing;
        ends && self.are_settled(disposition)
    }

    /// Fetches the session's replies and sends them, until there are no more or the socket takes no more.
    ///
    /// # Errors
    /// If the connection is broken.
    pub(super) fn send<H: Handler>(
        &mut self,
        handler: &mut H,
        session: &mut H::Session,
        stream: &mut impl io::Write,
    ) -> io::Result<AfterSend> {
        loop {
            handler.replies(session, &mut self.unsent);
            if self.unsent.is_empty() {
                break;
            }
            send_some(stream, &mut self.unsent)?;
            if !self.unsent.is_empty() {
                break;
            }
        }
        let disposition = handler.disposition(session);
        if self.are_over(disposition) {
            return Ok(AfterSend::Ends);
        }
        let resumes = self.passed_over && !self.holds_reading(disposition);
        self.passed_over &= !resumes;
        Ok(if resumes { AfterSend::Resumes } else { AfterSend::Unchanged })
    }

    /// Makes one last attempt to send the unsent bytes and the session's farewell, before a stop closes the connection.
    pub(super) fn farewell<H: Handler>(
        &mut self,
        handler: &mut H,
        session: &mut H::Session,
        stream: &mut impl io::Write,
    ) {
        handler.farewell(session, &mut self.unsent);
        // The connection is closed even if the peer does not take it.
        let _ = send_some(stream, &mut self.unsent);
    }
}

/// Sends what it can of `unsent` without blocking; an error if the connection is broken.
fn send_some(stream: &mut impl io::Write, unsent: &mut Vec<u8>) -> io::Result<()> {
    let mut sent = 0;
    while sent < unsent.len() {
        match stream.write(&unsent[sent..]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => sent += count,
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => break,
            Err(err) => return Err(err),
        }
    }
    if sent < unsent.len() {
        unsent.drain(..sent);
        // Peers that do not read their replies cost no more than those.
        unsent.shrink_to_fit();
    } else {
        // A connection that owes nothing owns no buffer.
        *unsent = Vec::new();
    }
    Ok(())
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::AfterSend::{Ends, Resumes, Unchanged};
    use super::Disposition::{Closing, Held, Open, RepliesDue};
    use super::*;
    use crate::memory::buffer_pool::Buffer;
    use crate::source::io::{Closed, Flow, Peer, Remote};

    const UNSENT_MAX: usize = 4;

    /// A session whose replies and disposition the test sets.
    struct Session {
        outbox: &'static str,
        disposition: Disposition,
    }

    struct Script;

    impl Handler for Script {
        type Session = Session;

        fn ready(&mut self) -> bool {
            true
        }

        fn open(&mut self, _peer: Peer, _remote: Remote) -> Session {
            Session { outbox: "", disposition: Open }
        }

        fn received(&mut self, _session: &mut Session, _buffer: &mut Buffer, _len: usize) -> Flow {
            Flow::Continue
        }

        fn replies(&mut self, session: &mut Session, out: &mut Vec<u8>) {
            out.extend_from_slice(std::mem::take(&mut session.outbox).as_bytes());
        }

        fn disposition(&self, session: &Session) -> Disposition {
            session.disposition
        }

        fn farewell(&mut self, _session: &mut Session, out: &mut Vec<u8>) {
            out.extend_from_slice(b"bye");
        }

        fn closed(&mut self, _session: Session, _how: Closed) {}

        fn end_of_turn(&mut self) {}

        fn finish(&mut self) {}
    }

    /// A socket with room for this many bytes, two at a time; none if the peer has broken the connection.
    struct Socket {
        room: Option<usize>,
        taken: String,
    }

    impl io::Write for Socket {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let room = self.room.as_mut().ok_or(io::ErrorKind::ConnectionReset)?;
            let count = bytes.len().min(*room).min(2);
            if count == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            *room -= count;
            self.taken.push_str(std::str::from_utf8(&bytes[..count]).expect("the test's text"));
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A step of a case: what happens, or what is asked and the expected answer.
    enum Step {
        /// The session has a reply.
        Reply(&'static str),
        Becomes(Disposition),
        PeerCloses,
        /// The socket takes this many bytes more.
        Room(usize),
        Breaks,
        Send(AfterSend),
        SendFails,
        MayRead(bool),
        Settled(bool),
        Farewell,
        /// All that the socket took.
        Taken(&'static str),
    }

    fn check(steps: &[Step]) {
        let (mut replies, mut handler) = (Replies::new(UNSENT_MAX), Script);
        let mut session = Session { outbox: "", disposition: Open };
        let mut socket = Socket { room: Some(0), taken: String::new() };
        for (at, step) in steps.iter().enumerate() {
            let disposition = session.disposition;
            match *step {
                Step::Reply(text) => session.outbox = text,
                Step::Becomes(disposition) => session.disposition = disposition,
                Step::PeerCloses => replies.peer_closed(),
                Step::Room(room) => socket.room = Some(room),
                Step::Breaks => socket.room = None,
                Step::Send(expected) => {
                    let after = replies.send(&mut handler, &mut session, &mut socket);
                    assert_eq!(after.expect("it is not broken"), expected, "step {at}");
                }
                Step::SendFails => {
                    let after = replies.send(&mut handler, &mut session, &mut socket);
                    assert!(after.is_err(), "step {at}");
                }
                Step::MayRead(expected) => {
                    assert_eq!(replies.may_read(disposition), expected, "step {at}");
                }
                Step::Settled(expected) => {
                    assert_eq!(replies.are_settled(disposition), expected, "step {at}");
                    assert!(expected || replies.are_unsent() || disposition.owes(), "step {at}");
                }
                Step::Farewell => replies.farewell(&mut handler, &mut session, &mut socket),
                Step::Taken(expected) => assert_eq!(socket.taken, expected, "step {at}"),
            }
        }
    }

    use Step::{
        Becomes, Breaks, Farewell, MayRead, PeerCloses, Reply, Room, Send, SendFails, Settled,
        Taken,
    };

    #[test]
    fn replies_are_sent_in_order_as_far_as_the_socket_takes_them() {
        check(&[Send(Unchanged), Taken(""), Settled(true)]);
        check(&[Room(9), Reply("abc"), Send(Unchanged), Taken("abc"), Settled(true)]);
        check(&[Room(2), Reply("abc"), Send(Unchanged), Taken("ab"), Settled(false)]);
        check(&[
            Room(2),
            Reply("abc"),
            Send(Unchanged),
            Reply("d"),
            Room(9),
            Send(Unchanged),
            Taken("abcd"),
        ]);
        check(&[Breaks, Send(Unchanged), Reply("a"), SendFails, Settled(false)]);
    }

    #[test]
    fn beyond_the_bound_a_connection_is_not_read_until_enough_is_sent() {
        check(&[Reply("abcd"), Send(Unchanged), MayRead(true), Room(1), Send(Unchanged)]);
        check(&[
            Reply("abcde"),
            Send(Unchanged),
            MayRead(false),
            Send(Unchanged),
            Room(1),
            Send(Resumes),
        ]);
        // Nobody wanted to read it meanwhile, so nobody waits for it to resume; and one resumes once.
        check(&[Reply("abcde"), Send(Unchanged), Room(1), Send(Unchanged), MayRead(true)]);
        check(&[
            Reply("abcde"),
            Send(Unchanged),
            MayRead(false),
            Room(5),
            Send(Resumes),
            Send(Unchanged),
        ]);
    }

    #[test]
    fn a_held_session_is_not_read_until_it_is_held_no_more() {
        let becomes = |then| {
            check(&[
                Becomes(Held),
                MayRead(false),
                Send(Unchanged),
                Becomes(then),
                Send(Resumes),
                MayRead(true),
            ]);
        };
        becomes(Open);
        becomes(RepliesDue);
        check(&[Becomes(Held), MayRead(false), Becomes(Closing), Send(Ends)]);
        check(&[Becomes(Held), MayRead(false), PeerCloses, Becomes(RepliesDue), Send(Unchanged)]);
        // Held, and beyond the bound: both must be over.
        check(&[
            Becomes(Held),
            Reply("abcde"),
            Send(Unchanged),
            MayRead(false),
            Becomes(Open),
            Send(Unchanged),
            Room(1),
            Send(Resumes),
        ]);
    }

    #[test]
    fn a_connection_ends_when_its_disposition_lets_it_and_all_is_sent() {
        let ends = |peer_closes: bool, disposition, expected| {
            let close = || if peer_closes { PeerCloses } else { Room(0) };
            check(&[close(), Becomes(disposition), Send(expected)]);
            // Unsent bytes always keep it.
            check(&[
                close(),
                Becomes(disposition),
                Reply("a"),
                Send(Unchanged),
                Room(1),
                Send(expected),
            ]);
        };
        ends(false, Open, Unchanged);
        ends(false, RepliesDue, Unchanged);
        ends(false, Held, Unchanged);
        ends(false, Closing, Ends);
        ends(true, Open, Ends);
        ends(true, RepliesDue, Unchanged);
        ends(true, Held, Unchanged);
        ends(true, Closing, Ends);
        check(&[
            PeerCloses,
            MayRead(false),
            Becomes(RepliesDue),
            Send(Unchanged),
            Becomes(Open),
            Send(Ends),
        ]);
    }

    #[test]
    fn a_stop_waits_for_what_is_owed_and_says_farewell() {
        let settled = |disposition, expected| check(&[Becomes(disposition), Settled(expected)]);
        settled(Open, true);
        settled(RepliesDue, false);
        settled(Held, false);
        settled(Closing, true);
        check(&[Reply("abc"), Send(Unchanged), Settled(false), Room(9), Farewell, Taken("abcbye")]);
        check(&[Breaks, Farewell, Taken("")]);
    }
}
