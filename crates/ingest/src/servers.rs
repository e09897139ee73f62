//! Whether the relay, Redis and PostgreSQL answer this ingest.

use std::error::Error;
use std::time::Duration;

use penstock_core::servers::{Kind, Server, is_unanswered};
use penstock_core::settings::Settings;

/// How often it is tried at least whether Redis answers again.
const REDIS: Duration = Duration::from_secs(2);

/// How often it is tried at least whether PostgreSQL answers again.
const POSTGRES: Duration = Duration::from_secs(30);

/// For how long after an outage of Redis a lease that is gone is gone because of it.
const AFTERMATH: Duration = Duration::from_secs(60);

/// The servers of one ingest; clones tell of the same ones.
#[derive(Clone, Debug)]
pub(crate) struct Servers {
    pub(crate) relay: Server,
    pub(crate) redis: Server,
    pub(crate) postgres: Server,
}

// === impl Servers ===

impl Servers {
    /// Makes those that the settings name.
    pub(crate) fn new(settings: &Settings) -> Self {
        let relay = settings.relay.urls.first().map(ToString::to_string).unwrap_or_default();
        let database = settings.postgres.url.as_ref().map(ToString::to_string).unwrap_or_default();
        let means = "nothing is lost while the relay keeps its events";
        Self {
            relay: Server::new(Kind::Relay, relay, means, settings.relay.backoff_max),
            redis: Server::new(Kind::Redis, &settings.redis_url, means, REDIS),
            postgres: Server::new(Kind::Postgres, database, "reading goes on while redis is complete", POSTGRES),
        }
    }

    /// Returns whether a request to Redis failed because it does not answer, which is told for all of them.
    pub(crate) fn is_of_outage(&self, error: &(dyn Error + 'static)) -> bool {
        self.redis.is_away() || is_unanswered(error)
    }

    /// Returns whether Redis is away, or was a moment ago.
    pub(crate) fn was_redis_away(&self) -> bool {
        self.redis.was_away_within(AFTERMATH)
    }
}
