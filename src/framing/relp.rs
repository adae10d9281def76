//! RELP, the reliable event logging protocol, in the server's role: every frame has a number, and the peer keeps every
//! frame that was not answered. Runs on the io threads.
//!
//! ```text
//! 1 open 53 relp_version=0\n...\n | 2 syslog 5 hello\n3 syslog 0\n | 4 close 0\n
//!      answered here                  range, two answers are owed    an answer is owed
//! ```
//! A frame is `NUMBER COMMAND LENGTH DATA\n`, and a record is the data of a `syslog` frame, less one line feed at their
//! end. The records' frames stay whole in the ranges; `open` and `close` do not. Numbers and lengths have at most nine
//! digits, so a length fits a `u32`, and an announced length allocates nothing. The offers of an `open` are answered at
//! once. The answer to a record is only owed here ([`Owed`]): another part sends it once the record is safe.
//!
//! A sender would repeat an over-long record again and again if it were dropped. So it is shortened to the limit and
//! marked: its frame's command becomes `truncated`, which no peer can send. Or it is put aside, whole, part by part.

pub(crate) mod frame;
mod offers;
mod overlong;

pub(super) use self::frame::HEADER_BYTES_MAX;
use self::frame::{Head, check_trailer, parse};
use self::offers::answer_offers;
use self::overlong::Shortening;
use super::carry::Carry;
use super::{Found, Malformed, Overlong, Owed, Splitter, no_header};

/// The most data of an `open` or `close` frame, in bytes.
const CONTROL_BYTES_MAX: usize = 4096;

/// The phase of the conversation.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    /// The peer must make its offers first.
    Greeting,
    /// Records come.
    Open,
    /// The peer has said goodbye.
    Closed,
}

enum State {
    /// At the start of a frame, or inside the one that is carried.
    Reading,
    /// Inside an over-long frame, whose shortened form is carried.
    Shortening(Shortening),
    /// Inside an over-long frame that is put aside; this many bytes of its data are missing.
    PuttingAside { txnr: u32, missing: usize },
    /// After a malformed frame.
    Broken(Malformed),
}

/// The state of one connection.
pub(super) struct RelpSplitter {
    overlong: Overlong,
    /// The unfinished frame: a header and at most the longest record, or the most data of a control frame.
    carry: Carry,
    phase: Phase,
    state: State,
}

/// One frame of a piece. The next one starts at the offset.
enum Frame {
    Record(usize),
    Control(usize),
    Shortened(usize),
    /// The piece ends in it.
    Unfinished,
}

/// Makes the state of a new connection.
pub(super) fn splitter(max: usize, overlong: Overlong) -> Box<dyn Splitter> {
    Box::new(RelpSplitter::new(max, overlong))
}

/// Refuses: the records of a dialogue cannot be found without a peer.
pub(super) fn first_end(_: &[u8]) -> Result<Option<u64>, Malformed> {
    Err(Malformed("RELP is a dialogue with a peer".to_owned()))
}

impl RelpSplitter {
    fn new(max: usize, overlong: Overlong) -> Self {
        RelpSplitter {
            overlong,
            carry: Carry::new(max),
            phase: Phase::Greeting,
            state: State::Reading,
        }
    }

    fn split(&mut self, piece: &[u8], found: &mut Found) -> Result<(), Malformed> {
        let mut start = self.finish_carried(piece, found)?;
        let (mut whole, mut records) = (start..start, 0);
        let outcome = loop {
            if start == piece.len() {
                break Ok(());
            }
            match self.frame(&piece[start..], found) {
                Ok(Frame::Record(len)) => {
                    start += len;
                    whole.end = start;
                    records += 1;
                }
                Ok(Frame::Unfinished) => break Ok(()),
                Ok(other) => {
                    found.push_range(whole, records);
                    start += match other {
                        Frame::Shortened(len) => {
                            found.push_spliced(self.carry.take());
                            len
                        }
                        Frame::Control(len) | Frame::Record(len) => len,
                        Frame::Unfinished => 0,
                    };
                    (whole, records) = (start..start, 0);
                }
                Err(malformed) => break Err(malformed),
            }
        };
        found.push_range(whole, records);
        outcome
    }

    /// The frame at the start of `rest`, which is not empty.
    fn frame(&mut self, rest: &[u8], found: &mut Found) -> Result<Frame, Malformed> {
        let Some(head) = self.head(rest)? else {
            self.carry.push(rest);
            return Ok(Frame::Unfinished);
        };
        if self.is_overlong(&head) {
            self.begin_overlong(&head, &rest[..head.header], found);
            let len = self.go_on_overlong(&rest[head.header..], found)?;
            return Ok(match (len, self.overlong) {
                (None, _) => Frame::Unfinished,
                (Some(len), Overlong::Shorten) => Frame::Shortened(head.header + len),
                (Some(len), Overlong::PutAside) => Frame::Control(head.header + len),
            });
        }
        match rest.get(..head.frame_bytes()) {
            Some(frame) => self.whole(&head, frame, found),
            None => {
                self.carry.push(rest);
                Ok(Frame::Unfinished)
            }
        }
    }

    /// Finishes the frame that an earlier piece began, if there is one. Returns the start of the next one.
    fn finish_carried(&mut self, piece: &[u8], found: &mut Found) -> Result<usize, Malformed> {
        let mut start = 0;
        if let State::Reading = self.state {
            if self.carry.is_empty() {
                return Ok(0);
            }
            // Moved out for a moment, because a header borrows from it.
            let mut carry = self.carry.replace();
            let head = loop {
                match self.head(carry.bytes())? {
                    Some(head) => break head,
                    None if start == piece.len() => {
                        self.carry = carry;
                        return Ok(start);
                    }
                    None => {
                        debug_assert!(carry.len() < HEADER_BYTES_MAX, "so this loop is short");
                        carry.push(&piece[start..=start]);
                        start += 1;
                    }
                }
            };
            if !self.is_overlong(&head) {
                let missing = head.frame_bytes() - carry.len();
                let more = &piece[start..piece.len().min(start.saturating_add(missing))];
                start += more.len();
                if more.len() < missing {
                    carry.push(more);
                    self.carry = carry;
                    return Ok(start);
                }
                return self.join(carry, more, found).map(|()| start);
            }
            debug_assert_eq!(head.header, carry.len(), "the data of such a frame is not carried");
            self.begin_overlong(&head, carry.bytes(), found);
        }
        match self.go_on_overlong(&piece[start..], found)? {
            Some(len) => {
                if self.overlong == Overlong::Shorten {
                    self.carry.join(b"", found);
                }
                Ok(start + len)
            }
            None => Ok(piece.len()),
        }
    }

    /// Completes the carried frame with these last bytes.
    fn join(&mut self, mut carry: Carry, last: &[u8], found: &mut Found) -> Result<(), Malformed> {
        carry.push(last);
        let head = parse(carry.bytes(), 1)?.expect("the header was parsed before");
        if let Frame::Record(_) = self.whole(&head, carry.bytes(), found)? {
            carry.join(b"", found);
        }
        carry.clear();
        self.carry = carry;
        Ok(())
    }

    /// The header at the start of `bytes`, if it is complete. An error if it may not come in this phase.
    fn head<'a>(&self, bytes: &'a [u8]) -> Result<Option<Head<'a>>, Malformed> {
        let Some(head) = parse(bytes, 1)? else { return Ok(None) };
        let wrong = match (self.phase, head.command) {
            (Phase::Greeting, b"open") | (Phase::Open, b"syslog" | b"close") => {
                let too_long = head.command != b"syslog" && head.body as usize > CONTROL_BYTES_MAX;
                too_long.then(|| format!("has more than {CONTROL_BYTES_MAX} bytes"))
            }
            (_, b"open") => Some("came twice".to_owned()),
            (Phase::Greeting, b"syslog" | b"close") => Some("came before `open`".to_owned()),
            (Phase::Closed, b"syslog" | b"close") => Some("came after `close`".to_owned()),
            _ => Some("was not offered".to_owned()),
        };
        match wrong {
            None => Ok(Some(head)),
            Some(wrong) => {
                let command = head.command.escape_ascii();
                Err(Malformed(format!("the command `{command}` {wrong}")))
            }
        }
    }

    fn is_overlong(&self, head: &Head<'_>) -> bool {
        head.command == b"syslog" && head.body as usize > self.carry.max()
    }

    /// Acts on a whole frame.
    fn whole(
        &mut self,
        head: &Head<'_>,
        frame: &[u8],
        found: &mut Found,
    ) -> Result<Frame, Malformed> {
        let (body, trailer) = frame[head.header..].split_at(head.body as usize);
        check_trailer(trailer)?;
        match head.command {
            b"syslog" => {
                found.owe_record(head.txnr);
                return Ok(Frame::Record(frame.len()));
            }
            b"close" => {
                found.owed.push(Owed::Close(head.txnr));
                self.phase = Phase::Closed;
            }
            _ => {
                answer_offers(head.txnr, body, found)?;
                self.phase = Phase::Open;
            }
        }
        Ok(Frame::Control(frame.len()))
    }
}

impl Splitter for RelpSplitter {
    fn feed(&mut self, piece: &[u8], found: &mut Found) -> Result<(), Malformed> {
        if let State::Broken(malformed) = &self.state {
            return Err(malformed.clone());
        }
        self.split(piece, found).inspect_err(|malformed| {
            self.carry.clear();
            self.state = State::Broken(malformed.clone());
        })
    }

    fn end(&mut self, found: &mut Found) {
        if !self.carry.is_empty() || matches!(self.state, State::PuttingAside { .. }) {
            found.truncated += 1;
            self.carry.clear();
        }
        if !matches!(self.state, State::Broken(_)) {
            self.state = State::Reading;
        }
    }

    fn carry(&self) -> &Carry {
        &self.carry
    }

    fn carry_mut(&mut self) -> &mut Carry {
        &mut self.carry
    }

    /// Only a record that is put aside can be skipped: any other would be acknowledged and lost.
    fn give_up(&mut self, begin: &[u8], len: usize) -> Result<(), Malformed> {
        let head = self.head(begin)?.ok_or_else(no_header)?;
        if head.command != b"syslog" || self.overlong != Overlong::PutAside {
            return Err(Malformed("an unfinished frame was given up".to_owned()));
        }
        let missing = (head.header + head.body as usize).saturating_sub(len);
        self.state = State::PuttingAside { txnr: head.txnr, missing };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::frame::for_each;
    use super::*;
    use crate::framing::Framing;
    use crate::framing::reference::{Outcome, malformed, reference, run};

    /// Number of records that were over-long, and that the end of the stream cut off.
    #[derive(Clone, Copy)]
    struct Dropped {
        overlong: u64,
        truncated: u64,
    }

    const NONE: Dropped = Dropped { overlong: 0, truncated: 0 };

    fn overlong(records: u64) -> Dropped {
        Dropped { overlong: records, truncated: 0 }
    }

    fn cut_off(records: u64) -> Dropped {
        Dropped { overlong: 0, truncated: records }
    }

    const OPEN: &str = "1 open 30 relp_version=0\ncommands=syslog\n";

    /// Checks the result of the chops after the `open`: records, the numbers that are owed an answer, and the dropped
    /// records.
    fn check(chops: &[&str], max: usize, records: &[&str], owed: &[u32], dropped: Dropped) {
        let records = records.iter().map(|record| record.as_bytes().to_vec()).collect();
        let Dropped { overlong, truncated } = dropped;
        let owed = owed.to_vec();
        let expected = Outcome { records, overlong, truncated, malformed: false, owed };
        let pieces = [&[OPEN], chops].concat();
        let found = run(Framing::Relp, pieces.iter().map(|chop| chop.as_bytes()), max);
        assert_eq!(found, expected, "{chops:?} {max}");
        assert_eq!(reference(Framing::Relp, pieces.concat().as_bytes(), max), expected);
    }

    /// Checks the error of the stream, in one piece and byte by byte.
    fn check_malformed(stream: &str, why: &str) {
        assert_eq!(malformed(Framing::Relp, stream.as_bytes()), why, "{stream:?}");
    }

    fn open(stream: &str) -> String {
        [OPEN, stream].concat()
    }

    /// The immediate answers to this stream.
    fn replies(stream: &str) -> String {
        let mut found = Found::default();
        // A refusal is answered before the connection is closed.
        let _ = Framing::Relp.splitter(99).feed(stream.as_bytes(), &mut found);
        String::from_utf8(found.replies).expect("text")
    }

    #[test]
    fn a_record_is_the_data_of_a_syslog_frame() {
        check(&[], 99, &[], &[], NONE);
        check(&["2 syslog 5 hello\n"], 99, &["hello"], &[2], NONE);
        check(&["2 syslog 5 hello\n3 syslog 2 \n\n\n"], 99, &["hello", "\n"], &[2, 3], NONE);
        let ended = "2 syslog 6 hello\n\n3 syslog 7 hello\r\n\n4 syslog 1 \n\n";
        check(&[ended], 99, &["hello", "hello\r", ""], &[2, 3, 4], NONE);
        check(&["2 syslog 0\n3 syslog 0 \n4 close 0\n"], 99, &["", ""], &[2, 3, 4], NONE);
        check(&["999999999 syslog 1 a\n1 syslog 1 b\n"], 99, &["a", "b"], &[999_999_999, 1], NONE);
        check(&["7 syslog 1 a\n7 syslog 1 a\n6 syslog 0\n"], 99, &["a", "a", ""], &[7, 7, 6], NONE);
    }

    #[test]
    fn a_frame_may_come_in_many_pieces() {
        check(
            &["2", " sys", "log 5", " he", "llo", "\n", "3 close 0", "\n"],
            99,
            &["hello"],
            &[2, 3],
            NONE,
        );
        check(
            &["2 syslog 1 a\n3 sysl", "og 1 b\n4 syslog 1 c\n5 s"],
            99,
            &["a", "b", "c"],
            &[2, 3, 4],
            cut_off(1),
        );
    }

    #[test]
    fn an_over_long_record_is_shortened_and_owed_an_answer() {
        check(&["2 syslog 4 abcd\n3 syslog 1 e\n"], 3, &["abc", "e"], &[2, 3], overlong(1));
        check(&["2 syslog 4 ab\nd\n3 syslog 3 ab\n\n"], 3, &["ab\n", "ab"], &[2, 3], overlong(1));
        check(&["2 syslog 4 abc\n\n"], 3, &["abc"], &[2], overlong(1));
        check(
            &["2 syslog 1 a\n3 syslog 4 bcde\n4 syslog 4 fghi\n5 syslog 1 j\n"],
            3,
            &["a", "bcd", "fgh", "j"],
            &[2, 3, 4, 5],
            overlong(2),
        );
        check(
            &["2 syslog 9", " ab", "cdef", "ghi\n3 sys", "log 1 a\n"],
            3,
            &["abc", "a"],
            &[2, 3],
            overlong(1),
        );
        check(
            &["2 syslog 4 abcd", "\n3 syslog 4 ab", "cd\n"],
            3,
            &["abc", "abc"],
            &[2, 3],
            overlong(2),
        );
        check(&["2 syslog 1 a\n3 syslog 0\n"], 0, &["", ""], &[2, 3], overlong(1));
        check(&["2 syslog 4 abcd"], 3, &[], &[], cut_off(1));
        check(&["2 syslog 999999999 abcd"], 3, &[], &[], cut_off(1));
    }

    #[test]
    fn a_shortened_frame_is_marked() {
        let (mut splitter, mut found) = (Framing::Relp.splitter(3), Found::default());
        let stream = open("2 syslog 1 a\n3 syslog 4 bcde\n4 syslog 1 f\n");
        splitter.feed(stream.as_bytes(), &mut found).expect("good");
        assert_eq!(found.spliced, [(1, b"3 truncated 3 bcd\n".to_vec())]);
        assert_eq!((found.ranges.len(), found.records), (2, 3));
        assert_eq!(found.owed, [Owed::Records { first: 2, count: 3 }]);
    }

    /// Checks the frame that is put aside from a stream in these pieces, and the records around it.
    fn check_aside(pieces: &[&str]) {
        let (mut splitter, mut found) = (Framing::Relp.splitter_putting_aside(3), Found::default());
        let (mut kept, mut records, mut owed, mut whole) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for piece in [&[OPEN], pieces].concat() {
            found.clear();
            splitter.feed(piece.as_bytes(), &mut found).expect("good");
            for part in &found.aside {
                kept.extend_from_slice(&part.bytes);
                whole += u32::from(part.is_last);
            }
            for_each(&found.joined, |record| records.push(record.to_vec()));
            for range in &found.ranges {
                for_each(&piece.as_bytes()[range.clone()], |record| records.push(record.to_vec()));
            }
            owed.extend_from_slice(&found.owed);
        }
        assert_eq!((splitter.pending(), found.spliced.len(), whole), (0, 0, 1), "{pieces:?}");
        assert_eq!(kept, b"3 syslog 6 bcdefg\n", "{pieces:?}");
        assert_eq!(records, [b"a", b"h"], "{pieces:?}");
        let one = |first| Owed::Records { first, count: 1 };
        assert_eq!(owed, [one(2), Owed::Aside(3), one(4)], "{pieces:?}");
    }

    #[test]
    fn an_over_long_record_can_be_put_aside_whole() {
        let stream = "2 syslog 1 a\n3 syslog 6 bcdefg\n4 syslog 1 h\n";
        check_aside(&[stream]);
        for cut in 1..stream.len() {
            check_aside(&[&stream[..cut], &stream[cut..]]);
        }
    }

    /// Like [`check_aside`], for a record that is short enough and is put aside because it is given up.
    #[test]
    fn a_record_that_is_given_up_is_put_aside_whole() {
        let stream = "3 syslog 6 bcdefg\n4 syslog 1 h\n";
        for cut in "3 syslog 6 ".len().."3 syslog 6 bcdefg\n".len() {
            let mut splitter = Framing::Relp.splitter_putting_aside(99);
            let mut found = Found::default();
            splitter.feed(open(&stream[..cut]).as_bytes(), &mut found).expect("good");
            let mut kept = splitter.lend();
            assert_eq!(splitter.give_up(&kept.clone(), kept.len()), Ok(()));
            found.clear();
            splitter.feed(&stream.as_bytes()[cut..], &mut found).expect("good");
            found.aside.iter().for_each(|part| kept.extend_from_slice(&part.bytes));
            assert_eq!((&kept[..], found.records), (&b"3 syslog 6 bcdefg\n"[..], 1));
            let one = Owed::Records { first: 4, count: 1 };
            assert_eq!(found.owed, [Owed::Aside(3), one]);
        }
    }

    #[test]
    fn a_frame_that_is_not_put_aside_cannot_be_given_up() {
        let check = |splitter: &mut dyn Splitter, begin: &str| {
            splitter.feed(open(begin).as_bytes(), &mut Found::default()).expect("good");
            let lent = splitter.lend();
            assert!(splitter.give_up(&lent, lent.len()).is_err(), "{begin}");
        };
        check(&mut *Framing::Relp.splitter(99), "3 syslog 6 bcd");
        check(&mut *Framing::Relp.splitter(3), "3 syslog 6 bcd");
        check(&mut *Framing::Relp.splitter_putting_aside(99), "3 sys");
        check(&mut *Framing::Relp.splitter_putting_aside(99), "3 close 6 bcd");
    }

    #[test]
    fn the_close_of_the_connection_drops_what_is_not_whole() {
        check(&["2 syslog 2 a"], 9, &[], &[], cut_off(1));
        check(&["2 syslog 1 a"], 9, &[], &[], cut_off(1));
        check(&["2"], 9, &[], &[], cut_off(1));
    }

    #[test]
    fn offers_are_answered_with_the_lesser_version() {
        let check = |offers: &str, version: &str| {
            let stream = format!("1 open {} {offers}\n", offers.len());
            let ours = format!(
                "200 OK\nrelp_version={version}\nrelp_software=tidemill,{}\ncommands=syslog",
                env!("CARGO_PKG_VERSION")
            );
            assert_eq!(replies(&stream), format!("1 rsp {} {ours}\n", ours.len()), "{offers:?}");
        };
        check("relp_version=0\nrelp_software=librelp,1.11.0\ncommands=syslog", "0");
        check("relp_version=1\ncommands=syslog,eventlog", "1");
        check("commands=eventlog, syslog\nrelp_version=7\n", "1");
    }

    #[test]
    fn offers_without_what_is_needed_are_refused_for_good() {
        let check = |offers: &str, why: &str| {
            let stream = format!("1 open {} {offers}\n", offers.len());
            assert_eq!(replies(&stream), format!("1 rsp {} 500 {why}\n", why.len() + 4));
            check_malformed(&stream, why);
        };
        check("commands=syslog", "the offers name no `relp_version`");
        check("relp_version=a\ncommands=syslog", "the offers name no `relp_version`");
        check("relp_version=0\ncommands=eventlog", "the offers do not have the command `syslog`");
        check("relp_version=0", "the offers do not have the command `syslog`");
    }

    #[test]
    fn a_header_alone_holds_no_memory() {
        let (mut splitter, mut found) = (Framing::Relp.splitter(usize::MAX), Found::default());
        let stream = open("2 syslog 999999999 ab");
        assert_eq!(splitter.feed(stream.as_bytes(), &mut found), Ok(()));
        assert_eq!(splitter.pending(), 21);
    }

    #[test]
    fn a_malformed_frame_says_what_is_wrong() {
        check_malformed("<13>hello", "expected a transaction number, found `<`");
        check_malformed(
            "0 open 0\n",
            "expected a space after a transaction number from 1 on, found ` `",
        );
        check_malformed("1234567890", "a transaction number of more than 9 digits");
        check_malformed("1  0", "expected a command and a space, found ` `");
        check_malformed("1 op3n", "expected a command and a space, found `3`");
        check_malformed(&format!("1 {}", "x".repeat(33)), "a command of more than 32 letters");
        check_malformed("1 open x", "expected a length, found `x`");
        check_malformed("1 open 1\n", "expected a space after the length, found `\\n`");
        check_malformed("1 open 1234567890", "a length of more than 9 digits");
        check_malformed("1 open 4097 ", "the command `open` has more than 4096 bytes");
        check_malformed("1 syslog 1 ", "the command `syslog` came before `open`");
        check_malformed(&open("2 starttls 0\n"), "the command `starttls` was not offered");
        check_malformed(&open("2 truncated 0\n"), "the command `truncated` was not offered");
        check_malformed(&open("2 open 0\n"), "the command `open` came twice");
        check_malformed(
            &open("2 close 0\n3 syslog 0\n"),
            "the command `syslog` came after `close`",
        );
        check_malformed(&open("2 syslog 1 ab"), "expected a line feed after the data, found `b`");
        check_malformed(
            &open(&format!("2 syslog 100 {}x", "y".repeat(100))),
            "expected a line feed after the data, found `x`",
        );
    }
}
