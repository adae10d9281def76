//! `Writer`: what consoles write to: standard output, or what a test gives. Once the reader of a pipe is gone, it is closed for
//! all consoles that share it. Runs on the worker that finishes a job; knows no rows.

use std::fmt;
use std::io::{self, IsTerminal, Write};

use super::pieces::Pieces;
use crate::sync::{Arc, AtomicBool, Mutex, Ordering};

/// The destination of consoles: standard output, or anything that takes bytes. Clones write to the same one, a batch at a time.
///
/// ```
/// use tidemill::sink::{Console, Format, Writer};
///
/// let file = tempfile::tempfile().expect("a file");
/// let log = Console::new(Writer::new(Box::new(file)).terminal(false), Format::Json);
/// let screen = Console::new(Writer::stdout(), Format::default());
/// ```
#[derive(Clone)]
pub struct Writer {
    to: Arc<Mutex<Box<dyn Write + Send>>>,
    /// The reader is gone.
    closed: Arc<AtomicBool>,
    /// It obeys control characters.
    terminal: bool,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Writer")
    }
}

impl Writer {
    /// Creates a writer that consoles share. It counts as no terminal.
    pub fn new(writer: Box<dyn Write + Send>) -> Self {
        Writer { to: Arc::new(Mutex::new(writer)), closed: Arc::default(), terminal: false }
    }

    /// Creates a writer of standard output, which knows whether that is a terminal.
    pub fn stdout() -> Self {
        let out = io::stdout();
        let terminal = out.is_terminal();
        Writer::new(Box::new(out)).terminal(terminal)
    }

    /// Says that the destination is a terminal, or none. For a terminal, texts in rows have control characters and bytes that
    /// are no UTF-8 escaped.
    pub fn terminal(self, terminal: bool) -> Self {
        Writer { terminal, ..self }
    }

    /// Set once the reader is gone.
    pub(super) fn closed(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.closed)
    }

    /// True if control characters would be obeyed.
    pub(super) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Writes what `make` makes, in the buffer `text`; nothing once the reader is gone.
    pub(super) fn write(
        &self,
        text: &mut Vec<u8>,
        make: impl FnOnce(&mut Pieces<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut writer = self.to.lock();
        if self.closed.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let mut out = |piece: &[u8]| writer.write_all(piece);
        let mut pieces = Pieces::new(text, &mut out);
        let written = make(&mut pieces).and_then(|()| pieces.end()).and_then(|()| writer.flush());
        if written.as_ref().is_err_and(|err| err.kind() == io::ErrorKind::BrokenPipe) {
            self.closed.store(true, Ordering::SeqCst);
        }
        written
    }
}
