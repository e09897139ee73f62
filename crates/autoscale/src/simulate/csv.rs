//! Reads arrivals from lines `seconds,events_per_second`.

use std::path::{Path, PathBuf};

use thiserror::Error;

use super::trace::{LagReport, Trace};

/// The longest trace, in seconds: 31 days.
const LONGEST: f64 = 31.0 * 86_400.0;

/// The fastest arrivals, in events a second.
const FASTEST: f64 = 10_000_000.0;

/// The largest file, in bytes.
const LARGEST: u64 = 64 << 20;

/// Why a file is no trace.
#[derive(Debug, Error)]
pub enum CsvError {
    /// It cannot be read.
    #[error("could not read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It is too large.
    #[error("{} is larger than 64 MiB", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// A line is wrong.
    #[error("line {line}, column {column}: {what}")]
    Line {
        /// Which, from 1.
        line: usize,
        /// The character at which the mistake begins, from 1.
        column: usize,
        /// What is wrong and what is wanted.
        what: String,
    },
    /// There are not enough lines.
    #[error(
        "a trace needs at least two lines `seconds,events_per_second`, such as 0,420 and 3600,420; the last line \
         marks the end"
    )]
    TooShort,
}

/// Reads a file.
pub(crate) fn read(path: &Path) -> Result<Trace, CsvError> {
    let failed = |source| CsvError::Read { path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(failed)?.len() > LARGEST {
        return Err(CsvError::TooLarge { path: path.to_owned() });
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    let name = path.file_stem().map_or_else(|| "csv".to_owned(), |name| name.to_string_lossy().into_owned());
    parse(&text, name)
}

fn parse(text: &str, name: String) -> Result<Trace, CsvError> {
    let mut points: Vec<(f64, f64)> = Vec::new();
    for (line, content) in (1..).zip(text.lines()) {
        let content = content.trim_start_matches('\u{feff}');
        let is_header = line == 1 && content.split(',').next().is_some_and(|cell| cell.trim() == "seconds");
        if is_header || content.trim().is_empty() || content.trim_start().starts_with('#') {
            continue;
        }
        let wrong = |column, what: String| CsvError::Line { line, column, what };
        let Some((time, rate)) = content.split_once(',') else {
            return Err(wrong(content.chars().count() + 1, "a comma and the events a second are missing".to_owned()));
        };
        let second = time.chars().count() + 2;
        if let Some((before, _)) = rate.split_once(',') {
            let column = second + before.chars().count();
            return Err(wrong(column, "two numbers are wanted, here begins a third".to_owned()));
        }
        let at = number(time, LONGEST).map_err(|(column, what)| wrong(column, what))?;
        let rate = number(rate, FASTEST).map_err(|(column, what)| wrong(second - 1 + column, what))?;
        if let Some((before, _)) = points.last().filter(|(before, _)| *before >= at) {
            return Err(wrong(1, format!("seconds must grow from line to line, and {at} follows {before}")));
        }
        points.push((at, rate));
    }
    let (Some(first), Some(last), true) = (points.first(), points.last(), points.len() > 1) else {
        return Err(CsvError::TooShort);
    };
    let (start, seconds) = (first.0, ((last.0 - first.0).ceil() as u64).max(1));
    let mut next = 0;
    let arrivals = (0..seconds).map(|second| {
        while points.get(next + 1).is_some_and(|(at, _)| *at <= start + second as f64) {
            next += 1;
        }
        points.get(next).map_or(0.0, |(_, rate)| *rate)
    });
    let arrivals = arrivals.collect();
    let about = format!("{} points over {seconds} s", points.len());
    Ok(Trace { name, about, arrivals, waiting: None, lag: LagReport::Right, node_fails: Vec::new(), min: 1 })
}

/// Reads a number between 0 and a bound, or says at which character of the cell what is wrong.
fn number(cell: &str, most: f64) -> Result<f64, (usize, String)> {
    let column = cell.chars().take_while(|c| c.is_whitespace()).count() + 1;
    let text = cell.trim();
    let shown: String = text.chars().take(32).collect();
    match text.parse::<f64>() {
        Ok(value) if (0.0..=most).contains(&value) => Ok(value),
        Ok(_) => Err((column, format!("{shown} is not between 0 and {most}"))),
        Err(_) if text.is_empty() => Err((column, "a number is missing".to_owned())),
        Err(_) => Err((column, format!("{shown:?} is not a number"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        parse(text, String::new()).unwrap_err().to_string()
    }

    #[test]
    fn a_rate_holds_until_the_next_line_and_the_last_line_ends_it() {
        let trace = parse("seconds,events_per_second\r\n# a comment\n10, 5\n12,7.5\n\n13,0\n", "t".into()).unwrap();
        assert_eq!(trace.arrivals, [5.0, 5.0, 7.5]);
    }

    #[test]
    fn a_mistake_is_named_by_line_and_column() {
        assert_eq!(error("0,1\n5;2"), "line 2, column 4: a comma and the events a second are missing");
        assert_eq!(error("0,1\n5, x2"), "line 2, column 4: \"x2\" is not a number");
        assert_eq!(error("0,1\n5,"), "line 2, column 3: a number is missing");
        assert_eq!(error("0,1\n 1s,3"), "line 2, column 2: \"1s\" is not a number");
        assert_eq!(error("0,1\n5,2,3"), "line 2, column 4: two numbers are wanted, here begins a third");
        assert_eq!(error("0,-1\n5,2"), "line 1, column 3: -1 is not between 0 and 10000000");
        assert_eq!(error("0,NaN\n5,2"), "line 1, column 3: NaN is not between 0 and 10000000");
        assert_eq!(error("5,1\n5,2"), "line 2, column 1: seconds must grow from line to line, and 5 follows 5");
        assert!(error("0,1\n").starts_with("a trace needs at least two lines"));
        assert!(error("").starts_with("a trace needs at least two lines"));
    }
}
