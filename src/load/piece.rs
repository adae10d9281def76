//! `Piece`: whole lines on their way to one connection, and how far they got. It knows no socket.

use std::ops::Range;

/// Whole lines that one connection is sent.
#[derive(Debug)]
pub(super) struct Piece {
    body: Body,
    /// Bytes sent so far.
    sent: usize,
    /// Lines in it; none in what only the conversation with a peer needs.
    lines: u64,
    /// When its first line was due, in nanoseconds after the start.
    pub(super) due: u64,
}

/// The place of the bytes.
#[derive(Debug)]
pub(super) enum Body {
    /// In the text, which is kept.
    Text(Range<usize>),
    /// Here.
    Own(Vec<u8>),
}

/// The fate of a piece whose connection broke or whose time ran out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// Whole lines that were sent.
    pub(super) lines: u64,
}

impl Piece {
    pub(super) fn new(body: Body, lines: u64, due: u64) -> Self {
        Piece { body, sent: 0, lines, due }
    }

    /// The bytes that must still be sent.
    pub(super) fn rest<'a>(&'a self, text: &'a [u8]) -> &'a [u8] {
        &self.bytes(text)[self.sent..]
    }

    pub(super) fn advance(&mut self, bytes: usize) {
        self.sent += bytes;
    }

    /// Number of lines that it holds.
    pub(super) fn lines(&self) -> u64 {
        self.lines
    }

    /// Gives back the buffer, if it had one of its own.
    pub(super) fn into_buffer(self) -> Option<Vec<u8>> {
        match self.body {
            Body::Own(buffer) => Some(buffer),
            Body::Text(_) => None,
        }
    }

    /// The connection broke: takes away the whole lines that were sent and says how many; what is left starts at the
    /// first line that was not, for another connection.
    pub(super) fn rewind(&mut self, text: &[u8]) -> Part {
        let head = &self.bytes(text)[..self.sent];
        let whole = memchr::memrchr(b'\n', head).map_or(0, |at| at + 1);
        let lines = (memchr::memchr_iter(b'\n', head).count() as u64).min(self.lines);
        match &mut self.body {
            Body::Text(range) => range.start += whole,
            Body::Own(buffer) => drop(buffer.drain(..whole)),
        }
        self.sent = 0;
        self.lines -= lines;
        Part { lines }
    }

    /// Time is up: only the line that was begun must be finished. False if no line was.
    pub(super) fn trim(&mut self, text: &[u8]) -> bool {
        let bytes = self.bytes(text);
        let at_line_start = self.sent == 0 || bytes[self.sent - 1] == b'\n';
        let rest = &bytes[self.sent..];
        let len = if at_line_start {
            0
        } else {
            memchr::memchr(b'\n', rest).map_or(rest.len(), |at| at + 1)
        };
        let end = self.sent + len;
        let lines = memchr::memchr_iter(b'\n', &bytes[..end]).count() as u64;
        self.lines = self.lines.min(lines + u64::from(len > 0 && bytes[end - 1] != b'\n'));
        match &mut self.body {
            Body::Text(range) => range.end = range.start + end,
            Body::Own(buffer) => buffer.truncate(end),
        }
        len > 0
    }

    fn bytes<'a>(&'a self, text: &'a [u8]) -> &'a [u8] {
        match &self.body {
            Body::Text(range) => &text[range.clone()],
            Body::Own(buffer) => buffer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"..a\nbb\nccc";

    fn pieces(sent: usize) -> [Piece; 2] {
        [Body::Text(2..TEXT.len()), Body::Own(TEXT[2..].to_vec())].map(|body| {
            let mut piece = Piece::new(body, 3, 0);
            piece.advance(sent);
            piece
        })
    }

    fn check_rewind(sent: usize, lines: u64, rest: &[u8]) {
        for mut piece in pieces(sent) {
            assert_eq!(piece.rewind(TEXT), Part { lines }, "{sent} sent");
            assert_eq!((piece.rest(TEXT), piece.lines()), (rest, 3 - lines), "{sent} sent");
        }
    }

    #[test]
    fn a_broken_piece_starts_again_at_the_first_line_not_sent() {
        check_rewind(0, 0, b"a\nbb\nccc");
        check_rewind(1, 0, b"a\nbb\nccc");
        check_rewind(2, 1, b"bb\nccc");
        check_rewind(4, 1, b"bb\nccc");
        check_rewind(6, 2, b"ccc");
    }

    fn check_trim(sent: usize, lines: u64, rest: &[u8]) {
        for mut piece in pieces(sent) {
            assert_eq!(piece.trim(TEXT), !rest.is_empty(), "{sent} sent");
            assert_eq!((piece.rest(TEXT), piece.lines()), (rest, lines), "{sent} sent");
        }
    }

    #[test]
    fn a_trimmed_piece_ends_with_the_line_begun() {
        check_trim(0, 0, b"");
        check_trim(1, 1, b"\n");
        check_trim(2, 1, b"");
        check_trim(3, 2, b"b\n");
        check_trim(6, 3, b"cc");
    }
}
