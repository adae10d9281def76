//! `WordTable`: counts of words, for texts that are nothing but words and white space.
//!
//! ```text
//! text ─▶ 64 bytes at a time: one bit for each white space byte ─▶ edges ─▶ words ─▶ slots
//! slot { lo hi len count }       words of up to 16 bytes lie in lo and hi; longer ones have their hash in lo and their
//!                                place in the arena in hi
//! ```
//! White space is that of [`u8::is_ascii_whitespace`]. A slot's home is the top bits of its hash, so a hash partition is
//! a run of slots and tables merge by partition without being split. One worker fills a table; several read it. The
//! baseline instruction set suffices; measured in `benches/wordcount.rs`.

mod bytes;

use std::cmp::Ordering;

use self::bytes::{SHORT_MAX, halves, short, white_space};

/// The first size of a table, in slots.
const SLOTS_MIN: usize = 1024;

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    lo: u64,
    hi: u64,
    /// Zero in a free slot: there is no empty word.
    len: u64,
    count: u64,
}

/// An open-addressing table of words and counts. At most half of the slots are used.
#[derive(Clone, Debug)]
pub struct WordTable {
    slots: Vec<Slot>,
    /// A hash shifted right by this is its home slot.
    shift: u32,
    /// The top bits of the hash that are left out: those that all words of one hash partition have in common, in a table
    /// that holds one of several.
    skip: u32,
    used: usize,
    arena: Vec<u8>,
    key: (u64, u64),
}

impl WordTable {
    /// An empty table; tables that are merged must have the same seed.
    pub fn new(seed: u64) -> Self {
        let key = (
            fold(seed ^ 0x9E37_79B9_7F4A_7C15, 0xD1B5_4A32_D192_ED03),
            fold(seed, 0xA076_1D64_78BD_642F) | 1,
        );
        WordTable { slots: Vec::new(), shift: 63, skip: 0, used: 0, arena: Vec::new(), key }
    }

    /// Number of different words.
    pub fn len(&self) -> usize {
        self.used
    }

    /// True if there is no word.
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// The table's memory, in bytes.
    pub fn bytes(&self) -> usize {
        size_of::<Slot>() * self.slots.capacity() + self.arena.capacity()
    }

    /// Forgets everything. The memory is kept; half of it is given back if less than a sixteenth was needed.
    pub fn clear(&mut self) {
        // Also where no word came: the partition that was looked for may have had none.
        self.skip = 0;
        if self.used == 0 {
            return;
        }
        if self.slots.len() > SLOTS_MIN && self.used < self.slots.len() / 16 {
            self.resize_empty(self.slots.len() / 2);
        } else {
            self.slots.fill(Slot::default());
        }
        self.used = 0;
        let kept = self.arena.len().max(self.arena.capacity() / 2);
        self.arena.clear();
        self.arena.shrink_to(kept);
    }

    /// Counts every word of a text.
    pub fn count_words(&mut self, text: &[u8]) {
        let (blocks, tail) = text.as_chunks::<64>();
        // The state between two blocks: whether the byte before was white space, and where a begun word starts.
        let (mut space_before, mut start) = (1_u64, 0);
        for (number, block) in blocks.iter().enumerate() {
            self.count_in_block(text, number * 64, block, &mut space_before, &mut start);
        }
        // White space behind the tail ends the last word where the text ends.
        let mut last = [b' '; 64];
        last[..tail.len()].copy_from_slice(tail);
        self.count_in_block(text, text.len() - tail.len(), &last, &mut space_before, &mut start);
    }

    #[inline(always)]
    fn count_in_block(
        &mut self,
        text: &[u8],
        base: usize,
        block: &[u8; 64],
        space_before: &mut u64,
        start: &mut usize,
    ) {
        let spaces = white_space(block);
        // A bit is set where a word starts or ends: where white space begins or stops.
        let mut edges = spaces ^ (spaces << 1 | *space_before);
        if *space_before == 0 && edges != 0 {
            self.count_at(text, *start, base + first(edges));
            edges &= edges - 1;
        }
        while edges != 0 {
            let from = base + first(edges);
            edges &= edges - 1;
            if edges == 0 {
                *start = from;
                break;
            }
            self.count_at(text, from, base + first(edges));
            edges &= edges - 1;
        }
        *space_before = spaces >> 63;
    }

    /// Counts one word; an empty one is no word.
    pub fn count_word(&mut self, word: &[u8]) {
        if !word.is_empty() {
            self.count_at(word, 0, word.len());
        }
    }

    #[inline(always)]
    fn count_at(&mut self, text: &[u8], start: usize, end: usize) {
        let len = end - start;
        if len <= SHORT_MAX {
            let (lo, hi) = short(text, start, len);
            self.add_short(Slot { lo, hi, len: len as u64, count: 1 });
        } else {
            self.add_long(&text[start..end], 1);
        }
    }

    #[inline(always)]
    fn add_short(&mut self, word: Slot) {
        let hash = self.hash_short(word.lo, word.hi);
        let mut at = self.home(hash);
        while let Some(slot) = self.slots.get_mut(at) {
            if slot.lo == word.lo && slot.hi == word.hi && slot.len == word.len {
                slot.count += word.count;
                return;
            }
            if slot.len == 0 {
                break;
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
        self.insert(hash, word);
    }

    fn add_long(&mut self, word: &[u8], count: u64) {
        let (hash, len) = (self.hash_long(word), word.len() as u64);
        let mut at = self.home(hash);
        while let Some(slot) = self.slots.get(at).copied() {
            if slot.lo == hash && slot.len == len && self.long(&slot) == word {
                self.slots[at].count += count;
                return;
            }
            if slot.len == 0 {
                break;
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
        let hi = self.arena.len() as u64;
        self.arena.extend_from_slice(word);
        self.insert(hash, Slot { lo: hash, hi, len, count });
    }

    /// Puts a new word into the first free slot from its home on.
    #[cold]
    #[inline(never)]
    fn insert(&mut self, hash: u64, slot: Slot) {
        if (self.used + 1) * 2 > self.slots.len() {
            self.grow_to((self.slots.len() * 2).max(SLOTS_MIN));
        }
        self.place(hash, slot);
        self.used += 1;
    }

    fn place(&mut self, hash: u64, slot: Slot) {
        let mut at = self.home(hash);
        while self.slots[at].len != 0 {
            at = (at + 1) & (self.slots.len() - 1);
        }
        self.slots[at] = slot;
    }

    fn grow_to(&mut self, slots: usize) {
        let old = std::mem::take(&mut self.slots);
        self.resize_empty(slots);
        for slot in old.into_iter().filter(|slot| slot.len != 0) {
            self.place(self.hash_of(&slot), slot);
        }
    }

    /// Makes room for this many words in all, and an eighth more.
    fn reserve(&mut self, words: usize) {
        let slots = ((words + words / 8) * 2).next_power_of_two().max(SLOTS_MIN);
        if slots > self.slots.len() {
            self.grow_to(slots);
        }
    }

    fn resize_empty(&mut self, slots: usize) {
        self.slots = vec![Slot::default(); slots];
        self.shift = 64 - slots.trailing_zeros();
    }

    /// Adds the words of `other`, a table of all partitions, that belong to hash partition `shard` of `shards`. A table
    /// takes words of one partition only, or of all.
    pub fn absorb(&mut self, other: &WordTable, shard: usize, shards: usize) {
        if other.used == 0 {
            return;
        }
        debug_assert_eq!(other.skip, 0, "it holds words of all partitions");
        if self.used == 0 {
            self.skip = shards.max(1).ilog2();
        }
        // Words come in the order of their homes: in a table that must grow on the way they would all pile up at its
        // beginning, each behind the other.
        self.reserve(other.used / shards);
        let (first, last) = other.homes(shard, shards);
        // Collisions may have moved words of the partition behind its last home, up to the next free slot.
        let mut at = first;
        for seen in 0..other.slots.len() {
            let slot = &other.slots[at];
            if slot.len == 0 && first + seen >= last {
                return;
            }
            if slot.len != 0 && shard_of(other.hash_of(slot), shards) == shard {
                self.add_slot(other, slot);
            }
            at = (at + 1) & (other.slots.len() - 1);
        }
    }

    fn add_slot(&mut self, other: &WordTable, slot: &Slot) {
        if slot.len <= SHORT_MAX as u64 {
            self.add_short(*slot);
        } else {
            self.add_long(other.long(slot), slot.count);
        }
    }

    /// The first and last home slots of a hash partition.
    fn homes(&self, shard: usize, shards: usize) -> (usize, usize) {
        let bound = |shard: usize| ((shard as u128) << 64) / shards as u128;
        let home = |hash: u128| self.home(u64::try_from(hash).unwrap_or(u64::MAX));
        (home(bound(shard)), home(bound(shard + 1)))
    }

    /// The first `limit` words, ordered by count, highest first, then by the bytes of the word.
    pub fn sorted(&self, limit: usize) -> Vec<Ranked> {
        if limit == 0 {
            return Vec::new();
        }
        let mut words: Vec<Ranked> = Vec::with_capacity(self.used);
        words.extend(self.places().map(|place| self.ranked(place)));
        let order = |left: &Ranked, right: &Ranked| {
            RankedWord { table: self, word: left }.order(RankedWord { table: self, word: right })
        };
        if limit < words.len() {
            words.select_nth_unstable_by(limit, order);
            words.truncate(limit);
        }
        words.sort_unstable_by(order);
        words
    }

    /// The places of all words, in no order that means anything.
    pub fn places(&self) -> impl Iterator<Item = Place> {
        let used = self.slots.iter().enumerate().filter(|(_, slot)| slot.len != 0);
        used.map(|(at, _)| Place(at))
    }

    fn ranked(&self, place: Place) -> Ranked {
        let slot = &self.slots[place.0];
        let (lo, hi) = match self.long_of(slot).and_then(<[u8]>::first_chunk::<SHORT_MAX>) {
            Some(first) => halves(u128::from_le_bytes(*first)),
            None => (slot.lo, slot.hi),
        };
        let first = (lo.swap_bytes(), hi.swap_bytes());
        Ranked { rarity: u64::MAX - slot.count, first, len: slot.len, place }
    }

    /// Calls `read` with the word at a place, and its count.
    pub fn at<R>(&self, place: Place, read: impl FnOnce(&[u8], u64) -> R) -> R {
        let slot = &self.slots[place.0];
        match self.long_of(slot) {
            Some(word) => read(word, slot.count),
            None => {
                let bytes = (u128::from(slot.hi) << 64 | u128::from(slot.lo)).to_le_bytes();
                read(&bytes[..index(slot.len)], slot.count)
            }
        }
    }

    /// Calls `read` with a word and its count; the table is looked at only for long ones.
    pub fn read<R>(&self, word: &Ranked, read: impl FnOnce(&[u8], u64) -> R) -> R {
        if word.len > SHORT_MAX as u64 {
            return self.at(word.place, read);
        }
        let (lo, hi) = word.first;
        let bytes = (u128::from(lo) << 64 | u128::from(hi)).to_be_bytes();
        read(&bytes[..index(word.len)], u64::MAX - word.rarity)
    }

    fn long_of(&self, slot: &Slot) -> Option<&[u8]> {
        (slot.len > SHORT_MAX as u64).then(|| self.long(slot))
    }

    fn long(&self, slot: &Slot) -> &[u8] {
        let start = index(slot.hi);
        &self.arena[start..start + index(slot.len)]
    }

    #[inline(always)]
    fn home(&self, hash: u64) -> usize {
        index((hash << self.skip) >> self.shift)
    }

    fn hash_of(&self, slot: &Slot) -> u64 {
        if slot.len <= SHORT_MAX as u64 { self.hash_short(slot.lo, slot.hi) } else { slot.lo }
    }

    #[inline(always)]
    fn hash_short(&self, lo: u64, hi: u64) -> u64 {
        fold(lo ^ self.key.0, hi ^ self.key.1)
    }

    fn hash_long(&self, word: &[u8]) -> u64 {
        let mut hash = self.key.0 ^ word.len() as u64;
        let (pieces, _) = word.as_chunks::<SHORT_MAX>();
        let tail = word.last_chunk::<SHORT_MAX>().expect("a long word is longer than a short one");
        for piece in pieces.iter().chain([tail]) {
            let (lo, hi) = halves(u128::from_le_bytes(*piece));
            hash = fold(lo ^ hash, hi ^ self.key.1);
        }
        fold(hash, self.key.1)
    }
}

/// The place of a word in its table.
#[derive(Clone, Copy, Debug)]
pub struct Place(usize);

/// A word as it is ordered: what nearly every comparison needs lies in one place, not in the table.
#[derive(Clone, Copy, Debug)]
pub struct Ranked {
    /// The highest count first.
    rarity: u64,
    /// The first bytes, as numbers that are ordered as they are.
    first: (u64, u64),
    len: u64,
    place: Place,
}

/// A ranked word with its table.
#[derive(Clone, Copy, Debug)]
pub struct RankedWord<'a> {
    /// The table of the word.
    pub table: &'a WordTable,
    /// The word.
    pub word: &'a Ranked,
}

impl RankedWord<'_> {
    /// Compares two words, also of two tables, by their order in the result.
    #[inline]
    pub fn order(self, other: RankedWord<'_>) -> Ordering {
        let (left, right) = (self.word, other.word);
        let known = (left.rarity, left.first).cmp(&(right.rarity, right.first));
        known.then_with(|| {
            if left.len <= SHORT_MAX as u64 || right.len <= SHORT_MAX as u64 {
                // Zeros behind a word sort before every byte, and the length decides among words that end in zeros.
                return left.len.cmp(&right.len);
            }
            let compare = |left: &[u8]| other.table.at(right.place, |right, _| left.cmp(right));
            self.table.at(left.place, |left, _| compare(left))
        })
    }
}

/// The hash partition of a hash: its top bits, like its home.
fn shard_of(hash: u64, shards: usize) -> usize {
    index(halves(u128::from(hash) * shards as u128).1)
}

#[expect(clippy::cast_possible_truncation, reason = "positions in memory; both halves are meant")]
fn index(value: u64) -> usize {
    value as usize
}

fn first(edges: u64) -> usize {
    edges.trailing_zeros() as usize
}

/// The product's halves, folded: one multiplication mixes all bits.
#[inline(always)]
fn fold(left: u64, right: u64) -> u64 {
    let (lo, hi) = halves(u128::from(left) * u128::from(right));
    lo ^ hi
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    /// The words of a table in the order of the result.
    fn rows(table: &WordTable) -> Vec<(Vec<u8>, u64)> {
        table
            .sorted(usize::MAX)
            .into_iter()
            .map(|ranked| table.read(&ranked, |word, count| (word.to_vec(), count)))
            .collect()
    }

    fn reference<'a>(words: impl Iterator<Item = &'a [u8]>) -> Vec<(Vec<u8>, u64)> {
        let mut counts: HashMap<&[u8], u64> = HashMap::new();
        words
            .filter(|word| !word.is_empty())
            .for_each(|word| *counts.entry(word).or_default() += 1);
        let mut rows: Vec<_> =
            counts.into_iter().map(|(word, count)| (word.to_vec(), count)).collect();
        rows.sort_by(|left, right| right.1.cmp(&left.1).then_with(|| left.0.cmp(&right.0)));
        rows
    }

    fn check(text: &[u8]) {
        let mut table = WordTable::new(1);
        table.count_words(text);
        assert_eq!(
            rows(&table),
            reference(text.split(u8::is_ascii_whitespace)),
            "{:?}",
            String::from_utf8_lossy(text)
        );
    }

    #[test]
    fn words_at_every_edge() {
        check(b"");
        check(b" \t\r\n\x0C");
        check(b"a");
        check(b"a b a\nb\tc\r\nd\x0Ce");
        check(b"vertical\x0Btab is no white space");
        check(b"a\0 a a\0\0 \0 \0\0");
        check("ünï cödé ünï".as_bytes());
        check(b"1234567 12345678 123456789 123456789012345 1234567890123456 12345678901234567 12345678901234567");
        for len in 1..140 {
            for before in [0, 1, 15, 16, 47, 48, 62, 63, 64, 65] {
                check(&[vec![b' '; before], vec![b'x'; len]].concat());
                check(&[vec![b'y'; before], vec![b' '], vec![b'x'; len], b"\n".to_vec()].concat());
            }
        }
    }

    #[test]
    fn equal_counts_are_ordered_by_bytes_also_between_short_and_long_words() {
        check(b"b a ab abc abcdefghijklmnop abcdefghijklmnopq abcdefghijklmno abcdefghijklmnopp \xFF zz");
    }

    #[test]
    fn a_limit_keeps_the_first_rows() {
        let mut table = WordTable::new(1);
        table.count_words(b"c c c a a b b d e f g h i j k l m n o p q");
        for limit in 0..20 {
            let word = |ranked| table.read(&ranked, |word, _| word.to_vec());
            let found: Vec<_> = table.sorted(limit).into_iter().map(word).collect();
            assert_eq!(found.concat(), b"cabdefghijklmnopq"[..limit.min(17)], "{limit}");
        }
    }

    #[test]
    fn a_table_grows_and_is_cleared() {
        let words: Vec<String> = (0..20_000).map(|n| format!("w{n}")).collect();
        let mut table = WordTable::new(3);
        for _ in 0..2 {
            words.iter().for_each(|word| table.count_word(word.as_bytes()));
            assert_eq!(table.len(), 20_000);
            assert_eq!(rows(&table), reference(words.iter().map(|word| word.as_bytes())));
            table.clear();
            assert!(table.is_empty() && rows(&table).is_empty());
        }
        (0..10).for_each(|_| {
            table.count_word(b"few");
            table.clear();
        });
        assert_eq!(table.slots.len(), SLOTS_MIN, "memory that is not needed goes back");
    }

    #[test]
    fn a_table_that_held_one_partition_can_count_all_words_again() {
        for word in ["a", "b", "c", "d", "e", "f"] {
            for shard in 0..2 {
                let (mut first, mut used) = (WordTable::new(5), WordTable::new(5));
                first.count_word(word.as_bytes());
                used.absorb(&first, shard, 2);
                used.clear();
                "abcdefghijkl".chars().for_each(|c| used.count_word(c.to_string().as_bytes()));
                let parts = [0, 1].map(|shard| {
                    let mut part = WordTable::new(5);
                    part.absorb(&used, shard, 2);
                    part.len()
                });
                assert_eq!(parts.iter().sum::<usize>(), 12, "after {word} in {shard}: {parts:?}");
            }
        }
    }

    #[test]
    fn words_of_a_partition_lie_near_their_homes_also_when_they_come_in_order() {
        for shards in 1..=5 {
            let mut whole = WordTable::new(5);
            (0..50_000).for_each(|n| whole.count_word(format!("w{n}").as_bytes()));
            for shard in 0..shards {
                let mut part = WordTable::new(5);
                part.absorb(&whole, shard, shards);
                part.absorb(&whole, shard, shards);
                let away = |place: Place| {
                    let home = part.home(part.hash_of(&part.slots[place.0]));
                    place.0.wrapping_sub(home) & (part.slots.len() - 1)
                };
                let all: usize = part.places().map(away).sum();
                assert!(
                    all < 2 * part.len(),
                    "{all} for {} words, {shard} of {shards}",
                    part.len()
                );
            }
        }
    }

    proptest! {
        #[test]
        fn counting_and_merging_agree_with_a_hash_map(
            texts in prop::collection::vec(prop::collection::vec(prop::sample::select(b"ab\0\xFF \n".to_vec()), 0..300), 1..4),
            extra in 0_usize..3000,
            shards in 1_usize..6,
            seed: u64,
        ) {
            let mut tables = Vec::new();
            let mut all: Vec<u8> = Vec::new();
            for (number, text) in texts.iter().enumerate() {
                let mut text = text.clone();
                (0..extra).for_each(|n| text.extend_from_slice(format!(" {}", n * (number + 1)).as_bytes()));
                let mut table = WordTable::new(seed);
                table.count_words(&text);
                tables.push(table);
                all.extend_from_slice(&text);
                all.push(b' ');
            }
            let mut merged: Vec<(Vec<u8>, u64)> = Vec::new();
            for shard in 0..shards {
                let mut into = WordTable::new(seed);
                tables.iter().for_each(|table| into.absorb(table, shard, shards));
                merged.extend(rows(&into));
            }
            merged.sort_by(|left, right| right.1.cmp(&left.1).then_with(|| left.0.cmp(&right.0)));
            prop_assert_eq!(merged, reference(all.split(u8::is_ascii_whitespace)));
        }
    }
}
