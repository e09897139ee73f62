//! Live events as JSON lines.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::num::NonZeroU64;

use penstock_core::causes::chain;
use serde_json::value::RawValue;
use tokio::time::sleep;

use crate::ConsoleError;
use crate::api::Event;
use crate::client::Client;
use crate::error::AskError;
use crate::filter::Filter;
use crate::format::obeyed;
use crate::target::Target;
use crate::watch::{Frame, Patience};

/// Which events are wanted, and how many.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Which.
    pub filter: Filter,
    /// How many. Default: without end.
    pub limit: Option<NonZeroU64>,
}

/// Writes events as they come, one JSON object a line, until there are as many as wanted or nobody reads any more.
///
/// A connection that breaks is made again, from the last event on; `notes` gets a line then.
///
/// # Errors
/// The dashboard cannot be reached at first, or wants a token; the output cannot be written.
pub async fn tail(
    target: Target,
    options: &Options,
    out: &mut impl Write,
    notes: &mut impl Write,
) -> Result<(), ConsoleError> {
    let client = Client::direct(target);
    follow(&client, options, out, notes).await
}

pub(crate) async fn follow(
    client: &Client,
    options: &Options,
    out: &mut impl Write,
    notes: &mut impl Write,
) -> Result<(), ConsoleError> {
    // Whoever does not read the notes does not miss an event for that.
    let mut note = |text: &str| drop(writeln!(notes, "penstock: {text}"));
    let (mut last, mut written, mut patience, mut lost) = (None::<String>, 0, Patience::default(), None::<bool>);
    let query = options.filter.query();
    loop {
        let (error, wished) = match client.stream(&query, last.as_deref()).await {
            Ok(mut stream) => {
                if lost == Some(true) {
                    note("connected again");
                }
                lost = Some(false);
                loop {
                    let message = match stream.next().await {
                        Ok(message) => message,
                        Err(error) => break (error, stream.retry()),
                    };
                    patience.reset();
                    let frame = serde_json::from_str::<Frame<'_>>(&message.data).ok();
                    match frame.as_ref().map(|frame| (frame.kind.as_str(), frame.data, frame.count)) {
                        Some(("event", Some(data), _)) if is_wanted(&options.filter, data) => {
                            match write_line(out, data) {
                                Ok(()) => written += 1,
                                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                                Err(error) => return Err(ConsoleError::Print(error)),
                            }
                        }
                        Some(("missed", _, Some(count))) => note(&format!("{count} events were missed: too slow")),
                        _ => {}
                    }
                    last = message.id.or(last);
                    if options.limit.is_some_and(|limit| written >= limit.get()) {
                        return Ok(());
                    }
                }
            }
            Err(error) => (error, None),
        };
        if lost.is_none() || matches!(error, AskError::Token) {
            return Err(ConsoleError::Ask { url: client.target().to_string(), source: error });
        }
        // A stream that ends as it should is opened again without a word.
        if lost == Some(false) && !matches!(error, AskError::Ended) {
            note(&format!("{}; trying again", chain(&error)));
            lost = Some(true);
        }
        sleep(patience.next(wished)).await;
    }
}

fn is_wanted(filter: &Filter, event: &RawValue) -> bool {
    serde_json::from_str::<Event>(event.get()).is_ok_and(|event| filter.lets_through(&event))
}

/// Writes one event, at once; characters that a terminal would obey are escaped, which JSON allows.
fn write_line(out: &mut impl Write, event: &RawValue) -> io::Result<()> {
    let line = format!("{}\n", escaped(event.get()));
    out.write_all(line.as_bytes())?;
    out.flush()
}

fn escaped(json: &str) -> Cow<'_, str> {
    if !json.chars().any(obeyed) {
        return json.into();
    }
    let mut out = String::with_capacity(json.len() + 16);
    for character in json.chars() {
        if obeyed(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                // Writing to memory does not fail.
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(character);
        }
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_the_event_and_moves_no_terminal() {
        let event = serde_json::json!({"action": "→ a\u{9b}31m\u{202e}b\u{7f}", "did": "did:plc:a"});
        let line = escaped(&event.to_string()).into_owned();
        assert!(line.is_ascii() || !line.chars().any(obeyed), "{line:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&line).unwrap(), event);
        assert!(matches!(escaped("{\"a\":\"→\"}"), Cow::Borrowed(_)));
    }
}
