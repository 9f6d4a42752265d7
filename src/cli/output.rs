//! Writing to standard output and standard error, and what a terminal is shown: colours, and no control characters.

use std::{
    borrow::Cow,
    io::{self, IsTerminal, Write},
};

use serde_json::Value;

use super::CommandError;

/// Writes data to standard output. A reader that went away (`| head`) is no error.
///
/// # Errors
/// When standard output cannot be written for another reason.
pub(super) fn print(text: &str) -> Result<(), CommandError> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CommandError::Output(error)),
        _ => Ok(()),
    }
}

/// Writes a line of talk to standard error. Where that fails, there is nobody to tell.
pub fn complain(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Writes one JSON value on a line of its own.
pub(super) fn print_json(value: &Value) -> Result<(), CommandError> {
    print(&format!("{value}\n"))
}

/// A colour with a meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colour {
    /// As it should be.
    Good,
    /// Worth a look.
    Notable,
    /// Wrong.
    Bad,
    /// Less important than the rest.
    Dim,
}

/// Whether and how text is coloured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paint(bool);

impl Paint {
    /// Colours on a terminal, unless `NO_COLOR` is set.
    pub(super) fn for_stdout() -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self(io::stdout().is_terminal() && !unwanted)
    }

    /// No colours: for standard error, and for tests.
    pub(super) const fn none() -> Self {
        Self(false)
    }

    pub(super) fn paint(self, colour: Colour, text: &str) -> String {
        if !self.0 {
            return text.to_owned();
        }
        let code = match colour {
            Colour::Good => 32,
            Colour::Notable => 33,
            Colour::Bad => 31,
            Colour::Dim => 2,
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

/// Text of a client or an origin without what a terminal would obey: control characters and bidirectional overrides.
pub(super) fn harmless(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_harmful) {
        return Cow::Borrowed(text);
    }
    let escaped = text.chars().flat_map(|found| {
        let escaped = is_harmful(found).then(|| found.escape_unicode());
        let plain = (!is_harmful(found)).then_some(found);
        escaped.into_iter().flatten().chain(plain)
    });
    Cow::Owned(escaped.collect())
}

fn is_harmful(found: char) -> bool {
    found.is_control() || matches!(found, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::{Colour, Paint, harmless};

    #[test]
    fn a_terminal_obeys_nobody_but_us() {
        assert_eq!(harmless("/plain/ä"), "/plain/ä");
        assert_eq!(harmless("a\u{1b}[2Jb\n"), "a\\u{1b}[2Jb\\u{a}");
        assert_eq!(harmless("\u{202e}x"), "\\u{202e}x");
    }

    #[test]
    fn colour_is_only_where_it_is_wanted() {
        assert_eq!(Paint::none().paint(Colour::Bad, "x"), "x");
        assert_eq!(Paint(true).paint(Colour::Bad, "x"), "\u{1b}[31mx\u{1b}[0m");
    }
}
