//! `Key`: the name of a request, which its completion brings back. Pure; used on the io thread. It knows no ring.

/// The kind of request that a completion belongs to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    Wake,
    /// Peers may wait.
    Accept,
    /// It is time to accept again.
    AcceptAgain,
    Receive,
    Writable,
    /// Nothing that anybody waits for.
    Ignored,
}

/// Names a request: its kind, and the connection with the generation of its place, so that what comes late is known.
///
/// Bits 0 to 31 the index, 32 to 55 the generation, 56 to 63 the kind.
#[derive(Clone, Copy)]
pub(super) struct Key {
    pub(super) kind: Kind,
    pub(super) generation: u32,
    pub(super) index: u32,
}

/// Generations have 24 bits.
pub(super) const GENERATIONS: u32 = 1 << 24;

impl Key {
    pub(super) fn plain(kind: Kind) -> u64 {
        Key { kind, generation: 0, index: 0 }.encode()
    }

    pub(super) fn encode(self) -> u64 {
        let kind: u64 = match self.kind {
            Kind::Wake => 0,
            Kind::Accept => 1,
            Kind::AcceptAgain => 2,
            Kind::Receive => 3,
            Kind::Writable => 4,
            Kind::Ignored => 5,
        };
        kind << 56 | u64::from(self.generation % GENERATIONS) << 32 | u64::from(self.index)
    }

    pub(super) fn decode(word: u64) -> Key {
        let bytes = word.to_le_bytes();
        let kind = match bytes[7] {
            0 => Kind::Wake,
            1 => Kind::Accept,
            2 => Kind::AcceptAgain,
            3 => Kind::Receive,
            4 => Kind::Writable,
            _ => Kind::Ignored,
        };
        let generation = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], 0]);
        Key {
            kind,
            generation,
            index: u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_what_it_was_made_from() {
        let check = |kind, generation, index| {
            let word = Key { kind, generation, index }.encode();
            let key = Key::decode(word);
            assert_eq!((key.kind, key.generation, key.index), (kind, generation, index));
        };
        check(Kind::Wake, 0, 0);
        check(Kind::Accept, 1, 2);
        check(Kind::AcceptAgain, 0, u32::MAX);
        check(Kind::Receive, GENERATIONS - 1, 0x1234_5678);
        check(Kind::Writable, 0xAB_CDEF, u32::MAX);
        check(Kind::Ignored, GENERATIONS - 1, 0);
    }
}
