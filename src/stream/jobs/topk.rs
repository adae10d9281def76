//! The job `topk`: the words, or the values of a field, that are most frequent. Runs on the workers; words are counted in
//! [`wordcount`](super::wordcount).

use super::wordcount::{Fused, ranked};
use super::{FlagValue, JobKind, JobOptions, JobOutput, JobRow};
use crate::exec::shuffle::Tally;
use crate::exec::shuffle::word_table::WordTable;
use crate::settings::diagnostics::Problem;
use crate::settings::key::Key;
use crate::settings::section::Section;
use crate::settings::tree::Given;
use crate::stream::DStream;

/// Rows if `n` is not given.
const ROWS: usize = 10;
/// The most rows, and the last field.
const NUMBER_MAX: usize = 1_000_000;

pub(super) const ROW: JobRow = JobRow {
    name: "topk",
    about: "The most frequent words, or values of a field, with their counts.",
    keys: &[
        Key { name: "n", takes: "1 to 1000000", default: "`10`", about: "The most rows." },
        Key {
            name: "field",
            takes: "1 to 1000000",
            default: "every word",
            about: "The number of the field that is counted; fields count from 1.",
        },
        Key {
            name: "separator",
            takes: "a string",
            default: "white space",
            about: "The text between two fields; it needs a `field`.",
        },
    ],
    example: "topk = { n = 10, field = 1, separator = \",\" }",
    value: Some(FlagValue { key: "n", shown: "N", required: false, given: Given::Toml }),
    read: |section| Some(JobKind::from(read(section))),
};

/// The options of `topk`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopK {
    /// The most rows, at least one; 10 by default.
    pub n: usize,
    /// The field that is counted, from 1; every word by default.
    pub field: Option<usize>,
    /// The text between two fields, not empty; white space by default.
    pub separator: Option<String>,
}

fn read(section: &mut Section<'_>) -> TopK {
    let n = section.number("n", 1..=NUMBER_MAX).map_or(ROWS, |found| found.value);
    let field = section.number("field", 1..=NUMBER_MAX).map(|found| found.value);
    let separator = section.text("separator");
    if let Some(found) = &separator {
        if found.value.is_empty() {
            section.problems.add(Problem::new(&found.at, "`separator` is empty"));
        }
        if !section.has("field") {
            let problem = Problem::new(&section.key_at("separator"), "`separator` needs a `field`");
            section.problems.add(problem.hint("fields are counted from 1: `field = 1`"));
        }
    }
    TopK { n, field, separator: separator.map(|found| found.value) }
}

impl JobOptions for TopK {
    fn row(&self) -> &'static JobRow {
        &ROW
    }

    fn attach(&self, records: &DStream<[u8]>, output: JobOutput<'_>) {
        let (n, separator) = (self.n, self.separator.clone().map(String::into_bytes));
        let rows = match (self.field, output.window) {
            (None, None) => records.wordcount_top(n),
            (None, Some(window)) => ranked(&records.counted_words(), window, n),
            (Some(field), None) => records.topk(n, field, separator),
            (Some(field), Some(window)) => {
                ranked(&records.counted_fields(field, separator), window, n)
            }
        };
        output.save(&rows);
    }
}

impl DStream<[u8]> {
    /// The `n` most frequent values of field number `field`, from 1, with their counts: highest count first, then by bytes.
    /// Fields end at `separator`, or at white space if there is none. Records without such a field are left out, and so are
    /// empty values. It is the job `topk` of a pipeline file.
    ///
    /// ```
    /// # let ctx = tidemill::StreamingContext::with_clock(tidemill::Config::new("doc"), tidemill::testing::ManualClock::new())?;
    /// let lines = ctx.queue_stream(vec![Some(vec!["to be", "or not", "to be"])], 1);
    /// let records = lines.flat_map(|line, out| out.push(line.as_bytes()));
    /// let found = records.topk(1, 2, None).collect();
    /// ctx.run_batches(1)?;
    /// assert_eq!(found.rows()[0].1, [(b"be".to_vec(), 2)]);
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn topk(
        &self,
        n: usize,
        field: usize,
        separator: Option<Vec<u8>>,
    ) -> DStream<(Vec<u8>, u64)> {
        self.words(Some(n), field_counter(field, separator), Fused::No)
    }

    /// All values of a field with their counts, in no order that means anything.
    fn counted_fields(&self, field: usize, separator: Option<Vec<u8>>) -> DStream<Tally> {
        self.words(None, field_counter(field, separator), Fused::No)
    }
}

/// Counts the values of a field; see [`DStream::topk`].
fn field_counter(
    field: usize,
    separator: Option<Vec<u8>>,
) -> impl Fn(&mut WordTable, &[u8]) + Send + Sync + 'static {
    let finder = separator.map(|text| memchr::memmem::Finder::new(&text).into_owned());
    let skip = field.saturating_sub(1);
    move |table, record| {
        let value = match &finder {
            Some(finder) => separated(record, finder, skip),
            None => words_of(record).nth(skip),
        };
        value.into_iter().for_each(|value| table.count_word(value));
    }
}

fn words_of(record: &[u8]) -> impl Iterator<Item = &[u8]> {
    record.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty())
}

fn separated<'a>(
    record: &'a [u8],
    finder: &memchr::memmem::Finder<'_>,
    skip: usize,
) -> Option<&'a [u8]> {
    let mut ends = finder.find_iter(record);
    let mut start = 0;
    for _ in 0..skip {
        start = ends.next()? + finder.needle().len();
    }
    Some(&record[start..ends.next().unwrap_or(record.len())])
}
