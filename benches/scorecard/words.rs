//! The rival of P3: the best word count that one thread can do, for the same words and the same order of rows.
//!
//! 64 bytes at a time become a mask of white space (SIMD); its edges are the words; a word of up to 16 bytes lies in its
//! slot of an open-addressing table and is compared as two integers; a longer one lies in an arena and is found by its
//! hash in a second table; a hash is a folded multiplication for each 16 bytes. It is not the engine's table: it never
//! merges, it packs length and count into one integer, and words of the two kinds never share a slot.

use wide::u8x16;

use crate::measure::Sum;

const SLOTS_MIN: usize = 1 << 15;

/// A word of up to 16 bytes, zeros behind it; the count above the lowest byte, which is the length.
#[derive(Clone, Copy, Default)]
struct Slot {
    word: u128,
    tally: u64,
}

/// A longer word: where it lies in the arena.
#[derive(Clone, Copy, Default)]
struct Long {
    hash: u64,
    start: usize,
    len: usize,
    count: u64,
}

/// 64 bytes of a text.
struct Block<'a> {
    /// Their place in the text.
    base: usize,
    bytes: &'a [u8; 64],
}

/// Counts words of a stream that comes in pieces.
pub struct Words {
    slots: Vec<Slot>,
    used: usize,
    longs: Vec<Long>,
    longs_used: usize,
    arena: Vec<u8>,
    /// The begin of a word that the next piece goes on with.
    rest: Vec<u8>,
}

impl Words {
    pub fn new() -> Self {
        Words {
            slots: vec![Slot::default(); SLOTS_MIN],
            used: 0,
            longs: vec![Long::default(); SLOTS_MIN],
            longs_used: 0,
            arena: Vec::new(),
            rest: Vec::new(),
        }
    }

    /// Counts the words of a piece; one that its end cuts is kept for the next.
    pub fn feed(&mut self, piece: &[u8]) {
        let mut text = piece;
        if !self.rest.is_empty() {
            let end = text.iter().position(u8::is_ascii_whitespace).unwrap_or(text.len());
            self.rest.extend_from_slice(&text[..end]);
            text = &text[end..];
            if text.is_empty() {
                return;
            }
            let word = std::mem::take(&mut self.rest);
            self.count(&word, 0, word.len());
        }
        let whole = text.iter().rposition(u8::is_ascii_whitespace).map_or(0, |at| at + 1);
        self.rest.extend_from_slice(&text[whole..]);
        self.count_all(&text[..whole]);
    }

    /// Counts the words of a text that ends with white space.
    fn count_all(&mut self, text: &[u8]) {
        let (blocks, tail) = text.as_chunks::<64>();
        let (mut inside, mut start) = (0, 0);
        for (number, block) in blocks.iter().enumerate() {
            self.count_block(
                text,
                &Block { base: number * 64, bytes: block },
                &mut inside,
                &mut start,
            );
        }
        let mut last = [b' '; 64];
        last[..tail.len()].copy_from_slice(tail);
        self.count_block(
            text,
            &Block { base: text.len() - tail.len(), bytes: &last },
            &mut inside,
            &mut start,
        );
    }

    #[inline(always)]
    fn count_block(&mut self, text: &[u8], block: &Block<'_>, inside: &mut u64, start: &mut usize) {
        let Block { base, bytes } = *block;
        let letters = !white_space(bytes);
        let mut edges = letters ^ (letters << 1 | *inside);
        if *inside == 1 && edges != 0 {
            self.count(text, *start, base + edges.trailing_zeros() as usize);
            edges &= edges - 1;
        }
        *inside = letters >> 63;
        // The edges come in pairs now, but for the begin of a word that goes on in the next block.
        while edges != 0 {
            let from = base + edges.trailing_zeros() as usize;
            edges &= edges - 1;
            if edges == 0 {
                *start = from;
                return;
            }
            self.count(text, from, base + edges.trailing_zeros() as usize);
            edges &= edges - 1;
        }
    }

    #[inline(always)]
    fn count(&mut self, text: &[u8], start: usize, end: usize) {
        let len = end - start;
        if len > 16 {
            return self.count_long(&text[start..end]);
        }
        let bytes = match text[start..].first_chunk::<16>() {
            Some(bytes) => *bytes,
            None => padded(&text[start..]),
        };
        let word = u128::from_le_bytes(bytes) & KEEP[len];
        let mask = self.slots.len() - 1;
        let mut at = home(word) & mask;
        loop {
            let slot = &mut self.slots[at & mask];
            if slot.word == word && slot.tally & 0xFF == len as u64 {
                slot.tally += 256;
                return;
            }
            if slot.tally == 0 {
                *slot = Slot { word, tally: 256 | len as u64 };
                return self.inserted();
            }
            at += 1;
        }
    }

    fn count_long(&mut self, word: &[u8]) {
        let hash = hash_long(word);
        let mask = self.longs.len() - 1;
        let mut at = narrow(hash) & mask;
        loop {
            let slot = &mut self.longs[at];
            if slot.hash == hash
                && slot.len == word.len()
                && self.arena[slot.start..slot.start + slot.len] == *word
            {
                slot.count += 1;
                return;
            }
            if slot.count == 0 {
                *slot = Long { hash, start: self.arena.len(), len: word.len(), count: 1 };
                self.arena.extend_from_slice(word);
                return self.inserted_long();
            }
            at = (at + 1) & mask;
        }
    }

    #[cold]
    fn inserted_long(&mut self) {
        self.longs_used += 1;
        if self.longs_used * 2 > self.longs.len() {
            let bigger = vec![Long::default(); self.longs.len() * 2];
            let mask = bigger.len() - 1;
            let old = std::mem::replace(&mut self.longs, bigger);
            for slot in old.into_iter().filter(|slot| slot.count != 0) {
                let mut at = narrow(slot.hash) & mask;
                while self.longs[at].count != 0 {
                    at = (at + 1) & mask;
                }
                self.longs[at] = slot;
            }
        }
    }

    #[cold]
    fn inserted(&mut self) {
        self.used += 1;
        if self.used * 2 > self.slots.len() {
            let bigger = vec![Slot::default(); self.slots.len() * 2];
            let mask = bigger.len() - 1;
            for slot in std::mem::replace(&mut self.slots, bigger) {
                let mut at = home(slot.word) & mask;
                while slot.tally != 0 && self.slots[at].tally != 0 {
                    at = (at + 1) & mask;
                }
                if slot.tally != 0 {
                    self.slots[at] = slot;
                }
            }
        }
    }

    /// Hands out what was counted, highest count first, then by bytes, and forgets it.
    pub fn report(&mut self, sum: &mut Sum) {
        let mut rows = Vec::with_capacity(self.used + self.longs_used);
        for (at, slot) in self.slots.iter().enumerate().filter(|(_, slot)| slot.tally != 0) {
            rows.push((slot.tally >> 8, slot.word.swap_bytes(), at));
        }
        for (at, slot) in self.longs.iter().enumerate().filter(|(_, slot)| slot.count != 0) {
            let begin = self.arena[slot.start..].first_chunk().expect("a long word");
            rows.push((slot.count, u128::from_be_bytes(*begin), self.slots.len() + at));
        }
        rows.sort_unstable_by(|left, right| {
            let first = right.0.cmp(&left.0).then(left.1.cmp(&right.1));
            first.then_with(|| self.word(left.2).cmp(&self.word(right.2)))
        });
        for (count, _, at) in rows {
            match self.slots.get(at) {
                Some(slot) => sum.add(&slot.word.to_le_bytes()[..short_len(slot)], count),
                None => sum.add(self.long(at - self.slots.len()), count),
            }
        }
        self.slots.fill(Slot::default());
        self.longs.fill(Long::default());
        self.arena.clear();
        (self.used, self.longs_used) = (0, 0);
    }

    /// The word at a place, for the few that are equal in count and in their first 16 bytes.
    fn word(&self, at: usize) -> Vec<u8> {
        match self.slots.get(at) {
            Some(slot) => slot.word.to_le_bytes()[..short_len(slot)].to_vec(),
            None => self.long(at - self.slots.len()).to_vec(),
        }
    }

    fn long(&self, at: usize) -> &[u8] {
        let Long { start, len, .. } = self.longs[at];
        &self.arena[start..start + len]
    }

    /// The stream is over: what is left is a word.
    pub fn end(&mut self) {
        let word = std::mem::take(&mut self.rest);
        if !word.is_empty() {
            self.count(&word, 0, word.len());
        }
    }
}

fn short_len(slot: &Slot) -> usize {
    usize::from(slot.tally.to_le_bytes()[0])
}

const KEEP: [u128; 17] = {
    let mut keep = [u128::MAX; 17];
    let mut len = 0;
    while len < 16 {
        keep[len] = (1 << (8 * len)) - 1;
        len += 1;
    }
    keep
};

fn padded(rest: &[u8]) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..rest.len()].copy_from_slice(rest);
    bytes
}

#[inline(always)]
fn home(word: u128) -> usize {
    narrow(fold(word, 0xA076_1D64_78BD_642F))
}

fn hash_long(word: &[u8]) -> u64 {
    let (pieces, _) = word.as_chunks::<16>();
    let last = word.last_chunk::<16>().expect("a long word is longer than 16 bytes");
    pieces.iter().chain([last]).fold(word.len() as u64, |hash, piece| {
        fold(u128::from_le_bytes(*piece), hash ^ 0xA076_1D64_78BD_642F)
    })
}

/// One multiplication of the two halves, and its own halves folded.
#[expect(clippy::cast_possible_truncation, reason = "both halves are taken")]
#[inline(always)]
fn fold(word: u128, seed: u64) -> u64 {
    let (lo, hi) = (word as u64, (word >> 64) as u64);
    let product = u128::from(lo ^ seed) * u128::from(hi ^ 0xE703_7ED1_A0B4_28DB);
    (product >> 64) as u64 ^ product as u64
}

#[expect(clippy::cast_possible_truncation, reason = "a hash")]
#[inline(always)]
fn narrow(hash: u64) -> usize {
    hash as usize
}

/// One bit for each byte that is ASCII white space: a space, or 9 to 13 without 11.
#[inline(always)]
fn white_space(block: &[u8; 64]) -> u64 {
    let (parts, _) = block.as_chunks::<16>();
    let mut mask = 0;
    for (number, part) in parts.iter().enumerate() {
        let bytes = u8x16::new(*part);
        let from_tab = bytes - u8x16::splat(9);
        let control =
            from_tab.min(u8x16::splat(4)).simd_eq(from_tab) & !bytes.simd_eq(u8x16::splat(11));
        let space = bytes.simd_eq(u8x16::splat(b' ')) | control;
        mask |= u64::from(space.to_bitmask()) << (16 * number);
    }
    mask
}
