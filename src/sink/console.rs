//! `Console`: prints each batch, as text in the manner of Spark or as one line of JSON.
//!
//! A batch is one write and one flush, so that a reader of the pipe sees whole batches at once; a longer one leaves in
//! pieces, with nothing of others between them. Once the reader of a pipe is gone, all consoles that write to it are closed.
//! What peers sent is escaped where a terminal would obey it. Runs on the worker that finishes a job. Writes to what it is
//! given; standard output is chosen far above.

use std::borrow::Cow;
use std::io::{self, Write};

use super::options::{
    KeyText, Opening, ShortForm, SinkKind, SinkOptions, SinkRow, TIME, read_time,
};
use super::pieces::Pieces;
use super::writer::Writer;
use super::{BatchMeta, Cell, CommitKey, Ledger, RowRef, Rows, SharedSink, Sink};
use crate::error::{Error, Result};
use crate::framing::escape::escape;
use crate::settings::key::Key;
use crate::settings::section::Section;
use crate::sync::{Arc, AtomicBool};
use crate::time::Time;
use crate::wording::{escaped_bytes, escaped_json};

/// The number of rows that the text format prints of each batch by default.
pub const ROWS_SHOWN: usize = 10;

/// Its row.
pub(super) const ROW: SinkRow = SinkRow {
    name: "console",
    about: "prints each batch on standard output, as text or as JSON lines",
    keys: &[
        Key {
            name: "format",
            takes: "`spark` or `json`",
            default: "spark",
            about: "a heading and up to ten rows, or a line of JSON for each job and batch",
        },
        TIME,
    ],
    example: "[sink.NAME.console]\nformat = \"json\"",
    short_forms: &[
        ShortForm {
            begins: "console",
            value: "",
            more: "",
            settings: |_| vec![KeyText::new("format", "spark")],
        },
        ShortForm {
            begins: "json",
            value: "",
            more: "",
            settings: |_| vec![KeyText::new("format", "json")],
        },
    ],
    read,
};

/// The look of a batch on a console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A heading with the time, at most this many rows, and `...` if there are more; ten by default. With zero there is the
    /// heading alone.
    Spark(usize),
    /// One line of JSON for each job and batch, with all rows.
    Json,
}

impl Default for Format {
    fn default() -> Self {
        Format::Spark(ROWS_SHOWN)
    }
}

/// The options of a [`Console`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConsoleOptions {
    /// The look of a batch.
    pub format: Format,
    /// Each row of JSON has the time of its batch: `{"batch_time_ms":1000,"row":["a",1]}` instead of `["a",1]`. The text
    /// format has it in the heading.
    pub time: bool,
}

impl From<Format> for ConsoleOptions {
    fn from(format: Format) -> Self {
        ConsoleOptions { format, time: false }
    }
}

fn read(section: &mut Section<'_>) -> Option<SinkKind> {
    let formats = [("spark", Format::default()), ("json", Format::Json)];
    let format = section.choice("format", "format", &formats).map(|found| found.value);
    let format = format.unwrap_or_default();
    let time = read_time(section, format == Format::Json);
    Some(ConsoleOptions { format, time }.into())
}

impl SinkOptions for ConsoleOptions {
    fn row(&self) -> &'static SinkRow {
        &ROW
    }

    fn open(&self, opening: &Opening<'_>) -> Result<SharedSink> {
        Ok(SharedSink::new(Console::new(opening.console.clone(), *self)))
    }

    fn summary(&self) -> String {
        match self.format {
            Format::Spark(_) => "console, spark".to_owned(),
            Format::Json => "console, json".to_owned(),
        }
    }

    fn is_standard_output(&self) -> bool {
        true
    }
}

/// A sink that prints each batch, as text in the manner of Spark or as one line of JSON. It delivers at least once: a console
/// remembers nothing, so a batch that is run again after a crash is printed again.
///
/// A batch is written and flushed at once. A reader that does not read blocks the batch; once the reader of a pipe is gone, all
/// consoles that write to it are closed, and the stream ends if it has no other output. Control characters are escaped on a
/// terminal.
///
/// ```
/// use tidemill::sink::{Console, Format, Writer};
/// use tidemill::{Config, StreamingContext, testing::ManualClock};
///
/// let ctx = StreamingContext::with_clock(Config::new("doc"), ManualClock::new())?;
/// let numbers = ctx.queue_stream(vec![Some(vec![3, 1, 2])], 1);
/// numbers.count().save(Console::new(Writer::stdout(), Format::Json));
/// ctx.run_batches(1)?; // prints {"job":"save#0","batch_time_ms":1000,"records":3,"rows":[[3]], ...}
/// # Ok::<(), tidemill::Error>(())
/// ```
#[derive(Debug)]
pub struct Console {
    writer: Writer,
    options: ConsoleOptions,
    /// Rows may hold line feeds, which would look like rows of their own: text has them escaped.
    gets_line_feeds: bool,
    /// Reused from batch to batch.
    text: Vec<u8>,
    /// The rows that were written and not committed.
    written: (BatchMeta, Rows),
    committed: Ledger,
}

impl Console {
    /// Creates a console that writes to `writer`. A [`Format`] alone is enough for the options.
    pub fn new(writer: Writer, options: impl Into<ConsoleOptions>) -> Self {
        let (options, text) = (options.into(), Vec::new());
        let (written, committed) = Default::default();
        Console { writer, options, gets_line_feeds: false, text, written, committed }
    }
}

impl Sink for Console {
    fn awaits(&self) -> &'static str {
        "its reader must read"
    }

    /// One more than is shown: dots stand for it.
    fn rows_max(&self) -> usize {
        match self.options.format {
            Format::Spark(limit) => limit.saturating_add(1),
            Format::Json => usize::MAX,
        }
    }

    fn expect_line_feeds(&mut self) {
        self.gets_line_feeds = true;
    }

    fn closed(&self) -> Option<Arc<AtomicBool>> {
        Some(self.writer.closed())
    }

    fn committed(&mut self, key: &CommitKey) -> Result<bool> {
        Ok(self.committed.committed(key))
    }

    fn write(&mut self, _key: &CommitKey, meta: &BatchMeta, rows: &Rows) -> Result<()> {
        self.written = (*meta, rows.clone());
        Ok(())
    }

    /// Text in a pipe cannot be taken back, so it leaves only here.
    fn commit(&mut self, key: &CommitKey) -> Result<()> {
        let (meta, rows) = std::mem::take(&mut self.written);
        let ConsoleOptions { format, time } = self.options;
        let (escapes, terminal) = (self.gets_line_feeds, self.writer.is_terminal());
        let make = |out: &mut Pieces<'_>| match format {
            Format::Spark(limit) => {
                spark(out, key, &meta, &rows, Shown { limit, escapes, terminal })
            }
            Format::Json => json(out, key, &meta, &rows, JsonRows { times: time, terminal }),
        };
        self.writer.write(&mut self.text, make).map_err(explain)?;
        self.committed.commit(key);
        Ok(())
    }
}

fn explain(err: io::Error) -> Error {
    match err.kind() {
        io::ErrorKind::BrokenPipe => {
            Error::io("the reader of the console output closed it (broken pipe)", err)
        }
        _ => Error::io("cannot write to the console", err),
    }
}

const RULE: &str = "-------------------------------------------";

/// The limits of the text format.
#[derive(Clone, Copy)]
struct Shown {
    /// Rows of each batch.
    limit: usize,
    /// Line feeds inside texts are escaped.
    escapes: bool,
    /// Control characters are escaped.
    terminal: bool,
}

fn spark(
    out: &mut Pieces<'_>,
    key: &CommitKey,
    meta: &BatchMeta,
    rows: &Rows,
    shown: Shown,
) -> io::Result<()> {
    let incomplete = if meta.incomplete { " (incomplete)" } else { "" };
    writeln!(out.text, "{RULE}\nTime: {} ms{incomplete}\n{RULE}", key.time.as_millis())?;
    for row in rows.iter().take(shown.limit) {
        spark_row(out.text, row, shown)?;
        out.row_ends()?;
    }
    if rows.len() > shown.limit {
        writeln!(out.text, "...")?;
    }
    writeln!(out.text)
}

fn spark_row(out: &mut Vec<u8>, row: RowRef<'_>, shown: Shown) -> io::Result<()> {
    let single = row.cells().nth(1).is_none();
    if !single {
        out.push(b'(');
    }
    for (column, cell) in row.cells().enumerate() {
        if column > 0 {
            out.push(b',');
        }
        match cell {
            Cell::Text(text) => text_cell(out, text, shown),
            _ => plain_cell(out, cell)?,
        }
    }
    out.extend_from_slice(if single { b"\n" } else { b")\n" });
    Ok(())
}

fn text_cell(out: &mut Vec<u8>, text: &[u8], shown: Shown) {
    let text = if shown.terminal { Cow::Borrowed(text) } else { mended(text) };
    let start = out.len();
    match shown.escapes {
        true => escape(&text, out),
        false => out.extend_from_slice(&text),
    }
    if shown.terminal {
        let safe = escaped_bytes(&out[start..]);
        out.truncate(start);
        out.extend_from_slice(safe.as_bytes());
    }
}

/// The text in UTF-8.
fn mended(text: &[u8]) -> Cow<'_, [u8]> {
    match String::from_utf8_lossy(text) {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    }
}

fn plain_cell(out: &mut Vec<u8>, cell: Cell<'_>) -> io::Result<()> {
    match cell {
        Cell::Text(text) => out.write_all(&mended(text)),
        Cell::U64(value) => write!(out, "{value}"),
        Cell::I64(value) => write!(out, "{value}"),
        Cell::F64(value) => write!(out, "{value}"),
        Cell::Bool(value) => write!(out, "{value}"),
        Cell::Null => write!(out, "null"),
    }
}

/// The look of rows of JSON.
#[derive(Clone, Copy)]
struct JsonRows {
    /// Each has the time of its batch.
    times: bool,
    /// Control characters are escaped.
    terminal: bool,
}

/// Begins a row with the time of its batch; what follows is its array and a brace.
pub(super) fn json_time(out: &mut Vec<u8>, time: Time) -> io::Result<()> {
    write!(out, "{{\"batch_time_ms\":{},\"row\":", time.as_millis())
}

fn json(
    out: &mut Pieces<'_>,
    key: &CommitKey,
    meta: &BatchMeta,
    rows: &Rows,
    shown: JsonRows,
) -> io::Result<()> {
    write!(out.text, "{{\"job\":")?;
    serde_json::to_writer(&mut *out.text, &*key.job)?;
    write!(
        out.text,
        ",\"batch_time_ms\":{},\"records\":{},{}\"rows\":[",
        key.time.as_millis(),
        meta.records,
        if meta.incomplete { "\"incomplete\":true," } else { "" }
    )?;
    for (number, row) in rows.iter().enumerate() {
        if number > 0 {
            out.text.push(b',');
        }
        if shown.times {
            json_time(out.text, key.time)?;
        }
        out.text.push(b'[');
        for (column, cell) in row.cells().enumerate() {
            if column > 0 {
                out.text.push(b',');
            }
            let start = out.text.len();
            json_cell(out.text, cell)?;
            if shown.terminal && matches!(cell, Cell::Text(_)) {
                let safe = escaped_json(&String::from_utf8_lossy(&out.text[start..]));
                out.text.truncate(start);
                out.text.extend_from_slice(safe.as_bytes());
            }
        }
        out.text.extend_from_slice(if shown.times { &b"]}"[..] } else { b"]" });
        out.row_ends()?;
    }
    let BatchMeta { scheduling_delay_us, processing_us, total_us, .. } = meta;
    write!(
        out.text,
        "],\"scheduling_delay_us\":{scheduling_delay_us},\"processing_us\":{processing_us}"
    )?;
    writeln!(out.text, ",\"total_us\":{total_us}}}")
}

pub(super) fn json_cell(out: &mut Vec<u8>, cell: Cell<'_>) -> io::Result<()> {
    match cell {
        Cell::Text(text) => serde_json::to_writer(&mut *out, &String::from_utf8_lossy(text))?,
        Cell::F64(value) => serde_json::to_writer(&mut *out, &value)?,
        Cell::U64(value) => write!(out, "{value}")?,
        Cell::I64(value) => write!(out, "{value}")?,
        Cell::Bool(value) => write!(out, "{value}")?,
        Cell::Null => write!(out, "null")?,
    }
    Ok(())
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;
    use crate::sink::given::{self, rows};
    use crate::sync::Mutex;

    /// Counts writes, to see that a batch is one.
    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<(Vec<u8>, usize)>>);

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut seen = self.0.lock();
            seen.0.extend_from_slice(bytes);
            seen.1 += 1;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn key(ms: u64) -> CommitKey {
        given::key("words", ms)
    }

    const META: BatchMeta = BatchMeta {
        records: 5,
        scheduling_delay_us: 12,
        processing_us: 340,
        total_us: 352,
        incomplete: false,
    };

    fn check(format: Format, rows: &Rows, expected: &str) {
        check_meta(format, &META, rows, expected);
    }

    fn check_meta(format: Format, meta: &BatchMeta, rows: &Rows, expected: &str) {
        let seen = Captured::default();
        let sink = SharedSink::new(Console::new(Writer::new(Box::new(seen.clone())), format));
        for _ in 0..2 {
            sink.deliver(&key(1_500_000_000_000), meta, rows).expect("it is taken");
        }
        let seen = seen.0.lock();
        assert_eq!(
            (String::from_utf8_lossy(&seen.0).as_ref(), seen.1),
            (expected, 1),
            "written once, at once"
        );
    }

    #[test]
    fn a_large_batch_leaves_in_pieces() {
        let texts: Vec<String> = (0..20_000).map(|number| format!("{number:010}")).collect();
        let seen = Captured::default();
        let sink = SharedSink::new(Console::new(Writer::new(Box::new(seen.clone())), Format::Json));
        sink.deliver(&key(1), &META, &rows(&texts)).expect("it is taken");
        let seen = seen.0.lock();
        let line: serde_json::Value = serde_json::from_slice(&seen.0).expect("one line of JSON");
        let found = line["rows"].as_array().expect("rows").iter().map(|row| &row[0]);
        assert!(found.eq(texts.iter()) && seen.0.ends_with(b"\"total_us\":352}\n"));
        assert_eq!(seen.1, seen.0.len().div_ceil(64 * 1024), "writes");
    }

    #[test]
    fn spark_format() {
        let header = format!("{0}\nTime: 1500000000000 ms\n{0}\n", "-".repeat(43));
        let check = |rows: &Rows, expected: &str| {
            check(Format::Spark(ROWS_SHOWN), rows, &format!("{header}{expected}"))
        };
        check(&rows(&[("hello", 2_u64), ("world", 1)]), "(hello,2)\n(world,1)\n\n");
        check(&rows::<u64>(&[]), "\n");
        check(&rows(&[-1]), "-1\n\n");
        check(
            &rows(&[("a", 1.5, Some(true)), ("b", 0.25, None)]),
            "(a,1.5,true)\n(b,0.25,null)\n\n",
        );
        check(&rows(&[b"\xFF".to_vec()]), "\u{FFFD}\n\n");
        check(&rows(&[7_u8; 10]), &("7\n".repeat(10) + "\n"));
        check(&rows(&[7_u8; 11]), &("7\n".repeat(10) + "...\n\n"));
    }

    #[test]
    fn no_record_looks_like_several_rows() {
        let seen = Captured::default();
        let console = Console::new(Writer::new(Box::new(seen.clone())), Format::Spark(2));
        let sink = SharedSink::new(console);
        sink.expect_line_feeds();
        sink.deliver(&key(1), &META, &rows(&["a\nTime: 2 ms", r"C:\temp"])).expect("it is taken");
        let shown = String::from_utf8(seen.0.lock().0.clone()).expect("text");
        assert_eq!(shown.lines().nth(3), Some(r"a\nTime: 2 ms"));
        assert_eq!(shown.lines().nth(4), Some(r"C:\temp"));
    }

    #[test]
    fn json_format() {
        let check = |rows: &Rows, expected: &str| {
            let start = r#"{"job":"words","batch_time_ms":1500000000000,"records":5,"rows":"#;
            let end = r#","scheduling_delay_us":12,"processing_us":340,"total_us":352}"#;
            check(Format::Json, rows, &format!("{start}{expected}{end}\n"));
        };
        check(&rows(&[("hello", 2_u64), ("world", 1)]), r#"[["hello",2],["world",1]]"#);
        check(&rows::<u64>(&[]), "[]");
        check(&rows(&[5_u64]), "[[5]]");
        check(
            &rows(&[(b"\xFF\"\n".to_vec(), -3_i64, Some(true))]),
            "[[\"\u{FFFD}\\\"\\n\",-3,true]]",
        );
        check(&rows(&[(f64::NAN, 1.5, None::<u8>)]), "[[null,1.5,null]]");
    }

    #[test]
    fn rows_of_json_have_the_time_if_that_is_asked_for() {
        let seen = Captured::default();
        let options = ConsoleOptions { format: Format::Json, time: true };
        let console = Console::new(Writer::new(Box::new(seen.clone())), options);
        let sink = SharedSink::new(console);
        sink.deliver(&key(1500), &META, &rows(&[("a", 1_u64), ("b", 2)])).expect("it is taken");
        let line: serde_json::Value =
            serde_json::from_slice(&seen.0.lock().0).expect("a line of JSON");
        let row = |text: &str, count: u64| serde_json::json!({"batch_time_ms": 1500, "row": [text, count]});
        assert_eq!(line["rows"], serde_json::json!([row("a", 1), row("b", 2)]));
    }

    #[test]
    fn a_batch_that_lacks_input_says_so() {
        let meta = BatchMeta { incomplete: true, ..META };
        let rule = "-".repeat(43);
        let text = format!("{rule}\nTime: 1500000000000 ms (incomplete)\n{rule}\n5\n\n");
        check_meta(Format::Spark(ROWS_SHOWN), &meta, &rows(&[5_u64]), &text);
        let line = r#"{"job":"words","batch_time_ms":1500000000000,"records":5,"incomplete":true,"rows":[[5]],"#;
        let times = r#""scheduling_delay_us":12,"processing_us":340,"total_us":352}"#;
        check_meta(Format::Json, &meta, &rows(&[5_u64]), &format!("{line}{times}\n"));
    }

    #[test]
    fn a_terminal_is_shown_nothing_that_it_obeys() {
        let check = |terminal: bool, format: Format, line_feeds: bool, expected: &str| {
            let seen = Captured::default();
            let writer = Writer::new(Box::new(seen.clone())).terminal(terminal);
            let sink = SharedSink::new(Console::new(writer, format));
            if line_feeds {
                sink.expect_line_feeds();
            }
            let row = (b"\x1b[2J\n\xc2\x9b\xff".to_vec(), 1_u64);
            sink.deliver(&key(1), &META, &rows(&[row])).expect("it is taken");
            let shown = String::from_utf8(seen.0.lock().0.clone()).expect("UTF-8");
            assert!(shown.contains(expected), "{expected:?}: {shown:?}");
        };
        let text = Format::Spark(2);
        check(false, text, false, "(\u{1b}[2J\n\u{9b}\u{fffd},1)\n");
        check(false, text, true, "(\u{1b}[2J\\n\u{9b}\u{fffd},1)\n");
        check(true, text, false, r"(\u{1b}[2J\n\u{9b}\xff,1)");
        check(true, text, true, r"(\u{1b}[2J\n\u{9b}\xff,1)");
        check(false, Format::Json, true, "[[\"\\u001b[2J\\n\u{9b}\u{fffd}\",1]]");
        check(true, Format::Json, true, "[[\"\\u001b[2J\\n\\u009b\u{fffd}\",1]]");
    }

    #[test]
    fn a_closed_pipe_is_an_error_that_says_so() {
        let writer = Writer::new(Box::new(Closed));
        let console = || SharedSink::new(Console::new(writer.clone(), Format::Json));
        let (sink, other) = (console(), console());
        assert!(!sink.is_closed());
        for _ in 0..2 {
            let error = sink.deliver(&key(1), &META, &Rows::new()).unwrap_err().to_string();
            assert!(error.contains("broken pipe"), "{error}");
            assert!(sink.is_closed() && other.is_closed(), "of one writer");
        }
    }
}
