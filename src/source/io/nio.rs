//! NIO: one event loop for all connections, on the thread `rxN-io-0`, which also accepts. See `event_loop`.

use std::io;
use std::net::TcpStream;

use crate::error::Result;
use crate::sync::thread::Thread;

use super::accept::{Acceptor, Seats, prepare};
use super::event_loop;
use super::inbox::Handle;
use super::{HandlerFactory, IoDriver, Options, Peer};

struct Driver {
    seats: Seats,
    event_loop: Handle,
}

pub(super) fn start<H: HandlerFactory>(host: H, mut options: Options) -> Result<Box<dyn IoDriver>> {
    let seats = Seats::new(options.connections_max);
    let acceptor = Acceptor::of(&mut options);
    let event_loop = event_loop::start(&host, 0, acceptor, &seats, &options)?;
    Ok(Box::new(Driver { seats, event_loop }))
}

impl IoDriver for Driver {
    fn attach(&self, stream: TcpStream, peer: Peer) -> io::Result<()> {
        prepare(&stream)?;
        self.event_loop.attach(stream, peer, self.seats.take_or_say()?)
    }

    fn stop(&self) {
        self.event_loop.stop();
    }

    fn close(&self) {
        self.event_loop.close();
    }

    fn threads(&self) -> Vec<Thread> {
        self.event_loop.thread().into_iter().collect()
    }
}
