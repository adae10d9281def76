//! `Unix`: rows as lines to a Unix stream socket that another program listens on.
//!
//! ```text
//! write:  connect, unless that is done ─ rows as lines, piece by piece ─▶ the socket has all bytes ─▶ the batch is done
//!              ├── refused, absent or gone: the sink is away; the next attempt connects anew and writes the batch again,
//!              │   from its first row
//!              └── nothing taken for 10 s: the sink is away; the next attempt goes on where this one stopped
//! ```
//! A batch is written at least once: a peer may see a batch that ends within a line, and then, on another connection, the
//! whole of it. A peer that does not read keeps its connection: a new one would have room in its buffer and look like a
//! reader. Nothing is remembered from run to run. The socket having the bytes is all that the sink knows: what a peer had not
//! read when it ended is lost. Lines look as those of a text file (see `formatted`). The connection is made by the first
//! rows, so a peer may be started later. A peer that reads slowly holds the batch; an attempt with one that takes nothing
//! ends after a while, so that no thread is held beyond that. What the peer sends is not read. Runs on the worker that
//! finishes a job.

#[cfg(all(test, not(tidemill_model)))]
mod tests;

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, send, socket_with,
};

use super::formatted::{FileFormat, LINE_FEEDS, Layout, LineFeeds, read_line_feeds, write_row};
use super::options::{KeyText, Opening, ShortForm, SinkKind, SinkOptions, SinkRow, read_path};
use super::pieces::Pieces;
use super::{BatchMeta, CommitKey, Ledger, Rows, SharedSink, Sink};
use crate::error::{Error, Result};
use crate::settings::diagnostics::Problem;
use crate::settings::key::Key;
use crate::settings::section::Section;

/// The longest path of a socket, in bytes: `sun_path` without its end.
const PATH_BYTES_MAX: usize = 107;

/// A peer that takes no byte for this long is away. As long as a call may take before `sink_hangs` names the sink.
const STALL_MAX: Duration = Duration::from_secs(10);

/// The time between two attempts to send to a peer that reads slowly: the kernel reports room only once most of its buffer is
/// free.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// The most bytes of one `send`. The kernel frees room by whole sends, so short ones show earlier that a slow peer reads.
const SEND_BYTES: usize = 4 * 1024;

/// Its row.
pub(super) const ROW: SinkRow = SinkRow {
    name: "unix",
    about: "writes the rows as lines to a Unix stream socket",
    keys: &[
        Key {
            name: "path",
            takes: "a path of at most 107 bytes",
            default: "",
            about: "the socket, which another program listens on",
        },
        LINE_FEEDS,
    ],
    example: "[sink.NAME.unix]\npath = \"/run/words.sock\"",
    short_forms: &[ShortForm {
        begins: "unix://",
        value: "SOCKET",
        more: "",
        settings: |path| vec![KeyText::new("path", path)],
    }],
    read,
};

/// The options of the sink [`Unix`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnixOptions {
    /// The socket, at most 107 bytes.
    pub path: PathBuf,
    /// The fate of line feeds inside texts; by default as in a text file, see [`FileOptions`](super::FileOptions).
    pub line_feeds: Option<LineFeeds>,
}

fn read(section: &mut Section<'_>) -> Option<SinkKind> {
    let path = read_path(section, "the path of a socket that another program listens on");
    if let Some(path) = &path
        && path.as_os_str().len() > PATH_BYTES_MAX
    {
        let bytes = path.as_os_str().len();
        let title = format!("`path` has {bytes} bytes: a socket's has at most {PATH_BYTES_MAX}");
        let problem = Problem::new(&section.at_of("path"), title).label("too long");
        section.problems.add(problem.hint("put the socket, or a link to it, in another directory"));
    }
    if let Some(path) = &path
        && path.as_os_str().as_encoded_bytes().contains(&0)
    {
        let problem = Problem::new(&section.at_of("path"), "`path` has a NUL, which no path has");
        section
            .problems
            .add(problem.hint("leave it out; sockets of the abstract namespace are not supported"));
    }
    let line_feeds = read_line_feeds(section);
    Some(UnixOptions { path: path?, line_feeds }.into())
}

impl SinkOptions for UnixOptions {
    fn row(&self) -> &'static SinkRow {
        &ROW
    }

    fn open(&self, _opening: &Opening<'_>) -> Result<SharedSink> {
        match self.in_the_way() {
            Some(why) => Err(Error::Failed(why)),
            None => Ok(SharedSink::new(Unix::new(self.clone()))),
        }
    }

    fn summary(&self) -> String {
        format!("lines to the socket {}", self.path.display())
    }

    fn in_the_way(&self) -> Option<String> {
        let directory = directory_of(&self.path);
        not_a_socket(&self.path).or_else(|| {
            let (shown, path) = (directory.display(), self.path.display());
            let text = format!("{path} cannot be a socket: there is no directory {shown}; make it");
            (!directory.is_dir()).then_some(text)
        })
    }
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// The reason why nobody can listen at a path: something else is there. None if a socket is, or nothing.
fn not_a_socket(path: &Path) -> Option<String> {
    let found = match fs::metadata(path) {
        Ok(found) => found.file_type(),
        // Nothing is there, or not yet.
        Err(err) if err.kind() == ErrorKind::NotFound => return None,
        Err(err) => return Some(format!("{} cannot be a socket: {err}", path.display())),
    };
    let what = match found {
        _ if found.is_socket() => return None,
        _ if found.is_dir() => "a directory",
        _ if found.is_file() => "a regular file",
        _ => "a special file",
    };
    let remedy = "give the path of a socket that another program listens on";
    Some(format!("{} is {what}, not a socket: {remedy}", path.display()))
}

/// A sink that writes rows as lines of text to a unix socket on which another program listens. It connects with the first rows,
/// and anew after a failure. A peer that is away, or that takes nothing for ten seconds, counts as a failure that can pass
/// ([`sink_retry`](crate::Config::sink_retry)).
///
/// It delivers at least once: what a peer did with the bytes is not known, so a batch whose connection breaks is sent again
/// whole.
///
/// ```
/// use std::io::Read;
/// use tidemill::sink::{Unix, UnixOptions};
/// # use tidemill::{Config, StreamingContext, testing::ManualClock};
///
/// let directory = tempfile::tempdir().expect("a directory");
/// let path = directory.path().join("rows.sock");
/// let peer = std::os::unix::net::UnixListener::bind(&path).expect("bound");
/// let ctx = StreamingContext::with_clock(Config::new("doc"), ManualClock::new())?;
/// ctx.queue_stream(vec![Some(vec!["to be"])], 1).save(Unix::new(UnixOptions { path, line_feeds: None }));
/// ctx.run_batches(1)?;
/// drop(ctx);
/// let mut text = String::new();
/// peer.accept().expect("connected").0.read_to_string(&mut text).expect("read");
/// assert_eq!(text, "to be\n");
/// # Ok::<(), tidemill::Error>(())
/// ```
#[derive(Debug)]
pub struct Unix {
    options: UnixOptions,
    /// Rows may hold line feeds, as far as their sources tell.
    gets_line_feeds: bool,
    /// None: the next rows connect.
    peer: Option<OwnedFd>,
    /// The batch that the peer has a part of and is to take the rest of.
    begun: Option<Begun>,
    /// For people: what was lost.
    notes: Vec<String>,
    /// See [`STALL_MAX`].
    stall_max: Duration,
    /// Reused from batch to batch.
    text: Vec<u8>,
    committed: Ledger,
}

/// A batch whose text a connection has a part of.
#[derive(Debug)]
struct Begun {
    key: CommitKey,
    /// Bytes of the batch's text that the socket has taken.
    sent: usize,
}

impl Unix {
    /// Creates a sink that connects once it has rows. The socket need not be there yet.
    pub fn new(options: UnixOptions) -> Self {
        let (text, committed) = Default::default();
        let (gets_line_feeds, peer, begun) = (false, None, None);
        let (notes, stall_max) = (Vec::new(), STALL_MAX);
        Unix { options, gets_line_feeds, peer, begun, notes, stall_max, text, committed }
    }

    fn layout(&self) -> Layout {
        let by_sources = if self.gets_line_feeds { LineFeeds::Escape } else { LineFeeds::Keep };
        let line_feeds = self.options.line_feeds.unwrap_or(by_sources);
        Layout { format: FileFormat::Text, line_feeds, time: None }
    }

    fn connect(&self) -> Result<OwnedFd> {
        let path = &self.options.path;
        if let Some(why) = not_a_socket(path) {
            return Err(Error::Failed(why));
        }
        let fail = |err| Error::io(format!("cannot connect to the socket {}", path.display()), err);
        connect_to(path).map_err(|err| {
            fail(match err {
                // What must come is the peer, not the directory that the kind of the error stands for.
                Errno::NOENT if directory_of(path).is_dir() => {
                    io::Error::new(ErrorKind::ConnectionRefused, "nobody listens there yet")
                }
                Errno::AGAIN => {
                    io::Error::new(ErrorKind::TimedOut, "its peer accepts no connections now")
                }
                err => err.into(),
            })
        })
    }
}

/// Connects without waiting: `std` would wait as long as the peer does not accept.
fn connect_to(path: &Path) -> rustix::io::Result<OwnedFd> {
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &address)?;
    Ok(socket)
}

impl Sink for Unix {
    fn awaits(&self) -> &'static str {
        "its reader must read"
    }

    fn expect_line_feeds(&mut self) {
        self.gets_line_feeds = true;
    }

    fn committed(&mut self, key: &CommitKey) -> Result<bool> {
        Ok(self.committed.committed(key))
    }

    fn write(&mut self, key: &CommitKey, _meta: &BatchMeta, rows: &Rows) -> Result<()> {
        // A connection with a part of a batch is used for the rest of that batch and for nothing else.
        let begun = self.begun.take();
        let fits = begun.as_ref().is_none_or(|begun| begun.key == *key);
        let rest = begun.map_or(0, |begun| begun.sent);
        let kept = self.peer.take();
        if kept.as_ref().is_some_and(lost_rows) {
            self.notes.push(format!(
                "the reader of {} closed the connection without reading all of it: rows that count as written are lost",
                self.options.path.display()
            ));
        }
        let kept = kept.filter(|peer| fits && !is_gone(peer));
        if rows.is_empty() {
            self.peer = kept;
            return Ok(());
        }
        let mut progress = Progress { skip: if kept.is_some() { rest } else { 0 }, sent: 0 };
        let peer = kept.map_or_else(|| self.connect(), Ok)?;
        let (layout, stall_max) = (self.layout(), self.stall_max);
        let mut out = |piece: &[u8]| send_all(&peer, piece, stall_max, &mut progress);
        let mut pieces = Pieces::new(&mut self.text, &mut out);
        let written = rows.iter().try_for_each(|row| {
            write_row(pieces.text, layout, row)?;
            pieces.row_ends()
        });
        let written = written.and_then(|()| pieces.end());
        if let Err(err) = written {
            if err.kind() == ErrorKind::TimedOut {
                // A connection that took nothing of this batch may be used for any.
                self.begun =
                    (progress.sent > 0).then(|| Begun { key: key.clone(), sent: progress.sent });
                self.peer = Some(peer);
            }
            let path = self.options.path.display();
            return Err(Error::io(format!("cannot write to the socket {path}"), err));
        }
        self.peer = Some(peer);
        Ok(())
    }

    fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    /// All bytes are out of our hands by now.
    fn commit(&mut self, key: &CommitKey) -> Result<()> {
        self.committed.commit(key);
        Ok(())
    }
}

/// True if the peer has closed its end. One that only writes no more may still read.
fn is_gone(peer: &OwnedFd) -> bool {
    let mut asked = [PollFd::new(peer, PollFlags::empty())];
    let asked_well = poll(&mut asked, Some(&Timespec::default())).is_ok();
    !asked_well || asked[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
}

/// True if the peer has closed its end before it read all that the socket took.
fn lost_rows(peer: &OwnedFd) -> bool {
    matches!(rustix::net::sockopt::socket_error(peer), Ok(Err(Errno::CONNRESET)))
}

/// How far the text of a batch is.
struct Progress {
    /// Bytes that an earlier attempt sent: they are passed over.
    skip: usize,
    /// Bytes that the socket has, those included.
    sent: usize,
}

/// Sends all bytes but those that an earlier attempt sent, however long that takes, as long as the peer takes some now and then.
/// A peer that is gone is an error and no SIGPIPE.
fn send_all(
    peer: &OwnedFd,
    bytes: &[u8],
    stall_max: Duration,
    progress: &mut Progress,
) -> io::Result<()> {
    let look_again = Timespec::try_from(LOOK_AGAIN).expect("a short time");
    let known = progress.skip.min(bytes.len());
    progress.skip -= known;
    progress.sent += known;
    let (mut bytes, mut stalled) = (&bytes[known..], Duration::ZERO);
    while !bytes.is_empty() {
        let part = &bytes[..bytes.len().min(SEND_BYTES)];
        match send(peer, part, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(sent) => {
                bytes = &bytes[sent..];
                progress.sent += sent;
                stalled = Duration::ZERO;
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) if stalled >= stall_max => {
                let text = format!(
                    "its reader is connected and has read less than {} KiB for {} s",
                    SEND_BYTES / 1024,
                    stall_max.as_secs()
                );
                return Err(io::Error::new(ErrorKind::TimedOut, text));
            }
            Err(Errno::AGAIN) => {
                match poll(&mut [PollFd::new(peer, PollFlags::OUT)], Some(&look_again)) {
                    Ok(0) => stalled += LOOK_AGAIN,
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(err) => return Err(err.into()),
                }
            }
            Err(err) => return Err(err.into()),
        }
    }
    Ok(())
}
