//! The conversations of a load with peers that answer: what is heard, and who may be left. Runs on `load-0`; what is
//! said and what an answer means is the session's.

use std::io::{self, ErrorKind, Read};

use super::{Peer, Server};
use crate::load::Answers;
use crate::load::piece::{Body, Piece};

/// Bytes read at a time: a few hundred answers.
const READ_BYTES: usize = 8 << 10;

impl Server {
    /// Reads what peers have answered, and returns how many records were.
    pub(super) fn hear_answers(&mut self) -> u64 {
        let before = self.answers.records();
        while let Some(slot) = self.peers.next_answering() {
            self.hear(slot);
        }
        let records = self.answers.records() - before;
        if records > 0 {
            self.last_done = self.clock.now();
        }
        records
    }

    fn hear(&mut self, slot: usize) {
        let Some(peer) = self.peers.peer(slot) else { return };
        let read = read_answers(peer, &mut self.answers);
        let (is_leaving, is_closed) = peer
            .session
            .as_ref()
            .map_or((false, false), |session| (session.is_leaving(), session.is_closed()));
        match read {
            // It may close without an answer to the goodbye: everything else was answered.
            Err(_) if is_leaving => drop(self.peers.remove(slot)),
            Err(err) => self.lose(slot, err),
            Ok(()) if is_closed => drop(self.peers.remove(slot)),
            Ok(()) => self.peers.requeue(slot),
        }
    }

    /// Says goodbye to a peer that has answered everything.
    pub(super) fn say_goodbye(&mut self, slot: usize) {
        let due = self.elapsed(self.clock.now());
        let Some(peer) = self.peers.peer(slot) else { return };
        let Some(session) = peer.session.as_mut().filter(|session| session.may_leave()) else {
            return;
        };
        let mut goodbye = Vec::new();
        session.leave(&mut goodbye);
        peer.piece = Some(Piece::new(Body::Own(goodbye), 0, due));
        self.busy += 1;
        self.send_to(slot);
    }
}

/// Reads until nothing more is there; an end of the stream is an error here.
fn read_answers(peer: &mut Peer, answers: &mut Answers) -> io::Result<()> {
    let Some(session) = &mut peer.session else { return Ok(()) };
    let mut buffer = [0; READ_BYTES];
    loop {
        match peer.stream.read(&mut buffer) {
            Ok(0) => return Err(io::Error::new(ErrorKind::UnexpectedEof, "it closed")),
            Ok(len) => session
                .take(&buffer[..len], answers)
                .map_err(|malformed| io::Error::new(ErrorKind::InvalidData, malformed.0))?,
            Err(err) if err.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(err) if err.kind() == ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
    }
}
