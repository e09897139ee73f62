//! The relay of the measurements: `penstock replay`'s own, in a process of its own, with every frame made ahead.
//!
//! Making a frame takes as long as ingest takes for it. The two share the cores, so it is done before the clock starts.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;

use penstock_replay::{Recording, Settings};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use crate::cli::Curve;
use crate::error::Error;
use crate::process::{Service, Usage};

/// What the child says once it serves.
const READY: &str = "ready";

/// A relay that runs.
#[derive(Debug)]
pub(crate) struct Relay {
    service: Service,
    address: SocketAddr,
    /// What it had used when it was ready.
    prepared: Usage,
}

/// Serves until stdin ends.
pub(crate) async fn serve(
    address: SocketAddr,
    recording: Recording,
    total: u64,
    sign: Option<Curve>,
) -> Result<(), Error> {
    let signing = sign.map(Curve::signing);
    let replay = Settings { signing, directory: signing.is_some(), ..replay(recording, total) };
    let settings = Settings { address, prepared: u64::MAX, ..replay };
    let mut relay = penstock_replay::bind(settings).await?;
    relay.prepared().await?;
    println!("{READY}");
    let cancel = CancellationToken::new();
    let end = cancel.clone();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        end.cancel();
    });
    Ok(relay.run(cancel).await?)
}

/// What a measurement replays: the recording, looped to so many events.
pub(crate) fn replay(recording: Recording, total: u64) -> Settings {
    Settings { recording, total: Some(total), ..Settings::default() }
}

/// Finds a port that is free now.
pub(crate) fn free_address() -> Result<SocketAddr, Error> {
    let found = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    found.map_err(Error::io("find a free port"))
}

// === impl Relay ===

impl Relay {
    /// Starts one, and returns once all its frames are made.
    pub(crate) async fn start(folder: &Path, recording: &Recording, total: u64) -> Result<Self, Error> {
        Self::start_with(folder, recording, total, &[]).await
    }

    /// Starts one that signs commits.
    pub(crate) async fn signing(folder: &Path, recording: &Recording, total: u64, curve: Curve) -> Result<Self, Error> {
        let name = match curve {
            Curve::K256 => "k256",
            Curve::P256 => "p256",
        };
        Self::start_with(folder, recording, total, &["--sign", name]).await
    }

    async fn start_with(folder: &Path, recording: &Recording, total: u64, more: &[&str]) -> Result<Self, Error> {
        let start = |source| Error::Start { name: "relay", source };
        let address = free_address()?;
        let mut command = Command::new(std::env::current_exe().map_err(start)?);
        command.args(["--serve", &address.to_string(), "--events", &total.to_string()]).args(more);
        if let Recording::File(path) = recording {
            command.arg("--recording").arg(path);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut service = Service::start("relay", folder, command)?;
        if let Some(stdout) = service.child().stdout.take() {
            let mut lines = BufReader::new(stdout).lines();
            while lines.next_line().await.map_err(start)?.is_some_and(|line| line != READY) {}
        }
        service.check()?;
        let prepared = service.usage()?;
        Ok(Self { service, address, prepared })
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// The directory of its accounts, of one that signs.
    pub(crate) fn directory(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the CPU time of serving, without that of making the frames.
    pub(crate) fn serving(&self) -> Result<std::time::Duration, Error> {
        Ok(self.service.usage()?.cpu.saturating_sub(self.prepared.cpu))
    }

    pub(crate) async fn stop(mut self) -> Result<(), Error> {
        drop(self.service.child().stdin.take());
        self.service.end().await
    }
}
