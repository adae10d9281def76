//! `Lines`: where whole lines come from, the text or a file, cut in pieces. It knows nothing of sockets and schedules;
//! the load's thread calls it.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::room::{Cut, Room};
use super::text::Text;
use crate::{Error, Result};

/// The part of a file that is read at a time.
const READ_BYTES: usize = 256 << 10;

/// The longest line of a file that can be replayed: a line stays on one connection, so it is held whole.
const FILE_LINE_BYTES_MAX: usize = 64 << 20;

/// The source of lines.
#[derive(Debug)]
pub(super) enum Lines {
    /// The endless text of a seed.
    Text(Box<Text>),
    /// A file, once.
    File(FileLines),
}

impl Lines {
    /// The next whole lines; none when there is no room or the file has ended.
    pub(super) fn cut(&mut self, room: Room) -> Result<Cut> {
        match self {
            Lines::Text(text) => Ok(text.cut(room)),
            Lines::File(file) => file.cut(room),
        }
    }

    /// The bytes that the last cut's range refers to.
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Lines::Text(text) => text.bytes(),
            Lines::File(file) => &file.buffer,
        }
    }
}

/// The lines of a file, byte for byte, with a window of it in memory.
#[derive(Debug)]
pub(super) struct FileLines {
    path: PathBuf,
    file: File,
    buffer: Vec<u8>,
    /// The start of the next line in `buffer`.
    next: usize,
    ended: bool,
    overhead: usize,
}

impl FileLines {
    /// Opens the file; `overhead` bytes are put before each line by the sender.
    pub(super) fn open(path: &Path, overhead: usize) -> Result<Self> {
        let file = File::open(path)
            .map_err(|err| Error::io(format!("cannot read {}", path.display()), err))?;
        Ok(FileLines {
            path: path.to_owned(),
            file,
            buffer: Vec::new(),
            next: 0,
            ended: false,
            overhead,
        })
    }

    fn cut(&mut self, room: Room) -> Result<Cut> {
        self.fill()?;
        let rest = &self.buffer[self.next..];
        let unterminated = self.ended && !rest.is_empty() && !rest.ends_with(b"\n");
        let ends = memchr::memchr_iter(b'\n', rest)
            .map(|at| at + 1)
            .chain(unterminated.then_some(rest.len()));
        let (mut len, mut lines) = (0, 0_u64);
        for end in ends.take(usize::try_from(room.lines).unwrap_or(usize::MAX)) {
            let cost = end as u64 + (lines + 1) * self.overhead as u64;
            let first_fits = lines == 0 && cost <= room.hard_bytes;
            if cost > room.bytes() && !first_fits {
                break;
            }
            (len, lines) = (end, lines + 1);
        }
        let from = self.next;
        self.next += len;
        Ok(Cut { range: from..self.next, lines })
    }

    /// Reads on until a whole line is there or the file ends.
    fn fill(&mut self) -> Result<()> {
        if self.ended || memchr::memchr(b'\n', &self.buffer[self.next..]).is_some() {
            return Ok(());
        }
        self.buffer.drain(..self.next);
        self.next = 0;
        loop {
            let before = self.buffer.len();
            if before > FILE_LINE_BYTES_MAX {
                let path = self.path.display();
                return Err(Error::Failed(format!(
                    "{path}: a line is longer than {FILE_LINE_BYTES_MAX} bytes"
                )));
            }
            let read = self.file.by_ref().take(READ_BYTES as u64).read_to_end(&mut self.buffer);
            read.map_err(|err| Error::io(format!("cannot read {}", self.path.display()), err))?;
            self.ended = self.buffer.len() - before < READ_BYTES;
            if self.ended || memchr::memchr(b'\n', &self.buffer[before..]).is_some() {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn file_lines(content: &[u8], overhead: usize) -> FileLines {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.write_all(content).expect("written");
        FileLines::open(file.path(), overhead).expect("opened")
    }

    fn check(content: &[u8], room: Room, expected: &[(&[u8], u64)]) {
        let mut lines = file_lines(content, 0);
        for (bytes, count) in expected {
            let cut = lines.cut(room).expect("readable");
            assert_eq!((&lines.buffer[cut.range], cut.lines), (*bytes, *count));
        }
        assert_eq!(lines.cut(room).expect("readable").lines, 0);
    }

    fn room(lines: u64, soft_bytes: u64) -> Room {
        Room { lines, soft_bytes, hard_bytes: u64::MAX }
    }

    #[test]
    fn files_are_cut_at_line_ends() {
        check(b"", room(9, 9), &[]);
        check(b"\n", room(9, 9), &[(b"\n", 1)]);
        check(b"a\nb\n", room(9, 9), &[(b"a\nb\n", 2)]);
        check(b"a\nb\n", room(1, 9), &[(b"a\n", 1), (b"b\n", 1)]);
        check(b"a\nb", room(9, 9), &[(b"a\nb", 2)]);
        check(b"long\nb", room(9, 2), &[(b"long\n", 1), (b"b", 1)]);
        check(b"long\n", Room { hard_bytes: 4, ..room(9, 9) }, &[]);
    }

    #[test]
    fn a_missing_file_is_an_error_that_names_it() {
        let text = FileLines::open(Path::new("no/such/file"), 0).expect_err("missing").to_string();
        assert!(text.starts_with("cannot read no/such/file: "), "{text}");
    }

    #[test]
    fn lines_longer_than_a_read_are_whole() {
        let mut content = vec![b'x'; 3 * READ_BYTES];
        content.push(b'\n');
        content.extend_from_slice(b"tail\n");
        let mut lines = file_lines(&content, 0);
        assert_eq!(lines.cut(room(1, 10)).expect("readable").range.len(), 3 * READ_BYTES + 1);
        assert_eq!(lines.cut(room(9, 10)).expect("readable").lines, 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn pieces_concatenate_to_the_file(
            content in prop::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..500),
            lines in 1u64..9, soft_bytes in 1u64..90, overhead in 0usize..30,
        ) {
            let mut file = file_lines(&content, overhead);
            let mut joined = Vec::new();
            loop {
                let cut = file.cut(room(lines, soft_bytes)).expect("readable");
                if cut.lines == 0 {
                    break;
                }
                prop_assert!(cut.lines <= lines);
                joined.extend_from_slice(&file.buffer[cut.range]);
            }
            prop_assert_eq!(joined, content);
        }
    }
}
