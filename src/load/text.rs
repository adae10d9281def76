//! The text that a load sends: lines of words, Zipf(1.0) distributed over a vocabulary. Pure arithmetic, no sockets, no
//! clock; the load's thread calls it.
//!
//! Same seed, vocabulary size and line length: same bytes, on every machine and in every version that does not say
//! otherwise in the changelog. Therefore the random numbers are our own splitmix64 (eight lines; a library's algorithm
//! may change with its version) and everything is integer arithmetic. The text is *periodic*: after about
//! [`PERIOD_BYTES`] it begins again, so a fast load keeps one period in memory and a slow one keeps only a block.

use super::room::{Cut, Room};
use crate::sync::Arc;

/// After at least this many bytes, at a line's end, the text begins again.
pub(super) const PERIOD_BYTES: usize = 32 << 20;

/// The bytes that are made at a time when one period is kept.
const BLOCK_BYTES: usize = 256 << 10;

/// The bytes that are made at a time when only a block is kept: few, because a slow load waits for its first line.
const SMALL_BLOCK_BYTES: usize = 16 << 10;

/// The mean length of a word in bytes is at most this; longer lines get more words.
const WORD_BYTES_MAX: usize = 60;

/// The mean number of words in a line of ordinary length; a line has a quarter more or less.
const WORDS_PER_LINE: usize = 8;

/// The longest mean line.
pub(super) const LINE_LEN_MAX: usize = 16 << 20;

/// The largest vocabulary: its words and tables then take less than half a gigabyte.
pub(super) const WORDS_MAX: usize = 1 << 22;

/// The form of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TextOptions {
    /// Chooses the words and their order.
    pub(super) seed: u64,
    /// Mean bytes of a line with its line feed, at least 2.
    pub(super) line_len: usize,
    /// Size of the vocabulary, 1 to [`WORDS_MAX`].
    pub(super) words: usize,
    /// True if one period is kept in memory once it was made, for loads that are fast enough to need it.
    pub(super) keep: bool,
    /// Bytes that the sender puts before each line; they count where room is limited.
    pub(super) overhead: usize,
}

/// A position in the endless text, and the part of it that is in memory.
#[derive(Debug)]
pub(super) struct Text {
    writer: LineWriter,
    first: LineWriter,
    bytes: Vec<u8>,
    /// The start of each line in `bytes`, then the end of the last one.
    starts: Vec<u32>,
    /// The next line to cut, an index into `starts`.
    next: usize,
    /// Bytes of this period made so far.
    made: usize,
    options: TextOptions,
}

impl Text {
    pub(super) fn new(options: TextOptions) -> Self {
        let writer = LineWriter::new(&options);
        let first = writer.clone();
        Text { writer, first, bytes: Vec::new(), starts: vec![0], next: 0, made: 0, options }
    }

    /// The bytes that the ranges of [`cut`](Text::cut) refer to: for ever if the period is kept, otherwise until the next cut.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The next whole lines, as many as there is room for and are in memory.
    pub(super) fn cut(&mut self, room: Room) -> Cut {
        if self.next + 1 == self.starts.len() {
            self.more();
        }
        let from = self.next;
        let cost =
            |to: usize| self.start(to) - self.start(from) + (to - from) * self.options.overhead;
        let last = self.starts.len() - 1;
        let last =
            usize::try_from(room.lines).map_or(last, |lines| last.min(from.saturating_add(lines)));
        // The most lines that fit: `cost` grows with `to`, so the end is found by halving.
        let (mut fits, mut beyond) = (from, last + 1);
        while beyond - fits > 1 {
            let middle = fits + (beyond - fits) / 2;
            if cost(middle) as u64 <= room.bytes() { fits = middle } else { beyond = middle }
        }
        if fits == from && last > from && cost(from + 1) as u64 <= room.hard_bytes {
            fits += 1;
        }
        self.next = fits;
        Cut { range: self.start(from)..self.start(fits), lines: (fits - from) as u64 }
    }

    fn start(&self, line: usize) -> usize {
        self.starts[line] as usize
    }

    /// Makes the next block, or begins again where the period ends.
    fn more(&mut self) {
        if self.made >= PERIOD_BYTES {
            self.made = 0;
            if self.options.keep {
                self.next = 0;
                self.made = PERIOD_BYTES;
                return;
            }
            self.writer = self.first.clone();
        }
        let block = if self.options.keep { BLOCK_BYTES } else { SMALL_BLOCK_BYTES };
        if !self.options.keep {
            self.bytes.clear();
            self.starts.truncate(1);
            self.next = 0;
        }
        let before = self.bytes.len();
        self.bytes.reserve(block + self.options.line_len * 2);
        while self.bytes.len() - before < block && self.made < PERIOD_BYTES {
            let start = self.bytes.len();
            self.writer.line(&mut self.bytes);
            self.made += self.bytes.len() - start;
            self.starts.push(u32::try_from(self.bytes.len()).expect("a period is far below 4 GiB"));
        }
    }
}

/// Writes one line after the other.
#[derive(Clone, Debug)]
struct LineWriter {
    random: Random,
    zipf: Arc<Zipf>,
    vocabulary: Arc<Vocabulary>,
    words_min: u64,
    words_span: u64,
}

impl LineWriter {
    fn new(options: &TextOptions) -> Self {
        let shape = Shape::of(options.line_len, options.words);
        let mut random = Random(options.seed);
        let vocabulary = Vocabulary::new(&mut random, &shape);
        let spread = shape.words_per_line / 4;
        LineWriter {
            random,
            zipf: Zipf::new(shape.words).into(),
            vocabulary: vocabulary.into(),
            words_min: (shape.words_per_line - spread) as u64,
            words_span: (2 * spread + 1) as u64,
        }
    }

    fn line(&mut self, out: &mut Vec<u8>) {
        let words = self.words_min + self.random.below(self.words_span);
        for _ in 0..words {
            let rank = self.zipf.rank(self.random.next());
            out.extend_from_slice(self.vocabulary.word_and_space(rank));
        }
        *out.last_mut().expect("a line has a word") = b'\n';
    }
}

/// The words that make a mean line length.
#[derive(Clone, Copy, Debug)]
struct Shape {
    line_len: usize,
    words: usize,
    words_per_line: usize,
    /// Leading letters that tell one word from another.
    digits: usize,
}

impl Shape {
    /// Short lines get fewer words, then shorter ones, and at last a smaller vocabulary; long lines get more words.
    fn of(line_len: usize, words: usize) -> Self {
        let line_len = line_len.max(2);
        let mut digits = 1;
        let mut reach = 26_usize;
        while reach < words && digits < line_len - 1 {
            digits += 1;
            reach = reach.saturating_mul(26);
        }
        let longest = WORDS_PER_LINE * (WORD_BYTES_MAX + 1);
        let words_per_line = if line_len < WORDS_PER_LINE * (digits + 1) {
            line_len / (digits + 1)
        } else if line_len > longest {
            line_len / (WORD_BYTES_MAX + 1)
        } else {
            WORDS_PER_LINE
        };
        Shape {
            line_len,
            words: words.clamp(1, reach),
            words_per_line: words_per_line.max(1),
            digits,
        }
    }
}

/// Different words, the most frequent first, each followed by a space.
#[derive(Debug)]
struct Vocabulary {
    letters: Vec<u8>,
    starts: Vec<u32>,
}

impl Vocabulary {
    /// Word lengths vary by half around the mean, and are chosen so that the mean *weighted by frequency* is exact.
    fn new(random: &mut Random, shape: &Shape) -> Self {
        // Mean length of a word with its separator, as a fraction: line_len / words_per_line.
        let (whole, parts) = (shape.line_len, shape.words_per_line);
        let floor = whole / parts - 1;
        let shortest = floor.div_ceil(2).max(shape.digits);
        // A small vocabulary has no further words to make up for a very short or long one.
        let span = (floor - shortest + 1).min(1 + shape.words / 8);
        let mut letters = Vec::with_capacity(shape.words * (floor + 3));
        let mut starts = Vec::with_capacity(shape.words + 1);
        starts.push(0);
        let mut too_long = 0_i128;
        for rank in 0..shape.words {
            let step = rank * 7 % span;
            let len = if too_long >= 0 { floor - step } else { floor + 1 + step };
            let excess = (len as i128 + 1) * parts as i128 - whole as i128;
            too_long += i128::from(Zipf::weight(rank)) * excess;
            push_word(random, &mut letters, rank, len, shape.digits);
            starts
                .push(u32::try_from(letters.len()).expect("the vocabulary is bounded below 4 GiB"));
        }
        Vocabulary { letters, starts }
    }

    fn word_and_space(&self, rank: usize) -> &[u8] {
        &self.letters[self.starts[rank] as usize..self.starts[rank + 1] as usize]
    }
}

/// The first `digits` letters carry the rank in base 26, the others are random.
fn push_word(random: &mut Random, letters: &mut Vec<u8>, rank: usize, len: usize, digits: usize) {
    let mut rest = rank;
    for _ in 0..digits {
        letters.push(letter((rest % 26) as u64));
        rest /= 26;
    }
    for _ in digits..len {
        letters.push(letter(random.below(26)));
    }
    letters.push(b' ');
}

fn letter(index: u64) -> u8 {
    b'a' + u8::try_from(index).expect("one of 26")
}

/// Zipf(1.0): rank r has a frequency in proportion to 1/(r+1). Walker's alias method: one table look-up per word.
#[derive(Debug)]
struct Zipf {
    columns: Vec<Column>,
}

/// A draw lands in a column evenly; its lower 32 bits below `threshold` mean the column's own rank, else the alias.
#[derive(Clone, Copy, Debug)]
struct Column {
    threshold: u32,
    alias: u32,
}

impl Zipf {
    /// The frequency of a rank, in units of 2^-32 of the first one's.
    fn weight(rank: usize) -> u64 {
        (1 << 32) / (rank as u64 + 1)
    }

    fn new(words: usize) -> Self {
        let total: u128 = (0..words).map(|rank| u128::from(Zipf::weight(rank))).sum();
        // Each column holds `total` when every weight is scaled by the number of columns.
        let mut left: Vec<u128> =
            (0..words).map(|rank| u128::from(Zipf::weight(rank)) * words as u128).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) =
            (0..words).partition(|&rank| left[rank] < total);
        let own = |rank: usize| u32::try_from(rank).expect("at most WORDS_MAX ranks");
        let mut columns: Vec<Column> =
            (0..words).map(|rank| Column { threshold: 0, alias: own(rank) }).collect();
        while let (Some(poor), Some(&rich)) = (small.pop(), large.last()) {
            let threshold =
                u32::try_from((left[poor] << 32) / total).expect("the column is not full");
            columns[poor] = Column { threshold, alias: own(rich) };
            left[rich] -= total - left[poor];
            if left[rich] < total {
                large.pop();
                small.push(rich);
            }
        }
        Zipf { columns }
    }

    fn rank(&self, draw: u64) -> usize {
        let index = ((draw >> 32) * self.columns.len() as u64) >> 32;
        let index = usize::try_from(index).expect("less than the number of columns");
        let column = self.columns[index];
        if draw & 0xffff_ffff < u64::from(column.threshold) { index } else { column.alias as usize }
    }
}

/// Sebastiano Vigna's splitmix64.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// The sequence that this seed determines.
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number less than `bound`, which is far below 2^32.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        ((self.next() >> 32) * bound) >> 32
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn options(seed: u64, line_len: usize, words: usize) -> TextOptions {
        TextOptions { seed, line_len, words, keep: true, overhead: 0 }
    }

    /// The first `lines` lines, cut in pieces of at most `piece` lines.
    fn text(options: TextOptions, lines: u64, piece: u64) -> Vec<u8> {
        let mut text = Text::new(options);
        let mut out = Vec::new();
        let mut left = lines;
        while left > 0 {
            let cut = text.cut(Room {
                lines: left.min(piece),
                soft_bytes: 1 << 20,
                hard_bytes: u64::MAX,
            });
            assert!(cut.lines > 0 && cut.lines <= piece);
            out.extend_from_slice(&text.bytes()[cut.range]);
            left -= cut.lines;
        }
        out
    }

    fn digest(bytes: &[u8]) -> u64 {
        bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        })
    }

    #[test]
    fn the_bytes_of_a_seed_are_pinned() {
        let bytes = text(options(1, 100, 10_000), 10_000, u64::MAX);
        assert_eq!(digest(&bytes), PINNED, "the text of a seed changed: say so in the changelog");
    }

    const PINNED: u64 = 13_949_280_993_774_913_138;

    #[test]
    fn frequencies_follow_zipf_and_words_differ() {
        let bytes = text(options(7, 100, 10_000), 100_000, u64::MAX);
        let mut counts: HashMap<&[u8], u64> = HashMap::new();
        for line in bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            let words = line.split(|&byte| byte == b' ').count();
            assert!((6..=10).contains(&words), "{words} words");
            line.split(|&byte| byte == b' ').for_each(|word| *counts.entry(word).or_default() += 1);
        }
        let mut sorted: Vec<u64> = counts.values().copied().collect();
        sorted.sort_unstable_by(|a, b| b.cmp(a));
        for rank in [1, 3, 9] {
            let ratio = sorted[0] / sorted[rank];
            assert!(ratio.abs_diff(rank as u64 + 1) <= 1, "first ÷ rank {rank} = {ratio}");
        }
        assert!(counts.len() > 9_000 && counts.len() <= 10_000, "{} different words", counts.len());
    }

    fn check_mean(line_len: usize, words: usize) {
        let lines = 4_000;
        let bytes = text(options(3, line_len, words), lines, u64::MAX).len() as u64;
        let (mean, wanted) = (bytes * 100 / lines, line_len as u64 * 100);
        assert!(
            mean.abs_diff(wanted) <= wanted / 40 + 5,
            "mean {mean} for {wanted} hundredths, {words} words"
        );
    }

    #[test]
    fn lines_have_the_mean_length() {
        for line_len in [2, 3, 5, 10, 31, 32, 80, 98, 100, 104, 488, 1_000] {
            check_mean(line_len, 10_000);
        }
        for words in [1, 2, 26, 27, 100_000] {
            check_mean(104, words);
        }
    }

    #[test]
    fn the_period_repeats_the_same_whether_kept_or_made_again() {
        let mut kept = Text::new(options(5, 100, 100));
        let mut made = Text::new(TextOptions { keep: false, ..options(5, 100, 100) });
        let room = |lines| Room { lines, soft_bytes: 1 << 20, hard_bytes: u64::MAX };
        let mut bytes = 0;
        while bytes < PERIOD_BYTES + PERIOD_BYTES / 8 {
            let small = made.cut(room(u64::MAX));
            let mut at = small.range.start;
            while at < small.range.end {
                let large =
                    kept.cut(Room { soft_bytes: (small.range.end - at) as u64, ..room(u64::MAX) });
                let len = large.range.len();
                assert_eq!(kept.bytes()[large.range], made.bytes()[at..at + len]);
                at += len;
            }
            bytes += small.range.len();
        }
        assert!(kept.bytes().len() < PERIOD_BYTES + 1_000);
        assert!(made.bytes().len() < 2 * SMALL_BLOCK_BYTES);
    }

    #[test]
    fn hard_room_is_never_exceeded_and_soft_room_by_one_line_at_most() {
        let mut text = Text::new(TextOptions { overhead: 20, ..options(1, 100, 100) });
        let cut = text.cut(Room { lines: 5, soft_bytes: 1, hard_bytes: 50 });
        assert_eq!((cut.range, cut.lines), (0..0, 0));
        assert_eq!(text.cut(Room { lines: 5, soft_bytes: 1, hard_bytes: 1_000 }).lines, 1);
        let cut = text.cut(Room { lines: 50, soft_bytes: 1 << 20, hard_bytes: 1_000 });
        let cost = cut.range.len() as u64 + 20 * cut.lines;
        assert!(cost <= 1_000 && cost > 700, "{cost}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn same_seed_same_bytes_however_it_is_cut(
            seed: u64,
            line_len in 2usize..2_000,
            words in 1usize..3_000,
            lines in 1u64..400,
            piece in 1u64..50,
            keep: bool,
        ) {
            let whole = text(options(seed, line_len, words), lines, u64::MAX);
            let cut = text(TextOptions { keep, ..options(seed, line_len, words) }, lines, piece);
            prop_assert_eq!(&whole, &cut);
            prop_assert_eq!(whole.last(), Some(&b'\n'));
            prop_assert_eq!(memchr::memchr_iter(b'\n', &whole).count() as u64, lines);
            prop_assert!(whole.split(|&byte| byte == b'\n').rev().skip(1).all(|line| !line.is_empty()));
        }
    }
}
