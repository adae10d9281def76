//! `GivenKeys`: each key that a pipeline was given, with its value as text, so that two readings of a file can be compared.
//! Knows no keys.

use std::collections::BTreeMap;

use crate::settings::tree::{Table, Value};

/// The path of each key, as `source.lines.socket.rate_max`, and its value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GivenKeys(BTreeMap<String, String>);

impl GivenKeys {
    pub(super) fn of(table: &Table) -> Self {
        let mut keys = BTreeMap::new();
        add(&mut keys, "", table);
        GivenKeys(keys)
    }

    /// These keys, with the values of `other` for those that `take` picks.
    pub fn with(&self, other: &GivenKeys, take: impl Fn(&String) -> bool) -> GivenKeys {
        let kept = self.0.iter().filter(|(key, _)| !take(key));
        let taken = other.0.iter().filter(|(key, _)| take(key));
        GivenKeys(kept.chain(taken).map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    /// The keys that are not the same in `other`: changed, new there, or gone.
    pub fn changed(&self, other: &GivenKeys) -> Vec<String> {
        let mut keys: Vec<&String> = self.0.keys().chain(other.0.keys()).collect();
        keys.sort();
        keys.dedup();
        keys.retain(|key| self.0.get(*key) != other.0.get(*key));
        keys.into_iter().cloned().collect()
    }
}

fn add(keys: &mut BTreeMap<String, String>, before: &str, table: &Table) {
    for entry in &table.0 {
        let path = match before {
            "" => entry.key.clone(),
            before => format!("{before}.{}", entry.key),
        };
        match &entry.node.value {
            Value::Table(table) => {
                // An empty table says something too: `count = {}`.
                keys.insert(path.clone(), "{}".to_owned());
                add(keys, &path, table);
            }
            value => drop(keys.insert(path, text(value))),
        }
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Text(text) => format!("{text:?}"),
        Value::Integer(number) => number.to_string(),
        Value::Boolean(truth) => truth.to_string(),
        Value::Other(_) | Value::Bad => String::new(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| text(&item.value)).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Table(table) => {
            let entry = |entry: &crate::settings::tree::Entry| {
                format!("{} = {}", entry.key, text(&entry.node.value))
            };
            format!("{{{}}}", table.0.iter().map(entry).collect::<Vec<_>>().join(", "))
        }
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use crate::config::Pipeline;

    const FILE: &str = "workers = 2\n[source.in.socket]\nlisten = '127.0.0.1:0'\nrate_max = 5\n\
        [job.j]\nfrom = ['in']\nto = ['out']\ncount = {}\n[sink.out.null]\n";

    fn check(from: &str, to: &str, expected: &[&str]) {
        let parse = |text: &str| Pipeline::parse(text, "p.toml", &|_| None).expect("good").given;
        let changed = FILE.replace(from, to);
        assert_ne!(changed, FILE, "{from}");
        assert_eq!(parse(FILE).changed(&parse(&changed)), expected);
        assert_eq!(parse(&changed).changed(&parse(FILE)), expected);
    }

    #[test]
    fn changes_are_named() {
        check("workers = 2", "workers = 3", &["workers"]);
        check("workers = 2\n", "", &["workers"]);
        check("rate_max = 5", "rate_max = 6", &["source.in.socket.rate_max"]);
        check("count = {}", "lines = {}", &["job.j.count", "job.j.lines"]);
        check("'in']", "'in',]", &[]);
        check("[sink.out.null]", "[sink.out.memory]", &["sink.out.memory", "sink.out.null"]);
    }
}
