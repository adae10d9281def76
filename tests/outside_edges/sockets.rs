//! Connections: peers that close at once, that do not exist, that come in crowds; names and limits of the machine.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use serde_json::Value;
use tempfile::TempDir;

use crate::program::peers::are_there;
use crate::program::{Process, Program, WATCHDOG};

const TIDEMILL: &str = env!("CARGO_BIN_EXE_tidemill");

/// The options of a run that reports everything, as JSON.
const LOUD: [&str; 6] = ["--http", "off", "--log-format", "json", "--log-level", "debug"];

/// A `tidemill` that counts its received lines every 50 ms.
fn counts(from: &str, more: &[&str]) -> Program {
    let job = ["--job", "count", "--every", "50ms", "--to", "json"];
    Program::start(&[&["run", "--from", from][..], &job, &LOUD, more].concat())
}

/// A field of each of the next events of this name.
fn fields(run: &Program, event: &str, field: &str, count: usize) -> Vec<Value> {
    (0..count).map(|_| run.event(event)[field].clone()).collect()
}

/// A data server that sends this on each connection, and closes it.
fn server_that_closes(sent: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            // The peer may be gone.
            let _ = stream.write_all(sent);
        }
    });
    address
}

/// The attempt numbers in the waits of a run that dials a server which closes at once.
fn attempts(sent: &'static [u8], planted: Option<&str>) -> Vec<Value> {
    let from = format!("tcp://{}", server_that_closes(sent));
    let mut command = Command::new(TIDEMILL);
    command.args(["run", "--from", &from, "--job", "count", "--to", "null"]).args(LOUD);
    planted.iter().for_each(|defect| {
        command.env("TIDEMILL_PLANTED", defect);
    });
    let run = Program::of(&mut command);
    let attempts = fields(&run, "retrying", "attempt", 5);
    run.stop();
    attempts
}

#[test]
fn a_server_that_closes_at_once_is_dialled_less_and_less_often() {
    assert_eq!(attempts(b"", None), [1, 2, 3, 4, 5]);
    assert_eq!(attempts(b"one line\n", None), [1, 2, 3, 4, 5]);
}

#[cfg(tidemill_planted)]
#[test]
fn planted_a_connection_that_counts_as_a_good_one_is_found_out() {
    assert_eq!(attempts(b"", Some("BackOffResetOnConnect")), [1, 1, 1, 1, 1]);
}

#[test]
fn socat_in_front_of_a_dead_port_is_such_a_server() {
    if !are_there(&["socat"], "apt install socat") {
        return;
    }
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = free.local_addr().expect("bound").port();
    drop(free);
    let listen = format!("TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork");
    let mut socat = Command::new("socat");
    // Nobody listens there.
    socat.args([&listen, "TCP:127.77.1.3:9"]).stderr(Stdio::null());
    let _socat = Process::start(&mut socat);
    let run = counts(&format!("tcp://127.0.0.1:{port}"), &[]);
    // The first dials may find no socat.
    run.event("connected");
    let numbers: Vec<u64> = fields(&run, "retrying", "attempt", 4)
        .iter()
        .map(|number| number.as_u64().expect("a number"))
        .collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
    run.stop();
}

#[test]
fn a_server_that_is_away_is_told_once_and_told_when_it_is_back() {
    let server = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = server.local_addr().expect("bound");
    let run = counts(&format!("tcp://{address}"), &[]);
    let first = server.accept().expect("it dials");
    run.event("connected");
    drop((first, server));
    let began = run.event("condition_began");
    assert_eq!(began["kind"], "source_away");
    assert_eq!(began["subject"], format!("in -> {address}"));
    let server = TcpListener::bind(address).expect("it is free again");
    let mut again = server.accept().expect("it dials again").0;
    again.write_all(b"a line\n").expect("sent");
    let ended = run.event("condition_ended");
    assert_eq!(ended["subject"], format!("in -> {address}"));
    run.stop();
}

/// A network of its own, in which packets to the name server are lost.
const SILENT: &str = "ip link set lo up && ip route add 192.0.2.0/24 dev lo && \
    mount --bind \"$1\" /etc/resolv.conf && shift && exec \"$@\"";

#[test]
fn a_name_server_that_does_not_answer_does_not_hold_the_stop() {
    if !are_there(&["unshare", "ip", "mount"], "apt install util-linux iproute2 mount") {
        return;
    }
    let may = Command::new("unshare").args(["-nm", "true"]).status();
    if !may.expect("it starts").success() {
        println!("not run: unshare (needs CAP_SYS_ADMIN)");
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let resolver = directory.path().join("resolv.conf");
    fs::write(&resolver, "nameserver 192.0.2.1\noptions timeout:30 attempts:5\n").expect("written");
    let mut command = Command::new("unshare");
    command.args(["-nm", "sh", "-c", SILENT, "sh"]).arg(&resolver).arg(TIDEMILL);
    command.args(["run", "--from", "tcp://data.example:9999", "--job", "count", "--every", "50ms"]);
    let run = Program::of(command.args(["--to", "json"]).args(LOUD));
    // It queries from the start on.
    run.out.recv_timeout(WATCHDOG).expect("a batch");
    let (code, _, said) = {
        run.signal(rustix::process::Signal::TERM);
        run.finish()
    };
    let said = said.join("\n");
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("nothing was left"), "{said}");
}

#[test]
fn a_name_is_listened_at_wherever_the_machine_has_it() {
    let found: BTreeSet<SocketAddr> =
        "localhost:0".to_socket_addrs().expect("it is known").collect();
    let ours: Vec<_> = found.iter().filter(|address| TcpListener::bind(address).is_ok()).collect();
    let run = counts("tcp-listen://localhost:0", &["--until-eof"]);
    let mut peers = Vec::new();
    for address in fields(&run, "listening", "address", ours.len()) {
        let address = address.as_str().expect("text");
        let mut peer = TcpStream::connect(address).expect("it listens");
        peer.write_all(b"a line\n").expect("sent");
        run.event("connected");
        peers.push(peer);
    }
    let all = peers.len() as u64;
    drop(peers);
    let (code, out, _) = run.finish();
    let count = |line: &String| {
        let batch: Value = serde_json::from_str(line).expect("JSON");
        batch["rows"][0][0].as_u64().expect("a count")
    };
    assert_eq!((code, out.iter().map(count).sum::<u64>()), (Some(0), all));
}

#[test]
fn the_data_server_listens_there_as_well() {
    let found: BTreeSet<SocketAddr> =
        "localhost:0".to_socket_addrs().expect("it is known").collect();
    let ours: Vec<_> = found.iter().filter(|address| TcpListener::bind(address).is_ok()).collect();
    let count = ours.len().to_string();
    let load = Program::start(&[
        "load",
        "--listen",
        "localhost:0",
        "--records",
        "1",
        "--connections",
        &count,
    ]);
    let addresses: Vec<SocketAddr> =
        ours.iter().map(|_| load.address_after("listening on")).collect();
    let mut peers: Vec<TcpStream> =
        addresses.iter().map(|at| TcpStream::connect(at).expect("it listens")).collect();
    let mut lines = Vec::new();
    peers.iter_mut().for_each(|peer| {
        peer.read_to_end(&mut lines).expect("it closes in order");
    });
    assert!(lines.ends_with(b"\n"), "{lines:?}");
    assert_eq!(load.finish().0, Some(0));
}

#[test]
fn a_name_with_a_taken_address_is_an_error() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound");
    let run = counts(&format!("tcp-listen://localhost:{}", address.port()), &[]);
    let (code, _, said) = run.finish();
    let said = said.join("\n");
    assert_eq!(code, Some(1), "{said}");
    let which = format!("which is {address} (another program listens there");
    assert!(said.contains(&which), "{said}");
}

/// A pipeline that keeps its received lines in files, with at most this many descriptors.
fn within(limits: &str, directory: &Path, source: &str) -> Program {
    let path = directory.display();
    let text = format!(
        "batch_interval = '50ms'\nstate_dir = '{path}/state'\n\
         [source.in.socket]\nlisten = '127.0.0.1:0'\n{source}\n\
         [job.all]\nfrom = ['in']\nto = ['files', 'screen']\nlines = {{}}\n\
         [sink.files.file]\npath = '{path}/out'\n[sink.screen.console]\nformat = 'json'\n"
    );
    let file = directory.join("pipeline.toml");
    fs::write(&file, text).expect("written");
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{limits}; exec \"$@\""), "sh", TIDEMILL, "run"]).arg(&file);
    Program::of(command.args(LOUD))
}

fn output(directory: &TempDir) -> String {
    let files = fs::read_dir(directory.path().join("out")).expect("made");
    let names = files.map(|entry| entry.expect("listed").path());
    let texts = names.filter(|path| path.extension().is_some_and(|end| end == "txt"));
    texts.map(|path| fs::read_to_string(path).expect("text")).collect()
}

/// Sends a line, and waits until it is in the output.
fn is_written(run: &Program, peer: &mut TcpStream, directory: &TempDir, line: &str) {
    peer.write_all(format!("{line}\n").as_bytes()).expect("sent");
    // A line on the screen is in the files: they are written first.
    while !run.out.recv_timeout(WATCHDOG).expect("it goes on").contains(line) {}
    assert!(output(directory).contains(line));
}

#[test]
fn idle_peers_leave_descriptors_for_the_sink() {
    let directory = tempfile::tempdir().expect("a directory");
    let run = within("ulimit -Sn 64; ulimit -Hn 400", directory.path(), "");
    let limited = run.event("connections_limited");
    let allowed = limited["allowed"].as_u64().expect("a number");
    assert_eq!((&limited["wanted"], &limited["limit"]), (&10_000.into(), &400.into()));
    // The soft limit was raised, so more connections are allowed than under the old one.
    assert!((64..400).contains(&allowed), "{allowed}");
    let address = run.listening();
    let mut first = TcpStream::connect(address).expect("it listens");
    is_written(&run, &mut first, &directory, "before the crowd");
    let connect = |_| TcpStream::connect(address).expect("the kernel takes it");
    let crowd: Vec<TcpStream> = (1..allowed + 20).map(connect).collect();
    let turned_away = run.event("peer_turned_away");
    let why = turned_away["newest"].as_str().expect("text");
    let limit = format!("connections_max = {allowed} is reached");
    assert!(why.starts_with("127.0.0.1:") && why.contains(&limit), "{why}");
    is_written(&run, &mut first, &directory, "beside the crowd");
    drop((crowd, first));
    run.stop();
}

#[test]
fn a_limit_that_is_high_enough_is_not_spoken_of() {
    let directory = tempfile::tempdir().expect("a directory");
    let limits = "ulimit -Sn 64; ulimit -Hn 4096";
    let run = within(limits, directory.path(), "connections_max = 200");
    let address = run.listening();
    let connect = |_| TcpStream::connect(address).expect("the kernel takes it");
    let mut peers: Vec<TcpStream> = (0..200).map(connect).collect();
    is_written(&run, &mut peers[199], &directory, "the last of them");
    run.signal(rustix::process::Signal::TERM);
    let (code, _, said) = run.finish();
    let said = said.join("\n");
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains("connections_limited") && !said.contains("peer_turned_away"), "{said}");
    assert!(said.contains("\"refused\":0"), "{said}");
}

/// The report about a peer that sends this and closes: the newest of the tally.
fn told_of(framing: &[&str], sent: &[u8], tally: &str) -> String {
    let run = counts("tcp-listen://127.0.0.1:0", framing);
    let mut peer = TcpStream::connect(run.listening()).expect("it listens");
    let us = peer.local_addr().expect("connected").to_string();
    peer.write_all(sent).expect("sent");
    peer.shutdown(std::net::Shutdown::Write).expect("open");
    // It may be reset because of the bytes that it sent.
    let _ = peer.read_to_end(&mut Vec::new());
    let told = run.event(tally);
    assert_eq!((&told["source"], &told["count"]), (&"in".into(), &1.into()));
    run.stop();
    told["newest"].as_str().expect("text").replace(&us, "PEER")
}

#[test]
fn what_is_dropped_is_told_with_its_peer_while_it_runs() {
    let check = |framing: &str, sent: &[u8], tally: &str, expected: &str| {
        let limit = ["--set", "source.in.record_bytes_max=4B"];
        let found = told_of(&[&["--framing", framing][..], &limit].concat(), sent, tally);
        assert_eq!(found, expected, "{framing}");
    };
    let overlong = "from PEER (record_bytes_max = 4), dropped";
    check("lines", b"a\n12345\nb\n", "record_overlong", overlong);
    check("octet_counted", b"5 12345", "record_overlong", overlong);
    let cut_off = "from PEER, which closed in the middle of it";
    check("octet_counted", b"1 a4 12", "record_cut_off", cut_off);
    let malformed = "PEER (expected a length, found `x`)";
    check("octet_counted", b"1 ax", "frame_malformed", malformed);
}
