//! Peers: the machine's programs that a test needs, and a sender of our own.

use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;

use super::{Program, WATCHDOG};

/// Checks for the machine's programs that a test needs; false, with a message, if one is missing.
pub fn are_there(programs: &[&str], install: &str) -> bool {
    let missing = programs.iter().find(|program| {
        let mut paths = std::env::split_paths("/usr/sbin:/usr/bin:/sbin:/bin");
        !paths.any(|directory| directory.join(program).exists())
    });
    let Some(missing) = missing else { return true };
    assert!(
        std::env::var("TIDEMILL_REQUIRE_PEERS").as_deref() != Ok("1"),
        "{missing} is required and not installed ({install})"
    );
    let _ = writeln!(io::stdout(), "not run: {missing} ({install})");
    false
}

/// Sends lines over RELP and waits until each is acknowledged: then it is in the log. Returns the program's messages before
/// it listened.
pub fn send(program: &Program, lines: &[impl AsRef<str>]) -> Vec<String> {
    let (address, said) = program.address_and_lines("listening on");
    let peer = TcpStream::connect(address).expect("it listens");
    peer.set_read_timeout(Some(WATCHDOG)).expect("a socket");
    let mut answers = BufReader::new(peer.try_clone().expect("a socket")).lines();
    let mut peer = peer;
    peer.write_all(b"1 open 30 relp_version=0\ncommands=syslog\n").expect("it reads");
    let mut waiting = BTreeSet::new();
    for (number, line) in (2..).zip(lines) {
        let line = line.as_ref();
        writeln!(peer, "{number} syslog {} {line}", line.len()).expect("it reads");
        waiting.insert(number);
    }
    while !waiting.is_empty() {
        let answer = answers.next().expect("it answers").expect("text");
        if let Some((number, rest)) = answer.split_once(' ')
            && rest.starts_with("rsp ")
            && rest.contains("200 OK")
        {
            waiting.remove(&number.parse::<u64>().unwrap_or(0));
        }
    }
    said
}
