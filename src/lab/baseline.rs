//! The rival of every ingest: one thread that reads whatever comes and counts line feeds, without an engine. A run has one
//! connection, which is read until it closes, or many, which are polled. Runs on the thread that calls it.

use std::io::{self, IoSliceMut, Read};
use std::net::TcpListener;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

/// Bytes that one read can bring.
pub const READ_BYTES: usize = 256 * 1024;

/// The listener's token; connections have small ones.
const LISTENER: Token = Token(usize::MAX);

/// The count of everything that was read so far.
#[derive(Debug)]
pub struct LineCount {
    buffer: Vec<u8>,
    /// Line feeds.
    pub records: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Default for LineCount {
    fn default() -> Self {
        LineCount { buffer: vec![0; READ_BYTES], records: 0, bytes: 0 }
    }
}

impl LineCount {
    /// Reads one connection until its peer closes it.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read_all(&mut self, stream: &mut impl Read) -> io::Result<()> {
        loop {
            match stream.read(&mut self.buffer)? {
                0 => return Ok(()),
                len => self.count(len),
            }
        }
    }

    /// Accepts this many connections and reads them until all are closed; without a number it accepts for ever.
    ///
    /// # Errors
    /// If the system gives no poller, or a connection of a numbered run breaks.
    pub fn poll(&mut self, listener: TcpListener, connections: Option<usize>) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let mut listener = mio::net::TcpListener::from_std(listener);
        let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(1024));
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let (mut peers, mut closed) = (Vec::<Option<TcpStream>>::new(), 0);
        while connections.is_none_or(|all| closed < all) {
            poll.poll(&mut events, None)?;
            for token in events.iter().map(mio::event::Event::token) {
                if let Some(peer) = peers.get_mut(token.0) {
                    match self.read_out(peer) {
                        Err(err) if connections.is_some() => return Err(err),
                        Ok(false) => {}
                        Ok(true) | Err(_) => closed += 1,
                    }
                }
                while token == LISTENER
                    && let Ok((mut peer, _)) = listener.accept()
                {
                    let token = Token(peers.len());
                    poll.registry().register(&mut peer, token, Interest::READABLE)?;
                    peers.push(Some(peer));
                }
            }
        }
        Ok(())
    }

    /// Reads what is there; true if the connection closed. It reads with readv(2), whose bytes the kernel counts in
    /// `/proc/PID/io`, where others can see them.
    fn read_out(&mut self, peer: &mut Option<TcpStream>) -> io::Result<bool> {
        while let Some(stream) = peer {
            match stream.read_vectored(&mut [IoSliceMut::new(&mut self.buffer)]) {
                Ok(len @ 1..) => self.count(len),
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                end => {
                    *peer = None;
                    return end.map(|_| true);
                }
            }
        }
        // An end can be reported twice; it counts once.
        Ok(false)
    }

    fn count(&mut self, len: usize) {
        self.bytes += len as u64;
        self.records += memchr::memchr_iter(b'\n', &self.buffer[..len]).count() as u64;
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use std::io::Write;
    use std::net;

    use super::*;
    use crate::sync::{Poison, thread};

    fn check(connections: usize) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let send = move || {
            let connect = |_| net::TcpStream::connect(address).expect("it listens");
            let peers: Vec<net::TcpStream> = (0..connections).map(connect).collect();
            peers.iter().for_each(|mut peer| peer.write_all(b"one\ntwo\nthr").expect("it is read"));
        };
        let sender = thread::spawn("sender", &Poison::new(), send).expect("a thread");
        let mut count = LineCount::default();
        count.poll(listener, Some(connections)).expect("every peer closes");
        sender.join();
        let connections = connections as u64;
        assert_eq!((count.records, count.bytes), (2 * connections, 11 * connections));
    }

    #[test]
    fn every_line_of_every_connection_is_counted() {
        check(1);
        check(20);
        let mut count = LineCount::default();
        count.read_all(&mut &b"\n\nx"[..]).expect("it is memory");
        assert_eq!((count.records, count.bytes), (2, 3));
    }
}
