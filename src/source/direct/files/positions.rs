//! The bytes of positions and plans, as the log and the checkpoints keep them. Pure.
//!
//! ```text
//! version 1   postcard of the value; it begins with a count, so never with ten bytes of FF
//! version 2   ten bytes of FF | version u8 | postcard of the value
//! ```
//! Version 1 knew a file by device, inode and time of birth; its positions have no fingerprint. A version that this program
//! does not know is refused by name.

use std::collections::{HashMap, VecDeque};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::catalog::{Catalog, Content, Known, Piece, Plan};
use super::listing::{FileId, Stat};
use crate::error::{Error, Result};

const VERSION: u8 = 2;

const MARK: [u8; 10] = [0xFF; 10];

/// The bytes of a plan.
pub(super) fn encode_plan(plan: &Plan) -> Vec<u8> {
    encode(plan)
}

/// A plan of this version or an earlier one.
///
/// # Errors
/// If the bytes are none, or a later version's.
pub(super) fn decode_plan(bytes: &[u8]) -> Result<Plan> {
    decode::<Plan, first::Plan>("a plan", bytes)
}

/// The bytes of a position.
pub(super) fn encode_position(seen: &Catalog) -> Vec<u8> {
    encode(seen)
}

/// A position of this version or an earlier one.
///
/// # Errors
/// If the bytes are none, or a later version's.
pub(super) fn decode_position(bytes: &[u8]) -> Result<Catalog> {
    decode::<Catalog, first::Catalog>("a position", bytes)
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    let bytes = [&MARK[..], &[VERSION]].concat();
    postcard::to_extend(value, bytes).expect("plain data is always encoded")
}

fn decode<T, First>(what: &str, bytes: &[u8]) -> Result<T>
where
    T: DeserializeOwned,
    First: DeserializeOwned + Into<T>,
{
    let damaged = |err: postcard::Error| {
        Error::Failed(format!("these bytes are not {what} of a files source: {err}"))
    };
    let Some(rest) = bytes.strip_prefix(&MARK) else {
        return postcard::from_bytes::<First>(bytes).map(Into::into).map_err(damaged);
    };
    match rest.split_first() {
        Some((&VERSION, rest)) => postcard::from_bytes(rest).map_err(damaged),
        Some((version, _)) => Err(Error::Failed(format!(
            "{what} of a files source has version {version}, and this program knows versions 1 and {VERSION}: \
             start the later program that wrote it"
        ))),
        None => Err(damaged(postcard::Error::DeserializeUnexpectedEnd)),
    }
}

/// Version 1.
mod first {
    use super::{Content, Deserialize, HashMap, VecDeque};

    #[derive(Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
    pub(super) struct FileId {
        device: u64,
        inode: u64,
        born: Option<u64>,
    }

    #[derive(Clone, Copy, Deserialize)]
    struct Stat {
        id: FileId,
        size: u64,
        changed: u64,
    }

    #[derive(Deserialize)]
    struct Piece {
        name: Vec<u8>,
        stat: Stat,
        from: u64,
        to: u64,
        what: Content,
    }

    #[derive(Deserialize)]
    pub(super) struct Plan {
        pieces: Vec<Piece>,
        gone: Vec<FileId>,
    }

    #[derive(Deserialize)]
    struct Known {
        name: Vec<u8>,
        stat: Stat,
        offset: u64,
        inside: bool,
        broken: bool,
    }

    #[derive(Deserialize)]
    pub(super) struct Catalog {
        files: HashMap<FileId, Known>,
        /// Name, size and time of change.
        gone: VecDeque<(Vec<u8>, u64, u64)>,
    }

    impl From<FileId> for super::FileId {
        fn from(FileId { device, inode, .. }: FileId) -> Self {
            super::FileId { device, inode }
        }
    }

    impl From<Stat> for super::Stat {
        fn from(Stat { id, size, changed }: Stat) -> Self {
            super::Stat { id: id.into(), born: id.born, size, changed }
        }
    }

    impl From<Piece> for super::Piece {
        fn from(Piece { name, stat, from, to, what }: Piece) -> Self {
            super::Piece { name, stat: stat.into(), from, to, what, print: None, more: false }
        }
    }

    impl From<Plan> for super::Plan {
        fn from(Plan { pieces, gone }: Plan) -> Self {
            super::Plan {
                gone: gone.into_iter().map(Into::into).collect(),
                back: Vec::new(),
                pieces: pieces.into_iter().map(Into::into).collect(),
            }
        }
    }

    impl From<Known> for super::Known {
        fn from(Known { name, stat, offset, inside, broken }: Known) -> Self {
            let stat = stat.into();
            super::Known { name, stat, offset, print: None, inside, broken, more: false }
        }
    }

    impl From<Catalog> for super::Catalog {
        fn from(Catalog { files, gone }: Catalog) -> Self {
            // Version 1 remembered no place of a file that went; this is that of none.
            let id = super::FileId { device: 0, inode: 0 };
            let whole = |(name, size, changed)| super::Known {
                name,
                stat: super::Stat { id, born: None, size, changed },
                offset: size,
                print: None,
                inside: false,
                broken: false,
                more: false,
            };
            super::Catalog {
                files: files.into_iter().map(|(id, known)| (id.into(), known.into())).collect(),
                gone: gone.into_iter().map(whole).collect(),
            }
        }
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;
    use crate::source::direct::files::fingerprint::Fingerprint;

    fn stat() -> Stat {
        let id = FileId { device: 65_024, inode: 300 };
        Stat {
            id,
            born: Some(1_796_000_000_000_000_000),
            size: 4_000,
            changed: 1_796_000_000_000_000_001,
        }
    }

    #[test]
    fn plans_and_positions_are_read_back() {
        let piece = Piece {
            name: b"a.log".to_vec(),
            stat: stat(),
            from: 100,
            to: 3_000,
            what: Content::Overlong { ended: false },
            print: Some(Fingerprint::default()),
            more: true,
        };
        let id = FileId { device: 1, inode: 2 };
        let plan = Plan { gone: vec![id], back: vec![id], pieces: vec![piece] };
        assert_eq!(decode_plan(&encode_plan(&plan)).expect("a plan"), plan);
        let mut seen = Catalog::default();
        seen.apply(&plan);
        seen.gone.push_back(Known::new(b"b", stat()));
        assert_eq!(decode_position(&encode_position(&seen)).expect("a position"), seen);
    }

    /// Written by the first version: a name, then numbers.
    #[test]
    fn version_1_is_read() {
        let id = (65_024_u64, 300_u64, Some(1_796_000_000_000_000_000_u64));
        let old_stat = (id, 4_000_u64, 1_796_000_000_000_000_001_u64);
        let piece = (b"a.log".to_vec(), old_stat, 100_u64, 3_000_u64, Content::Records);
        let bytes = postcard::to_stdvec(&(vec![piece], vec![id])).expect("encoded");
        let plan = decode_plan(&bytes).expect("a plan");
        assert_eq!((plan.gone.as_slice(), plan.pieces[0].stat), (&[stat().id][..], stat()));
        assert_eq!((plan.pieces[0].from, plan.pieces[0].to), (100, 3_000));
        let known = (b"a.log".to_vec(), old_stat, 3_000_u64, true, false);
        let gone = vec![(b"b.log".to_vec(), 7_u64, 8_u64)];
        let bytes = postcard::to_stdvec(&(HashMap::from([(id, known)]), gone)).expect("encoded");
        let seen = decode_position(&bytes).expect("a position");
        let found = &seen.files[&stat().id];
        assert_eq!(
            (found.offset, found.inside, found.print, found.stat),
            (3_000, true, None, stat())
        );
        let gone = &seen.gone[0];
        assert_eq!((gone.stat.size, gone.stat.changed, gone.offset, gone.print), (7, 8, 7, None));
        let empty = decode_position(&[0, 0]).expect("nothing was read");
        assert_eq!(empty, Catalog::default());
    }

    #[test]
    fn other_versions_are_refused_by_name() {
        let mut bytes = encode_position(&Catalog::default());
        bytes[MARK.len()] = 3;
        let text = decode_position(&bytes).expect_err("refused").to_string();
        let expected = "a position of a files source has version 3, and this program knows versions 1 and 2: \
            start the later program that wrote it";
        assert_eq!(text, expected);
        for length in 0..bytes.len() {
            assert!(decode_plan(&bytes[..length]).is_err(), "{length}");
        }
    }
}
