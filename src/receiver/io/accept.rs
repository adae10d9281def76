//! Accepting, with a spare descriptor: the part of a listener that every model needs. Runs on the accepting thread.

use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

/// How long accepting waits after a failure that closing one peer does not cure.
pub(super) const ACCEPT_BACK_OFF: Duration = Duration::from_millis(100);

/// A non-blocking listener.
pub(super) struct Acceptor {
    listener: TcpListener,
    /// Given up for a moment when descriptors run out, so that the waiting peer can be told by a close.
    spare: Option<File>,
}

/// What one attempt at accepting brought.
pub(super) enum Accepted {
    /// A peer.
    Peer(TcpStream, SocketAddr),
    /// Nobody waits.
    Nobody,
    /// A peer was turned away for want of descriptors.
    TurnedAway,
    /// Nothing can be accepted for [`ACCEPT_BACK_OFF`].
    Exhausted,
}

impl Acceptor {
    pub(super) fn new(listener: TcpListener) -> Self {
        Acceptor { listener, spare: spare() }
    }

    pub(super) fn listener(&self) -> &TcpListener {
        &self.listener
    }

    /// Accepts one peer, if one waits.
    pub(super) fn accept(&mut self) -> Accepted {
        loop {
            match self.listener.accept() {
                Ok((stream, peer)) => return Accepted::Peer(stream, peer),
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => return Accepted::Nobody,
                Err(err) if out_of_descriptors(&err) => return self.turn_away(),
                Err(err) if is_peers_fault(&err) => {}
                Err(_) => return Accepted::Exhausted,
            }
        }
    }

    fn turn_away(&mut self) -> Accepted {
        let freed = self.spare.take().is_some();
        let accepted = freed && self.listener.accept().is_ok();
        self.spare = spare();
        if accepted && self.spare.is_some() { Accepted::TurnedAway } else { Accepted::Exhausted }
    }
}

fn spare() -> Option<File> {
    File::open("/dev/null").ok()
}

fn out_of_descriptors(err: &io::Error) -> bool {
    let code = err.raw_os_error();
    code == Some(rustix::io::Errno::MFILE.raw_os_error())
        || code == Some(rustix::io::Errno::NFILE.raw_os_error())
}

/// Errors of one waiting connection, which is gone with them; the next may be well (accept(2), «Error handling»).
fn is_peers_fault(err: &io::Error) -> bool {
    matches!(
        err.kind(),
        io::ErrorKind::Interrupted
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    )
}
