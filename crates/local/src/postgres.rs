//! A PostgreSQL of one's own.

mod setup;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::net::TcpStream;

use crate::identity::Identity;
use crate::server::{Launch, Server, run_as};
use crate::{LocalError, log, port};

/// How long recovery after an unclean end may take, on a machine that has much else to do.
const READY: Duration = Duration::from_secs(180);

/// How long the shutdown checkpoint may take.
const STOP: Duration = Duration::from_secs(30);

/// The superuser, and the first database.
const NAME: &str = "penstock";

/// A PostgreSQL on 127.0.0.1 with a password of its own, ended when dropped.
#[derive(Debug)]
pub struct Postgres {
    folder: PathBuf,
    options: PostgresOptions,
    /// Where its programs are.
    programs: PathBuf,
    identity: Option<Identity>,
    password: String,
    port: u16,
    remove: Option<PathBuf>,
    server: Option<Server>,
}

/// Says how a [`Postgres`] keeps its data.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    /// Whether a commit survives a crash of the machine (fsync); without, it is much faster. Default true.
    pub durable: bool,
    /// Further settings, as in postgresql.conf; they win over all others.
    pub settings: Vec<(String, String)>,
    /// Default: a free one.
    pub port: Option<u16>,
    /// Where `port` is left open: the one that is tried before any free one.
    pub usual_port: Option<u16>,
    /// The folder of its programs; default: of the version that made the data, else the first in PATH, else the newest.
    pub programs: Option<PathBuf>,
}

// === impl PostgresOptions ===

impl Default for PostgresOptions {
    fn default() -> Self {
        Self { durable: true, settings: Vec::new(), port: None, usual_port: None, programs: None }
    }
}

// === impl Postgres ===

impl Postgres {
    /// Starts a PostgreSQL in `folder`, made if missing with a database cluster inside, and waits until it answers.
    ///
    /// As root, it runs as the owner of existing data, else as the user `postgres` or `nobody`.
    ///
    /// # Errors
    ///
    /// [`LocalError::FindProgram`] without PostgreSQL, [`LocalError::FolderInUse`] when another one runs there,
    /// [`LocalError::ReachFolder`] when root's folder is closed to the user it runs as,
    /// [`LocalError::EndedEarly`] and [`LocalError::NotReady`] with the end of its log.
    pub async fn start(folder: &Path, options: PostgresOptions) -> Result<Self, LocalError> {
        Self::start_in(folder, options, None).await
    }

    pub(crate) async fn start_in(
        folder: &Path,
        options: PostgresOptions,
        remove: Option<PathBuf>,
    ) -> Result<Self, LocalError> {
        let folder = std::path::absolute(folder).map_err(LocalError::prepare(folder))?;
        let setup::Cluster { programs, identity, password } =
            setup::find_or_make(&folder, options.durable, options.programs.clone()).await?;
        let stopped = |port| Self {
            folder: folder.clone(),
            options: options.clone(),
            programs: programs.clone(),
            identity: identity.clone(),
            password: password.clone(),
            port,
            remove: remove.clone(),
            server: None,
        };
        port::starting(options.port, options.usual_port, |port| stopped(port).launched()).await
    }

    /// Returns the URL of the database `penstock`, password included.
    pub fn url(&self) -> String {
        self.url_for(NAME)
    }

    /// Returns the URL of a database whose name needs no escaping, password included.
    pub fn url_for(&self, database: &str) -> String {
        format!("postgres://{NAME}:{}@127.0.0.1:{}/{database}", self.password, self.port)
    }

    /// Returns the port on 127.0.0.1, which stays the same over restarts.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the superuser and its password.
    pub(crate) fn login(&self) -> (&str, &str) {
        (NAME, &self.password)
    }

    /// Returns the process ID of the first of its processes, or `None` while it is stopped.
    pub fn pid(&self) -> Option<u32> {
        self.server.as_ref().map(Server::pid)
    }

    /// Returns how the server ended by itself or was killed from outside, or `None` while it runs or is stopped.
    ///
    /// # Errors
    ///
    /// [`LocalError::Stop`] when the system does not tell.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>, LocalError> {
        self.server.as_mut().map_or(Ok(None), Server::ended)
    }

    /// Makes an empty database, and returns its URL.
    ///
    /// # Errors
    ///
    /// [`LocalError::Run`] with the server's words when it refuses.
    pub async fn create_database(&self, database: &str) -> Result<String, LocalError> {
        let mut command = Command::new(self.programs.join("createdb"));
        command.args(["--host=127.0.0.1", &format!("--port={}", self.port), "--username", NAME, "--no-password"]);
        // Nobody connects to template0, and a template that is in use cannot be copied.
        command.args(["--maintenance-db=postgres", "--template=template0", "--", database]);
        command.env("PGPASSWORD", &self.password).env("PGCONNECT_TIMEOUT", "10").env("PGSSLMODE", "disable");
        setup::run("createdb", &mut command, "").await?;
        Ok(self.url_for(database))
    }

    /// Copies the data of this running server into `folder`, such that a server started there follows this one as its standby.
    ///
    /// # Errors
    ///
    /// [`LocalError::Run`] with the words of `pg_basebackup`.
    pub(crate) async fn copy_for_standby(&self, folder: &Path) -> Result<(), LocalError> {
        setup::write_password(folder, &self.password, self.identity.as_ref())?;
        let mut command = Command::new(self.programs.join("pg_basebackup"));
        command.args(["--host=127.0.0.1", &format!("--port={}", self.port), "--username", NAME, "--no-password"]);
        command.args(["--wal-method=stream", "--checkpoint=fast", "--write-recovery-conf", "--no-sync", "--pgdata"]);
        command.arg(setup::data_folder(folder)).current_dir(folder);
        command.env("PGPASSWORD", &self.password).env("PGCONNECT_TIMEOUT", "10").env("PGSSLMODE", "disable");
        run_as(&mut command, self.identity.as_ref());
        setup::run("pg_basebackup", &mut command, "").await
    }

    /// Returns how another server like this one is started.
    pub(crate) fn options(&self) -> PostgresOptions {
        PostgresOptions { port: None, usual_port: None, programs: Some(self.programs.clone()), ..self.options.clone() }
    }

    /// Returns the folder of its data.
    pub fn data(&self) -> PathBuf {
        setup::data_folder(&self.folder)
    }

    /// Stops the server in order (a "fast" shutdown, which disconnects clients); ends it at once after 30 s.
    ///
    /// # Errors
    ///
    /// [`LocalError::Stop`] when the system refuses; the server is ended all the same.
    pub async fn stop(&mut self) -> Result<(), LocalError> {
        match self.server.take() {
            Some(server) => server.stop(STOP).await,
            None => Ok(()),
        }
    }

    /// Kills the server (SIGKILL); its children follow by themselves.
    pub fn kill(&mut self) {
        if let Some(server) = self.server.take() {
            server.kill();
        }
    }

    /// Starts the server again in its folder and on its port, after stopping it if it runs.
    ///
    /// # Errors
    ///
    /// As [`Postgres::start`] and [`Postgres::stop`].
    pub async fn restart(&mut self) -> Result<(), LocalError> {
        self.stop().await?;
        self.launch().await
    }

    async fn launched(mut self) -> Result<Self, LocalError> {
        self.launch().await?;
        Ok(self)
    }

    async fn launch(&mut self) -> Result<(), LocalError> {
        let launch = Launch {
            name: "postgres",
            program: self.programs.join("postgres"),
            args: self.args(),
            folder: self.folder.clone(),
            identity: self.identity.clone(),
            farewell: Signal::SIGINT,
            // Killed, it would leave its shared memory segment to the system for good.
            abort: Signal::SIGQUIT,
            remove: self.remove.clone(),
        };
        let mut server = launch.start().await?;
        let (port, pid_file) = (self.port, setup::data_folder(&self.folder).join("postmaster.pid"));
        server.wait_until_ready(READY, |pid| answers(pid_file.clone(), port, pid)).await?;
        self.server = Some(server);
        Ok(())
    }

    fn args(&self) -> Vec<String> {
        let durable = if self.options.durable { "on" } else { "off" };
        let port = self.port.to_string();
        let own = [
            ("listen_addresses", "127.0.0.1"),
            ("port", &port),
            // A path of more than 107 bytes cannot name a socket.
            ("unix_socket_directories", ""),
            ("logging_collector", "off"),
            ("log_destination", "stderr"),
            ("max_connections", "200"),
            ("fsync", durable),
            ("synchronous_commit", durable),
            ("full_page_writes", durable),
        ];
        let further = self.options.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let settings =
            own.into_iter().chain(further).flat_map(|(name, value)| ["-c".into(), format!("{name}={value}")]);
        ["-D".into(), setup::data_folder(&self.folder).display().to_string()].into_iter().chain(settings).collect()
    }
}

/// Says whether the process `pid` is ready, by its own word in `postmaster.pid`, and reached on `port`.
async fn answers(pid_file: PathBuf, port: u16, pid: u32) -> bool {
    let Ok(Some(text)) = log::read_if_there(&pid_file) else { return false };
    // Line 1 is the process ID, line 8 its state (miscadmin.h, LOCK_FILE_LINE_PM_STATUS): what pg_ctl waits for.
    let line = |number: usize| text.lines().nth(number - 1).map(str::trim);
    line(1) == Some(&pid.to_string())
        && line(8) == Some("ready")
        && TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{TempFolder, TestPostgres, fresh_database};

    fn psql(url: &str, sql: &str) -> String {
        let output = Command::new("psql").args([url, "-XAtqc", sql]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    #[tokio::test]
    async fn data_survives_stop_kill_and_restart_on_the_same_port() {
        let folder = TempFolder::new().unwrap();
        let mut postgres = Postgres::start(folder.path(), PostgresOptions::default()).await.unwrap();
        let url = postgres.url();
        psql(&url, "CREATE TABLE t (n int); INSERT INTO t VALUES (1)");
        postgres.restart().await.unwrap();
        assert_eq!(postgres.url(), url);
        psql(&url, "INSERT INTO t VALUES (2)");
        postgres.kill();
        assert_eq!(postgres.pid(), None);
        assert!(folder.path().join("data/postmaster.pid").exists());
        postgres.restart().await.unwrap();
        assert_eq!(psql(&url, "SELECT sum(n) FROM t"), "3");
        drop(postgres);
        let again = Postgres::start(folder.path(), PostgresOptions::default()).await.unwrap();
        assert_eq!(psql(&again.url(), "SELECT sum(n) FROM t"), "3");
    }

    #[tokio::test]
    async fn a_taken_usual_port_gives_way_and_a_killed_server_is_told_and_comes_back() {
        let held = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let usual_port = Some(held.local_addr().unwrap().port());
        let options = PostgresOptions { usual_port, ..PostgresOptions::default() };
        let mut postgres = TestPostgres::start_with(options).await.unwrap();
        assert_ne!(Some(postgres.port()), usual_port);
        psql(&postgres.url(), "CREATE TABLE t ()");
        assert_eq!(postgres.ended().unwrap(), None);
        let pid = nix::unistd::Pid::from_raw(postgres.pid().unwrap().cast_signed());
        nix::sys::signal::kill(pid, Signal::SIGKILL).unwrap();
        while postgres.ended().unwrap().is_none() {
            tokio::time::sleep(crate::server::LOOK).await;
        }
        postgres.restart().await.unwrap();
        assert_eq!(psql(&postgres.url(), "SELECT count(*) FROM t"), "0");
    }

    #[tokio::test]
    async fn it_listens_on_loopback_and_asks_for_the_password() {
        let postgres = TestPostgres::shared().await.unwrap();
        let shown = psql(&postgres.url(), "SELECT current_setting('listen_addresses') || current_setting('fsync')");
        assert_eq!(shown, "127.0.0.1off");
        assert_eq!(psql(&postgres.url(), "SHOW server_encoding"), "UTF8");
        let wrong = postgres.url().replace(&postgres.password, "wrong");
        let output = Command::new("psql").args([&wrong, "-XAtqc", "SELECT 1"]).output().unwrap();
        assert!(!output.status.success());
    }

    #[tokio::test]
    async fn a_fresh_database_is_empty_and_ones_own() {
        let (one, two) = (fresh_database().await.unwrap(), fresh_database().await.unwrap());
        assert_ne!(one, two);
        psql(&one, "CREATE TABLE t ()");
        psql(&two, "CREATE TABLE t ()");
    }

    #[tokio::test]
    async fn fresh_databases_can_be_made_at_once() {
        let made = [fresh_database(), fresh_database(), fresh_database(), fresh_database()].map(tokio::spawn);
        for database in made {
            database.await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn a_database_that_exists_is_refused_by_name() {
        let postgres = TestPostgres::shared().await.unwrap();
        let error = postgres.create_database(NAME).await.unwrap_err().to_string();
        assert!(error.contains("already exists"), "{error}");
    }

    #[tokio::test]
    async fn a_folder_in_use_is_refused_to_a_second_server() {
        tokio::time::pause();
        let postgres = TestPostgres::shared().await.unwrap();
        let error = Postgres::start(&postgres.folder, PostgresOptions::default()).await.unwrap_err();
        assert!(matches!(&error, LocalError::FolderInUse { path } if *path == postgres.folder), "{error}");
    }

    #[tokio::test]
    async fn a_refused_setting_ends_with_the_servers_own_words() {
        let settings = vec![("no_such_setting".to_owned(), "1".to_owned())];
        let error =
            TestPostgres::start_with(PostgresOptions { settings, ..PostgresOptions::default() }).await.unwrap_err();
        assert!(error.to_string().contains("no_such_setting"), "{error}");
    }

    #[tokio::test]
    async fn a_dropped_server_is_gone() {
        let postgres = TestPostgres::start().await.unwrap();
        let (port, folder) = (postgres.port(), postgres.folder.clone());
        drop(postgres);
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_err());
        assert!(!folder.exists());
    }
}
