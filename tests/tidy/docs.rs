//! The documentation of the public items: lists what a user of the library can name, with its documentation, and finds what that
//! lacks. It follows `pub use` and leaves out `#[doc(hidden)]`. It reads text that rustfmt has laid out, and uses the standard
//! library only.

use std::collections::{BTreeMap, BTreeSet};

use crate::graph::{Graph, STEPS_MAX};
use crate::source::{Source, Used};

/// The modules that have a page of their own in the documentation, beside the root.
pub const PAGES: [&str; 8] =
    ["config", "error", "metrics", "sink", "source", "stream", "testing", "time"];

/// A type, trait, function or constant that a user can name, or a method of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The page from which the name is taken first: the root, or one of [`PAGES`].
    pub page: String,
    /// `Type`, `function`, or `Type::method`.
    pub name: String,
    /// The file and the line.
    pub place: String,
    kind: Kind,
    /// The declaration without its body.
    signature: String,
    /// The public fields of a structure, the variants of an enumeration.
    members: Vec<String>,
    /// The lines of its documentation, without their slashes.
    docs: String,
}

impl Item {
    /// What a program may rely on: the declaration, and its members, a line each.
    pub fn promise(&self) -> impl Iterator<Item = String> {
        let signature = self.signature.trim_end_matches(['{', ';', ' ']);
        let whole = format!("{}: {}: {signature}", self.page, self.name);
        let member = |member: &String| format!("{}: {}: {member}", self.page, self.name);
        std::iter::once(whole).chain(self.members.iter().map(member))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A type, a trait or a constant.
    Plain,
    /// A function or an inherent method: it has an example.
    Function,
    /// A method that an implementation of its trait has to write.
    Required,
    /// A method with a body in its trait.
    Provided,
}

/// A module and a name in it.
type Name = (Vec<String>, String);

/// Everything of `graph` that a user can name.
pub fn items(graph: &Graph) -> Vec<Item> {
    let names = names(graph);
    let mut found = Vec::new();
    for (module, source) in graph.files() {
        let uses = source.uses();
        let page_of = |name: &str| {
            let own = (module.clone(), name.to_owned());
            names.get(&own).cloned().or_else(|| {
                let used = uses.iter().find(|used| used.name.as_deref() == Some(name))?;
                let home = graph.resolve(module, &uses, &used.path, STEPS_MAX)?;
                names.get(&(home, used.path.last()?.clone())).cloned()
            })
        };
        found.extend(items_of(source, page_of));
    }
    found
}

/// The names that the pages define or hand on, each with its page: the root's own are those that no other page has.
fn names(graph: &Graph) -> BTreeMap<Name, String> {
    let mut found: BTreeMap<Name, String> = BTreeMap::new();
    for (module, source) in graph.files() {
        let Some(page) = page(graph, module) else { continue };
        let own = declared(source, 0).filter(|declared| !declared.hidden);
        let mut all: Vec<Name> =
            own.map(|declared| (module.clone(), declared.name.to_owned())).collect();
        let uses = source.uses();
        for used in uses.iter().filter(|used| used.public && is_shown(source, used)) {
            let home = graph.resolve(module, &uses, &used.path, STEPS_MAX);
            all.extend(home.zip(used.path.last().cloned()));
        }
        for name in all {
            let known = found.entry(name).or_default();
            if known.is_empty() {
                known.clone_from(&page);
            }
        }
    }
    found
}

/// The page on which `module` is read; `None` if users cannot see it.
fn page(graph: &Graph, module: &[String]) -> Option<String> {
    match module.first() {
        None => Some(String::new()),
        Some(first) => {
            let seen = PAGES.contains(&first.as_str()) && graph.is_public(module);
            (seen && !is_hidden(graph, module)).then(|| first.clone())
        }
    }
}

/// True if `#[doc(hidden)]` stands above the declaration of `module`, or of one that it lies in.
fn is_hidden(graph: &Graph, module: &[String]) -> bool {
    (0..module.len()).any(|depth| {
        let declaration = format!("pub mod {};", module[depth]);
        let parents = graph.files().filter(|(parent, _)| parent[..] == module[..depth]);
        parents.map(|(_, source)| source.text.lines().collect::<Vec<_>>()).any(|lines| {
            let at = lines.iter().position(|line| *line == declaration);
            at.is_some_and(|at| above(&lines, at).hidden)
        })
    })
}

/// True if the declaration that has `used` stands in the module itself, without `#[doc(hidden)]`.
fn is_shown(source: &Source, used: &Used) -> bool {
    let lines: Vec<&str> = source.text.lines().collect();
    let mut before = lines[..used.line].iter();
    let start = before.rposition(|line| line.trim_start().starts_with("pub use "));
    start.is_some_and(|start| lines[start].starts_with("pub use ") && !above(&lines, start).hidden)
}

/// A `pub` item with its place in the file.
struct Declared<'a> {
    at: usize,
    word: &'a str,
    name: &'a str,
    hidden: bool,
}

/// The `pub` items of `source` at this indentation.
fn declared(source: &Source, indent: usize) -> impl Iterator<Item = Declared<'_>> {
    let lines: Vec<&str> = source.text.lines().collect();
    source.lines().filter_map(move |(line, code)| {
        let item = code
            .get(indent..)?
            .strip_prefix("pub ")
            .filter(|_| code[..indent].trim().is_empty())?;
        let (word, name) = item_name(item)?;
        Some(Declared { at: line - 1, word, name, hidden: above(&lines, line - 1).hidden })
    })
}

/// The keyword and the name of an item.
fn item_name(item: &str) -> Option<(&str, &str)> {
    let item = ["const fn ", "unsafe fn "].iter().fold(item, |item, start| {
        item.strip_prefix(start).map_or(item, |_| &item[start.len() - "fn ".len()..])
    });
    let (word, rest) = item.split_once(' ')?;
    let known = ["struct", "enum", "trait", "type", "const", "static", "union", "fn"];
    let name = rest.split(|c: char| !c.is_alphanumeric() && c != '_').next()?;
    known.contains(&word).then_some((word, name))
}

#[derive(Default)]
struct Above {
    docs: String,
    hidden: bool,
}

/// The documentation and the attributes above the line with index `at`.
fn above(lines: &[&str], at: usize) -> Above {
    let mut start = at;
    while start > 0 {
        let line = lines[start - 1].trim();
        if line.starts_with("//") && !line.starts_with("//!") || line.starts_with("#[") {
            start -= 1;
        } else if line.ends_with(")]") || line == "]" {
            let open = (0..start).rev().find(|at| lines[*at].trim_start().starts_with("#["));
            let Some(open) = open else { break };
            start = open;
        } else {
            break;
        }
    }
    let mut found = Above::default();
    for line in lines[start..at].iter().map(|line| line.trim()) {
        if let Some(text) = line.strip_prefix("///") {
            found.docs.push_str(text.strip_prefix(' ').unwrap_or(text));
            found.docs.push('\n');
        }
        found.hidden |= line.starts_with("#[doc(hidden)]");
    }
    found
}

/// The items of one file that users can name. `page_of` knows the page of each type that they can.
fn items_of(source: &Source, page_of: impl Fn(&str) -> Option<String>) -> Vec<Item> {
    let lines: Vec<&str> = source.text.lines().collect();
    let mut found = Vec::new();
    let mut add = |page: &str, name: String, at: usize, kind: Kind| {
        let docs = above(&lines, at).docs;
        let place = format!("{}:{}", source.path, at + 1);
        let signature = signature(&source.code, at);
        let members = members(source, at);
        found.push(Item { page: page.to_owned(), name, place, kind, signature, members, docs });
    };
    for own in declared(source, 0).filter(|own| !own.hidden) {
        let Some(page) = page_of(own.name) else { continue };
        let kind = if own.word == "fn" { Kind::Function } else { Kind::Plain };
        add(&page, own.name.to_owned(), own.at, kind);
        if own.word == "trait" {
            for (at, name) in methods_of_trait(source, own.at) {
                let ends = signature(&source.code, at).ends_with(';');
                let kind = if ends { Kind::Required } else { Kind::Provided };
                add(&page, format!("{}::{name}", own.name), at, kind);
            }
        }
    }
    let impls = impls(source);
    let methods: Vec<Declared<'_>> =
        if impls.is_empty() { Vec::new() } else { declared(source, 4).collect() };
    for (first, last, of) in impls {
        let Some(page) = page_of(&of) else { continue };
        let inside = |own: &&Declared<'_>| (first..last).contains(&own.at) && !own.hidden;
        for own in methods.iter().filter(inside) {
            let kind = if own.word == "fn" { Kind::Function } else { Kind::Plain };
            add(&page, format!("{of}::{}", own.name), own.at, kind);
        }
    }
    found
}

/// The public fields of the structure, or the variants of the enumeration, that is declared at index `at`.
fn members(source: &Source, at: usize) -> Vec<String> {
    let code: Vec<&str> = source.code.lines().collect();
    let Some((word, _)) = code[at].strip_prefix("pub ").and_then(item_name) else {
        return Vec::new();
    };
    if !code[at].ends_with('{') || !["struct", "enum"].contains(&word) {
        return Vec::new();
    }
    let end = (at..code.len()).find(|at| code[*at].starts_with('}')).unwrap_or(at);
    let is_enum = word == "enum";
    let member = |line: &&str| {
        let own = line.strip_prefix("    ").filter(|line| !line.starts_with([' ', '}', '#']))?;
        let own = if is_enum { Some(own) } else { own.strip_prefix("pub ") }?;
        Some(own.trim_end_matches(['{', ',', ' ']).to_owned())
    };
    code[at + 1..end].iter().filter_map(member).filter(|member| !member.is_empty()).collect()
}

/// The methods of the trait that is declared at index `at`.
fn methods_of_trait(source: &Source, at: usize) -> Vec<(usize, String)> {
    let lines: Vec<&str> = source.text.lines().collect();
    let code: Vec<&str> = source.code.lines().collect();
    let end = (at..code.len()).find(|at| code[*at].starts_with('}')).unwrap_or(at);
    let method = |at: usize| {
        let name = item_name(code[at].strip_prefix("    fn ").map(|_| &code[at][4..])?)?.1;
        (!above(&lines, at).hidden).then(|| (at, name.to_owned()))
    };
    (at..end).filter_map(method).collect()
}

/// The inherent implementations of a file: first line, last line, and the name of the type.
fn impls(source: &Source) -> Vec<(usize, usize, String)> {
    let lines: Vec<&str> = source.text.lines().collect();
    let code: Vec<&str> = source.code.lines().collect();
    let mut found = Vec::new();
    for at in 0..code.len() {
        let starts = code[at].starts_with("impl ") || code[at].starts_with("impl<");
        if !starts || above(&lines, at).hidden {
            continue;
        }
        let end = (at..code.len()).find(|at| code[*at].starts_with('}')).unwrap_or(at);
        let head = signature(&source.code, at);
        let rest = after_generics(head.strip_prefix("impl").unwrap_or_default()).trim_start();
        let of_trait = rest.split(" where ").next().is_some_and(|rest| rest.contains(" for "));
        let name = rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or("");
        if !of_trait && !name.is_empty() {
            found.push((at, end, name.to_owned()));
        }
    }
    found
}

/// The declaration that begins at index `at` of the lines of `code`, in one line, up to its body or its semicolon.
fn signature(code: &str, at: usize) -> String {
    let mut found = String::new();
    for line in code.lines().skip(at) {
        let end = line.find(['{', ';']);
        found.push_str(line[..end.map_or(line.len(), |end| end + 1)].trim());
        found.push(' ');
        if end.is_some() {
            break;
        }
    }
    found.trim_end().to_owned()
}

/// What follows the generics that `text` may begin with.
fn after_generics(text: &str) -> &str {
    if !text.starts_with('<') {
        return text;
    }
    let (mut depth, mut before) = (0, ' ');
    for (at, c) in text.char_indices() {
        match c {
            '<' => depth += 1,
            '>' if before != '-' && before != '=' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return &text[at + 1..];
        }
        before = c;
    }
    ""
}

/// The result type of a function.
fn result(signature: &str) -> Option<&str> {
    let (_, rest) = signature.split_once("fn ")?;
    let rest = after_generics(rest.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_'));
    let mut depth = 0;
    for (at, c) in rest.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return rest[at + 1..].trim_start().strip_prefix("-> ");
        }
    }
    None
}

impl Item {
    /// True if it may fail.
    fn may_fail(&self) -> bool {
        let result = result(&self.signature).unwrap_or_default();
        let name = result.split(['<', ' ']).next().unwrap_or_default();
        name.rsplit("::").next() == Some("Result")
    }

    /// True if it only reads a figure: it takes nothing but `&self`, cannot fail and returns no stream.
    fn only_reads(&self) -> bool {
        let Some(result) = result(&self.signature) else { return false };
        let makes = ["DStream", "Collected", "Self"].iter().any(|made| result.contains(made));
        self.signature.contains("(&self)") && !self.may_fail() && !makes
    }

    /// True if the documentation of the item, or that of its type, has the example that it needs.
    fn is_shown(&self, type_docs: &str) -> bool {
        let name = self.name.rsplit("::").next().unwrap_or_default();
        let mut all = examples(&self.docs).chain(examples(type_docs));
        match self.kind {
            Kind::Plain | Kind::Provided => true,
            Kind::Function if self.only_reads() => all.next().is_some(),
            Kind::Function => all.any(|code| calls(code, name)),
            Kind::Required => all.any(|code| code.contains(&format!("fn {name}("))),
        }
    }
}

/// The rule, with what each of `items` lacks: every item has a text; every function that may fail has `# Errors`; every function
/// is called in an example that runs, in its own documentation or in that of its type, and every method that a trait asks for is
/// written there. For a method that only reads a figure it is enough that its type has an example.
pub fn lacks(items: &[Item]) -> Vec<(&Item, &'static str)> {
    let docs: BTreeMap<(&str, &str), &str> =
        items.iter().map(|item| ((&*item.page, &*item.name), &*item.docs)).collect();
    let mut found = Vec::new();
    for item in items {
        let of = item.name.split_once("::").and_then(|(of, _)| docs.get(&(&*item.page, of)));
        if item.docs.trim().is_empty() {
            found.push((item, "no documentation"));
        }
        if item.may_fail() && !item.docs.lines().any(|line| line == "# Errors") {
            found.push((item, "returns a `Result` and has no `# Errors`"));
        }
        if !item.is_shown(of.unwrap_or(&"")) {
            found.push((item, "no example that runs shows it"));
        }
    }
    found
}

/// The blocks of `docs` that run as tests.
fn examples(docs: &str) -> impl Iterator<Item = &str> {
    let parts = docs.split("```").skip(1).step_by(2);
    parts.filter_map(|part| {
        let (tags, code) = part.split_once('\n')?;
        let runs = |tag: &str| ["", "rust", "should_panic"].contains(&tag.trim());
        tags.split(',').all(runs).then_some(code)
    })
}

/// True if `code` calls something called `name`, or passes it on.
fn calls(code: &str, name: &str) -> bool {
    let in_name = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(name).any(|(at, _)| {
        let (before, after) = (&code[..at], &code[at + name.len()..]);
        let path = before.ends_with('.') || before.ends_with("::");
        let call = after.starts_with('(') || after.starts_with("::<");
        !before.ends_with(in_name) && !after.starts_with(in_name) && (path || call)
    })
}

/// The pages on which `items` stand.
pub fn pages(items: &[Item]) -> BTreeSet<&str> {
    items.iter().map(|item| item.page.as_str()).collect()
}

/// A library of two files, in which `check` finds what `expected` says, as `item: lack` in the order of the text.
pub fn the_rule_finds_what_lacks() {
    let check = |root: &str, stream: &str, expected: &[&str]| {
        let root = format!("pub mod stream;\n{root}");
        let error = Source::new("src/error.rs", "pub struct A;\npub struct B;");
        let sources =
            vec![Source::new("src/lib.rs", &root), Source::new("src/stream/mod.rs", stream), error];
        let graph = Graph::of(sources, "src/lib.rs", Some("me"));
        let items = items(&graph);
        let found = lacks(&items).into_iter().map(|(item, lack)| {
            let first =
                lack.split(' ').find(|word| *word == "documentation" || *word == "`Result`");
            format!("{}: {}", item.name, first.unwrap_or("example"))
        });
        assert_eq!(found.collect::<Vec<_>>(), expected, "{root}{stream}");
    };
    check("", "/// A.\n// Why.\n#[inline]\npub const A: u8 = 1;", &[]);
    let example = |call: &str| format!("/// A.\n///\n/// ```\n/// {call};\n/// ```\n");
    check("", "pub struct A;", &["A: documentation"]);
    check("", "#[doc(hidden)]\npub struct A;\nstruct B;\npub(crate) fn c() {}", &[]);
    check(
        "",
        "/// A.\n#[derive(Debug)]\n#[expect(\n    a,\n    b\n)]\npub fn a() {}",
        &["a: example"],
    );
    check("", &format!("{}pub fn a() {{}}", example("a()")), &[]);
    check("", &format!("{}pub fn a() -> Result<()> {{}}", example("a()")), &["a: `Result`"]);
    check("", &format!("{}pub fn a(f: impl Fn() -> Result<()>) {{}}", example("a()")), &[]);
    check("", &format!("{}pub fn a() {{}}", example("ba()")), &["a: example"]);
    check("", "/// ```no_run\n/// a()\n/// ```\npub fn a() {}", &["a: example"]);
    let of = |docs: &str, methods: &str| {
        format!("{docs}pub struct A;\n\nimpl<T: Fn() -> T> A<T> {{\n{methods}\n}}\n")
    };
    let method = "    /// B.\n    pub fn b(&mut self) {}";
    check("", &of("/// A.\n", method), &["A::b: example"]);
    check("", &of(&example("A.b()"), method), &[]);
    let reader = "    /// B.\n    pub fn b(&self) -> u8 {}";
    check("", &of("/// A.\n", reader), &["A::b: example"]);
    check("", &of(&example("A"), reader), &[]);
    check("", &of(&example("A"), &reader.replace("u8", "DStream<u8>")), &["A::b: example"]);
    check("", &of("/// A.\n", "    fn b() {}\n    pub(crate) fn c() {}"), &[]);
    let written =
        "/// A.\npub trait A {\n    /// B.\n    fn b(&self);\n    /// C.\n    fn c(&self) {}\n}\n";
    check("", written, &["A::b: example"]);
    check("", &format!("{}{}", example("fn b(&self) {}"), &written[7..]), &[]);
    let private = "mod inner {\n    pub struct A;\n}\npub fn a() {}\n";
    check(&format!("#[doc(hidden)]\n{private}"), "", &["a: documentation", "a: example"]);
    check("#[doc(hidden)]\npub mod error;\npub use error::B;", "", &["B: documentation"]);
    check("#[doc(hidden)]\npub mod internals {\n    pub use crate::stream::a;\n}", "", &[]);
}
