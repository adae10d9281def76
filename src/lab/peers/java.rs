//! Peers on the Java virtual machine: Spark Streaming and Flink count the lines of each batch or window, as their users write
//! it. Their programs are compiled here from the sources in `benches/peers`. Main thread.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::running::{Counted, Running};
use super::{Found, PeerRow, Setting, scratch, version};
use crate::error::Result;
use crate::lab::process::Process;
use crate::lab::report_files;
use crate::sync::Arc;
use crate::time::Clock;

pub(super) const SPARK: PeerRow = PeerRow {
    name: "Spark Streaming",
    install: "apt install openjdk-17-jdk-headless; python3 -m venv V; V/bin/pip install 'pyspark==3.5.9'; \
        export PEERS_VENV=V, or SPARK_HOME",
    dials: true,
    warms_up: true,
    find: || find(&SPARK_PROGRAM),
};

pub(super) const FLINK: PeerRow = PeerRow {
    name: "Flink",
    install: "apt install openjdk-17-jdk-headless; python3 -m venv V; \
        V/bin/pip install 'apache-flink-libraries==2.3.0'; export PEERS_VENV=V, or FLINK_HOME",
    dials: true,
    warms_up: true,
    find: || find(&FLINK_PROGRAM),
};

/// A program that counts, and where the libraries are that it needs.
struct Program {
    class: &'static str,
    source: &'static str,
    /// The variable with the directory of an installation, and the directory of its libraries below that.
    home: (&'static str, &'static str),
    /// The same of the Python package, below `site-packages`.
    package: &'static str,
    /// The start of the name of the library whose name has the version.
    core: &'static str,
}

const SPARK_PROGRAM: Program = Program {
    class: "SparkCount",
    source: include_str!("../../../benches/peers/SparkCount.java"),
    home: ("SPARK_HOME", "jars"),
    package: "pyspark/jars",
    core: "spark-core_",
};

const FLINK_PROGRAM: Program = Program {
    class: "FlinkCount",
    source: include_str!("../../../benches/peers/FlinkCount.java"),
    home: ("FLINK_HOME", "lib"),
    package: "pyflink/lib",
    core: "flink-dist-",
};

/// Messages on standard error, errors only: standard output has the counts.
const LOGGING: &str = include_str!("../../../benches/peers/log4j2.properties");

/// Packages of the language that both programs look into, which newer machines refuse without these words.
const OPENED: [&str; 16] = [
    "java.lang",
    "java.lang.invoke",
    "java.lang.reflect",
    "java.io",
    "java.net",
    "java.nio",
    "java.text",
    "java.time",
    "java.util",
    "java.util.concurrent",
    "java.util.concurrent.atomic",
    "java.util.concurrent.locks",
    "sun.nio.ch",
    "sun.nio.cs",
    "sun.security.action",
    "sun.util.calendar",
];

/// The most memory for objects.
const HEAP: &str = "-Xmx4g";

/// The longest that a program runs if nobody ends it.
const SECONDS_MAX: &str = "600";

fn find(program: &'static Program) -> Option<Found> {
    let libraries = libraries(program, &|name| std::env::var(name).ok())?;
    let machine = version("java", &["-version"], "version")?;
    let classes = compiled(program, &libraries)?;
    let version = format!("{}; {machine}", core_version(program, &libraries)?);
    let command = format!("java {HEAP} … {} PORT BATCH_MS {SECONDS_MAX}", program.class);
    let start = move |setting: &Setting<'_>, clock: &Arc<dyn Clock>| {
        start(program, classes.path(), &libraries, setting, clock)
    };
    Some(Found { version, command, start: Box::new(start) })
}

/// The directory with the libraries: of an installation, or of a Python package in a virtual environment.
fn libraries(program: &Program, env: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let (variable, below) = program.home;
    let installed = env(variable).map(|home| Path::new(&home).join(below));
    let packaged = env("PEERS_VENV").into_iter().flat_map(|venv| {
        let versions = fs::read_dir(Path::new(&venv).join("lib")).into_iter().flatten().flatten();
        versions.map(|python| python.path().join("site-packages").join(program.package))
    });
    installed.into_iter().chain(packaged).find(|path| path.is_dir())
}

/// The name of the core library without its end: `spark-core_2.12-3.5.9`.
fn core_version(program: &Program, libraries: &Path) -> Option<String> {
    let files = fs::read_dir(libraries).ok()?.flatten();
    let mut names = files.map(|file| file.file_name().to_string_lossy().into_owned());
    let core = names.find(|name| name.starts_with(program.core))?;
    Some(core.trim_end_matches(".jar").to_owned())
}

/// The program's classes, in a directory that lasts as long as they are needed; `None` without a compiler.
fn compiled(program: &Program, libraries: &Path) -> Option<TempDir> {
    let directory = scratch().ok()?;
    let source = format!("{}.java", program.class);
    let path = report_files::write(directory.path(), &source, program.source).ok()?;
    report_files::write(directory.path(), "log4j2.properties", LOGGING).ok()?;
    let mut command = Command::new("javac");
    command.args(["-nowarn", "-Xlint:none", "-cp"]).arg(libraries.join("*"));
    command.arg("-d").arg(directory.path()).arg(path);
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success()).then_some(directory)
}

fn start(
    program: &Program,
    classes: &Path,
    libraries: &Path,
    setting: &Setting<'_>,
    clock: &Arc<dyn Clock>,
) -> Result<Running> {
    let mut command = Command::new("java");
    command.arg(HEAP);
    command.args(OPENED.map(|package| format!("--add-opens=java.base/{package}=ALL-UNNAMED")));
    let logging = classes.join("log4j2.properties");
    command.arg(format!("-Dlog4j2.configurationFile={}", logging.display()));
    command.arg(format!("-Djava.io.tmpdir={}", setting.directory.display()));
    command.arg("-cp").arg(format!("{}:{}/*", classes.display(), libraries.display()));
    command.arg(program.class).args([
        setting.port.to_string(),
        setting.shape.batch_ms.to_string(),
        SECONDS_MAX.to_owned(),
    ]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut process = Process::start(&mut command, clock)?;
    let lines = process.output_lines()?;
    Ok(Running::new(vec![process], Counted::Always(lines), clock))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_found_in_an_installation_or_a_virtual_environment() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = |below: &str| directory.path().join(below);
        let (home, venv) =
            (path("spark/jars"), path("v/lib/python3.11/site-packages/pyspark/jars"));
        let check = |variables: &[(&str, &Path)], expected: Option<&Path>| {
            let env = |name: &str| {
                let found = variables.iter().find(|(variable, _)| *variable == name);
                found.map(|(_, path)| path.display().to_string())
            };
            let found = libraries(&SPARK_PROGRAM, &env);
            assert_eq!(found.as_deref(), expected, "{variables:?}");
        };
        let (spark, v) = (path("spark"), path("v"));
        check(&[("SPARK_HOME", &spark), ("PEERS_VENV", &v)], None);
        fs::create_dir_all(&venv).expect("a directory");
        check(&[("SPARK_HOME", &spark), ("PEERS_VENV", &v)], Some(&venv));
        fs::create_dir_all(&home).expect("a directory");
        check(&[("SPARK_HOME", &spark), ("PEERS_VENV", &v)], Some(&home));
        check(&[], None);
        assert_eq!(core_version(&SPARK_PROGRAM, &home), None);
        fs::write(home.join("spark-core_2.12-3.5.9.jar"), "").expect("a file");
        let version = core_version(&SPARK_PROGRAM, &home);
        assert_eq!(version.as_deref(), Some("spark-core_2.12-3.5.9"));
    }

    #[test]
    fn sources_have_the_class_that_is_started() {
        for program in [&SPARK_PROGRAM, &FLINK_PROGRAM] {
            assert!(program.source.contains(&format!("public class {} ", program.class)));
        }
    }
}
