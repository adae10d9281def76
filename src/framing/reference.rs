//! Reference splitters for tests and fuzzing: the whole stream at once, frame after frame, so short that reading them is
//! the proof. Not part of the library; the fuzz targets include this file.

use super::{Found, Framing, Owed, Splitter};

/// The content of a stream.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The records, without terminators and headers.
    pub records: Vec<Vec<u8>>,
    /// Number of records dropped for their length.
    pub overlong: u64,
    /// Number of records that the end of the stream cut off.
    pub truncated: u64,
    /// True if a malformed frame ended the stream.
    pub malformed: bool,
    /// The numbers of the frames whose answer is due later.
    pub owed: Vec<u32>,
}

/// The most bytes that a connection may carry beyond a record: a header, and in RELP a control frame.
fn carried_max(framing: Framing, max: usize) -> usize {
    match framing {
        Framing::Relp => max.max(4096).saturating_add(64),
        _ => max.saturating_add(10),
    }
}

/// The result of the framing's splitter for these pieces and their end.
pub fn run<'a>(
    framing: Framing,
    pieces: impl IntoIterator<Item = &'a [u8]>,
    max: usize,
) -> Outcome {
    let (mut splitter, mut found, mut outcome) =
        (framing.splitter(max), Found::default(), Outcome::default());
    for piece in pieces {
        found.clear();
        outcome.malformed = splitter.feed(piece, &mut found).is_err();
        gather(framing, piece, &found, &mut outcome);
        assert!(splitter.pending() <= carried_max(framing, max), "what is carried is bounded");
        if outcome.malformed {
            break;
        }
    }
    found.clear();
    splitter.end(&mut found);
    gather(framing, &[], &found, &mut outcome);
    assert_eq!(splitter.pending(), 0, "nothing is carried after the end");
    outcome
}

/// Adds the result of one call, and checks the promises that every caller relies on.
fn gather(framing: Framing, piece: &[u8], found: &Found, outcome: &mut Outcome) {
    let before = outcome.records.len() as u64;
    framing.for_each(&found.joined, |record| outcome.records.push(record.to_vec()));
    let mut end = None;
    assert_eq!(found.ranges.len(), found.range_records.len());
    let mut spliced = found.spliced.iter().peekable();
    for (index, (range, &records)) in found.ranges.iter().zip(&found.range_records).enumerate() {
        while let Some((_, frame)) = spliced.next_if(|(before, _)| *before <= index) {
            framing.for_each(frame, |record| outcome.records.push(record.to_vec()));
        }
        let before = outcome.records.len() as u64;
        assert!(range.start < range.end, "no range is empty");
        assert!(
            end.is_none_or(|end| range.start > end),
            "ranges are in order, and adjacent ones are merged"
        );
        framing.for_each(&piece[range.clone()], |record| outcome.records.push(record.to_vec()));
        assert_eq!(outcome.records.len() as u64 - before, records, "the count of a range is right");
        end = Some(range.end);
    }
    for (_, frame) in spliced {
        framing.for_each(frame, |record| outcome.records.push(record.to_vec()));
    }
    for owed in &found.owed {
        match *owed {
            Owed::Records { first, count } => outcome.owed.extend(first..first + count),
            Owed::Aside(number) | Owed::Close(number) => outcome.owed.push(number),
        }
    }
    assert_eq!(outcome.records.len() as u64 - before, found.records, "the count is right");
    outcome.overlong += found.overlong;
    outcome.truncated += found.truncated;
}

/// The splitter's error for a stream. It is the same however the stream is cut, and is returned by every later call.
pub fn malformed(framing: Framing, stream: &[u8]) -> String {
    let (mut found, mut splitter) = (Found::default(), framing.splitter(99));
    let why = splitter.feed(stream, &mut found).expect_err("the stream is malformed");
    assert_eq!(splitter.feed(b"1 a", &mut found), Err(why.clone()));

    let mut feed_one = {
        let mut splitter: Box<dyn Splitter> = framing.splitter(99);
        move |byte: &u8| splitter.feed(&[*byte], &mut Found::default()).err()
    };
    assert_eq!(stream.iter().find_map(&mut feed_one), Some(why.clone()));
    why.0
}

/// The result that the framing must give for a stream.
pub fn reference(framing: Framing, stream: &[u8], max: usize) -> Outcome {
    if framing == Framing::Relp {
        return relp(stream, max);
    }
    let mut outcome = Outcome::default();
    let mut rest = stream;
    while !rest.is_empty() && !outcome.malformed {
        rest = match (framing, rest[0]) {
            (Framing::Lines, _) => line(rest, max, &mut outcome),
            (Framing::Syslog, first) if !matches!(first, b'1'..=b'9') => {
                let before = outcome.records.len();
                let rest = line(rest, max, &mut outcome);
                if outcome.records[before..].iter().all(Vec::is_empty) {
                    outcome.records.truncate(before);
                }
                rest
            }
            (Framing::OctetCounted, _) => octet_counted(rest, max, &mut outcome),
            (Framing::Syslog, _) => {
                let before = outcome.records.len();
                let rest = octet_counted(rest, max, &mut outcome);
                outcome.records[before..].iter_mut().for_each(drop_line_feed);
                rest
            }
            (Framing::U32, _) => match rest.split_first_chunk() {
                Some((length, rest)) => {
                    counted(rest, u32::from_be_bytes(*length) as usize, max, &mut outcome)
                }
                None => counted(&[], 1, 1, &mut outcome),
            },
            (Framing::Relp, _) => unreachable!("it has its own"),
        }
    }
    outcome
}

/// As at the end of a line: drops one line feed, and a carriage return before it.
fn drop_line_feed(record: &mut Vec<u8>) {
    if record.ends_with(b"\n") {
        record.pop();
        record.pop_if(|last| *last == b'\r');
    }
}

/// RELP: `NUMBER COMMAND LENGTH DATA\n`, where an empty frame may leave out the space before the line feed. First
/// `open`, then `syslog`, at last `close`.
fn relp(mut rest: &[u8], max: usize) -> Outcome {
    let mut outcome = Outcome::default();
    let mut last = "";
    while !rest.is_empty() {
        let Some(header) = relp_header(rest) else {
            outcome.truncated += 1;
            break;
        };
        let Some((number, command, length, ended, body)) = header.ok() else {
            outcome.malformed = true;
            break;
        };
        let expected: &[&str] = match last {
            "" => &["open"],
            "close" => &[],
            _ => &["syslog", "close"],
        };
        let end = if ended { Some(b'\n') } else { body.get(length).copied() };
        outcome.malformed = !expected.contains(&command)
            || (command != "syslog" && length > 4096)
            || end.is_some_and(|end| end != b'\n')
            || (command == "open" && end.is_some() && !relp_offers_are_good(&body[..length]));
        if outcome.malformed || end.is_none() {
            outcome.truncated += u64::from(!outcome.malformed);
            break;
        }
        if command == "syslog" {
            let mut record = body[..length.min(max)].to_vec();
            if length <= max {
                record.pop_if(|last| *last == b'\n');
            }
            outcome.records.push(record);
            outcome.overlong += u64::from(length > max);
        }
        if command != "open" {
            outcome.owed.push(number);
        }
        last = if command == "close" { "close" } else { "open" };
        rest = &body[length + usize::from(!ended)..];
    }
    outcome
}

fn relp_offers_are_good(offers: &[u8]) -> bool {
    let lines =
        offers.split(|&byte| byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
    let pairs: Vec<_> = lines.filter_map(|line| line.split_once('=')).collect();
    let value = |name| pairs.iter().find(|pair| pair.0 == name).map_or("", |pair| pair.1);
    value("relp_version").trim().parse::<u32>().is_ok()
        && value("commands").split(',').any(|command| command.trim() == "syslog")
}

/// Number, command, length, true if the header ended the frame, and the bytes after the header.
type RelpHeader<'a> = (u32, &'a str, usize, bool, &'a [u8]);

/// The header of a frame; nothing if it is cut off, an error if no continuation makes it one.
fn relp_header(stream: &[u8]) -> Option<Result<RelpHeader<'_>, ()>> {
    let (mut field, mut start) = (0, 0);
    let mut fields = [""; 3];
    for (at, &byte) in stream.iter().enumerate() {
        let so_far = std::str::from_utf8(&stream[start..at]).ok()?;
        let zero = so_far.bytes().all(|digit| digit == b'0');
        let fits = match (field, byte) {
            (0 | 2, b'0'..=b'9') => so_far.len() < 9,
            (1, b'a'..=b'z' | b'A'..=b'Z') => so_far.len() < 32,
            (0, b' ') => !so_far.is_empty() && !zero,
            (1 | 2, b' ') => !so_far.is_empty(),
            (2, b'\n') => !so_far.is_empty() && zero,
            _ => false,
        };
        if !fits {
            return Some(Err(()));
        }
        if byte == b' ' || byte == b'\n' {
            fields[field] = so_far;
            (field, start) = (field + 1, at + 1);
        }
        if field == 3 {
            let number = fields[0].parse().expect("at most nine digits");
            let length = fields[2].parse().expect("at most nine digits");
            return Some(Ok((number, fields[1], length, byte == b'\n', &stream[start..])));
        }
    }
    None
}

fn line<'a>(stream: &'a [u8], max: usize, outcome: &mut Outcome) -> &'a [u8] {
    let (line, rest) = match stream.iter().position(|&byte| byte == b'\n') {
        Some(end) => (&stream[..end], &stream[end + 1..]),
        None => (stream, &stream[stream.len()..]),
    };
    match line.len() <= max {
        true => outcome.records.push(line.strip_suffix(b"\r").unwrap_or(line).to_vec()),
        false => outcome.overlong += 1,
    }
    rest
}

fn octet_counted<'a>(stream: &'a [u8], max: usize, outcome: &mut Outcome) -> &'a [u8] {
    let digits = stream.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let after = stream.get(digits);
    outcome.malformed =
        stream[0] == b'0' || digits == 0 || digits > 9 || after.is_some_and(|&byte| byte != b' ');
    if outcome.malformed || after.is_none() {
        outcome.truncated += u64::from(!outcome.malformed);
        return &[];
    }
    let length =
        stream[..digits].iter().fold(0, |length, digit| length * 10 + usize::from(digit - b'0'));
    counted(&stream[digits + 1..], length, max, outcome)
}

fn counted<'a>(stream: &'a [u8], length: usize, max: usize, outcome: &mut Outcome) -> &'a [u8] {
    match stream.get(..length) {
        _ if length > max => outcome.overlong += 1,
        Some(record) => outcome.records.push(record.to_vec()),
        None => outcome.truncated += 1,
    }
    stream.get(length..).unwrap_or(&[])
}

/// Cuts a stream into pieces of these lengths, over and over. Without any length it stays one piece.
pub fn chop<'a>(mut stream: &'a [u8], lengths: &[u8]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    for &length in lengths.iter().cycle().take_while(|_| lengths.iter().any(|&length| length > 0)) {
        if stream.is_empty() {
            break;
        }
        let (piece, rest) = stream.split_at(stream.len().min(usize::from(length)));
        pieces.push(piece);
        stream = rest;
    }
    pieces.push(stream);
    pieces
}
