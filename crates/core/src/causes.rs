//! An error as one line: what failed, and why.

use std::error::Error;
use std::io;

use crate::poolers;

/// How many characters of a cause are kept: whoever answers may answer with a page.
const LONGEST: usize = 300;

/// Writes an error with its causes, each behind a colon; a cause that the line already contains is not repeated. Where a pooler
/// before PostgreSQL is to blame, what to do about it comes last.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut line = said(error);
    let mut cause = error.source();
    while let Some(next) = cause {
        let text = said(next);
        if !line.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = next.source();
    }
    advised(line)
}

/// Adds what to do about a pooler.
fn advised(line: String) -> String {
    match poolers::advice(&line) {
        Some(advice) => format!("{line}: {advice}"),
        None => line,
    }
}

/// Returns the innermost cause as a part of a sentence: `connection refused`, `no answer in time`.
#[must_use]
pub fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    if let Some(error) = cause.downcast_ref::<io::Error>() {
        return match error.kind() {
            io::ErrorKind::TimedOut => "no answer in time".to_owned(),
            io::ErrorKind::UnexpectedEof => "the connection was closed".to_owned(),
            // What the system says, or the words it was made with.
            _ => phrase(&said(error)),
        };
    }
    if let Some(error) = cause.downcast_ref::<fred::error::Error>() {
        return match error.kind() {
            fred::error::ErrorKind::Timeout => "no answer in time".to_owned(),
            fred::error::ErrorKind::Canceled => "the connection was closed".to_owned(),
            // It keeps a system error as `Os { code: 111, kind: ConnectionRefused, message: "Connection refused" }`.
            _ => phrase(quoted(error.details()).unwrap_or(error.details())),
        };
    }
    advised(phrase(&said(cause)))
}

/// Returns what an error says, without the line of PostgreSQL's own source that sqlx puts behind what a server says: nobody who
/// reads it has that file open, and it reads like a line of a file of one's own.
#[must_use]
pub fn said(error: &dyn Error) -> String {
    let mut text = error.to_string();
    if let Some((words, line)) = text.rsplit_once(" at line ")
        && !line.is_empty()
        && line.bytes().all(|byte| byte.is_ascii_digit())
    {
        text.truncate(words.len());
    }
    text
}

/// Returns the words of a system error that was written for a programmer.
fn quoted(details: &str) -> Option<&str> {
    let (_, message) = details.split_once("message: \"")?;
    message.split_once('"').map(|(message, _)| message)
}

/// Makes what a library says a part of a sentence: the number of a system error, a capital letter and a full stop go.
#[must_use]
pub fn phrase(text: &str) -> String {
    let text = text.split(" (os error ").next().unwrap_or(text).trim().trim_end_matches('.');
    let mut characters = text.chars();
    let first = characters.next().map(char::to_lowercase).into_iter().flatten();
    // An abbreviation stays as it is.
    let is_word = characters.clone().next().is_none_or(|second| !second.is_uppercase());
    let text: String = if is_word { first.chain(characters).collect() } else { text.to_owned() };
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use thiserror::Error;

    use super::*;

    #[derive(Debug, Error)]
    enum Failure {
        #[error("could not read the cursor")]
        Read(#[source] Box<Failure>),
        #[error("refused: {0}")]
        Repeated(#[source] io::Error),
    }

    #[test]
    fn an_error_is_followed_by_its_causes() {
        let cause = Failure::Read(Box::new(Failure::Read(Box::new(Failure::Repeated(io::Error::other("no route"))))));
        assert_eq!(chain(&cause), "could not read the cursor: refused: no route");
        assert_eq!(chain(&io::Error::other("no route")), "no route");
        let advised = chain(&Failure::Read(Box::new(Failure::Repeated(io::Error::other("query_wait_timeout")))));
        assert!(
            advised.starts_with("could not read the cursor: refused: query_wait_timeout: no connection of"),
            "{advised}"
        );
    }

    #[test]
    fn no_line_of_a_servers_source_is_told() {
        let refused = || io::Error::other("password authentication failed for user \"a\" at line 329");
        let told = "password authentication failed for user \"a\"";
        assert_eq!(chain(&Failure::Repeated(refused())), format!("refused: {told}"));
        assert_eq!(innermost(&refused()), told);
        for kept in ["expected a value at line 3 column 7", "no end at line ", "at line x"] {
            assert_eq!(said(&io::Error::other(kept)), kept);
        }
    }

    #[test]
    fn the_innermost_cause_is_part_of_a_sentence() {
        let of = |error: io::Error| innermost(&Failure::Read(Box::new(Failure::Repeated(error))));
        assert_eq!(of(io::Error::from_raw_os_error(111)), "connection refused");
        assert_eq!(of(io::ErrorKind::TimedOut.into()), "no answer in time");
        assert_eq!(of(io::Error::other("No route.")), "no route");
        let redis = |kind, details: &'static str| innermost(&fred::error::Error::new(kind, details));
        assert_eq!(redis(fred::error::ErrorKind::IO, "Connection refused (os error 111)"), "connection refused");
        let debugged = r#"Os { code: 111, kind: ConnectionRefused, message: "Connection refused" }"#;
        assert_eq!(redis(fred::error::ErrorKind::IO, debugged), "connection refused");
        assert_eq!(redis(fred::error::ErrorKind::Timeout, "Request timed out."), "no answer in time");
        assert_eq!(redis(fred::error::ErrorKind::Unknown, "READONLY You can't write"), "READONLY You can't write");
        let page = innermost(&io::Error::other("x".repeat(12_000)));
        assert_eq!(page.chars().count(), LONGEST + 1);
    }
}
