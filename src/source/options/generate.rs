//! The source `generate`: lines of the embedded data server. Its options.

use std::path::PathBuf;

use crate::load::LINE_LEN;
use crate::settings::diagnostics::Problem;
use crate::settings::key::Key;
use crate::settings::section::Section;
use crate::source::io::IoModel;

use super::{IO_MODEL, RECORD_BYTES_LIMIT, Source, SourceRow, read_io_model};

const WORDS: usize = 1_000;

/// Its row.
pub(super) const ROW: SourceRow = SourceRow {
    name: "generate",
    about: "Lines that the program makes itself.",
    keys: &[
        Key {
            name: "rate",
            takes: "1 to 1000000000",
            default: "as many as possible",
            about: "Lines per second.",
        },
        Key { name: "records", takes: "a number", default: "no end", about: "Lines in all." },
        Key {
            name: "line_len",
            takes: "1 to 1073741824",
            default: "100",
            about: "Mean bytes of a line with its line feed.",
        },
        Key { name: "words", takes: "1 to 10000000", default: "1000", about: "Different words." },
        Key { name: "seed", takes: "a number", default: "1", about: "The seed of the words." },
        Key {
            name: "file",
            takes: "a path",
            default: "none",
            about: "A file whose lines are sent once instead.",
        },
        IO_MODEL,
    ],
    example: "[source.NAME.generate]\nrate = 1000",
    read,
};

/// Records made by the embedded data server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GenerateSource {
    /// Lines per second; as many as possible if none.
    pub rate: Option<u64>,
    /// Lines in all; without an end if none, unless a file is replayed.
    pub records: Option<u64>,
    /// Mean bytes of a line with its line feed; 100 by default.
    pub line_len: usize,
    /// Different words; 1,000 by default.
    pub words: usize,
    /// The seed of the words; 1 by default.
    pub seed: u64,
    /// A file whose lines are replayed once instead.
    pub file: Option<PathBuf>,
    /// The way the data server is read; nio by default.
    pub io_model: IoModel,
}

impl GenerateSource {
    /// True if it ends by itself.
    pub fn ends(&self) -> bool {
        self.records.is_some() || self.file.is_some()
    }
}

fn read(section: &mut Section<'_>) -> Option<Source> {
    let source = GenerateSource {
        rate: section.number("rate", 1..=1_000_000_000).map(|found| found.value),
        records: section.number("records", 1..=u64::MAX).map(|found| found.value),
        line_len: section.number("line_len", 1..=RECORD_BYTES_LIMIT).map_or(LINE_LEN, |f| f.value),
        words: section.number("words", 1..=10_000_000).map_or(WORDS, |found| found.value),
        seed: section.number("seed", 0..=u64::MAX).map_or(1, |found| found.value),
        file: section.path("file"),
        io_model: read_io_model(section),
    };
    if source.file.is_some() {
        for key in ["line_len", "words", "seed"].into_iter().filter(|key| section.has(key)) {
            let title = format!("`{key}` has no effect: the lines come from `file`");
            section.problems.add(Problem::warning(&section.key_at(key), title));
        }
    }
    Some(Source::Generate(source))
}
