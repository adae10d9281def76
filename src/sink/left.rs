//! `Left`: a place that a sink of an earlier run wrote to, and none of this run does: its sink was retired or writes
//! elsewhere now. What is open there is finished, and its memory of what is committed can still be asked.

use std::path::Path;

use super::file;
use super::{CommitKey, File, Sink, Sqlite};
use crate::error::Result;
use crate::owner::{Owner, StateId};
use crate::storage::{Access, real_path};

/// A place, as [`Sink::place`] says it.
enum Place<'a> {
    Directory(&'a Path),
    Table(&'a Path, &'a str),
    /// One that keeps nothing, or that this program does not know.
    Other,
}

impl Place<'_> {
    fn of(place: &str) -> Place<'_> {
        match place.split_once(':') {
            Some(("file", path)) => Place::Directory(Path::new(path)),
            Some(("sqlite", rest)) => match rest.rsplit_once(':') {
                Some((path, table)) => Place::Table(Path::new(path), table),
                None => Place::Other,
            },
            _ => Place::Other,
        }
    }
}

/// True if two places are the same one, also where a path leads through a link or is not there: a start makes it, and who only
/// looks does not.
pub(crate) fn is_same_place(one: &str, other: &str) -> bool {
    match (Place::of(one), Place::of(other)) {
        (Place::Directory(one), Place::Directory(other)) => real_path(one) == real_path(other),
        (Place::Table(one, table), Place::Table(other, its)) => {
            table == its && real_path(one) == real_path(other)
        }
        _ => one == other,
    }
}

/// The files of this state directory that are open in a place, in words; none if there is none. Changes nothing.
pub(crate) fn open_in(place: &str, identity: StateId) -> Option<String> {
    let Place::Directory(path) = Place::of(place) else { return None };
    let shown = path.display();
    if !path.is_dir() {
        return Some(format!("whatever is open in {shown}, which is not there"));
    }
    let open = Access::Look.open(path);
    match open.and_then(|storage| file::open_files(&storage, identity)) {
        Ok(files) => (!files.is_empty()).then(|| files.join(", ")),
        Err(err) => Some(format!("whatever is open in {shown}, which cannot be read ({err})")),
    }
}

/// See the module.
pub(crate) struct Left {
    place: String,
    /// None: the place is gone, or keeps nothing.
    sink: Option<Box<dyn Sink>>,
}

impl Left {
    /// Opens a place and looks whether what is open there can be finished. Changes nothing, but for a lock where it is to be
    /// written to.
    ///
    /// # Errors
    /// If another process uses it, it cannot be read, or rows that count are missing.
    pub(crate) fn open(place: &str, owner: &Owner, access: Access) -> Result<Left> {
        let mut sink: Option<Box<dyn Sink>> = match Place::of(place) {
            Place::Directory(path) if path.is_dir() => {
                Some(Box::new(File::left(access.open(path)?)?))
            }
            Place::Table(path, table) if path.is_file() => {
                Some(Box::new(Sqlite::left(path, table, access)?))
            }
            _ => None,
        };
        sink.as_mut().map_or(Ok(()), |sink| sink.check(owner))?;
        Ok(Left { place: place.to_owned(), sink })
    }

    /// Finishes what is open there. `note` takes what people should know of it.
    ///
    /// # Errors
    /// If that fails; the next start does the rest.
    pub(crate) fn finish(&mut self, owner: &Owner, note: &mut dyn FnMut(String)) -> Result<()> {
        match (&mut self.sink, Place::of(&self.place)) {
            (Some(sink), Place::Directory(_)) => sink.begin(owner, note),
            (Some(sink), _) => sink.begin(owner, &mut |_| ()),
            (None, Place::Directory(path)) => {
                note(format!("{}: it is not there, so nothing of it was finished", path.display()));
                Ok(())
            }
            (None, _) => Ok(()),
        }
    }

    /// True if a batch is committed there.
    ///
    /// # Errors
    /// If that cannot be told, or another batch is there in its place.
    pub(crate) fn committed(&mut self, key: &CommitKey) -> Result<bool> {
        match &mut self.sink {
            Some(sink) => sink.committed(key),
            None => Ok(false),
        }
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;

    #[test]
    fn places_are_compared_as_what_they_are() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().to_str().expect("UTF-8");
        let (real, link) = (format!("{path}/real"), format!("{path}/link"));
        std::fs::create_dir(&real).expect("made");
        std::os::unix::fs::symlink(&real, &link).expect("made");
        let check = |one: &str, other: &str, same: bool| {
            assert_eq!(is_same_place(one, other), same, "{one} {other}");
        };
        let file = |path: &str| format!("file:{path}");
        check(&file(&real), &file(&link), true);
        check(&file(&real), &file(path), false);
        check(&file(&real), &format!("sqlite:{real}:rows"), false);
        check(&format!("sqlite:{real}:rows"), &format!("sqlite:{link}:rows"), true);
        check(&format!("sqlite:{real}:rows"), &format!("sqlite:{real}:other"), false);
        check(&file("/not/there"), &file("/not/there"), true);
        // No matter what of it is there.
        check(&file(&format!("{real}/no/../new")), &file(&format!("{link}/new")), true);
        check(&file(&format!("{real}/no/../../link/new")), &file(&format!("{real}/new")), true);
        check(&file("/not/../there"), &file("/there"), true);
        check("", "", true);
    }
}
