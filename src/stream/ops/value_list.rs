//! `Values`: what a batch brings for one key. A single value, which is the most frequent number, needs no memory of its
//! own. Runs on the workers.

/// The values of a key, in order; at least one.
#[derive(Clone, Debug)]
pub(crate) enum Values<V> {
    One(V),
    Many(Vec<V>),
}

impl<V> Values<V> {
    /// All of them.
    pub(crate) fn as_slice(&self) -> &[V] {
        match self {
            Values::One(value) => std::slice::from_ref(value),
            Values::Many(values) => values,
        }
    }

    /// One more.
    pub(crate) fn push(&mut self, value: V) {
        self.many().push(value);
    }

    /// Others behind these.
    pub(crate) fn extend(&mut self, more: Values<V>) {
        match more {
            Values::One(value) => self.push(value),
            Values::Many(values) => self.many().extend(values),
        }
    }

    fn many(&mut self) -> &mut Vec<V> {
        if let Values::One(_) = self {
            let one = std::mem::replace(self, Values::Many(Vec::with_capacity(4)));
            if let (Values::One(value), Values::Many(values)) = (one, &mut *self) {
                values.push(value);
            }
        }
        match self {
            Values::Many(values) => values,
            Values::One(_) => unreachable!("it was just turned into many"),
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
                let mut values = Values::One(part[0]);
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
