//! The messages of other threads to an io thread that serves many connections: new connections, wishes for replies, the stop.

use std::io;
use std::net::TcpStream;

use crate::sync::thread::Thread;
use crate::sync::{Arc, AtomicBool, Mutex, Ordering};

use super::accept::{Seat, stopping};
use super::{Peer, Remote, Waker};

/// Filled by any thread, which then calls `wake`; emptied by the io thread.
pub(super) struct Inbox {
    wake: Waker,
    posted: Mutex<Posted>,
}

/// Messages that were posted since the io thread last looked.
#[derive(Default)]
pub(super) struct Posted {
    /// At most as many as there are seats.
    pub(super) attach: Vec<(TcpStream, Peer, Seat)>,
    /// Each connection at most once.
    pub(super) asked: Vec<Arc<Asked>>,
    pub(super) stage: Stage,
}

/// The stage of the stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd)]
pub(super) enum Stage {
    /// No stop was requested.
    #[default]
    Reading,
    /// Nothing more is read; connections that are owed replies stay.
    Stopped,
    /// Nobody stays.
    Closing,
}

/// A connection whose replies can be asked for.
pub(super) struct Asked {
    pub(super) index: usize,
    /// It is in `Posted::asked`.
    posted: AtomicBool,
}

impl Asked {
    pub(super) fn new(index: usize) -> Arc<Self> {
        Arc::new(Asked { index, posted: AtomicBool::new(false) })
    }

    /// A remote that posts this to `inbox`.
    pub(super) fn remote(self: &Arc<Self>, inbox: &Arc<Inbox>) -> Remote {
        let (asked, inbox) = (Arc::clone(self), Arc::clone(inbox));
        Remote::new(move || {
            if !asked.posted.swap(true, Ordering::SeqCst) {
                inbox.posted.lock().asked.push(Arc::clone(&asked));
                (inbox.wake)();
            }
        })
    }
}

impl Inbox {
    pub(super) fn new(wake: Waker) -> Arc<Self> {
        Arc::new(Inbox { wake, posted: Mutex::default() })
    }

    /// Everything that was posted; the stage stays.
    pub(super) fn take(&self) -> Posted {
        let mut posted = self.posted.lock();
        let stage = posted.stage;
        let taken = std::mem::replace(&mut *posted, Posted { stage, ..Posted::default() });
        drop(posted);
        for asked in &taken.asked {
            // Before the replies are fetched: later replies are asked for anew.
            asked.posted.store(false, Ordering::SeqCst);
        }
        taken
    }
}

/// A running io thread, as its model sees it.
pub(super) struct Handle {
    inbox: Arc<Inbox>,
    thread: Mutex<Option<Thread>>,
}

impl Handle {
    pub(super) fn new(inbox: Arc<Inbox>, thread: Thread) -> Self {
        Handle { inbox, thread: Mutex::new(Some(thread)) }
    }

    /// Hands a prepared connection over.
    pub(super) fn attach(&self, stream: TcpStream, peer: Peer, seat: Seat) -> io::Result<()> {
        let mut posted = self.inbox.posted.lock();
        if posted.stage > Stage::Reading {
            return Err(stopping());
        }
        posted.attach.push((stream, peer, seat));
        drop(posted);
        (self.inbox.wake)();
        Ok(())
    }

    pub(super) fn stop(&self) {
        self.reach(Stage::Stopped);
    }

    pub(super) fn close(&self) {
        self.reach(Stage::Closing);
    }

    fn reach(&self, stage: Stage) {
        let mut posted = self.inbox.posted.lock();
        if posted.stage < stage {
            posted.stage = stage;
        }
        drop(posted);
        (self.inbox.wake)();
    }

    pub(super) fn thread(&self) -> Option<Thread> {
        self.thread.lock().take()
    }
}
