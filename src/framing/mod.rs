//! Framings: how a byte stream is cut into records. Bytes in, ranges of whole records out; no sockets, no clocks.
//!
//! One framing is one file and one row of [`FRAMINGS`]. A [`Splitter`] makes one pass over each piece that a connection
//! read and reports where the whole records lie; only the unfinished last record is carried. The task that processes a
//! range later finds the single records in it with [`Framing::for_each`].

mod carry;
mod lines;
#[cfg(test)]
mod reference;

use std::ops::Range;

/// A framing that users name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Framing {
    /// `\n` ends a record.
    Lines,
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
pub const FRAMINGS: &[Row] = &[Row {
    name: "lines",
    framing: Framing::Lines,
    about: "a line feed ends a record, a carriage return before it is dropped",
}];

/// What a splitter found in one piece. The caller reuses it: [`clear`](Found::clear) before each call, then feed.
#[derive(Debug, Default)]
pub struct Found {
    /// A record that began in an earlier piece and ended in this one, whole, with its terminator or header. It comes
    /// before the ranges. Empty if there is none.
    pub joined: Vec<u8>,
    /// Where whole records lie in the piece, in order, with their terminators or headers.
    pub ranges: Vec<Range<usize>>,
    /// How many records the joined one and the ranges hold together.
    pub records: u64,
    /// Records dropped because they were longer than the limit.
    pub overlong: u64,
    /// Bytes to send back to the peer.
    pub replies: Vec<u8>,
}

impl Found {
    /// Forgets everything, keeping the memory.
    pub fn clear(&mut self) {
        self.joined.clear();
        self.ranges.clear();
        self.replies.clear();
        self.records = 0;
        self.overlong = 0;
    }

    /// Adds a range of whole records, unless it is empty.
    fn push_range(&mut self, range: Range<usize>, piece: &[u8], count: impl Fn(&[u8]) -> u64) {
        if !range.is_empty() {
            self.records += count(&piece[range.clone()]);
            self.ranges.push(range);
        }
    }
}

/// A frame that cannot be understood; the connection must be closed, for nothing after it can be trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed(pub String);

/// The state of one connection's framing.
pub trait Splitter: Send {
    /// Looks at the next piece of the stream. Ranges found before a malformed frame are kept.
    ///
    /// # Errors
    /// If a frame is malformed.
    fn feed(&mut self, piece: &[u8], found: &mut Found) -> Result<(), Malformed>;

    /// The peer closed: an unterminated last record is completed, if the framing allows one.
    fn end(&mut self, found: &mut Found);

    /// Bytes of the unfinished record that are held now.
    fn pending(&self) -> usize;
}

impl Framing {
    /// The state of a new connection; a record longer than `record_bytes_max` bytes is dropped and counted.
    pub fn splitter(self, record_bytes_max: usize) -> Box<dyn Splitter> {
        match self {
            Framing::Lines => Box::new(lines::LineSplitter::new(record_bytes_max)),
        }
    }

    /// Calls `each` with every record of a range of whole records, in order, without its terminator or header.
    pub fn for_each<'a>(self, range: &'a [u8], each: impl FnMut(&'a [u8])) {
        match self {
            Framing::Lines => lines::for_each(range, each),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::framing::reference::{chop, reference, run};

    /// Streams in which the bytes that a framing looks at are frequent.
    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![4 => Just(b'\n'), 2 => Just(b'\r'), 4 => b'0'..=b'9', 2 => Just(b' '), 2 => Just(0), 6 => any::<u8>()];
        prop::collection::vec(byte, 0..400)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn any_chopping_gives_what_the_reference_finds(
            stream in stream(),
            lengths in prop::collection::vec(0..40u8, 0..6),
            max in prop_oneof![0..12usize, 0..500usize, Just(usize::MAX)],
        ) {
            for row in FRAMINGS {
                let found = run(row.framing, chop(&stream, &lengths), max);
                prop_assert_eq!(found, reference(row.framing, &stream, max), "{}", row.name);
            }
        }
    }
}
