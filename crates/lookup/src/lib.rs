//! Looks up one repo or record: what is held of it, what its host has, and why something is not there.
//!
//! In: a DID, a handle or an AT-URI. Out: a [`Report`], the answer first. The command `penstock repo` and the dashboard's
//! `/api/repos` call [`look`]. Every server is asked for itself; what one of them does not say is named in the report. `judge` draws the
//! answer from what was found and asks nobody.

mod asked;
mod database;
mod host;
mod judge;
mod redis;
pub mod report;
pub mod tables;
#[cfg(test)]
mod tests;
mod text;

use std::pin::Pin;

use fred::clients::Client;
use jiff::Timestamp;
use penstock_core::causes::said;
use penstock_core::filter::Rules;
use penstock_core::keys::Keys;
use penstock_postgres::Pool;

pub use asked::{Account, Asked, AskedError, RecordPath};
pub use host::Network;
pub use report::Report;

use report::{Answer, Letters, Part, Word};

/// How many letters are told.
const MOST_LETTERS: usize = database::MOST_LETTERS;

/// Who is asked; of each that is not, why not.
#[derive(Debug)]
pub struct Sources<'a> {
    /// PostgreSQL.
    pub database: Result<&'a Pool, String>,
    /// Redis.
    pub redis: Result<&'a Client, String>,
    /// What things are called there.
    pub keys: &'a Keys,
    /// What is carried (`filter.*`), as these settings say.
    pub rules: Result<Rules, String>,
    /// The network.
    pub network: Result<Network<'a>, String>,
}

/// Looks up an account or a record. Never fails: what could not be asked is said in the report.
///
/// The host is asked first, then the stream, then the tables: what moves on meanwhile is found where it is by then.
///
/// Boxed, because the compiler does not see of the bare future that it may be sent between threads.
#[must_use]
pub fn look<'a>(asked: &'a Asked, sources: &'a Sources<'a>) -> Pin<Box<dyn Future<Output = Report> + Send + 'a>> {
    Box::pin(ask(asked, sources))
}

async fn ask(asked: &Asked, sources: &Sources<'_>) -> Report {
    let path = asked.path.as_ref();
    let did = match &asked.account {
        Account::Did(did) => Ok(Some(did.clone())),
        Account::Handle(handle) => account_of(handle, sources).await,
    };
    let mut report = Report::of(asked);
    let did = match did {
        Ok(Some(did)) => did,
        Ok(None) => {
            report.answer = judge::no_account(asked);
            return report;
        }
        Err(why) => {
            report.answer = judge::account_unknown(asked, &why);
            return report;
        }
    };
    report.uri = path.map(|path| path.uri(&did));
    report.host = match &sources.network {
        Ok(network) => host::ask(*network, &did, path).await.into(),
        Err(why) => Part::unknown(why),
    };
    report.letters = letters(sources, &did, path).await;
    report.waiting = match sources.redis {
        Ok(client) => redis::waiting(client, sources.keys, &did, path).await.map_err(|error| of_redis(&error)).into(),
        Err(ref why) => Part::unknown(why),
    };
    report.held = match sources.database {
        Ok(pool) => database::held(pool, &did, path).await.map_err(|error| database::told(&error)).into(),
        Err(ref why) => Part::unknown(why),
    };
    report.left_out_by = left_out_by(sources, &did, path);
    report.did = Some(did);
    report.answer = judge::judge(&report, path);
    report
}

/// Returns the account that a handle belongs to: as its owner says, or as the tables say where its owner cannot be asked.
async fn account_of(handle: &str, sources: &Sources<'_>) -> Result<Option<String>, String> {
    let asked = match &sources.network {
        Ok(network) => network.identities.account_of(handle).await.map_err(|error| error.to_string()),
        Err(why) => Err(why.clone()),
    };
    let why = match asked {
        Ok(Some(did)) => return Ok(Some(did)),
        // An account keeps the handle that it claimed last, whoever owns it by now.
        Ok(None) => None,
        Err(why) => Some(why),
    };
    match (sources.database.as_ref(), why) {
        (Ok(pool), why) => match database::account_of(pool, handle).await {
            Ok(Some(did)) => Ok(Some(did)),
            Ok(None) => why.map_or(Ok(None), Err),
            Err(error) => Err(why.unwrap_or_else(|| database::told(&error))),
        },
        (Err(_), None) => Ok(None),
        (Err(_), Some(why)) => Err(why),
    }
}

/// Returns the rule that leaves a record, or all of a repo, out.
fn left_out_by(sources: &Sources<'_>, did: &str, path: Option<&RecordPath>) -> Option<String> {
    let rules = sources.rules.as_ref().ok()?;
    let of_collection = || rules.collection(&path?.collection);
    rules.repo(did).or_else(of_collection).map(|by| rules.name(by))
}

/// Looks for dead letters, in Redis and in PostgreSQL, each once.
async fn letters(sources: &Sources<'_>, did: &str, path: Option<&RecordPath>) -> Letters {
    let mut letters = Letters::default();
    match sources.redis {
        Ok(client) => match redis::letters(client, sources.keys, did, path, MOST_LETTERS).await {
            Ok((found, more)) => (letters.letters, letters.more) = (found, more),
            Err(error) => letters.redis_unknown = Some(of_redis(&error)),
        },
        Err(ref why) => letters.redis_unknown = Some(why.clone()),
    }
    match sources.database {
        Ok(pool) => match database::letters(pool, did, path).await {
            Ok(kept) => {
                letters.more |= kept.len() > MOST_LETTERS;
                let here = |id: &str| letters.letters.iter().any(|letter| letter.orig_id == id);
                let kept: Vec<_> = kept.into_iter().filter(|letter| !here(&letter.orig_id)).collect();
                letters.letters.extend(kept);
            }
            Err(error) => letters.postgres_unknown = Some(database::told(&error)),
        },
        Err(ref why) => letters.postgres_unknown = Some(why.clone()),
    }
    letters.letters.sort_by_key(|letter| (!letter.names_record, std::cmp::Reverse(letter.at)));
    letters.more |= letters.letters.len() > MOST_LETTERS;
    letters.letters.truncate(MOST_LETTERS);
    letters
}

fn of_redis(error: &fred::error::Error) -> String {
    format!("redis does not answer ({})", said(error))
}

// === impl Report ===

impl Report {
    /// One of which nothing is known yet.
    fn of(asked: &Asked) -> Self {
        let nobody = "not asked";
        Self {
            asked: asked.to_string(),
            did: None,
            uri: None,
            at: Timestamp::now().as_millisecond(),
            answer: Answer { word: Word::Unknown, good: None, text: String::new(), advice: Vec::new() },
            held: Part::unknown(nobody),
            host: Part::unknown(nobody),
            waiting: Part::unknown(nobody),
            letters: Letters::default(),
            left_out_by: None,
        }
    }
}
