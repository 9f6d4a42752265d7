//! What is wrong, where, and what to write instead: collected, then shown together.

use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use super::tree::{Origin, Source, SourceName};

/// One mistake, or one thing that looks like one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) severity: Severity,
    pub(super) origin: Origin,
    title: String,
    label: String,
    help: Vec<String>,
}

/// Whether a start is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Severity {
    Error,
    Warning,
}

impl Problem {
    pub(super) fn error(origin: Origin, title: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            origin,
            title: title.into(),
            label: String::new(),
            help: Vec::new(),
        }
    }

    pub(super) fn warning(origin: Origin, title: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(origin, title)
        }
    }

    /// Words beside the caret.
    #[must_use]
    pub(super) fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// What to do about it.
    #[must_use]
    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help.push(help.into());
        self
    }

    /// In the order of the sources, then from top to bottom.
    pub(super) fn position(&self) -> (usize, usize) {
        match self.origin {
            Origin::At { source, start, .. } => (source, start),
            Origin::Default | Origin::Refused => (usize::MAX, 0),
        }
    }

    /// Whether it says of the same place what `first` said.
    pub(super) fn repeats(&self, first: &Self) -> bool {
        matches!(self.origin, Origin::At { .. })
            && (self.origin, &self.label) == (first.origin, &first.label)
    }

    /// The message with the line it is about and a caret under the culprit.
    pub(super) fn render(&self, sources: &[Source]) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut group = Group::with_title(level.primary_title(printable(&self.title)));
        if let Origin::At { source, start, end } = self.origin {
            group = group.element(self.snippet(&sources[source], start..end));
        }
        for help in &self.help {
            group = group.element(Level::HELP.message(printable(help)));
        }
        Renderer::plain().render(&[group])
    }

    fn snippet<'a>(
        &self,
        source: &'a Source,
        span: Range<usize>,
    ) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
        let path = match &source.name {
            SourceName::File(path) => path.display().to_string(),
            SourceName::Variable(_) => "environment".to_owned(),
            SourceName::Flag(_) => "command line".to_owned(),
        };
        Snippet::source(&source.text)
            .path(printable(&path))
            .annotation(
                AnnotationKind::Primary
                    .span(on_characters(&source.text, span))
                    .label(printable(&self.label)),
            )
    }
}

/// The span cut to the text and widened to whole characters, so that rendering cannot fail.
fn on_characters(text: &str, span: Range<usize>) -> Range<usize> {
    let mut start = span.start.min(text.len());
    let mut end = span.end.clamp(start, text.len());
    while !text.is_char_boundary(start) {
        start -= 1;
    }
    while !text.is_char_boundary(end) {
        end += 1;
    }
    start..end
}

/// Control characters of a hostile file never reach the terminal.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() && c != '\n' {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        })
        .collect()
}

/// The candidate that was most likely meant, if any is near.
pub(super) fn nearest<'a>(
    written: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let written = written.to_ascii_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&written, candidate), candidate))
        // A third of the letters wrong is a slip, more is another word.
        .filter(|(distance, candidate)| *distance <= candidate.len().max(3) / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// `a`, `b` and `c`.
pub(super) fn list(names: &[&str]) -> String {
    names
        .iter()
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ")
}
