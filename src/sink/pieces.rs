//! `Pieces`: text of rows on its way out, a piece at a time: the text of a whole batch is never in memory. Runs on the
//! worker that finishes a job. Knows no formats, and not where the text goes.

use std::io;

/// Text is handed on once it has this many bytes; what is less, or one long row, is a single piece.
const PIECE_BYTES: usize = 64 * 1024;

/// Text that is made row by row and handed on in pieces.
pub(super) struct Pieces<'a> {
    /// Text that was not handed on yet.
    pub(super) text: &'a mut Vec<u8>,
    out: &'a mut dyn FnMut(&[u8]) -> io::Result<()>,
}

impl<'a> Pieces<'a> {
    /// Text that is made in this buffer, which is emptied before, and handed to `out`.
    pub(super) fn new(
        text: &'a mut Vec<u8>,
        out: &'a mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Self {
        text.clear();
        Pieces { text, out }
    }

    /// A row is over: hands the text on if it is enough.
    pub(super) fn row_ends(&mut self) -> io::Result<()> {
        if self.text.len() < PIECE_BYTES {
            return Ok(());
        }
        (self.out)(self.text)?;
        self.text.clear();
        // A long row is no reason to keep its room.
        self.text.shrink_to(2 * PIECE_BYTES);
        Ok(())
    }

    /// Hands on what is left.
    pub(super) fn end(self) -> io::Result<()> {
        if self.text.is_empty() { Ok(()) } else { (self.out)(self.text) }
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;

    #[test]
    fn text_leaves_in_pieces_of_whole_rows() {
        let check = |rows: &[usize], expected: &[usize]| {
            let (mut text, mut found) = (b"left over".to_vec(), Vec::new());
            let mut out = |piece: &[u8]| {
                found.push(piece.len());
                Ok(())
            };
            let mut pieces = Pieces::new(&mut text, &mut out);
            for len in rows {
                pieces.text.resize(pieces.text.len() + len, b'x');
                pieces.row_ends().expect("it is taken");
            }
            pieces.end().expect("it is taken");
            assert_eq!(found, expected, "{rows:?}");
            assert!(text.capacity() <= 4 * PIECE_BYTES);
        };
        check(&[], &[]);
        check(&[1, 2, 3], &[6]);
        check(&[PIECE_BYTES - 1], &[PIECE_BYTES - 1]);
        check(&[PIECE_BYTES], &[PIECE_BYTES]);
        check(&[PIECE_BYTES - 1, 9, 5], &[PIECE_BYTES + 8, 5]);
        check(&[1 << 20, 1, 1], &[1 << 20, 2]);
    }

    #[test]
    fn what_is_refused_is_an_error_at_once() {
        let mut text = Vec::new();
        let mut out = |_: &[u8]| Err(io::ErrorKind::BrokenPipe.into());
        let mut pieces = Pieces::new(&mut text, &mut out);
        pieces.text.resize(PIECE_BYTES, b'x');
        assert!(pieces.row_ends().is_err());
    }
}
