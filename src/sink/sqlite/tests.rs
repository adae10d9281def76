//! The sink `sqlite`, wherever its process dies, and whoever else uses the table.

mod looks;
mod owners;

use super::*;
use crate::exec::Failure;
use crate::owner::Output;
use crate::sink::given::{State, key, rows};
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
    let sink = SharedSink::new(Sqlite::open(&path, "a \"b\"", Existing::Refuse).expect("new"));
    let row = |text: &[u8], number: u64| (text.to_vec(), number);
    let all = [row(b"word", 1), row(b"\xFF", u64::MAX)];
    deliver(&sink, &key("j", 1_000), &all).expect("written");
    deliver(&sink, &key("j", 1_000), &all).expect("committed before");
    deliver::<(Vec<u8>, u64)>(&sink, &key("j", 2_000), &[]).expect("nothing to write");
    let expected = ["'j' 1000 'word' 1", "'j' 1000 Blob([255]) '18446744073709551615'"];
    assert_eq!(shown(&path, "a \"b\""), expected);
}

#[test]
fn what_does_not_fit_is_said() {
    let dir = dir();
    let path = dir.path().join("a.db");
    let sink = SharedSink::new(Sqlite::open(&path, "t", Existing::Refuse).expect("new"));
    deliver(&sink, &key("j", 1_000), &[(1_u64, 2_u64)]).expect("written");
    let error = deliver(&sink, &key("k", 1_000), &[1_u64]).expect_err("one column");
    assert!(error.to_string().contains("job `k` have 1 columns, the table `t`"), "{error}");
    deliver(&sink, &key("j", 2_000), &[(3_u64, 4_u64)]).expect("the failure left nothing open");
    assert_eq!(shown(&path, "t").len(), 2);
    let again = SharedSink::new(Sqlite::open(&path, "t", Existing::Refuse).expect("there"));
    let error = deliver(&again, &key("j", 2_000), &[(3_u64, 4_u64)]).expect_err("whose is it?");
    assert!(error.to_string().contains("without `state_dir` nobody knows"), "{error}");
    // Another table has marks of its own.
    let other = SharedSink::new(Sqlite::open(&path, "u", Existing::Refuse).expect("there"));
    deliver(&other, &key("j", 2_000), &[(3_u64, 4_u64)]).expect("written");
    std::fs::write(dir.path().join("no.db"), b"this is no database, however long one looks at it")
        .expect("a file");
    let error = Sqlite::open(&dir.path().join("no.db"), "t", Existing::Refuse);
    let error = error.expect_err("no database").to_string();
    assert!(error.starts_with("cannot open the database"), "{error}");
}

#[test]
fn a_full_disk_is_waited_for() {
    let dir = dir();
    let path = dir.path().join("a.db");
    let mut sink = Sqlite::open(&path, "t", Existing::Refuse).expect("new");
    let limit = |sink: &Sqlite, pages: u64| {
        let told = |row: &rusqlite::Row<'_>| row.get::<_, u64>(0);
        let set = format!("PRAGMA max_page_count = {pages}");
        sink.connection.query_row(&set, [], told).expect("a setting");
    };
    sink.begun().expect("a run of its own");
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
    let mut state = State::new(1);
    // A start that refuses what the process before it left has found that something is missing.
    let open = |armed: bool, owner: &Owner| -> Result<Sqlite, String> {
        let mut sink = Sqlite::open(&path, "t", Existing::Refuse).expect("a database");
        // The process dies, the power does not.
        sink.connection.pragma_update(None, "synchronous", "OFF").expect("a setting");
        sink.check(owner).map_err(|err| err.to_string())?;
        sink.begin(owner, &mut |_| ()).map_err(|err| err.to_string())?;
        let steps = Arc::clone(&steps);
        let handler = move || armed && steps.fetch_add(1, Ordering::SeqCst) + 1 == crash;
        sink.connection.progress_handler(1, Some(handler)).expect("a handler");
        Ok(sink)
    };
    let mut sink = open(true, &state.start(1))?;
    let mut calls = 0;
    for number in 1..=3_u64 {
        let (key, rows) = (state.plan("j", number * 1_000), rows(&[number * 10, number * 10 + 1]));
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
                    sink = open(false, &state.start(2))?;
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

/// The meaning of an error of SQLite with this code for the batch: `room`, what has to happen, or nothing.
fn check_code(code: i32, expected: &str) {
    let err = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None);
    let found = match Failure::of_sink(&failure("a.db", "cannot write to", &err)) {
        Failure::Away(away) => away.needs,
        Failure::NoRoom(_) => "room",
        Failure::Closed(_) | Failure::Failed(_) => "",
    };
    assert_eq!(found, expected, "{code}");
}

#[test]
fn what_passes_of_sqlites_failures() {
    use rusqlite::ffi;
    for code in
        [ffi::SQLITE_BUSY, ffi::SQLITE_LOCKED, ffi::SQLITE_PROTOCOL, ffi::SQLITE_BUSY_SNAPSHOT]
    {
        check_code(code, "whoever holds it must let it go");
    }
    check_code(ffi::SQLITE_IOERR_WRITE, "its disk must work");
    check_code(ffi::SQLITE_NOMEM, "memory must become free");
    check_code(ffi::SQLITE_FULL, "room");
    let for_good = [
        ffi::SQLITE_READONLY,
        ffi::SQLITE_PERM,
        ffi::SQLITE_AUTH,
        ffi::SQLITE_CONSTRAINT,
        ffi::SQLITE_SCHEMA,
    ];
    for_good.into_iter().for_each(|code| check_code(code, ""));
    [ffi::SQLITE_CORRUPT, ffi::SQLITE_NOTADB, ffi::SQLITE_CANTOPEN]
        .into_iter()
        .for_each(|code| check_code(code, ""));
}

#[test]
fn somebody_who_holds_the_database_is_waited_for_by_the_engine() {
    let dir = dir();
    let path = dir.path().join("a.db");
    let sink = SharedSink::new(Sqlite::open(&path, "t", Existing::Refuse).expect("new"));
    deliver(&sink, &key("j", 1_000), &[1_u64]).expect("written");
    let other = Connection::open(&path).expect("a database");
    other.execute_batch("BEGIN IMMEDIATE").expect("held");
    let err = deliver(&sink, &key("j", 2_000), &[2_u64]).expect_err("it is held");
    assert!(matches!(Failure::of_sink(&err), Failure::Away(_)), "{err}");
    other.execute_batch("ROLLBACK").expect("let go");
    deliver(&sink, &key("j", 2_000), &[2_u64]).expect("written");
    assert_eq!(shown(&path, "t"), ["'j' 1000 1", "'j' 2000 2"]);
}

#[test]
fn a_database_that_is_removed_while_it_is_open_takes_no_rows() {
    let dir = dir();
    let path = dir.path().join("a.db");
    let sink = SharedSink::new(Sqlite::open(&path, "t", Existing::Refuse).expect("new"));
    deliver(&sink, &key("j", 1_000), &[1_u64]).expect("written");
    std::fs::rename(&path, dir.path().join("b.db")).expect("moved");
    let err = deliver(&sink, &key("j", 2_000), &[2_u64]).expect_err("nobody would find them");
    assert!(err.to_string().contains("was removed or replaced while it was open"), "{err}");
    std::fs::rename(dir.path().join("b.db"), &path).expect("put back");
    deliver(&sink, &key("j", 2_000), &[2_u64]).expect("written");
}
