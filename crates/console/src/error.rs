//! Why a command of the console ended.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use kube::config::KubeconfigError;
use thiserror::Error;

/// Why a command of the console ended.
#[derive(Debug, Error)]
pub enum ConsoleError {
    /// The address of the dashboard is none.
    #[error("{given:?} is no address of a dashboard: give http://host:port or https://host/path")]
    Url {
        /// What was given, without a password.
        given: String,
    },
    /// The file of the token cannot be read.
    #[error("could not read the token file {path}")]
    TokenFile {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The token cannot be sent.
    #[error("the token in {origin} holds a line break or another character that no header may hold")]
    Token {
        /// Where it stands.
        origin: String,
    },
    /// A filter matches nothing that there could be.
    #[error("--{flag} {given:?}: {how}")]
    Filter {
        /// The flag.
        flag: &'static str,
        /// What was given.
        given: String,
        /// What is allowed.
        how: &'static str,
    },
    /// There is nothing to draw on.
    #[error("{why}; `penstock status` prints the same once")]
    Terminal {
        /// What is missing.
        why: String,
    },
    /// The terminal did not do as told.
    #[error("could not use the terminal")]
    Draw(#[source] io::Error),
    /// The output was not written.
    #[error("could not print")]
    Print(#[source] io::Error),
    /// The signals cannot be heard.
    #[error("could not listen for signals")]
    Signals(#[source] io::Error),
    /// The dashboard does not answer, or not as it should.
    #[error("could not read {url}")]
    Ask {
        /// The dashboard.
        url: String,
        /// Why.
        source: AskError,
    },
    /// Something about Kubernetes.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

/// Why a dashboard did not answer, or not as it should.
#[derive(Debug, Error)]
pub enum AskError {
    /// No connection came about.
    #[error("could not connect")]
    Connect(#[source] io::Error),
    /// The connection ended.
    #[error("the connection broke")]
    Broke(#[source] hyper::Error),
    /// The live stream ended.
    #[error("the live stream ended")]
    Ended,
    /// It took too long.
    #[error("no answer within {} s", .0.as_secs())]
    TooSlow(Duration),
    /// It wants a token, or another one.
    #[error("it needs a token: set PENSTOCK_TOKEN, or give --token-file FILE")]
    Token,
    /// It says what is wrong.
    #[error("{detail}")]
    Problem {
        /// The status.
        status: u16,
        /// What it says.
        detail: String,
    },
    /// What came is not of the dashboard's API.
    #[error("the answer to {route} is not of a dashboard: {why}")]
    Foreign {
        /// The route.
        route: String,
        /// What was wrong.
        why: String,
    },
    /// The request cannot be written.
    #[error("the address cannot be asked")]
    Request(#[source] hyper::http::Error),
}

/// Why a cluster was not asked, or did not answer.
#[derive(Debug, Error)]
pub enum ClusterError {
    /// The kubeconfig cannot be used.
    #[error("could not use the kubeconfig")]
    Config(#[source] Box<KubeconfigError>),
    /// No client came of it.
    #[error("could not reach a cluster: give --kubeconfig FILE, or set KUBECONFIG")]
    Connect(#[source] Box<kube::Error>),
    /// Nothing says where the cluster is.
    #[error("could not find a cluster: give --kubeconfig FILE, or set KUBECONFIG")]
    Infer(#[source] Box<kube::config::InferConfigError>),
    /// The API server refused, or did not answer.
    #[error("could not read {what}")]
    Read {
        /// What.
        what: String,
        /// Why.
        source: Box<kube::Error>,
    },
    /// There is none.
    #[error("there is no FirehosePipeline in the namespace {namespace}: give another one with -n")]
    Empty {
        /// Where.
        namespace: String,
    },
    /// There is none of this name.
    #[error("there is no FirehosePipeline {name} in the namespace {namespace}; there are: {others}")]
    NoSuch {
        /// Its name.
        name: String,
        /// Where.
        namespace: String,
        /// Which there are.
        others: String,
    },
    /// There are several.
    #[error("there are several FirehosePipelines in the namespace {namespace}, name one: {names}")]
    Several {
        /// Where.
        namespace: String,
        /// Which.
        names: String,
    },
    /// It has no dashboard.
    #[error("the pipeline {name} has no dashboard: dashboard.enabled is false, or it is suspended")]
    NoDashboard {
        /// The pipeline.
        name: String,
    },
    /// The report cannot be written.
    #[error("could not write {path}")]
    Write {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

// === impl ConsoleError ===

impl ConsoleError {
    /// Says whether the caller wrote something wrong.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Url { .. }
            | Self::TokenFile { .. }
            | Self::Token { .. }
            | Self::Filter { .. }
            | Self::Terminal { .. } => true,
            Self::Cluster(error) => error.is_usage(),
            _ => false,
        }
    }
}

// === impl ClusterError ===

impl ClusterError {
    pub(crate) fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::Config(_) | Self::Infer(_) | Self::Empty { .. } | Self::NoSuch { .. } | Self::Several { .. }
        )
    }

    pub(crate) fn read(what: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let what = what.into();
        move |source| Self::Read { what, source: Box::new(source) }
    }
}
