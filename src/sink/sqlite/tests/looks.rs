//! A look at a database leaves no trace, whatever lies beside the file, and sees all that is committed.

use std::fs;

use super::*;

/// A name that is none in a URI.
const IN_USE: &str = "a #1?.db";

/// The files of a directory: names and bytes. In the process that has the index of a log in use a look shares it, and marks
/// there how far it reads.
fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(dir).expect("listed");
    let mut files: Vec<_> = entries
        .map(|entry| {
            let path = entry.expect("listed").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            let is_in_use = name == format!("{IN_USE}-shm");
            (name, if is_in_use { Vec::new() } else { fs::read(&path).expect("read") })
        })
        .collect();
    files.sort();
    files
}

/// A table with a batch of `state`, still open: the log and its index lie beside the database.
fn open_table(path: &Path, state: &mut State) -> SharedSink {
    let sink = SharedSink::new(Sqlite::open(path, "t", Existing::Refuse).expect("new"));
    let owner = state.start(1);
    sink.check(&owner).expect("free");
    sink.begin(&owner, &mut |_| ()).expect("begun");
    deliver(&sink, &state.plan("j", 1_000), &[1_u64]).expect("written");
    sink
}

/// The answer of a look for this owner: nothing, or why it must not write there.
fn look(dir: &Path, name: &str, owner: &Owner) -> Option<String> {
    let before = files(dir);
    let (path, table) = (dir.join(name), "t".to_owned());
    let options = SqliteOptions { path, table, existing: Existing::Refuse };
    let opened = options.open_for(Access::Look);
    let refusal = opened.and_then(|mut sink| sink.check(owner)).err().map(|err| err.to_string());
    let after = files(dir);
    let changed = before.iter().zip(&after).find(|(before, after)| before != after);
    assert_eq!(
        changed.map(|(before, after)| (&before.0, &after.0)),
        None,
        "a look leaves no trace"
    );
    assert_eq!(before.len(), after.len(), "a look leaves no trace");
    refusal
}

/// The state itself may go on, and another one is told whose it is: so the look has seen what is committed.
fn check(dir: &Path, name: &str, state: &State) {
    assert_eq!(look(dir, name, &state.clone().start(2)), None, "{name}");
    let other = look(dir, name, &State::new(9).start(1)).expect("it is another one");
    assert!(other.contains("holds output of the pipeline `p`"), "{name}: {other}");
}

#[test]
fn a_database_is_looked_at_whatever_lies_beside_it() {
    let (dir, mut state) = (dir(), State::new(1));
    let path = dir.path().join(IN_USE);
    let sink = open_table(&path, &mut state);
    let beside = |name: &str, end: &str| dir.path().join(format!("{name}{end}"));
    // In use, as it is: with its log and the index of that.
    assert!(beside(IN_USE, "-wal").metadata().expect("there").len() > 0);
    check(dir.path(), IN_USE, &state);
    // As a kill leaves it; as a copy without the index does.
    for (copy, ends) in [("killed.db", &["", "-wal", "-shm"][..]), ("copy.db", &["", "-wal"])] {
        for end in ends {
            fs::copy(beside(IN_USE, end), beside(copy, end)).expect("copied");
        }
        check(dir.path(), copy, &state);
    }
    // And after a stop in order.
    drop(sink);
    assert!(!beside(IN_USE, "-wal").exists());
    check(dir.path(), IN_USE, &state);
}

#[test]
fn what_is_not_there_is_not_made() {
    let (dir, owner) = (dir(), State::new(1).start(1));
    assert_eq!(look(dir.path(), "none.db", &owner), None);
    let refusal = look(dir.path(), "no/none.db", &owner).expect("no such directory");
    assert!(refusal.starts_with("cannot open the database "), "{refusal}");
    // A database that no sink has seen, with a table of that name.
    let connection = Connection::open(dir.path().join("foreign.db")).expect("made");
    connection.execute_batch("CREATE TABLE t (a); INSERT INTO t VALUES (1)").expect("made");
    drop(connection);
    let refusal = look(dir.path(), "foreign.db", &owner).expect("rows of nobody");
    assert!(refusal.contains("did not write, such as rows"), "{refusal}");
}
