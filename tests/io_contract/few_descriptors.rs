//! Too few descriptors: peers are turned away or wait, and nobody is lost. In a process of its own.

use std::net::TcpStream;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, SockAddr, Socket, Type};
use tidemill::internals::io::{IO_MODELS, Row};

use crate::peer::TestPeer;
use crate::rig::{Case, ONE_AT_A_TIME, PLENTY, Rig, Way, descriptors, offered, wait_for};

/// Sockets that only need to be connected: a connect takes no further descriptor of this process.
fn unconnected(count: usize) -> Vec<Socket> {
    (0..count).map(|_| Socket::new(Domain::IPV4, Type::STREAM, None).expect("plenty")).collect()
}

fn connect(rig: &Rig, sockets: Vec<Socket>) -> Vec<TestPeer> {
    let address = SockAddr::from(rig.addresses[0]);
    let connect = |(socket, salt): (Socket, u8)| {
        socket.connect(&address).expect("the kernel takes it");
        let stream = TcpStream::from(socket);
        let local = stream.local_addr().expect("connected");
        TestPeer::new(stream, local, salt).expect("a socket")
    };
    sockets.into_iter().zip(1..).map(connect).collect()
}

/// Runs `body` with this many descriptors allowed.
fn with_limit<T>(descriptors: u64, body: impl FnOnce() -> T) -> T {
    let before = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(descriptors), ..before })
        .expect("lowering is allowed");
    let result = body();
    setrlimit(Resource::Nofile, before).expect("raising to the maximum is allowed");
    result
}

/// The limit below which this many numbers are free.
fn limit_that_leaves(free: usize) -> u64 {
    let open: Vec<u64> = std::fs::read_dir("/proc/self/fd")
        .expect("proc is mounted")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    (0..).filter(|number| !open.contains(number)).nth(free).expect("numbers do not end")
}

#[test]
fn lack_of_descriptors_is_survived() {
    // The limit belongs to a process, so the cases run in a process of their own: this test again, as a child.
    if std::env::var_os(CHILD).is_some() {
        return few_descriptors();
    }
    let _alone = ONE_AT_A_TIME.lock();
    let this = std::env::current_exe().expect("this program");
    let arguments = ["--exact", "few_descriptors::lack_of_descriptors_is_survived", "--nocapture"];
    let mut child = std::process::Command::new(this);
    let output = child.args(arguments).env(CHILD, "1").output().expect("a child");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let erred = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains("1 passed"), "{said}{erred}");
}

/// Set in the child process, which has few descriptors.
const CHILD: &str = "TIDEMILL_TEST_FEW_DESCRIPTORS";

fn few_descriptors() {
    let _alone = ONE_AT_A_TIME.lock();
    for row in IO_MODELS.iter().filter(|row| offered(row)) {
        let _case = Case(row.name, Way::Listen);
        let before = descriptors();
        let rig = Rig::start(row, Way::Listen, PLENTY);
        let needed = descriptors() - before;
        rig.finish();
        turns_peers_away(row, needed);
        waits_and_recovers(row, needed);
        assert_eq!(descriptors(), before, "descriptors were left open");
    }
}

/// Starts with this many descriptors left after the start: io_uring remembers the limit at the time of its setup.
fn start_within(row: &'static Row, needed: usize, left: usize) -> Rig {
    with_limit(limit_that_leaves(needed + left), || Rig::start(row, Way::Listen, PLENTY))
}

/// With the spare descriptor, a peer learns by a close that there is no place.
fn turns_peers_away(row: &'static Row, needed: usize) {
    let sockets = unconnected(30);
    let rig = start_within(row, needed, 6);
    let peers = with_limit(limit_that_leaves(6), || {
        let peers = connect(&rig, sockets);
        // The counter rises a moment before the world is notified, so wait for both.
        wait_for(&rig, "an answer to each", || {
            let world = rig.world.lock();
            let told = world.refused.iter().flatten().count() as u64;
            let waits = world.refused.len() as u64 - told;
            world.seen.len() as u64 + told == 30 && rig.counters.accept_waits.value() == waits
        });
        peers
    });
    assert!(rig.counters.refused.value() > 10, "{} refused", rig.counters.refused.value());
    assert!(rig.counters.accept_waits.value() < 5);
    let told = rig.world.lock().refused.clone();
    let peers_told = told.iter().flatten().count() as u64;
    assert_eq!(peers_told, rig.counters.refused.value(), "each is told with its address");
    assert_eq!(told.len() as u64 - peers_told, rig.counters.accept_waits.value());
    let turns = rig.world.lock().turns;
    assert!(turns < 300, "{turns} turns for 30 peers");
    drop(peers);
    let mut late = rig.peer(99);
    late.send(100);
    rig.world.until_len(&late, 100);
    drop(late);
    rig.finish();
}

/// Without even the spare one, accepting waits, and no peer is lost once there are descriptors again.
fn waits_and_recovers(row: &'static Row, needed: usize) {
    let (first, sockets) = (unconnected(1), unconnected(20));
    let rig = start_within(row, needed, 2);
    let mut old = connect(&rig, first).remove(0);
    old.send(10);
    rig.world.until_len(&old, 10);
    let turns = rig.world.lock().turns;
    let mut peers = with_limit(3, || {
        let peers = connect(&rig, sockets);
        wait_for(&rig, "accepting to wait", || rig.counters.accept_waits.value() >= 3);
        old.send(10);
        rig.world.until_len(&old, 20);
        peers
    });
    for peer in &mut peers {
        peer.send(1_000);
    }
    for peer in &peers {
        rig.world.until_len(peer, 1_000);
    }
    let (waits, turns) = (rig.counters.accept_waits.value(), rig.world.lock().turns - turns);
    assert!(waits < 30 && turns < 300, "{waits} waits and {turns} turns are a busy loop");
    assert_eq!(rig.counters.refused.value(), 0);
    drop((old, peers));
    rig.finish();
}
