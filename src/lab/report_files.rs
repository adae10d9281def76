//! The files of `compare`: columns, lines of CSV, and the only place that writes reports and reads plans and results. No
//! recovery depends on them. Main thread.

use std::fmt::Write as _;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::settings::units::show_bytes;

/// Makes the directory of a report if it is not there.
pub(super) fn directory(path: &Path) -> Result<()> {
    let refused = |err| Error::io(format!("cannot make the directory {}", path.display()), err);
    fs::create_dir_all(path).map_err(refused)
}

/// Writes a whole file, over an older one.
pub(super) fn write(directory: &Path, name: &str, text: &str) -> Result<PathBuf> {
    write_to(&directory.join(name), text)
}

/// The same with the whole path.
pub(super) fn write_to(path: &Path, text: &str) -> Result<PathBuf> {
    let refused = |err| Error::io(format!("cannot write {}", path.display()), err);
    fs::write(path, text).map_err(refused)?;
    Ok(path.to_path_buf())
}

/// The text of a whole file of at most `bytes_max` bytes.
pub(super) fn read(path: &Path, bytes_max: u64) -> Result<String> {
    let refused = |err| Error::io(format!("cannot read {}", path.display()), err);
    let mut text = String::new();
    let file = fs::File::open(path).map_err(refused)?;
    file.take(bytes_max.saturating_add(1)).read_to_string(&mut text).map_err(refused)?;
    if text.len() as u64 > bytes_max {
        let most = show_bytes(bytes_max);
        return Err(Error::Failed(format!("{} is larger than {most}", path.display())));
    }
    Ok(text)
}

/// A table: the first column to the left, the others to the right.
pub(super) fn aligned(lines: &[Vec<String>]) -> String {
    let width = |column: usize| {
        lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max()
    };
    let mut text = String::new();
    for line in lines {
        for (column, cell) in line.iter().enumerate() {
            let width = width(column).unwrap_or(0);
            let _ = if column == 0 {
                write!(text, "  {cell:<width$}")
            } else {
                write!(text, "  {cell:>width$}")
            };
        }
        text.push('\n');
    }
    text
}

/// A line of CSV, with its end.
pub(super) fn csv_line(cells: &[String]) -> String {
    let quoted = |cell: &String| {
        if cell.contains([',', '"', '\n', '\r']) {
            format!("\"{}\"", cell.replace('"', "\"\""))
        } else {
            cell.clone()
        }
    };
    cells.iter().map(quoted).collect::<Vec<_>>().join(",") + "\r\n"
}
