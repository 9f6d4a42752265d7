//! Asking before something is destroyed.

use std::io::{self, BufRead, IsTerminal, Write};

use super::{CommandError, output::complain};

/// Whether a destructive command was confirmed on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Confirmation {
    /// `--yes`.
    Given,
    /// Ask, if there is somebody to ask.
    Ask,
}

/// Returns when the plan, a question, was agreed to.
pub(super) fn confirm(plan: &str, confirmation: Confirmation) -> Result<(), CommandError> {
    if confirmation == Confirmation::Given {
        return Ok(());
    }
    let stdin = io::stdin();
    if !stdin.is_terminal() || !io::stderr().is_terminal() {
        complain(plan);
        return Err(CommandError::CannotAsk);
    }
    let _ = write!(io::stderr(), "{plan} [y/N] ");
    let mut answer = String::new();
    // An unreadable answer is not a yes.
    let _ = stdin.lock().read_line(&mut answer);
    agrees(&answer)
        .then_some(())
        .ok_or(CommandError::NotConfirmed)
}

fn agrees(answer: &str) -> bool {
    let answer = answer.trim();
    answer.eq_ignore_ascii_case("y") || answer.eq_ignore_ascii_case("yes")
}

#[cfg(test)]
mod tests {
    use super::agrees;

    #[test]
    fn only_a_yes_is_a_yes() {
        for (answer, expected) in [
            ("y\n", true),
            ("Yes\r\n", true),
            ("", false),
            ("\n", false),
            ("n\n", false),
            ("yep", false),
        ] {
            assert_eq!(agrees(answer), expected, "{answer:?}");
        }
    }
}
