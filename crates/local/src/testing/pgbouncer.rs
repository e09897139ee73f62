//! A PgBouncer for tests.

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use nix::sys::signal::Signal;
use tokio::net::TcpStream;

use super::TempFolder;
use crate::identity::Identity;
use crate::redis::READY;
use crate::server::{Launch, Server};
use crate::{LocalError, Postgres, port, programs};

/// A PgBouncer before a PostgreSQL on 127.0.0.1, with that server's users and databases; gone when dropped.
#[derive(Debug)]
pub struct TestPgBouncer {
    port: u16,
    behind: u16,
    _server: Server,
    _folder: TempFolder,
}

/// Says how a [`TestPgBouncer`] lends its connections to PostgreSQL.
#[derive(Debug, Clone)]
pub struct PgBouncerOptions {
    /// The folder of its program, as [`unpacked`](super::unpacked) returns it.
    pub programs: PathBuf,
    /// `session`, `transaction` or `statement`. Default `transaction`.
    pub mode: &'static str,
    /// How many connections to PostgreSQL each database has. Default 4.
    pub pool_size: u32,
    /// Further settings, as in pgbouncer.ini.
    pub settings: Vec<(&'static str, String)>,
}

// === impl PgBouncerOptions ===

impl PgBouncerOptions {
    /// Takes the newest PgBouncer, in transaction mode; `None` where it cannot be had, after a line on stderr that says why.
    pub fn newest() -> Option<Self> {
        Self::of("pgbouncer")
    }

    /// The same with the last one that keeps no prepared statements, 1.18.
    pub fn old() -> Option<Self> {
        Self::of("pgbouncer-1.18")
    }

    fn of(name: &str) -> Option<Self> {
        let programs = programs::unpacked_folder(name)?;
        Some(Self { programs, mode: "transaction", pool_size: 4, settings: Vec::new() })
    }

    /// The same in another mode.
    #[must_use]
    pub fn mode(self, mode: &'static str) -> Self {
        Self { mode, ..self }
    }

    /// The same with a further setting.
    #[must_use]
    pub fn setting(mut self, name: &'static str, value: &str) -> Self {
        self.settings.push((name, value.to_owned()));
        self
    }
}

// === impl TestPgBouncer ===

impl TestPgBouncer {
    /// Starts one.
    ///
    /// # Errors
    ///
    /// As [`Redis::start`](crate::Redis::start).
    pub async fn start(postgres: &Postgres, options: &PgBouncerOptions) -> Result<Self, LocalError> {
        port::starting(None, None, |port| Self::start_on(port, postgres, options)).await
    }

    /// Returns the URL of a database of its PostgreSQL, as one that leads through it.
    pub fn through(&self, url: &str) -> String {
        url.replace(&format!("@127.0.0.1:{}/", self.behind), &format!("@127.0.0.1:{}/", self.port))
    }

    async fn start_on(port: u16, postgres: &Postgres, options: &PgBouncerOptions) -> Result<Self, LocalError> {
        let folder = TempFolder::new()?;
        let (config, users) = (folder.path().join("pgbouncer.ini"), folder.path().join("users.txt"));
        let PgBouncerOptions { mode, pool_size, .. } = options;
        let behind = postgres.port();
        let mut text = format!(
            "[databases]\n* = host=127.0.0.1 port={behind}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {}\npool_mode = {mode}\n\
             default_pool_size = {pool_size}\nmax_client_conn = 500\n",
            users.display(),
        );
        for (name, value) in &options.settings {
            text.push_str(&format!("{name} = {value}\n"));
        }
        let (user, password) = postgres.login();
        fs::write(&config, text).map_err(LocalError::prepare(&config))?;
        fs::write(&users, format!("\"{user}\" \"{password}\"\n")).map_err(LocalError::prepare(&users))?;
        // As PostgreSQL, it refuses to run as root.
        let identity = Identity::for_postgres(folder.path())?;
        if let Some(identity) = &identity {
            for path in [folder.path(), &config, &users] {
                identity.own(path)?;
            }
        }
        let launch = Launch {
            name: "pgbouncer",
            program: options.programs.join("pgbouncer"),
            args: vec![config.to_string_lossy().into_owned()],
            folder: folder.path().to_owned(),
            identity,
            farewell: Signal::SIGINT,
            abort: Signal::SIGKILL,
            remove: Some(folder.path().to_owned()),
        };
        let mut server = launch.start().await?;
        let is_there = || async { TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_ok() };
        server.wait_until_ready(READY, |_| is_there()).await?;
        Ok(Self { port, behind, _server: server, _folder: folder })
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::testing::TestPostgres;

    #[tokio::test]
    async fn a_pooler_leads_to_the_databases_of_its_server() {
        let postgres = TestPostgres::shared().await.unwrap();
        for options in [PgBouncerOptions::newest(), PgBouncerOptions::old()].into_iter().flatten() {
            let pooler = TestPgBouncer::start(postgres, &options).await.unwrap();
            let url = pooler.through(&postgres.url());
            assert_ne!(url, postgres.url());
            let output = Command::new("psql").args([&*url, "-XAtqc", "SELECT current_database()"]).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "penstock", "{output:?}");
        }
    }
}
