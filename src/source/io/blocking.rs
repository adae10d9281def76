//! Reads one connection on the calling thread: `bio` does so on a thread for each, and `pool` on a few in turn.
//!
//! A thread blocks in poll(2) on its socket and its bell, not in recv(2): so the stop, a resume and another thread's wish for
//! replies reach it, and it holds no buffer while it waits.

use std::io;
use std::net::TcpStream;
use std::os::fd::AsFd;

use rustix::event::PollFlags;

use crate::memory::buffer_pool::Pool;
use crate::metrics::ReceiverCounters;
use crate::sync::{Arc, AtomicBool, Ordering};

use super::accept::{Bell, Seat, close, wait};
use super::replies::{AfterSend, Replies};
use super::{Closed, Flow, Handler, HandlerFactory, Options, Peer, ReadBuffers, Remote};

/// State that the reading threads of one receiver share.
pub(super) struct Shared<H> {
    pub(super) host: H,
    stopped: AtomicBool,
    closing: AtomicBool,
    pool: Arc<Pool>,
    counters: Arc<ReceiverCounters>,
    reply_bytes_max: usize,
}

impl<H: HandlerFactory> Shared<H> {
    pub(super) fn new(host: H, options: &Options) -> Self {
        Shared {
            host,
            stopped: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            pool: Arc::clone(&options.pool),
            counters: Arc::clone(&options.counters),
            reply_bytes_max: options.reply_bytes_max,
        }
    }

    /// Nothing more is read; the caller wakes the threads.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
    }

    /// Nobody stays for replies; the caller wakes the threads.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }
}

/// A connection that waits for its thread.
pub(super) struct Accepted {
    pub(super) stream: TcpStream,
    pub(super) peer: Peer,
    pub(super) seat: Seat,
}

/// A connection that the handler knows.
pub(super) struct Opened<S> {
    stream: TcpStream,
    seat: Seat,
    session: S,
    replies: Replies,
}

/// A reading thread.
pub(super) struct Reader<'a, H: HandlerFactory> {
    shared: &'a Shared<H>,
    handler: H::Handler,
    bell: Arc<Bell>,
    buffers: ReadBuffers,
}

impl<'a, H: HandlerFactory> Reader<'a, H> {
    /// A reader on this thread, which `bell` wakes.
    pub(super) fn new(shared: &'a Shared<H>, bell: &Arc<Bell>) -> Self {
        let waking = Arc::clone(bell);
        let handler = shared.host.handler(Arc::new(move || waking.ring()));
        let buffers = ReadBuffers::new(&shared.pool);
        Reader { shared, handler, bell: Arc::clone(bell), buffers }
    }

    /// Opens a session for a connection.
    pub(super) fn open(&mut self, accepted: Accepted) -> Opened<<H::Handler as Handler>::Session> {
        let Accepted { stream, peer, seat } = accepted;
        let asking = Arc::clone(&self.bell);
        let session = self.handler.open(peer, Remote::new(move || asking.ring()));
        Opened { stream, seat, session, replies: Replies::new(self.shared.reply_bytes_max) }
    }

    /// Reads a connection until its end, and closes it. The caller notifies the handler by [`closed`](Reader::closed).
    pub(super) fn read(
        &mut self,
        mut connection: Opened<<H::Handler as Handler>::Session>,
    ) -> (<H::Handler as Handler>::Session, Closed) {
        let how = self.read_until_closed(&mut connection);
        self.buffers.release();
        let Opened { stream, seat, session, .. } = connection;
        close(stream, seat);
        (session, how)
    }

    /// Notifies the handler of the end of a connection.
    pub(super) fn closed(&mut self, session: <H::Handler as Handler>::Session, how: Closed) {
        self.handler.closed(session, how);
        self.handler.end_of_turn();
    }

    /// The thread ends.
    pub(super) fn finish(mut self) {
        self.handler.finish();
    }

    fn read_until_closed(
        &mut self,
        connection: &mut Opened<<H::Handler as Handler>::Session>,
    ) -> Closed {
        loop {
            match self.reply(connection) {
                Err(err) => return Closed::Reset(err),
                Ok(AfterSend::Ends) => return Closed::End,
                Ok(AfterSend::Unchanged | AfterSend::Resumes) => {}
            }
            if self.shared.is_stopped() {
                return self.leave(connection);
            }
            let disposition = self.handler.disposition(&connection.session);
            if !connection.replies.may_read(disposition) || !self.handler.ready() {
                self.block(connection, PollFlags::empty());
                continue;
            }
            let most = self.handler.read_max();
            match self.buffers.read(&mut connection.stream, most) {
                // It is still sent what it was promised, and then ends.
                Ok(0) => connection.replies.peer_closed(),
                Ok(len) => {
                    self.shared.counters.bytes.add(len as u64);
                    let flow =
                        self.buffers.hand_over(&mut self.handler, &mut connection.session, len);
                    if let Flow::Close(why) = flow {
                        // The connection is closed even if the peer does not take the last replies.
                        let _ = self.reply(connection);
                        return Closed::Refused(why);
                    }
                    self.handler.end_of_turn();
                }
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => {
                    self.block(connection, PollFlags::IN);
                }
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return Closed::Reset(err),
            }
        }
    }

    /// Stops: hands everything over, and keeps the connection as long as its peer is owed something.
    fn leave(&mut self, connection: &mut Opened<<H::Handler as Handler>::Session>) -> Closed {
        self.handler.finish();
        while !self.shared.closing.load(Ordering::SeqCst) {
            if self.reply(connection).is_err() {
                return Closed::Stopped;
            }
            if connection.replies.are_settled(self.handler.disposition(&connection.session)) {
                break;
            }
            self.block(connection, PollFlags::empty());
        }
        // The connection is closed even if the peer does not take the last replies.
        let _ = self.reply(connection);
        let Opened { replies, session, stream, .. } = connection;
        replies.farewell(&mut self.handler, session, stream);
        Closed::Stopped
    }

    fn reply(
        &mut self,
        connection: &mut Opened<<H::Handler as Handler>::Session>,
    ) -> io::Result<AfterSend> {
        let Opened { replies, session, stream, .. } = connection;
        replies.send(&mut self.handler, session, stream)
    }

    /// Waits for `flags` of the socket, for room to send if replies are unsent, or for the bell.
    fn block(
        &mut self,
        connection: &Opened<<H::Handler as Handler>::Session>,
        mut flags: PollFlags,
    ) {
        self.buffers.release();
        self.handler.idle();
        if connection.replies.are_unsent() {
            flags |= PollFlags::OUT;
        }
        if flags.is_empty() {
            wait(&[], &self.bell, None);
        } else {
            wait(&[(connection.stream.as_fd(), flags)], &self.bell, None);
        }
    }
}
