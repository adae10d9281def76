//! A receiver of your own: the datagrams of a UDP port are the records, counted by value every second.
//!
//! `cargo run --release --example custom_receiver`, and elsewhere `echo -n hello | nc -u -w0 127.0.0.1 9999`.

use std::net::UdpSocket;

use tidemill::{Config, Error, Interval, Receiver, ReceiverHandle, Result, StreamingContext};

/// The longest datagram, in bytes.
const DATAGRAM_BYTES_MAX: usize = 65_536;

struct Datagrams {
    address: String,
}

impl Receiver for Datagrams {
    /// Called again after a back-off if it fails, for instance because the port is in use.
    fn receive(&mut self, handle: &ReceiverHandle) -> Result<()> {
        let failed = |err| Error::io(format!("cannot receive on {}", self.address), err);
        let socket = UdpSocket::bind(&self.address).map_err(failed)?;
        // The stop must end the wait for a datagram: it sends one.
        let (own, waker) =
            (socket.local_addr().map_err(failed)?, socket.try_clone().map_err(failed)?);
        handle.on_stop(move || {
            let _ = waker.send_to(b"", own);
        });
        let mut datagram = vec![0; DATAGRAM_BYTES_MAX];
        while !handle.is_stopped() {
            match socket.recv_from(&mut datagram) {
                Ok((0, _)) => {}
                Ok((len, _)) => handle.store(&datagram[..len])?,
                Err(err) => handle.report_error(err),
            }
        }
        Ok(())
    }
}

fn main() -> Result<()> {
    let ctx = StreamingContext::new(Config::new("datagrams").batch_interval(Interval::secs(1)))?;
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9999".to_owned());
    let datagrams = ctx.receiver_stream("udp", Datagrams { address })?;
    datagrams.count_by_value().print(10);
    ctx.start()?.await_termination()
}
