//! Bounds the connections of the listening sources, so that descriptors are left for everything else. Runs once, on the thread
//! that starts the stream, when the log and the direct sources are open.

use crate::metrics::{Event, EventBus};
use crate::net::descriptors::{self, Wanted};
use crate::source::{Direction, SocketOptions};

use super::sources::Start;

/// Descriptors of one output: a file or two, a directory, a lock, and room for one that rolls.
const OF_OUTPUT: u64 = 8;

/// Descriptors of an io thread: its poller, its waker.
const OF_IO_THREAD: u64 = 3;

/// Descriptors of a source besides its connections: listeners, the interrupt, files of records that are put aside.
const OF_SOURCE: u64 = 8;

/// Lowers the limits of listening sources that do not fit, and reports it.
pub(super) fn fit(sources: &mut [Start], outputs: usize, events: &EventBus) {
    let Some(limit) = descriptors::limit() else { return };
    let others: u64 = sources.iter().map(own_descriptors).sum();
    let reserve = descriptors::RESERVE + others + OF_OUTPUT * outputs as u64;
    let free = descriptors::free(limit, descriptors::open_now(), reserve);
    let mut listening: Vec<&mut SocketOptions> = sources.iter_mut().filter_map(listens).collect();
    let wanted: Vec<Wanted> = listening.iter().map(|options| wanted(options)).collect();
    let shares = descriptors::share(free, &wanted);
    for (options, share) in listening.iter_mut().zip(shares) {
        let share = usize::try_from(share).unwrap_or(usize::MAX);
        if share < options.connections_max {
            events.post(Event::ConnectionsLimited {
                source: options.source.clone(),
                wanted: options.connections_max,
                allowed: share,
                descriptors: limit,
            });
            options.connections_max = share;
        }
    }
}

fn listens(source: &mut Start) -> Option<&mut SocketOptions> {
    match source {
        Start::Socket(options) => {
            matches!(options.direction, Direction::Listen(_)).then_some(options)
        }
        Start::Receiver(_) | Start::Direct(_) => None,
    }
}

fn wanted(options: &SocketOptions) -> Wanted {
    Wanted {
        connections: options.connections_max as u64,
        each: options.io_model.row().descriptors as u64,
    }
}

/// The number of descriptors that a source needs besides the connections of peers that dial in.
fn own_descriptors(source: &Start) -> u64 {
    let Start::Socket(options) = source else { return OF_SOURCE };
    let threads = options.pool_threads.max(options.reactors) as u64;
    let dialled = match &options.direction {
        Direction::Connect(addresses) => addresses.len() as u64,
        Direction::Listen(_) => 0,
    };
    OF_SOURCE + threads * OF_IO_THREAD + dialled * options.io_model.row().descriptors as u64
}
