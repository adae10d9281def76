//! The places that the parts of a pipeline read and write, which two of them must not share. Main thread; asks the file system
//! what paths lead to, and opens nothing.
//!
//! ```text
//!  source dir == sink dir, and a job leads from the one to the other ─▶ endless loop        error
//!  source dir == sink dir otherwise                                  ─▶ one reads the other  warning
//!  two writers in one place, or one port twice                       ─▶ it cannot work       error
//! ```
//! Only directories that are the same are compared: a `files` source reads no directory below its own, and no part looks
//! for files below those of another one.

use std::collections::HashSet;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::config::jobs::Job;
use crate::config::{Http, Pipeline, Then};
use crate::settings::diagnostics::{At, Problem, Problems};
use crate::settings::tree::{Table, Value};
use crate::settings::units::Address;
use crate::sink::{Destination, Holds};
use crate::source::Source;
use crate::source::direct::files::FilesSource;
use crate::storage::real_path;

/// Checks the places of a pipeline that is good otherwise.
pub(super) fn check(table: &Table, pipeline: &Pipeline, problems: &Problems) {
    let places = places(table, pipeline);
    for (number, other) in places.iter().enumerate() {
        for one in &places[..number] {
            if let Some(problem) = conflicts(one, other, &pipeline.jobs) {
                problems.add(problem);
            }
        }
    }
    check_ports(table, pipeline, problems);
}

/// A place that a part of the pipeline uses.
struct Place<'a> {
    part: Part<'a>,
    real: Real,
    /// The position at which it was given.
    at: At,
}

enum Part<'a> {
    /// Reads the files of a directory.
    Source {
        name: &'a str,
        files: Box<FilesSource>,
    },
    /// Writes files to a directory.
    Sink {
        name: &'a str,
        /// How the names of the files end.
        end: &'static str,
    },
    /// Writes to a table of a file.
    Database {
        name: &'a str,
        table: &'a str,
        file: String,
    },
    State,
    /// The directory below `spill_dir`.
    Spill,
    DeadLetters,
    /// The directory of a source's records that are too long.
    Overlong(&'a str),
}

impl Part<'_> {
    fn text(&self) -> String {
        match self {
            Part::Source { name, .. } => format!("source `{name}`"),
            Part::Sink { name, .. } | Part::Database { name, .. } => format!("sink `{name}`"),
            Part::State => "`state_dir`".to_owned(),
            Part::Spill => "`spill_dir`".to_owned(),
            Part::DeadLetters => "the dead letters".to_owned(),
            Part::Overlong(name) => format!("the over-long records of source `{name}`"),
        }
    }
}

/// The file or directory that a path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Real {
    path: PathBuf,
    /// Device and inode, if it is there: a directory may be mounted at several places.
    id: Option<(u64, u64)>,
}

impl Real {
    fn is(&self, other: &Real) -> bool {
        self.path == other.path || (self.id.is_some() && self.id == other.id)
    }
}

/// Follows a path, also if its end does not exist yet.
fn real(path: &Path) -> Real {
    let path = real_path(path);
    let id = fs::metadata(&path).ok().map(|found| (found.dev(), found.ino()));
    Real { path, id }
}

/// The position of a key that was given, or of what holds it.
fn at(table: &Table, keys: &[&str]) -> At {
    let (mut table, mut at) = (table, At::Whole);
    for key in keys {
        let Some(entry) = table.get(key) else { break };
        at = entry.node.at.clone();
        match &entry.node.value {
            Value::Table(below) => table = below,
            _ => break,
        }
    }
    at
}

fn places<'a>(table: &Table, pipeline: &'a Pipeline) -> Vec<Place<'a>> {
    let mut places = Vec::new();
    let mut add = |part: Part<'a>, path: &Path, keys: &[&str]| {
        places.push(Place { part, real: real(path), at: at(table, keys) });
    };
    let resolved = pipeline.resolved();
    if let Some(path) = &pipeline.state_dir {
        add(Part::State, path, &["state_dir"]);
    }
    if let Some(spill) = &resolved.spill {
        let path = spill.directory.join(format!("tidemill-{}", resolved.name));
        add(Part::Spill, &path, &["spill_dir"]);
    }
    if resolved.on_failure.then == Then::DeadLetter {
        add(Part::DeadLetters, &resolved.dead_letter_directory, &["on_failure", "directory"]);
    }
    for (name, source) in &pipeline.sources {
        match source {
            Source::Files(files) => {
                let part = Part::Source { name, files: Box::new(FilesSource::from(files)) };
                add(part, &files.directory, &["source", name, "files", "directory"]);
            }
            Source::Socket(socket) => {
                if let Some(path) = &socket.dead_letter {
                    add(Part::Overlong(name), path, &["source", name, "socket", "dead_letter"]);
                }
            }
            Source::Generate(_) => {}
        }
    }
    for (name, sink) in &pipeline.sinks {
        let Some(Destination { key, path, holds }) = sink.destination() else { continue };
        let part = match holds {
            Holds::Files { end } => Part::Sink { name, end },
            Holds::Table(table) => {
                let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                Part::Database { name, table, file }
            }
        };
        add(part, path, &["sink", name, sink.row().name, key]);
    }
    places
}

/// The problem of two places, if they have one.
fn conflicts(one: &Place<'_>, other: &Place<'_>, jobs: &[(String, Job)]) -> Option<Problem> {
    // Whatever order they come in, the one that reads is the first.
    match (&one.part, &other.part) {
        (_, Part::Source { .. }) if !matches!(one.part, Part::Source { .. }) => {
            conflicts(other, one, jobs)
        }
        (Part::Source { name, files }, _) => reads(one, name, files, other, jobs),
        (Part::Database { table, .. }, Part::Database { table: second, .. }) => {
            let is_same = one.real.is(&other.real) && table == second;
            is_same.then(|| two_writers(one, other, "write to one table"))
        }
        (Part::Database { .. }, _) | (_, Part::Database { .. }) => None,
        _ if !one.real.is(&other.real) => None,
        (
            Part::Sink { .. } | Part::State | Part::Spill,
            Part::Sink { .. } | Part::State | Part::Spill,
        ) => Some(two_writers(one, other, "use one directory")),
        _ => {
            let title = format!("{} and {} use one directory", one.part.text(), other.part.text());
            Some(Problem::warning(&other.at, title))
        }
    }
}

fn two_writers(one: &Place<'_>, other: &Place<'_>, what: &str) -> Problem {
    let title = format!("{} and {} {what}", one.part.text(), other.part.text());
    let problem = Problem::new(&other.at, title).also(&one.at, "the first");
    match (&one.part, &other.part) {
        (Part::Sink { .. }, Part::Sink { .. }) | (Part::Database { .. }, Part::Database { .. }) => {
            problem.hint("let both jobs write to one sink, or give each its own")
        }
        _ => problem.hint("give each its own directory"),
    }
}

/// The files that a source reads of a place that is its own directory.
fn reads(
    source: &Place<'_>,
    name: &str,
    files: &FilesSource,
    other: &Place<'_>,
    jobs: &[(String, Job)],
) -> Option<Problem> {
    let shares = |real: &Real| source.real.is(real);
    let parent = || other.real.path.parent().map(real).unwrap_or_else(|| other.real.clone());
    let text = other.part.text();
    let endless = |what: &str| {
        let title = format!("source `{name}` reads {what}: an endless loop");
        Problem::new(&source.at, title).also(&other.at, "written here").hint(
            "give them two directories, or keep the source from these files with `include` or `exclude`",
        )
    };
    let wrong = |what: &str| {
        let title = format!("source `{name}` reads {what} as records");
        Problem::new(&source.at, title).also(&other.at, "here").hint("give it another directory")
    };
    match &other.part {
        Part::Sink { name: sink, end } if shares(&other.real) => {
            let mut written = jobs.iter().filter(|(_, job)| job.to.iter().any(|to| to == sink));
            if !written.any(|(job, _)| files.reads(&format!("{job}-1-0.{end}"))) {
                return None;
            }
            Some(match leads(name, sink, jobs) {
                true => endless(&format!("what {text} writes")),
                false => Problem::warning(
                    &source.at,
                    format!("source `{name}` reads what {text} writes"),
                ),
            })
        }
        Part::Database { file, .. } if shares(&parent()) && files.reads(file) => {
            Some(wrong(&format!("the database of {text}")))
        }
        Part::State if shares(&other.real) && files.reads("wal-000000000001.seg") => {
            Some(wrong("the files of `state_dir`"))
        }
        Part::Spill if shares(&other.real) && files.reads("spill-0000000000000001.blocks") => {
            Some(wrong("the files of `spill_dir`"))
        }
        Part::DeadLetters if shares(&other.real) && files.reads("p-1-s.records") => {
            Some(endless("the dead letters of this pipeline"))
        }
        _ => None,
    }
}

/// True if the records of a source come to a sink: jobs lead from sources to sinks, and no further.
fn leads(source: &str, sink: &str, jobs: &[(String, Job)]) -> bool {
    let leads = |job: &Job| {
        job.from.iter().any(|from| from == source) && job.to.iter().any(|to| to == sink)
    };
    jobs.iter().any(|(_, job)| leads(job))
}

/// Sources, and the HTTP server if it was given an address, that listen on one port.
fn check_ports(table: &Table, pipeline: &Pipeline, problems: &Problems) {
    let mut listening: Vec<(String, Address, At)> = Vec::new();
    if let Http::At(address) = &pipeline.http {
        listening.push(("`http`".to_owned(), address.clone(), at(table, &["http"])));
    }
    for (name, source) in &pipeline.sources {
        if let Source::Socket(socket) = source
            && let Some(address) = socket.listen_address()
        {
            let at = at(table, &["source", name, "socket", "listen"]);
            listening.push((format!("source `{name}`"), address, at));
        }
    }
    let mut told = HashSet::new();
    for (number, (second, address, at)) in listening.iter().enumerate() {
        for (first, other, other_at) in &listening[..number] {
            if overlap(address, other) && told.insert(second) {
                let title = format!("{first} and {second} listen on one port, {}", address.port);
                problems.add(Problem::new(at, title).also(other_at, "the first"));
            }
        }
    }
}

/// True if two listeners cannot have these addresses at once. Names are not looked up.
fn overlap(one: &Address, other: &Address) -> bool {
    let ip = |address: &Address| match address.host.as_str() {
        "localhost" => Some(IpAddr::from([127, 0, 0, 1])),
        host => host.parse::<IpAddr>().ok(),
    };
    let hosts = match (ip(one), ip(other)) {
        (Some(one), Some(other)) => {
            // One of IPv6 for any address takes those of IPv4 as well.
            let takes = |all: IpAddr, other: IpAddr| {
                all.is_unspecified() && (all.is_ipv6() || other.is_ipv4())
            };
            one == other || takes(one, other) || takes(other, one)
        }
        (None, None) => one.host.eq_ignore_ascii_case(&other.host),
        (Some(ip), None) | (None, Some(ip)) => ip.is_unspecified(),
    };
    hosts && one.port == other.port && one.port != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_cannot_both_be_listened_at() {
        let check = |one: &str, other: &str, expected: bool| {
            let address = |text| Address::parse(text).expect("an address");
            assert_eq!(overlap(&address(one), &address(other)), expected, "{one} {other}");
            assert_eq!(overlap(&address(other), &address(one)), expected, "{other} {one}");
        };
        check("127.0.0.1:5514", "127.0.0.1:5514", true);
        check("127.0.0.1:5514", "127.0.0.1:5515", false);
        check("127.0.0.1:5514", "127.0.0.2:5514", false);
        check("0.0.0.0:5514", "127.0.0.2:5514", true);
        check("0.0.0.0:5514", "[::1]:5514", false);
        check("[::]:5514", "127.0.0.2:5514", true);
        check("[::]:5514", "0.0.0.0:5514", true);
        check("localhost:5514", "127.0.0.1:5514", true);
        check("a.example:5514", "A.example:5514", true);
        check("a.example:5514", "b.example:5514", false);
        check("a.example:5514", "0.0.0.0:5514", true);
        check("a.example:5514", "10.0.0.1:5514", false);
        check("127.0.0.1:0", "127.0.0.1:0", false);
    }

    #[test]
    fn paths_are_followed_as_far_as_they_lead() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path();
        fs::create_dir(path.join("a")).expect("made");
        std::os::unix::fs::symlink("a", path.join("link")).expect("linked");
        let check = |one: &str, other: &str, expected: bool| {
            let is_same = real(&path.join(one)).is(&real(&path.join(other)));
            assert_eq!(is_same, expected, "{one} {other}");
        };
        check("a", "link", true);
        check("a", "a/../a/", true);
        check("a", "b", false);
        check("a/new/deep", "link/new/deep", true);
        check("a/new", "link/new/../other", false);
        check("a/new/../other", "link/other", true);
        check("new", "./new/", true);
        let here = std::env::current_dir().expect("there");
        assert!(real(Path::new("new")).is(&real(&here.join("new"))));
        assert!(real(Path::new(".")).is(&real(&here)));
    }
}
