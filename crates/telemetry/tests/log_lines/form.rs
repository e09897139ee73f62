//! The form of log lines: constant text, numbers that are numbers, errors that are sentences.

use crate::source::{LogLine, lines_of, log_lines};

/// Fields that may be written by `%`, since what they hold is text: names, addresses, IDs, sentences.
const TEXTS: &[&str] = &[
    "address",
    "decision",
    "deployment",
    "did",
    "folder",
    "id",
    "identity",
    "key",
    "kind",
    "lease",
    "peer",
    "pipeline",
    "policy",
    "reason",
    "redis",
    "stream_id",
    "uri",
    "url",
    "why",
];

/// Where lines are sentences for a person, with the address and the cause in them.
const SENTENCES: &str = "crates/core/src/servers.rs:";

/// What is wrong with one line.
fn faults(line: &LogLine) -> Vec<String> {
    let mut faults = Vec::new();
    if line.message.is_none() || line.is_formatted && !line.place.starts_with(SENTENCES) {
        faults.push("its text is not constant".to_owned());
    }
    for field in &line.fields {
        let name = &field.name;
        let is_text = TEXTS.contains(&name.as_str());
        if ["message", "msg", "ts", "level", "target", "timestamp", "spans"].contains(&name.as_str()) {
            faults.push(format!("`{name}` is a name of the line's own"));
        }
        match field.sigil {
            Some('?') => faults.push(format!("`{name}` is written as Debug")),
            Some(_) if name == "error" => {
                faults.push("`error` loses its causes by `%`: write `error = chain(&error)`".to_owned());
            }
            Some(_) if !is_text => faults.push(format!("`{name}` becomes a string by `%`")),
            _ => {}
        }
        let formats = ["format !", "format_args !", "to_string ("].iter().any(|call| field.value.contains(call));
        if formats && !is_text {
            faults.push(format!("`{name}` is formatted: `{}`", field.value));
        }
        let is_duration = ["elapsed ()", "duration_since", "as_secs", "as_millis", "as_micros", "seconds ("]
            .iter()
            .any(|call| field.value.contains(call));
        let is_round = field.value.starts_with("seconds (") || field.value.ends_with(". as_secs ()");
        let is_named = name == "seconds" || name.ends_with("_seconds");
        if is_duration && !(is_named && is_round) {
            faults.push(format!("`{name}` is a duration: write `…_seconds = seconds(…)`"));
        }
        if name.ends_with("_ms") || name.ends_with("_secs") {
            faults.push(format!("`{name}`: durations are `…_seconds`"));
        }
    }
    faults
}

#[test]
fn every_line_has_constant_text_and_numbers_that_are_numbers() {
    let lines = log_lines();
    assert!(lines.len() > 150, "only {} lines were found", lines.len());
    let faults = lines
        .iter()
        .flat_map(|line| faults(line).into_iter().map(|fault| format!("{}: {:?}: {fault}", line.place, line.message)));
    let faults: Vec<_> = faults.collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// What a line about a dead letter says of it.
const LETTERS: &[(&str, &[&str])] = &[
    ("entry dead-lettered", &["uri", "did", "seq", "error"]),
    ("parts of a commit dead-lettered, the rest is kept", &["uri", "did", "seq", "reason"]),
    ("frame dead-lettered", &["did", "seq", "reason"]),
    // Nobody can read whose it is.
    ("unreadable frame dead-lettered", &["cursor", "error"]),
    ("unreadable frame was dead-lettered before", &["cursor", "error"]),
    // A sum of many, with an example.
    ("dead-lettered entries that no worker acknowledged after several requeues", &["count", "id", "consumer"]),
    // A private message: nothing of it is for the log.
    ("message dead-lettered", &["error"]),
];

#[test]
fn the_line_of_a_dead_letter_says_which_record_it_was() {
    let lines = log_lines();
    let mut told = 0;
    for line in &lines {
        let Some(message) = line.message.as_deref().filter(|message| message.contains("dead-lettered")) else {
            continue;
        };
        let fields = LETTERS.iter().find(|(letter, _)| *letter == message);
        let (_, fields) = fields.unwrap_or_else(|| panic!("{}: what must {message:?} say?", line.place));
        for name in *fields {
            assert!(line.fields.iter().any(|field| field.name == *name), "{}: {message:?} has no {name}", line.place);
        }
        told += 1;
    }
    assert_eq!(told, LETTERS.len());
}

#[test]
fn faults_are_found_wherever_a_line_stands() {
    for (source, fault) in [
        ("fn f() { warn!(count, error = chain(&error), \"no\"); }", ""),
        ("fn f() { warn!(reason = %bad.reason, pipeline = %name, \"no\"); }", ""),
        ("fn f() { warn!(after_seconds = seconds(began.elapsed()), \"no\"); }", ""),
        ("fn f() { warn!({ count = 3 }, \"no\"); }", ""),
        ("#[cfg(test)] mod tests { fn f() { warn!(?count, \"no\"); } }", "not found"),
        ("#[cfg(test)] use a::b; #[test] fn f() { warn!(?count, \"no\"); }", "not found"),
        (
            "fn f() { tokio::select! { () = a => if b { tracing::error!(?count, \"no\") } } }",
            "`count` is written as Debug",
        ),
        ("fn f() { match a { b => debug!(wait = ?self.wait, \"no\") } }", "`wait` is written as Debug"),
        ("fn f() { warn!(%count, \"no\"); }", "`count` becomes a string"),
        ("fn f() { warn!(%self.count, \"no\"); }", "`count` becomes a string"),
        ("fn f() { warn!(count = %count, \"no\"); }", "`count` becomes a string"),
        ("fn f() { warn!(%error, \"no\"); }", "`error` loses its causes"),
        ("fn f() { warn!(rate = format!(\"{rate:.1}\"), \"no\"); }", "`rate` is formatted"),
        ("fn f() { warn!(rate = format_args!(\"{rate:.1}\"), \"no\"); }", "`rate` is formatted"),
        ("fn f() { warn!(count = count.to_string(), \"no\"); }", "`count` is formatted"),
        ("fn f() { info!(after = began.elapsed().as_secs(), \"no\"); }", "`after` is a duration"),
        ("fn f() { info!(after_ms = after, \"no\"); }", "`after_ms`: durations"),
        ("fn f() { warn!(\"no {count}\"); }", "its text is not constant"),
        ("fn f() { warn!(\"no {}\", count); }", "its text is not constant"),
        ("fn f() { warn!(count); }", "its text is not constant"),
        ("fn f() { info!(message = said, \"no\"); }", "`message` is a name"),
        ("fn f() { info!(target = said, \"no\"); }", "`target` is a name"),
    ] {
        let lines = lines_of(source);
        let found = lines.first().map(|line| faults(line).join("; "));
        match (fault, found) {
            ("not found", found) => assert_eq!(found, None, "{source}"),
            ("", found) => assert_eq!(found.as_deref(), Some(""), "{source}"),
            (fault, found) => assert!(found.as_ref().is_some_and(|found| found.contains(fault)), "{source}: {found:?}"),
        }
    }
}
