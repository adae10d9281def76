//! Bytes of a text as numbers, many at once: finds white space, and turns a short word into a number. Pure; runs on the
//! worker that fills or reads a table, of which it knows nothing.

use wide::u8x16;

/// Words up to this length lie in their slot.
pub(super) const SHORT_MAX: usize = 16;

#[expect(clippy::cast_possible_truncation, reason = "both halves are taken")]
#[inline(always)]
pub(super) fn halves(value: u128) -> (u64, u64) {
    (value as u64, (value >> 64) as u64)
}

/// Keeps the first bytes of a little-endian load.
const KEEP: [u128; SHORT_MAX + 1] = {
    let mut keep = [u128::MAX; SHORT_MAX + 1];
    let mut len = 0;
    while len < SHORT_MAX {
        keep[len] = (1 << (8 * len)) - 1;
        len += 1;
    }
    keep
};

/// The word's bytes, followed by zeros.
#[inline(always)]
pub(super) fn short(text: &[u8], start: usize, len: usize) -> (u64, u64) {
    let bytes = match text[start..].first_chunk::<SHORT_MAX>() {
        Some(bytes) => *bytes,
        None => near_the_end(&text[start..]),
    };
    halves(u128::from_le_bytes(bytes) & KEEP[len])
}

fn near_the_end(rest: &[u8]) -> [u8; SHORT_MAX] {
    let mut bytes = [0; SHORT_MAX];
    bytes[..rest.len()].copy_from_slice(rest);
    bytes
}

/// One bit for each byte that is ASCII white space: a space, or 9 to 13 without 11.
#[inline(always)]
pub(super) fn white_space(block: &[u8; 64]) -> u64 {
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
