//! The address of a database as the client takes it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use penstock_core::settings::{Postgres, PostgresParts, PostgresServer, PostgresUrl, SslMode, SslRoot, Target};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use sqlx::{ConnectOptions, Connection};
use thiserror::Error;
use url::Url;

use crate::password::PasswordSource;

/// Where a database is, and how one logs in; clones share which server was found last.
#[derive(Clone)]
pub struct Address {
    url: PostgresUrl,
    password: PasswordSource,
    application: Option<&'static str>,
    statements: Option<usize>,
    /// Which of the servers is tried first.
    pub(crate) first: Arc<AtomicUsize>,
}

/// Why a text is no address.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("invalid database url: allowed: {0}")]
pub struct AddressError(String);

// === impl Address ===

impl Address {
    /// Takes the address of the settings; none where none is set.
    #[must_use]
    pub fn of(settings: &Postgres) -> Option<Self> {
        Some(Self::new(settings.url.clone()?, PasswordSource::of(settings)))
    }

    /// Takes a URL with what its password is read from.
    #[must_use]
    pub fn new(url: PostgresUrl, password: PasswordSource) -> Self {
        Self { url, password, application: None, statements: None, first: Arc::default() }
    }

    /// The same, with a password from there.
    #[must_use]
    pub fn with_password(self, password: PasswordSource) -> Self {
        Self { password, ..self }
    }

    /// The same, with the name that the server shows for its connections.
    #[must_use]
    pub fn named(self, application: &'static str) -> Self {
        Self { application: Some(application), ..self }
    }

    /// The same, with room for so many prepared statements.
    #[must_use]
    pub fn statements(self, statements: usize) -> Self {
        Self { statements: Some(statements), ..self }
    }

    /// Returns the URL, which is shown without its password.
    #[must_use]
    pub fn url(&self) -> &PostgresUrl {
        &self.url
    }

    /// Returns whether every connection goes to the same server with the same password.
    #[must_use]
    pub fn is_fixed(&self) -> bool {
        !self.is_choosing() && self.password == PasswordSource::Address
    }

    /// Returns whether servers are asked what they are before one is taken.
    pub(crate) fn is_choosing(&self) -> bool {
        self.parts().servers.len() > 1 || self.parts().target != Target::Any
    }

    pub(crate) fn parts(&self) -> &PostgresParts {
        self.url.parts()
    }

    /// Makes a connection: over the server that fits, with the password as it is now.
    ///
    /// # Errors
    /// No server can be reached, none is what is asked for, the login is refused, or the password cannot be read.
    pub async fn connect(&self) -> sqlx::Result<PgConnection> {
        if self.is_choosing() {
            return self.choose().await.map(|(connection, _)| connection);
        }
        PgConnection::connect_with(&self.next().await?).await
    }

    /// Returns the options of the next connection: the server that fits, and the password as it is now.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn next(&self) -> sqlx::Result<PgConnectOptions> {
        if self.is_choosing() {
            let (connection, options) = self.choose().await?;
            let _ = connection.close().await;
            return Ok(options);
        }
        let password = self.read_password().await?;
        self.options(self.parts().servers.first(), password.as_deref())
    }

    /// Reads the password that is not in the address.
    pub(crate) async fn read_password(&self) -> sqlx::Result<Option<String>> {
        self.password.read().await.map_err(|error| sqlx::Error::Configuration(Box::new(error)))
    }

    /// Returns options as far as they are known without asking anybody.
    ///
    /// # Errors
    /// The client refuses an option.
    pub fn known(&self) -> sqlx::Result<PgConnectOptions> {
        self.options(self.parts().servers.first(), None)
    }

    /// Makes the client's options for one of the servers.
    pub(crate) fn options(
        &self,
        server: Option<&PostgresServer>,
        password: Option<&str>,
    ) -> sqlx::Result<PgConnectOptions> {
        let parts = self.parts();
        // The client looks into ~/.pgpass, and at the variables of libpq, for what an address does not say.
        let mut url = Url::parse("postgres:///").map_err(|error| sqlx::Error::Configuration(Box::new(error)))?;
        let port = server.map(|server| server.port.to_string());
        let root = parts.ssl_root.as_ref().and_then(|root| match root {
            SslRoot::System => None,
            SslRoot::File(file) => Some(file.as_str()),
        });
        for (name, value) in [
            ("host", server.map(|server| server.host.as_str())),
            ("port", port.as_deref()),
            ("user", parts.user.as_deref()),
            ("dbname", parts.database.as_deref()),
            ("password", password.or(parts.password.as_deref())),
            ("options", parts.options.as_deref()),
            ("sslcert", parts.ssl_cert.as_deref()),
            ("sslkey", parts.ssl_key.as_deref()),
            ("sslrootcert", root),
            ("application_name", parts.application_name.as_deref()),
        ] {
            if let Some(value) = value {
                url.query_pairs_mut().append_pair(name, value);
            }
        }
        let options: PgConnectOptions = url.as_str().parse()?;
        // A pooler refuses settings at the start of a session that it does not know; floating-point numbers need none.
        let options = self.tls(options, server).extra_float_digits(None).disable_statement_logging();
        let options = self.application.iter().fold(options, |options, name| options.application_name(name));
        Ok(self.statements.into_iter().fold(options, PgConnectOptions::statement_cache_capacity))
    }

    /// Sets what libpq makes of the parameters of TLS, and of their variables in the environment.
    fn tls(&self, options: PgConnectOptions, server: Option<&PostgresServer>) -> PgConnectOptions {
        let parts = self.parts();
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let (root, mode) = (variable("PGSSLROOTCERT"), variable("PGSSLMODE"));
        let by_system = match &parts.ssl_root {
            Some(root) => *root == SslRoot::System,
            None => root.as_deref() == Some("system"),
        };
        let has_root = parts.ssl_root.is_some() || root.is_some();
        let mode = match parts.ssl_mode {
            // The client would never try TLS.
            Some(SslMode::Allow) => PgSslMode::Prefer,
            Some(SslMode::Disable) => PgSslMode::Disable,
            Some(SslMode::Prefer) => PgSslMode::Prefer,
            Some(SslMode::Require) if !has_root => PgSslMode::Require,
            Some(SslMode::Require | SslMode::VerifyCa) => PgSslMode::VerifyCa,
            Some(SslMode::VerifyFull) => PgSslMode::VerifyFull,
            None if by_system && mode.is_none() => PgSslMode::VerifyFull,
            None => match options.get_ssl_mode() {
                PgSslMode::Require if has_root => PgSslMode::VerifyCa,
                PgSslMode::Allow => PgSslMode::Prefer,
                mode => mode,
            },
        };
        // Nobody listens in on a socket, and no server speaks TLS over it.
        let is_socket =
            server.is_some_and(PostgresServer::is_socket) || (server.is_none() && options.get_host().starts_with('/'));
        let mode = if is_socket { PgSslMode::Disable } else { mode };
        // Without further certificates the client takes the system's.
        let options = if by_system { options.ssl_root_cert_from_pem(Vec::new()) } else { options };
        options.ssl_mode(mode)
    }
}

impl FromStr for Address {
    type Err = AddressError;

    /// Reads a URL, whose password stays as it is.
    fn from_str(url: &str) -> Result<Self, AddressError> {
        PostgresUrl::read(url).map(|url| Self::new(url, PasswordSource::Address)).map_err(AddressError)
    }
}

impl fmt::Display for Address {
    /// Shows the servers, without user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let servers = &self.parts().servers;
        if servers.is_empty() {
            return match self.known() {
                Ok(known) if known.get_host().starts_with('/') => f.write_str(known.get_host()),
                Ok(known) => write!(f, "{}:{}", known.get_host(), known.get_port()),
                Err(_) => f.write_str("the default address"),
            };
        }
        for (index, server) in servers.iter().enumerate() {
            write!(f, "{}{server}", if index > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({})", self.url)
    }
}
