//! `Books`: what a database remembers of the batches of one state directory in one table.
//!
//! ```text
//! tidemill_outputs (sink, identity)                                       ─▶ who made it, how many commits it has
//! tidemill_batches (sink, identity, job, partition, batch_time_ms)        ─▶ the key of a batch; the newest of each job
//! tidemill_commits (sink, pipeline, job, partition) ─▶ the newest batch      of runs without a `state_dir`, and from before
//!                                                                            a `state_dir` had an identity
//! ```
//! A key comes with its rows in one transaction, which looks too whether somebody else has begun to write: a database has no
//! lock that keeps others out.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, params};

use crate::error::{Error, Result};
use crate::owner::{OutputMark, Owner, PlanDigest, Written, random_mark};
use crate::sink::CommitKey;
use crate::sink::book::Book;

/// The tables that remember: the name of each, and its columns.
const TABLES: [(&str, &str); 3] = [
    (
        "tidemill_commits",
        "sink TEXT NOT NULL, pipeline TEXT NOT NULL, job TEXT NOT NULL, partition INTEGER NOT NULL,
    batch_time_ms INTEGER NOT NULL, PRIMARY KEY (sink, pipeline, job, partition)",
    ),
    (
        "tidemill_outputs",
        "sink TEXT NOT NULL, identity TEXT NOT NULL, output INTEGER NOT NULL, pipeline TEXT NOT NULL, state_dir TEXT NOT NULL,
    commits INTEGER NOT NULL, adopted INTEGER NOT NULL, PRIMARY KEY (sink, identity)",
    ),
    (
        "tidemill_batches",
        "sink TEXT NOT NULL, identity TEXT NOT NULL, job TEXT NOT NULL, partition INTEGER NOT NULL,
    batch_time_ms INTEGER NOT NULL, run INTEGER NOT NULL, mark INTEGER NOT NULL, digest BLOB NOT NULL,
    PRIMARY KEY (sink, identity, job, partition, batch_time_ms)",
    ),
];

/// Makes those of the tables that remember which a database does not have.
pub(super) fn make_tables(connection: &Connection) -> rusqlite::Result<()> {
    TABLES.iter().try_for_each(|(name, columns)| {
        connection
            .execute_batch(&format!("CREATE TABLE IF NOT EXISTS {name} ({columns}) WITHOUT ROWID"))
    })
}

/// The same for a connection that changes nothing: an empty table in memory stands for each that is not there.
pub(super) fn stand_in(connection: &Connection) -> rusqlite::Result<()> {
    let is_there = "SELECT count(*) FROM main.sqlite_schema WHERE type = 'table' AND name = ?1";
    for (name, columns) in TABLES {
        let is_there: bool = connection.query_row(is_there, [name], |row| row.get(0))?;
        if !is_there {
            connection
                .execute_batch(&format!("CREATE TEMP TABLE {name} ({columns}) WITHOUT ROWID"))?;
        }
    }
    Ok(())
}

/// A commit that is written into the books.
#[derive(Clone, Copy, Debug)]
pub(super) struct NewCommit<'a> {
    pub(super) key: &'a CommitKey,
    pub(super) written: &'a Written,
    /// Rows are added to those of others.
    pub(super) appends: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Books {
    table: String,
    identity: String,
    output: u64,
    commits: u64,
    /// True if the database knows of it.
    is_there: bool,
    /// True if marks from before identities were taken over.
    has_adopted: bool,
    books: HashMap<(String, u32), Book>,
}

/// Who else has rows in the table, or why it is nobody's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stranger {
    State(String),
    /// Rows that no ledger names; the newest mark that a state from before identities may have set, if there is one.
    Nobody(String),
}

fn number(value: u64) -> i64 {
    value.cast_signed()
}

impl Books {
    /// The memory of this owner in the table.
    ///
    /// # Errors
    /// If the database cannot be read, or the system gives no random bytes.
    pub(super) fn read(
        connection: &Connection,
        table: &str,
        owner: &Owner,
    ) -> Result<Self, Failed> {
        let identity = owner.identity.to_string();
        let known = "SELECT output, commits, adopted FROM tidemill_outputs WHERE sink = ?1 AND identity = ?2";
        let known: Option<(i64, i64, bool)> = connection
            .prepare_cached(known)?
            .query_row(params![table, identity], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()?;
        let mut books = Books {
            table: table.to_owned(),
            identity,
            output: 0,
            commits: 0,
            is_there: known.is_some(),
            has_adopted: known.is_some_and(|(_, _, adopted)| adopted),
            books: HashMap::new(),
        };
        match known {
            Some((output, commits, _)) => {
                (books.output, books.commits) = (output.cast_unsigned(), commits.cast_unsigned());
            }
            None => books.output = random_mark()?,
        }
        books.read_keys(connection)?;
        if books.has_adopted {
            books.adopt_marks(connection, &owner.pipeline)?;
        }
        Ok(books)
    }

    fn read_keys(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let all = "SELECT job, partition, batch_time_ms, run, mark, digest FROM tidemill_batches
            WHERE sink = ?1 AND identity = ?2 ORDER BY job, partition, batch_time_ms";
        let mut all = connection.prepare_cached(all)?;
        let mut rows = all.query(params![self.table, self.identity])?;
        while let Some(row) = rows.next()? {
            let (job, part): (String, u32) = (row.get(0)?, row.get(1)?);
            let number = |at: usize| row.get::<_, i64>(at).map(i64::cast_unsigned);
            let digest = PlanDigest(row.get(5)?);
            let key = Written { time: number(2)?, run: number(3)?, mark: number(4)?, digest };
            self.book(&job, part).push(key);
        }
        for book in self.books.values_mut() {
            // One more than are kept would have been removed: a full book has forgotten some, or does soon.
            let is_full = book.keys().count() >= crate::sink::book::KEYS_MAX;
            book.take_over(std::iter::empty(), u64::from(is_full));
        }
        Ok(())
    }

    /// Takes over the newest labels that were set before identities existed.
    fn adopt_marks(&mut self, connection: &Connection, pipeline: &str) -> rusqlite::Result<()> {
        for (job, part, newest) in marks(connection, &self.table, pipeline)? {
            self.book(&job, part).adopt(newest);
        }
        Ok(())
    }

    fn book(&mut self, job: &str, part: u32) -> &mut Book {
        let new = || Book::new(job, part);
        self.books.entry((job.to_owned(), part)).or_insert_with(new)
    }

    /// The memory of a job and partition.
    pub(super) fn find(&self, job: &str, part: u32) -> Option<&Book> {
        self.books.get(&(job.to_owned(), part))
    }

    /// Every key, with its job.
    pub(super) fn keys(&self) -> impl Iterator<Item = (&str, &Written)> {
        self.books.values().flat_map(|book| book.keys().map(|key| (book.job.as_str(), key)))
    }

    /// True if there is anything of this owner.
    pub(super) fn is_there(&self) -> bool {
        self.is_there
    }

    pub(super) fn mark(&self) -> OutputMark {
        OutputMark { output: self.output, commits: self.commits }
    }

    /// Who else has rows in the table.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub(super) fn stranger(
        &self,
        connection: &Connection,
        has_rows: bool,
    ) -> rusqlite::Result<Option<Stranger>> {
        if let Some(other) = self.other(connection)? {
            return Ok(Some(Stranger::State(other)));
        }
        if self.is_there {
            return Ok(None);
        }
        let mark =
            "SELECT job, max(batch_time_ms) FROM tidemill_commits WHERE sink = ?1 GROUP BY sink";
        let mark: Option<(String, i64)> = connection
            .query_row(mark, [&self.table], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        Ok(match mark {
            Some((job, time)) => Some(Stranger::Nobody(format!("batch {time} of job `{job}`"))),
            None if has_rows => Some(Stranger::Nobody("rows".to_owned())),
            None => None,
        })
    }

    fn other(&self, connection: &Connection) -> rusqlite::Result<Option<String>> {
        let other = "SELECT pipeline, state_dir, identity FROM tidemill_outputs
            WHERE sink = ?1 AND identity <> ?2 AND (commits > 0 OR adopted) LIMIT 1";
        let title = |row: &rusqlite::Row<'_>| {
            let (pipeline, place, identity): (String, String, String) =
                (row.get(0)?, row.get(1)?, row.get(2)?);
            let short = identity.get(..8).unwrap_or(&identity).to_owned();
            Ok(format!(
                "the pipeline `{pipeline}` with the state directory {place} (identity {short})"
            ))
        };
        connection
            .prepare_cached(other)?
            .query_row(params![self.table, self.identity], title)
            .optional()
    }

    /// Takes over what was there before identities existed.
    ///
    /// # Errors
    /// If the database cannot be written to.
    pub(super) fn adopt(&mut self, connection: &Connection, owner: &Owner) -> rusqlite::Result<()> {
        let found = marks(connection, &self.table, &owner.pipeline)?;
        if found.is_empty() {
            return Ok(());
        }
        self.has_adopted = true;
        self.make(connection, owner)?;
        self.adopt_marks(connection, &owner.pipeline)
    }

    fn make(&mut self, connection: &Connection, owner: &Owner) -> rusqlite::Result<()> {
        let make = "INSERT INTO tidemill_outputs VALUES (?1, ?2, ?3, ?4, ?5, 0, ?6)";
        let place = owner.place.as_deref().unwrap_or_default();
        let (output, adopted) = (number(self.output), self.has_adopted);
        let values = params![self.table, self.identity, output, owner.pipeline, place, adopted];
        connection.prepare_cached(make)?.execute(values)?;
        self.is_there = true;
        Ok(())
    }

    /// Writes a key into the transaction that has its rows. It counts once [`committed`](Books::committed) was called.
    ///
    /// # Errors
    /// If the database cannot be written to, or somebody else has begun to.
    pub(super) fn write(
        &mut self,
        connection: &Connection,
        owner: &Owner,
        commit: NewCommit<'_>,
    ) -> Result<(), Failed> {
        let NewCommit { key, written, appends } = commit;
        if !appends && let Some(other) = self.other(connection)? {
            return Err(Failed::Error(Error::Failed(format!(
                "{other} has begun to write to the table `{}` as well: give each a table of its own",
                self.table
            ))));
        }
        if !self.is_there {
            self.make(connection, owner)?;
            // The transaction may be rolled back.
            self.is_there = false;
        }
        let count = "UPDATE tidemill_outputs SET commits = commits + 1
            WHERE sink = ?1 AND identity = ?2 AND commits = ?3";
        let commits = number(self.commits);
        let counted = connection.prepare_cached(count)?.execute(params![
            self.table,
            self.identity,
            commits
        ])?;
        if counted != 1 {
            return Err(Failed::Error(Error::Failed(format!(
                "another process writes to the table `{}` with a copy of {owner}: stop it, or give it a table of its own",
                self.table
            ))));
        }
        let forget = self.find(&key.job, key.partition).and_then(Book::next_to_forget);
        if let Some(oldest) = forget {
            let forget = "DELETE FROM tidemill_batches
                WHERE sink = ?1 AND identity = ?2 AND job = ?3 AND partition = ?4 AND batch_time_ms <= ?5";
            let of =
                params![self.table, self.identity, &*key.job, key.partition, number(oldest.time)];
            connection.prepare_cached(forget)?.execute(of)?;
        }
        let insert =
            "INSERT OR REPLACE INTO tidemill_batches VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        let Written { time, run, mark, digest } = *written;
        connection.prepare_cached(insert)?.execute(params![
            self.table,
            self.identity,
            &*key.job,
            key.partition,
            number(time),
            number(run),
            number(mark),
            digest.0
        ])?;
        Ok(())
    }

    /// The transaction was committed.
    pub(super) fn committed(&mut self, key: &CommitKey, written: Written) {
        self.is_there = true;
        self.commits += 1;
        self.book(&key.job, key.partition).push(written);
    }
}

/// Of each job and partition of a pipeline the newest batch, from runs without a state directory or before identities.
pub(super) fn marks(
    connection: &Connection,
    table: &str,
    pipeline: &str,
) -> rusqlite::Result<Vec<(String, u32, u64)>> {
    let all = "SELECT job, partition, batch_time_ms FROM tidemill_commits WHERE sink = ?1 AND pipeline = ?2";
    let row = |row: &rusqlite::Row<'_>| {
        Ok((row.get(0)?, row.get(1)?, row.get::<_, i64>(2)?.cast_unsigned()))
    };
    connection.prepare_cached(all)?.query_map([table, pipeline], row)?.collect()
}

/// The reason why the books cannot be read or written.
#[derive(Debug)]
pub(super) enum Failed {
    Sql(rusqlite::Error),
    Error(Error),
}

impl From<rusqlite::Error> for Failed {
    fn from(err: rusqlite::Error) -> Self {
        Failed::Sql(err)
    }
}

impl From<Error> for Failed {
    fn from(err: Error) -> Self {
        Failed::Error(err)
    }
}
