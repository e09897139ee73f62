//! The database that a command works on: how it is reached, and who is told how the work goes.

use std::time::Duration;

use penstock_postgres::{Address, PasswordSource};
use sqlx::postgres::PgConnection;
use tokio::time::timeout;

use super::SchemaError;
use super::news::{News, log};

/// How long a connection may take where nobody says otherwise.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The database that a command works on.
#[derive(Clone, Copy)]
pub struct Database<'a> {
    url: &'a str,
    password: Option<&'a PasswordSource>,
    schema: Option<&'a str>,
    connect_timeout: Duration,
    shares_sessions: bool,
    tell: &'a (dyn Fn(News<'_>) + Send + Sync),
}

// === impl Database ===

impl<'a> Database<'a> {
    /// Takes a URL; connections may take 10 s, and the log is told.
    #[must_use]
    pub fn new(url: &'a str) -> Self {
        let shares_sessions = false;
        Self { url, password: None, schema: None, connect_timeout: CONNECT_TIMEOUT, shares_sessions, tell: &log }
    }

    /// The same with another time for each connection.
    #[must_use]
    pub fn connect_timeout(self, connect_timeout: Duration) -> Self {
        Self { connect_timeout, ..self }
    }

    /// The same with a password from elsewhere than the URL.
    #[must_use]
    pub fn password(self, password: &'a PasswordSource) -> Self {
        Self { password: Some(password), ..self }
    }

    /// The same with the AppView's tables in that schema.
    #[must_use]
    pub fn schema(self, schema: Option<&'a str>) -> Self {
        Self { schema, ..self }
    }

    /// Returns the schema that is asked for.
    pub(super) fn wanted_schema(&self) -> Option<&'a str> {
        self.schema
    }

    /// The same with somebody else told than the log.
    #[must_use]
    pub fn telling(self, tell: &'a (dyn Fn(News<'_>) + Send + Sync)) -> Self {
        Self { tell, ..self }
    }

    /// The same behind a pooler that lends each session to others between transactions, or not.
    pub(super) fn sharing_sessions(self, shares_sessions: bool) -> Self {
        Self { shares_sessions, ..self }
    }

    /// Returns whether what is set for a session reaches others.
    pub(super) fn shares_sessions(&self) -> bool {
        self.shares_sessions
    }

    /// Tells how the work goes.
    pub(super) fn tell(&self, news: News<'_>) {
        (self.tell)(news);
    }

    /// Reads the address.
    pub(super) fn options(&self) -> Result<Address, SchemaError> {
        let address = self.url.parse::<Address>().map_err(SchemaError::Url)?.named("penstock-migrate");
        Ok(address.with_password(self.password.cloned().unwrap_or_default()))
    }

    /// Connects; the server may be gone without a word, and is not waited for without end.
    pub(super) async fn connect(&self, options: &Address) -> Result<PgConnection, SchemaError> {
        let address = || options.to_string();
        match timeout(self.connect_timeout, options.connect()).await {
            Ok(Ok(conn)) => Ok(conn),
            Ok(Err(source)) => Err(SchemaError::Reach { address: address(), source }),
            Err(_) => Err(SchemaError::Silent { address: address(), waited: self.connect_timeout }),
        }
    }
}
