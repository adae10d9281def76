//! The io models: the ways to read a socket. One model is one file and one row of [`IO_MODELS`].

/// A way to read sockets that users name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IoModel {
    /// One blocking thread for each connection.
    Bio,
    /// One readiness loop for all connections.
    Nio,
}

/// A row of the table of io models.
#[derive(Debug)]
pub struct Row {
    /// The name in pipeline files and on the command line.
    pub name: &'static str,
    /// The model.
    pub model: IoModel,
    /// One line for the help.
    pub about: &'static str,
}

/// Every io model there is.
pub const IO_MODELS: &[Row] = &[
    Row { name: "bio", model: IoModel::Bio, about: "one blocking thread for each connection" },
    Row { name: "nio", model: IoModel::Nio, about: "one readiness loop for all connections" },
];

impl IoModel {
    /// The name in pipeline files and on the command line.
    pub fn name(self) -> &'static str {
        let row = IO_MODELS.iter().find(|row| row.model == self);
        row.expect("every model has a row").name
    }
}

/// The model with this name.
pub fn by_name(name: &str) -> Option<IoModel> {
    IO_MODELS.iter().find(|row| row.name == name).map(|row| row.model)
}
