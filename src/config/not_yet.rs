//! What the pipeline file already describes and this version does not do yet. A feature is enabled by deleting its row.

/// A key or a value that is understood, and refused because the engine cannot do it yet.
#[derive(Clone, Copy, Debug)]
pub struct NotYet {
    /// The path of the key; `*` stands for the name of a source, job or sink.
    pub key: &'static str,
    /// Which values of the key are refused.
    pub when: When,
    /// What is not supported, as the error names it.
    pub words: &'static str,
}

/// Which values of a key are refused.
#[derive(Clone, Copy, Debug)]
pub enum When {
    /// All.
    Given,
    /// This one.
    Is(&'static str),
    /// All but this one, which says what this version does anyway.
    IsNot(&'static str),
}

impl NotYet {
    const fn given(key: &'static str, words: &'static str) -> Self {
        NotYet { key, when: When::Given, words }
    }

    /// Whether this row refuses the value of a key; `value` is none unless it is a string or a truth value.
    pub(super) fn refuses(&self, path: &str, key: &str, value: Option<&str>) -> bool {
        let parts = self.key.rsplit_once('.').unwrap_or(("", self.key));
        parts == (path, key)
            && match self.when {
                When::Given => true,
                When::Is(refused) => value == Some(refused),
                When::IsNot(fine) => value != Some(fine),
            }
    }
}

/// Everything that is not supported yet.
pub const NOT_YET: &[NotYet] = &[NotYet::given("source.*.socket.identity", "`identity`")];
