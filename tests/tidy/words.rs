//! What a reader meets first: how comments begin, whether parameters have names, and what the map of the house points to. It
//! reads text and knows no file. It uses the standard library only.

/// Words with which a doc comment poses a question instead of making a statement.
const QUESTIONS: [&str; 5] = ["What", "How", "Whether", "Where", "Why"];

/// Lines of `text` at which a doc comment begins with a question, with their numbers.
pub fn questions(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut above = "";
    for (at, line) in text.lines().enumerate() {
        let line = line.trim_start();
        let begins = doc(line).is_some() && doc(above).is_none();
        let first = doc(line).and_then(|words| words.split(|c: char| !c.is_alphanumeric()).next());
        if begins && first.is_some_and(|word| QUESTIONS.contains(&word)) {
            found.push((at + 1, line));
        }
        above = line;
    }
    found
}

/// The words of a line of documentation.
fn doc(line: &str) -> Option<&str> {
    line.strip_prefix("/// ").or_else(|| line.strip_prefix("//! "))
}

/// Parameters of functions in `code` whose type is an anonymous tuple, with the lines of their functions. A reference to a
/// tuple is an element of something, and the unit is no tuple.
pub fn tuples(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let is_word = code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let rest = &code[at + 3..];
        let name = rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or("");
        if is_word || name.is_empty() {
            continue;
        }
        let line = code[..at].matches('\n').count() + 1;
        let wrong = parameters(&rest[name.len()..]).into_iter().filter(|given| is_tuple(given));
        found.extend(wrong.map(|given| {
            let given = given.split_whitespace().collect::<Vec<_>>().join(" ");
            (line, format!("{name}({given})"))
        }));
    }
    found
}

/// The parameters of the function whose generics or parentheses `rest` begins with.
fn parameters(rest: &str) -> Vec<&str> {
    let (mut depth, mut open, mut start) = (0usize, None, 0);
    let mut found = Vec::new();
    let mut before = ' ';
    for (at, c) in rest.char_indices() {
        let arrow = c == '>' && (before == '-' || before == '=');
        match c {
            '(' if depth == 0 => {
                (open, start) = (Some(at), at + 1);
                depth += 1;
            }
            '(' | '[' | '{' | '<' => depth += 1,
            ',' if depth == 1 && open.is_some() => {
                found.push(&rest[start..at]);
                start = at + 1;
            }
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            '>' if !arrow => depth = depth.saturating_sub(1),
            _ if depth == 0 && !c.is_whitespace() => return found,
            _ => {}
        }
        if depth == 0 && open.is_some() {
            found.push(&rest[start..at]);
            return found;
        }
        before = c;
    }
    found
}

/// Whether the type of a parameter, such as `mut place: (u64, u64)`, is a tuple.
fn is_tuple(parameter: &str) -> bool {
    let Some(kind) = after_pattern(parameter) else { return false };
    let kind = kind.trim_start().trim_start_matches("&mut ").trim_start();
    kind.starts_with('(') && !kind.starts_with("()") && !kind.starts_with("(dyn")
}

/// What follows the colon behind the parameter's pattern.
fn after_pattern(parameter: &str) -> Option<&str> {
    let mut depth = 0;
    let mut before = ' ';
    for (at, c) in parameter.char_indices() {
        match c {
            '(' | '[' | '{' | '<' => depth += 1,
            ')' | ']' | '}' | '>' => depth -= 1,
            ':' if depth == 0 && before != ':' && !parameter[at + 1..].starts_with(':') => {
                return Some(&parameter[at + 1..]);
            }
            _ => {}
        }
        before = c;
    }
    None
}

/// What `text` names in backticks as a place of the project, such as `src/sync/planted.rs` or `tests/golden/`.
pub fn places(text: &str) -> Vec<&str> {
    let quoted = text.split('`').skip(1).step_by(2);
    let known = ["src/", "tests/", "benches/", "docs/", "fuzz/", "examples/", ".ci/"];
    quoted.filter(|quoted| known.iter().any(|start| quoted.starts_with(start))).collect()
}

/// The test functions that the last column of a table in `text` names, a test for each name with at least three words.
pub fn named_tests(text: &str) -> Vec<&str> {
    let rows = text.lines().filter(|line| line.starts_with("| "));
    let last = rows.filter_map(|row| row.trim_end_matches(" |").rsplit(" | ").next());
    let names = last.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    let is_name = |name: &&str| {
        name.matches('_').count() > 1
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    names.filter(is_name).collect()
}
