//! Selects the files of a directory that are read: by name, and by their first bytes. Pure.
//!
//! A name is read if a glob of `include` matches it, and none of `exclude`; the default ones of `exclude` are not for names
//! that `include` asks for. As in a shell, a leading `.` is matched only by a
//! glob that begins with one: hidden names are those of unfinished files. A file that was begun is read to its
//! end, whatever its name.

use globset::{Glob, GlobSet, GlobSetBuilder};

use crate::error::{Error, Result};

/// Patterns that are passed over by default: names that programs give to unfinished files, and to compressed ones.
pub const EXCLUDED: [&str; 19] = [
    "*.tmp",
    "*.part",
    "*.partial",
    "*.swp",
    "*~",
    "*.gz",
    "*.tgz",
    "*.bz2",
    "*.xz",
    "*.lzma",
    "*.lz",
    "*.zst",
    "*.lz4",
    "*.sz",
    "*.br",
    "*.Z",
    "*.zip",
    "*.7z",
    "*.rar",
];

/// Magic numbers of compressed files.
const MAGIC: [(&[u8], &str); 14] = [
    (b"\x1F\x8B\x08", "gzip"),
    (b"\x28\xB5\x2F\xFD", "zstd"),
    (b"\xFD7zXZ\0", "xz"),
    (b"BZh", "bzip2"),
    (b"\x04\x22\x4D\x18", "lz4"),
    (b"\x02\x21\x4C\x18", "lz4"),
    (b"\x1F\x9D", "compress"),
    (b"LZIP\x01", "lzip"),
    (b"\x5D\0\0", "lzma"),
    (b"\xFF\x06\0\0sNaPpY", "snappy"),
    (b"PK\x03\x04", "zip"),
    (b"7z\xBC\xAF\x27\x1C", "7z"),
    (b"Rar!\x1A\x07", "rar"),
    (b"\x89LZO\0\r\n\x1A\n", "lzop"),
];

/// More than the longest of them, in bytes.
pub(super) const MAGIC_BYTES: usize = 16;

/// A block of bzip2, and the end of an empty file: what follows `BZh` and a digit.
const BZIP2: [&[u8]; 2] = [b"1AY&SY", b"\x17\x72\x45\x38\x50\x90"];

/// Selects names.
#[derive(Clone, Debug)]
pub(super) struct Select {
    include: Option<Globs>,
    exclude: Globs,
    /// They are the default ones.
    by_default: bool,
}

#[derive(Clone, Debug)]
struct Globs {
    set: GlobSet,
    globs: Vec<String>,
}

impl Globs {
    fn new<S: AsRef<str>>(globs: &[S]) -> Result<Globs> {
        let mut set = GlobSetBuilder::new();
        for glob in globs {
            set.add(parse(glob.as_ref()).map_err(Error::Usage)?);
        }
        let set = set.build().map_err(|err| Error::Usage(err.to_string()))?;
        Ok(Globs { set, globs: globs.iter().map(|glob| glob.as_ref().to_owned()).collect() })
    }

    /// The first glob that matches; of a hidden name, that begins with a `.` as well.
    fn matching(&self, name: &[u8]) -> Option<&str> {
        let hidden = name.first() == Some(&b'.');
        let fits = |at: &usize| !hidden || self.globs[*at].starts_with('.');
        let found = self.set.matches(path(name)).into_iter().find(fits)?;
        Some(&self.globs[found])
    }
}

/// A glob of the pipeline file.
///
/// # Errors
/// The mistake, in words.
pub(crate) fn parse(glob: &str) -> Result<Glob, String> {
    if glob.contains('/') {
        return Err("a glob is for names in the directory, without `/`".to_owned());
    }
    Glob::new(glob).map_err(|err| err.kind().to_string())
}

impl Default for Select {
    fn default() -> Self {
        let exclude = Globs::new(&EXCLUDED).expect("they are globs");
        Select { include: None, exclude, by_default: true }
    }
}

impl Select {
    /// Reads only names that one of these globs matches.
    pub(super) fn include<S: AsRef<str>>(&mut self, globs: &[S]) -> Result<()> {
        self.include = Some(Globs::new(globs)?);
        Ok(())
    }

    /// Passes over names that one of these globs matches, in place of the default ones.
    pub(super) fn exclude<S: AsRef<str>>(&mut self, globs: &[S]) -> Result<()> {
        (self.exclude, self.by_default) = (Globs::new(globs)?, false);
        Ok(())
    }

    /// The reason for passing over a file of this name, if it is not read and nobody asked for that.
    pub(super) fn passes_over(&self, name: &[u8]) -> Option<PassedOver> {
        let included = self.include.as_ref().map(|globs| globs.matching(name).is_some());
        if included == Some(false) {
            return Some(PassedOver::Asked);
        }
        if name.first() == Some(&b'.') && included.is_none() {
            return Some(PassedOver::Because("its name starts with `.`".to_owned()));
        }
        if self.by_default && included == Some(true) {
            return None;
        }
        let glob = self.exclude.set.matches(path(name)).first().copied()?;
        Some(match self.by_default {
            true => {
                let like = &self.exclude.globs[glob];
                PassedOver::Because(format!(
                    "its name is like `{like}` (to read it, name it in `include`)"
                ))
            }
            false => PassedOver::Asked,
        })
    }
}

/// The reason why a name is not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PassedOver {
    /// The pipeline excludes it.
    Asked,
    Because(String),
}

/// The compressor of a file that begins like this; `None` also if `begin` is too short to tell.
pub(super) fn compressor(begin: &[u8]) -> Option<&'static str> {
    let (_, name) = MAGIC.iter().find(|(magic, _)| begin.starts_with(magic))?;
    // A text may begin with the letters of this one.
    let is_text = *name == "bzip2"
        && !begin.get(4..).is_some_and(|rest| BZIP2.iter().any(|block| rest.starts_with(block)));
    (!is_text).then_some(*name)
}

/// Names are bytes here.
fn path(name: &[u8]) -> &std::path::Path {
    std::path::Path::new(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(name))
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;

    fn check(include: Option<&[&str]>, exclude: Option<&[&str]>, name: &str, read: bool) {
        let mut select = Select::default();
        include.map(|globs| select.include(globs)).transpose().expect("globs");
        exclude.map(|globs| select.exclude(globs)).transpose().expect("globs");
        let found = select.passes_over(name.as_bytes());
        assert_eq!(found.is_none(), read, "{include:?} {exclude:?} {name}: {found:?}");
    }

    #[test]
    fn names_are_read_or_passed_over() {
        for name in ["a", "app.log", "app.log.1", "app.tmp.log", "gz", "a.GZ"] {
            check(None, None, name, true);
        }
        for name in [
            ".a",
            ".x.open",
            "a.tmp",
            "a.part",
            "a.partial",
            "a.swp",
            "a~",
            "a.gz",
            "a.log.2.zst",
            "a.Z",
        ] {
            check(None, None, name, false);
        }
        let logs = Some(&["*.log", "app-[0-9]*"][..]);
        for (name, read) in [
            ("a.log", true),
            ("app-7", true),
            ("app-x", false),
            ("a.txt", false),
            (".a.log", false),
        ] {
            check(logs, None, name, read);
        }
        check(Some(&["*"]), None, "a.tmp", true);
        check(Some(&["*.tmp"]), None, "a.tmp", true);
        check(Some(&["*.gz"]), None, "a.gz", true);
        check(Some(&["*.gz"]), None, "a.tmp", false);
        check(Some(&["*.gz"]), Some(&["b*"]), "b.gz", false);
        check(Some(&["*"]), Some(&[]), "a.tmp", true);
        check(Some(&["*"]), Some(&[]), ".a", false);
        check(Some(&[".a*"]), None, ".a", true);
        check(Some(&[".a*"]), Some(&["*b"]), ".ab", false);
        check(None, Some(&["*.1"]), "a.1", false);
        check(None, Some(&["*.1"]), "a.gz", true);
        check(None, Some(&["*.1"]), ".a", false);
        check(None, Some(&["{a,b}?"]), "b1", false);
    }

    #[test]
    fn what_the_pipeline_asked_for_is_not_said() {
        let mut select = Select::default();
        let because = |text: &str| Some(PassedOver::Because(text.to_owned()));
        assert_eq!(
            select.passes_over(b"a.gz"),
            because("its name is like `*.gz` (to read it, name it in `include`)")
        );
        assert_eq!(select.passes_over(b".a"), because("its name starts with `.`"));
        select.exclude(&["*.gz"]).expect("a glob");
        assert_eq!(select.passes_over(b"a.gz"), Some(PassedOver::Asked));
        assert_eq!(select.passes_over(b"\xFF\xFE.gz"), Some(PassedOver::Asked));
        for wrong in ["a/b", "[", "{a"] {
            assert!(select.include(&[wrong]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn compressed_files_are_known_by_their_begin() {
        let check = |begin: &[u8], expected: Option<&str>| {
            assert_eq!(compressor(begin), expected, "{begin:?}");
        };
        check(b"\x1F\x8B\x08\0\0\0\0\0", Some("gzip"));
        check(b"\x28\xB5\x2F\xFD\x04", Some("zstd"));
        check(b"\xFD7zXZ\0\0", Some("xz"));
        check(b"BZh91AY&SY\x94", Some("bzip2"));
        check(b"BZh9\x17\x72\x45\x38\x50\x90\0\0", Some("bzip2"));
        check(b"\x04\x22\x4D\x18d", Some("lz4"));
        check(b"\x1F\x9D\x90", Some("compress"));
        check(b"PK\x03\x04\x14", Some("zip"));
        check(b"BZh is a text\n", None);
        check(b"BZh9", None);
        check(b"PKW\n", None);
        check(b"2026-11-29 a line\n", None);
        check(b"", None);
        assert!(MAGIC.iter().all(|(magic, _)| magic.len() <= MAGIC_BYTES));
    }
}
