//! The text of the benches: words Zipf(1.0) distributed over a vocabulary, the same on every machine.

const VOCABULARY: usize = 10_000;

/// A small generator with a fixed seed: the same text on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Words by rank: short ones and long ones, as in a language.
fn vocabulary(random: &mut Random) -> Vec<String> {
    let word = |_| {
        (0..3 + random.next() % 8).map(|_| char::from(b'a' + (random.next() % 26) as u8)).collect()
    };
    (0..VOCABULARY).map(word).collect()
}

/// So many words, twelve to a line.
pub fn zipf_text(words: usize) -> Vec<u8> {
    let mut random = Random(42);
    let vocabulary = vocabulary(&mut random);
    let mut sum = 0.0;
    let cumulative: Vec<f64> = (1..=VOCABULARY)
        .map(|rank| {
            sum += 1.0 / rank as f64;
            sum
        })
        .collect();
    let mut text = Vec::new();
    for number in 1..=words {
        let point = random.unit() * sum;
        let rank = cumulative.partition_point(|bound| *bound < point).min(VOCABULARY - 1);
        text.extend_from_slice(vocabulary[rank].as_bytes());
        text.push(if number % 12 == 0 { b'\n' } else { b' ' });
    }
    text
}
