//! `Key`: a key of a table as the documents show it. Plain data; what a key means is known where it is read.

/// A key of a section. Its texts are Markdown, as cells of a table of the guide.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// The values that it takes, as `a string` or `1 to 1000000`.
    pub takes: &'static str,
    /// Its value if it is not given; empty if it must be given.
    pub default: &'static str,
    /// Its meaning, in a sentence.
    pub about: &'static str,
}
