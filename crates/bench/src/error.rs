//! What can keep a measurement from being taken.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;

use penstock_core::redis::RedisError;
use penstock_core::settings::SettingsError;
use penstock_local::LocalError;
use thiserror::Error;
use tokio_tungstenite::tungstenite;

/// Names the action that failed.
#[derive(Debug, Error)]
pub(crate) enum Error {
    #[error("{} is not there: run `make bench`", path.display())]
    FindPenstock { path: PathBuf },
    #[error("could not start {name}")]
    Start { name: &'static str, source: io::Error },
    #[error("{name} ended ({status}); its log ends with:\n{log}")]
    Ended { name: &'static str, status: ExitStatus, log: String },
    #[error("could not stop {name}")]
    Stop { name: &'static str, source: io::Error },
    #[error("{name} made no progress for {seconds} s; its log ends with:\n{log}")]
    Stuck { name: &'static str, seconds: u64, log: String },
    #[error("could not read {}", path.display())]
    Proc { path: PathBuf, source: io::Error },
    #[error("{} says nothing of {what}", path.display())]
    ProcField { path: PathBuf, what: &'static str },
    #[error("could not sign for the proof of commits")]
    Sign,
    #[error(transparent)]
    Local(#[from] LocalError),
    #[error(transparent)]
    Replay(#[from] penstock_replay::Error),
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Redis(#[from] RedisError),
    #[error("redis failed")]
    Command(#[from] fred::error::Error),
    #[error("could not write entries into redis")]
    Fill(#[source] io::Error),
    #[error("redis refused a batch: {0}")]
    Refused(String),
    #[error("a frame of the recording could not be decoded")]
    Frame(#[from] penstock_wire::FrameError),
    #[error("could not {what}")]
    Socket { what: &'static str, source: Box<tungstenite::Error> },
    #[error("could not {what}")]
    Io { what: &'static str, source: io::Error },
    #[error("could not {what}")]
    Database { what: &'static str, source: sqlx::Error },
    #[error("{what}: {found}, expected {expected}")]
    Wrong { what: &'static str, found: u64, expected: u64 },
    #[error("the metrics do not hold {0}")]
    Metric(&'static str),
    #[error("a task of the measurement died")]
    Task(#[from] tokio::task::JoinError),
}

impl Error {
    pub(crate) fn socket(what: &'static str) -> impl FnOnce(tungstenite::Error) -> Self {
        move |source| Self::Socket { what, source: Box::new(source) }
    }

    pub(crate) fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }

    pub(crate) fn database(what: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| Self::Database { what, source }
    }
}
