//! What Redis holds of a repo: entries that wait, and dead letters. A step of a search is short; a search ends after a while.

use std::time::{Duration, Instant};

use fred::clients::Client;
use fred::error::Error;
use penstock_core::dead_letter::Author;
use penstock_core::keys::Keys;
use penstock_core::script;
use penstock_core::stream::StreamId;

use crate::asked::RecordPath;
use crate::report::{Letter, Waiting, WaitingEntry};

/// How many entries that wait are looked through, at most, and for how long.
const MOST_ENTRIES: u64 = 50_000;
const PATIENCE: Duration = Duration::from_secs(3);

/// How many entries that wait are told.
const MOST_TOLD: usize = 20;

/// How many one step looks at, and how many bytes: about a millisecond of Redis.
const STEP: u64 = 400;
const STEP_BYTES: u64 = 1_000_000;

/// How many letters are looked through, at most.
const MOST_LETTERS: u64 = 200_000;

/// An entry as the script tells it: its ID, its type, whether a consumer has it, whether it names the record.
type FoundEntry = (String, String, u64, u64);

/// A letter as the script tells it: its ID, its type, its original ID, the error, whether it names the record.
type FoundLetter = (String, String, String, String, u64);

/// Looks for entries of a repo that were not applied yet, in both streams.
pub(crate) async fn waiting(
    client: &Client,
    keys: &Keys,
    did: &str,
    path: Option<&RecordPath>,
) -> Result<Waiting, Error> {
    let path = path.map(ToString::to_string).unwrap_or_default();
    let mut waiting = Waiting { complete: true, ..Waiting::default() };
    let deadline = Instant::now() + PATIENCE;
    for stream in [keys.stream(), keys.bulk()] {
        let mut from = String::new();
        loop {
            let arguments = vec![
                keys.group().into(),
                from.clone().into(),
                STEP.to_string().into(),
                STEP_BYTES.to_string().into(),
                did.into(),
                path.clone().into(),
            ];
            let step = script::run(client, include_str!("waiting.lua"), vec![stream.to_owned()], arguments);
            let (found, next, seen, last): (Vec<FoundEntry>, String, u64, String) = step.await?;
            waiting.searched += seen;
            let last = last.parse::<StreamId>().ok();
            for (id, kind, pending, names) in found {
                let parsed = id.parse::<StreamId>().unwrap_or_default();
                let delivered = pending > 0;
                // What was given to a consumer and is not pending was applied.
                if !delivered && last.is_some_and(|last| parsed <= last) {
                    continue;
                }
                let at = i64::try_from(parsed.ms).unwrap_or_default();
                let stream = stream.to_owned();
                waiting.entries.push(WaitingEntry { stream, id, at, kind, delivered, names_record: names > 0 });
            }
            if next.is_empty() {
                break;
            }
            if waiting.searched >= MOST_ENTRIES || Instant::now() >= deadline {
                waiting.complete = false;
                break;
            }
            from = next;
        }
    }
    // What names the record is never cut.
    waiting.entries.sort_by_key(|entry| !entry.names_record);
    waiting.complete &= waiting.entries.len() <= MOST_TOLD;
    waiting.entries.truncate(MOST_TOLD);
    waiting.entries.sort_by_key(|entry| entry.id.parse::<StreamId>().unwrap_or_default());
    Ok(waiting)
}

/// Looks for dead letters of a repo, the newest first; says whether there may be more.
pub(crate) async fn letters(
    client: &Client,
    keys: &Keys,
    did: &str,
    path: Option<&RecordPath>,
    most: usize,
) -> Result<(Vec<Letter>, bool), Error> {
    let path = path.map(ToString::to_string).unwrap_or_default();
    let (mut letters, mut more) = (Vec::new(), false);
    let deadline = Instant::now() + PATIENCE;
    for author in [Author::Worker, Author::Ingest] {
        let (mut from, mut of_author, mut seen) = ("+".to_owned(), 0, 0);
        loop {
            let arguments = vec![
                from.clone().into(),
                STEP.to_string().into(),
                STEP_BYTES.to_string().into(),
                did.into(),
                path.clone().into(),
            ];
            let step = script::run(client, include_str!("letters.lua"), vec![keys.letters_of(author)], arguments);
            let (found, next): (Vec<FoundLetter>, String) = step.await?;
            seen += STEP;
            of_author += found.len();
            letters.extend(found.into_iter().map(|(id, kind, orig_id, mut error, names)| {
                error.truncate(error.floor_char_boundary(500));
                let at = id.parse::<StreamId>().map_or(0, |id| i64::try_from(id.ms).unwrap_or_default());
                Letter { source: "redis", id, orig_id, at, kind, error, names_record: names > 0 }
            }));
            if next.is_empty() {
                break;
            }
            if of_author > most || seen >= MOST_LETTERS || Instant::now() >= deadline {
                more = true;
                break;
            }
            from = next;
        }
    }
    letters.sort_by(|one, other| (other.at, &other.id).cmp(&(one.at, &one.id)));
    Ok((letters, more))
}
