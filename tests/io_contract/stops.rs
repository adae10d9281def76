//! The stop: it keeps connections whose replies are due, and joins every thread.

use std::io::{Read, Write};

use tidemill::internals::io::Disposition;

use crate::peer::TestPeer;
use crate::rig::{PLENTY, Way, each};

#[test]
fn a_start_without_peers_stops() {
    each(PLENTY, |_| {});
}

#[test]
fn a_stop_keeps_who_is_owed_something_and_says_farewell() {
    each(PLENTY, |rig| {
        let (mut owed, mut idle, mut deaf) = (rig.peer(1), rig.peer(2), rig.peer(3));
        for peer in [&mut owed, &mut idle, &mut deaf] {
            peer.send(10);
            rig.world.until_len(peer, 10);
        }
        rig.world.tell(|state| state.farewell = b"bye");
        rig.world.set_disposition(&owed, Disposition::RepliesDue);
        rig.world.set_disposition(&deaf, Disposition::RepliesDue);
        rig.driver.0.stop();
        let mut got = Vec::new();
        idle.stream.read_to_end(&mut got).expect("the farewell and the end");
        assert_eq!(got, b"bye");
        rig.world.reply(&owed, b"one");
        owed.stream.read_exact(&mut [0; 3]).expect("a reply behind the stop");
        rig.world.reply_as(&owed, Disposition::Open, b"two");
        got.clear();
        owed.stream.read_to_end(&mut got).expect("the last reply, the farewell, the end");
        assert_eq!(got, b"twobye");
        assert_eq!(rig.world.until_closed(&owed), "stopped");
        // The reply to the last peer stays due for ever.
        assert!(rig.world.lock().seen[&deaf.address].closed.is_empty());
        rig.driver.0.close();
        assert_eq!(rig.world.until_closed(&deaf), "stopped");
    });
}

#[test]
fn a_stop_while_peers_send_joins_everything() {
    each(PLENTY, |rig| {
        let mut peers: Vec<TestPeer> = (1..=6).map(|n| rig.peer(n)).collect();
        std::thread::scope(|scope| {
            for peer in &mut peers {
                scope.spawn(move || {
                    // Until the stop closes the connection.
                    loop {
                        let bytes = peer.next(100_000);
                        if peer.stream.write_all(&bytes).is_err() {
                            break;
                        }
                    }
                });
            }
            rig.world.until("some of each", |state| {
                state.seen.len() == 6 && state.seen.values().all(|seen| seen.len > 500_000)
            });
            rig.stop();
        });
        for peer in &peers {
            assert_eq!(rig.world.until_closed(peer), "stopped");
            assert!(rig.world.lock().seen[&peer.address].len <= peer.sent);
        }
        assert!(rig.way == Way::Listen || rig.try_peer(9).is_err(), "nothing after the stop");
    });
}

#[test]
fn a_stop_while_paused_and_with_unsent_replies_joins_everything() {
    each(PLENTY, |rig| {
        let mut peers: Vec<TestPeer> = (1..=3).map(|n| rig.peer(n)).collect();
        for peer in &mut peers {
            peer.send(10);
            rig.world.until_len(peer, 10);
        }
        rig.world.set_paused(true);
        peers[0].fill(8 << 20);
        rig.world.reply(&peers[1], &vec![b'r'; 24 << 20]);
        rig.stop();
        assert!(peers[2].sees_a_close());
    });
}
