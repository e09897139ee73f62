//! The tables in docs/operations.md against the log lines of all crates, both ways.

use std::collections::BTreeSet;
use std::fs;

use crate::source::{log_lines, workspace};

/// Written by the formatters themselves, in place of lines that repeat.
const SUPPRESSED: (&str, &str) = ("suppressed repeated lines", "WARN");

/// The headings of the tables, and the crates whose lines stand below each.
const PARTS: &[(&str, &[&str])] = &[
    ("Any part", &["core", "heal", "identity", "lookup", "penstock", "repo", "telemetry"]),
    ("Ingest", &["ingest", "wire"]),
    ("Workers", &["worker"]),
    ("Dashboard", &["dashboard"]),
    ("Operator", &["operator", "autoscale"]),
    ("`penstock run` and `penstock replay`", &["bench", "console", "doctor", "local", "replay", "run"]),
];

/// One row of a table.
struct Row {
    /// A heading of [`PARTS`], up to its colon.
    part: String,
    message: String,
    level: String,
    cause: String,
    action: String,
}

/// A line that there can be.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Message {
    part: String,
    level: String,
    text: String,
}

/// Returns the rows below the heading about log lines.
fn rows() -> Vec<Row> {
    let page = fs::read_to_string(workspace().join("docs/operations.md")).unwrap();
    let (_, section) = page.split_once("\n## What the log says").expect("the section");
    let section = section.split_once("\n## ").map_or(section, |(section, _)| section);
    let mut rows = Vec::new();
    for tables in section.split("\n### ").skip(1) {
        let heading = tables.lines().next().unwrap();
        let part = heading.split(':').next().unwrap();
        for line in tables.lines().filter(|line| line.starts_with("| `")) {
            let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
            let [message, level, cause, action] = cells[..] else { panic!("a row has four cells: {line}") };
            let message = message.trim_matches('`').to_owned();
            let [part, level, cause, action] = [part, level, cause, action].map(str::to_owned);
            rows.push(Row { part, message, level, cause, action });
        }
    }
    rows
}

/// Says whether a row stands for a message: in full, or up to where it says what to do. What is put into a message at its
/// beginning may be named: `redis … does not answer`.
fn stands_for(row: &str, message: &str) -> bool {
    let row = match row.split_once('…') {
        Some((_, rest)) if message.starts_with('…') => rest,
        _ => row,
    };
    let message = message.trim_start_matches('…');
    let row = row.trim_start_matches('…');
    message.strip_prefix(row).is_some_and(|rest| rest.is_empty() || rest.starts_with([':', ';', ',']))
}

/// Returns all lines that there can be, once each.
fn messages() -> BTreeSet<Message> {
    let part = |place: &str| {
        // What only `penstock run` logs is not for everybody.
        let is_of_run = place.starts_with("crates/penstock/src/commands/run");
        let name = if is_of_run { "run".to_owned() } else { place.split('/').nth(1).unwrap().to_owned() };
        let part = PARTS.iter().find(|(_, crates)| crates.contains(&name.as_str()));
        part.unwrap_or_else(|| panic!("no part of the tables is for the crate {name}")).0.to_owned()
    };
    let lines = log_lines().into_iter();
    let messages = lines.filter_map(|line| {
        Some(Message { part: part(&line.place), level: line.level.to_uppercase(), text: shown(&line.message?) })
    });
    let [part, text, level] = [PARTS[0].0, SUPPRESSED.0, SUPPRESSED.1].map(str::to_owned);
    messages.chain([Message { part, level, text }]).collect()
}

/// Writes a text as the tables do: what is put into it becomes an ellipsis.
fn shown(text: &str) -> String {
    let mut shown = String::new();
    for (index, piece) in text.split('{').enumerate() {
        let (value, rest) = if index == 0 { (false, piece) } else { (true, piece.split_once('}').unwrap().1) };
        if value && !shown.trim_end().ends_with('…') {
            shown.push('…');
        }
        if !(rest == " " && shown.ends_with('…')) {
            shown.push_str(rest);
        }
    }
    shown
}

#[test]
fn every_warning_and_error_has_one_row_and_every_row_a_line() {
    let (rows, messages) = (rows(), messages());
    let is_of = |row: &Row, message: &Message| {
        row.part == message.part && row.level == message.level && stands_for(&row.message, &message.text)
    };
    let mut wrong = Vec::new();
    for message in messages.iter().filter(|message| ["WARN", "ERROR"].contains(&message.level.as_str())) {
        let found = rows.iter().filter(|row| is_of(row, message)).count();
        if found != 1 {
            let Message { part, level, text } = message;
            wrong.push(format!("docs/operations.md, {part}: {level} `{text}` has {found} rows"));
        }
    }
    for row in &rows {
        if !messages.iter().any(|message| is_of(row, message)) {
            wrong.push(format!("docs/operations.md, {}: nothing logs {} `{}`", row.part, row.level, row.message));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_put_into_a_text_is_an_ellipsis_in_its_row() {
    for (text, row) in [
        ("trim failed", "trim failed"),
        ("{server} {address} does not answer: {cause}{before}", "… does not answer: …"),
        ("{server} answers again after {after:?}", "… answers again after …"),
        ("no answer for {}", "no answer for …"),
    ] {
        assert_eq!(shown(text), row);
    }
}

#[test]
fn every_row_says_why_and_what_to_do() {
    for Row { message, cause, action, .. } in rows() {
        assert!(cause.len() > 5 && action.len() > 5, "{message}: {cause} / {action}");
    }
}

#[test]
fn a_row_stands_for_a_message_up_to_its_advice() {
    let message = "another program changed the cursor: if it is still running, stop it";
    for (row, stands) in [
        (message, true),
        ("another program changed the cursor", true),
        ("another program changed", false),
        ("another program changed the cursors", false),
        ("another program changed the cursor: if it is still running, stop it at once", false),
    ] {
        assert_eq!(stands_for(row, message), stands, "{row}");
    }
    let message = "… does not answer: …; …";
    for (row, stands) in [
        ("… does not answer", true),
        ("redis … does not answer", true),
        ("redis does not answer", false),
        ("redis …", false),
    ] {
        assert_eq!(stands_for(row, message), stands, "{row}");
    }
}

/// Returns the pages of the runbooks with their names.
fn runbooks() -> Vec<(String, String)> {
    let pages = fs::read_dir(workspace().join("docs/runbooks")).unwrap().map(|page| page.unwrap().path());
    pages
        .map(|page| (page.file_name().unwrap().to_string_lossy().into_owned(), fs::read_to_string(&page).unwrap()))
        .collect()
}

/// Returns what a line of a runbook searches a log for: the alternatives behind each `grep`.
fn searches(line: &str) -> Vec<String> {
    let is_of_log = line.contains(" logs ") || line.contains("journalctl") || line.contains(".log");
    // By level, that is.
    let is_of_log = is_of_log && !line.contains("\"level\"");
    let commands = line.split("grep ").skip(1).filter(|_| is_of_log);
    let patterns = commands.filter_map(|command| {
        let words = command.trim_start_matches(['-', ' ']);
        let (options, pattern) = match words.split_once('\'') {
            Some((options, rest)) => (options, rest.split('\'').next()?),
            None => ("", words.split([' ', '|']).next()?),
        };
        (!options.contains('v')).then_some(pattern)
    });
    patterns.flat_map(|pattern| pattern.split('|').map(str::to_owned)).collect()
}

#[test]
fn the_alternatives_of_a_search_are_found() {
    for (line, found) in [
        (
            "kubectl -n $N logs x --since=1h | grep -E 'possible gap|connected' | tail -5",
            vec!["possible gap", "connected"],
        ),
        ("docker compose logs ingest | grep 'possible gap'", vec!["possible gap"]),
        ("journalctl -u penstock-ingest | grep checkpoint", vec!["checkpoint"]),
        ("kubectl get fhp -A | grep -v Known$", vec![]),
    ] {
        assert_eq!(searches(line), found, "{line}");
    }
}

#[test]
fn what_a_runbook_searches_the_log_for_is_logged() {
    let messages = messages();
    let (mut searched, mut unknown) = (0, Vec::new());
    for (name, page) in runbooks() {
        for text in page.lines().flat_map(searches) {
            searched += 1;
            if !messages.iter().any(|message| message.text.contains(&text)) {
                unknown.push(format!("{name}: nothing logs `{text}`"));
            }
        }
    }
    assert!(searched > 10, "only {searched} searches were found");
    assert!(unknown.is_empty(), "{}", unknown.join("\n"));
}

#[test]
fn what_a_runbook_says_of_the_log_is_logged() {
    let messages = messages();
    let (mut rows, mut unknown) = (0, Vec::new());
    for (name, page) in runbooks() {
        let tables = page.split("| the log says |").skip(1);
        let lines = tables.flat_map(|table| table.lines().skip(2).take_while(|line| line.starts_with('|')));
        for line in lines {
            let Some(said) = line.strip_prefix("| `").and_then(|line| line.split('`').next()) else { continue };
            rows += 1;
            if !messages.iter().any(|message| stands_for(said, &message.text)) {
                unknown.push(format!("{name}: nothing logs `{said}`"));
            }
        }
    }
    assert!(rows > 5, "only {rows} rows were found");
    assert!(unknown.is_empty(), "{}", unknown.join("\n"));
}
