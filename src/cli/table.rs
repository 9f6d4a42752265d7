//! Aligned columns for people.

use super::output::{Colour, Paint, harmless};

/// A column.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    pub(super) title: &'static str,
    pub(super) align: Align,
}

/// The side on which values of a column stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}

/// A value in a table.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    text: String,
    colour: Option<Colour>,
}

impl Cell {
    pub(super) fn coloured(colour: Colour, text: &str) -> Self {
        Self {
            colour: Some(colour),
            ..Self::from(text)
        }
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self {
            text: harmless(text).into_owned(),
            colour: None,
        }
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}

/// Renders a table with a line of titles. The last column is not padded, so that long URLs wrap as the terminal likes.
pub(super) fn render<const N: usize>(
    columns: [Column; N],
    rows: &[[Cell; N]],
    paint: Paint,
) -> String {
    let titles = columns.map(|column| Cell::coloured(Colour::Dim, column.title));
    let lines = || std::iter::once(&titles).chain(rows);
    let mut widths = [0; N];
    for line in lines() {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = cell.width().max(*width);
        }
    }
    let mut text = String::new();
    for line in lines() {
        for (index, cell) in line.iter().enumerate() {
            let padding = " ".repeat(widths[index] - cell.width());
            let shown = match cell.colour {
                Some(colour) => paint.paint(colour, &cell.text),
                None => cell.text.clone(),
            };
            let last = index + 1 == N;
            match columns[index].align {
                Align::Right => text.extend([padding.as_str(), &shown]),
                Align::Left if last => text.push_str(&shown),
                Align::Left => text.extend([shown.as_str(), &padding]),
            }
            text.push_str(if last { "\n" } else { "  " });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Align, Cell, Column, render};
    use crate::cli::output::Paint;

    #[test]
    fn columns_are_aligned_and_the_last_is_not_padded() {
        let columns = [
            ("NAME", Align::Left),
            ("SIZE", Align::Right),
            ("URL", Align::Left),
        ]
        .map(|(title, align)| Column { title, align });
        let rows = [
            ["a", "1.5 KiB", "http://a/"],
            ["näme\n", "9 B", "http://b/long"],
        ]
        .map(|row| row.map(Cell::from));
        let expected = "\
NAME          SIZE  URL
a          1.5 KiB  http://a/
näme\\u{a}      9 B  http://b/long
";
        assert_eq!(render(columns, &rows, Paint::none()), expected);
    }
}
