//! An estimate of the memory that keys and values own beside themselves, which their tables cannot know.
//!
//! ```text
//! key ──hash──▶ the bytes of its texts and slices        state ──serialize──▶ its texts, lists and maps
//! ```
//! Types are a user's own, so each is measured through the traits that it has anyway. Allocations are counted as a usual
//! allocator makes them, vectors and tables as they grow. Boxes are not seen. Costs nothing for types that own nothing. Runs on
//! the workers, for the keys that a batch touches.

use std::any::Any;
use std::fmt::{self, Display};
use std::hash::{Hash, Hasher};

use serde::Serialize;
use serde::ser::{self, Serializer};

/// The size of an allocation of `bytes`, with the allocator's overhead.
fn chunk(bytes: usize) -> usize {
    match bytes {
        0 => 0,
        _ => ((bytes + 8).next_multiple_of(16)).max(32),
    }
}

/// The bytes that a key owns: its texts and slices of numbers.
pub(crate) fn of_key<K: Hash>(key: &K) -> usize {
    if !std::mem::needs_drop::<K>() {
        return 0;
    }
    let mut counter = Slices(0);
    key.hash(&mut counter);
    counter.0
}

/// Counts what is hashed as a slice; numbers by themselves lie in the key.
struct Slices(usize);

impl Hasher for Slices {
    fn write(&mut self, bytes: &[u8]) {
        self.0 += chunk(bytes.len());
    }

    fn write_u8(&mut self, _: u8) {}
    fn write_u16(&mut self, _: u16) {}
    fn write_u32(&mut self, _: u32) {}
    fn write_u64(&mut self, _: u64) {}
    fn write_u128(&mut self, _: u128) {}
    fn write_usize(&mut self, _: usize) {}
    fn write_i8(&mut self, _: i8) {}
    fn write_i16(&mut self, _: i16) {}
    fn write_i32(&mut self, _: i32) {}
    fn write_i64(&mut self, _: i64) {}
    fn write_i128(&mut self, _: i128) {}
    fn write_isize(&mut self, _: isize) {}

    fn finish(&self) -> u64 {
        0
    }
}

/// The bytes that a value of unknown type owns: texts and bytes only.
pub(crate) fn of_any<V: 'static>(value: &V) -> usize {
    if !std::mem::needs_drop::<V>() {
        return 0;
    }
    let value = value as &dyn Any;
    let text = value.downcast_ref::<String>().map(String::capacity);
    let bytes = || value.downcast_ref::<Vec<u8>>().map(Vec::capacity);
    text.or_else(bytes).map_or(0, chunk)
}

/// The bytes that a state owns: its texts, lists and maps.
pub(crate) fn of_state<S: Serialize>(state: &S) -> usize {
    if !std::mem::needs_drop::<S>() {
        return 0;
    }
    let mut walk = Walk::default();
    // A state that cannot be written down fails its batch elsewhere.
    let _ = state.serialize(&mut walk);
    walk.owned
}

/// Goes through a state.
#[derive(Default)]
struct Walk {
    /// Bytes in the current list or map, or in the state itself.
    inline: usize,
    /// Allocated bytes.
    owned: usize,
}

impl Walk {
    fn add(&mut self, bytes: usize) -> Result<(), Stop> {
        self.inline += bytes;
        Ok(())
    }

    fn slice(&mut self, bytes: usize) -> Result<(), Stop> {
        self.owned += chunk(bytes);
        self.add(size_of::<String>())
    }
}

/// A list or a map within a state.
struct Many<'a> {
    walk: &'a mut Walk,
    outside: usize,
    len: usize,
    is_map: bool,
}

impl<'a> Many<'a> {
    fn new(walk: &'a mut Walk, is_map: bool) -> Self {
        let outside = std::mem::take(&mut walk.inline);
        Many { walk, outside, len: 0, is_map }
    }

    fn element<T: Serialize + ?Sized>(&mut self, element: &T) -> Result<(), Stop> {
        self.len += 1;
        element.serialize(&mut *self.walk)
    }

    fn end(self) -> Result<(), Stop> {
        let Many { walk, outside, len, is_map } = self;
        let inline = std::mem::replace(&mut walk.inline, outside);
        if let Some(each) = inline.checked_div(len) {
            // A table of seven eighths at most, with a byte for each place.
            let places = if is_map { len * 8 / 7 + 1 } else { len };
            let places = places.next_power_of_two().max(4);
            walk.owned += chunk(places * (each + usize::from(is_map)));
        }
        walk.add(size_of::<Vec<u8>>())
    }
}

/// A custom message ends a walk.
#[derive(Debug)]
struct Stop;

impl Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the state cannot be written down")
    }
}

impl std::error::Error for Stop {}

impl ser::Error for Stop {
    fn custom<T: Display>(_: T) -> Self {
        Stop
    }
}

macro_rules! leaves {
    ($($method:ident: $type:ty,)*) => {
        $(fn $method(self, _: $type) -> Result<(), Stop> {
            self.add(size_of::<$type>())
        })*
    };
}

impl<'a> Serializer for &'a mut Walk {
    type Ok = ();
    type Error = Stop;
    type SerializeSeq = Many<'a>;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = Many<'a>;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;

    leaves! {
        serialize_bool: bool, serialize_i8: i8, serialize_i16: i16, serialize_i32: i32,
        serialize_i64: i64, serialize_i128: i128, serialize_u8: u8, serialize_u16: u16,
        serialize_u32: u32, serialize_u64: u64, serialize_u128: u128, serialize_f32: f32,
        serialize_f64: f64, serialize_char: char,
    }

    fn serialize_str(self, text: &str) -> Result<(), Stop> {
        self.slice(text.len())
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Result<(), Stop> {
        self.slice(bytes.len())
    }

    fn serialize_none(self) -> Result<(), Stop> {
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Stop> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Stop> {
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Stop> {
        Ok(())
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, _: &'static str) -> Result<(), Stop> {
        self.add(1)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Stop> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Result<(), Stop> {
        value.serialize(self)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Many<'a>, Stop> {
        Ok(Many::new(self, false))
    }

    fn serialize_tuple(self, _: usize) -> Result<Self, Stop> {
        Ok(self)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self, Stop> {
        Ok(self)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, Stop> {
        Ok(self)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Many<'a>, Stop> {
        Ok(Many::new(self, true))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, Stop> {
        Ok(self)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, Stop> {
        Ok(self)
    }
}

impl ser::SerializeSeq for Many<'_> {
    type Ok = ();
    type Error = Stop;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, element: &T) -> Result<(), Stop> {
        self.element(element)
    }

    fn end(self) -> Result<(), Stop> {
        Many::end(self)
    }
}

impl ser::SerializeMap for Many<'_> {
    type Ok = ();
    type Error = Stop;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Stop> {
        self.element(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Stop> {
        value.serialize(&mut *self.walk)
    }

    fn end(self) -> Result<(), Stop> {
        Many::end(self)
    }
}

macro_rules! parts {
    ($($trait:ident: $method:ident,)*) => {
        $(impl ser::$trait for &mut Walk {
            type Ok = ();
            type Error = Stop;

            fn $method<T: Serialize + ?Sized>(&mut self, part: &T) -> Result<(), Stop> {
                part.serialize(&mut **self)
            }

            fn end(self) -> Result<(), Stop> {
                Ok(())
            }
        })*
    };
}

macro_rules! fields {
    ($($trait:ident,)*) => {
        $(impl ser::$trait for &mut Walk {
            type Ok = ();
            type Error = Stop;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                _: &'static str,
                field: &T,
            ) -> Result<(), Stop> {
                field.serialize(&mut **self)
            }

            fn end(self) -> Result<(), Stop> {
                Ok(())
            }
        })*
    };
}

parts! {
    SerializeTuple: serialize_element, SerializeTupleStruct: serialize_field,
    SerializeTupleVariant: serialize_field,
}

fields! { SerializeStruct, SerializeStructVariant, }

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[derive(Serialize)]
    struct Point {
        name: String,
        at: (u64, u32),
        tags: Vec<String>,
        of: Option<Box<[u16; 3]>>,
    }

    #[derive(Serialize)]
    enum Either {
        Number(u64),
        Text { text: String },
    }

    #[test]
    fn an_allocation_takes_more_than_it_was_asked_for() {
        assert_eq!([0, 1, 24, 25, 40, 41, 100].map(chunk), [0, 32, 32, 48, 48, 64, 112]);
    }

    #[test]
    fn keys_own_their_texts_and_slices() {
        assert_eq!(of_key(&7u64), 0);
        assert_eq!(of_key(&('a', [1u8; 40])), 0, "it lies in the table");
        assert_eq!(of_key(&"twelve bytes".to_owned()), 32);
        assert_eq!(of_key(&("x".repeat(100), 7u64)), 112);
        assert_eq!(of_key(&Some(vec![1u8; 100])), 112);
        assert_eq!(of_key(&vec![1u64; 10]), 96);
        assert_eq!(of_key(&String::new()), 0);
    }

    #[test]
    fn states_own_their_texts_lists_and_maps() {
        assert_eq!(of_state(&7u64), 0);
        assert_eq!(of_state(&"twelve bytes".to_owned()), 32);
        assert_eq!(of_state(&Some("twelve bytes".to_owned())), 32);
        // A vector of one has room for four.
        assert_eq!(of_state(&vec![(1u64, 2u64)]), chunk(64));
        assert_eq!(of_state(&vec![(1u64, 2u64); 5]), chunk(128));
        assert_eq!(of_state(&Vec::<u64>::new()), 0);
        let of_texts = vec!["x".repeat(50); 4];
        assert_eq!(of_state(&of_texts), chunk(4 * 24) + 4 * chunk(50));
        let map: HashMap<u64, u64> = (0..100).map(|n| (n, n)).collect();
        assert_eq!(of_state(&map), chunk(128 * 17));
        let point = Point {
            name: "x".repeat(30),
            at: (1, 2),
            tags: vec!["y".to_owned()],
            of: Some(Box::new([1; 3])),
        };
        assert_eq!(of_state(&point), chunk(30) + chunk(4 * 24) + chunk(1));
        assert_eq!(of_state(&Either::Text { text: "x".repeat(30) }), chunk(30));
        assert_eq!(of_state(&vec![Either::Number(1)]), chunk(32));
    }

    #[test]
    fn values_that_are_texts_or_bytes_own_them() {
        assert_eq!(of_any(&7u64), 0);
        assert_eq!(of_any(&"twelve bytes".to_owned()), 32);
        assert_eq!(of_any(&vec![1u8; 100]), 112);
        assert_eq!(of_any(&vec!["not seen".to_owned()]), 0);
    }
}
