//! Which file needs which: module tree, names followed through `use` to the file that defines them, circles. It uses the
//! standard library only.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{Source, Used, sources};

/// How many re-exports a name is followed through.
pub const STEPS_MAX: usize = 16;

/// A crate root and everything that it declares. Test files are known, and not part of it.
pub struct Graph {
    /// Files of the product by module, such as `["sink", "file"]`; the root has none.
    pub modules: BTreeMap<Vec<String>, Vec<usize>>,
    pub sources: Vec<Source>,
    /// Every need of a file for another one. A `pub use` only hands a name on: it is none. Nor is what a file takes from a module
    /// that it lies in.
    pub edges: BTreeSet<Edge>,
    /// What only tests compile.
    pub tests: BTreeSet<String>,
    /// Modules that other crates can name.
    public: BTreeSet<Vec<String>>,
    /// The `use` declarations of each source.
    uses: Vec<Vec<Used>>,
    /// The name under which other crates know this one.
    library: Option<&'static str>,
}

/// One file needs another because of a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Edge {
    pub from: String,
    pub to: String,
    pub line: usize,
    pub name: String,
}

impl Graph {
    /// Follows the `mod` declarations from `root`, a file below `folder`.
    pub fn read(folder: &str, root: &str, library: Option<&'static str>) -> Graph {
        Graph::of(sources(folder), root, library)
    }

    pub fn of(all: Vec<Source>, root: &str, library: Option<&'static str>) -> Graph {
        let place = |path: &str| all.iter().position(|source| source.path == path);
        let mut modules: BTreeMap<Vec<String>, Vec<usize>> = BTreeMap::new();
        let (mut tests, mut public) = (BTreeSet::new(), BTreeSet::new());
        let mut open = vec![(Vec::new(), root.to_owned(), false)];
        while let Some((module, path, in_test)) = open.pop() {
            let at = place(&path).unwrap_or_else(|| panic!("{path} is declared and not there"));
            if in_test {
                tests.insert(path);
            } else {
                modules.entry(module.clone()).or_default().push(at);
            }
            for declared in all[at].declared() {
                let inner = [module.clone(), vec![declared.name]].concat();
                if declared.public && (module.is_empty() || public.contains(&module)) {
                    public.insert(inner.clone());
                }
                open.push((inner, declared.file, in_test || declared.test_only));
            }
        }
        let uses = all.iter().map(Source::uses).collect();
        let mut graph =
            Graph { modules, sources: all, edges: BTreeSet::new(), tests, public, uses, library };
        graph.edges = graph.needs();
        graph
    }

    /// The files of the product with their modules.
    pub fn files(&self) -> impl Iterator<Item = (&Vec<String>, &Source)> {
        self.places().map(|(module, at)| (module, &self.sources[at]))
    }

    fn places(&self) -> impl Iterator<Item = (&Vec<String>, usize)> {
        self.modules.iter().flat_map(|(module, files)| files.iter().map(move |at| (module, *at)))
    }

    fn needs(&self) -> BTreeSet<Edge> {
        let mut found = BTreeSet::new();
        for (module, at) in self.places() {
            let (source, uses) = (&self.sources[at], &self.uses[at]);
            let private = uses.iter().filter(|used| !used.handed_on);
            let from_uses = private.map(|used| (used.line, used.path.clone()));
            for (line, path) in from_uses.chain(source.paths()) {
                let Some(target) = self.resolve(module, uses, &path, STEPS_MAX) else { continue };
                for file in &self.modules[&target] {
                    let to = self.sources[*file].path.clone();
                    let name = path.last().cloned().unwrap_or_default();
                    if !module.starts_with(&target) {
                        found.insert(Edge { from: source.path.clone(), to, line, name });
                    }
                }
            }
        }
        found
    }

    /// True if other crates can name `module`.
    pub fn is_public(&self, module: &[String]) -> bool {
        module.is_empty() || self.public.contains(module)
    }

    /// The module that defines what `path`, written in `module`, means. `None` for names of other crates.
    pub fn resolve(
        &self,
        module: &[String],
        uses: &[Used],
        path: &[String],
        steps: usize,
    ) -> Option<Vec<String>> {
        let steps = steps.checked_sub(1)?;
        let (first, rest) = path.split_first()?;
        let (mut here, mut rest) = match first.as_str() {
            "crate" => (Vec::new(), rest),
            "self" => (module.to_vec(), rest),
            "super" => (module[..module.len().checked_sub(1)?].to_vec(), rest),
            library if Some(library) == self.library => (Vec::new(), rest),
            name => {
                let child = [module, &[name.to_owned()]].concat();
                if self.modules.contains_key(&child) {
                    (child, rest)
                } else {
                    let known = uses.iter().find(|used| used.name.as_deref() == Some(name))?;
                    if known.path.first().map(String::as_str) == Some(name) && known.path.len() == 1
                    {
                        return None;
                    }
                    let whole = [&known.path[..], rest].concat();
                    return self.resolve(module, uses, &whole, steps);
                }
            }
        };
        while let Some((name, after)) = rest.split_first() {
            if name == "super" {
                here.pop()?;
                rest = after;
                continue;
            }
            let child = [&here[..], std::slice::from_ref(name)].concat();
            if self.modules.contains_key(&child) {
                (here, rest) = (child, after);
                continue;
            }
            return Some(self.handed_on(&here, name, after, steps).unwrap_or(here));
        }
        Some(here)
    }

    /// Where a name that `here` only hands on is defined.
    fn handed_on(
        &self,
        here: &[String],
        name: &str,
        after: &[String],
        steps: usize,
    ) -> Option<Vec<String>> {
        for file in self.modules.get(here)? {
            let uses = &self.uses[*file];
            if let Some(used) = uses.iter().find(|used| used.name.as_deref() == Some(name)) {
                let whole = [&used.path[..], after].concat();
                return self.resolve(here, uses, &whole, steps);
            }
            for used in uses.iter().filter(|used| used.name.is_none()) {
                let whole = [&used.path[..], &[name.to_owned()]].concat();
                let target = self.resolve(here, uses, &whole, steps);
                let defines = |target: &Vec<String>| {
                    self.modules[target].iter().any(|file| self.sources[*file].defines(name))
                };
                if target.as_ref().is_some_and(defines) {
                    return target;
                }
            }
        }
        None
    }
}

/// The groups of files that need each other in a loop, the largest first.
pub fn circles(edges: &BTreeSet<Edge>) -> Vec<BTreeSet<String>> {
    let mut next: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for edge in edges {
        next.entry(&edge.from).or_default().insert(&edge.to);
    }
    let reach = |from: &str| {
        let mut seen = BTreeSet::new();
        let mut open: Vec<&str> = next.get(from).into_iter().flatten().copied().collect();
        while let Some(file) = open.pop() {
            if seen.insert(file.to_owned()) {
                open.extend(next.get(file).into_iter().flatten());
            }
        }
        seen
    };
    let reached: BTreeMap<&str, BTreeSet<String>> =
        next.keys().map(|file| (*file, reach(file))).collect();
    let mut found = BTreeSet::new();
    for (file, others) in &reached {
        let back = |other: &&String| {
            reached.get(other.as_str()).is_some_and(|theirs| theirs.contains(*file))
        };
        let circle: BTreeSet<String> = others.iter().filter(back).cloned().collect();
        if circle.len() > 1 {
            found.insert(circle);
        }
    }
    let mut found: Vec<_> = found.into_iter().collect();
    found.sort_by_key(|circle| std::cmp::Reverse(circle.len()));
    found
}
