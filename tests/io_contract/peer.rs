//! The peers of a test, and the streams that they send: a stream repeats itself, so its bytes are checked without a copy.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::LazyLock;

use crate::WATCHDOG;

/// Number of bytes after which a peer's stream repeats itself; a prime, so that no buffer size hides a mistake.
const PERIOD: usize = 65_521;

/// Two periods of a stream, so that every period is one slice.
static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut random = Random(0x5DEE_CE66);
    let one: Vec<u8> = (0..PERIOD).map(|_| random.below(256).to_le_bytes()[0]).collect();
    [one.clone(), one].concat()
});

/// The stream of peer `salt` from `offset` to `offset + len`, in pieces. Its first byte is the salt.
fn pieces(salt: u8, offset: u64, len: usize) -> impl Iterator<Item = (u64, Vec<u8>)> {
    let end = offset + len as u64;
    (offset..end).step_by(PERIOD).map(move |at| {
        let start = usize::try_from(at % PERIOD as u64).expect("small") + usize::from(salt) * 200;
        let start = start % PERIOD;
        let len = usize::try_from((end - at).min(PERIOD as u64)).expect("small");
        let mut piece = PATTERN[start..start + len].to_vec();
        if at == 0 {
            piece[0] = salt;
        }
        (at, piece)
    })
}

/// The offset of the first byte in `bytes` that differs from the stream, which `bytes` continues at `offset`.
pub fn first_wrong(bytes: &[u8], salt: u8, offset: u64) -> Option<u64> {
    pieces(salt, offset, bytes.len()).zip(bytes.chunks(PERIOD)).find_map(|((at, piece), got)| {
        let same = || piece.iter().zip(got).take_while(|(piece, got)| piece == got).count();
        (piece != got).then(|| at + same() as u64)
    })
}

/// The test's end of a connection; the model knows it by `address`.
pub struct TestPeer {
    pub stream: TcpStream,
    pub address: SocketAddr,
    pub salt: u8,
    pub sent: u64,
}

impl TestPeer {
    pub fn new(stream: TcpStream, address: SocketAddr, salt: u8) -> std::io::Result<TestPeer> {
        stream.set_write_timeout(Some(WATCHDOG))?;
        stream.set_read_timeout(Some(WATCHDOG))?;
        stream.set_nodelay(true)?;
        Ok(TestPeer { stream, address, salt, sent: 0 })
    }

    /// Returns the next `len` bytes of its stream.
    pub fn next(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len);
        pieces(self.salt, self.sent, len).for_each(|(_, piece)| bytes.extend_from_slice(&piece));
        self.sent += len as u64;
        bytes
    }

    pub fn send(&mut self, len: usize) {
        let bytes = self.next(len);
        self.stream.write_all(&bytes).expect("the peer reads");
    }

    /// Sends until the connection accepts no more, at most `most` bytes.
    pub fn fill(&mut self, most: usize) {
        self.stream.set_nonblocking(true).expect("a socket");
        let start = self.sent;
        while self.sent < start + most as u64 {
            let before = self.sent;
            let bytes = self.next(64 * 1024);
            let written = match self.stream.write(&bytes) {
                Ok(written) => written,
                Err(err) if err.kind() == ErrorKind::WouldBlock => 0,
                Err(err) => panic!("cannot send: {err}"),
            };
            self.sent = before + written as u64;
            if written == 0 {
                break;
            }
        }
        self.stream.set_nonblocking(false).expect("a socket");
    }

    /// True if the model closes the connection, in whatever way.
    pub fn sees_a_close(&mut self) -> bool {
        loop {
            match self.stream.read(&mut [0; 16]) {
                // A read with a time-out does not restart by itself after a signal.
                Err(err) if err.kind() == ErrorKind::Interrupted => {}
                Err(err) => {
                    return !matches!(err.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
                }
                Ok(len) => return len == 0,
            }
        }
    }
}

/// A small random number generator; the seed identifies the case.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, most: u64) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % most).expect("small")
    }
}
