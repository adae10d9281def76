//! `Rows`: encoded cells in one buffer plus the offsets of the rows, and the trait by which elements become rows.
//!
//! ```text
//! bytes: | tag payload | tag payload |  | tag payload | ...      ends: [end of row 0, end of row 1, ...]
//! ```
//! Written by the tasks of a job's last stage, read by sinks. A text is its length in LEB128 and its bytes; numbers are
//! eight bytes, little endian. Only this file knows the encoding. Lines that pass through a job unchanged are not encoded:
//! their rows lie in the block that was received, and a sink may take whole ranges of it.

use std::fmt;

use crate::block::Block;
use crate::framing::{Framing, lines_of};
use crate::sync::Arc;

/// Bytes that a buffer of rows may be too large by.
const SPARE_MAX: usize = 64 * 1024;

/// Rows in order, in one or more buffers.
#[derive(Clone, Default)]
pub struct Rows {
    parts: Vec<Part>,
}

#[derive(Clone)]
enum Part {
    Encoded(Encoded),
    /// A block of lines: each is a row of one text. Holding it keeps it in memory.
    Lines(Arc<Block>),
}

#[derive(Clone, Default)]
struct Encoded {
    bytes: Vec<u8>,
    /// Where each row ends in `bytes`.
    ends: Vec<usize>,
}

/// Rows that a sink may take at once.
#[derive(Debug)]
pub(super) enum Run<'a> {
    /// One row.
    Row(RowRef<'a>),
    /// Lines with their terminators, each of which is a row of one text.
    Lines(&'a [u8]),
}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl Rows {
    /// No rows.
    pub fn new() -> Self {
        Rows::default()
    }

    /// The records of a block as rows of one text, without a copy; none if they are not lines.
    pub fn of_lines(block: Arc<Block>) -> Option<Self> {
        (block.framing() == Framing::Lines).then(|| Rows { parts: vec![Part::Lines(block)] })
    }

    /// Appends an element as a row.
    pub fn push(&mut self, row: &(impl Row + ?Sized)) {
        if !matches!(self.parts.last(), Some(Part::Encoded(_))) {
            self.parts.push(Part::Encoded(Encoded::default()));
        }
        let Some(Part::Encoded(part)) = self.parts.last_mut() else { return };
        row.cells(&mut RowWriter { bytes: &mut part.bytes });
        part.ends.push(part.bytes.len());
    }

    /// Moves the rows of `other` behind these, without copying them.
    pub fn append(&mut self, other: Rows) {
        self.parts.extend(other.parts);
    }

    /// Gives back what buffers grew too far, where it is much: they may wait for a sink for long.
    pub fn trim(&mut self) {
        for part in self.parts.iter_mut().filter_map(Part::encoded_mut) {
            if part.bytes.capacity() - part.bytes.len() >= SPARE_MAX {
                part.bytes.shrink_to_fit();
            }
            if part.ends.capacity() - part.ends.len() >= SPARE_MAX / size_of::<usize>() {
                part.ends.shrink_to_fit();
            }
        }
    }

    /// Their memory, in bytes, without that of the blocks that rows lie in, which is counted with those.
    pub fn bytes(&self) -> usize {
        let own =
            |part: &Encoded| part.bytes.capacity() + size_of::<usize>() * part.ends.capacity();
        self.parts.iter().filter_map(Part::encoded).map(own).sum()
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        let rows = |part: &Part| match part {
            Part::Encoded(part) => part.ends.len(),
            Part::Lines(block) => usize::try_from(block.records()).unwrap_or(usize::MAX),
        };
        self.parts.iter().map(rows).sum()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The rows, in order.
    pub fn iter(&self) -> impl Iterator<Item = RowRef<'_>> {
        let rows = |run| {
            let (row, lines): (_, &[u8]) = match run {
                Run::Row(row) => (Some(row), &[]),
                Run::Lines(range) => (None, range),
            };
            row.into_iter().chain(lines_of(lines).map(RowRef::of_text))
        };
        self.runs().flat_map(rows)
    }

    /// The rows, in order, for who can do something with several at once.
    pub(super) fn runs(&self) -> impl Iterator<Item = Run<'_>> {
        self.parts.iter().flat_map(Part::runs)
    }
}

impl Part {
    fn runs(&self) -> impl Iterator<Item = Run<'_>> {
        let encoded = self.encoded().into_iter().flat_map(Encoded::rows).map(Run::Row);
        let ranges = self.block().into_iter().flat_map(|block| block.ranges());
        encoded.chain(ranges.map(|range| Run::Lines(range)))
    }

    fn encoded(&self) -> Option<&Encoded> {
        if let Part::Encoded(part) = self { Some(part) } else { None }
    }

    fn encoded_mut(&mut self) -> Option<&mut Encoded> {
        if let Part::Encoded(part) = self { Some(part) } else { None }
    }

    fn block(&self) -> Option<&Block> {
        if let Part::Lines(block) = self { Some(block) } else { None }
    }
}

impl Encoded {
    fn rows(&self) -> impl Iterator<Item = RowRef<'_>> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let rows = starts.zip(&self.ends);
        rows.map(|(start, &end)| RowRef { text: None, rest: &self.bytes[start..end] })
    }
}

/// One row.
#[derive(Clone, Copy)]
pub struct RowRef<'a> {
    /// A first cell that is not encoded.
    text: Option<&'a [u8]>,
    rest: &'a [u8],
}

impl<'a> RowRef<'a> {
    /// A row of one text.
    pub(super) fn of_text(text: &'a [u8]) -> Self {
        RowRef { text: Some(text), rest: &[] }
    }

    /// The cells, in column order.
    pub fn cells(&self) -> Cells<'a> {
        Cells(*self)
    }
}

impl fmt::Debug for RowRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.cells()).finish()
    }
}

/// The value of one column of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cell<'a> {
    /// Bytes that are meant as text; they need not be UTF-8.
    Text(&'a [u8]),
    /// A whole number without a sign.
    U64(u64),
    /// A whole number with a sign.
    I64(i64),
    /// A floating-point number.
    F64(f64),
    /// True or false.
    Bool(bool),
    /// Nothing: the unmatched side of an outer join.
    Null,
}

const TEXT: u8 = 0;
const U64: u8 = 1;
const I64: u8 = 2;
const F64: u8 = 3;
const FALSE: u8 = 4;
const TRUE: u8 = 5;
const NULL: u8 = 6;

/// The cells of a row.
#[derive(Clone, Debug)]
pub struct Cells<'a>(RowRef<'a>);

impl<'a> Cells<'a> {
    fn take(&mut self, len: usize) -> &'a [u8] {
        let (head, rest) = self.0.rest.split_at(len);
        self.0.rest = rest;
        head
    }

    fn word(&mut self) -> [u8; 8] {
        self.take(8).try_into().expect("eight bytes were taken")
    }

    fn len(&mut self) -> usize {
        let (mut len, mut shift) = (0, 0);
        loop {
            let byte = self.take(1)[0];
            len |= usize::from(byte & 0x7F) << shift;
            shift += 7;
            if byte < 0x80 {
                return len;
            }
        }
    }
}

impl<'a> Iterator for Cells<'a> {
    type Item = Cell<'a>;

    fn next(&mut self) -> Option<Cell<'a>> {
        if let Some(text) = self.0.text.take() {
            return Some(Cell::Text(text));
        }
        let (&tag, rest) = self.0.rest.split_first()?;
        self.0.rest = rest;
        Some(match tag {
            TEXT => {
                let len = self.len();
                Cell::Text(self.take(len))
            }
            U64 => Cell::U64(u64::from_le_bytes(self.word())),
            I64 => Cell::I64(i64::from_le_bytes(self.word())),
            F64 => Cell::F64(f64::from_le_bytes(self.word())),
            FALSE => Cell::Bool(false),
            TRUE => Cell::Bool(true),
            _ => Cell::Null,
        })
    }
}

/// Where an element writes its cells.
pub struct RowWriter<'a> {
    bytes: &'a mut Vec<u8>,
}

impl fmt::Debug for RowWriter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RowWriter")
    }
}

impl RowWriter<'_> {
    /// Writes the next cell of the row.
    pub fn cell(&mut self, cell: Cell<'_>) {
        match cell {
            Cell::Text(text) => self.text(text),
            Cell::U64(value) => self.tagged(U64, &value.to_le_bytes()),
            Cell::I64(value) => self.tagged(I64, &value.to_le_bytes()),
            Cell::F64(value) => self.tagged(F64, &value.to_le_bytes()),
            Cell::Bool(value) => self.bytes.push(if value { TRUE } else { FALSE }),
            Cell::Null => self.bytes.push(NULL),
        }
    }

    fn tagged(&mut self, tag: u8, payload: &[u8]) {
        self.bytes.push(tag);
        self.bytes.extend_from_slice(payload);
    }

    fn text(&mut self, text: &[u8]) {
        self.bytes.push(TEXT);
        let mut len = text.len();
        while len >= 0x80 {
            self.bytes.push(u8::try_from(len & 0x7F).expect("seven bits") | 0x80);
            len >>= 7;
        }
        self.bytes.push(u8::try_from(len).expect("seven bits"));
        self.bytes.extend_from_slice(text);
    }
}

/// An element that can be a row of a sink. A tuple is the cells of its parts, one after the other.
pub trait Row {
    /// Writes the cells, in column order.
    fn cells(&self, out: &mut RowWriter<'_>);
}

impl<R: Row + ?Sized> Row for &R {
    fn cells(&self, out: &mut RowWriter<'_>) {
        (**self).cells(out);
    }
}

impl<R: Row> Row for Option<R> {
    fn cells(&self, out: &mut RowWriter<'_>) {
        match self {
            Some(value) => value.cells(out),
            None => out.cell(Cell::Null),
        }
    }
}

impl<A: Row, B: Row> Row for (A, B) {
    fn cells(&self, out: &mut RowWriter<'_>) {
        self.0.cells(out);
        self.1.cells(out);
    }
}

impl<A: Row, B: Row, C: Row> Row for (A, B, C) {
    fn cells(&self, out: &mut RowWriter<'_>) {
        self.0.cells(out);
        self.1.cells(out);
        self.2.cells(out);
    }
}

macro_rules! row {
    ($($kind:ty),+ => |$value:ident| $cell:expr) => {$(
        impl Row for $kind {
            fn cells(&self, out: &mut RowWriter<'_>) {
                let $value = self;
                out.cell($cell);
            }
        }
    )+};
}

row!(str, String => |value| Cell::Text(value.as_bytes()));
row!([u8], Vec<u8> => |value| Cell::Text(value));
row!(u64 => |value| Cell::U64(*value));
row!(u8, u16, u32 => |value| Cell::U64(u64::from(*value)));
row!(i64 => |value| Cell::I64(*value));
row!(i8, i16, i32 => |value| Cell::I64(i64::from(*value)));
row!(usize => |value| Cell::U64(*value as u64));
row!(isize => |value| Cell::I64(*value as i64));
row!(f64 => |value| Cell::F64(*value));
row!(f32 => |value| Cell::F64(f64::from(*value)));
row!(bool => |value| Cell::Bool(*value));

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sink::given::lines;

    #[test]
    fn rows_of_several_parts_are_read_in_order() {
        let (mut rows, mut more) = (Rows::new(), Rows::new());
        rows.push("a");
        rows.push(&(1_u8, (-1_i8, true)));
        more.push(&(usize::MAX, isize::MIN, Some(0.5_f32)));
        rows.append(Rows::new());
        rows.append(more);
        rows.push(&(false, None::<u8>));
        let shown = format!("{rows:?}");
        let expected = "[[Text([97])], [U64(1), I64(-1), Bool(true)], [U64(18446744073709551615), \
                        I64(-9223372036854775808), F64(0.5)], [Bool(false), Null]]";
        assert_eq!((shown.as_str(), rows.len()), (expected, 4));
    }

    #[test]
    fn lines_of_a_block_are_rows_where_they_lie() {
        let mut all = Rows::new();
        all.push("made");
        all.append(lines(&["a\n\nb\r\n", "c\n"]));
        all.push("after");
        let texts: Vec<_> = all.iter().flat_map(|row| row.cells()).collect();
        let expected = ["made", "a", "", "b", "c", "after"];
        assert_eq!(texts, expected.map(|text| Cell::Text(text.as_bytes())));
        assert_eq!((all.len(), lines(&["a\n"]).bytes()), (6, 0));
        assert!(lines(&[]).is_empty());
    }

    proptest! {
        #[test]
        fn texts_come_back(texts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20)) {
            let mut rows = Rows::new();
            texts.iter().for_each(|text| rows.push(&(text.clone(), text.len())));
            for (row, text) in rows.iter().zip(&texts) {
                let cells: Vec<Cell<'_>> = row.cells().collect();
                prop_assert_eq!(cells, vec![Cell::Text(text), Cell::U64(text.len() as u64)]);
            }
        }
    }
}
