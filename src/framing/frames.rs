//! Frames that start with a header: hops from header to header, looking at no byte between. Runs on the io threads.
//!
//! ```text
//! piece:  llo | 5 hello5 world | 9999999 xxxxxxxxxxx | 3 abc | 7 ab
//!         joined     range           over-long         range   carry
//! ```
//! Each framing's [`Format`] knows its headers. A header is checked before anything is allocated, and the carry grows with
//! the bytes that arrived, so that a header alone costs nothing. The limit counts the record, not its header. An over-long
//! frame is skipped by its announced length, which fits a `u32`.

use std::marker::PhantomData;

use memchr::memchr;

use super::carry::{Carry, Line};
use super::{Found, Malformed, Overlong, Splitter, lines, no_header};

/// The start of a frame.
pub(super) enum Head {
    /// The header has more bytes.
    Incomplete,
    /// This many bytes of header, then this many of record.
    Counted { header: usize, body: u32 },
    /// No header: a line, which is no record if it is empty.
    Line,
}

/// The header format of a framing.
pub(super) trait Format: Send {
    /// Reads the header at the start of `bytes`, which may hold less or more than that. A decision that needs more bytes
    /// must not depend on how many arrived at once; a header of [`HEADER_BYTES_MAX`] bytes must be complete.
    fn head(bytes: &[u8]) -> Result<Head, Malformed>;

    /// The record of a counted frame's bytes.
    fn record(bytes: &[u8]) -> &[u8] {
        bytes
    }
}

/// The longest header in bytes.
pub(super) const HEADER_BYTES_MAX: usize = 10;

/// The state of one connection.
pub(super) struct FrameSplitter<F> {
    /// The unfinished frame, at most a header and the longest record.
    carry: Carry,
    state: State,
    format: PhantomData<F>,
}

enum State {
    /// At the start of a frame, or inside the one that is carried.
    Reading,
    /// Inside an over-long frame, already counted, of which this many bytes are missing.
    SkippingBytes(u64),
    /// Inside an over-long line, already counted.
    SkippingLine,
    /// After a malformed frame.
    Broken(Malformed),
}

/// The frame at an offset of a piece.
enum Frame {
    /// Whole; the next one starts at this offset.
    Whole(usize),
    /// An empty line; the next frame starts at this offset.
    Empty(usize),
    /// The piece ends in it.
    Unfinished,
    /// Longer than the limit; the state says how much of it must be skipped from this offset on.
    Overlong(usize, State),
}

/// Makes the state of a new connection. Over-long frames are dropped whatever the caller prefers: only framings that
/// acknowledge keep any of them.
pub(super) fn splitter<F: Format + 'static>(max: usize, _: Overlong) -> Box<dyn Splitter> {
    Box::new(FrameSplitter::<F>::new(max))
}

impl<F: Format> FrameSplitter<F> {
    fn new(max: usize) -> Self {
        FrameSplitter { carry: Carry::new(max), state: State::Reading, format: PhantomData }
    }

    fn split(&mut self, piece: &[u8], found: &mut Found) -> Result<(), Malformed> {
        let mut start = self.skip(piece, 0);
        if !self.carry.is_empty() {
            start = self.finish_carried(piece, found)?;
        }
        let (mut whole, mut records) = (start..start, 0);
        while start < piece.len() {
            match self.frame(piece, start) {
                Ok(Frame::Whole(next)) => {
                    start = next;
                    whole.end = next;
                    records += 1;
                }
                // A range may hold some empty lines, but none consists of them.
                Ok(Frame::Empty(next)) => {
                    start = next;
                    whole = if records == 0 { next..next } else { whole.start..next };
                }
                Ok(Frame::Unfinished) => {
                    self.carry.push(&piece[start..]);
                    break;
                }
                Ok(Frame::Overlong(inside, rest)) => {
                    found.push_range(whole, records);
                    found.overlong += 1;
                    self.state = rest;
                    start = self.skip(piece, inside);
                    (whole, records) = (start..start, 0);
                }
                Err(malformed) => {
                    found.push_range(whole, records);
                    return Err(malformed);
                }
            }
        }
        found.push_range(whole, records);
        Ok(())
    }

    fn frame(&self, piece: &[u8], start: usize) -> Result<Frame, Malformed> {
        let bytes = &piece[start..];
        Ok(match F::head(bytes)? {
            Head::Incomplete => Frame::Unfinished,
            Head::Counted { header, body } if body as usize > self.carry.max() => {
                Frame::Overlong(start + header, State::SkippingBytes(u64::from(body)))
            }
            Head::Counted { header, body } if body as usize <= bytes.len() - header => {
                Frame::Whole(start + header + body as usize)
            }
            Head::Counted { .. } => Frame::Unfinished,
            Head::Line => {
                let window = &bytes[..bytes.len().min(self.carry.max().saturating_add(1))];
                match memchr(b'\n', window) {
                    Some(end) if lines::strip(&window[..end]).is_empty() => {
                        Frame::Empty(start + end + 1)
                    }
                    Some(end) => Frame::Whole(start + end + 1),
                    None if window.len() > self.carry.max() => {
                        Frame::Overlong(start + window.len(), State::SkippingLine)
                    }
                    None => Frame::Unfinished,
                }
            }
        })
    }

    /// Finishes the frame that an earlier piece began. Returns the start of the next one.
    fn finish_carried(&mut self, piece: &[u8], found: &mut Found) -> Result<usize, Malformed> {
        let mut start = 0;
        loop {
            match F::head(self.carry.bytes())? {
                Head::Incomplete if start == piece.len() => return Ok(start),
                Head::Incomplete => {
                    debug_assert!(self.carry.len() < HEADER_BYTES_MAX, "so this loop is short");
                    self.carry.push(&piece[start..=start]);
                    start += 1;
                }
                Head::Counted { header, body } => {
                    return Ok(self.finish_counted(piece, start, header, body, found));
                }
                Head::Line => {
                    return Ok(match self.carry.finish_line(piece, found) {
                        Line::Joined(next) => {
                            forget_empty(found);
                            next
                        }
                        Line::Overlong(inside) => {
                            self.state = State::SkippingLine;
                            self.skip(piece, inside)
                        }
                        Line::Unfinished => piece.len(),
                    });
                }
            }
        }
    }

    /// The same for a frame whose whole header is carried; `start` is the offset where the piece continues after the
    /// carry.
    fn finish_counted(
        &mut self,
        piece: &[u8],
        start: usize,
        header: usize,
        body: u32,
        found: &mut Found,
    ) -> usize {
        let carried = self.carry.len() - header;
        if body as usize > self.carry.max() {
            debug_assert!(carried == 0, "the body of an over-long frame is never carried");
            self.carry.clear();
            found.overlong += 1;
            self.state = State::SkippingBytes(u64::from(body));
            return self.skip(piece, start);
        }
        let rest = &piece[start..];
        let missing = body as usize - carried;
        if rest.len() < missing {
            self.carry.push(rest);
            return piece.len();
        }
        self.carry.join(&rest[..missing], found);
        start + missing
    }

    /// Skips the rest of an over-long frame, if inside one. Returns the start of the next frame.
    fn skip(&mut self, piece: &[u8], from: usize) -> usize {
        let rest = &piece[from..];
        match self.state {
            State::SkippingBytes(missing) => {
                let here =
                    usize::try_from(missing).map_or(rest.len(), |missing| missing.min(rest.len()));
                let missing = missing - here as u64;
                self.state =
                    if missing == 0 { State::Reading } else { State::SkippingBytes(missing) };
                from + here
            }
            State::SkippingLine => match memchr(b'\n', rest) {
                Some(end) => {
                    self.state = State::Reading;
                    from + end + 1
                }
                None => piece.len(),
            },
            State::Reading | State::Broken(_) => from,
        }
    }
}

impl<F: Format> Splitter for FrameSplitter<F> {
    fn feed(&mut self, piece: &[u8], found: &mut Found) -> Result<(), Malformed> {
        if let State::Broken(malformed) = &self.state {
            return Err(malformed.clone());
        }
        self.split(piece, found).inspect_err(|malformed| {
            self.carry.clear();
            self.state = State::Broken(malformed.clone());
        })
    }

    fn end(&mut self, found: &mut Found) {
        match F::head(self.carry.bytes()) {
            _ if self.carry.is_empty() => {}
            Ok(Head::Line) => {
                self.carry.join(b"\n", found);
                forget_empty(found);
            }
            Ok(Head::Incomplete | Head::Counted { .. }) | Err(_) => {
                found.truncated += 1;
                self.carry.clear();
            }
        }
        if !matches!(self.state, State::Broken(_)) {
            self.state = State::Reading;
        }
    }

    fn carry(&self) -> &Carry {
        &self.carry
    }

    fn carry_mut(&mut self) -> &mut Carry {
        &mut self.carry
    }

    fn give_up(&mut self, begin: &[u8], len: usize) -> Result<(), Malformed> {
        self.state = match F::head(begin)? {
            Head::Counted { header, body } => {
                State::SkippingBytes((header as u64 + u64::from(body)).saturating_sub(len as u64))
            }
            Head::Line => State::SkippingLine,
            Head::Incomplete => return Err(no_header()),
        };
        Ok(())
    }
}

/// Drops a joined line that is empty: it is no record.
fn forget_empty(found: &mut Found) {
    if matches!(found.joined.as_slice(), b"\n" | b"\r\n") {
        found.joined.clear();
        found.records -= 1;
    }
}

/// The length of the first frame, with its header or terminator, as far as its beginning tells.
pub(super) fn first_end<F: Format>(bytes: &[u8]) -> Result<Option<u64>, Malformed> {
    Ok(match F::head(bytes)? {
        Head::Incomplete => None,
        Head::Counted { header, body } => Some(header as u64 + u64::from(body)),
        Head::Line => lines::first_end(bytes),
    })
}

/// Calls `each` with the record of every frame of `range`. Stops at an incomplete frame: no splitter makes one.
pub(super) fn for_each<'a, F: Format>(mut range: &'a [u8], mut each: impl FnMut(&'a [u8])) {
    while let Some((record, rest)) = first::<F>(range) {
        record.into_iter().for_each(&mut each);
        range = rest;
    }
    debug_assert!(range.is_empty(), "ranges hold whole frames");
}

/// The record of the first frame, unless it is an empty line, and the frames after it.
fn first<F: Format>(range: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    match F::head(range).ok()? {
        Head::Incomplete => None,
        Head::Counted { header, body } => {
            let (record, rest) = range[header..].split_at_checked(body as usize)?;
            Some((Some(F::record(record)), rest))
        }
        Head::Line => {
            let end = memchr(b'\n', range)?;
            let line = lines::strip(&range[..end]);
            Some(((!line.is_empty()).then_some(line), &range[end + 1..]))
        }
    }
}
