//! Reference splitters for tests and fuzzing: the whole stream at once, one byte or frame after the other, so short
//! that reading them is the proof. Not part of the library; the fuzz targets include this file.

use super::{Found, Framing};

/// What a stream holds.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The records, without terminators and headers.
    pub records: Vec<Vec<u8>>,
    /// How many were dropped for their length.
    pub overlong: u64,
}

/// What the framing's splitter finds in these pieces, and at their end.
pub fn run<'a>(
    framing: Framing,
    pieces: impl IntoIterator<Item = &'a [u8]>,
    max: usize,
) -> Outcome {
    let (mut splitter, mut found, mut outcome) =
        (framing.splitter(max), Found::default(), Outcome::default());
    for piece in pieces {
        found.clear();
        splitter.feed(piece, &mut found).expect("lines are never malformed");
        gather(framing, piece, &found, &mut outcome);
        assert!(splitter.pending() <= max, "what is carried is bounded");
    }
    found.clear();
    splitter.end(&mut found);
    gather(framing, &[], &found, &mut outcome);
    assert_eq!(splitter.pending(), 0, "nothing is carried after the end");
    outcome
}

/// Adds what one call found, and checks what every caller relies on.
fn gather(framing: Framing, piece: &[u8], found: &Found, outcome: &mut Outcome) {
    let before = outcome.records.len() as u64;
    framing.for_each(&found.joined, |record| outcome.records.push(record.to_vec()));
    let mut end = 0;
    for range in &found.ranges {
        assert!(range.start < range.end, "no range is empty");
        assert!(range.start > end || end == 0, "ranges are in order, and adjacent ones are merged");
        framing.for_each(&piece[range.clone()], |record| outcome.records.push(record.to_vec()));
        end = range.end;
    }
    assert_eq!(outcome.records.len() as u64 - before, found.records, "the count is right");
    outcome.overlong += found.overlong;
}

/// What the framing must find in a stream.
pub fn reference(framing: Framing, stream: &[u8], max: usize) -> Outcome {
    match framing {
        Framing::Lines => lines(stream, max),
    }
}

fn lines(stream: &[u8], max: usize) -> Outcome {
    let mut outcome = Outcome::default();
    for line in stream.split_inclusive(|&byte| byte == b'\n') {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        match line.len() <= max {
            true => outcome.records.push(line.strip_suffix(b"\r").unwrap_or(line).to_vec()),
            false => outcome.overlong += 1,
        }
    }
    outcome
}

/// Cuts a stream into pieces of these lengths, over and over; without any length it stays one piece.
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
