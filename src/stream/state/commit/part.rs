//! The bytes of a part: how changes of keys are written and read. Runs on the workers, and on the thread that restores. It
//! does not know who keeps the bytes, and checks all of them.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::entry::{Entry, Touch};
use crate::time::Time;
use crate::wording::count;

/// A part is closed beyond this many bytes; one key with its state may be larger.
const PART_BYTES: usize = 256 << 10;

pub(super) const REMOVED: u8 = 0;
pub(super) const TOUCHED: u8 = 1;
pub(super) const SET: u8 = 2;

/// ```text
/// part: batch time | entries to the end          all numbers are varints
/// entry: tag | length, key | [TOUCHED, SET: milliseconds since the last touch, its turn] | [SET: length, state]
/// ```
pub(super) struct Writer {
    time: Time,
    parts: Vec<Bytes>,
    part: Vec<u8>,
    /// The current key or state: its length is written first.
    scratch: Vec<u8>,
    pub(super) keys: u64,
}

/// A state that a batch has written anew, and the one before.
pub(super) struct Rewrite<'a, S> {
    pub(super) known: &'a S,
    pub(super) state: &'a S,
}

impl Writer {
    pub(super) fn new(time: Time) -> Self {
        Writer { time, parts: Vec::new(), part: Vec::new(), scratch: Vec::new(), keys: 0 }
    }

    pub(super) fn removed<K: Serialize>(&mut self, key: &K) -> Result<(), String> {
        self.begin(REMOVED, key)
    }

    pub(super) fn touched<K: Serialize>(&mut self, key: &K, turn: u32) -> Result<(), String> {
        self.begin(TOUCHED, key)?;
        self.touch(Touch { last: self.time, turn });
        Ok(())
    }

    pub(super) fn set<K: Serialize, S: Serialize>(
        &mut self,
        key: &K,
        state: &S,
        touch: Touch,
    ) -> Result<(), String> {
        self.begin(SET, key)?;
        self.touch(touch);
        self.value(state)
    }

    /// Writes nothing if the state is what it was, byte for byte.
    pub(super) fn set_if_new<K: Serialize, S: Serialize>(
        &mut self,
        key: &K,
        rewrite: Rewrite<'_, S>,
        turn: u32,
    ) -> Result<(), String> {
        let known = postcard::to_stdvec(rewrite.known).map_err(unwritable)?;
        let state = postcard::to_stdvec(rewrite.state).map_err(unwritable)?;
        if known == state {
            return Ok(());
        }
        self.begin(SET, key)?;
        self.touch(Touch { last: self.time, turn });
        varint(&mut self.part, state.len() as u64);
        self.part.extend_from_slice(&state);
        Ok(())
    }

    fn begin<K: Serialize>(&mut self, tag: u8, key: &K) -> Result<(), String> {
        if self.part.len() >= PART_BYTES {
            self.close();
        }
        if self.part.is_empty() {
            varint(&mut self.part, self.time.as_millis());
        }
        self.keys += 1;
        self.part.push(tag);
        self.value(key)
    }

    fn touch(&mut self, touch: Touch) {
        varint(&mut self.part, self.time.as_millis().saturating_sub(touch.last.as_millis()));
        varint(&mut self.part, u64::from(touch.turn));
    }

    fn value<V: Serialize>(&mut self, value: &V) -> Result<(), String> {
        self.scratch.clear();
        let scratch = std::mem::take(&mut self.scratch);
        self.scratch = postcard::to_extend(value, scratch).map_err(unwritable)?;
        varint(&mut self.part, self.scratch.len() as u64);
        self.part.extend_from_slice(&self.scratch);
        Ok(())
    }

    fn close(&mut self) {
        if !self.part.is_empty() {
            self.parts.push(std::mem::take(&mut self.part).into());
        }
    }

    pub(super) fn finish(mut self) -> Vec<Bytes> {
        self.close();
        self.parts
    }
}

fn unwritable(err: postcard::Error) -> String {
    format!("a key or a state cannot be written down: {err}")
}

fn varint(out: &mut Vec<u8>, value: u64) {
    let mut bytes = [0; 10];
    out.extend_from_slice(
        postcard::to_slice(&value, &mut bytes).expect("it takes ten bytes at most"),
    );
}

/// Reads a part, entry by entry.
pub(super) struct Reader<'a> {
    time: Time,
    pub(super) rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn open(part: &'a [u8]) -> Result<Self, String> {
        let mut reader = Reader { time: Time::default(), rest: part };
        reader.time = Time::from_millis(reader.number()?);
        Ok(reader)
    }

    pub(super) fn next<K: DeserializeOwned, S: DeserializeOwned>(
        &mut self,
    ) -> Result<Option<Entry<K, S>>, String> {
        let Some((tag, rest)) = self.rest.split_first() else { return Ok(None) };
        self.rest = rest;
        let key = self.value("key")?;
        Ok(Some(match *tag {
            REMOVED => Entry::Removed(key),
            TOUCHED => Entry::Touched(key, self.touch()?),
            SET => {
                let touch = self.touch()?;
                Entry::Set(key, self.value("state")?, touch)
            }
            tag => return Err(format!("{tag} is no kind of change")),
        }))
    }

    pub(super) fn touch(&mut self) -> Result<Touch, String> {
        let (age, turn) = (self.number()?, self.number()?);
        let last = self.time.as_millis().checked_sub(age);
        let last = last.ok_or("a key was last touched before there was time")?;
        let turn = u32::try_from(turn).map_err(|_| "a turn is out of range")?;
        Ok(Touch { last: Time::from_millis(last), turn })
    }

    /// The bytes of a value.
    pub(super) fn bytes(&mut self, what: &str) -> Result<&'a [u8], String> {
        let length = usize::try_from(self.number()?).unwrap_or(usize::MAX);
        let (bytes, rest) =
            self.rest.split_at_checked(length).ok_or_else(|| format!("a {what} is cut off"))?;
        self.rest = rest;
        Ok(bytes)
    }

    /// A value fills its bytes exactly.
    fn value<V: DeserializeOwned>(&mut self, what: &str) -> Result<V, String> {
        let bytes = self.bytes(what)?;
        match postcard::take_from_bytes(bytes) {
            Ok((value, [])) => Ok(value),
            Ok((_, left)) => Err(format!("{} left behind a {what}", count(left.len(), "byte"))),
            Err(err) => Err(format!("a {what} cannot be read: {err}")),
        }
    }

    fn number(&mut self) -> Result<u64, String> {
        let (value, rest) =
            postcard::take_from_bytes(self.rest).map_err(|err| format!("a number: {err}"))?;
        self.rest = rest;
        Ok(value)
    }
}
