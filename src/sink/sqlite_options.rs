//! The options of the sink `sqlite`, which a program reads that is built without it, too. The twins `sqlite` and
//! `sqlite_absent` open it. Main thread.

use std::path::PathBuf;

use super::SharedSink;
use super::options::{
    Destination, EXISTING, Existing, Holds, KeyText, Opening, ShortForm, SinkKind, SinkOptions,
    SinkRow, read_existing, read_path,
};
use crate::error::Result;
use crate::settings::diagnostics::Problem;
use crate::settings::key::Key;
use crate::settings::section::Section;

/// True if the program has the sink [`Sqlite`](super::Sqlite): it was built with the feature `sqlite`.
pub const SQLITE_COMPILED: bool = cfg!(feature = "sqlite");

/// The table of a database unless another one is named.
const TABLE: &str = "rows";

/// Its row.
pub(super) const ROW: SinkRow = SinkRow {
    name: "sqlite",
    about: "adds the rows to a table of an SQLite database (feature `sqlite`)",
    keys: &[
        Key {
            name: "path",
            takes: "a path",
            default: "",
            about: "the database file, which need not exist",
        },
        Key { name: "table", takes: "a name", default: TABLE, about: "the table" },
        EXISTING,
    ],
    example: "[sink.NAME.sqlite]\npath = \"words.db\"\ntable = \"words\"",
    short_forms: &[ShortForm {
        begins: "sqlite://",
        value: "FILE",
        more: "?table=NAME",
        settings: |typed| match typed.split_once("?table=") {
            Some((path, table)) => vec![KeyText::new("path", path), KeyText::new("table", table)],
            None => vec![KeyText::new("path", typed)],
        },
    }],
    read,
};

/// The options of the sink `sqlite`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqliteOptions {
    /// The database.
    pub path: PathBuf,
    /// The table.
    pub table: String,
    /// The meaning of output of others in the table.
    pub existing: Existing,
}

impl SinkOptions for SqliteOptions {
    fn row(&self) -> &'static SinkRow {
        &ROW
    }

    fn open(&self, opening: &Opening<'_>) -> Result<SharedSink> {
        self.open_for(opening.access).map(SharedSink::new)
    }

    fn summary(&self) -> String {
        format!("table `{}` in {}", self.table, self.path.display())
    }

    fn destination(&self) -> Option<Destination<'_>> {
        Some(Destination { key: "path", path: &self.path, holds: Holds::Table(&self.table) })
    }
}

fn read(section: &mut Section<'_>) -> Option<SinkKind> {
    if !SQLITE_COMPILED {
        let problem = Problem::new(&section.at, "this program has no sink `sqlite`");
        section.problems.add(problem.hint("build it with `--features sqlite`"));
    }
    let path = read_path(section, "the path of a database file, which need not exist");
    let table = section.text("table");
    if let Some(found) = table.as_ref().filter(|found| is_reserved_table(&found.value)) {
        let text = format!("the table `{}` {RESERVED}", found.value);
        let problem = Problem::new(&found.at, text).label("reserved");
        section.problems.add(problem.hint(RESERVED_REMEDY));
    }
    let table = table.map_or_else(|| TABLE.to_owned(), |found| found.value);
    let existing = read_existing(section);
    Some(SqliteOptions { path: path?, table, existing }.into())
}

/// The words about a table that [`is_reserved_table`].
pub(super) const RESERVED: &str = "is reserved: names that begin with `tidemill_` or `sqlite_` are those of tables that the sink \
    or SQLite keeps for itself";

/// And what to do about it.
pub(super) const RESERVED_REMEDY: &str = "give the table another name";

/// True if the sink `sqlite`, or SQLite, keeps tables of this name for itself.
pub(super) fn is_reserved_table(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.starts_with("tidemill_") || name.starts_with("sqlite_")
}
