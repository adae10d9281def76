//! `Sqlite`: rows in a table of an SQLite database, each batch once: rows and key are one transaction.
//!
//! ```text
//! write: BEGIN, the rows        commit: the key, COMMIT         a crash anywhere before the end of COMMIT: neither is there
//! TABLE (job, batch_time_ms, c1, c2, ..)                        keys: see `books`
//! ```
//! The pattern for any store with transactions: ask for the key first, write it with the rows. The table is made by the first
//! batch with rows; one that exists must have as many columns. A text is TEXT, or a BLOB where it is not UTF-8; a number
//! that does not fit 64 bits with a sign is TEXT. While somebody else holds the database the sink is away: SQLite waits for a
//! moment only, the pauses are the engine's. A full disk is waited for. A database that was removed while it was open is an
//! error: SQLite would go on in a file without a name. Runs on the worker that finishes a job.

mod books;
mod looking;
#[cfg(all(test, not(tidemill_model)))]
mod tests;

use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use rusqlite::ffi::{ErrorCode, SQLITE_IOERR_SHMSIZE};
use rusqlite::types::{Null, ToSqlOutput, Value, ValueRef};
use rusqlite::{Connection, OptionalExtension, params, params_from_iter};
use rustix::io::Errno;

use super::book::Known;
use super::options::Existing;
use super::sqlite_options::{RESERVED, RESERVED_REMEDY, SqliteOptions, is_reserved_table};
use super::{BatchMeta, Cell, CommitKey, Ledger, RowRef, Rows, Sink};
use crate::error::{Error, Result};
use crate::owner::{Lack, Newest, OutputMark, Owner, PlaceWords};
use crate::storage::{Access, expect_file};
use crate::sync::planted::{Planted, planted};
use crate::time::Time;

use books::{Books, Failed, NewCommit, Stranger};

/// The most time that another user may hold the database before a start fails.
const BUSY_AT_START: Duration = Duration::from_secs(5);

/// The most time that SQLite itself waits for another user while the stream runs.
const BUSY: Duration = Duration::from_millis(100);

/// The columns before those of the rows.
const OWN_COLUMNS: usize = 2;

const MARK: &str = "SELECT batch_time_ms FROM tidemill_commits
    WHERE sink = ?1 AND pipeline = ?2 AND job = ?3 AND partition = ?4";
const SET_MARK: &str = "INSERT INTO tidemill_commits VALUES (?1, ?2, ?3, ?4, ?5)
    ON CONFLICT DO UPDATE SET batch_time_ms = excluded.batch_time_ms";

/// A sink that adds rows to a table of an SQLite database, each with its job and batch time before the columns of the row. Rows
/// and key are one transaction, so with a state directory each batch is in the table once, whatever crashes. A database that
/// another program holds is busy, which passes.
#[derive(Debug)]
pub struct Sqlite {
    connection: Connection,
    /// The connection is for a look, or to an empty database in memory: none is there, or there was no room to open it. It is
    /// opened, and made, once this start may write.
    stands_in: bool,
    /// The database, as people know it.
    path: String,
    /// Which file it is.
    file: Option<(u64, u64)>,
    table: String,
    existing: Existing,
    /// Nothing is written here any more.
    is_left: bool,
    /// Who writes, once that is known.
    begun: Option<Begun>,
    /// The commits of this run.
    committed: Ledger,
}

/// The state once an owner may write.
#[derive(Debug)]
struct Begun {
    owner: Owner,
    /// The memory from run to run; none without a state directory.
    books: Option<Books>,
    /// True if the entries of the books came in the order in which this state planned its batches.
    is_in_order: bool,
}

impl SqliteOptions {
    /// Opens the database to write to it, or to look what is there: then nothing is made and nothing changes. One that finds no
    /// room for its own files is looked at, and opened again with the first batch, which waits for room.
    ///
    /// # Errors
    /// If it cannot be opened or is no database, or the table is reserved.
    pub(super) fn open_for(&self, access: Access) -> Result<Sqlite> {
        Sqlite::open_for(self, access)
    }
}

impl Sqlite {
    /// Opens a database; one that is not there is made once the start may write to it.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Failed`] if it cannot be opened or is no database, or the table is reserved.
    ///
    /// ```
    /// use tidemill::sink::{Existing, Sqlite};
    ///
    /// let directory = tempfile::tempdir().expect("a directory");
    /// let sink = Sqlite::open(&directory.path().join("words.db"), "words", Existing::Refuse)?;
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn open(path: &Path, table: &str, existing: Existing) -> Result<Self> {
        let (path, table) = (path.to_owned(), table.to_owned());
        SqliteOptions { path, table, existing }.open_for(Access::Write)
    }

    fn open_for(options: &SqliteOptions, access: Access) -> Result<Self> {
        let SqliteOptions { path, table, existing } = options;
        let name = path.display().to_string();
        if is_reserved_table(table) {
            let text = format!("the table `{table}` of {name} {RESERVED}; {RESERVED_REMEDY}");
            return Err(Error::Config(format!("error: {text}")));
        }
        let fail = |err| Error::io(format!("cannot open the database {name}"), err);
        expect_file(path).map_err(fail)?;
        let is_new = path.metadata().map_or(true, |about| about.is_file() && about.len() == 0);
        let opened = match access {
            Access::Write if !is_new => unless_no_room(connect(path)).transpose(),
            _ => None,
        };
        let stands_in = opened.is_none() && access == Access::Write;
        let connection = opened.unwrap_or_else(|| looking::connect(path));
        let connection = connection.map_err(|err| failure(&name, "cannot open", &err))?;
        let (table, existing, committed) = (table.clone(), *existing, Ledger::default());
        let (is_left, begun, file) = (false, None, file_id(path));
        let path = name;
        Ok(Sqlite { connection, stands_in, path, file, table, existing, is_left, begun, committed })
    }

    /// Opens the database if another connection stands in for it; afterwards others of its users are waited for this long.
    fn open_it(&mut self, busy: Duration) -> rusqlite::Result<()> {
        if self.stands_in {
            let path = Path::new(&self.path);
            let connection = connect(path)?;
            connection.busy_timeout(busy)?;
            (self.connection, self.file, self.stands_in) = (connection, file_id(path), false);
        }
        Ok(())
    }

    /// A table that is written to no more: what else is there is none of its business.
    ///
    /// # Errors
    /// As [`open`](Sqlite::open).
    pub(super) fn left(path: &Path, table: &str, access: Access) -> Result<Self> {
        let (path, table) = (path.to_owned(), table.to_owned());
        let sink = SqliteOptions { path, table, existing: Existing::Append }.open_for(access)?;
        Ok(Sqlite { is_left: true, ..sink })
    }

    fn appends(&self) -> bool {
        self.existing == Existing::Append
    }

    /// Who writes. A sink that no engine has begun is one of a run without a state directory.
    fn begun(&mut self) -> Result<&mut Begun> {
        if self.begun.is_none() {
            let owner = Owner::without_state("")?;
            self.check(&owner)?;
            self.begin(&owner, &mut |_| ())?;
        }
        Ok(self.begun.as_mut().expect("begun above"))
    }

    fn unread(&self, failed: Failed) -> Error {
        match failed {
            Failed::Sql(err) => self.fail("cannot read", &err),
            Failed::Error(err) => err,
        }
    }

    /// Its name for people.
    fn title(&self) -> String {
        format!("the table `{}` in {}", self.table, self.path)
    }

    /// True if the table is there and has rows.
    fn has_rows(&self) -> rusqlite::Result<bool> {
        let is_there =
            "SELECT count(*) FROM sqlite_schema WHERE type IN ('table', 'view') AND name = ?1";
        let is_there: bool =
            self.connection.query_row(is_there, [&self.table], |row| row.get(0))?;
        let first = format!("SELECT EXISTS (SELECT 1 FROM {})", quoted(&self.table));
        Ok(is_there && self.connection.query_row(&first, [], |row| row.get(0))?)
    }

    /// The reason why this owner must not write to the table; none if it may.
    fn refusal(&self, owner: &Owner, books: &Books) -> rusqlite::Result<Option<String>> {
        let title = self.title();
        if let Some((job, key)) = books.keys().find(|(_, key)| !owner.knows(key)) {
            let right = remedies("the state directory of the same moment");
            return Ok(Some(format!("{}. {right}", owner.unknown_text(&title, job, key))));
        }
        let moment = remedies("the output of the same moment");
        let lack = self.lack(owner, books);
        let place = PlaceWords { title: &title, thing: "database", hidden: "" };
        let text = |lack| owner.lack_text(lack, place);
        if let Some(lack) = lack.as_ref().filter(|lack| !matches!(lack, Lack::All(_))) {
            return Ok(Some(format!("{}. {moment}", text(lack))));
        }
        let stranger = self.stranger(owner, books)?;
        Ok(stranger.or_else(|| {
            let lack = text(lack.as_ref()?);
            Some(format!(
                "{lack}. Put the output back. To go on without it, give the sink another table or database, or set `existing = \
                 \"append\"`, which one start is enough of: then nothing that was committed is written again"
            ))
        }))
    }

    /// The commits of this owner that the table lacks.
    fn lack(&self, owner: &Owner, books: &Books) -> Option<Lack> {
        let has = |newest: &Newest| {
            let book = books.find(&newest.job, newest.part);
            book.is_some_and(|book| book.keys().any(|key| newest.is(key)))
        };
        owner.lack(self.place().as_deref(), books.is_there().then(|| books.mark()), has)
    }

    /// The reason why this owner must not write to what others wrote; none if there is nothing of others.
    fn stranger(&self, owner: &Owner, books: &Books) -> rusqlite::Result<Option<String>> {
        let title = self.title();
        Ok(match books.stranger(&self.connection, self.has_rows()?)? {
            None => None,
            Some(Stranger::State(other)) => {
                let right = remedies("the state directory of that output");
                Some(format!(
                    "{title} holds output of {other}, and {owner} is another one. {right}"
                ))
            }
            Some(Stranger::Nobody(_)) if !owner.has_state() || self.is_adopted(owner)? => None,
            Some(Stranger::Nobody(what)) => Some(format!(
                "{title} holds output that {owner} did not write, such as {what}. {}",
                remedies("the output of the same moment")
            )),
        })
    }

    /// True if all marks from before identities may be those of this state, and there are some.
    fn is_adopted(&self, owner: &Owner) -> rusqlite::Result<bool> {
        let Some(adoption) = &owner.adoption else { return Ok(false) };
        let own = books::marks(&self.connection, &self.table, &owner.pipeline)?;
        let all = "SELECT count(*) FROM tidemill_commits WHERE sink = ?1";
        let all: usize = self.connection.query_row(all, [&self.table], |row| row.get(0))?;
        Ok(all > 0 && own.len() == all && own.iter().all(|(_, _, time)| adoption.knows(*time)))
    }

    fn fail(&self, what: &str, err: &rusqlite::Error) -> Error {
        failure(&self.path, what, err)
    }

    /// The newest batch of the job that is in the database.
    fn mark(&self, key: &CommitKey) -> rusqlite::Result<Option<u64>> {
        let names = params![self.table, &*key.pipeline, &*key.job, key.partition];
        self.connection.prepare_cached(MARK)?.query_row(names, |row| row.get(0)).optional()
    }

    fn set_mark(&self, key: &CommitKey) -> rusqlite::Result<()> {
        let time = i64::try_from(key.time.as_millis()).unwrap_or(i64::MAX);
        let mark = params![self.table, &*key.pipeline, &*key.job, key.partition, time];
        self.connection.prepare_cached(SET_MARK)?.execute(mark).map(drop)
    }

    /// Commits the rows that were written, with their key.
    fn commit_with_key(&mut self, key: &CommitKey) -> Result<(), Failed> {
        let appends = self.appends();
        let comes_late = planted(Planted::MarkAfterRows);
        if comes_late {
            self.connection.execute_batch("COMMIT")?;
        }
        let begun = self.begun.as_mut().ok_or(rusqlite::Error::InvalidQuery)?;
        match &mut begun.books {
            None => self.set_mark(key)?,
            Some(books) => {
                let written = begun.owner.written(key.time.as_millis(), key.id);
                let commit = NewCommit { key, written: &written, appends };
                books.write(&self.connection, &begun.owner, commit)?;
                if !comes_late {
                    self.connection.execute_batch("COMMIT")?;
                }
                books.committed(key, written);
                return Ok(());
            }
        }
        if !comes_late {
            self.connection.execute_batch("COMMIT")?;
        }
        Ok(())
    }

    /// Rolls back the transaction of an attempt that failed.
    fn roll_back(&self) {
        if !self.connection.is_autocommit() {
            // A failure of SQLite may have rolled it back already.
            let _ = self.connection.execute_batch("ROLLBACK");
        }
    }

    /// Rows that were written to a file without a name would be in no output.
    fn expect_file(&self) -> Result<()> {
        if self.file == file_id(Path::new(&self.path)) {
            return Ok(());
        }
        Err(Error::Failed(format!(
            "the database {} was removed or replaced while it was open, with what was committed: put it back; the next start looks for it, \
             and names the ways out",
            self.path
        )))
    }

    fn insert(&self, key: &CommitKey, rows: &Rows) -> Result<()> {
        let Some(first) = rows.iter().next() else { return Ok(()) };
        let columns = first.cells().count();
        self.expect_table(key, columns)?;
        let marks: String = (0..columns).map(|_| ", ?").collect();
        let insert = format!("INSERT INTO {} VALUES (?, ?{marks})", quoted(&self.table));
        let fail = |err| self.fail("cannot write to", &err);
        let mut insert = self.connection.prepare_cached(&insert).map_err(fail)?;
        let time = i64::try_from(key.time.as_millis()).unwrap_or(i64::MAX);
        for row in rows.iter() {
            let found = row.cells().count();
            if found != columns {
                return Err(self.unlike(key, found, columns));
            }
            insert.execute(params_from_iter(values(key, time, row))).map_err(fail)?;
        }
        Ok(())
    }

    /// Makes the table, or looks whether the rows fit the one that is there.
    fn expect_table(&self, key: &CommitKey, columns: usize) -> Result<()> {
        let names: String = (1..=columns).map(|number| format!(", c{number}")).collect();
        let table = quoted(&self.table);
        let create = format!(
            "CREATE TABLE IF NOT EXISTS {table} (job TEXT NOT NULL, batch_time_ms INTEGER NOT NULL{names})"
        );
        let fail = |err| self.fail("cannot make the table in", &err);
        self.connection.execute(&create, []).map_err(fail)?;
        let count = "SELECT count(*) FROM pragma_table_info(?1)";
        let mut count = self.connection.prepare_cached(count).map_err(fail)?;
        let found: usize = count.query_row([&self.table], |row| row.get(0)).map_err(fail)?;
        if found != columns + OWN_COLUMNS {
            return Err(self.unlike(key, columns, found.saturating_sub(OWN_COLUMNS)));
        }
        Ok(())
    }

    fn unlike(&self, key: &CommitKey, found: usize, wanted: usize) -> Error {
        Error::Failed(format!(
            "the rows of job `{}` have {found} columns, the table `{}` in {} has {wanted} for them, behind `job` and \
             `batch_time_ms`: give the job a table of its own",
            key.job, self.table, self.path
        ))
    }
}

impl Sink for Sqlite {
    fn awaits(&self) -> &'static str {
        "its disk must answer"
    }

    fn place(&self) -> Option<String> {
        let name = &self.path;
        let path =
            std::path::absolute(name).map_or(name.clone(), |path| path.display().to_string());
        Some(format!("sqlite:{path}:{}", self.table))
    }

    fn check(&mut self, owner: &Owner) -> Result<()> {
        if self.appends() || planted(Planted::CommitByLabel) {
            return Ok(());
        }
        let books = Books::read(&self.connection, &self.table, owner);
        let books = books.map_err(|failed| self.unread(failed))?;
        let refusal = self.refusal(owner, &books);
        let refusal = refusal.map_err(|err| self.fail("cannot read", &err))?;
        refusal.map_or(Ok(()), |why| Err(Error::Failed(why)))
    }

    fn begin(&mut self, owner: &Owner, note: &mut dyn FnMut(String)) -> Result<()> {
        let takes_over = owner.adoption.is_some() && !self.appends();
        if !self.is_left {
            let opened = self.open_it(BUSY_AT_START);
            // Only what is taken over needs room now.
            let opened = if takes_over { opened } else { unless_no_room(opened).map(drop) };
            opened.map_err(|err| self.fail("cannot open", &err))?;
        }
        let books = Books::read(&self.connection, &self.table, owner);
        let mut books = books.map_err(|failed| self.unread(failed))?;
        let fail = |err| self.fail("cannot read", &err);
        let is_in_order = self.refusal(owner, &books).map_err(fail)?.is_none();
        let place = self.place();
        if !books.is_there() && !self.is_left {
            owner.gone_text(&self.title(), place.as_deref()).into_iter().for_each(&mut *note);
        }
        if takes_over && !books.is_there() {
            books.adopt(&self.connection, owner).map_err(fail)?;
            if books.is_there() {
                note(format!(
                    "{}: took over the batches from before a `state_dir` had an identity",
                    self.title()
                ));
            }
        }
        if self.appends() && !is_in_order {
            note(format!("{}: rows are added to those of others", self.title()));
        }
        self.connection.busy_timeout(BUSY).map_err(fail)?;
        let books = owner.has_state().then_some(books);
        self.begun = Some(Begun { owner: owner.clone(), books, is_in_order });
        Ok(())
    }

    fn reached(&self) -> Option<OutputMark> {
        Some(self.begun.as_ref()?.books.as_ref()?.mark())
    }

    fn is_whole(&self) -> bool {
        self.begun.as_ref().is_none_or(|begun| begun.is_in_order)
    }

    fn committed(&mut self, key: &CommitKey) -> Result<bool> {
        if self.committed.committed(key) {
            return Ok(true);
        }
        let (title, is_left, appends) = (self.title(), self.is_left, self.appends());
        let begun = self.begun()?;
        if let Some(books) = begun.books.as_ref().filter(|_| !planted(Planted::CommitByLabel)) {
            let written = begun.owner.written(key.time.as_millis(), key.id);
            let book = books.find(&key.job, key.partition);
            return match book.map_or(Known::No, |book| book.look(&written, begun.is_in_order)) {
                Known::Committed => Ok(true),
                Known::No => Ok(false),
                // A start of another copy of the state wrote it, and nothing is written over here.
                Known::Other(_) if is_left => Ok(false),
                // What the state does not know was given up, and new rows are added.
                Known::Other(other) if appends && !begun.owner.knows(&other) => Ok(false),
                Known::Other(other) => Err(super::other_batch(&title, key, &written, &other)),
            };
        }
        let mark = self.mark(key).map_err(|err| self.fail("cannot read", &err))?;
        // Outputs of a job come in batch order, so the newest one stands for all before it.
        let known = mark.is_some_and(|newest| key.time <= Time::from_millis(newest));
        if known && !self.appends() && !planted(Planted::CommitByLabel) {
            return Err(Error::Failed(format!(
                "batch {} of job `{}` is in {} already: without `state_dir` nobody knows whose it is; give another file or \
                 table, or a `state_dir`",
                key.time, key.job, self.path
            )));
        }
        Ok(known && planted(Planted::CommitByLabel))
    }

    fn write(&mut self, key: &CommitKey, _meta: &BatchMeta, rows: &Rows) -> Result<()> {
        self.begun()?;
        self.open_it(BUSY).map_err(|err| self.fail("cannot open", &err))?;
        self.expect_file()?;
        self.roll_back();
        let begin = |err| self.fail("cannot write to", &err);
        self.connection.execute_batch("BEGIN IMMEDIATE").map_err(begin)?;
        let inserted = self.insert(key, rows);
        if inserted.is_err() {
            self.roll_back();
        }
        inserted
    }

    fn commit(&mut self, key: &CommitKey) -> Result<()> {
        if let Err(failed) = self.commit_with_key(key) {
            self.roll_back();
            return Err(match failed {
                Failed::Sql(err) => self.fail("cannot commit to", &err),
                Failed::Error(err) => err,
            });
        }
        self.committed.commit(key);
        Ok(())
    }
}

/// Opens a database that is written to.
fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_AT_START)?;
    // Readers do not wait for the sink, and a commit is on the disk before it is said to be done.
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    books::make_tables(&connection)?;
    Ok(connection)
}

/// The same; nothing if there is no room for it.
fn unless_no_room<T>(done: rusqlite::Result<T>) -> rusqlite::Result<Option<T>> {
    match done {
        Err(err) if finds_no_room(&err) => Ok(None),
        done => done.map(Some),
    }
}

fn failure(path: &str, what: &str, err: &rusqlite::Error) -> Error {
    let what = format!("{what} the database {path}");
    let io = |kind| Error::io(&*what, io::Error::new(kind, err.to_string()));
    match err.sqlite_error_code() {
        _ if finds_no_room(err) => io(ErrorKind::StorageFull),
        Some(
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::FileLockingProtocolFailed,
        ) => io(ErrorKind::ResourceBusy),
        Some(ErrorCode::OutOfMemory) => io(ErrorKind::OutOfMemory),
        Some(ErrorCode::SystemIoFailure) => Error::io(format!("{what}: {err}"), Errno::IO.into()),
        _ => Error::Failed(format!("{what}: {err}")),
    }
}

/// The ways out of a refusal.
fn remedies(right: &str) -> String {
    format!(
        "Give the sink another table or database, or {right}, or set `existing = \"append\"`: then rows are added to those that \
         are there, and may be there twice"
    )
}

/// Which file a path leads to; none if there is none.
fn file_id(path: &Path) -> Option<(u64, u64)> {
    path.metadata().ok().map(|found| (found.dev(), found.ino()))
}

/// True if SQLite stopped at a full disk: then the batch waits for room, as with files. A write that finds none is
/// SQLITE_FULL, and the index of its log, which is a file that must grow, has a code of its own. A sync that fails is
/// neither, whatever the system said.
fn finds_no_room(err: &rusqlite::Error) -> bool {
    err.sqlite_error().is_some_and(|err| {
        err.code == ErrorCode::DiskFull || err.extended_code == SQLITE_IOERR_SHMSIZE
    })
}

/// A name as SQL takes it, whatever is in it.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The values of a row, with those that say whose it is.
fn values<'a>(
    key: &'a CommitKey,
    time: i64,
    row: RowRef<'a>,
) -> impl Iterator<Item = ToSqlOutput<'a>> {
    let own = [ToSqlOutput::from(&*key.job), ToSqlOutput::from(time)];
    own.into_iter().chain(row.cells().map(value))
}

fn value(cell: Cell<'_>) -> ToSqlOutput<'_> {
    match cell {
        Cell::Text(text) => ToSqlOutput::Borrowed(match std::str::from_utf8(text) {
            Ok(_) => ValueRef::Text(text),
            Err(_) => ValueRef::Blob(text),
        }),
        Cell::U64(number) => match i64::try_from(number) {
            Ok(number) => ToSqlOutput::from(number),
            Err(_) => ToSqlOutput::Owned(Value::Text(number.to_string())),
        },
        Cell::I64(number) => ToSqlOutput::from(number),
        Cell::F64(number) => ToSqlOutput::from(number),
        Cell::Bool(value) => ToSqlOutput::from(value),
        Cell::Null => ToSqlOutput::from(Null),
    }
}
