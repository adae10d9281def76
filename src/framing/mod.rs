//! Framings: how a byte stream is cut into records. Bytes in, ranges of whole records out; no sockets, no clocks.
//!
//! One framing is one file and one row of [`FRAMINGS`]. A [`Splitter`] makes one pass over each piece that a connection
//! read and reports where the whole records lie; only the unfinished last record is carried. The task that processes a
//! range later finds the single records in it with [`Framing::for_each`].
//!
//! What every splitter owes, and one property test and the fuzz targets check against reference splitters:
//! - The records do not depend on how the stream was cut into pieces.
//! - Ranges are in order, never empty, and adjacent ones are merged. They keep terminators and headers, so that ranges
//!   concatenate without changing a record.
//! - A record of up to `record_bytes_max` bytes is found; a longer one is counted once and nothing in it is taken for a
//!   record. What counts is the record as it was sent, without its header or `\n`. A framing that acknowledges keeps the
//!   first `record_bytes_max` bytes of it, marked, since dropping it would bring it back.
//! - At most `record_bytes_max` bytes and a header are carried (or a control frame), and never more than really came.

mod carry;
pub mod escape;
mod frames;
mod lines;
mod octet_counted;
#[cfg(test)]
mod reference;
pub(crate) mod relp;
mod syslog;
mod u32;

use std::ops::Range;

use self::carry::Carry;
use self::frames::FrameSplitter;
pub use self::lines::{ends_are_plain, lines_of};

/// A framing that users name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Framing {
    /// `\n` ends a record.
    Lines,
    /// The length in decimal digits, a space, the record as it is (RFC 6587, 3.4.1).
    OctetCounted,
    /// Octet-counted or ended by `\n`, decided for each frame (RFC 6587); one `\n` at the end of a counted one is dropped, and
    /// an empty line is no record.
    Syslog,
    /// The length as four bytes, the highest first, then the record.
    U32,
    /// Numbered frames, each of which is answered once its record is safe (RELP); one `\n` at the end of a record is dropped.
    Relp,
}

/// A row of the table of framings.
#[derive(Debug)]
pub struct Row {
    /// The name in pipeline files and on the command line.
    pub name: &'static str,
    /// The framing.
    pub framing: Framing,
    /// One line for the help.
    pub about: &'static str,
}

/// Every framing there is.
pub const FRAMINGS: &[Row] = &[
    Row {
        name: "lines",
        framing: Framing::Lines,
        about: "a line feed ends a record, a carriage return before it is dropped",
    },
    Row {
        name: "octet_counted",
        framing: Framing::OctetCounted,
        about: "decimal length, a space, the record (RFC 6587)",
    },
    Row {
        name: "syslog",
        framing: Framing::Syslog,
        about: "octet-counted if a frame starts with a digit from 1 to 9, else a line that is not empty; a line feed ends either",
    },
    Row {
        name: "u32",
        framing: Framing::U32,
        about: "the length as four bytes, the highest first, then the record",
    },
    Row {
        name: "relp",
        framing: Framing::Relp,
        about: "numbered frames that are acknowledged, as rsyslog's omrelp sends them; peers dial in",
    },
];

/// The framing of this name in [`FRAMINGS`].
pub fn by_name(name: &str) -> Option<Framing> {
    FRAMINGS.iter().find(|row| row.name == name).map(|row| row.framing)
}

/// What the peer of a framing that acknowledges is owed, in the order in which it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owed {
    /// An answer to each of so many records, numbered one after the other.
    Records {
        /// The number of the first.
        first: u32,
        /// How many, at least one.
        count: u32,
    },
    /// An answer to a record with this number that was put aside.
    Aside(u32),
    /// An answer to the peer's goodbye, which has this number.
    Close(u32),
}

/// A part of an over-long record that is put aside, as it was sent, with its header and terminator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AsidePart {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Whether the record ends here; the next part begins another one.
    pub is_last: bool,
}

/// What a splitter found in one piece. The caller reuses it: [`clear`](Found::clear) before each call, then feed.
#[derive(Debug, Default)]
pub struct Found {
    /// A record that began in an earlier piece and ended in this one, whole, with its terminator or header. It comes
    /// before the ranges. Empty if there is none.
    pub joined: Vec<u8>,
    /// Where whole records lie in the piece, in order, with their terminators or headers.
    pub ranges: Vec<Range<usize>>,
    /// How many records each of the ranges holds, in the same order.
    pub range_records: Vec<u64>,
    /// Records, with terminator or header, that lie in the piece but not as they are to be kept; each comes before the
    /// range of the index beside it, and behind the last range if that is their number. Only framings that shorten
    /// records have any.
    pub spliced: Vec<(usize, Vec<u8>)>,
    /// How many records the joined one, the ranges and the spliced ones hold together.
    pub records: u64,
    /// Records dropped, or shortened where the framing says so, because they were longer than the limit.
    pub overlong: u64,
    /// Records dropped because the peer closed before all the bytes that their header announced had come.
    pub truncated: u64,
    /// Parts of records that are put aside, in order; only from a splitter that does so.
    pub aside: Vec<AsidePart>,
    /// Bytes to send back to the peer at once.
    pub replies: Vec<u8>,
    /// Answers that the peer is owed later. The records among them are those of this piece, each one.
    pub owed: Vec<Owed>,
}

impl Found {
    /// Forgets everything, keeping the memory.
    pub fn clear(&mut self) {
        self.joined.clear();
        self.ranges.clear();
        self.range_records.clear();
        self.spliced.clear();
        self.aside.clear();
        self.replies.clear();
        self.owed.clear();
        self.records = 0;
        self.overlong = 0;
        self.truncated = 0;
    }

    /// Gives back memory that few pieces need.
    pub fn shrink(&mut self) {
        let owned = self.joined.capacity()
            + self.ranges.capacity() * size_of::<Range<usize>>()
            + self.owed.capacity() * size_of::<Owed>();
        if owned > KEPT_MAX {
            *self = Found::default();
        }
    }

    /// Adds a range of so many whole records, unless it is empty.
    fn push_range(&mut self, range: Range<usize>, records: u64) {
        if !range.is_empty() {
            self.records += records;
            self.ranges.push(range);
            self.range_records.push(records);
        }
    }

    /// Adds one record behind the last range.
    fn push_spliced(&mut self, record: Vec<u8>) {
        self.records += 1;
        self.spliced.push((self.ranges.len(), record));
    }

    /// Owes an answer to the record that has this number.
    fn owe_record(&mut self, number: u32) {
        match self.owed.last_mut() {
            Some(Owed::Records { first, count }) if number.checked_sub(*first) == Some(*count) => {
                *count += 1;
            }
            _ => self.owed.push(Owed::Records { first: number, count: 1 }),
        }
    }
}

/// A frame that cannot be understood; the connection must be closed, for nothing after it can be trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed(pub String);

/// The state of one connection's framing.
pub trait Splitter: Send {
    /// Looks at the next piece of the stream. What was found before a malformed frame is kept.
    ///
    /// # Errors
    /// If a frame is malformed; from then on every call says the same, and [`end`](Splitter::end) finds nothing.
    fn feed(&mut self, piece: &[u8], found: &mut Found) -> Result<(), Malformed>;

    /// The peer closed: an unterminated last line is completed, a frame that lacks bytes is dropped and counted.
    fn end(&mut self, found: &mut Found);

    /// Where the unfinished record lies.
    fn carry(&self) -> &Carry;

    /// The same, to be changed.
    fn carry_mut(&mut self) -> &mut Carry;

    /// Bytes of the unfinished record that are held now.
    fn pending(&self) -> usize {
        self.carry().len()
    }

    /// The memory that the unfinished record takes, in bytes: what is allocated for it, not only what is in it.
    fn held(&self) -> usize {
        self.carry().held()
    }

    /// Lends the bytes of the unfinished record out, until [`put_back`](Splitter::put_back) or
    /// [`give_up`](Splitter::give_up); one of them comes before anything else is asked.
    fn lend(&mut self) -> Vec<u8> {
        self.carry_mut().take()
    }

    /// Gives back what was lent.
    fn put_back(&mut self, bytes: Vec<u8>) {
        self.carry_mut().put_back(bytes);
    }

    /// What was lent is gone: from now on the unfinished record is an over-long one. Its rest is passed over up to its
    /// end, or put aside where the framing does that with over-long records; it is not counted as over-long here.
    /// `begin` are the first bytes of what was lent, [`BEGIN_BYTES`] or all of them, and `len` is how many it were.
    ///
    /// # Errors
    /// If its rest cannot be told from what follows; the connection must be closed.
    fn give_up(&mut self, begin: &[u8], len: usize) -> Result<(), Malformed>;
}

/// What a thread that waits keeps of a [`Found`], in bytes.
const KEPT_MAX: usize = 4096;

/// As many first bytes of an unfinished record as tell where it ends: more than the longest header has.
pub const BEGIN_BYTES: usize = 64;

const _: () =
    assert!(relp::HEADER_BYTES_MAX <= BEGIN_BYTES && frames::HEADER_BYTES_MAX <= BEGIN_BYTES);

/// What a framing says of an unfinished record that was given up before its header had come.
fn no_header() -> Malformed {
    Malformed("a record was given up before its header was whole".to_owned())
}

impl Framing {
    /// Its name in [`FRAMINGS`].
    pub fn name(self) -> &'static str {
        FRAMINGS.iter().find(|row| row.framing == self).expect("every framing has its row").name
    }

    /// The state of a new connection; a record longer than `record_bytes_max` bytes, header and `\n` not counted, is
    /// dropped and counted.
    pub fn splitter(self, record_bytes_max: usize) -> Box<dyn Splitter> {
        match self {
            Framing::Lines => Box::new(lines::LineSplitter::new(record_bytes_max)),
            Framing::OctetCounted => {
                Box::new(FrameSplitter::<octet_counted::OctetCounted>::new(record_bytes_max))
            }
            Framing::Syslog => Box::new(FrameSplitter::<syslog::Syslog>::new(record_bytes_max)),
            Framing::U32 => Box::new(FrameSplitter::<u32::U32>::new(record_bytes_max)),
            Framing::Relp => {
                Box::new(relp::RelpSplitter::new(record_bytes_max, relp::Overlong::Shorten))
            }
        }
    }

    /// The same, but over-long records are put aside whole ([`Found::aside`]) where the framing would shorten them.
    pub fn splitter_putting_aside(self, record_bytes_max: usize) -> Box<dyn Splitter> {
        match self {
            Framing::Relp => {
                Box::new(relp::RelpSplitter::new(record_bytes_max, relp::Overlong::PutAside))
            }
            other => other.splitter(record_bytes_max),
        }
    }

    /// How long the record at the start of `bytes` is, with its terminator or header, which may be more than there is; none
    /// if more bytes are needed to tell. For those who look for a boundary and do not want the records.
    ///
    /// # Errors
    /// If there is no record but something malformed.
    pub fn first_end(self, bytes: &[u8]) -> Result<Option<u64>, Malformed> {
        match self {
            Framing::Lines => Ok(lines::first_end(bytes)),
            Framing::OctetCounted => frames::first_end::<octet_counted::OctetCounted>(bytes),
            Framing::Syslog => frames::first_end::<syslog::Syslog>(bytes),
            Framing::U32 => frames::first_end::<u32::U32>(bytes),
            Framing::Relp => Err(Malformed("RELP is a dialogue with a peer".to_owned())),
        }
    }

    /// Whether a record may hold a line feed.
    pub fn holds_line_feeds(self) -> bool {
        self != Framing::Lines
    }

    /// Whether its peers wait for an answer to each record, and send again what was not answered.
    pub fn acknowledges(self) -> bool {
        self == Framing::Relp
    }

    /// Calls `each` with every record of a range of whole records, in order, without its terminator or header.
    pub fn for_each<'a>(self, range: &'a [u8], each: impl FnMut(&'a [u8])) {
        match self {
            Framing::Lines => lines_of(range).for_each(each),
            Framing::OctetCounted => frames::for_each::<octet_counted::OctetCounted>(range, each),
            Framing::Syslog => frames::for_each::<syslog::Syslog>(range, each),
            Framing::U32 => frames::for_each::<u32::U32>(range, each),
            Framing::Relp => relp::frame::for_each(range, each),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::framing::reference::{chop, reference, run};

    /// Streams of mostly good frames, and junk in which the bytes that a framing looks at are frequent.
    fn stream(framing: Framing) -> impl Strategy<Value = Vec<u8>> {
        let digit = b'0'..=b'9';
        let end = prop_oneof![2 => Just(b'\n'), 1 => Just(b'\r'), 1 => Just(b' '), 1 => Just(0)];
        let byte = prop_oneof![5 => end, 2 => digit, 3 => any::<u8>()];
        let part = (prop::collection::vec(byte, 0..30), 0..20u8).prop_map(move |(bytes, kind)| {
            match (framing, kind) {
                (_, 0) => bytes,
                (Framing::Lines, _) | (Framing::Syslog, 1..10) => {
                    [b"<", bytes.as_slice(), b"\n"].concat()
                }
                (Framing::OctetCounted | Framing::Syslog, _) => {
                    [format!("{} x", bytes.len() + 1).as_bytes(), &bytes].concat()
                }
                (Framing::Relp, 1) => b"9 close 0\n".to_vec(),
                (Framing::Relp, _) => {
                    let header = format!("{kind} syslog {} ", bytes.len());
                    [header.as_bytes(), &bytes, b"\n"].concat()
                }
                (Framing::U32, _) => [
                    &[0, 0, 0, u8::try_from(bytes.len()).expect("parts are short")],
                    bytes.as_slice(),
                ]
                .concat(),
            }
        });
        prop::collection::vec(part, 0..20).prop_map(move |parts| {
            let begin: &[u8] = if framing == Framing::Relp { RELP_OPEN } else { b"" };
            [begin, &parts.concat()].concat()
        })
    }

    /// Streams of RELP begin with this.
    const RELP_OPEN: &[u8] = b"1 open 30 relp_version=0\ncommands=syslog\n";

    #[test]
    fn each_framing_has_one_row() {
        for row in FRAMINGS {
            assert_eq!((row.framing.name(), by_name(row.name)), (row.name, Some(row.framing)));
        }
        assert_eq!(by_name("line"), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 500, ..ProptestConfig::default() })]
        #[test]
        fn any_chopping_gives_what_the_reference_finds(
            (framing, stream) in (0..FRAMINGS.len()).prop_flat_map(|row| {
                let framing = FRAMINGS[row].framing;
                (Just(framing), stream(framing))
            }),
            lengths in prop::collection::vec(0..40u8, 0..6),
            max in prop_oneof![0..30usize, 0..500usize, Just(usize::MAX)],
        ) {
            let found = run(framing, chop(&stream, &lengths), max);
            prop_assert_eq!(found, reference(framing, &stream, max), "{:?}", framing);
        }

        /// Records that are given up while they are unfinished, wherever that is, take nothing else with them.
        #[test]
        fn a_record_that_is_given_up_is_passed_over_and_nothing_else_is(
            (framing, stream) in (0..FRAMINGS.len() - 1).prop_flat_map(|row| {
                let framing = FRAMINGS[row].framing;
                (Just(framing), stream(framing))
            }),
            lengths in prop::collection::vec(0..40u8, 0..6),
            turns in prop::collection::vec(any::<bool>(), 1..9),
        ) {
            let (mut splitter, mut found) = (framing.splitter(usize::MAX), Found::default());
            let (mut records, mut given_up, mut malformed) = (Vec::new(), Vec::new(), false);
            for (piece, turn) in chop(&stream, &lengths).into_iter().zip(turns.iter().cycle()) {
                found.clear();
                malformed = splitter.feed(piece, &mut found).is_err();
                framing.for_each(&found.joined, |record| records.push(record.to_vec()));
                for range in &found.ranges {
                    framing.for_each(&piece[range.clone()], |record| records.push(record.to_vec()));
                }
                if malformed || !turn || splitter.pending() == 0 {
                    continue;
                }
                let lent = splitter.lend();
                prop_assert_eq!(splitter.held(), 0);
                // What may become an empty line, and then is no record that could be missing.
                let is_record = framing != Framing::Syslog || lent != b"\r";
                if is_record && splitter.give_up(&lent[..lent.len().min(BEGIN_BYTES)], lent.len()) == Ok(()) {
                    given_up.push(records.len() + given_up.len());
                } else {
                    // Or its header is not whole.
                    splitter.put_back(lent);
                }
            }
            if !malformed {
                found.clear();
                splitter.end(&mut found);
                framing.for_each(&found.joined, |record| records.push(record.to_vec()));
            }
            let expected = reference(framing, &stream, usize::MAX);
            let mut at = 0..;
            let left = expected.records.into_iter().filter(|_| !given_up.contains(&at.next().expect("endless")));
            prop_assert_eq!((records, malformed), (left.collect(), expected.malformed), "{:?}", framing);
        }
    }
}
