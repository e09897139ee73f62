//! The table that is printed.

/// One measured row.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// What was measured.
    pub(crate) what: &'static str,
    /// What it should be.
    pub(crate) budget: &'static str,
    /// What it is.
    pub(crate) measured: String,
    /// Whether that is within the budget; none where there is no budget.
    pub(crate) met: Option<bool>,
    /// The limits and peers of the same run.
    pub(crate) beside: String,
}

const HEAD: [&str; 5] = ["what", "budget", "measured", "", "beside it in the same run"];

/// Writes the lines as a Markdown table whose columns stand below each other.
pub(crate) fn markdown(lines: &[Line]) -> String {
    let verdict = |met: Option<bool>| met.map_or("", |met| if met { "met" } else { "MISSED" });
    let rows: Vec<[&str; 5]> =
        lines.iter().map(|line| [line.what, line.budget, &*line.measured, verdict(line.met), &*line.beside]).collect();
    let width = |column: usize| {
        let cells = std::iter::once(&HEAD).chain(&rows).filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or_default().max(3)
    };
    let widths: [usize; 5] = std::array::from_fn(width);
    let mut text = String::new();
    let mut write = |cells: [&str; 5]| {
        for (cell, width) in cells.iter().zip(widths) {
            text.push_str(&format!("| {cell:width$} "));
        }
        text.push_str("|\n");
    };
    write(HEAD);
    let rules = widths.map(|width| "-".repeat(width));
    write(std::array::from_fn(|column| rules.get(column).map_or("", String::as_str)));
    rows.into_iter().for_each(write);
    text
}
