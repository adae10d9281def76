//! What `/metrics` says, and when it said it. Main thread.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::sender::Sender;
use crate::{Outcome, clock};

/// The counter of records that were read from sockets.
const RECORDS: &str = "tidemill_receiver_records_total{";

/// A look at the program and at the sender at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// In nanoseconds since the epoch.
    pub at: u64,
    /// Lines that the sender had sent.
    pub sent: u64,
    /// Records that the program said it had read.
    pub said: u64,
}

/// Looks at both.
pub fn look(http: SocketAddr, sender: &Sender) -> Outcome<Look> {
    let mut stream = TcpStream::connect(http)?;
    let asked = (clock::nanos(), sender.sent());
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {http}\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let answered = (clock::nanos(), sender.sent());
    let said = records(&text).ok_or("no records in /metrics")?;
    let middle = |one: u64, other: u64| one + (other - one) / 2;
    Ok(Look { at: middle(asked.0, answered.0), sent: middle(asked.1, answered.1), said })
}

fn records(text: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(RECORDS))?;
    line.rsplit(' ').next()?.parse().ok()
}
