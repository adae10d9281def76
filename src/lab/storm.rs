//! The sender of a connect storm: each connection sends one line and closes, and another one takes its place. Main thread of
//! the child.
//!
//! ```text
//! dial ─▶ a line ─▶ end of sending ─▶ ... as many others ... ─▶ the receiver's own end, read to it ─▶ closed
//! ```
//! A connection counts once the receiver has read it to its end and closed it, so a line cannot wait unseen in the kernel. One
//! more connection is open from the beginning to the end: the receiver ends when the last one does.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::protocol::{ChildMessage, Sending, Sent, listen_to_parent, nanos, say};
use super::sample::own_cpu;
use crate::error::{Error, Result};
use crate::sync::StopToken;
use crate::time::{Clock, SystemClock};

/// The longest time that the receiver may take for a connection.
const PATIENCE: Duration = Duration::from_secs(10);

/// Addresses of this machine that are dialled from in turn: closed connections keep a port of theirs for a minute.
const ADDRESSES: u64 = 250;

/// Sends until the time is over.
///
/// # Errors
/// If the receiver takes no connection, or the parent is gone.
pub(super) fn send(order: &Sending, out: &mut dyn Write) -> Result<Sent> {
    let system = |err| Error::io("cannot storm the receiver", err);
    let address: SocketAddr = order.address.parse().map_err(|_| {
        Error::Failed(format!("`{}` is no address that can be dialled", order.address))
    })?;
    let (clock, stop) = (SystemClock::new(), StopToken::new());
    let stopped = stop.clone();
    listen_to_parent(|| (), move || stopped.stop())?;
    let anchor = dial(address, 0).map_err(system)?;
    say(out, &ChildMessage::Started { wall_nanos: nanos(clock.wall()) })?;
    let (cpu, begin) = (own_cpu(), clock.now());
    let until = begin.plus(Duration::from_millis(order.millis));
    let line = line(order.line_bytes);
    let mut open = VecDeque::new();
    let (mut made, mut closed) = (0, 0);
    while clock.now() < until && !stop.is_stopped() {
        if open.len() as u64 >= order.busy
            && let Some(first) = open.pop_front()
        {
            close(first).map_err(system)?;
            closed += 1;
        }
        made += 1;
        let mut stream = dial(address, made).map_err(system)?;
        stream.write_all(&line).map_err(system)?;
        stream.shutdown(Shutdown::Write).map_err(system)?;
        open.push_back(stream);
    }
    for stream in open {
        close(stream).map_err(system)?;
        closed += 1;
    }
    let seconds = clock.now().since(begin).as_secs_f64();
    drop(anchor);
    let cpu = own_cpu().saturating_sub(cpu).as_secs_f64();
    Ok(Sent { lines: made, seconds, cpu, closed, ..Sent::default() })
}

fn line(bytes: u64) -> Vec<u8> {
    let mut line = vec![b'x'; usize::try_from(bytes).unwrap_or(usize::MAX).max(1)];
    *line.last_mut().expect("it is not empty") = b'\n';
    line
}

fn dial(address: SocketAddr, turn: u64) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if let (SocketAddr::V4(_), Ok(last)) = (address, u8::try_from(turn % ADDRESSES + 2)) {
        socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0)).into())?;
    }
    socket.connect_timeout(&address.into(), PATIENCE)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket.into())
}

/// Waits until the receiver has closed it.
fn close(mut stream: TcpStream) -> std::io::Result<()> {
    while stream.read(&mut [0; 64])? > 0 {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_their_length_and_one_end() {
        let check = |bytes, expected: &[u8]| assert_eq!(line(bytes), expected);
        check(1, b"\n");
        check(2, b"x\n");
        check(5, b"xxxx\n");
    }
}
