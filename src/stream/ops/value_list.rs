//! `ValueList`: what a batch brings for one key. A single value, which is the most frequent number, needs no memory of its
//! own. Runs on the workers.

/// The values of a key, in order; at least one.
#[derive(Clone, Debug)]
pub(crate) enum ValueList<V> {
    One(V),
    Many(Vec<V>),
}

impl<V> ValueList<V> {
    /// All of them.
    pub(crate) fn as_slice(&self) -> &[V] {
        match self {
            ValueList::One(value) => std::slice::from_ref(value),
            ValueList::Many(values) => values,
        }
    }

    /// One more.
    pub(crate) fn push(&mut self, value: V) {
        self.many().push(value);
    }

    /// Others behind these.
    pub(crate) fn extend(&mut self, more: ValueList<V>) {
        match more {
            ValueList::One(value) => self.push(value),
            ValueList::Many(values) => self.many().extend(values),
        }
    }

    fn many(&mut self) -> &mut Vec<V> {
        if let ValueList::One(_) = self {
            let one = std::mem::replace(self, ValueList::Many(Vec::with_capacity(4)));
            if let (ValueList::One(value), ValueList::Many(values)) = (one, &mut *self) {
                values.push(value);
            }
        }
        match self {
            ValueList::Many(values) => values,
            ValueList::One(_) => unreachable!("it was just turned into many"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stay_in_order() {
        let check = |parts: &[&[i32]]| {
            let values = |part: &&[i32]| {
                let mut values = ValueList::One(part[0]);
                part[1..].iter().for_each(|value| values.push(*value));
                values
            };
            let mut all = values(&parts[0]);
            parts[1..].iter().for_each(|part| all.extend(values(part)));
            assert_eq!(all.as_slice(), parts.concat());
        };
        check(&[&[1]]);
        check(&[&[1, 2]]);
        check(&[&[1], &[2], &[3]]);
        check(&[&[1], &[2, 3, 4, 5, 6]]);
        check(&[&[1, 2, 3], &[4], &[5, 6]]);
    }
}
