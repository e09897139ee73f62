//! What troubles the services of a pipeline with PostgreSQL, left in Redis for those who tell of the pipeline.
//!
//! One key for a pipeline: whoever is in trouble writes it again and again, and it ends by itself soon after the last one is
//! well. A service writes only while something is wrong.

use std::time::Duration;

use fred::clients::Client;
use fred::error::Error;
use fred::interfaces::ClientLike;
use fred::types::Value;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, timeout};

use crate::keys::Keys;
use crate::redis;
use crate::script;
use crate::settings::Settings;

/// How long what was left counts.
pub const KEPT: Duration = Duration::from_secs(8);

/// How often a service looks at itself.
const EVERY: Duration = Duration::from_secs(1);

/// How often what has not changed is left again.
const AGAIN: Duration = Duration::from_secs(3);

/// From how long on a trouble counts: one that is over by the next try is nobody's business.
const LASTS: Duration = Duration::from_secs(2);

/// How long one step may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// The longest text, in bytes.
const LONGEST: usize = 600;

/// Redis may be full: a script whose first write frees something is let through, whatever its second one needs.
const LEAVE: &str = "redis.call('DEL', KEYS[1]) redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) return 1";

/// Only what this process left: another one may be in trouble still.
const WITHDRAW: &str = "\
local left = redis.call('GET', KEYS[1])
if left and cjson.decode(left)['process'] == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1";

/// What troubles a service with PostgreSQL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// `worker`, `ingest` or `dashboard`.
    pub part: String,
    /// Which process of it: the name of its pod.
    pub process: String,
    /// What is wrong, with the masked address.
    pub text: String,
}

// === impl Trouble ===

impl Trouble {
    /// Makes one; a text that does not name the address gets it.
    #[must_use]
    pub fn new(part: &str, process: &str, address: &str, text: &str) -> Self {
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let mut text = if text.contains(address) { text } else { format!("postgresql {address}: {text}") };
        if text.len() > LONGEST {
            let end = (0..=LONGEST).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            text.truncate(end);
            text.push('…');
        }
        Self { part: part.to_owned(), process: process.to_owned(), text }
    }

    /// Says whether PostgreSQL gives no answer at all, rather than one that does not help.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        self.text.contains("does not answer")
    }

    /// Reads what was left last; text of another version is none.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    async fn leave(&self, client: &Client, keys: &Keys) -> Result<(), Error> {
        let text = serde_json::to_string(self).unwrap_or_default();
        let arguments = vec![Value::from(text), Value::Integer(i64::try_from(KEPT.as_millis()).unwrap_or(i64::MAX))];
        script::run(client, LEAVE, keys.database_trouble(), arguments).await
    }
}

/// Leaves what troubles this process for as long as `asked` returns something, until it is dropped. It has a connection of its own,
/// only while there is something to leave; a Redis that is away is another trouble, which its readers see by themselves.
pub async fn report(settings: &Settings, part: &str, process: &str, asked: impl Fn() -> Option<String>) {
    let Some(address) = settings.postgres.url.as_ref().map(ToString::to_string) else { return };
    let mut client: Option<Client> = None;
    let mut since: Option<Instant> = None;
    let mut left: Option<(Trouble, Instant)> = None;
    loop {
        sleep(EVERY).await;
        let trouble = asked().map(|text| Trouble::new(part, process, &address, &text));
        let Some(trouble) = trouble else {
            since = None;
            if let Some(client) = client.take() {
                if left.take().is_some() {
                    let arguments = vec![Value::from(process.to_owned())];
                    let key = settings.keys.database_trouble();
                    let _ = timeout(PATIENCE, script::run::<()>(&client, WITHDRAW, key, arguments)).await;
                }
                end(client).await;
            }
            continue;
        };
        let lasts = since.get_or_insert_with(Instant::now).elapsed() >= LASTS;
        let is_told = left.as_ref().is_some_and(|(told, at)| *told == trouble && at.elapsed() < AGAIN);
        if !lasts || is_told {
            continue;
        }
        if client.is_none() {
            client = redis::connect(settings).await.ok();
        }
        let Some(connected) = &client else { continue };
        match timeout(PATIENCE, trouble.leave(connected, &settings.keys)).await {
            Ok(Ok(())) => left = Some((trouble, Instant::now())),
            // The next one is made anew.
            _ => {
                if let Some(client) = client.take() {
                    end(client).await;
                }
            }
        }
    }
}

async fn end(client: Client) {
    let _ = timeout(PATIENCE, client.quit()).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_names_the_address_once_and_is_bounded() {
        let of = |text: &str| Trouble::new("worker", "w-1", "postgres://app:***@db/app", text);
        let away = of("postgresql postgres://app:***@db/app does not answer: connection refused");
        assert_eq!(away.text, "postgresql postgres://app:***@db/app does not answer: connection refused");
        assert!(away.is_outage());
        let refused = of("could not apply a batch:\n read-only database");
        assert_eq!(refused.text, "postgresql postgres://app:***@db/app: could not apply a batch: read-only database");
        assert!(!refused.is_outage());
        assert!(of(&"é".repeat(2_000)).text.len() <= LONGEST + '…'.len_utf8());
        assert_eq!(Trouble::read(&serde_json::to_string(&away).unwrap()), Some(away));
        assert_eq!(Trouble::read("{}"), None);
    }
}
