//! A connection that changes nothing: neither the database nor the files beside it.
//!
//! ```text
//! no database                     ─▶ an empty one in memory
//! no log beside it, or an empty one ─▶ `immutable`: the file is all there is
//! a log, and its index              ─▶ `readonly_shm`: the index is read, or made anew in memory where nobody uses it
//! a log without its index           ─▶ exclusive, without locks: nobody uses it, and the index is in memory
//! ```
//! Whoever opens a database with a log the usual way makes its index, and may save the log and remove it at the end.

use std::ffi::OsString;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::{BUSY_AT_START, books};

/// Opens a database for a look.
pub(super) fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = match path.exists() {
        true => of_file(path)?,
        // A start makes it, also where a link leads nowhere. That it could be made was asked before.
        false => Connection::open_in_memory()?,
    };
    connection.busy_timeout(BUSY_AT_START)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    books::stand_in(&connection)?;
    Ok(connection)
}

fn of_file(path: &Path) -> rusqlite::Result<Connection> {
    let beside = |end: &str| {
        let mut name = OsString::from(path);
        name.push(end);
        PathBuf::from(name)
    };
    let has_log = beside("-wal").metadata().is_ok_and(|about| about.len() > 0);
    let has_index = beside("-shm").exists();
    let how = match (has_log, has_index) {
        (false, _) => "immutable=1",
        (true, true) => "readonly_shm=1",
        (true, false) => "vfs=unix-none",
    };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let connection = Connection::open_with_flags(format!("file:{}?{how}", escaped(path)), flags)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    if has_log && !has_index {
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    }
    Ok(connection)
}

/// A path as a URI takes it.
fn escaped(path: &Path) -> String {
    let mut text = String::new();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'/' | b'-' | b'_' | b'.' | b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => {
                text.push(char::from(*byte));
            }
            _ => drop(write!(text, "%{byte:02X}")),
        }
    }
    text
}
