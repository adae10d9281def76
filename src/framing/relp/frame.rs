//! The frames of RELP, sans-io, for both sides: `NUMBER COMMAND LENGTH DATA\n`. It does not know the meaning of a command,
//! nor when it may come. The splitter runs it on the io threads, the load on its own.

use crate::framing::Malformed;

/// The highest transaction number; 1 follows it.
pub(crate) const NUMBER_MAX: u32 = 999_999_999;

/// The most digits of a number or a length.
const DIGITS_MAX: usize = 9;

/// The most letters of a command.
const COMMAND_BYTES_MAX: usize = 32;

/// The longest header in bytes: number, command and length, each with the byte that ends it.
pub(in crate::framing) const HEADER_BYTES_MAX: usize =
    DIGITS_MAX + 1 + COMMAND_BYTES_MAX + 1 + DIGITS_MAX + 1;

/// A whole frame.
#[derive(Debug, PartialEq)]
pub(crate) struct Frame<'a> {
    /// Its transaction number; 0 in frames that a server sends unasked.
    pub(crate) txnr: u32,
    pub(crate) command: &'a [u8],
    pub(crate) data: &'a [u8],
    /// Its length in bytes; the next frame starts after them.
    pub(crate) len: usize,
}

/// The header of a frame.
pub(super) struct Head<'a> {
    pub(super) txnr: u32,
    pub(super) command: &'a [u8],
    /// Its length in bytes, with the space or line feed that ends it.
    pub(super) header: usize,
    pub(super) body: u32,
    /// Bytes after the data: a line feed, unless the header of an empty frame ended with it.
    pub(super) trailer: usize,
}

impl Head<'_> {
    pub(super) fn frame_bytes(&self) -> usize {
        self.header + self.body as usize + self.trailer
    }
}

/// The frame at the start of `bytes`, if it is complete.
///
/// # Errors
/// If there is no frame, or its data are longer than `data_max` bytes, which bounds the memory of the reader.
pub(crate) fn frame(bytes: &[u8], data_max: usize) -> Result<Option<Frame<'_>>, Malformed> {
    let Some(head) = parse(bytes, 0)? else { return Ok(None) };
    if head.body as usize > data_max {
        return Err(Malformed(format!("a frame of more than {data_max} bytes")));
    }
    let Some(whole) = bytes.get(..head.frame_bytes()) else { return Ok(None) };
    let (data, trailer) = whole[head.header..].split_at(head.body as usize);
    check_trailer(trailer)?;
    Ok(Some(Frame { txnr: head.txnr, command: head.command, data, len: whole.len() }))
}

/// Appends a frame. One without data has no space after its length, as the reference implementation writes it.
pub(crate) fn push_frame(out: &mut Vec<u8>, txnr: u32, command: &str, data: &[u8]) {
    push_number(out, txnr as usize);
    out.push(b' ');
    out.extend_from_slice(command.as_bytes());
    out.push(b' ');
    push_number(out, data.len());
    if !data.is_empty() {
        out.push(b' ');
        out.extend_from_slice(data);
    }
    out.push(b'\n');
}

/// Appends decimal digits, without the cost of a formatter: there are two numbers for each record.
fn push_number(out: &mut Vec<u8>, number: usize) {
    let from = out.len();
    let mut rest = number;
    loop {
        out.push(b'0' + u8::try_from(rest % 10).expect("one digit"));
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out[from..].reverse();
}

/// Calls `each` with the record of every frame of `range`: its data without a line feed at their end. Senders count that
/// line feed (as rsyslog takes it). A shortened record ends where it was cut.
///
/// Stops at an incomplete frame: no splitter makes one.
pub(in crate::framing) fn for_each<'a>(mut range: &'a [u8], mut each: impl FnMut(&'a [u8])) {
    while let Ok(Some(head)) = parse(range, 1) {
        let Some((frame, rest)) = range.split_at_checked(head.frame_bytes()) else { break };
        let data = &frame[head.header..frame.len() - head.trailer];
        let record = data.strip_suffix(b"\n").filter(|_| head.command != b"truncated");
        each(record.unwrap_or(data));
        range = rest;
    }
    debug_assert!(range.is_empty(), "ranges hold whole frames");
}

/// The header at the start of `bytes`, if it is complete. Its number is at least `least`.
pub(super) fn parse(bytes: &[u8], least: u32) -> Result<Option<Head<'_>>, Malformed> {
    let Some((txnr, at)) = number(bytes, 0, "transaction number")? else { return Ok(None) };
    if bytes[at] != b' ' || txnr < least {
        let wanted = format!("a space after a transaction number from {least} on");
        return Err(unexpected(&wanted, bytes[at]));
    }
    let rest = &bytes[at + 1..];
    let Some(letters) = rest.iter().position(|byte| !byte.is_ascii_alphabetic()) else {
        return match rest.len() {
            0..=COMMAND_BYTES_MAX => Ok(None),
            _ => Err(long_command()),
        };
    };
    if letters > COMMAND_BYTES_MAX {
        return Err(long_command());
    }
    if letters == 0 || rest[letters] != b' ' {
        return Err(unexpected("a command and a space", rest[letters]));
    }
    let Some((body, at)) = number(bytes, at + 1 + letters + 1, "length")? else { return Ok(None) };
    let trailer = match (bytes[at], body) {
        (b' ', _) => 1,
        (b'\n', 0) => 0,
        (other, _) => return Err(unexpected("a space after the length", other)),
    };
    Ok(Some(Head { txnr, command: &rest[..letters], header: at + 1, body, trailer }))
}

/// The number from `start` on, and its end; `None` if more digits may come.
fn number(bytes: &[u8], start: usize, what: &str) -> Result<Option<(u32, usize)>, Malformed> {
    let mut value = 0;
    for (digits, &byte) in bytes[start..].iter().enumerate() {
        match byte {
            b'0'..=b'9' if digits == DIGITS_MAX => {
                return Err(Malformed(format!("a {what} of more than {DIGITS_MAX} digits")));
            }
            b'0'..=b'9' => value = value * 10 + u32::from(byte - b'0'),
            _ if digits == 0 => return Err(unexpected(&format!("a {what}"), byte)),
            _ => return Ok(Some((value, start + digits))),
        }
    }
    Ok(None)
}

pub(super) fn check_trailer(trailer: &[u8]) -> Result<(), Malformed> {
    match trailer {
        [] | [b'\n'] => Ok(()),
        [other, ..] => Err(unexpected("a line feed after the data", *other)),
    }
}

fn unexpected(wanted: &str, byte: u8) -> Malformed {
    Malformed(format!("expected {wanted}, found `{}`", [byte].escape_ascii()))
}

fn long_command() -> Malformed {
    Malformed(format!("a command of more than {COMMAND_BYTES_MAX} letters"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &str, expected: Option<(u32, &str, &str)>) {
        let found = frame(bytes.as_bytes(), 9).expect("good");
        let expected = expected.map(|(txnr, command, data)| Frame {
            txnr,
            command: command.as_bytes(),
            data: data.as_bytes(),
            len: bytes.len() - bytes.strip_suffix("more").map_or(0, |_| 4),
        });
        assert_eq!(found, expected, "{bytes:?}");
    }

    #[test]
    fn a_frame_is_taken_whole() {
        check("1 rsp 6 200 OK\n", Some((1, "rsp", "200 OK")));
        check("999999999 rsp 2 \n\n\nmore", Some((NUMBER_MAX, "rsp", "\n\n")));
        check("0 serverclose 0\n", Some((0, "serverclose", "")));
        check("3 close 0 \nmore", Some((3, "close", "")));
        for part in ["", "1", "1 rsp", "1 rsp 6 ", "1 rsp 6 200 OK"] {
            check(part, None);
        }
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let check = |bytes: &str, why: &str| {
            assert_eq!(frame(bytes.as_bytes(), 9), Err(Malformed(why.to_owned())), "{bytes:?}");
        };
        check("200 OK\n", "expected a command and a space, found `\\n`");
        check("1 rsp 10 ", "a frame of more than 9 bytes");
        check("1 rsp 1 ab", "expected a line feed after the data, found `b`");
    }

    #[test]
    fn what_is_written_is_read_again() {
        for (txnr, data) in [(1, ""), (10, "a"), (NUMBER_MAX, "a b\nc")] {
            let mut bytes = Vec::new();
            push_frame(&mut bytes, txnr, "syslog", data.as_bytes());
            check(std::str::from_utf8(&bytes).expect("text"), Some((txnr, "syslog", data)));
        }
    }
}
