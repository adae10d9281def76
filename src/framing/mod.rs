//! Framings: they cut a byte stream into records. Bytes in, ranges of whole records out; no sockets, no clocks.
//!
//! One framing is one file and one row of [`FRAMINGS`]. The row has the framing's properties and makes its [`Splitter`], so
//! nothing outside this room asks which framing it is. A splitter makes one pass over each piece that a connection read and
//! reports the places of the whole records; only the unfinished last record is carried. The task that processes a range
//! later finds the single records in it with [`Framing::for_each`].
//!
//! Every splitter has these obligations. One property test and the fuzz targets check them against reference splitters:
//! - The records do not depend on how the stream was cut into pieces.
//! - Ranges are in order, never empty, and adjacent ones are merged. They keep terminators and headers, so that ranges
//!   concatenate without changing a record.
//! - A record of up to `record_bytes_max` bytes is found; a longer one is counted once and nothing in it is taken for a
//!   record. The limit counts the record as it was sent, without its header or `\n`. A framing that acknowledges keeps the
//!   first `record_bytes_max` bytes of it, marked, since the peer would send it again if it were dropped.
//! - At most `record_bytes_max` bytes and a header are carried (or a control frame), and never more than really arrived.

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
pub use self::lines::{ends_are_plain, lines_of};

/// A way to cut a byte stream into records.
///
/// ```
/// use tidemill::source::Framing;
///
/// assert_eq!((Framing::Relp.name(), Framing::Relp.acknowledges()), ("relp", true));
/// assert!(Framing::Lines.is_lines() && Framing::U32.holds_line_feeds());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Framing {
    /// `\n` ends a record; one `\r` before it is dropped.
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
    /// True if its peers wait for an answer to each record, and send again every record that was not answered.
    pub acknowledges: bool,
    /// True if the records of a range are its lines: a line feed ends each of them, and none holds one.
    pub is_lines: bool,
    /// Makes the state of a new connection, for records of at most this many bytes.
    splitter: fn(usize, Overlong) -> Box<dyn Splitter>,
    /// See [`Framing::first_end`].
    first_end: fn(&[u8]) -> Result<Option<u64>, Malformed>,
}

/// Every framing, in the order of the enum.
pub const FRAMINGS: &[Row] = &[
    Row {
        name: "lines",
        framing: Framing::Lines,
        about: "a line feed ends a record, a carriage return before it is dropped",
        acknowledges: false,
        is_lines: true,
        splitter: |max, _| Box::new(lines::LineSplitter::new(max)),
        first_end: |bytes| Ok(lines::first_end(bytes)),
    },
    Row {
        name: "octet_counted",
        framing: Framing::OctetCounted,
        about: "decimal length, a space, the record (RFC 6587)",
        acknowledges: false,
        is_lines: false,
        splitter: frames::splitter::<octet_counted::OctetCounted>,
        first_end: frames::first_end::<octet_counted::OctetCounted>,
    },
    Row {
        name: "syslog",
        framing: Framing::Syslog,
        about: "octet-counted if a frame starts with a digit from 1 to 9, else a line that is not empty; a line feed ends either",
        acknowledges: false,
        is_lines: false,
        splitter: frames::splitter::<syslog::Syslog>,
        first_end: frames::first_end::<syslog::Syslog>,
    },
    Row {
        name: "u32",
        framing: Framing::U32,
        about: "the length as four bytes, the highest first, then the record",
        acknowledges: false,
        is_lines: false,
        splitter: frames::splitter::<u32::U32>,
        first_end: frames::first_end::<u32::U32>,
    },
    Row {
        name: "relp",
        framing: Framing::Relp,
        about: "numbered frames that are acknowledged, as rsyslog's omrelp sends them; peers dial in",
        acknowledges: true,
        is_lines: false,
        splitter: relp::splitter,
        first_end: relp::first_end,
    },
];

const _: () = {
    let mut row = 0;
    while row < FRAMINGS.len() {
        assert!(FRAMINGS[row].framing as usize == row, "the rows are in the order of the enum");
        row += 1;
    }
};

/// The framing of this name in [`FRAMINGS`].
pub fn by_name(name: &str) -> Option<Framing> {
    FRAMINGS.iter().find(|row| row.name == name).map(|row| row.framing)
}

/// The treatment of over-long records by a framing that acknowledges. Other framings drop them.
#[derive(Clone, Copy, PartialEq)]
enum Overlong {
    Shorten,
    PutAside,
}

/// An answer that the peer of a framing that acknowledges is owed; answers are due in the order in which they were owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owed {
    /// An answer to each of these records, which are numbered consecutively.
    Records {
        /// The number of the first.
        first: u32,
        /// Number of records, at least one.
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
    /// True if the record ends here; the next part begins another one.
    pub is_last: bool,
}

/// The finds of a splitter in one piece. The caller reuses it: [`clear`](Found::clear), then feed.
#[derive(Debug, Default)]
pub struct Found {
    /// A record that began in an earlier piece and ended in this one, whole, with its terminator or header. It comes
    /// before the ranges. Empty if there is none.
    pub joined: Vec<u8>,
    /// The ranges of whole records in the piece, in order, with their terminators or headers.
    pub ranges: Vec<Range<usize>>,
    /// Number of records in each of the ranges, in the same order.
    pub range_records: Vec<u64>,
    /// Records, with terminator or header, that lie in the piece but not in the form to keep. Each comes before the range
    /// of the index beside it, or after the last range if the index is their number. Only framings that shorten records
    /// have any.
    pub spliced: Vec<(usize, Vec<u8>)>,
    /// Number of records in the joined one, the ranges and the spliced ones together.
    pub records: u64,
    /// Records dropped, or shortened where the framing says so, because they were longer than the limit.
    pub overlong: u64,
    /// Records dropped because the peer closed before all the bytes that their header announced had arrived.
    pub truncated: u64,
    /// Parts of records that are put aside, in order; only from a splitter that does so.
    pub aside: Vec<AsidePart>,
    /// Bytes to send back to the peer at once.
    pub replies: Vec<u8>,
    /// Answers that the peer is owed later. Every record of this piece is among them.
    pub owed: Vec<Owed>,
}

impl Found {
    /// Clears everything, keeping the memory.
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

    /// Frees memory that few pieces need.
    pub fn shrink(&mut self) {
        let owned = self.joined.capacity()
            + self.ranges.capacity() * size_of::<Range<usize>>()
            + self.owed.capacity() * size_of::<Owed>();
        if owned > KEPT_MAX {
            *self = Found::default();
        }
    }

    /// Adds a range of this many whole records, unless it is empty.
    fn push_range(&mut self, range: Range<usize>, records: u64) {
        if !range.is_empty() {
            self.records += records;
            self.ranges.push(range);
            self.range_records.push(records);
        }
    }

    /// Adds one record after the last range.
    fn push_spliced(&mut self, record: Vec<u8>) {
        self.records += 1;
        self.spliced.push((self.ranges.len(), record));
    }

    /// Adds an owed answer to the record that has this number.
    fn owe_record(&mut self, number: u32) {
        match self.owed.last_mut() {
            Some(Owed::Records { first, count }) if number.checked_sub(*first) == Some(*count) => {
                *count += 1;
            }
            _ => self.owed.push(Owed::Records { first: number, count: 1 }),
        }
    }
}

/// A frame that cannot be understood. The connection must be closed: nothing after it can be trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed(pub String);

/// The state of one connection's framing.
pub trait Splitter: Send {
    /// Splits the next piece of the stream. Finds before a malformed frame are kept.
    ///
    /// # Errors
    /// If a frame is malformed. From then on every call returns the same error, and [`end`](Splitter::end) finds nothing.
    fn feed(&mut self, piece: &[u8], found: &mut Found) -> Result<(), Malformed>;

    /// The peer closed. Completes an unterminated last line; drops and counts a frame that lacks bytes.
    fn end(&mut self, found: &mut Found);

    /// The unfinished record.
    fn carry(&self) -> &Carry;

    /// The same, to change it.
    fn carry_mut(&mut self) -> &mut Carry;

    /// Number of bytes of the unfinished record that are held now.
    fn pending(&self) -> usize {
        self.carry().len()
    }

    /// The memory that is allocated for the unfinished record, in bytes; may be more than the record's bytes.
    fn held(&self) -> usize {
        self.carry().held()
    }

    /// Lends the bytes of the unfinished record out. The next call must be [`put_back`](Splitter::put_back) or
    /// [`give_up`](Splitter::give_up).
    fn lend(&mut self) -> Vec<u8> {
        self.carry_mut().take()
    }

    /// Takes the lent bytes back.
    fn put_back(&mut self, bytes: Vec<u8>) {
        self.carry_mut().put_back(bytes);
    }

    /// Gives the unfinished record up, whose lent bytes are gone: from now on it is an over-long one. Its rest is skipped
    /// up to its end, or put aside if the splitter does that with over-long records. It is not counted as over-long here.
    /// `begin` holds the first `BEGIN_BYTES` of the lent bytes, or all of them if they were fewer; `len` is their number.
    ///
    /// # Errors
    /// If the end of the record cannot be found; the connection must be closed.
    fn give_up(&mut self, begin: &[u8], len: usize) -> Result<(), Malformed>;
}

/// The most memory of a [`Found`] that a waiting thread keeps, in bytes.
const KEPT_MAX: usize = 4096;

/// Number of first bytes of an unfinished record that are enough to find its end: more than the longest header has.
pub const BEGIN_BYTES: usize = 64;

const _: () =
    assert!(relp::HEADER_BYTES_MAX <= BEGIN_BYTES && frames::HEADER_BYTES_MAX <= BEGIN_BYTES);

/// The error for an unfinished record that was given up before its whole header had arrived.
fn no_header() -> Malformed {
    Malformed("a record was given up before its header was whole".to_owned())
}

impl Framing {
    fn row(self) -> &'static Row {
        // The rows are in the order of the enum.
        &FRAMINGS[self as usize]
    }

    /// The name in pipeline files and on the command line.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// Makes the state of a new connection. A record longer than `record_bytes_max` bytes, header and `\n` not counted, is
    /// dropped and counted; a framing that acknowledges shortens it instead.
    #[doc(hidden)]
    pub fn splitter(self, record_bytes_max: usize) -> Box<dyn Splitter> {
        (self.row().splitter)(record_bytes_max, Overlong::Shorten)
    }

    /// The same, but a framing that acknowledges puts over-long records aside whole ([`Found::aside`]).
    #[doc(hidden)]
    pub fn splitter_putting_aside(self, record_bytes_max: usize) -> Box<dyn Splitter> {
        (self.row().splitter)(record_bytes_max, Overlong::PutAside)
    }

    /// The length of the record at the start of `bytes`, with its terminator or header; it may be more than `bytes` holds.
    /// `None` if more bytes are needed to tell. For callers that look for a boundary and do not want the records.
    ///
    /// # Errors
    /// If there is no record but something malformed.
    #[doc(hidden)]
    pub fn first_end(self, bytes: &[u8]) -> Result<Option<u64>, Malformed> {
        (self.row().first_end)(bytes)
    }

    /// Returns true if the records of a range are its lines: a line feed ends each of them, and none holds one.
    pub fn is_lines(self) -> bool {
        self.row().is_lines
    }

    /// Returns true if a record may hold a line feed.
    pub fn holds_line_feeds(self) -> bool {
        !self.is_lines()
    }

    /// Returns true if its peers wait for an answer to each record, and send again every record that was not answered.
    pub fn acknowledges(self) -> bool {
        self.row().acknowledges
    }

    /// Calls `each` with every record of a range of whole records, in order, without its terminator or header.
    ///
    /// Not a function of the row: `each` runs once per record and must be inlined into the loop.
    #[doc(hidden)]
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

    /// Streams of mostly good frames, and of junk with many of the bytes that a framing looks at.
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

    fn framings_and_streams(which: fn(&Row) -> bool) -> impl Strategy<Value = (Framing, Vec<u8>)> {
        let rows: Vec<_> = FRAMINGS.iter().filter(|row| which(row)).collect();
        prop::sample::select(rows).prop_flat_map(|row| (Just(row.framing), stream(row.framing)))
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

    #[test]
    fn each_framing_is_in_the_guide_and_has_a_fuzz_target() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let guide =
            std::fs::read_to_string(root.join("docs/guide/pipeline-file.md")).expect("guide");
        for Row { name, .. } in FRAMINGS {
            assert!(guide.contains(&format!("\n| `{name}` | ")), "{name}");
            assert!(root.join(format!("fuzz/fuzz_targets/{name}.rs")).is_file(), "{name}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 500, ..ProptestConfig::default() })]
        #[test]
        fn any_chopping_gives_what_the_reference_finds(
            (framing, stream) in framings_and_streams(|_| true),
            lengths in prop::collection::vec(0..40u8, 0..6),
            max in prop_oneof![0..30usize, 0..500usize, Just(usize::MAX)],
        ) {
            let found = run(framing, chop(&stream, &lengths), max);
            prop_assert_eq!(found, reference(framing, &stream, max), "{:?}", framing);
        }

        /// A record that is given up while it is unfinished, wherever that is, takes nothing else with it.
        #[test]
        fn a_record_that_is_given_up_is_passed_over_and_nothing_else_is(
            (framing, stream) in framings_and_streams(|row| !row.acknowledges),
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
                // A lone `\r` may become an empty line, and then is no record that could be missing.
                let is_record = framing != Framing::Syslog || lent != b"\r";
                if is_record && splitter.give_up(&lent[..lent.len().min(BEGIN_BYTES)], lent.len()) == Ok(()) {
                    given_up.push(records.len() + given_up.len());
                } else {
                    // Here the header may be incomplete.
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
