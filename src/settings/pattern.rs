//! `Pattern`: a regular expression of a pipeline file, compiled at the start; any thread may match with it. It knows no key.

use regex::bytes::{Regex, RegexBuilder};

/// The most memory that one compiled regular expression may take, in bytes.
const PATTERN_BYTES_MAX: usize = 10 << 20;

/// A regular expression over bytes, in the syntax of crate `regex`; equal to another if the text is. Any thread may match with
/// it.
///
/// ```
/// use tidemill::config::Pattern;
///
/// let pattern = Pattern::new(r"^(?<sender>\w+) (?<number>\d+) ")?;
/// assert!(pattern.regex().is_match(b"host 17 text"));
/// assert_eq!(pattern.as_str(), r"^(?<sender>\w+) (?<number>\d+) ");
/// assert!(Pattern::new("(").is_err());
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Debug)]
pub struct Pattern(Regex);

impl Pattern {
    /// Compiles an expression; the compiled one may take up to 10 MiB.
    ///
    /// # Errors
    /// The mistake in it, on one line.
    pub fn new(text: &str) -> Result<Pattern, String> {
        let built = RegexBuilder::new(text).size_limit(PATTERN_BYTES_MAX).build();
        built.map(Pattern).map_err(|err| {
            let text = err.to_string();
            let last = text.lines().last().unwrap_or_default().trim();
            last.strip_prefix("error: ").unwrap_or(last).to_owned()
        })
    }

    /// An expression that is compiled already.
    pub(crate) fn of(regex: Regex) -> Pattern {
        Pattern(regex)
    }

    /// The compiled expression.
    pub fn regex(&self) -> &Regex {
        &self.0
    }

    /// The text of the expression.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Pattern {}
