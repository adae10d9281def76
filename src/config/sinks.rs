//! Sinks of a pipeline: where rows go. Plain data, and how it is read; opens nothing.

use std::path::PathBuf;
use std::time::Duration;

use crate::settings::diagnostics::Problem;
use crate::settings::section::Section;
use crate::sink::{self, SQLITE_COMPILED};

/// Where rows go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SinkKind {
    /// Standard output.
    Console {
        /// How rows are written.
        format: ConsoleFormat,
        /// Whether each row of JSON has the time of its batch.
        time: bool,
    },
    /// Kept in memory, for tests.
    Memory,
    /// Nowhere, for measurements.
    Null,
    /// Files of a directory.
    File {
        /// The directory.
        path: PathBuf,
        /// How rows are written.
        format: FileFormat,
        /// When a file is closed and the next begun; a file for each batch if none.
        roll: Option<Roll>,
        /// What becomes of line feeds inside the texts of a text file; it follows from the framings of the sources if
        /// nothing is given.
        line_feeds: Option<LineFeeds>,
        /// Whether each row of JSON has the time of its batch.
        time: bool,
        /// What output of others in the directory means.
        existing: Existing,
    },
    /// A table of an SQLite database.
    Sqlite {
        /// The database.
        path: PathBuf,
        /// The table.
        table: String,
        /// What output of others in the table means.
        existing: Existing,
    },
}

/// The table of an SQLite database unless another one is named.
const TABLE: &str = "rows";

/// How rows look on the console.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConsoleFormat {
    /// A heading with the time, and up to ten rows.
    #[default]
    Spark,
    /// A line of JSON for each job and batch.
    Json,
}

/// How rows look in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FileFormat {
    /// As they are.
    #[default]
    Text,
    /// A JSON array each.
    Json,
    /// Comma-separated.
    Csv,
}

impl From<FileFormat> for sink::FileFormat {
    fn from(format: FileFormat) -> Self {
        match format {
            FileFormat::Text => sink::FileFormat::Text,
            FileFormat::Json => sink::FileFormat::Json,
            FileFormat::Csv => sink::FileFormat::Csv,
        }
    }
}

/// What output that is there already, and is not of this state directory, means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Existing {
    /// The start is refused.
    #[default]
    Refuse,
    /// What is new comes beside it.
    Append,
}

/// What becomes of a line feed inside a text of a text file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineFeeds {
    /// It becomes `\n`, and what could be taken for that is told apart.
    Escape,
    /// It stays.
    Keep,
}

/// When a file is closed and the next begun; at least one of both is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roll {
    /// At this size.
    pub bytes: Option<u64>,
    /// At this age.
    pub age: Option<Duration>,
}

/// Reads `[sink.NAME]`; none if it is wrong.
pub(super) fn read(mut section: Section<'_>) -> Option<SinkKind> {
    let console = section.table("console", "a `console` sink");
    let memory = section.table("memory", "a `memory` sink");
    let null = section.table("null", "a `null` sink");
    let file = section.table("file", "a `file` sink");
    let sqlite = section.table("sqlite", "a `sqlite` sink");
    let (problems, at, empty) = (section.problems, section.at.clone(), section.is_empty());
    section.of_kinds().finish();
    match (console, memory, null, file, sqlite) {
        (Some(section), None, None, None, None) => Some(read_console(section)),
        (None, Some(section), None, None, None) => Some(bare(section, SinkKind::Memory)),
        (None, None, Some(section), None, None) => Some(bare(section, SinkKind::Null)),
        (None, None, None, Some(section), None) => read_file(section),
        (None, None, None, None, Some(section)) => read_sqlite(section),
        (None, None, None, None, None) => {
            if empty {
                let problem = Problem::new(&at, "a sink needs a kind").label("no kind");
                let hint = "write `[sink.NAME.console]`, `.file`, `.sqlite`, `.memory` or `.null`";
                problems.add(problem.hint(hint));
            }
            None
        }
        _ => {
            problems.add(Problem::new(&at, "a sink has one kind").label("more than one kind"));
            None
        }
    }
}

fn bare(section: Section<'_>, kind: SinkKind) -> SinkKind {
    section.finish();
    kind
}

fn read_console(mut section: Section<'_>) -> SinkKind {
    let formats = [("spark", ConsoleFormat::Spark), ("json", ConsoleFormat::Json)];
    let format = section.choice("format", "format", &formats).map(|found| found.value);
    let format = format.unwrap_or_default();
    let time = read_time(&mut section, format == ConsoleFormat::Json);
    section.finish();
    SinkKind::Console { format, time }
}

fn read_file(mut section: Section<'_>) -> Option<SinkKind> {
    let path = section.path("path");
    if !section.has("path") {
        let problem = Problem::new(&section.at, "a `file` sink needs a `path`");
        section.problems.add(problem.hint("the path of a directory"));
    }
    let formats =
        [("text", FileFormat::Text), ("json", FileFormat::Json), ("csv", FileFormat::Csv)];
    let format = section.choice("format", "format", &formats).map(|found| found.value);
    let format = format.unwrap_or_default();
    let line_feeds = read_line_feeds(&mut section, format);
    let time = read_time(&mut section, format == FileFormat::Json);
    let existing = read_existing(&mut section);
    let roll = section.table("roll", "`roll`").and_then(read_roll);
    section.finish();
    Some(SinkKind::File { path: path?, format, roll, line_feeds, time, existing })
}

/// JSON alone has a place for the time in each row.
fn read_time(section: &mut Section<'_>, is_json: bool) -> bool {
    let time = section.truth("time").unwrap_or_default();
    if time && !is_json {
        let title = "`time` is for `format = \"json\"`: rows of the others have no place for it";
        section.problems.add(Problem::new(&section.key_at("time"), title).hint("leave it out"));
    }
    time
}

fn read_existing(section: &mut Section<'_>) -> Existing {
    let choices = [("refuse", Existing::Refuse), ("append", Existing::Append)];
    let found = section.choice("existing", "way with existing output", &choices);
    found.map(|found| found.value).unwrap_or_default()
}

/// Text files alone have lines that a line feed could break: JSON escapes it, CSV quotes it.
fn read_line_feeds(section: &mut Section<'_>, format: FileFormat) -> Option<LineFeeds> {
    let choices = [("escape", LineFeeds::Escape), ("keep", LineFeeds::Keep)];
    let found = section.choice("line_feeds", "way with line feeds", &choices)?;
    if format != FileFormat::Text {
        let title =
            "`line_feeds` is for `format = \"text\"`: the others escape or quote by themselves";
        section
            .problems
            .add(Problem::new(&section.key_at("line_feeds"), title).hint("leave it out"));
    }
    Some(found.value)
}

fn read_sqlite(mut section: Section<'_>) -> Option<SinkKind> {
    if !SQLITE_COMPILED {
        let problem = Problem::new(&section.at, "this program has no sink `sqlite`");
        section.problems.add(problem.hint("build it with `--features sqlite`"));
    }
    let path = section.path("path");
    if !section.has("path") {
        let problem = Problem::new(&section.at, "a `sqlite` sink needs a `path`");
        section.problems.add(problem.hint("the path of a database file, which need not exist"));
    }
    let table = section.text("table");
    if let Some(found) = table.as_ref().filter(|found| sink::is_reserved_table(&found.value)) {
        let text = format!("the table `{}` {}", found.value, sink::RESERVED);
        let problem = Problem::new(&found.at, text).label("reserved");
        section.problems.add(problem.hint(sink::RESERVED_REMEDY));
    }
    let table = table.map_or_else(|| TABLE.to_owned(), |found| found.value);
    let existing = read_existing(&mut section);
    section.finish();
    Some(SinkKind::Sqlite { path: path?, table, existing })
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
