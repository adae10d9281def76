//! `Console`: prints each batch, as text in the manner of Spark or as one line of JSON.
//!
//! A batch is one write and one flush, so that a reader of the pipe sees whole batches at once. Runs on the worker that
//! finishes a job. Writes to what it is given; standard output is chosen far above.

use std::fmt;
use std::io::{self, Write};

use super::{BatchMeta, Cell, CommitKey, Ledger, RowRef, Rows, Sink};
use crate::error::{Error, Result};
use crate::sync::{Arc, Mutex};

/// Rows that the text format prints of each batch.
pub const ROWS_SHOWN: usize = 10;

/// How a batch looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A header with the time and at most so many rows.
    Spark(usize),
    /// One line of JSON for each job and batch, with all rows.
    Json,
}

/// What consoles write to; several may share one.
#[derive(Clone)]
pub struct Writer(Arc<Mutex<Box<dyn Write + Send>>>);

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Writer")
    }
}

impl Writer {
    /// A writer to be shared.
    pub fn new(writer: Box<dyn Write + Send>) -> Self {
        Writer(Arc::new(Mutex::new(writer)))
    }

    fn write_once(&self, text: &[u8]) -> io::Result<()> {
        let mut writer = self.0.lock();
        writer.write_all(text)?;
        writer.flush()
    }
}

/// A sink that prints.
#[derive(Debug)]
pub struct Console {
    writer: Writer,
    format: Format,
    /// Reused from batch to batch.
    text: Vec<u8>,
    committed: Ledger,
}

impl Console {
    /// A console that writes to `writer`.
    pub fn new(writer: Writer, format: Format) -> Self {
        Console { writer, format, text: Vec::new(), committed: Ledger::default() }
    }
}

impl Sink for Console {
    fn committed(&mut self, key: &CommitKey) -> Result<bool> {
        Ok(self.committed.committed(key))
    }

    fn write(&mut self, key: &CommitKey, meta: &BatchMeta, rows: &Rows) -> Result<()> {
        self.text.clear();
        match self.format {
            Format::Spark(limit) => spark(&mut self.text, key, rows, limit),
            Format::Json => json(&mut self.text, key, meta, rows),
        }
        .map_err(|err| Error::io("cannot format a batch", err))
    }

    /// What was written to a pipe cannot be taken back, so the text leaves only here.
    fn commit(&mut self, key: &CommitKey) -> Result<()> {
        self.writer.write_once(&self.text).map_err(explain)?;
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

fn spark(out: &mut Vec<u8>, key: &CommitKey, rows: &Rows, limit: usize) -> io::Result<()> {
    writeln!(out, "{RULE}\nTime: {} ms\n{RULE}", key.time.as_millis())?;
    for row in rows.iter().take(limit) {
        spark_row(out, row)?;
    }
    if rows.len() > limit {
        writeln!(out, "...")?;
    }
    writeln!(out)
}

fn spark_row(out: &mut Vec<u8>, row: RowRef<'_>) -> io::Result<()> {
    let single = row.cells().nth(1).is_none();
    if !single {
        out.push(b'(');
    }
    for (column, cell) in row.cells().enumerate() {
        if column > 0 {
            out.push(b',');
        }
        plain_cell(out, cell)?;
    }
    out.extend_from_slice(if single { b"\n" } else { b")\n" });
    Ok(())
}

fn plain_cell(out: &mut Vec<u8>, cell: Cell<'_>) -> io::Result<()> {
    match cell {
        Cell::Text(text) => out.write_all(String::from_utf8_lossy(text).as_bytes()),
        Cell::U64(value) => write!(out, "{value}"),
        Cell::I64(value) => write!(out, "{value}"),
        Cell::F64(value) => write!(out, "{value}"),
        Cell::Bool(value) => write!(out, "{value}"),
        Cell::Null => write!(out, "null"),
    }
}

fn json(out: &mut Vec<u8>, key: &CommitKey, meta: &BatchMeta, rows: &Rows) -> io::Result<()> {
    write!(out, "{{\"job\":")?;
    serde_json::to_writer(&mut *out, &*key.job)?;
    write!(
        out,
        ",\"batch_time_ms\":{},\"records\":{},\"rows\":[",
        key.time.as_millis(),
        meta.records
    )?;
    for (number, row) in rows.iter().enumerate() {
        out.extend_from_slice(if number == 0 { b"[" } else { b",[" });
        for (column, cell) in row.cells().enumerate() {
            if column > 0 {
                out.push(b',');
            }
            json_cell(out, cell)?;
        }
        out.push(b']');
    }
    let BatchMeta { scheduling_delay_us, processing_us, total_us, .. } = meta;
    write!(
        out,
        "],\"scheduling_delay_us\":{scheduling_delay_us},\"processing_us\":{processing_us}"
    )?;
    writeln!(out, ",\"total_us\":{total_us}}}")
}

fn json_cell(out: &mut Vec<u8>, cell: Cell<'_>) -> io::Result<()> {
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
