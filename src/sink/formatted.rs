//! The look of rows in a file, and their way there: formatted and written piece by piece.
//!
//! ```text
//! rows ─ format ─▶ a piece of text ──┐
//! lines as they were received ───────┴─▶ one write for each MiB ─▶ the disk begins with it
//! ```
//! Lines that are rows as they are go from the block to the file without another copy. What is written is not durable.
//! Runs on the worker that finishes a job. It does not know what a file is called or when it counts.

use std::io::{self, Write};

use super::console::{json_cell, json_time};
use super::rows::Run;
use super::{Cell, RowRef, Rows};
use crate::framing::escape::{escape, lines_are_plain};
use crate::framing::{ends_are_plain, lines_of};
use crate::settings::key::Key;
use crate::settings::section::Section;
use crate::storage::{StoredFile, WriteBehind, read_full, write_all};
use crate::time::Time;

/// The bytes of one write, unless a row is longer.
const PIECE_BYTES: usize = 1 << 20;

/// The storage is told after so many bytes that they are hardly read again: less stays in memory.
const TOLD_BYTES: u64 = 4 << 20;

/// The look of rows in a file, a line each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FileFormat {
    /// The bytes of a single cell; several as `(a,b)`. The file ends in `.txt`.
    #[default]
    Text,
    /// A JSON array, in which bytes that are not UTF-8 are U+FFFD. The file ends in `.json`.
    Json,
    /// Comma-separated values, quoted where they must be. The file ends in `.csv`.
    Csv,
}

impl FileFormat {
    /// The end of the names of its files.
    pub(crate) fn end(self) -> &'static str {
        match self {
            FileFormat::Text => "txt",
            FileFormat::Json => "json",
            FileFormat::Csv => "csv",
        }
    }

    /// Its number in ledgers and manifests.
    pub(super) fn number(self) -> u8 {
        match self {
            FileFormat::Text => 0,
            FileFormat::Json => 1,
            FileFormat::Csv => 2,
        }
    }

    /// The format of that number.
    pub(super) fn of_number(number: u8) -> Option<Self> {
        [FileFormat::Text, FileFormat::Json, FileFormat::Csv].into_iter().nth(usize::from(number))
    }
}

/// The fate of a line feed inside a text, where rows are lines of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineFeeds {
    /// It becomes `\\n`, and what could be taken for that is told apart. A `files` source with
    /// [`unescape`](crate::FilesSource::unescape) reads the rows back.
    Escape,
    /// It stays, so that the row becomes several lines.
    Keep,
}

/// The key `line_feeds`.
pub(super) const LINE_FEEDS: Key = Key {
    name: "line_feeds",
    takes: "`escape` or `keep`",
    default: "`keep` if all records are lines",
    about: "the fate of a line feed inside a text, where rows are lines of text",
};

pub(super) fn read_line_feeds(section: &mut Section<'_>) -> Option<LineFeeds> {
    let choices = [("escape", LineFeeds::Escape), ("keep", LineFeeds::Keep)];
    section.choice("line_feeds", "way with line feeds", &choices).map(|found| found.value)
}

/// The way rows become lines.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) format: FileFormat,
    /// Matters to text alone.
    pub(super) line_feeds: LineFeeds,
    /// The batch's time, where each row of JSON has it.
    pub(super) time: Option<Time>,
}

impl Layout {
    /// True if lines are written as they were received.
    fn takes_lines(self, range: &[u8]) -> bool {
        let escapes = self.line_feeds == LineFeeds::Escape;
        self.format == FileFormat::Text
            && ends_are_plain(range)
            && (!escapes || lines_are_plain(range))
    }
}

/// The end of rows in a file, and their CRC-32C from its beginning, where somebody compares it later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) end: u64,
    pub(super) sum: Option<u32>,
}

impl Extent {
    /// Nothing so far, to be summed up.
    pub(super) fn summed() -> Extent {
        Extent { end: 0, sum: Some(0) }
    }

    /// With these bytes behind it.
    fn with(self, bytes: &[u8]) -> Extent {
        let sum = self.sum.map(|sum| crc32c::crc32c_append(sum, bytes));
        Extent { end: self.end + bytes.len() as u64, sum }
    }
}

/// Reads on from there up to `end`, or to the end of the file.
///
/// # Errors
/// What the operating system says.
pub(super) fn sum_up(file: &dyn StoredFile, from: Extent, end: u64) -> io::Result<Extent> {
    let mut read = from;
    let left = usize::try_from(end.saturating_sub(from.end)).unwrap_or(usize::MAX);
    let mut bytes = vec![0; left.min(PIECE_BYTES)];
    while read.end < end {
        let wanted = usize::try_from(end - read.end).unwrap_or(usize::MAX).min(bytes.len());
        match read_full(file, read.end, &mut bytes[..wanted])? {
            0 => break,
            got => read = read.with(&bytes[..got]),
        }
    }
    Ok(read)
}

/// Writes rows behind what is in a file and returns how far it goes then.
///
/// # Errors
/// What the storage says; some of them may have been written.
pub(super) fn write_rows(
    file: &dyn StoredFile,
    from: Extent,
    layout: Layout,
    rows: &Rows,
) -> io::Result<Extent> {
    let mut writing = Writing {
        file,
        written: from,
        behind: WriteBehind::new(from.end, TOLD_BYTES),
        text: Vec::new(),
        ranges: Vec::new(),
        ranges_bytes: 0,
    };
    for run in rows.runs() {
        match run {
            Run::Lines(range) if layout.takes_lines(range) => writing.range(range)?,
            Run::Lines(range) => {
                lines_of(range).try_for_each(|line| writing.row(layout, RowRef::of_text(line)))?;
            }
            Run::Row(row) => writing.row(layout, row)?,
        }
    }
    writing.write_text()?;
    writing.write_ranges()?;
    Ok(writing.written)
}

/// Rows that were handed over and are not written: text or ranges, never both.
struct Writing<'a> {
    file: &'a dyn StoredFile,
    written: Extent,
    behind: WriteBehind,
    text: Vec<u8>,
    ranges: Vec<&'a [u8]>,
    ranges_bytes: usize,
}

impl<'a> Writing<'a> {
    fn row(&mut self, layout: Layout, row: RowRef<'_>) -> io::Result<()> {
        self.write_ranges()?;
        write_row(&mut self.text, layout, row)?;
        if self.text.len() >= PIECE_BYTES { self.write_text() } else { Ok(()) }
    }

    fn range(&mut self, range: &'a [u8]) -> io::Result<()> {
        self.write_text()?;
        self.ranges.push(range);
        self.ranges_bytes += range.len();
        if self.ranges_bytes >= PIECE_BYTES { self.write_ranges() } else { Ok(()) }
    }

    fn write_text(&mut self) -> io::Result<()> {
        if self.text.is_empty() {
            return Ok(());
        }
        write_all(self.file, self.written.end, &[&self.text])?;
        self.wrote(self.written.with(&self.text));
        self.text.clear();
        Ok(())
    }

    fn write_ranges(&mut self) -> io::Result<()> {
        if self.ranges.is_empty() {
            return Ok(());
        }
        write_all(self.file, self.written.end, &self.ranges)?;
        self.wrote(self.ranges.iter().fold(self.written, |written, range| written.with(range)));
        self.ranges.clear();
        self.ranges_bytes = 0;
        Ok(())
    }

    fn wrote(&mut self, written: Extent) {
        self.written = written;
        self.behind.wrote(self.file, written.end);
    }
}

/// Writes a row with its line feed.
pub(super) fn write_row(out: &mut Vec<u8>, layout: Layout, row: RowRef<'_>) -> io::Result<()> {
    let several = row.cells().nth(1).is_some();
    let (open, close): (&[u8], &[u8]) = match (layout.format, layout.time) {
        (FileFormat::Text, _) if several => (b"(", b")\n"),
        (FileFormat::Text | FileFormat::Csv, _) => (b"", b"\n"),
        (FileFormat::Json, None) => (b"[", b"]\n"),
        (FileFormat::Json, Some(time)) => {
            json_time(out, time)?;
            (b"[", b"]}\n")
        }
    };
    out.extend_from_slice(open);
    for (column, cell) in row.cells().enumerate() {
        if column > 0 {
            out.push(b',');
        }
        match (layout.format, cell) {
            (FileFormat::Json, _) => json_cell(out, cell)?,
            (FileFormat::Text, Cell::Text(text)) if layout.line_feeds == LineFeeds::Escape => {
                escape(text, out);
            }
            (FileFormat::Text, _) => raw_cell(out, cell, "null")?,
            (FileFormat::Csv, _) => csv_cell(out, cell, several)?,
        }
    }
    out.extend_from_slice(close);
    Ok(())
}

fn raw_cell(out: &mut Vec<u8>, cell: Cell<'_>, null: &str) -> io::Result<()> {
    match cell {
        Cell::Text(text) => out.write_all(text),
        Cell::U64(value) => write!(out, "{value}"),
        Cell::I64(value) => write!(out, "{value}"),
        Cell::F64(value) => write!(out, "{value}"),
        Cell::Bool(value) => write!(out, "{value}"),
        Cell::Null => out.write_all(null.as_bytes()),
    }
}

/// As RFC 4180 says, but that a line ends with `\n`. A single empty text is quoted, so that it is no empty line.
fn csv_cell(out: &mut Vec<u8>, cell: Cell<'_>, several: bool) -> io::Result<()> {
    let Cell::Text(text) = cell else { return raw_cell(out, cell, "") };
    let special = |byte: &u8| matches!(byte, b',' | b'"' | b'\r' | b'\n');
    if !text.iter().any(special) && (several || !text.is_empty()) {
        return out.write_all(text);
    }
    out.push(b'"');
    for byte in text {
        if *byte == b'"' {
            out.push(b'"');
        }
        out.push(*byte);
    }
    out.push(b'"');
    Ok(())
}
