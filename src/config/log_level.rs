//! `LogLevel`: the weight of a message. One row for each level; the pipeline file and the command line read the table.

/// The weight of a message, the gravest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// The reason why the stream failed.
    Error,
    /// A condition that an operator should look at.
    Warn,
    /// An event that happens now and then.
    #[default]
    Info,
    /// An event of each connection.
    Debug,
}

/// Every level by its name.
pub const LOG_LEVELS: [(&str, LogLevel); 4] = [
    ("error", LogLevel::Error),
    ("warn", LogLevel::Warn),
    ("info", LogLevel::Info),
    ("debug", LogLevel::Debug),
];

impl LogLevel {
    /// The name in the pipeline file, on the command line and in JSON.
    pub fn name(self) -> &'static str {
        let row = LOG_LEVELS.iter().find(|(_, level)| *level == self);
        row.expect("every level has its row").0
    }
}
