//! A table of text with columns that are as wide as their contents.

/// Alignment of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}

/// Headers, and rows with the same number of cells.
#[derive(Debug)]
pub(super) struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(columns: &[(&'static str, Align)]) -> Table {
        Table {
            columns: columns.to_vec(),
            rows: vec![],
        }
    }

    /// Adds a row. Unknown values are shown as `-`.
    pub fn add(&mut self, cells: Vec<Option<String>>) {
        let shown = cells
            .into_iter()
            .map(|cell| cell.unwrap_or_else(|| "-".to_owned()));
        self.rows.push(shown.collect());
    }

    /// Draws the lines. `paint` gets the column number and a cell with its blanks, and may add characters without
    /// width.
    pub fn draw(&self, paint: impl Fn(usize, &str) -> String) -> String {
        let widths: Vec<usize> = (0..self.columns.len()).map(|at| self.width(at)).collect();
        let heads: Vec<String> = self
            .columns
            .iter()
            .map(|(head, _)| (*head).to_owned())
            .collect();
        let mut out = String::new();
        for (number, row) in std::iter::once(&heads).chain(&self.rows).enumerate() {
            let cells = row.iter().zip(&widths).zip(&self.columns).enumerate();
            let mut line = String::new();
            for (at, ((cell, &width), (_, align))) in cells {
                let padded = match align {
                    Align::Left => format!("{cell:<width$}"),
                    Align::Right => format!("{cell:>width$}"),
                };
                line += if at > 0 { "  " } else { "" };
                line += &if number > 0 {
                    paint(at, &padded)
                } else {
                    padded
                };
            }
            out += line.trim_end();
            out += "\n";
        }
        out
    }

    fn width(&self, at: usize) -> usize {
        let head = self.columns[at].0.chars().count();
        let cells = self.rows.iter().filter_map(|row| row.get(at));
        cells
            .map(|cell| cell.chars().count())
            .fold(head, usize::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_have_to_be() {
        let mut table = Table::new(&[
            ("NAME", Align::Left),
            ("N", Align::Right),
            ("X", Align::Left),
        ]);
        let some = |text: &str| Some(text.to_owned());
        table.add(vec![some("näme5"), some("100"), None]);
        table.add(vec![some("b"), some("1"), some("y")]);
        assert_eq!(
            table.draw(|_, text| text.to_owned()),
            "NAME     N  X\nnäme5  100  -\nb        1  y\n"
        );
    }
}
