//! The pages of a running program, over loopback sockets.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;
use tidemill::time::{Clock, SystemClock};

use super::WATCHDOG;

/// The status and the body of a page.
pub fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("connected");
    stream.set_read_timeout(Some(WATCHDOG)).expect("a time-out");
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer in UTF-8");
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    (status.unwrap_or_else(|| panic!("no status: {head}")), body.to_owned())
}

/// A page of `/api/v1/`, of a program that has started or is about to.
pub fn api(address: SocketAddr, page: &str) -> Value {
    let clock = SystemClock::new();
    let deadline = clock.now().plus(WATCHDOG);
    loop {
        let (status, body) = get(address, &format!("/api/v1/{page}"));
        // The server answers before there is anything to show.
        if status == 503 && clock.now() < deadline {
            std::thread::yield_now();
            continue;
        }
        assert_eq!(status, 200, "{page}: {body}");
        return serde_json::from_str(&body).expect("JSON");
    }
}
