//! Whether Redis and PostgreSQL answer this worker.

use std::error::Error;
use std::time::Duration;

use penstock_core::servers::{self, Kind, Server};
use penstock_core::settings::Settings;
use tokio::sync::Notify;

use crate::action::Action;
use crate::progress::Progress;

/// How often it is tried at least whether Redis answers again.
const REDIS: Duration = Duration::from_secs(2);

/// How often it is tried whether PostgreSQL answers again.
pub(crate) const POSTGRES: Duration = Duration::from_secs(2);

/// The servers of one worker.
#[derive(Debug)]
pub(crate) struct Servers {
    pub(crate) redis: Server,
    pub(crate) postgres: Server,
    /// A request to PostgreSQL got no answer.
    pub(crate) suspected: Notify,
}

// === impl Servers ===

impl Servers {
    /// Makes those that the settings name.
    pub(crate) fn new(settings: &Settings, progress: &Progress) -> Self {
        let behind = |progress: Progress| move || progress.snapshot().lag;
        let database = settings.postgres.url.as_ref().map(ToString::to_string).unwrap_or_default();
        let means = "nothing is lost";
        let redis = Server::with_backlog(Kind::Redis, &settings.redis_url, means, REDIS, behind(progress.clone()));
        let postgres = Server::with_backlog(Kind::Postgres, database, means, POSTGRES, behind(progress.clone()));
        Self { redis, postgres, suspected: Notify::new() }
    }

    /// Returns the one that an action is asked of.
    pub(crate) fn of(&self, action: Action) -> &Server {
        if action.is_of_postgres() { &self.postgres } else { &self.redis }
    }

    /// Records that an action succeeded. Whether Redis answers, its connection records.
    pub(crate) fn answered(&self, action: Action) {
        if action.is_of_postgres() {
            self.postgres.answered();
        }
    }

    /// Has it found out whether the server of an action that got no answer is away.
    pub(crate) fn suspect(&self, action: Action) {
        if action.is_of_postgres() {
            self.suspected.notify_one();
        }
    }
}

/// Returns whether an error says that a server could not be reached or gave no answer. A PostgreSQL that starts or stops
/// answers nothing else.
pub(crate) fn is_unanswered(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(sql) = error.downcast_ref::<sqlx::Error>() {
            let code = sql.as_database_error().and_then(|error| error.code());
            let is_closed = matches!(sql, sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed);
            let is_ending =
                code.is_some_and(|code| code.starts_with("08") || matches!(&*code, "57P01" | "57P02" | "57P03"));
            if is_closed || is_ending {
                return true;
            }
        }
        cause = error.source();
    }
    servers::is_unanswered(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreError;

    #[test]
    fn a_pool_whose_connections_are_all_in_use_is_no_outage() {
        let refused = || sqlx::Error::Io(std::io::ErrorKind::ConnectionRefused.into());
        for (error, expected) in [
            (refused(), true),
            (sqlx::Error::PoolTimedOut, false),
            (sqlx::Error::RowNotFound, false),
            (sqlx::Error::Protocol("unexpected message".to_owned()), true),
        ] {
            assert_eq!(is_unanswered(&StoreError::Connect(error)), expected);
        }
        assert_eq!(penstock_core::causes::innermost(&StoreError::Connect(refused())), "connection refused");
    }
}
