//! Aligned columns for display.

use std::io::{self, Write};
use unicode_width::UnicodeWidthStr;

/// The alignment of a column.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

/// A table with one line of headings. Cells must be printable text of one line.
pub(crate) struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table with these columns.
    pub(crate) fn new(columns: &[(&'static str, Align)]) -> Table {
        Table { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a line; one cell for every column.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        debug_assert_eq!(N, self.columns.len(), "one cell for every column");
        self.rows.push(cells.into());
    }

    /// Prints headings and lines, two spaces between columns and none at the end of a line.
    pub(crate) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let headings = self.columns.iter().map(|(heading, _)| heading.to_string()).collect();
        let mut widths = vec![0; self.columns.len()];
        for row in std::iter::once(&headings).chain(&self.rows) {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.width().max(*width);
            }
        }
        for row in std::iter::once(&headings).chain(&self.rows) {
            let mut line = String::new();
            for ((cell, width), (_, align)) in row.iter().zip(&widths).zip(&self.columns) {
                let padding = " ".repeat(width - cell.width());
                match align {
                    Align::Left => line.extend([cell.as_str(), &padding]),
                    Align::Right => line.extend([padding.as_str(), cell]),
                }
                line.push_str("  ");
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Pairs of a label and its value, the values under each other.
pub(crate) fn print_pairs(out: &mut impl Write, pairs: &[(&str, String)]) -> io::Result<()> {
    let width = pairs.iter().map(|(label, _)| label.width()).max().unwrap_or(0);
    pairs.iter().try_for_each(|(label, value)| writeln!(out, "{label:width$}  {value}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_by_what_the_terminal_shows() {
        let mut table = Table::new(&[("NAME", Align::Left), ("SIZE", Align::Right), ("X", Align::Left)]);
        table.row(["\u{7cf8}\u{7cf8}\u{7cf8}".into(), "1 B".into(), "-".into()]);
        table.row(["a".into(), "20 MiB".into(), String::new()]);
        let mut text = Vec::new();
        table.print(&mut text).unwrap();
        let expected = "NAME      SIZE  X\n\u{7cf8}\u{7cf8}\u{7cf8}     1 B  -\na       20 MiB\n";
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }
}
