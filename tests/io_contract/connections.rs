//! Connections: resets, listeners, the limit, the threads of `pool`, and peers that are silent.

use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::Socket;
use tidemill::internals::io::IO_MODELS;

use crate::handler::{Seen, State};
use crate::peer::TestPeer;
use crate::rig::{ONE_AT_A_TIME, PLENTY, Wants, Way, each, offered, run, wait_for};

#[test]
fn a_reset_by_the_peer_ends_only_its_connection() {
    each(PLENTY, |rig| {
        let (mut broken, mut other) = (rig.peer(1), rig.peer(2));
        broken.send(10);
        rig.world.until_len(&broken, 10);
        let socket = Socket::from(broken.stream.try_clone().expect("a descriptor"));
        socket.set_linger(Some(Duration::ZERO)).expect("a socket");
        drop(socket);
        let TestPeer { stream, address, salt, sent } = broken;
        drop(stream);
        rig.world.until("the reset", |state| !state.seen[&address].closed.is_empty());
        let seen = rig.world.lock().seen[&address].closed.clone();
        assert_eq!((seen, salt, sent), (vec!["reset"], 1, 10));
        other.send(1_000);
        rig.world.until_len(&other, 1_000);
        // The remote of a closed connection is harmless.
        let remote = rig.world.lock().seen[&address].remote.clone();
        remote.ask();
        other.send(1);
        rig.world.until_len(&other, 1_001);
    });
}

#[test]
fn peers_that_are_reset_at_once_are_connections() {
    let _alone = ONE_AT_A_TIME.lock();
    for row in IO_MODELS.iter().filter(|row| offered(row)) {
        // No peer is turned away, however late the others are closed.
        let wants = Wants { connections_max: 2_000, ..PLENTY };
        run(row, Way::Listen, wants, |rig| {
            for _ in 0..1_000 {
                let peer = rig.peer(1);
                let socket = Socket::from(peer.stream);
                socket.set_linger(Some(Duration::ZERO)).expect("a socket");
            }
            let over = |state: &State| state.seen.values().filter(|s| !s.closed.is_empty()).count();
            rig.world.until("1,000 connections", |state| over(state) == 1_000);
            let resets = |seen: &Seen| seen.closed == ["reset"];
            assert!(rig.world.lock().seen.values().all(resets), "all were reset");
            assert_eq!(rig.counters.refused.value(), 0);
            let mut honest = rig.peer(2);
            honest.send(10);
            rig.world.until_len(&honest, 10);
        });
    }
}

#[test]
fn several_listeners_are_listened_at() {
    let _alone = ONE_AT_A_TIME.lock();
    for row in IO_MODELS.iter().filter(|row| offered(row)) {
        run(row, Way::Listen, Wants { listeners: 3, ..PLENTY }, |rig| {
            let mut peers = Vec::new();
            for salt in 0..30 {
                let address = rig.addresses[usize::from(salt) % 3];
                let stream = TcpStream::connect(address).expect("it listens");
                let local = stream.local_addr().expect("connected");
                peers.push(TestPeer::new(stream, local, salt).expect("a socket"));
            }
            for peer in &mut peers {
                peer.send(100);
                rig.world.until_len(peer, 100);
            }
        });
    }
}

#[test]
fn peers_beyond_the_limit_are_turned_away_and_counted() {
    each(Wants { connections_max: 4, ..PLENTY }, |rig| {
        let mut peers: Vec<TestPeer> = (1..=4).map(|n| rig.peer(n)).collect();
        for peer in &mut peers {
            peer.send(3);
            rig.world.until_len(peer, 3);
        }
        for round in 1..=3 {
            match rig.way {
                Way::Connect => assert!(rig.try_peer(9).is_err(), "the limit is told"),
                Way::Listen => {
                    let mut peer = rig.peer(9);
                    assert!(peer.sees_a_close());
                    assert_eq!(rig.counters.refused.value(), round);
                    let told = rig.world.lock().refused.last().copied();
                    assert_eq!(told, Some(Some(peer.address)));
                }
            }
        }
        let gone = peers.pop().expect("four");
        gone.stream.shutdown(Shutdown::Write).expect("connected");
        rig.world.until_closed(&gone);
        let mut late = rig.peer(77);
        late.send(6);
        rig.world.until_len(&late, 6);
        for peer in &mut peers {
            peer.send(3);
            rig.world.until_len(peer, 6);
        }
    });
}

#[test]
fn in_the_pool_a_connection_without_a_thread_waits_unread_and_is_counted() {
    let _alone = ONE_AT_A_TIME.lock();
    let row = tidemill::IoModel::Pool.row();
    for way in [Way::Connect, Way::Listen] {
        run(row, way, Wants { pool_threads: 2, ..PLENTY }, |rig| {
            let mut peers: Vec<TestPeer> = (1..=2).map(|n| rig.peer(n)).collect();
            for peer in &mut peers {
                peer.send(10);
                rig.world.until_len(peer, 10);
            }
            let mut late: Vec<TestPeer> = (3..=9).map(|n| rig.peer(n)).collect();
            for peer in &mut late {
                peer.send(30_000);
            }
            for round in 0..20 {
                let peer = &mut peers[round % 2];
                peer.send(10);
                rig.world.until_len(peer, peer.sent);
            }
            assert_eq!(rig.world.lock().seen.len(), 2, "the others are not looked at");
            peers.truncate(1);
            for peer in late {
                // Each one hands its thread to the next.
                rig.world.until_len(&peer, 30_000);
                let dead = peer.address;
                drop(peer);
                rig.world.until("its end", |state| state.seen[&dead].closed == ["end"]);
            }
            assert_eq!(rig.counters.waiting.value(), 0);
            assert!(rig.counters.waited_us_max.value() > 0);
            assert_eq!(rig.counters.refused.value(), 0);
        });
    }
}

/// The timer that the kernel runs for the engine's end of a connection, and the time until it fires, in seconds. See
/// proc(5), `/proc/net/tcp`: 2 is keepalive.
fn timer_of(ours: SocketAddr, peer: SocketAddr) -> Option<(u8, f64)> {
    let hex = |address: SocketAddr| match address {
        SocketAddr::V4(address) => {
            format!("{:08X}:{:04X}", u32::from_ne_bytes(address.ip().octets()), address.port())
        }
        SocketAddr::V6(_) => panic!("the tests use 127.0.0.1"),
    };
    let table = std::fs::read_to_string("/proc/net/tcp").expect("proc is mounted");
    let (ours, peer) = (hex(ours), hex(peer));
    table.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (kind, ticks) = words.get(5)?.split_once(':')?;
        let same = words.get(1..3) == Some(&[&*ours, &*peer][..]);
        let ticks = f64::from(u32::from_str_radix(ticks, 16).ok()?);
        same.then_some((kind.parse().ok()?, ticks / 100.0))
    })
}

#[test]
fn the_kernel_asks_after_a_peer_that_is_silent() {
    each(PLENTY, |rig| {
        let mut peer = rig.peer(1);
        peer.send(10);
        rig.world.until_len(&peer, 10);
        let far = peer.stream.peer_addr().expect("connected");
        let near = peer.stream.local_addr().expect("connected");
        let timer = || timer_of(far, near).filter(|(kind, _)| *kind == 2);
        wait_for(rig, "the keepalive timer", || timer().is_some());
        let (_, seconds) = timer().expect("it runs as long as the peer is silent");
        assert!(seconds > 0.0 && seconds <= 60.0, "{seconds}");
    });
}
