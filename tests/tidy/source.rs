//! Reads Rust sources as text: blanks comments and strings, cuts out what only tests compile, and lists the `mod`, `use` and
//! path expressions of a file. It knows no rule of the house, and uses the standard library only.

use std::fs;
use std::path::{Path, PathBuf};

/// One source file. `code` has the lines of `text`: comments and strings are blank, and so is what only tests compile.
pub struct Source {
    /// Path from the root of the project.
    pub path: String,
    /// The file as it is.
    pub text: String,
    /// The code of the product.
    pub code: String,
}

/// A `mod name;` and the file that it names.
pub struct Declared {
    pub name: String,
    pub file: String,
    pub public: bool,
    pub test_only: bool,
}

/// A path in a `use` declaration and the name under which the file knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Used {
    pub line: usize,
    pub path: Vec<String>,
    /// `None` for `*`.
    pub name: Option<String>,
    /// `pub use`, also `pub(crate) use`: the name is handed on.
    pub handed_on: bool,
    /// `pub use`: other crates see the name.
    pub public: bool,
}

/// The root of the project: where cargo says, or here when the file is compiled alone.
pub fn root() -> PathBuf {
    option_env!("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from("."), PathBuf::from)
}

/// Every Rust file below `dir`, sorted by path.
pub fn sources(dir: &str) -> Vec<Source> {
    let mut found = Vec::new();
    let mut open = vec![root().join(dir)];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).expect("the directory is there") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let text = fs::read_to_string(&path).expect("UTF-8");
                let path = path.strip_prefix(root()).expect("below the root").display().to_string();
                found.push(Source::new(&path, &text));
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

impl Used {
    fn new(line: usize, path: Vec<String>, name: Option<String>) -> Used {
        Used { line, path, name, handed_on: false, public: false }
    }
}

impl Source {
    pub fn new(path: &str, text: &str) -> Source {
        let code = without_tests(&blanked(text));
        Source { path: path.to_owned(), text: text.to_owned(), code }
    }

    /// Lines of the product with their numbers. Blank ones are left out.
    pub fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let numbered = self.code.lines().enumerate().map(|(at, line)| (at + 1, line));
        numbered.filter(|(_, line)| !line.trim().is_empty())
    }

    /// The files that this one declares as modules, those of tests included.
    pub fn declared(&self) -> Vec<Declared> {
        let folder = self.folder();
        let code = blanked(&self.text);
        let mut found = Vec::new();
        let (mut test_only, mut file) = (false, None);
        for (shown, line) in self.text.lines().zip(code.lines()) {
            let line = line.trim();
            let declaration = line.strip_suffix(';').and_then(after_visibility);
            if line.starts_with("#[") {
                test_only |= is_test_attribute(line);
                file =
                    shown.split("#[path = \"").nth(1).map(|rest| rest.replace("\"]", "")).or(file);
            } else if let Some(name) = declaration.and_then(|line| line.strip_prefix("mod ")) {
                let near = |end: &str| format!("{folder}/{name}{end}");
                let file = match file.take() {
                    Some(file) => format!("{}/{file}", parent(&self.path)),
                    None if root().join(near(".rs")).exists() => near(".rs"),
                    None => near("/mod.rs"),
                };
                let public = line.starts_with("pub mod ");
                found.push(Declared { name: name.to_owned(), file, public, test_only });
                test_only = false;
            } else if !line.is_empty() {
                (test_only, file) = (false, None);
            }
        }
        found
    }

    /// The folder of the files that this one declares.
    fn folder(&self) -> String {
        let path = Path::new(&self.path);
        let stem = path.file_stem().and_then(|stem| stem.to_str()).expect("a name");
        let is_root = parent(&self.path) == "benches";
        match stem {
            "mod" | "lib" | "main" => parent(&self.path),
            _ if is_root => parent(&self.path),
            _ => format!("{}/{stem}", parent(&self.path)),
        }
    }

    /// Every path of the `use` declarations of the product, groups taken apart.
    pub fn uses(&self) -> Vec<Used> {
        let mut found = Vec::new();
        let words = words(&self.code);
        let mut at = 0;
        while at < words.len() {
            if words[at].text != "use" {
                at += 1;
                continue;
            }
            let before = at.checked_sub(1).map_or("", |before| words[before].text.as_str());
            let (handed_on, public) = (matches!(before, "pub" | ")"), before == "pub");
            let end = at + words[at..].iter().position(|word| word.text == ";").unwrap_or(1);
            let first = found.len();
            take_apart(&words[at + 1..end], &[], &mut found);
            for used in &mut found[first..] {
                (used.handed_on, used.public) = (handed_on, public);
            }
            at = end + 1;
        }
        found
    }

    /// Every path of at least two names outside `use` declarations, with its line.
    pub fn paths(&self) -> Vec<(usize, Vec<String>)> {
        let words = words(&self.code);
        let mut found = Vec::new();
        let mut at = 0;
        while at < words.len() {
            if words[at].text == "use" {
                at += words[at..].iter().position(|word| word.text == ";").unwrap_or(1);
                continue;
            }
            let line = words[at].line;
            let mut path = Vec::new();
            while at < words.len() && words[at].is_name() {
                path.push(words[at].text.clone());
                at += 1;
                if words.get(at).is_some_and(|word| word.text == "::") {
                    at += 1;
                } else {
                    break;
                }
            }
            if path.len() > 1 {
                found.push((line, path));
            } else if path.is_empty() {
                at += 1;
            }
        }
        found
    }

    /// Whether the product's part defines something called `name`.
    pub fn defines(&self, name: &str) -> bool {
        const KINDS: [&str; 9] =
            ["fn", "struct", "enum", "trait", "type", "const", "static", "union", "macro_rules!"];
        let words: Vec<&str> = self
            .code
            .split(|c: char| !c.is_alphanumeric() && c != '_' && c != '!')
            .filter(|word| !word.is_empty())
            .collect();
        words.windows(2).any(|pair| KINDS.contains(&pair[0]) && pair[1] == name)
    }
}

fn parent(path: &str) -> String {
    path.rsplit_once('/').map_or(String::new(), |(parent, _)| parent.to_owned())
}

fn after_visibility(line: &str) -> Option<&str> {
    match line.strip_prefix("pub") {
        None => Some(line),
        Some(rest) if rest.starts_with('(') => rest.split_once(") ").map(|(_, rest)| rest),
        Some(rest) => rest.strip_prefix(' '),
    }
}

fn is_test_attribute(line: &str) -> bool {
    line.starts_with("#[cfg(test)")
        || line.starts_with("#[cfg(all(test")
        || line.starts_with("#[cfg(doctest)")
}

/// A name, `::`, or one sign.
struct Word {
    line: usize,
    text: String,
}

impl Word {
    fn is_name(&self) -> bool {
        self.text.starts_with(|c: char| c.is_alphabetic() || c == '_')
    }
}

fn words(code: &str) -> Vec<Word> {
    let mut found: Vec<Word> = Vec::new();
    for (at, line) in code.lines().enumerate() {
        let mut rest = line;
        while let Some(first) = rest.chars().next() {
            let inside = |c: char| c.is_alphanumeric() || c == '_';
            let length = match first {
                _ if inside(first) => rest.find(|c| !inside(c)).unwrap_or(rest.len()),
                ':' if rest.starts_with("::") => 2,
                _ => first.len_utf8(),
            };
            let (word, after) = rest.split_at(length);
            if !word.trim().is_empty() {
                found.push(Word { line: at + 1, text: word.to_owned() });
            }
            rest = after;
        }
    }
    found
}

/// Takes `a::{b, c as d}` apart. `before` is what stands before the braces.
fn take_apart(words: &[Word], before: &[String], found: &mut Vec<Used>) {
    let mut path = before.to_vec();
    let mut at = 0;
    while at < words.len() {
        match words[at].text.as_str() {
            "::" | "," => at += 1,
            "{" => {
                let inner = &words[at + 1..words.len() - 1];
                for part in split_at_commas(inner) {
                    take_apart(part, &path, found);
                }
                return;
            }
            "*" => {
                found.push(Used::new(words[at].line, path, None));
                return;
            }
            "self" if !path.is_empty() => at += 1,
            "as" => {
                let name = words.get(at + 1).map(|word| word.text.clone());
                found.push(Used::new(words[at].line, path, name));
                return;
            }
            name => {
                path.push(name.to_owned());
                at += 1;
            }
        }
    }
    let (Some(first), Some(last)) = (words.first(), path.last()) else { return };
    let name = Some(last.clone());
    found.push(Used::new(first.line, path, name));
}

fn split_at_commas(words: &[Word]) -> Vec<&[Word]> {
    let mut depth = 0;
    words
        .split(|word| {
            match word.text.as_str() {
                "{" => depth += 1,
                "}" => depth -= 1,
                _ => {}
            }
            depth == 0 && word.text == ","
        })
        .filter(|part| !part.is_empty())
        .collect()
}

/// `text` with spaces in the place of comments and of what strings hold.
pub fn blanked(text: &str) -> String {
    let signs: Vec<char> = text.chars().collect();
    let mut blank = String::with_capacity(text.len());
    let mut at = 0;
    while at < signs.len() {
        let end = end_of_blank(&signs, at);
        if end == at {
            blank.push(signs[at]);
            at += 1;
        } else {
            blank.extend(signs[at..end].iter().map(|sign| if *sign == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    blank
}

/// Where the comment, string or character that begins at `at` ends; `at` if none begins there.
fn end_of_blank(signs: &[char], at: usize) -> usize {
    let next = |ahead: usize| signs.get(at + ahead).copied().unwrap_or(' ');
    let in_name = at > 0 && (signs[at - 1].is_alphanumeric() || signs[at - 1] == '_');
    match signs[at] {
        '/' if next(1) == '/' => find(signs, at, |rest| rest[0] == '\n'),
        '/' if next(1) == '*' => find(signs, at + 2, |rest| rest.starts_with(&['*', '/'])) + 2,
        'b' | 'c' if !in_name && next(1) == '"' => end_of_string(signs, at + 1),
        'b' if !in_name && next(1) == '\'' => end_of_character(signs, at + 1),
        'b' if !in_name && next(1) == 'r' => end_of_raw(signs, at + 1).unwrap_or(at),
        'r' if !in_name => end_of_raw(signs, at).unwrap_or(at),
        '"' => end_of_string(signs, at),
        '\'' if next(1) == '\\' || next(2) == '\'' => end_of_character(signs, at),
        _ => at,
    }
}

fn find(signs: &[char], from: usize, is_end: impl Fn(&[char]) -> bool) -> usize {
    (from..signs.len()).find(|at| is_end(&signs[*at..])).unwrap_or(signs.len())
}

fn end_of_string(signs: &[char], quote: usize) -> usize {
    let mut at = quote + 1;
    while at < signs.len() && signs[at] != '"' {
        at += if signs[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(signs.len())
}

fn end_of_character(signs: &[char], quote: usize) -> usize {
    let from = if signs.get(quote + 1) == Some(&'\\') { quote + 3 } else { quote + 1 };
    (find(signs, from, |rest| rest[0] == '\'') + 1).min(signs.len())
}

/// The end of `r"…"` or `r#"…"#`.
fn end_of_raw(signs: &[char], r: usize) -> Option<usize> {
    let hashes = signs[r + 1..].iter().take_while(|sign| **sign == '#').count();
    let open = r + 1 + hashes;
    (signs.get(open) == Some(&'"')).then(|| {
        let end = |rest: &[char]| {
            rest[0] == '"' && rest[1..].iter().take_while(|sign| **sign == '#').count() >= hashes
        };
        (find(signs, open + 1, end) + 1 + hashes).min(signs.len())
    })
}

/// `code`, already blanked, with blank lines in the place of every item that only tests compile: the attribute, and the item
/// after it to its closing brace, semicolon or comma.
fn without_tests(code: &str) -> String {
    let mut kept = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(line) = rest.split_inclusive('\n').next() {
        let length = if is_test_attribute(line.trim_start()) { end_of_item(rest) } else { 0 };
        if length == 0 {
            kept.push_str(line);
            rest = &rest[line.len()..];
        } else {
            kept.extend(rest[..length].chars().filter(|sign| *sign == '\n'));
            rest = &rest[length..];
        }
    }
    kept
}

fn end_of_item(rest: &str) -> usize {
    let (mut depth, mut is_value) = (0i32, false);
    for (at, sign) in rest.char_indices() {
        match sign {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            '=' if depth == 0 => is_value = true,
            _ => {}
        }
        let end = at + sign.len_utf8();
        match sign {
            // The brace of what holds the item.
            '}' if depth < 0 => return at,
            '}' if depth == 0 && !is_value && !is_use(&rest[..at]) => return end,
            ';' | ',' if depth == 0 => return end,
            _ => {}
        }
    }
    rest.len()
}

/// Whether the item, attributes left out, is a `use` declaration.
fn is_use(item: &str) -> bool {
    let mut lines = item.lines().map(str::trim).filter(|line| !line.starts_with("#["));
    lines.next().and_then(after_visibility).is_some_and(|line| line.starts_with("use "))
}
