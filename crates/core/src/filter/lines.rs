//! Lists as people write them.

/// Splits a text into its entries, each with the number of its line: entries are separated by lines or commas, and a comment begins with `#`.
pub fn entries(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = (1..).zip(text.lines());
    let without_comments = lines.map(|(number, line)| (number, line.split_once('#').map_or(line, |(line, _)| line)));
    let split = without_comments.flat_map(|(number, line)| line.split(',').map(move |entry| (number, entry.trim())));
    split.filter(|(_, entry)| !entry.is_empty())
}
