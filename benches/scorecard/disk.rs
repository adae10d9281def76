//! A small disk: a file system in memory under a fresh directory, unmounted when this is dropped. Only root may mount it.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::Outcome;

pub struct Disk(TempDir);

impl Disk {
    /// A disk of this many bytes. The error is the command's.
    pub fn mount(bytes: u64) -> Outcome<Disk> {
        let directory = tempfile::tempdir()?;
        let size = format!("size={bytes}");
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &size, "tidemill-disk"]).arg(directory.path());
        let mounted = command.output()?;
        if !mounted.status.success() {
            return Err(String::from_utf8_lossy(&mounted.stderr).trim().into());
        }
        Ok(Disk(directory))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a process that was killed may still be on its way out.
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}
