//! The only file of `compare` that writes: reports for people, which nothing reads back and no recovery depends on.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Makes the directory of a report if it is not there.
pub(super) fn directory(path: &Path) -> Result<()> {
    let refused = |err| Error::io(format!("cannot make the directory {}", path.display()), err);
    fs::create_dir_all(path).map_err(refused)
}

/// Writes a whole file, over an older one.
pub(super) fn write(directory: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let path = directory.join(name);
    let refused = |err| Error::io(format!("cannot write {}", path.display()), err);
    fs::write(&path, text).map_err(refused)?;
    Ok(path)
}
