//! `Session`: the client's side of one RELP connection, sans-io: its offers, lines as numbered frames within a window, what the
//! answers say, its goodbye. The load's thread runs it; it knows no socket.
//!
//! ```text
//! 1 open ▶ | ◀ 1 rsp | 2 syslog ▶ 3 syslog ▶ ... | ◀ 2 rsp | 4 syslog ▶ ... | ◀ the last rsp | N close ▶ | ◀ N rsp
//!      greeting      |     open: at most a window of frames is unanswered                    |     leaving
//! ```

use std::collections::VecDeque;

use super::Answers;
use crate::framing::Malformed;
use crate::framing::relp::frame::{Frame, NUMBER_MAX, frame, push_frame};

/// The most data of an answer in bytes; what servers say is far shorter.
const ANSWER_BYTES_MAX: usize = 4096;

/// The version that every server speaks, and the one command that is sent.
const OFFERS: &str = concat!(
    "relp_version=0\nrelp_software=tidemill,",
    env!("CARGO_PKG_VERSION"),
    "\ncommands=syslog"
);

/// The number of the offers.
const FIRST: u32 = 1;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    /// The offers are on their way.
    Greeting,
    /// Records may be sent.
    Open,
    /// The goodbye with this number is on its way.
    Leaving(u32),
    /// The peer said its last.
    Closed,
}

/// A record that waits for its answer.
#[derive(Clone, Copy, Debug)]
struct Unanswered {
    txnr: u32,
    /// Without its line feed.
    bytes: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Session {
    /// The most records that may be unanswered.
    window: usize,
    phase: Phase,
    /// The number of the next frame.
    next: u32,
    /// In the order in which they were sent; at most `window`.
    unanswered: VecDeque<Unanswered>,
    /// The beginning of an answer, less than a frame.
    received: Vec<u8>,
}

impl Session {
    /// A session, and its offers as they are sent.
    pub(super) fn begin(window: usize) -> (Self, Vec<u8>) {
        let mut offers = Vec::new();
        push_frame(&mut offers, FIRST, "open", OFFERS.as_bytes());
        let (unanswered, received) = (VecDeque::new(), Vec::new());
        let phase = Phase::Greeting;
        (Session { window, phase, next: FIRST + 1, unanswered, received }, offers)
    }

    /// Number of records that may be sent now.
    pub(super) fn room(&self) -> usize {
        if self.phase == Phase::Open { self.window - self.unanswered.len() } else { 0 }
    }

    /// Records without an answer.
    pub(super) fn unanswered(&self) -> usize {
        self.unanswered.len()
    }

    /// True if it is time for the goodbye, provided that there is nothing more to send.
    pub(super) fn may_leave(&self) -> bool {
        self.phase == Phase::Open && self.unanswered.is_empty()
    }

    /// True if the goodbye was said, so that the peer may close.
    pub(super) fn is_leaving(&self) -> bool {
        matches!(self.phase, Phase::Leaving(_) | Phase::Closed)
    }

    /// True if nothing more will come.
    pub(super) fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    /// Appends these lines as frames, each without its line feed. There must be [`room`](Session::room) for them.
    pub(super) fn push_lines(&mut self, lines: &[u8], out: &mut Vec<u8>) {
        for line in lines.split_inclusive(|&byte| byte == b'\n') {
            let record = line.strip_suffix(b"\n").unwrap_or(line);
            let txnr = self.number();
            push_frame(out, txnr, "syslog", record);
            self.unanswered.push_back(Unanswered { txnr, bytes: record.len() as u64 });
        }
        debug_assert!(self.unanswered.len() <= self.window, "the caller asked for room");
    }

    /// The last `records` of them were not sent after all.
    pub(super) fn withdraw(&mut self, records: u64) {
        let records = usize::try_from(records).unwrap_or(usize::MAX);
        self.unanswered.truncate(self.unanswered.len().saturating_sub(records));
    }

    /// Appends the goodbye.
    pub(super) fn leave(&mut self, out: &mut Vec<u8>) {
        let txnr = self.number();
        push_frame(out, txnr, "close", b"");
        self.phase = Phase::Leaving(txnr);
    }

    /// Takes what the peer sent and counts its answers.
    ///
    /// # Errors
    /// If it is no answer, or one to what was not asked, or the offers were refused.
    pub(super) fn take(&mut self, bytes: &[u8], answers: &mut Answers) -> Result<(), Malformed> {
        let mut received = std::mem::take(&mut self.received);
        received.extend_from_slice(bytes);
        let mut start = 0;
        while let Some(frame) = frame(&received[start..], ANSWER_BYTES_MAX)? {
            start += frame.len;
            self.answer(&frame, answers)?;
        }
        received.drain(..start);
        self.received = received;
        Ok(())
    }

    fn answer(&mut self, frame: &Frame<'_>, answers: &mut Answers) -> Result<(), Malformed> {
        let is_good = frame.data.starts_with(b"200");
        match (frame.command, self.phase) {
            (b"serverclose", Phase::Leaving(_) | Phase::Closed) => self.phase = Phase::Closed,
            (b"serverclose", _) => return Err(Malformed("it ends the session".to_owned())),
            (b"rsp", Phase::Greeting) if frame.txnr == FIRST => {
                if !is_good {
                    let said = String::from_utf8_lossy(frame.data);
                    return Err(Malformed(format!("it refuses the offers: {said}")));
                }
                self.phase = Phase::Open;
            }
            (b"rsp", Phase::Leaving(goodbye)) if frame.txnr == goodbye => {
                self.phase = Phase::Closed;
            }
            (b"rsp", _) => answers.count(is_good, self.answered(frame.txnr)?),
            _ => {
                let command = frame.command.escape_ascii();
                return Err(Malformed(format!("expected an answer, found `{command}`")));
            }
        }
        Ok(())
    }

    /// Takes out the record of an answer, nearly always the first, and says how many bytes it has.
    fn answered(&mut self, txnr: u32) -> Result<u64, Malformed> {
        let at = self.unanswered.iter().position(|record| record.txnr == txnr);
        let record = at.and_then(|at| self.unanswered.remove(at));
        let record = record
            .ok_or_else(|| Malformed(format!("an answer to frame {txnr}, which waits for none")))?;
        Ok(record.bytes)
    }

    /// The number of the next frame; behind the highest comes the first.
    fn number(&mut self) -> u32 {
        let txnr = self.next;
        self.next = if txnr == NUMBER_MAX { FIRST } else { txnr + 1 };
        txnr
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A session in which these answers came behind the one to the offers, after `lines` were sent.
    fn answered(lines: &str, said: &str) -> Result<(Session, Answers), String> {
        let mut answers = Answers::default();
        let (mut session, mut out) = Session::begin(4);
        session.take(b"1 rsp 6 200 OK\n", &mut answers).expect("good");
        session.push_lines(lines.as_bytes(), &mut out);
        // However it is cut.
        for byte in said.as_bytes() {
            session.take(&[*byte], &mut answers).map_err(|malformed| malformed.0)?;
        }
        Ok((session, answers))
    }

    fn check(lines: &str, said: &str, counts: [u64; 3], room: usize) {
        let (session, answers) = answered(lines, said).expect("good");
        let found = [answers.acknowledged, answers.acknowledged_bytes, answers.refused];
        assert_eq!((found, session.room()), (counts, room), "{lines:?} {said:?}");
    }

    #[test]
    fn answers_are_counted_and_make_room() {
        check("", "", [0, 0, 0], 4);
        check("ab\nc\n", "", [0, 0, 0], 2);
        check("ab\nc\n", "2 rsp 6 200 OK\n", [1, 2, 0], 3);
        check("ab\nc\n", "3 rsp 6 200 OK\n2 rsp 3 200\n", [2, 3, 0], 4);
        check("ab\n\nc", "2 rsp 9 500 no go\n3 rsp 6 200 OK\n4 rsp 0\n", [1, 0, 2], 4);
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        let check = |said: &str, why: &str| {
            assert_eq!(answered("a\n", said).expect_err("refused"), why, "{said:?}");
        };
        check("3 rsp 6 200 OK\n", "an answer to frame 3, which waits for none");
        check("2 rsp 3 200\n2 rsp 3 200\n", "an answer to frame 2, which waits for none");
        check("2 syslog 1 a\n", "expected an answer, found `syslog`");
        check("2 rsp 4097 ", "a frame of more than 4096 bytes");
        check("0 serverclose 0\n", "it ends the session");
        check("hello", "expected a transaction number, found `h`");
    }

    #[test]
    fn offers_that_are_refused_end_it() {
        let (mut session, _) = Session::begin(4);
        let refused = session.take(b"1 rsp 10 500 go off\n", &mut Answers::default());
        assert_eq!(refused, Err(Malformed("it refuses the offers: 500 go off".to_owned())));
    }

    #[test]
    fn it_says_what_a_server_expects() {
        let (mut session, mut out) = Session::begin(9);
        assert_eq!(session.room(), 0, "not before the offers are answered");
        session.take(b"1 rsp 6 200 OK\n", &mut Answers::default()).expect("good");
        session.push_lines(b"a b\n\nc\r\n", &mut out);
        session.withdraw(3);
        assert!(session.may_leave());
        session.leave(&mut out);
        assert!(session.is_leaving() && !session.is_closed());
        session.take(b"5 rsp 0\n", &mut Answers::default()).expect("good");
        assert!(session.is_closed());
        let expected = format!(
            "1 open {} {OFFERS}\n2 syslog 3 a b\n3 syslog 0\n4 syslog 2 c\r\n5 close 0\n",
            OFFERS.len()
        );
        assert_eq!(String::from_utf8(out).expect("text"), expected);
    }

    #[test]
    fn numbers_begin_again_behind_the_highest() {
        let (mut session, _) = Session::begin(9);
        session.next = NUMBER_MAX;
        assert_eq!([session.number(), session.number(), session.number()], [NUMBER_MAX, 1, 2]);
    }
}
