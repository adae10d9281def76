//! Reading: each byte once and in order, no more than the lane allows, nothing while it is paused, and a fair turn for all.

use std::io::{Read, Write};
use std::net::Shutdown;

use socket2::Socket;
use tidemill::internals::io::TURN_BYTES;
use tidemill::internals::sync::{AtomicBool, Ordering};

use crate::peer::{Random, TestPeer};
use crate::rig::{PLENTY, each};

#[test]
fn every_byte_arrives_once_and_in_order() {
    each(PLENTY, |rig| {
        for seed in [1, 2, 3] {
            let mut random = Random(seed * 0x9E37_79B9);
            let mut peers: Vec<TestPeer> =
                (1..=5).map(|n| rig.peer(n + 10 * seed.to_le_bytes()[0])).collect();
            for _ in 0..60 {
                let most = [3, 2_000, 70_000, 400_000][random.below(4)];
                let peer = random.below(5);
                let len = 1 + random.below(most);
                peers[peer].send(len);
            }
            for peer in &mut peers {
                peer.send(1);
                peer.stream.shutdown(Shutdown::Write).expect("connected");
                assert_eq!(rig.world.until_closed(peer), "end", "seed {seed}");
                assert_eq!(rig.world.lock().seen[&peer.address].len, peer.sent, "seed {seed}");
                assert!(peer.sees_a_close());
            }
        }
        let bytes: u64 = rig.world.lock().seen.values().map(|seen| seen.len).sum();
        assert_eq!(rig.counters.bytes.value(), bytes);
    });
}

#[test]
fn a_half_close_right_behind_the_last_bytes_is_not_missed() {
    each(PLENTY, |rig| {
        for round in 0..40 {
            let mut peer = rig.peer(round + 1);
            // Some ends arrive in one segment with the last bytes, some even before the model has seen the connection.
            let len = [1, 10, 1_000, 65_536, TURN_BYTES, TURN_BYTES + 1][usize::from(round) % 6];
            peer.send(len);
            peer.stream.shutdown(Shutdown::Write).expect("connected");
            assert_eq!(rig.world.until_closed(&peer), "end");
            assert_eq!(rig.world.lock().seen[&peer.address].len, peer.sent);
        }
    });
}

#[test]
fn an_end_that_came_while_the_lane_was_paused_is_seen() {
    each(PLENTY, |rig| {
        let mut peer = rig.peer(1);
        peer.send(1);
        rig.world.until_len(&peer, 1);
        rig.world.set_paused(true);
        peer.send(5_000);
        peer.stream.shutdown(Shutdown::Write).expect("connected");
        rig.world.set_paused(false);
        assert_eq!(rig.world.until_closed(&peer), "end");
        assert_eq!(rig.world.lock().seen[&peer.address].len, peer.sent);
    });
}

#[test]
fn a_read_brings_no_more_than_the_lane_allows() {
    for most in [1, 4_096, 65_536, 100_000, 300_000] {
        each(PLENTY, |rig| {
            rig.world.tell(|state| state.read_max = Some(most));
            let len = if most == 1 { 1_000 } else { 1 << 20 };
            let mut peer = rig.peer(1);
            peer.send(len);
            rig.world.until_len(&peer, len as u64);
            let asked = rig.world.lock().asked;
            assert!(asked >= (len / most) as u64, "asked {asked} times for reads of {most}");
        });
    }
}

#[test]
fn a_paused_lane_brings_nothing_more_and_resumes() {
    each(PLENTY, |rig| {
        let mut peers: Vec<TestPeer> = (1..=3).map(|n| rig.peer(n)).collect();
        for peer in &mut peers {
            peer.send(100_000);
            rig.world.until_len(peer, 100_000);
        }
        for _ in 0..3 {
            rig.world.set_paused(true);
            for peer in &mut peers {
                peer.fill(32 << 20);
            }
            for peer in &mut peers {
                // A reply proves that the thread made a turn with bytes waiting; replies are sent while the lane is paused.
                rig.world.reply(peer, b"still here");
                let mut reply = [0; 10];
                peer.stream.read_exact(&mut reply).expect("a reply while paused");
                assert_eq!(&reply, b"still here");
            }
            rig.world.until("the model asks before it reads", |state| state.held_back > 0);
            rig.world.set_paused(false);
            for peer in &peers {
                rig.world.until_len(peer, peer.sent);
            }
        }
    });
}

#[test]
fn a_dripping_peer_does_not_hold_others_up() {
    each(PLENTY, |rig| {
        let mut drip = rig.peer(1);
        let mut others: Vec<TestPeer> = (2..=5).map(|n| rig.peer(n)).collect();
        for round in 1..=20 {
            drip.send(1);
            for other in &mut others {
                other.send(20_000);
            }
            for other in &others {
                rig.world.until_len(other, other.sent);
            }
            rig.world.until_len(&drip, round);
        }
    });
}

#[test]
fn a_fat_stream_does_not_starve_thin_ones() {
    each(PLENTY, |rig| {
        let mut fat = rig.peer(1);
        let mut thin: Vec<TestPeer> = (2..=5).map(|n| rig.peer(n)).collect();
        let enough = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let (fat, enough) = (&mut fat, &enough);
            let chunk = fat.next(1 << 20);
            let flood = scope.spawn(move || {
                // The pattern continues over the chunks, so each one is built anew; the kernel's buffers stay full all the
                // same.
                let mut bytes = chunk;
                while !enough.load(Ordering::SeqCst) {
                    fat.stream.write_all(&bytes).expect("the fat one is read");
                    bytes = fat.next(1 << 20);
                }
                fat.sent -= bytes.len() as u64;
            });
            for _ in 0..50 {
                for peer in &mut thin {
                    peer.send(10);
                }
                for peer in &thin {
                    rig.world.until_len(peer, peer.sent);
                }
            }
            assert!(!flood.is_finished(), "the fat one never stopped");
            enough.store(true, Ordering::SeqCst);
        });
        rig.world.until_len(&fat, fat.sent);
    });
}

#[test]
fn an_idle_model_does_not_turn() {
    each(PLENTY, |rig| {
        let mut peers: Vec<TestPeer> = (1..=20).map(|n| rig.peer(n)).collect();
        for peer in &mut peers {
            peer.send(1);
        }
        for peer in &peers {
            rig.world.until_len(peer, 1);
        }
        let before = rig.world.lock().turns;
        for round in 0..50 {
            peers[round % 20].send(1);
            let sent = peers[round % 20].sent;
            rig.world.until_len(&peers[round % 20], sent);
        }
        let turns = rig.world.lock().turns - before;
        assert!(turns <= 500, "{turns} turns for 50 reads");
    });
}

#[test]
fn urgent_bytes_are_bytes_of_the_stream() {
    each(PLENTY, |rig| {
        let mut peer = rig.peer(1);
        peer.send(10);
        rig.world.until_len(&peer, 10);
        for _ in 0..10 {
            let urgent = peer.next(1);
            let socket = Socket::from(peer.stream.try_clone().expect("a descriptor"));
            socket.send_out_of_band(&urgent).expect("the peer reads");
            peer.send(1_000);
        }
        rig.world.until_len(&peer, peer.sent);
    });
}
