//! The known name that is nearest to an unknown one. Pure; any thread. Does not know what the names mean.

/// Names longer than this are not compared: the work grows with the product of the lengths.
const COMPARED_BYTES_MAX: usize = 64;

/// The known name that `given` was probably meant to be, if one is near enough.
pub(crate) fn nearest<'a>(
    given: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    if given.len() > COMPARED_BYTES_MAX {
        return None;
    }
    let given = given.to_lowercase();
    let near = known.into_iter().map(|name| (strsim::damerau_levenshtein(&given, name), name));
    near.filter(|(distance, name)| *distance <= slips(name)).min().map(|(_, name)| name)
}

/// The most slips of the finger with which a name is still recognised: one in three letters.
fn slips(name: &str) -> usize {
    (name.chars().count() / 3).max(1)
}

/// A hint for an unknown name: the nearest known one, otherwise all of them; `what` is their plural, "keys".
pub(crate) fn hint(given: &str, what: &str, known: &[&str]) -> String {
    match nearest(given, known.iter().copied()) {
        Some(name) => format!("did you mean `{name}`?"),
        None if known.is_empty() => format!("there are no {what} here"),
        None => {
            let names: Vec<_> = known.iter().map(|name| format!("`{name}`")).collect();
            format!("known {what}: {}", names.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(given: &str, expected: Option<&str>) {
        let known = ["batch_interval", "block_interval", "name", "nio", "bio", "to"];
        assert_eq!(nearest(given, known), expected, "{given}");
    }

    #[test]
    fn nearest_name() {
        check("batch_intervall", Some("batch_interval"));
        check("batchinterval", Some("batch_interval"));
        check("blok_interval", Some("block_interval"));
        check("Name", Some("name"));
        check("noi", Some("nio"));
        check("ot", Some("to"));
        check("window", None);
        check("", None);
        check(&"n".repeat(1_000_000), None);
    }

    #[test]
    fn hints() {
        assert_eq!(hint("nme", "keys", &["name"]), "did you mean `name`?");
        assert_eq!(hint("x", "keys", &["name", "from"]), "known keys: `name`, `from`");
        assert_eq!(hint("x", "sources", &[]), "there are no sources here");
    }
}
