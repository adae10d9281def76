//! `Sqlite`: rows in a table of an SQLite database, each batch once: rows and mark are one transaction.
//!
//! ```text
//! write: BEGIN, the rows        commit: the mark, COMMIT        a crash anywhere before the end of COMMIT: neither is there
//! TABLE (job, batch_time_ms, c1, c2, ..)        tidemill_commits (sink, pipeline, job, partition) ─▶ its newest batch
//! ```
//! The pattern for any store with transactions: ask the mark first, set it with the rows. The table is made by the first
//! batch with rows; one that exists must have as many columns. A text is TEXT, or a BLOB where it is not UTF-8; a number
//! that does not fit 64 bits with a sign is TEXT. Whoever holds the database for long fails the batch, which is tried
//! again; a full disk does not, the batch waits for room. Runs on the worker that finishes a job.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::Duration;

use rusqlite::ffi::{ErrorCode, SQLITE_IOERR_SHMSIZE};
use rusqlite::types::{Null, ToSqlOutput, Value, ValueRef};
use rusqlite::{Connection, OptionalExtension, params, params_from_iter};

use super::{BatchMeta, Cell, CommitKey, Existing, Ledger, RowRef, Rows, Sink};
use crate::error::{Error, Result};
use crate::sync::planted::{Planted, planted};
use crate::time::Time;

/// Whether the sink is there.
pub const SQLITE_COMPILED: bool = true;

/// How long another user of the database may hold it before a batch fails.
const BUSY: Duration = Duration::from_secs(5);

/// The columns before those of the rows.
const OWN_COLUMNS: usize = 2;

const MARKS: &str = "CREATE TABLE IF NOT EXISTS tidemill_commits (
    sink TEXT NOT NULL, pipeline TEXT NOT NULL, job TEXT NOT NULL, partition INTEGER NOT NULL,
    batch_time_ms INTEGER NOT NULL, PRIMARY KEY (sink, pipeline, job, partition)) WITHOUT ROWID";
const MARK: &str = "SELECT batch_time_ms FROM tidemill_commits
    WHERE sink = ?1 AND pipeline = ?2 AND job = ?3 AND partition = ?4";
const SET_MARK: &str = "INSERT INTO tidemill_commits VALUES (?1, ?2, ?3, ?4, ?5)
    ON CONFLICT DO UPDATE SET batch_time_ms = excluded.batch_time_ms";

/// See the module.
#[derive(Debug)]
pub struct Sqlite {
    connection: Connection,
    /// The database, as people know it.
    path: String,
    table: String,
    existing: Existing,
    /// What this run has committed.
    committed: Ledger,
}

impl Sqlite {
    /// Opens a database, or makes it.
    ///
    /// # Errors
    /// If it cannot be opened or is no database.
    pub fn open(path: &Path, table: &str, existing: Existing) -> Result<Self> {
        let name = path.display().to_string();
        let fail = |err| failure(&name, "cannot open", &err);
        let connection = Connection::open(path).map_err(fail)?;
        connection.busy_timeout(BUSY).map_err(fail)?;
        // Readers do not wait for the sink, and a commit is on the disk before it is said to be done.
        connection.pragma_update(None, "journal_mode", "WAL").map_err(fail)?;
        connection.pragma_update(None, "synchronous", "FULL").map_err(fail)?;
        connection.execute(MARKS, []).map_err(fail)?;
        let table = table.to_owned();
        Ok(Sqlite { connection, path: name, table, existing, committed: Ledger::default() })
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

    /// What is open belongs to an attempt that failed.
    fn roll_back(&self) {
        if !self.connection.is_autocommit() {
            // A failure of SQLite may have rolled it back already.
            let _ = self.connection.execute_batch("ROLLBACK");
        }
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
    fn place(&self) -> Option<String> {
        let name = &self.path;
        let path =
            std::path::absolute(name).map_or(name.clone(), |path| path.display().to_string());
        Some(format!("sqlite:{path}:{}", self.table))
    }

    fn committed(&mut self, key: &CommitKey) -> Result<bool> {
        if self.committed.committed(key) {
            return Ok(true);
        }
        let mark = self.mark(key).map_err(|err| self.fail("cannot read", &err))?;
        // Outputs of a job come in batch order, so the newest one stands for all before it.
        let known = mark.is_some_and(|newest| key.time <= Time::from_millis(newest));
        if known && self.existing == Existing::InTheWay {
            return Err(Error::Failed(format!(
                "batch {} of job `{}` is in {} already: without `state_dir` nobody knows whose it is; give another file or \
                 table, or a `state_dir`",
                key.time, key.job, self.path
            )));
        }
        Ok(known)
    }

    fn write(&mut self, key: &CommitKey, _meta: &BatchMeta, rows: &Rows) -> Result<()> {
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
        let commit = || {
            if planted(Planted::MarkAfterRows) {
                self.connection.execute_batch("COMMIT")?;
                return self.set_mark(key);
            }
            self.set_mark(key)?;
            self.connection.execute_batch("COMMIT")
        };
        if let Err(err) = commit() {
            self.roll_back();
            return Err(self.fail("cannot commit to", &err));
        }
        self.committed.commit(key);
        Ok(())
    }
}

fn failure(path: &str, what: &str, err: &rusqlite::Error) -> Error {
    let what = format!("{what} the database {path}");
    if finds_no_room(err) {
        return Error::io(what, io::Error::new(ErrorKind::StorageFull, err.to_string()));
    }
    Error::Failed(format!("{what}: {err}"))
}

/// Whether SQLite stopped at a full disk: then the batch waits for room, as with files. A write that finds none is
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

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;
    use crate::batch::Failure;
    use crate::sink::given::{key, rows};
    use crate::sink::{Row, SharedSink};
    use crate::sync::{Arc, AtomicU64, Ordering};

    fn dir() -> tempfile::TempDir {
        tempfile::tempdir().expect("a directory for a test")
    }

    fn deliver<R: Row>(sink: &SharedSink, key: &CommitKey, elements: &[R]) -> Result<()> {
        sink.deliver(key, &BatchMeta::default(), &rows(elements))
    }

    fn show(cell: ValueRef<'_>) -> String {
        match cell {
            ValueRef::Integer(number) => number.to_string(),
            ValueRef::Text(text) => format!("'{}'", String::from_utf8_lossy(text)),
            other => format!("{other:?}"),
        }
    }

    /// The rows of a table, as SQL would have them.
    fn shown(path: &Path, table: &str) -> Vec<String> {
        let connection = Connection::open(path).expect("a database");
        let all = format!("SELECT * FROM {}", quoted(table));
        let mut all = connection.prepare(&all).expect("a table");
        let columns = all.column_count();
        let row = |row: &rusqlite::Row<'_>| {
            let cell = |at| row.get_ref(at).map(show);
            let cells: rusqlite::Result<Vec<String>> = (0..columns).map(cell).collect();
            cells.map(|cells| cells.join(" "))
        };
        all.query_map([], row).expect("rows").map(|row| row.expect("a row")).collect()
    }

    #[test]
    fn rows_have_the_types_of_their_cells() {
        let dir = dir();
        let path = dir.path().join("a.db");
        let sink =
            SharedSink::new(Sqlite::open(&path, "a \"b\"", Existing::InTheWay).expect("new"));
        let row = |text: &[u8], number: u64| (text.to_vec(), number);
        let all = [row(b"word", 1), row(b"\xFF", u64::MAX)];
        deliver(&sink, &key("j", 1_000), &all).expect("written");
        deliver::<(Vec<u8>, u64)>(&sink, &key("j", 2_000), &[]).expect("nothing to write");
        deliver(&sink, &key("j", 1_000), &all).expect("committed before");
        let expected = ["'j' 1000 'word' 1", "'j' 1000 Blob([255]) '18446744073709551615'"];
        assert_eq!(shown(&path, "a \"b\""), expected);
    }

    #[test]
    fn what_does_not_fit_is_said() {
        let dir = dir();
        let path = dir.path().join("a.db");
        let sink = SharedSink::new(Sqlite::open(&path, "t", Existing::Committed).expect("new"));
        deliver(&sink, &key("j", 1_000), &[(1_u64, 2_u64)]).expect("written");
        let error = deliver(&sink, &key("k", 1_000), &[1_u64]).expect_err("one column");
        assert!(error.to_string().contains("job `k` have 1 columns, the table `t`"), "{error}");
        deliver(&sink, &key("j", 2_000), &[(3_u64, 4_u64)]).expect("the failure left nothing open");
        assert_eq!(shown(&path, "t").len(), 2);
        let again = SharedSink::new(Sqlite::open(&path, "t", Existing::InTheWay).expect("there"));
        let error = deliver(&again, &key("j", 2_000), &[(3_u64, 4_u64)]).expect_err("whose is it?");
        assert!(error.to_string().contains("without `state_dir` nobody knows"), "{error}");
        // Another table has marks of its own.
        let other = SharedSink::new(Sqlite::open(&path, "u", Existing::InTheWay).expect("there"));
        deliver(&other, &key("j", 2_000), &[(3_u64, 4_u64)]).expect("written");
        std::fs::write(
            dir.path().join("no.db"),
            b"this is no database, however long one looks at it",
        )
        .expect("a file");
        let error = Sqlite::open(&dir.path().join("no.db"), "t", Existing::InTheWay);
        let error = error.expect_err("no database").to_string();
        assert!(error.starts_with("cannot open the database"), "{error}");
    }

    #[test]
    fn a_full_disk_is_waited_for() {
        let dir = dir();
        let path = dir.path().join("a.db");
        let mut sink = Sqlite::open(&path, "t", Existing::Committed).expect("new");
        let limit = |sink: &Sqlite, pages: u64| {
            let told = |row: &rusqlite::Row<'_>| row.get::<_, u64>(0);
            let set = format!("PRAGMA max_page_count = {pages}");
            sink.connection.query_row(&set, [], told).expect("a setting");
        };
        limit(&sink, 5);
        let all: Vec<(Vec<u8>, u64)> = (0..100).map(|at| (vec![b'x'; 1_000], at)).collect();
        let (key, rows) = (key("j", 1_000), rows(&all));
        for _ in 0..2 {
            let err = sink.write(&key, &BatchMeta::default(), &rows).expect_err("five pages");
            assert!(matches!(Failure::of_sink(&err), Failure::NoRoom(_)), "{err}");
            let said = err.to_string();
            assert!(
                said.starts_with("cannot write to the database ") && said.contains("full"),
                "{said}"
            );
        }
        limit(&sink, 1_000);
        sink.write(&key, &BatchMeta::default(), &rows).expect("there is room again");
        sink.commit(&key).expect("there is room again");
        assert_eq!(shown(&path, "t").len(), 100);
        // Whatever else SQLite says is a failure.
        let busy = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(5), None);
        assert!(!finds_no_room(&busy) && !finds_no_room(&rusqlite::Error::QueryReturnedNoRows));
    }

    /// Three batches; the process dies at step number `crash` of SQLite's machine, or between two calls of the sink, and
    /// the next one repeats the batch. Whether it died.
    fn dies_at(crash: u64, between: Option<usize>) -> Result<bool, String> {
        let dir = dir();
        let path = dir.path().join("a.db");
        let (steps, mut died) = (Arc::new(AtomicU64::new(0)), false);
        let open = |armed: bool| {
            let mut sink = Sqlite::open(&path, "t", Existing::Committed).expect("a database");
            // The process dies, the power does not.
            sink.connection.pragma_update(None, "synchronous", "OFF").expect("a setting");
            let steps = Arc::clone(&steps);
            let handler = move || armed && steps.fetch_add(1, Ordering::SeqCst) + 1 == crash;
            sink.connection.progress_handler(1, Some(handler)).expect("a handler");
            sink
        };
        let mut sink = open(true);
        let mut calls = 0;
        for number in 1..=3_u64 {
            let (key, rows) = (key("j", number * 1_000), rows(&[number * 10, number * 10 + 1]));
            loop {
                let mut attempt = |sink: &mut Sqlite| -> Result<()> {
                    let call = |calls: &mut usize| {
                        *calls += 1;
                        match between {
                            Some(call) if *calls == call => Err(Error::Failed("dead".to_owned())),
                            _ => Ok(()),
                        }
                    };
                    if sink.committed(&key)? {
                        return Ok(());
                    }
                    call(&mut calls)?;
                    sink.write(&key, &BatchMeta::default(), &rows)?;
                    call(&mut calls)?;
                    sink.commit(&key)?;
                    call(&mut calls)
                };
                match attempt(&mut sink) {
                    Ok(()) => break,
                    Err(err) if died => return Err(format!("a second failure: {err}")),
                    Err(_) => {
                        died = true;
                        // The connection closes with what is open in it, as the end of a process does.
                        sink = open(false);
                    }
                }
            }
        }
        drop(sink);
        let expected = [1, 2, 3].map(|n| [0, 1].map(|at| format!("'j' {n}000 {n}{at}"))).concat();
        let found = shown(&path, "t");
        if found == expected { Ok(died) } else { Err(format!("{found:?}")) }
    }

    /// R6: no row twice and none missing, wherever the process dies.
    fn r6() -> Result<u64, String> {
        for call in 1..=9 {
            dies_at(u64::MAX, Some(call)).map_err(|what| format!("call {call}: {what}"))?;
        }
        // A statement takes more steps than these.
        for crash in (1..).step_by(5) {
            if !dies_at(crash, None).map_err(|what| format!("step {crash}: {what}"))? {
                return Ok(crash);
            }
        }
        unreachable!("the steps do not end")
    }

    #[test]
    fn r6_each_batch_is_in_the_table_once_wherever_the_process_dies() {
        let steps = r6().unwrap_or_else(|what| panic!("{what}"));
        assert!(steps > 100, "{steps} steps are too few for three batches");
    }

    #[cfg(tidemill_planted)]
    #[test]
    fn r6_finds_what_is_planted() {
        use crate::sync::planted::with;
        let found = with(Planted::MarkAfterRows, r6);
        assert!(found.is_err(), "a mark that comes after its rows must show: {found:?}");
    }
}
