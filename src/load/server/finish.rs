//! The end of a load: the lines that were begun are finished, answers waited for, connections closed. Runs on `load-0`, behind
//! the last turn of the server.
//!
//! | connections | how they end | and when they do not |
//! |---|---|---|
//! | lines | the writing half is closed, the peer closes too | after [`DRAIN_MAX`], or at once after a stop |
//! | RELP | all records are answered, then the goodbye | [`ANSWERS_MAX`] after the last answer, after a stop [`DRAIN_MAX`] |

use std::io::{self, Read};
use std::net::Shutdown;
use std::ops::ControlFlow;
use std::time::Duration;

use super::{Peer, Sent, Server, write_piece};
use crate::load::Framing;
use crate::wording::{by_number, count};
use crate::{Error, Result};

/// The longest time that peers may take to read what was sent and close, after the end.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// The longest time that peers may leave records unanswered, after the last answer of any of them.
const ANSWERS_MAX: Duration = Duration::from_secs(60);

/// The longest time that a stop waits for peers to take the rest of the lines that were begun.
const STOP_GRACE: Duration = Duration::from_millis(250);

impl Server {
    /// See the module.
    pub(super) fn finish(&mut self, stopped: bool) -> Result<()> {
        self.returned.clear();
        self.trim_pieces();
        self.peers.watch_idle()?;
        self.peers.requeue_all();
        let patience = match (self.options.framing, stopped) {
            (Framing::Lines, true) => STOP_GRACE,
            (Framing::Lines, false) | (Framing::Relp { .. }, true) => DRAIN_MAX,
            (Framing::Relp { .. }, false) => ANSWERS_MAX,
        };
        let mut deadline = self.clock.now().plus(patience);
        while self.peers.live() > 0 {
            if self.hear_answers() > 0 {
                deadline = self.clock.now().plus(patience);
            }
            while let Some(slot) = self.peers.next_resumable().or_else(|| self.peers.next_ready()) {
                self.close(slot, stopped);
            }
            let told_to_stop = self.stop.is_stopped() && !stopped;
            if self.peers.live() == 0 || told_to_stop || self.clock.now() >= deadline {
                break;
            }
            self.alarm.set(Some(deadline));
            self.peers.wait(None)?;
        }
        let sessions = self.peers.all().filter_map(|peer| peer.session.as_ref());
        let unanswered = sessions.map(|session| session.unanswered() as u64).sum::<u64>();
        self.answers.unanswered += unanswered;
        let silent = |peer: &&Peer| peer.session.as_ref().is_some_and(|it| !it.is_leaving());
        match self.peers.all().filter(silent).count() {
            silent if silent > 0 && !stopped && !self.stop.is_stopped() => {
                let have = by_number(silent, "has", "have");
                let peers = count(silent, "peer");
                Err(Error::Failed(format!("{peers} {have} not answered for {ANSWERS_MAX:?}")))
            }
            _ => Ok(()),
        }
    }

    fn trim_pieces(&mut self) {
        let text = self.lines.bytes();
        let mut untouched = 0;
        for peer in self.peers.all_mut() {
            // What is no lines is part of a conversation, which goes on.
            let Some(piece) = peer.piece.as_mut().filter(|piece| piece.lines() > 0) else {
                continue;
            };
            let before = piece.lines();
            let is_begun = piece.trim(text);
            let lines = piece.lines();
            if let Some(session) = &mut peer.session {
                session.withdraw(before - lines);
            }
            if !is_begun {
                self.progress.add(lines, 0);
                peer.piece = None;
                untouched += 1;
            }
        }
        self.busy -= untouched;
    }

    /// Moves one connection towards its end.
    fn close(&mut self, slot: usize, stopped: bool) {
        let Some(peer) = self.peers.peer(slot) else { return };
        if peer.piece.is_some() {
            match write_piece(peer, self.lines.bytes(), &self.progress) {
                Sent::All => {
                    let piece = peer.piece.take();
                    self.piece_done(piece);
                }
                Sent::Blocked => return,
                Sent::Lost(err) => {
                    self.lose(slot, err);
                    self.returned.clear();
                    return;
                }
            }
        }
        let Some(peer) = self.peers.peer(slot) else { return };
        if peer.session.is_some() {
            return self.say_goodbye(slot);
        }
        if !peer.half_closed {
            peer.half_closed = true;
            // It fails only when the peer is gone, which the read below finds out.
            let _ = peer.stream.shutdown(Shutdown::Write);
        }
        if stopped || read_to_end(peer).is_break() {
            self.peers.remove(slot);
        }
    }
}

/// Reads and drops what the peer sends; breaks when it has closed or is gone.
fn read_to_end(peer: &mut Peer) -> ControlFlow<()> {
    let mut buffer = [0; 4096];
    loop {
        match peer.stream.read(&mut buffer) {
            Ok(0) => return ControlFlow::Break(()),
            Ok(_) => {}
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => return ControlFlow::Continue(()),
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return ControlFlow::Break(()),
        }
    }
}
