//! `Error`, sorted by what the caller can do about it, and `Result`.
//!
//! Owns the exit code of each kind of error. Knows nothing of the engine.

use std::fmt;
use std::io::{self, ErrorKind};

use rustix::io::Errno;

use crate::wording::count;

/// The exit code of a program that has done what it was asked to do.
pub(crate) const EXIT_DONE: u8 = 0;
/// The exit code of a program that failed, or left something undone.
pub(crate) const EXIT_FAILED: u8 = 1;
/// The exit code for a command line that makes no sense.
pub(crate) const EXIT_USAGE: u8 = 2;
/// The exit code for a pipeline file that is wrong (EX_CONFIG of sysexits).
pub(crate) const EXIT_CONFIG: u8 = 78;
/// The exit code that the runtime gives a program whose main thread panicked.
const EXIT_PANIC: u8 = 101;
/// A shell reports this plus the number of the signal that ended a program.
const EXIT_SIGNAL: u8 = 128;

/// Every exit code of `tidemill run`, with its meaning. [`Error::exit_code`] is the one for an error.
pub const EXIT_CODES: &[(u8, &str)] = &[
    (EXIT_DONE, "done, or nobody reads the rows any more"),
    (EXIT_FAILED, "the stream failed, a drain left something, or a second signal came"),
    (EXIT_USAGE, "the command line makes no sense"),
    (EXIT_CONFIG, "the pipeline file is wrong"),
    (EXIT_PANIC, "a mistake of the program itself (a panic) kept it from ending in order"),
    (
        EXIT_SIGNAL + 1,
        "SIGHUP came before the run had begun (the code is what a shell makes of it)",
    ),
    (EXIT_SIGNAL + 2, "SIGINT came before the run had begun (the same)"),
    (EXIT_SIGNAL + 15, "SIGTERM came before the run had begun (the same)"),
];

/// An error, sorted by what the caller can do about it. The text of each is for people: it names the file, line, key, address or
/// thread, and the remedy where there is one.
///
/// ```
/// use tidemill::{Config, Error, StreamingContext};
///
/// let told = match StreamingContext::new(Config::new("words").workers(0)).map(|_| ()) {
///     Err(Error::Config(text)) => format!("correct the configuration: {text}"),
///     Err(Error::Usage(text)) => format!("correct the program: {text}"),
///     Err(err) if err.passes() => format!("start again later: {err}"),
///     Err(err) => format!("look into it: {err} ({:?})", err.of_system()),
///     Ok(()) => "it is built".to_owned(),
/// };
/// assert_eq!(told, "correct the configuration: `workers` is 0, but must be 1 to 1024");
/// ```
#[derive(Debug)]
pub enum Error {
    /// The command line or a call does not make sense: the program must say it differently. Starting it again does not help.
    Usage(String),
    /// The pipeline file or [`Config`](crate::Config) is wrong and must be corrected. The text is ready to print, with position
    /// and hint.
    Config(String),
    /// The operating system refused something; `what` names the thing and, where known, the remedy.
    Io {
        /// The operation that failed, with its object.
        what: String,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A batch failed for good, after its retries. With a state directory the next start runs it again with the same input.
    Batch {
        /// The nominal time of the batch, in milliseconds since the epoch.
        time_ms: u64,
        /// The job (output) that failed.
        job: String,
        /// Number of attempts.
        attempts: u32,
        /// The last failure.
        cause: String,
    },
    /// The stream stopped, or was refused a start, for a reason that somebody must look into: a panic in a thread, a damaged
    /// log, a lost source, an output of somebody else.
    Failed(String),
    /// The engine stopped before everything was processed; the text says what was left. With a state directory the next start
    /// processes it.
    Undrained(String),
    /// A signal stopped something that has no order to stop in; the text says what there is of it.
    Interrupted(String),
}

/// The result of anything in Tidemill that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Creates an error of the operating system; `what` is the operation that failed.
    ///
    /// ```
    /// let err = tidemill::Error::io("cannot listen on 127.0.0.1:1", std::io::ErrorKind::AddrInUse.into());
    /// assert_eq!(err.exit_code(), 1);
    /// ```
    pub fn io(what: impl Into<String>, source: io::Error) -> Self {
        Error::Io { what: what.into(), source }
    }

    /// Returns true if the failure is one of the operating system that [passes]: the same call may succeed later.
    pub fn passes(&self) -> bool {
        self.of_system().is_some_and(passes)
    }

    /// Returns the error of the operating system, if there is one.
    pub fn of_system(&self) -> Option<&io::Error> {
        match self {
            Error::Io { source, .. } => Some(source),
            _ => None,
        }
    }

    /// Returns the exit code of the command line for this error, see [`EXIT_CODES`].
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Usage(_) => EXIT_USAGE,
            Error::Config(_) => EXIT_CONFIG,
            Error::Interrupted(_) => EXIT_SIGNAL + 2,
            Error::Io { .. } | Error::Batch { .. } | Error::Failed(_) | Error::Undrained(_) => {
                EXIT_FAILED
            }
        }
    }
}

/// True if a failed call of the operating system may succeed later: it lacked disk space, descriptors or memory, and will
/// succeed once somebody gives some back. Other failures (EIO, ENOENT, EROFS) stay until somebody looks into them.
///
/// ```
/// use std::io::ErrorKind;
/// let passes = |kind: ErrorKind| tidemill::error::passes(&kind.into());
/// assert!(passes(ErrorKind::StorageFull) && passes(ErrorKind::QuotaExceeded));
/// assert!(!passes(ErrorKind::NotFound) && !passes(ErrorKind::ReadOnlyFilesystem));
/// ```
pub fn passes(err: &io::Error) -> bool {
    let kinds = [
        ErrorKind::StorageFull,
        ErrorKind::QuotaExceeded,
        ErrorKind::Interrupted,
        ErrorKind::WouldBlock,
        ErrorKind::OutOfMemory,
    ];
    let descriptors = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS].map(Errno::raw_os_error);
    kinds.contains(&err.kind()) || err.raw_os_error().is_some_and(|it| descriptors.contains(&it))
}

/// The event that a failed call of a sink waits for: its server, disk or directory is away and can come back, or somebody
/// else has it now. Returns `None` if the failure stays as it is, as a permission or a schema does.
///
/// | failure | kinds |
/// |---|---|
/// | connection | refused, reset, aborted, not connected, timed out, broken pipe, unexpected end, host or network out of reach |
/// | busy | resource busy, would block, interrupted |
/// | missing | a directory or file that is not found, a handle of a network file system that is stale |
/// | device | EIO, ENXIO, ENODEV |
/// | descriptors, memory | as [`passes`] |
///
/// ```
/// use std::io::{Error, ErrorKind};
/// use tidemill::error::awaited;
/// assert_eq!(awaited(&ErrorKind::ConnectionRefused.into()), Some("its server must be there"));
/// assert_eq!(awaited(&Error::from_raw_os_error(5)), Some("its disk must work"));
/// assert_eq!(awaited(&ErrorKind::PermissionDenied.into()), None);
/// ```
pub fn awaited(err: &io::Error) -> Option<&'static str> {
    let is = |errnos: &[Errno]| {
        err.raw_os_error().is_some_and(|it| errnos.iter().any(|no| no.raw_os_error() == it))
    };
    Some(match err.kind() {
        ErrorKind::ConnectionRefused
        | ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::NotConnected
        | ErrorKind::BrokenPipe
        | ErrorKind::UnexpectedEof
        | ErrorKind::TimedOut
        | ErrorKind::HostUnreachable
        | ErrorKind::NetworkUnreachable
        | ErrorKind::NetworkDown
        | ErrorKind::AddrNotAvailable => "its server must be there",
        ErrorKind::ResourceBusy | ErrorKind::WouldBlock | ErrorKind::Interrupted => {
            "whoever holds it must let it go"
        }
        ErrorKind::NotFound => "its directory must be there",
        ErrorKind::StaleNetworkFileHandle => "its file system must be mounted again",
        ErrorKind::OutOfMemory => "memory must become free",
        _ if is(&[Errno::MFILE, Errno::NFILE, Errno::NOBUFS]) => "more open files must be allowed",
        _ if is(&[Errno::IO, Errno::NXIO, Errno::NODEV]) => "its disk must work",
        _ => return None,
    })
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Usage(text)
            | Error::Config(text)
            | Error::Failed(text)
            | Error::Undrained(text)
            | Error::Interrupted(text) => f.write_str(text),
            Error::Io { what, source } => write!(f, "{what}: {source}"),
            Error::Batch { time_ms, job, attempts, cause } => {
                write!(
                    f,
                    "batch {time_ms} ms of job `{job}` failed after {}: {cause}",
                    count(*attempts, "attempt")
                )
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}
