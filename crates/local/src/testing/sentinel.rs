//! A Sentinel for tests.

use std::fs;

use nix::sys::signal::Signal;

use super::TempFolder;
use crate::redis::{READY, answers};
use crate::server::{Launch, Server};
use crate::{LocalError, port, programs};

/// A Sentinel that watches one primary on 127.0.0.1, gone when dropped.
#[derive(Debug)]
pub struct TestSentinel {
    port: u16,
    _server: Server,
    _folder: TempFolder,
}

impl TestSentinel {
    /// Starts one that watches the primary on that port under that name, and decides alone.
    ///
    /// # Errors
    ///
    /// As [`Redis::start`](crate::Redis::start).
    pub async fn start(name: &str, primary: u16) -> Result<Self, LocalError> {
        port::starting(None, None, |port| Self::start_on(port, name, primary)).await
    }

    /// Returns its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    async fn start_on(port: u16, name: &str, primary: u16) -> Result<Self, LocalError> {
        let folder = TempFolder::new()?;
        let config = folder.path().join("sentinel.conf");
        // It fails over when it is told to. By itself, on a machine that stalls for a second, it would promote a replica in
        // the middle of its synchronisation, which is empty.
        let text = format!(
            "bind 127.0.0.1\nport {port}\nsentinel monitor {name} 127.0.0.1 {primary} 1\n\
             sentinel down-after-milliseconds {name} 60000\nsentinel failover-timeout {name} 10000\n"
        );
        fs::write(&config, text).map_err(LocalError::prepare(&config))?;
        let launch = Launch {
            name: "redis-sentinel",
            program: programs::redis_server()?,
            args: vec![config.to_string_lossy().into_owned(), "--sentinel".to_owned()],
            folder: folder.path().to_owned(),
            identity: None,
            farewell: Signal::SIGTERM,
            abort: Signal::SIGKILL,
            remove: Some(folder.path().to_owned()),
        };
        let mut server = launch.start().await?;
        server.wait_until_ready(READY, |pid| answers(port, pid)).await?;
        Ok(Self { port, _server: server, _folder: folder })
    }
}
