//! A pipeline as a tree of values, each with the position where it was given: from a TOML file, from the options of the
//! command line, or from both, the options laid over the file. Knows no keys but the three tables that hold names.

use toml::de::{DeTable, DeValue};

use super::diagnostics::{At, Problem, Problems};
use super::suggest;
use super::units::{BadVariable, Env, expand};

/// The most errors of TOML's grammar that are reported of one file: later ones are mostly echoes of the first.
const GRAMMAR_ERRORS_MAX: usize = 8;

/// A value and its place.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) at: At,
    pub(crate) value: Value,
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    Text(String),
    /// Numbers beyond the type are held as its largest: no key takes as much.
    Integer(i128),
    Boolean(bool),
    /// A float or a date: valid TOML that no key takes.
    Other(&'static str),
    /// A string whose variables are wrong. That is a problem already, so the reader makes no second one of it.
    Bad,
    Array(Vec<Node>),
    Table(Table),
}

impl Value {
    /// The type as messages name it.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Value::Text(_) => "a string",
            Value::Integer(_) => "a number",
            Value::Boolean(_) => "a truth value",
            Value::Other(kind) => kind,
            Value::Bad => "a string",
            Value::Array(_) => "a list",
            Value::Table(_) => "a table",
        }
    }
}

/// Entries in the order of the file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table(pub(crate) Vec<Entry>);

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_at: At,
    pub(crate) node: Node,
}

impl Table {
    pub(crate) fn get(&self, key: &str) -> Option<&Entry> {
        self.0.iter().find(|entry| entry.key == key)
    }

    fn get_mut(&mut self, key: &str) -> Option<&mut Entry> {
        self.0.iter_mut().find(|entry| entry.key == key)
    }
}

/// Reads a file; grammar errors and missing variables become problems.
pub(crate) fn parse(text: &str, env: &Env<'_>, problems: &Problems) -> Table {
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors.iter().take(GRAMMAR_ERRORS_MAX) {
        let at = error.span().map_or(At::Whole, At::file);
        problems.add(Problem::new(&at, error.message()));
    }
    if !errors.is_empty() {
        return Table::default();
    }
    let reader = Reader { env: Some(env), problems };
    reader.table(table.into_inner())
}

/// Turns TOML's tree into ours, putting variables into strings if there is an environment.
struct Reader<'a> {
    env: Option<&'a Env<'a>>,
    problems: &'a Problems,
}

impl Reader<'_> {
    fn table(&self, table: DeTable<'_>) -> Table {
        let entry = |(key, value): (toml::Spanned<_>, toml::Spanned<_>)| {
            let (key_at, at) = (At::file(key.span()), At::file(value.span()));
            let key: std::borrow::Cow<'_, str> = key.into_inner();
            let value = self.value(value.into_inner(), &at);
            Entry { key: key.into_owned(), key_at, node: Node { at, value } }
        };
        let mut entries: Vec<_> = table.into_iter().map(entry).collect();
        entries.sort_by(|a, b| a.key_at.cmp(&b.key_at));
        Table(entries)
    }

    fn value(&self, value: DeValue<'_>, at: &At) -> Value {
        match value {
            DeValue::String(text) => self.text(&text, at),
            DeValue::Integer(number) => {
                let read = i128::from_str_radix(number.as_str(), number.radix());
                Value::Integer(read.unwrap_or(i128::MAX))
            }
            DeValue::Float(_) => Value::Other("a number with a fraction"),
            DeValue::Boolean(truth) => Value::Boolean(truth),
            DeValue::Datetime(_) => Value::Other("a date"),
            DeValue::Array(items) => {
                let node = |item: toml::Spanned<DeValue<'_>>| {
                    let at = At::file(item.span());
                    Node { value: self.value(item.into_inner(), &at), at }
                };
                Value::Array(items.into_iter().map(node).collect())
            }
            DeValue::Table(table) => Value::Table(self.table(table)),
        }
    }

    fn text(&self, text: &str, at: &At) -> Value {
        let Some(env) = self.env else { return Value::Text(text.to_owned()) };
        match expand(text, env) {
            Ok(text) => return Value::Text(text),
            Err(BadVariable::Missing(name)) => {
                let problem = Problem::new(at, format!("the variable `{name}` is not set"));
                let hint = format!("set it, or give a default: `${{{name}:-default}}`");
                self.problems.add(problem.label("needs it").hint(hint));
            }
            Err(BadVariable::Malformed) => {
                let problem = Problem::new(at, "`${` does not begin a variable");
                self.problems.add(
                    problem.hint("write `${NAME}`, `${NAME:-default}`, or `$${` for `${` itself"),
                );
            }
        }
        Value::Bad
    }
}

/// One option of the command line that sets a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The option as it was typed, for errors: `--every 1s`.
    pub flag: String,
    /// The path of the key. The kind of a source or sink may be left out where it is there already.
    pub path: Vec<String>,
    /// The value.
    pub value: Given,
    /// True if the setting may make a new source, job or sink; otherwise its name must be there.
    pub makes: bool,
}

/// The value of a [`Setting`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Given {
    /// A string, as it is.
    Text(String),
    /// A list of strings.
    List(Vec<String>),
    /// A TOML value, or a string where it is not one.
    Toml(String),
    /// An empty table, unless there is one.
    Table,
}

/// The tables that hold names, and the number of levels above the keys of what is named.
const NAMED: [(&str, &str); 3] = [("source", "sources"), ("sink", "sinks"), ("job", "jobs")];

/// Lays an option over the tree; `index` is its number among the options.
pub(crate) fn set(table: &mut Table, index: usize, setting: &Setting, problems: &Problems) {
    let at = At::Flag(index);
    let Some(path) = full_path(table, setting, &at, problems) else { return };
    let Some((last, parents)) = path.split_last() else { return };
    let mut table = table;
    for key in parents {
        let entry = entry_of(table, key, &at);
        if !matches!(entry.node.value, Value::Table(_)) {
            let problem = Problem::new(&at, format!("`{key}` is not a table"));
            return problems.add(problem);
        }
        let Value::Table(next) = &mut entry.node.value else { return };
        table = next;
    }
    let entry = entry_of(table, last, &at);
    let keep = setting.value == Given::Table && matches!(entry.node.value, Value::Table(_));
    if !keep {
        entry.key_at = at.clone();
        entry.node = Node { value: setting.value.to_value(&at), at };
    }
}

/// The entry of a key, made as an empty table if there is none.
fn entry_of<'a>(table: &'a mut Table, key: &str, at: &At) -> &'a mut Entry {
    if table.get(key).is_none() {
        let node = Node { at: at.clone(), value: Value::Table(Table::default()) };
        table.0.push(Entry { key: key.to_owned(), key_at: at.clone(), node });
    }
    table.get_mut(key).expect("made just now")
}

/// The path with the kind of its source or sink put in; `None` if it names a source, job or sink that is not there.
fn full_path(
    table: &Table,
    setting: &Setting,
    at: &At,
    problems: &Problems,
) -> Option<Vec<String>> {
    let mut path = setting.path.clone();
    if path.is_empty() || path.iter().any(String::is_empty) {
        let problem = Problem::new(at, "the key is empty");
        problems.add(problem.hint("write KEY=VALUE, as in `source.lines.io_model=bio`"));
        return None;
    }
    let Some((holder, plural)) = NAMED.iter().find(|(holder, _)| path[0] == *holder) else {
        return Some(path);
    };
    if setting.makes {
        return Some(path);
    }
    let named = match table.get(holder).map(|entry| &entry.node.value) {
        Some(Value::Table(named)) => named,
        _ => &Table::default(),
    };
    let name = path.get(1).cloned().unwrap_or_default();
    let Some(found) = named.get(&name) else {
        let names: Vec<&str> = named.0.iter().map(|entry| entry.key.as_str()).collect();
        let problem = Problem::new(at, format!("there is no {holder} `{name}`"));
        problems.add(problem.hint(suggest::hint(&name, plural, &names)));
        return None;
    };
    if let Value::Table(kinds) = &found.node.value
        && *holder != "job"
        && path.len() > 2
        && kinds.get(&path[2]).is_none()
        && let Some(kind) = kinds.0.first()
    {
        path.insert(2, kind.key.clone());
    }
    Some(path)
}

impl Given {
    fn to_value(&self, at: &At) -> Value {
        match self {
            Given::Text(text) => Value::Text(text.clone()),
            Given::List(texts) => {
                let node =
                    |text: &String| Node { at: at.clone(), value: Value::Text(text.clone()) };
                Value::Array(texts.iter().map(node).collect())
            }
            Given::Toml(text) => match DeValue::parse(text) {
                Ok(value) => placed(value.into_inner(), at),
                Err(_) => Value::Text(text.clone()),
            },
            Given::Table => Value::Table(Table::default()),
        }
    }
}

/// A TOML value of the command line: the place of every part is the option. The shell has put in the variables.
fn placed(value: DeValue<'_>, at: &At) -> Value {
    let problems = Problems::default();
    let reader = Reader { env: None, problems: &problems };
    let mut value = reader.value(value, at);
    place(&mut value, at);
    value
}

fn place(value: &mut Value, at: &At) {
    match value {
        Value::Array(items) => {
            for item in items {
                item.at = at.clone();
                place(&mut item.value, at);
            }
        }
        Value::Table(table) => {
            for entry in &mut table.0 {
                (entry.key_at, entry.node.at) = (at.clone(), at.clone());
                place(&mut entry.node.value, at);
            }
        }
        Value::Text(_) | Value::Integer(_) | Value::Boolean(_) | Value::Other(_) | Value::Bad => {}
    }
}
