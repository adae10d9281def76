//! The sink `unix` beside listeners that come late, stall, close and are replaced.

use std::io::Read;
use std::os::unix::net::{UnixListener, UnixStream};

use tempfile::TempDir;

use super::*;
use crate::error::awaited;
use crate::sink::given::{key, lines, rows};
use crate::sync::thread::{self, Thread};
use crate::sync::{Arc, Mutex, Poison};

/// A directory for a socket, and a sink that writes to it.
struct Rig {
    directory: TempDir,
    sink: Unix,
}

impl Rig {
    fn new() -> Rig {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("x.sock");
        let sink = Unix::new(UnixOptions { path, ..UnixOptions::default() });
        Rig { directory, sink }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("x.sock")
    }

    fn listen(&self) -> UnixListener {
        UnixListener::bind(self.path()).expect("a socket")
    }

    /// Delivers a batch as the engine does.
    fn deliver(&mut self, ms: u64, rows: &Rows) -> Result<()> {
        let key = key("j", ms);
        assert!(!self.sink.committed(&key).expect("told"), "{ms}");
        self.sink.write(&key, &BatchMeta::default(), rows)?;
        self.sink.commit(&key)?;
        assert!(self.sink.committed(&key).expect("told"), "{ms}");
        Ok(())
    }
}

fn read_to_end(mut peer: UnixStream) -> String {
    let mut text = String::new();
    peer.read_to_string(&mut text).expect("UTF-8");
    text
}

fn accept(listener: &UnixListener) -> UnixStream {
    listener.accept().expect("it connects").0
}

/// A batch that no buffer of a socket holds, and its text.
fn large() -> (Rows, String) {
    let texts: Vec<String> = (0..100_000).map(|number| format!("row {number:010}")).collect();
    (rows(&texts), texts.iter().map(|text| format!("{text}\n")).collect())
}

/// An error that the engine waits for, with these words.
fn expect_awaited(err: &Error, needs: &str, words: &str) {
    let Error::Io { source, .. } = err else { panic!("{err:?}") };
    assert_eq!(awaited(source), Some(needs), "{err}");
    assert!(err.to_string().contains(words), "{err}");
}

#[test]
fn rows_are_lines_of_one_connection() {
    let mut rig = Rig::new();
    let listener = rig.listen();
    rig.deliver(1, &rows(&[("a", 1_u64), ("b\nc", 2)])).expect("taken");
    rig.deliver(2, &Rows::new()).expect("nothing to write");
    rig.deliver(3, &lines(&["as it\nwas\n"])).expect("taken");
    rig.sink.expect_line_feeds();
    rig.deliver(4, &rows(&["b\nc"])).expect("taken");
    drop(rig);
    let text = read_to_end(accept(&listener));
    assert_eq!(text, "(a,1)\n(b\nc,2)\nas it\nwas\nb\\nc\n");
}

#[test]
fn a_peer_that_is_absent_is_waited_for() {
    let mut rig = Rig::new();
    let sink = rig.sink.options.open(&Opening {
        console: &crate::sink::Writer::new(Box::new(io::sink())),
        access: crate::storage::Access::Write,
    });
    assert!(sink.is_ok());
    let err = rig.deliver(1, &rows(&["a"])).expect_err("nobody is there");
    expect_awaited(&err, "its server must be there", "nobody listens there yet");
    drop(rig.listen());
    let err = rig.deliver(1, &rows(&["a"])).expect_err("nobody listens");
    expect_awaited(&err, "its server must be there", "cannot connect to the socket");
    fs::remove_file(rig.path()).expect("removed");
    let listener = rig.listen();
    rig.deliver(1, &rows(&["a"])).expect("taken");
    drop(rig);
    assert_eq!(read_to_end(accept(&listener)), "a\n");
}

#[test]
fn a_peer_that_went_between_two_batches_is_connected_to_again() {
    let mut rig = Rig::new();
    let listener = rig.listen();
    rig.deliver(1, &rows(&["a"])).expect("taken");
    drop(accept(&listener));
    rig.deliver(2, &rows(&["b"])).expect("on a new connection");
    drop(rig);
    assert_eq!(read_to_end(accept(&listener)), "b\n");
}

#[test]
fn a_batch_that_was_cut_is_written_again_whole() {
    let mut rig = Rig::new();
    let (listener, (all, text)) = (rig.listen(), large());
    let read = Arc::new(Mutex::new(String::new()));
    let reader: Thread = {
        let read = Arc::clone(&read);
        let body = move || {
            let mut first = accept(&listener);
            first.read_exact(&mut [0; 1_000]).expect("a part");
            drop(first);
            *read.lock() = read_to_end(accept(&listener));
        };
        thread::spawn("reader", &Poison::new(), body).expect("a thread")
    };
    let err = rig.deliver(1, &all).expect_err("the peer is gone");
    expect_awaited(&err, "its server must be there", "cannot write to the socket");
    rig.deliver(1, &all).expect("taken");
    drop(rig);
    drop(reader);
    assert!(*read.lock() == text, "the whole batch from its first row");
}

#[test]
fn a_peer_that_does_not_read_keeps_its_connection_and_gets_the_rest_once_it_does() {
    let mut rig = Rig::new();
    let (listener, (all, text)) = (rig.listen(), large());
    rig.sink.stall_max = Duration::from_millis(200);
    let err = rig.deliver(1, &all).expect_err("nobody reads");
    expect_awaited(&err, "its server must be there", "has read less than 4 KiB for 0 s");
    let sent = rig.sink.begun.as_ref().expect("a part is there").sent;
    let err = rig.deliver(1, &all).expect_err("still nobody reads");
    expect_awaited(&err, "its server must be there", "has read less than 4 KiB for 0 s");
    assert_eq!(rig.sink.begun.as_ref().expect("the same part").sent, sent);
    rig.sink.stall_max = STALL_MAX;
    let read = Arc::new(Mutex::new(Vec::new()));
    let reader = {
        let read = Arc::clone(&read);
        let body = move || {
            let (mut peer, mut part) = (accept(&listener), [0; 5_000]);
            loop {
                match peer.read(&mut part).expect("it reads") {
                    0 => break,
                    got => read.lock().extend_from_slice(&part[..got]),
                }
            }
        };
        thread::spawn("reader", &Poison::new(), body).expect("a thread")
    };
    rig.deliver(1, &all).expect("taken");
    drop(rig);
    drop(reader);
    assert!(*read.lock() == text.as_bytes());
}

#[test]
fn a_peer_that_closes_with_rows_unread_is_told() {
    let mut rig = Rig::new();
    let listener = rig.listen();
    rig.deliver(1, &rows(&["a"])).expect("taken");
    drop(accept(&listener));
    rig.deliver(2, &rows(&["b"])).expect("on a new connection");
    let notes = rig.sink.take_notes().join("");
    assert!(notes.contains("closed the connection without reading all of it"), "{notes}");
    let mut read = accept(&listener);
    read.read_exact(&mut [0; 2]).expect("the row");
    drop(read);
    rig.deliver(3, &rows(&["c"])).expect("on a third");
    assert_eq!(rig.sink.take_notes(), [""; 0]);
}

#[test]
fn a_stalled_batch_of_which_nothing_is_sent_keeps_the_connection() {
    let mut rig = Rig::new();
    let (listener, (all, _)) = (rig.listen(), large());
    rig.sink.stall_max = Duration::from_millis(200);
    // Fills the buffer, so that nothing of the next batch is taken.
    rig.deliver(1, &all).expect_err("nobody reads");
    rig.sink.begun = None;
    for _ in 0..2 {
        rig.deliver(2, &rows(&["next"])).expect_err("still nobody reads");
        assert!(rig.sink.begun.is_none());
    }
    let reader =
        thread::spawn("reader", &Poison::new(), move || drop(read_to_end(accept(&listener))))
            .expect("a thread");
    rig.sink.stall_max = STALL_MAX;
    rig.deliver(2, &rows(&["next"])).expect("on the same connection");
    drop(rig);
    drop(reader);
}

#[test]
fn a_begun_batch_that_is_given_up_is_followed_on_another_connection() {
    let mut rig = Rig::new();
    let (listener, (all, text)) = (rig.listen(), large());
    rig.sink.stall_max = Duration::from_millis(200);
    rig.deliver(1, &all).expect_err("nobody reads");
    rig.deliver(2, &rows(&["next"])).expect("on a new connection");
    let cut = read_to_end(accept(&listener));
    assert!(!cut.is_empty() && text.starts_with(&cut));
    drop(rig);
    assert_eq!(read_to_end(accept(&listener)), "next\n");
}

#[test]
fn a_path_that_cannot_be_a_socket_is_named() {
    let check = |path: PathBuf, words: &str| {
        let options = UnixOptions { path, ..UnixOptions::default() };
        let console = crate::sink::Writer::new(Box::new(io::sink()));
        let access = crate::storage::Access::Look;
        let opened = options.open(&Opening { console: &console, access });
        let err = opened.expect_err("refused");
        assert!(matches!(err, Error::Failed(_)), "{err:?}");
        assert!(err.to_string().contains(words), "{err}");
    };
    let rig = Rig::new();
    let directory = rig.directory.path();
    fs::write(directory.join("file"), "").expect("written");
    check(directory.join("file"), "/file is a regular file, not a socket: give the path");
    check(directory.to_owned(), "is a directory, not a socket: give the path");
    check(directory.join("no/x.sock"), "/no; make it");
    check(PathBuf::from("/dev/null"), "/dev/null is a special file, not a socket");
    check(directory.join("file/x.sock"), "/x.sock cannot be a socket: Not a directory");
    let to_itself = directory.join("loop");
    std::os::unix::fs::symlink(&to_itself, &to_itself).expect("a link");
    check(to_itself, "/loop cannot be a socket: Too many levels of symbolic links");
}

#[test]
fn a_socket_that_something_else_replaced_is_a_failure_at_once() {
    let mut rig = Rig::new();
    fs::write(rig.path(), "").expect("written");
    let err = rig.deliver(1, &rows(&["a"])).expect_err("no socket");
    assert!(matches!(err, Error::Failed(_)), "{err:?}");
    fs::remove_file(rig.path()).expect("removed");
    fs::remove_dir(rig.directory.path()).expect("removed");
    let err = rig.deliver(1, &rows(&["a"])).expect_err("no directory");
    expect_awaited(&err, "its directory must be there", "No such file or directory");
}
