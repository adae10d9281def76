//! `Rows`: encoded cells in buffers plus the offsets of the rows, and the trait by which elements become rows.
//!
//! ```text
//! encoded: bytes | tag payload | tag payload |  | tag payload | ...      ends: [end of row 0, end of row 1, ...]
//! rows:    part, part, .. (whole: shared by clones), part (open: grows)
//! ```
//! Written by the tasks of a job's last stage, read by sinks. A text is its length in LEB128 and its bytes; numbers are
//! eight bytes, little endian. Only this file knows the encoding. Many rows are many parts: a buffer that doubles would be
//! copied, and take up to three times what it holds. Those that tasks make lie in pooled buffers, so that memory goes round
//! between input and rows, whichever threads they are of. Lines that pass through a job unchanged are not encoded: their
//! rows lie in the block that was received, and a sink may take whole ranges of it.

use std::fmt;

use crate::blocks::Block;
use crate::framing::lines_of;
use crate::memory::buffer_pool::{BUFFER_BYTES, Pool};
use crate::sync::Arc;

/// A part is whole when less than this is left of its buffer, in bytes.
const LEFT_MIN: usize = 4 * 1024;

/// Bytes that the buffers of a part may be too large by.
const SPARE_MAX: usize = 2 * LEFT_MIN;

/// The rows of a batch, in order. A clone shares all but the last few of them. Rows of lines that a job passed on unchanged lie
/// in the blocks that were received: a sink that keeps rows for long keeps that memory.
///
/// ```
/// use tidemill::sink::{Cell, Rows};
///
/// let mut rows = Rows::new();
/// rows.push(&("to", 2_u64));
/// rows.push(&("be", 1_u64));
/// let first: Vec<Cell> = rows.iter().next().expect("two rows").cells().collect();
/// assert_eq!(first, [Cell::Text(b"to"), Cell::U64(2)]);
/// assert_eq!((rows.len(), rows.is_empty()), (2, false));
/// ```
#[derive(Clone, Default)]
pub struct Rows {
    whole: Vec<Part>,
    open: Encoded,
    /// The origin of the buffers of further parts.
    pool: Option<Arc<Pool>>,
}

#[derive(Clone)]
enum Part {
    Encoded(Arc<Encoded>),
    /// A block of lines: each is a row of one text. Holding it keeps it in memory.
    Lines(Arc<Block>),
}

#[derive(Default)]
struct Encoded {
    bytes: Vec<u8>,
    /// The end of each row in `bytes`.
    ends: Vec<usize>,
    /// The origin of the buffer.
    pool: Option<Arc<Pool>>,
}

impl Clone for Encoded {
    fn clone(&self) -> Self {
        Encoded { bytes: self.bytes.clone(), ends: self.ends.clone(), pool: None }
    }
}

impl Drop for Encoded {
    fn drop(&mut self) {
        if let Some(pool) = &self.pool {
            pool.give_back_vec(std::mem::take(&mut self.bytes));
        }
    }
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
    /// Creates an empty list, for tests of sinks.
    pub fn new() -> Self {
        Rows::default()
    }

    /// No rows yet; if there will be many, they are in buffers of this pool.
    #[doc(hidden)]
    pub fn in_pool(pool: &Arc<Pool>) -> Self {
        Rows { pool: Some(Arc::clone(pool)), ..Rows::default() }
    }

    /// The records of a block as rows of one text, without a copy; none if they are not lines.
    #[doc(hidden)]
    pub fn of_lines(block: Arc<Block>) -> Option<Self> {
        let is_lines = block.info.framing.is_lines();
        is_lines.then(|| Rows { whole: vec![Part::Lines(block)], ..Rows::default() })
    }

    /// Appends an element as a row.
    pub fn push(&mut self, row: &(impl Row + ?Sized)) {
        let part = &mut self.open;
        row.cells(&mut RowWriter { bytes: &mut part.bytes });
        part.ends.push(part.bytes.len());
        if part.bytes.len() > BUFFER_BYTES - LEFT_MIN {
            let next = Encoded::after(part, self.pool.as_ref());
            let mut whole = std::mem::replace(part, next);
            // A long row has made it grow.
            if whole.bytes.capacity() - whole.bytes.len() >= SPARE_MAX {
                whole.bytes.shrink_to_fit();
            }
            self.whole.push(Part::Encoded(Arc::new(whole)));
        }
    }

    /// Moves the rows of `other` behind these, without copying them.
    #[doc(hidden)]
    pub fn append(&mut self, other: Rows) {
        if !self.open.ends.is_empty() {
            let open = std::mem::take(&mut self.open);
            self.whole.push(Part::Encoded(Arc::new(open)));
        }
        self.whole.extend(other.whole);
        (self.open, self.pool) = (other.open, other.pool);
    }

    /// Gives back what the last buffer is too large by, where it is much: it may wait for a sink for long.
    #[doc(hidden)]
    pub fn trim(&mut self) {
        let Encoded { bytes, ends, .. } = &self.open;
        if bytes.capacity() - bytes.len() >= SPARE_MAX
            || ends.capacity() - ends.len() >= SPARE_MAX / size_of::<usize>()
        {
            self.open = self.open.clone();
        }
    }

    /// Their memory, in bytes, without that of the blocks that rows lie in, which is counted with those.
    #[doc(hidden)]
    pub fn bytes(&self) -> usize {
        let own =
            |part: &Encoded| part.bytes.capacity() + size_of::<usize>() * part.ends.capacity();
        self.encoded().map(own).sum()
    }

    /// The memory that rows which lie in blocks would need if they were copied, in bytes.
    #[doc(hidden)]
    pub fn bytes_of_copy(&self) -> usize {
        // In place of its terminator a row has the tag and the length of its text, and an end.
        let copy =
            |block: &Block| block.info.bytes + block.info.records * (1 + size_of::<usize>() as u64);
        let bytes: u64 = self.whole.iter().filter_map(Part::block).map(copy).sum();
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        let lines = |block: &Block| usize::try_from(block.info.records).unwrap_or(usize::MAX);
        let lines: usize = self.whole.iter().filter_map(Part::block).map(lines).sum();
        lines + self.encoded().map(|part| part.ends.len()).sum::<usize>()
    }

    /// Returns true if there is no row.
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
        self.whole.iter().flat_map(Part::runs).chain(self.open.rows().map(Run::Row))
    }

    fn encoded(&self) -> impl Iterator<Item = &Encoded> {
        self.whole.iter().filter_map(Part::encoded).chain([&self.open])
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

    fn block(&self) -> Option<&Block> {
        if let Part::Lines(block) = self { Some(block) } else { None }
    }
}

impl Encoded {
    /// An empty part, with room for as many rows as `last` has.
    fn after(last: &Encoded, pool: Option<&Arc<Pool>>) -> Encoded {
        let rows = last.ends.len();
        let bytes = pool.map_or_else(|| Vec::with_capacity(BUFFER_BYTES), |it| it.lease_vec());
        Encoded { bytes, ends: Vec::with_capacity(rows + rows / 16), pool: pool.cloned() }
    }

    fn rows(&self) -> impl Iterator<Item = RowRef<'_>> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let rows = starts.zip(&self.ends);
        rows.map(|(start, &end)| RowRef { text: None, rest: &self.bytes[start..end] })
    }
}

/// One row of [`Rows`].
///
/// ```
/// use tidemill::sink::{Cell, Rows};
///
/// let mut rows = Rows::new();
/// rows.push(&(7_u64, true));
/// let row = rows.iter().next().expect("one row");
/// assert_eq!(row.cells().collect::<Vec<_>>(), [Cell::U64(7), Cell::Bool(true)]);
/// ```
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

/// The value of one column of a row, as a sink reads it.
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

/// The cells of a row, in column order.
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

/// Takes the cells of an element; see [`Row`].
pub struct RowWriter<'a> {
    bytes: &'a mut Vec<u8>,
}

impl fmt::Debug for RowWriter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RowWriter")
    }
}

impl RowWriter<'_> {
    /// Writes the next cell of the row. The text of a cell is copied.
    ///
    ///
    /// ```
    /// use tidemill::sink::{Cell, Row, RowWriter};
    ///
    /// struct Celsius(f64);
    ///
    /// impl Row for Celsius {
    ///     fn cells(&self, out: &mut RowWriter<'_>) {
    ///         out.cell(Cell::F64(self.0));
    ///         out.cell(Cell::Text(b"C"));
    ///     }
    /// }
    /// ```
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

/// An element that can be a row of a sink. Text, bytes, numbers and truth values are one cell each; a tuple is the cells of its
/// parts, one after the other; `None` is an empty cell. A type of your own says what its cells are.
///
/// ```
/// use tidemill::sink::{Cell, Row, RowWriter, Rows};
///
/// struct Order {
///     item: String,
///     cents: u64,
/// }
///
/// impl Row for Order {
///     fn cells(&self, out: &mut RowWriter<'_>) {
///         out.cell(Cell::Text(self.item.as_bytes()));
///         out.cell(Cell::U64(self.cents));
///     }
/// }
///
/// let mut rows = Rows::new();
/// rows.push(&Order { item: "tea".to_owned(), cents: 450 });
/// let row = rows.iter().next().expect("one row");
/// assert_eq!(row.cells().nth(1), Some(Cell::U64(450)));
/// ```
pub trait Row {
    /// Writes the cells, in column order. Called by worker threads, once for each element.
    ///
    /// ```
    /// use tidemill::sink::{Cell, Row, RowWriter};
    ///
    /// struct Cents(u64);
    ///
    /// impl Row for Cents {
    ///     fn cells(&self, out: &mut RowWriter<'_>) {
    ///         out.cell(Cell::U64(self.0));
    ///     }
    /// }
    /// ```
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
