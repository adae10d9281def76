//! A pipeline that a test kills and starts again: its file, its directories of state and of output, its port.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::Program;

/// See the module.
pub struct Pipeline {
    directory: TempDir,
    /// The address that its source listens at, if it is a socket.
    pub address: SocketAddr,
    planted: Option<&'static str>,
}

impl Pipeline {
    /// A pipeline with a RELP source `in` that acknowledges at the time `ack`, and a file sink `files`. `rest` has its
    /// jobs.
    pub fn relp(ack: &str, rest: &str) -> Pipeline {
        // Free a moment ago; the runs bind it again and again.
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        drop(listener);
        let source = format!(
            "[source.in.socket]\nlisten = '{address}'\nframing = 'relp'\nack = '{ack}'\n\
             identity = '^(?<number>\\d+) (?<sender>a line)'\n"
        );
        Pipeline::new(address, |_| source, rest)
    }

    /// The same over the files of the directory `in`.
    pub fn files(rest: &str) -> Pipeline {
        let source = |path: &Path| {
            let directory = path.join("in");
            fs::create_dir(&directory).expect("made");
            format!("[source.in.files]\ndirectory = '{}'\n", directory.display())
        };
        Pipeline::new(SocketAddr::from(([127, 0, 0, 1], 0)), source, rest)
    }

    fn new(address: SocketAddr, source: impl FnOnce(&Path) -> String, rest: &str) -> Pipeline {
        let directory = tempfile::tempdir().expect("a directory");
        let (path, source) = (directory.path().display(), source(directory.path()));
        let text = format!(
            "name = 'r1'\nbatch_interval = '50ms'\nblock_interval = '10ms'\nstate_dir = '{path}/state'\nhttp = 'off'\n\
             {source}[sink.files.file]\npath = '{path}/out'\nformat = 'text'\n{rest}"
        );
        fs::write(directory.path().join("pipeline.toml"), text).expect("written");
        Pipeline { directory, address, planted: None }
    }

    /// With a defect, in a program that was built with them.
    #[cfg(tidemill_planted)]
    pub fn planted(self, defect: &'static str) -> Pipeline {
        Pipeline { planted: Some(defect), ..self }
    }

    /// Without the numbers by which repeated records are recognised: no state is kept between batches for them.
    pub fn without_identity(self) -> Pipeline {
        let file = self.path("pipeline.toml");
        let text = fs::read_to_string(&file).expect("written");
        let rest: Vec<&str> = text.lines().filter(|line| !line.starts_with("identity")).collect();
        fs::write(file, rest.join("\n")).expect("written");
        self
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Starts `tidemill`, and waits until it listens.
    pub fn start(&self) -> Program {
        let program = self.start_only();
        program.event("listening");
        program
    }

    pub fn start_only(&self) -> Program {
        self.start_with(&[])
    }

    /// Starts `tidemill` with more options.
    pub fn start_with(&self, options: &[&str]) -> Program {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        command.arg("run").arg(self.path("pipeline.toml")).args([
            "--log-format",
            "json",
            "--log-level",
            "debug",
        ]);
        command.args(options);
        if let Some(defect) = self.planted {
            command.env("TIDEMILL_PLANTED", defect);
        }
        Program::of(&mut command)
    }

    /// The committed batches of a job that have rows: the time in milliseconds, and the rows. The sink does not roll.
    pub fn batches(&self, job: &str) -> BTreeMap<u64, Vec<String>> {
        let mut batches = BTreeMap::new();
        for entry in fs::read_dir(self.path("out")).into_iter().flatten() {
            let path = entry.expect("listed").path();
            // JOB-TIME-PART.txt; a name that begins with a dot is not committed.
            let name = path.file_name().and_then(|name| name.to_str()).expect("text");
            let mut parts = name.split('-');
            if parts.next() == Some(job) {
                let time = parts.next().and_then(|time| time.parse().ok()).expect("a time");
                let text = fs::read_to_string(&path).expect("UTF-8");
                batches.insert(time, text.lines().map(str::to_owned).collect());
            }
        }
        batches
    }

    /// Number of times that each number is in the committed output of a job. A line is `N` and anything after it.
    pub fn numbers(&self, job: &str) -> BTreeMap<u64, u64> {
        let mut numbers = BTreeMap::new();
        for line in self.batches(job).values().flatten() {
            *numbers.entry(number_of(line).expect("a numbered line")).or_default() += 1;
        }
        numbers
    }
}

/// The number at the beginning of a line.
pub fn number_of(line: &str) -> Option<u64> {
    line.trim_start().split(' ').next()?.parse().ok()
}
