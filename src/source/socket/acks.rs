//! The acknowledgements that one connection owes its peer, if the framing acknowledges: the unanswered records in order, and the
//! number of safe ones. Lives with the connection on its io thread; any thread may acknowledge more records.
//!
//! ```text
//!  splitter ─owed─▶ [2..=9 | 10 | close 11] ─the safe prefix─▶ rsp, rsp, … ─▶ socket
//!                          ▲ safe up to the 3rd (`Due`), set by those who queued, synced or committed them
//! ```
//! Acks go out in the order of the frames. An answer says «200 OK» or it is not sent: a record that cannot be
//! kept is left unanswered, and its sender sends it again.

use std::collections::VecDeque;

use crate::blocks::{Acknowledge, Receipt};
use crate::framing::{AsidePart, Found, Owed};
use crate::source::io::{Disposition, Remote};
use crate::source::socket::oversized::{OversizedStore, Owner, Putting};
use crate::sync::{Arc, AtomicU64, Ordering};

/// Runs of consecutive numbers that may be unanswered: 12 KiB of them. A peer that counts as it should has one, and one more
/// for each record of its window that is put aside.
const RUNS_MAX: usize = 1024;

/// Acks are fetched until this many bytes wait to be sent; the rest follows once these are gone. Peers that do not read
/// their answers cost no more than this each.
const FETCH_BYTES: usize = 8 * 1024;

/// The answer for a safe record, behind its number.
const OK: &[u8] = b" rsp 6 200 OK\n";

/// The last answer to a peer.
const GOODBYE: &[u8] = b"0 serverclose 0\n";

/// See the module.
pub(crate) struct Acks {
    due: Arc<Due>,
    owed: VecDeque<Owed>,
    /// Acks that do not wait for anything.
    at_once: Vec<u8>,
    /// Records so far; the last one has this number in [`Receipt::upto`].
    received: u64,
    /// Records answered so far.
    answered: u64,
    /// The store of over-long records, once there was one, and the number of those that were answered.
    putting: Option<Arc<Putting>>,
    asides_answered: u64,
    said: Said,
}

/// The last word to the peer about the conversation.
#[derive(Clone, Copy, PartialEq)]
enum Said {
    Nothing,
    /// It made its offers.
    Welcome,
    /// Its goodbye was answered, or we said one.
    Goodbye,
}

/// Number of a connection's records that are safe.
#[derive(Debug)]
struct Due {
    /// A maximum, so a late and lower number changes nothing. The answers are fetched after `remote` was asked, which
    /// orders them behind this.
    safe: AtomicU64,
    /// The same of the records that were put aside, which count by themselves.
    asides: AtomicU64,
    /// Reads with parts of such records that are not written yet: while there are any, the connection is not read.
    unwritten: AtomicU64,
    remote: Remote,
}

impl Owner for Due {
    fn handed_on(&self) {
        self.unwritten.fetch_add(1, Ordering::SeqCst);
    }

    fn written(&self) {
        if self.unwritten.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.remote.ask();
        }
    }

    fn kept(&self) {
        self.asides.fetch_add(1, Ordering::SeqCst);
        self.remote.ask();
    }
}

impl Acknowledge for Due {
    fn acknowledge(&self, upto: u64) {
        if self.safe.fetch_max(upto, Ordering::SeqCst) < upto {
            self.remote.ask();
        }
    }
}

impl Acks {
    /// The acknowledgements of a new connection, which `remote` reaches.
    pub(crate) fn new(remote: Remote) -> Self {
        Acks {
            due: Arc::new(Due {
                safe: AtomicU64::new(0),
                asides: AtomicU64::new(0),
                unwritten: AtomicU64::new(0),
                remote,
            }),
            owed: VecDeque::new(),
            at_once: Vec::new(),
            received: 0,
            answered: 0,
            putting: None,
            asides_answered: 0,
            said: Said::Nothing,
        }
    }

    /// Notes the frames of one piece of the stream.
    ///
    /// # Errors
    /// If the unanswered frames cannot be noted within their bound because of the peer's numbers.
    pub(crate) fn note(&mut self, found: &Found) -> Result<(), String> {
        if !found.replies.is_empty() {
            self.said = Said::Welcome;
            self.at_once.extend_from_slice(&found.replies);
        }
        for &owed in &found.owed {
            match (self.owed.back_mut(), owed) {
                (
                    Some(Owed::Records { first, count }),
                    Owed::Records { first: next, count: more },
                ) if first.checked_add(*count) == Some(next) => *count += more,
                _ => self.owed.push_back(owed),
            }
        }
        match self.owed.len() {
            0..=RUNS_MAX => Ok(()),
            _ => Err(format!(
                "more than {RUNS_MAX} unanswered transactions that do not follow one another"
            )),
        }
    }

    /// Hands over the parts of one piece that belong to records which are put aside.
    pub(crate) fn put_aside(&mut self, parts: Vec<AsidePart>, asides: &Arc<OversizedStore>) {
        if !parts.is_empty() {
            self.putting(asides).put(parts);
        }
    }

    /// Takes parts of records that are put aside.
    pub(crate) fn putting(&mut self, asides: &Arc<OversizedStore>) -> Arc<Putting> {
        let owner = || Arc::clone(&self.due) as Arc<dyn Owner>;
        Arc::clone(self.putting.get_or_insert_with(|| Arc::new(asides.connection(owner()))))
    }

    /// Reaches the io thread of the connection.
    pub(crate) fn remote(&self) -> Remote {
        self.due.remote.clone()
    }

    /// The receipt for the next `records` records, in the order in which they were noted.
    pub(crate) fn receipt(&mut self, records: u64) -> Receipt {
        self.received += records;
        Receipt { to: Arc::clone(&self.due) as Arc<dyn Acknowledge>, upto: self.received }
    }

    /// Adds the receipt to those of a range: one for each connection, the last one counts.
    pub(crate) fn add_receipt(&mut self, records: u64, receipts: &mut Vec<Receipt>) {
        let receipt = self.receipt(records);
        match receipts.last_mut() {
            Some(last) if Arc::ptr_eq(&last.to, &receipt.to) => last.upto = receipt.upto,
            _ => receipts.push(receipt),
        }
    }

    /// Appends answers to safe records, up to the bound of `out`.
    pub(crate) fn fetch(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.at_once);
        let safe = self.due.safe.load(Ordering::SeqCst);
        let asides_safe = self.due.asides.load(Ordering::SeqCst);
        while out.len() < FETCH_BYTES {
            match self.owed.front_mut() {
                Some(Owed::Records { first, count }) if self.answered < safe => {
                    answer(*first, OK, out);
                    self.answered += 1;
                    *first += 1;
                    *count -= 1;
                    if *count == 0 {
                        self.owed.pop_front();
                    }
                }
                Some(Owed::Aside(number)) if self.asides_answered < asides_safe => {
                    answer(*number, OK, out);
                    self.asides_answered += 1;
                    self.owed.pop_front();
                }
                Some(Owed::Close(number)) => {
                    answer(*number, b" rsp 0\n", out);
                    self.owed.pop_front();
                    self.farewell(out);
                }
                Some(Owed::Records { .. } | Owed::Aside(_)) | None => break,
            }
        }
        if self.owed.is_empty() {
            // A connection that owes nothing owns no buffer.
            self.owed = VecDeque::new();
        }
    }

    /// Appends the goodbye, if the peer was welcomed and has not got it yet.
    pub(crate) fn farewell(&mut self, out: &mut Vec<u8>) {
        if self.said == Said::Welcome {
            out.extend_from_slice(GOODBYE);
            self.said = Said::Goodbye;
        }
    }

    /// The reason for which the connection is kept.
    pub(crate) fn disposition(&self) -> Disposition {
        match self.said {
            _ if self.due.unwritten.load(Ordering::SeqCst) > 0 => Disposition::Held,
            _ if !self.owed.is_empty() || !self.at_once.is_empty() => Disposition::RepliesDue,
            Said::Goodbye => Disposition::Closing,
            Said::Nothing | Said::Welcome => Disposition::Open,
        }
    }
}

/// Appends a number and the rest of its answer.
fn answer(number: u32, rest: &[u8], out: &mut Vec<u8>) {
    let (mut digits, mut at, mut left) = ([0; 10], 10, number);
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(left % 10).expect("a digit");
        left /= 10;
        if left == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
    out.extend_from_slice(rest);
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;

    fn records(first: u32, count: u32) -> Owed {
        Owed::Records { first, count }
    }

    fn noting(pieces: &[&[Owed]]) -> Acks {
        let mut answers = Acks::new(Remote::nobody());
        for owed in pieces {
            let found = Found { owed: owed.to_vec(), ..Found::default() };
            answers.note(&found).expect("within the bound");
        }
        answers
    }

    fn fetch(answers: &mut Acks) -> String {
        let mut out = Vec::new();
        answers.fetch(&mut out);
        String::from_utf8(out).expect("text")
    }

    /// Checks the answers when this many records are safe.
    fn check(pieces: &[&[Owed]], safe: u64, expected: &[u32], disposition: Disposition) {
        let mut answers = noting(pieces);
        answers.due.acknowledge(safe);
        let expected: String = expected.iter().map(|n| format!("{n} rsp 6 200 OK\n")).collect();
        assert_eq!(fetch(&mut answers), expected, "{pieces:?} {safe}");
        assert_eq!(answers.disposition(), disposition, "{pieces:?} {safe}");
    }

    #[test]
    fn the_safe_prefix_is_answered_in_order() {
        check(&[], 0, &[], Disposition::Open);
        check(&[&[records(2, 3)]], 0, &[], Disposition::RepliesDue);
        check(&[&[records(2, 3)]], 2, &[2, 3], Disposition::RepliesDue);
        check(&[&[records(2, 3)], &[records(5, 2)]], 4, &[2, 3, 4, 5], Disposition::RepliesDue);
        check(&[&[records(9, 1), records(7, 2)]], 3, &[9, 7, 8], Disposition::Open);
        check(
            &[&[records(999_999_999, 1), records(1, 1)]],
            2,
            &[999_999_999, 1],
            Disposition::Open,
        );
    }

    #[test]
    fn a_goodbye_is_answered_behind_the_records_before_it() {
        let mut answers = noting(&[&[records(2, 1), Owed::Close(3)]]);
        answers.said = Said::Welcome;
        assert_eq!(
            (fetch(&mut answers).as_str(), answers.disposition()),
            ("", Disposition::RepliesDue)
        );
        answers.due.acknowledge(1);
        let expected = "2 rsp 6 200 OK\n3 rsp 0\n0 serverclose 0\n";
        assert_eq!(
            (fetch(&mut answers).as_str(), answers.disposition()),
            (expected, Disposition::Closing)
        );
        let mut out = Vec::new();
        answers.farewell(&mut out);
        assert_eq!(out, b"", "the last word is said once");
    }

    #[test]
    fn a_record_that_is_put_aside_is_answered_in_its_place() {
        let mut answers = noting(&[&[records(2, 1), Owed::Aside(3), records(4, 1)]]);
        answers.due.acknowledge(2);
        assert_eq!(fetch(&mut answers), "2 rsp 6 200 OK\n");
        answers.due.kept();
        assert_eq!(fetch(&mut answers), "3 rsp 6 200 OK\n4 rsp 6 200 OK\n");
    }

    #[test]
    fn words_may_come_in_any_order() {
        let mut answers = noting(&[&[records(1, 5)]]);
        for upto in [3, 1, 2] {
            answers.due.acknowledge(upto);
        }
        assert_eq!(fetch(&mut answers).lines().count(), 3);
    }

    #[test]
    fn many_answers_are_fetched_in_parts() {
        let mut answers = noting(&[&[records(1, 10_000)]]);
        answers.due.acknowledge(10_000);
        let mut lines = 0;
        while answers.disposition() == Disposition::RepliesDue {
            let part = fetch(&mut answers);
            assert!(part.len() < FETCH_BYTES + 64);
            lines += part.lines().count();
        }
        assert_eq!(lines, 10_000);
    }

    #[test]
    fn receipts_of_one_connection_are_one() {
        let (mut one, mut other) = (noting(&[]), noting(&[]));
        let mut receipts = Vec::new();
        one.add_receipt(2, &mut receipts);
        one.add_receipt(3, &mut receipts);
        other.add_receipt(1, &mut receipts);
        one.add_receipt(1, &mut receipts);
        let upto: Vec<u64> = receipts.iter().map(|receipt| receipt.upto).collect();
        assert_eq!(upto, [5, 1, 6]);
    }

    #[test]
    fn what_is_unanswered_is_bounded() {
        let mut answers = Acks::new(Remote::nobody());
        let owed: Vec<Owed> = (0..=RUNS_MAX).map(|_| records(7, 1)).collect();
        let found = Found { owed, ..Found::default() };
        assert!(answers.note(&found).is_err());
    }
}
