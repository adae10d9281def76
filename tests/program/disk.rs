//! Small disks of a test's own: mounted if that is allowed, and removed when the test is over.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::peers::are_there;

/// See the module.
pub struct Disk {
    directory: TempDir,
}

impl Disk {
    /// A disk in memory of this many MiB. Returns `None`, and says so, if mounting is not allowed.
    pub fn in_memory(mebibytes: u64) -> Option<Disk> {
        let disk = Disk { directory: tempfile::tempdir().expect("a directory") };
        disk.make_mount_point();
        disk.mounted(&["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "tmpfs"])
    }

    /// A disk with a file system that can be frozen.
    pub fn freezable(mebibytes: u64) -> Option<Disk> {
        if !are_there(&["mkfs.ext4", "fsfreeze"], "apt install e2fsprogs util-linux") {
            return None;
        }
        let disk = Disk { directory: tempfile::tempdir().expect("a directory") };
        disk.make_mount_point();
        let image = disk.directory.path().join("image");
        let file = fs::File::create(&image).expect("made");
        file.set_len(mebibytes << 20).expect("a sparse file");
        let image = image.to_str().expect("UTF-8");
        assert!(run("mkfs.ext4", &["-q", "-F", image]), "mkfs.ext4");
        disk.mounted(&["-o", "loop", image])
    }

    fn make_mount_point(&self) {
        fs::create_dir(self.path("")).expect("made");
    }

    fn mounted(self, options: &[&str]) -> Option<Disk> {
        let point = self.path("");
        if run("mount", &[options, &[point.to_str().expect("UTF-8")]].concat()) {
            return Some(self);
        }
        let _ = writeln!(io::stdout(), "not run: mount (needs to be root)");
        None
    }

    /// A path on the disk.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join("disk").join(name)
    }

    /// Takes all the room that is left.
    pub fn fill(&self) {
        let mut filler = fs::File::create(self.path("filler")).expect("made");
        let mut piece = 1 << 20;
        while piece > 0 {
            if filler.write_all(&vec![0; piece]).is_err() {
                piece /= 4;
            }
        }
    }

    /// Gives that room back, if it was taken.
    pub fn empty(&self) {
        let filler = self.path("filler");
        if filler.exists() {
            fs::remove_file(filler).expect("removed");
        }
    }

    /// From now on nothing can be written.
    pub fn read_only(&self) {
        let point = self.path("");
        let point = point.to_str().expect("UTF-8");
        assert!(run("mount", &["-o", "remount,ro", point]), "mounted for reading only");
    }

    /// From now on only a file or two can be created, however small. For a disk in memory.
    pub fn few_files(&self) {
        let point = self.path("");
        let point = point.to_str().expect("UTF-8");
        assert!(run("mount", &["-o", "remount,nr_inodes=3", point]), "mounted with few inodes");
    }

    /// From now on no write returns.
    pub fn freeze(&self) {
        assert!(run("fsfreeze", &["-f", self.path("").to_str().expect("UTF-8")]), "frozen");
    }

    /// Lets the writes continue.
    pub fn thaw(&self) {
        assert!(run("fsfreeze", &["-u", self.path("").to_str().expect("UTF-8")]), "thawed");
    }
}

impl Drop for Disk {
    /// Also after a failed test: a frozen disk would hold everyone who touches it for ever.
    fn drop(&mut self) {
        let point = self.path("");
        let point = point.to_str().expect("UTF-8");
        let _ = run("fsfreeze", &["-u", point]);
        let _ = run("umount", &["-l", point]);
    }
}

fn run(program: &str, args: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
