//! The options of the sink `file`, as a pipeline file gives them and as [`File`] takes them. Main thread.

use std::path::PathBuf;

use super::File;
use crate::error::Result;
use crate::settings::diagnostics::Problem;
use crate::settings::key::Key;
use crate::settings::section::Section;
use crate::sink::SharedSink;
use crate::sink::formatted::{FileFormat, LINE_FEEDS, LineFeeds, read_line_feeds};
use crate::sink::options::{
    Destination, EXISTING, Existing, Holds, KeyText, Opening, ShortForm, SinkKind, SinkOptions,
    SinkRow, TIME, read_existing, read_path, read_time,
};
use crate::sink::rolling::Roll;

/// Its row.
pub(crate) const ROW: SinkRow = SinkRow {
    name: "file",
    about: "writes a file for each batch, whole or not at all",
    keys: &[
        Key { name: "path", takes: "a path", default: "", about: "the directory" },
        Key {
            name: "format",
            takes: "`text`, `json` or `csv`",
            default: "text",
            about: "the look of a row, a line each",
        },
        LINE_FEEDS,
        TIME,
        EXISTING,
        Key {
            name: "roll",
            takes: "`{ bytes = \"64MiB\", age = \"1h\" }`",
            default: "a file for each batch",
            about: "the size and the age at which a file is closed and the next begun",
        },
    ],
    example: "[sink.NAME.file]\npath = \"out\"\nformat = \"json\"",
    short_forms: &[ShortForm {
        begins: "file://",
        value: "DIR",
        more: "",
        settings: |path| vec![KeyText::new("path", path)],
    }],
    read,
};

/// The options of the sink [`File`]; all but `path` have defaults.
///
/// ```
/// use std::time::Duration;
/// use tidemill::sink::{FileFormat, FileOptions, Roll};
///
/// let roll = Roll { bytes: Some(64 << 20), age: Some(Duration::from_secs(3_600)) };
/// let options = FileOptions { path: "out".into(), format: FileFormat::Json, roll: Some(roll), ..FileOptions::default() };
/// # assert!(!options.time);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileOptions {
    /// The directory, which is made if it is not there. One process at a time writes to it.
    pub path: PathBuf,
    /// The look of a row, a line each; text by default.
    pub format: FileFormat,
    /// The size and age at which a file is closed and the next begun; `None`, the default: a file for each batch.
    pub roll: Option<Roll>,
    /// The fate of line feeds inside the texts of a text file. By default they are escaped if a job that writes here has a
    /// source whose records may hold some: any but one of lines.
    pub line_feeds: Option<LineFeeds>,
    /// Each row of JSON has the time of its batch: `{"batch_time_ms":1000,"row":["a",1]}` instead of `["a",1]`. The other
    /// formats have no place for it.
    pub time: bool,
    /// The meaning of output of others in the directory; by default the start is refused.
    pub existing: Existing,
}

impl SinkOptions for FileOptions {
    fn row(&self) -> &'static SinkRow {
        &ROW
    }

    fn open(&self, opening: &Opening<'_>) -> Result<SharedSink> {
        let storage = opening.access.open(&self.path)?;
        Ok(SharedSink::new(File::open(storage, self.clone())?))
    }

    fn summary(&self) -> String {
        format!("files in {}", self.path.display())
    }

    fn destination(&self) -> Option<Destination<'_>> {
        let holds = Holds::Files { end: self.format.end() };
        Some(Destination { key: "path", path: &self.path, holds })
    }
}

fn read(section: &mut Section<'_>) -> Option<SinkKind> {
    let path = read_path(section, "the path of a directory");
    let formats =
        [("text", FileFormat::Text), ("json", FileFormat::Json), ("csv", FileFormat::Csv)];
    let format = section.choice("format", "format", &formats).map(|found| found.value);
    let format = format.unwrap_or_default();
    let line_feeds = read_line_feeds(section);
    if line_feeds.is_some() && format != FileFormat::Text {
        let title =
            "`line_feeds` is for `format = \"text\"`: the others escape or quote by themselves";
        let problem = Problem::new(&section.key_at("line_feeds"), title);
        section.problems.add(problem.hint("leave it out"));
    }
    let time = read_time(section, format == FileFormat::Json);
    let existing = read_existing(section);
    let roll = section.table("roll", "`roll`").and_then(read_roll);
    Some(FileOptions { path: path?, format, roll, line_feeds, time, existing }.into())
}

fn read_roll(mut section: Section<'_>) -> Option<Roll> {
    let bytes = section.bytes("bytes").map(|found| found.value);
    let age = section.interval("age").map(|found| found.value.as_duration());
    if section.is_empty() {
        section.problems.add(Problem::new(&section.at, "`roll` needs `bytes`, `age` or both"));
    }
    section.finish();
    Some(Roll { bytes, age })
}
