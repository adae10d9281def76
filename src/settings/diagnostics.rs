//! The problems of a pipeline with their places, as people see them: `FILE:LINE:COLUMN`, the line with a caret, a hint.
//!
//! Every problem of a file is gathered before any is shown. Used on the main thread only. Knows positions and words,
//! not what the keys mean.

use std::cell::RefCell;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use crate::error::Error;

/// The most problems that are kept and shown of one file.
const PROBLEMS_MAX: usize = 50;

/// The place of a key or a value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum At {
    /// Nowhere in particular: something is missing from all of it.
    Whole,
    /// By the option of this number on the command line.
    Flag(usize),
    /// At these bytes of the file.
    File(usize, usize),
}

impl At {
    pub(crate) fn file(span: Range<usize>) -> Self {
        At::File(span.start, span.end)
    }
}

/// One thing that is wrong.
#[derive(Debug)]
pub(crate) struct Problem {
    at: At,
    title: String,
    label: String,
    also: Option<(At, &'static str)>,
    hint: Option<String>,
    warning: bool,
}

impl Problem {
    pub(crate) fn new(at: &At, title: impl Into<String>) -> Self {
        let title = title.into();
        Problem {
            at: at.clone(),
            title,
            label: String::new(),
            also: None,
            hint: None,
            warning: false,
        }
    }

    /// Something that is probably not meant, but does no harm.
    pub(crate) fn warning(at: &At, title: impl Into<String>) -> Self {
        Problem { warning: true, ..Problem::new(at, title) }
    }

    /// A few words behind the caret.
    pub(crate) fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// A second place that has to do with it.
    pub(crate) fn also(mut self, at: &At, label: &'static str) -> Self {
        self.also = Some((at.clone(), label));
        self
    }

    /// The remedy.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// The problems found so far.
#[derive(Default)]
pub(crate) struct Problems {
    found: RefCell<Vec<Problem>>,
}

impl Problems {
    pub(crate) fn add(&self, problem: Problem) {
        // Counted apart, so that warnings never crowd out an error.
        let mut found = self.found.borrow_mut();
        if found.iter().filter(|other| other.warning == problem.warning).count() < PROBLEMS_MAX {
            found.push(problem);
        }
    }

    /// True if no more errors are kept: looking for more would be in vain.
    pub(crate) fn is_full(&self) -> bool {
        self.errors() >= PROBLEMS_MAX
    }

    /// The number of errors so far.
    pub(crate) fn errors(&self) -> usize {
        self.found.borrow().iter().filter(|problem| !problem.warning).count()
    }

    /// All good: the warnings, rendered. Otherwise every problem in one error, in the order of the file.
    pub(crate) fn finish(self, texts: &Texts<'_>) -> Result<Vec<String>, Error> {
        let errors = self.errors();
        let mut found = self.found.into_inner();
        // Beside an error a warning is mostly its echo: a misspelt name leaves the right one unused.
        found.retain(|problem| problem.warning == (errors == 0));
        found.sort_by(|a, b| a.at.cmp(&b.at));
        let rendered: Vec<_> = found.iter().map(|problem| texts.render(problem)).collect();
        if errors == 0 {
            return Ok(rendered);
        }
        let text = rendered.join("\n\n");
        let typed = |problem: &Problem| matches!(problem.at, At::Flag(_));
        let only_flags = texts.origin.is_none() || found.iter().all(typed);
        Err(if only_flags { Error::Usage(text) } else { Error::Config(text) })
    }
}

/// The texts that were read: the file, and the options of the command line.
#[derive(Debug, Default)]
pub(crate) struct Texts<'a> {
    /// The name of the file, if there is one.
    pub(crate) origin: Option<&'a str>,
    /// The contents of the file.
    pub(crate) text: &'a str,
    /// The options as they were typed.
    pub(crate) flags: Vec<String>,
}

impl Texts<'_> {
    fn render(&self, problem: &Problem) -> String {
        let level = if problem.warning { Level::WARNING } else { Level::ERROR };
        let mut group = Group::with_title(level.primary_title(&problem.title));
        match (&problem.at, self.origin) {
            (At::Flag(index), _) => return self.render_flag(problem, *index),
            (_, None) => {}
            (At::Whole, Some(origin)) => group = group.element(self.snippet(origin, problem, 0..0)),
            (At::File(start, end), Some(origin)) => {
                group = group.element(self.snippet(origin, problem, *start..*end));
            }
        }
        if let Some(hint) = &problem.hint {
            group = group.element(Level::HELP.message(hint));
        }
        Renderer::plain().render(&[group]).to_string()
    }

    /// The same look for an option of the command line, which has no lines.
    fn render_flag(&self, problem: &Problem, index: usize) -> String {
        let level = if problem.warning { "warning" } else { "error" };
        let flag = self.flags.get(index).map_or("", String::as_str);
        let mut text = format!("{level}: {}", problem.title);
        if !problem.label.is_empty() {
            text.push_str(&format!(": {}", problem.label));
        }
        text.push_str(&format!("\n --> command line: {flag}"));
        if let Some(hint) = &problem.hint {
            text.push_str(&format!("\n  = help: {hint}"));
        }
        text
    }

    fn snippet<'s>(
        &'s self,
        origin: &'s str,
        problem: &'s Problem,
        span: Range<usize>,
    ) -> Snippet<'s, annotate_snippets::Annotation<'s>> {
        let primary = AnnotationKind::Primary.span(self.clamp(span)).label(problem.label.as_str());
        let snippet = Snippet::source(self.text).path(origin).annotation(primary);
        match &problem.also {
            Some((At::File(start, end), label)) => {
                let span = self.clamp(*start..*end);
                snippet.annotation(AnnotationKind::Context.span(span).label(*label))
            }
            _ => snippet,
        }
    }

    /// A span inside the text, at the borders of characters, and on one line.
    fn clamp(&self, span: Range<usize>) -> Range<usize> {
        let start = self.text.floor_char_boundary(span.start.min(self.text.len()));
        let end = self.text.ceil_char_boundary(span.end.clamp(start, self.text.len()));
        let line = self.text[start..end].find('\n').map_or(end, |newline| start + newline);
        start..line
    }
}
