//! The moment of an acknowledgement: not before the record is where its sender was promised, on disks that have no room meanwhile.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use tidemill::internals::framing::Framing;
use tidemill::internals::storage::{Fault, MemoryStorage, Storage};
use tidemill::internals::sync::Arc;
use tidemill::internals::{keep_state_in, offer};
use tidemill::sink::{File, FileOptions};
use tidemill::source::Ack;
use tidemill::{Config, SocketSource, StreamingContext};

use super::alive::Alive;
use super::{Acknowledged, Connection, PERIOD, SEGMENT_BYTES, Trouble, World, range, until};

/// The time that the clock moves between two looks.
const STEP: Duration = Duration::from_millis(50);

/// A chunk is refused, and the power fails before its batch: the log has nothing of it, so no sender may have an
/// acknowledgement.
#[test]
fn what_the_log_refused_is_not_acknowledged() {
    let mut world = World::new(1);
    let running = world.start(1).expect("started");
    let acknowledged = Arc::new(Acknowledged::default());
    world.state.set_full(true);
    let calls = world.state.calls();
    let offered = offer(&running, 0, range("c0", 0..3, &acknowledged));
    assert!(offered.is_ok());
    until("it is refused", || world.state.calls() > calls);
    // Again, so that the first refusal is through, and its plan is refused as well.
    let refused = world.state.calls() + 2;
    until("it is refused again", || {
        world.clock.advance(STEP);
        world.state.calls() > refused || *acknowledged.0.lock() > 0
    });
    for disk in [&world.state, &world.output] {
        disk.fail(disk.calls() + 1, Fault::PowerCut);
    }
    world.state.set_full(false);
    assert!(!running.stop(Trouble::StateFull), "its disks are gone");
    let acknowledged = *acknowledged.0.lock();
    world.connections.push(Connection { name: "c0".to_owned(), offered: 3, acknowledged });
    world.power_back();
    assert!(world.live(Trouble::None), "the last life stops in order");
    let problems = world.problems();
    assert!(problems.is_empty(), "{problems:?}");
}

/// A stream that listens for RELP, on the disks of a world.
fn listens(world: &World, ack: Ack) -> Alive {
    let config = Config::new("answers").batch_interval(PERIOD).workers(1);
    let context = StreamingContext::with_clock(config, world.clock.clone()).expect("good");
    keep_state_in(&context, Arc::new(world.state.clone()), SEGMENT_BYTES);
    let source = SocketSource::listen("127.0.0.1:0").record_bytes_max(200);
    let lines = context.socket(source.framing(Framing::Relp).ack(ack)).expect("one source");
    let storage: Arc<dyn Storage> = Arc::new(world.output.clone());
    let file = File::open(storage, FileOptions::default());
    lines.named("lines").save(file.expect("free"));
    Alive::new(context.start().expect("started"), &world.clock)
}

/// Returns true if bytes are there to be read.
fn is_answered(peer: &TcpStream) -> bool {
    peer.set_nonblocking(true).expect("a socket");
    let peeked = peer.peek(&mut [0]);
    peer.set_nonblocking(false).expect("a socket");
    match peeked {
        Ok(len) => len > 0,
        Err(err) if err.kind() == ErrorKind::WouldBlock => false,
        Err(err) => panic!("{err}"),
    }
}

/// The bytes that are there.
fn read(peer: &mut TcpStream) -> String {
    let mut bytes = [0; 1024];
    let len = peer.read(&mut bytes).expect("it answers");
    String::from_utf8(bytes[..len].to_vec()).expect("text")
}

/// A record is sent while neither disk has room; the log's disk has some once it was refused several times, that of the
/// output once that was refused several times, too.
#[test]
fn each_acknowledgement_waits_for_its_disk_and_for_no_other() {
    for ack in [Ack::Received, Ack::Log, Ack::Batch] {
        let world = World::new(3);
        let running = listens(&world, ack);
        let mut peer = TcpStream::connect(running.local_addrs()[0]).expect("it listens");
        peer.write_all(b"1 open 30 relp_version=0\ncommands=syslog\n").expect("it reads");
        assert!(read(&mut peer).starts_with("1 rsp "));
        for disk in [&world.state, &world.output] {
            disk.set_full(true);
        }
        peer.write_all(b"2 syslog 3 one\n").expect("it reads");
        let answered = |what: &str| {
            until(what, || {
                world.clock.advance(STEP);
                is_answered(&peer)
            });
        };
        if ack == Ack::Received {
            answered("an answer, although no disk has room");
        }
        let refused = |disk: &MemoryStorage| {
            let calls = disk.calls() + 10;
            until("the disk refuses", || {
                world.clock.advance(STEP);
                disk.calls() > calls
            });
        };
        refused(&world.state);
        assert_eq!(is_answered(&peer), ack == Ack::Received, "{ack:?}: the log has no room");
        world.state.set_full(false);
        if ack == Ack::Log {
            answered("an answer, although the output has no room");
        }
        refused(&world.output);
        assert_eq!(is_answered(&peer), ack != Ack::Batch, "{ack:?}: the output has no room");
        world.output.set_full(false);
        answered("an answer");
        assert_eq!(read(&mut peer), "2 rsp 6 200 OK\n", "{ack:?}");
        if ack == Ack::Batch {
            assert_eq!(world.output("lines"), ["one"]);
        }
        until("it is in the output", || {
            world.clock.advance(STEP);
            world.output("lines") == ["one"]
        });
        drop(peer);
        // The clock runs ahead of the stop, which may reach its deadline: nothing is left to lose.
        running.stop(Trouble::StateFull);
        assert_eq!(world.output("lines"), ["one"], "{ack:?}");
    }
}
