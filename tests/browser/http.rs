//! A client of HTTP/1.1 for one server on this machine: a request and its answer on a connection of its own. Knows nothing
//! of what is asked.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Longer than any command takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The most bytes of an answer: a picture of a long page.
const ANSWER_MAX: u64 = 64 << 20;

/// Asks the server at a port of this machine. Returns the status and the body of its answer.
pub fn ask(port: u16, method: &str, path: &str, body: &str) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )?;
    let mut answer = Vec::new();
    loop {
        if let Some(whole) = whole(&answer) {
            return Ok(whole);
        }
        let mut more = [0; 65_536];
        let read = stream.read(&mut more)?;
        if read == 0 || answer.len() as u64 > ANSWER_MAX {
            let text = String::from_utf8_lossy(&answer).chars().take(500).collect::<String>();
            return Err(io::Error::other(format!("no whole answer: {text}")));
        }
        answer.extend_from_slice(&more[..read]);
    }
}

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

/// The answer in these bytes, if all of it is there.
fn whole(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
    let status = head.split_whitespace().nth(1)?.parse().ok()?;
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"))?;
    let body = bytes[end + 4..].get(..length.trim().parse().ok()?)?;
    Some(Answer { status, body: String::from_utf8_lossy(body).into_owned() })
}

#[test]
fn answers_are_whole_or_awaited() {
    let check = |bytes: &str, expected: Option<(u16, &str)>| {
        let found = whole(bytes.as_bytes());
        assert_eq!(found.as_ref().map(|it| (it.status, it.body.as_str())), expected, "{bytes}");
    };
    check("", None);
    check("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", None);
    check("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", Some((200, "ok")));
    check("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", Some((404, "")));
}
