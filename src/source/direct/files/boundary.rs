//! Finds the boundary up to which a batch can take a file: the end of its last whole record, and no more than a piece. Runs on
//! the job loop.
//!
//! For lines it only looks for the last terminator of a piece, from its end backwards, so it does not read the records. Counted
//! framings are walked from header to header, since the bytes around a boundary do not show it.

use std::io;

use memchr::{memchr, memrchr};

use super::catalog::{Content, Known};
use super::listing::{OpenFile, read_full};
use crate::framing::Framing;

/// Bytes of one read while a boundary is looked for.
const LOOK_BYTES: usize = 64 * 1024;

/// More than the longest header of a framing, in bytes.
const HEADER_BYTES: u64 = 16;

/// The bounds of a piece.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) framing: Framing,
    pub(super) record_bytes_max: u64,
    /// Whole records end a piece at this size, in bytes; a single one may be longer.
    pub(super) piece_bytes: u64,
    /// The file grows no more: its end completes its last record.
    pub(super) at_end: bool,
}

/// The end of a piece, and its content.
pub(super) type Boundary = (u64, Content);

/// The next piece of a file; `None` if there is no whole record yet.
pub(super) fn next(
    file: &dyn OpenFile,
    known: &Known,
    bounds: Bounds,
) -> io::Result<Option<Boundary>> {
    let piece = Piece { file, from: known.offset, end: known.stat.size, bounds };
    if known.inside {
        return piece.rest_of_line();
    }
    match bounds.framing.is_lines() {
        true => piece.lines(),
        false => piece.frames(),
    }
}

struct Piece<'a> {
    file: &'a dyn OpenFile,
    from: u64,
    end: u64,
    bounds: Bounds,
}

impl Piece<'_> {
    /// The last offset at which the piece is cut: there is room for one record of the longest kind.
    fn window(&self) -> u64 {
        let longest = self.bounds.record_bytes_max.saturating_add(HEADER_BYTES);
        self.end.min(self.from.saturating_add(self.bounds.piece_bytes.max(longest)))
    }

    /// Decides on the rest of the file: it is the last record, or it waits for its end.
    fn tail(&self, whole: u64) -> Option<Boundary> {
        match self.bounds.at_end {
            true => Some((self.end, Content::LastRecords)),
            false => (whole > self.from).then_some((whole, Content::Records)),
        }
    }

    fn overlong(&self, to: u64) -> Boundary {
        (to, Content::Overlong { ended: self.bounds.at_end && to == self.end })
    }

    /// The rest of an over-long line, as far as it goes.
    fn rest_of_line(&self) -> io::Result<Option<Boundary>> {
        let (mut at, window) = (self.from, self.window());
        let mut buffer = vec![0; LOOK_BYTES];
        while at < window {
            let len = self.read(at, window, &mut buffer)?;
            if let Some(end) = memchr(b'\n', &buffer[..len]) {
                return Ok(Some((at + end as u64 + 1, Content::Overlong { ended: true })));
            }
            if len == 0 {
                break;
            }
            at += len as u64;
        }
        Ok((at > self.from).then(|| self.overlong(at)))
    }

    fn lines(&self) -> io::Result<Option<Boundary>> {
        let window = self.window();
        let mut buffer = vec![0; LOOK_BYTES];
        let mut until = window;
        while until > self.from {
            let at = until.saturating_sub(LOOK_BYTES as u64).max(self.from);
            let len = self.read(at, until, &mut buffer)?;
            if let Some(last) = memrchr(b'\n', &buffer[..len]) {
                let whole = at + last as u64 + 1;
                let all = window == self.end && whole < self.end;
                return Ok(if all { self.tail(whole) } else { Some((whole, Content::Records)) });
            }
            until = at;
        }
        if window - self.from > self.bounds.record_bytes_max {
            return Ok(Some(self.overlong(window)));
        }
        Ok(self.tail(self.from))
    }

    fn frames(&self) -> io::Result<Option<Boundary>> {
        let mut at = self.from;
        let mut buffer = vec![0; LOOK_BYTES];
        while at < self.end && at - self.from < self.bounds.piece_bytes {
            let len = self.read(at, self.end, &mut buffer)?;
            let mut inside = 0;
            while inside < len {
                match self.bounds.framing.first_end(&buffer[inside..len]) {
                    Ok(Some(length)) => match self.hop(at + inside as u64, length) {
                        Hop::To(next) if next - at <= len as u64 => inside = index(next - at),
                        Hop::To(next) => {
                            (at, inside) = (next, 0);
                            break;
                        }
                        Hop::Stop(extent) => return Ok(extent),
                    },
                    Ok(None) if inside > 0 => break,
                    Ok(None) if len as u64 >= self.end - at => return Ok(self.tail(at)),
                    Ok(None)
                        if len as u64
                            > self.bounds.record_bytes_max.saturating_add(HEADER_BYTES) =>
                    {
                        let whole = (at > self.from).then_some((at, Content::Records));
                        return Ok(whole.or_else(|| Some(self.overlong(at + len as u64))));
                    }
                    // A long line: more of it at once.
                    Ok(None) => {
                        buffer.resize(buffer.len() * 2, 0);
                        break;
                    }
                    Err(_) => {
                        let whole = at + inside as u64;
                        let records = (whole > self.from).then_some((whole, Content::Records));
                        return Ok(records.or(Some((self.end, Content::Malformed))));
                    }
                }
            }
            at += inside as u64;
            if len == 0 {
                break;
            }
        }
        Ok((at > self.from).then_some((at, Content::Records)))
    }

    /// Passes over the frame of `length` bytes at `at`.
    fn hop(&self, at: u64, length: u64) -> Hop {
        let next = at.saturating_add(length);
        let overlong = length > self.bounds.record_bytes_max.saturating_add(HEADER_BYTES);
        let before = (at > self.from).then_some((at, Content::Records));
        match (next > self.end, overlong) {
            (true, _) => Hop::Stop(self.tail(at)),
            // Not read at all: a piece of its own.
            (false, true) => Hop::Stop(before.or(Some((next, Content::Overlong { ended: true })))),
            (false, false) => Hop::To(next),
        }
    }

    /// Reads from `at` up to `until`, as much as fits.
    fn read(&self, at: u64, until: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let len = index(until - at).min(buffer.len());
        read_full(self.file, at, &mut buffer[..len])
    }
}

enum Hop {
    To(u64),
    Stop(Option<Boundary>),
}

/// A length that a buffer bounds anyway.
fn index(length: u64) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX)
}
