//! A redis-server of one's own.

use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::server::{Launch, Server};
use crate::{LocalError, port, programs};

/// How long loading the data may take.
pub(crate) const READY: Duration = Duration::from_secs(30);

/// How long the last write to disk may take.
const STOP: Duration = Duration::from_secs(10);

/// How long one question for readiness may take.
const ANSWER: Duration = Duration::from_secs(2);

/// A redis-server on 127.0.0.1, killed when dropped.
#[derive(Debug)]
pub struct Redis {
    folder: PathBuf,
    options: RedisOptions,
    port: u16,
    remove: Option<PathBuf>,
    server: Option<Server>,
}

/// Says how a [`Redis`] keeps its data and how much.
#[derive(Debug, Clone, Default)]
pub struct RedisOptions {
    /// Default [`Persistence::None`].
    pub persistence: Persistence,
    /// `maxmemory` in bytes, with noeviction; default unlimited.
    pub max_memory: Option<u64>,
    /// Further arguments, as redis-server takes them (`--requirepass`, `secret`); they win over all others.
    pub extra: Vec<String>,
    /// Default: a free one.
    pub port: Option<u16>,
    /// Where `port` is left open: the one that is tried before any free one.
    pub usual_port: Option<u16>,
    /// The folder of its redis-server; default: the first in PATH.
    pub programs: Option<PathBuf>,
}

/// Says what of a [`Redis`] survives its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Persistence {
    /// Nothing.
    #[default]
    None,
    /// All but at most the last second before a crash of the machine (`appendfsync everysec`).
    Aof,
}

// === impl Redis ===

impl Redis {
    /// Starts a redis-server in `folder`, made if missing, and waits until it answers.
    ///
    /// # Errors
    ///
    /// [`LocalError::FindProgram`] without redis-server, [`LocalError::FolderInUse`] when another one runs there,
    /// [`LocalError::EndedEarly`] and [`LocalError::NotReady`] with the end of its log.
    pub async fn start(folder: &Path, options: RedisOptions) -> Result<Self, LocalError> {
        Self::start_in(folder, options, None).await
    }

    pub(crate) async fn start_in(
        folder: &Path,
        options: RedisOptions,
        remove: Option<PathBuf>,
    ) -> Result<Self, LocalError> {
        let folder = std::path::absolute(folder).map_err(LocalError::prepare(folder))?;
        let stopped = |port| Self {
            folder: folder.clone(),
            options: options.clone(),
            port,
            remove: remove.clone(),
            server: None,
        };
        port::starting(options.port, options.usual_port, |port| stopped(port).launched()).await
    }

    /// Returns `redis://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Returns the port on 127.0.0.1, which stays the same over restarts.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the process ID, or `None` while it is stopped.
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

    /// Stops the server in order, its data on disk as far as its persistence goes; kills it after 10 s.
    ///
    /// # Errors
    ///
    /// [`LocalError::Stop`] when the system refuses; the server is killed all the same.
    pub async fn stop(&mut self) -> Result<(), LocalError> {
        match self.server.take() {
            Some(server) => server.stop(STOP).await,
            None => Ok(()),
        }
    }

    /// Kills the server (SIGKILL).
    pub fn kill(&mut self) {
        if let Some(server) = self.server.take() {
            server.kill();
        }
    }

    /// Starts the server again in its folder and on its port, after stopping it if it runs.
    ///
    /// # Errors
    ///
    /// As [`Redis::start`] and [`Redis::stop`].
    pub async fn restart(&mut self) -> Result<(), LocalError> {
        self.stop().await?;
        self.launch().await
    }

    /// Kills the server, removes its data, and starts it again on its port.
    ///
    /// # Errors
    ///
    /// As [`Redis::start`], and [`LocalError::Prepare`] when the data cannot be removed.
    pub async fn restart_empty(&mut self) -> Result<(), LocalError> {
        self.kill();
        let data = self.folder.join("appendonlydir");
        match std::fs::remove_dir_all(&data) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(LocalError::prepare(data)(error)),
            _ => self.launch().await,
        }
    }

    async fn launched(mut self) -> Result<Self, LocalError> {
        self.launch().await?;
        Ok(self)
    }

    async fn launch(&mut self) -> Result<(), LocalError> {
        let launch = Launch {
            name: "redis-server",
            program: match &self.options.programs {
                Some(folder) => folder.join("redis-server"),
                None => programs::redis_server()?,
            },
            args: self.args(),
            folder: self.folder.clone(),
            identity: None,
            farewell: Signal::SIGTERM,
            abort: Signal::SIGKILL,
            remove: self.remove.clone(),
        };
        let mut server = launch.start().await?;
        let port = self.port;
        server.wait_until_ready(READY, |pid| answers(port, pid)).await?;
        self.server = Some(server);
        Ok(())
    }

    fn args(&self) -> Vec<String> {
        let appendonly = match self.options.persistence {
            Persistence::None => "no",
            Persistence::Aof => "yes",
        };
        let (port, max_memory) = (self.port.to_string(), self.options.max_memory.unwrap_or(0).to_string());
        let own = [
            ("--bind", "127.0.0.1"),
            ("--port", &port),
            ("--save", ""),
            ("--appendonly", appendonly),
            ("--maxmemory", &max_memory),
        ];
        own.iter()
            .flat_map(|(name, value)| [*name, *value])
            .map(str::to_owned)
            .chain(self.options.extra.clone())
            .collect()
    }
}

/// Says whether the process `pid` answers on `port`, its data loaded: another process may have taken the port.
pub(crate) async fn answers(port: u16, pid: u32) -> bool {
    let asked = timeout(ANSWER, ask(port)).await;
    // Where a password is needed, any answer has to do.
    matches!(asked, Ok(Ok(answer)) if answer.starts_with("-NOAUTH")
        || answer.starts_with("+PONG") && answer.contains(&format!("\nprocess_id:{pid}\r\n")))
}

async fn ask(port: u16) -> io::Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    stream.write_all(b"PING\r\nINFO server\r\n").await?;
    // A Sentinel knows no QUIT.
    stream.shutdown().await?;
    let mut answer = String::new();
    stream.take(64 * 1024).read_to_string(&mut answer).await?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TempFolder;

    async fn command(redis: &Redis, command: &str) -> String {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, redis.port())).await.unwrap();
        stream.write_all(format!("{command}\r\nQUIT\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    fn durable() -> RedisOptions {
        RedisOptions { persistence: Persistence::Aof, ..RedisOptions::default() }
    }

    #[tokio::test]
    async fn data_survives_stop_kill_and_restart_on_the_same_port() {
        let folder = TempFolder::new().unwrap();
        let mut redis = Redis::start(folder.path(), durable()).await.unwrap();
        let (url, pid) = (redis.url(), redis.pid());
        assert!(command(&redis, "SET a 1").await.starts_with("+OK"));
        redis.restart().await.unwrap();
        assert_eq!(redis.url(), url);
        assert_ne!(redis.pid(), pid);
        assert!(command(&redis, "GET a").await.contains("\r\n1\r\n"));
        redis.kill();
        assert_eq!(redis.pid(), None);
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, redis.port())).await.is_err());
        redis.restart().await.unwrap();
        assert!(command(&redis, "GET a").await.contains("\r\n1\r\n"));
        redis.stop().await.unwrap();
        redis.stop().await.unwrap();
    }

    #[tokio::test]
    async fn nothing_survives_an_empty_restart_but_the_port() {
        let folder = TempFolder::new().unwrap();
        let mut redis = Redis::start(folder.path(), durable()).await.unwrap();
        let url = redis.url();
        assert!(command(&redis, "SET a 1").await.starts_with("+OK"));
        redis.restart_empty().await.unwrap();
        assert_eq!(redis.url(), url);
        assert!(command(&redis, "GET a").await.starts_with("$-1"));
        assert!(command(&redis, "SET a 2").await.starts_with("+OK"));
        redis.restart().await.unwrap();
        assert!(command(&redis, "GET a").await.contains("\r\n2\r\n"));
    }

    #[tokio::test]
    async fn a_torn_end_of_the_append_only_file_does_not_stop_a_start() {
        let folder = TempFolder::new().unwrap();
        let mut redis = Redis::start(folder.path(), durable()).await.unwrap();
        assert!(command(&redis, "SET a 1").await.starts_with("+OK"));
        redis.stop().await.unwrap();
        let file = std::fs::read_dir(folder.path().join("appendonlydir")).unwrap().map(|entry| entry.unwrap().path());
        let file = file.filter(|path| path.to_str().unwrap().ends_with(".incr.aof")).max().unwrap();
        let mut bytes = std::fs::read(&file).unwrap();
        bytes.extend_from_slice(b"*3\r\n$3\r\nSET\r\n$1\r\nb\r\n$1");
        std::fs::write(&file, bytes).unwrap();
        let redis = Redis::start(folder.path(), durable()).await.unwrap();
        assert!(command(&redis, "GET a").await.contains("\r\n1\r\n"));
    }

    #[tokio::test]
    async fn a_refused_option_ends_with_the_servers_own_words() {
        let folder = TempFolder::new().unwrap();
        let options = RedisOptions { extra: vec!["--no-such-option".into(), "1".into()], ..RedisOptions::default() };
        let error = Redis::start(folder.path(), options).await.unwrap_err().to_string();
        assert!(error.contains("no-such-option"), "{error}");
    }

    #[tokio::test]
    async fn a_taken_port_is_refused_when_it_was_asked_for() {
        let folder = TempFolder::new().unwrap();
        let taken = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = Some(taken.local_addr().unwrap().port());
        let error = Redis::start(folder.path(), RedisOptions { port, ..RedisOptions::default() }).await.unwrap_err();
        assert!(error.is_port_taken(), "{error}");
    }

    #[tokio::test]
    async fn a_usual_port_is_taken_where_it_is_free_and_another_one_where_it_is_not() {
        let folder = TempFolder::new().unwrap();
        let held = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let usual = held.local_addr().unwrap().port();
        let options = || RedisOptions { usual_port: Some(usual), ..durable() };
        let mut redis = Redis::start(folder.path(), options()).await.unwrap();
        assert_ne!(redis.port(), usual);
        redis.stop().await.unwrap();
        drop(held);
        assert_eq!(Redis::start(folder.path(), options()).await.unwrap().port(), usual);
    }

    #[tokio::test]
    async fn a_server_that_was_killed_from_outside_is_told_and_comes_back() {
        let folder = TempFolder::new().unwrap();
        let mut redis = Redis::start(folder.path(), durable()).await.unwrap();
        assert!(command(&redis, "SET a 1").await.starts_with("+OK"));
        assert_eq!(redis.ended().unwrap(), None);
        let pid = nix::unistd::Pid::from_raw(redis.pid().unwrap().cast_signed());
        nix::sys::signal::kill(pid, Signal::SIGKILL).unwrap();
        let status = loop {
            if let Some(status) = redis.ended().unwrap() {
                break status;
            }
            tokio::time::sleep(crate::server::LOOK).await;
        };
        assert!(status.to_string().contains("SIGKILL"), "{status}");
        redis.restart().await.unwrap();
        assert_eq!(redis.ended().unwrap(), None);
        assert!(command(&redis, "GET a").await.contains("\r\n1\r\n"));
        redis.stop().await.unwrap();
        assert_eq!(redis.ended().unwrap(), None, "it was stopped");
    }

    #[tokio::test]
    async fn limits_and_further_arguments_reach_the_server() {
        let folder = TempFolder::new().unwrap();
        let extra = vec!["--requirepass".into(), "secret".into()];
        let options = RedisOptions { max_memory: Some(123 << 20), extra, ..RedisOptions::default() };
        let redis = Redis::start(folder.path(), options).await.unwrap();
        let answer = command(&redis, "AUTH secret\r\nCONFIG GET maxmemory").await;
        assert!(answer.contains("128974848"), "{answer}");
    }

    #[tokio::test]
    async fn a_dropped_server_is_gone() {
        let folder = TempFolder::new().unwrap();
        let redis = Redis::start(folder.path(), RedisOptions::default()).await.unwrap();
        let port = redis.port();
        drop(redis);
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_err());
    }

    #[test]
    fn starting_can_be_spawned() {
        fn spawnable<T: Send>(_: &T) {}
        spawnable(&Redis::start(Path::new("x"), RedisOptions::default()));
    }
}
