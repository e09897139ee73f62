//! What is known of one repo or record: what is held, what its host has, and why something is not there.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use penstock_core::causes::chain;
use penstock_core::filter_files;
use penstock_core::settings::Settings;
use penstock_identity::Identities;
use penstock_lookup::{Asked, Network, Report, Sources, look};
use penstock_repo::Repos;
use penstock_telemetry::metrics::Metrics;
use serde::Deserialize;
use tokio::sync::Semaphore;

use super::api::{Access, Api};
use super::client::Client;
use super::limits::Rates;
use super::problem::Problem;
use crate::App;

/// How many repos a client may look up a second: each costs a look at the stream, and a host is asked.
const PER_SECOND: NonZeroU32 = NonZeroU32::new(3).unwrap();

/// How many are looked up at a time.
const AT_ONCE: usize = 4;

/// How long an answer is good for all clients.
const FRESH: Duration = Duration::from_secs(5);

/// How many answers are kept.
const KEPT: usize = 128;

const NO_ACCOUNT: Problem = Problem::new(
    StatusCode::BAD_REQUEST,
    "give a DID such as did:plc:…, a handle such as alice.example.com, or an AT-URI, percent-encoded",
);
const NO_PATH: Problem =
    Problem::new(StatusCode::BAD_REQUEST, "path must look like app.bsky.feed.post/3k…, and may be given once");
const TOO_FAST: Problem =
    Problem::new(StatusCode::TOO_MANY_REQUESTS, "too many repos were looked up from this address: wait a second");

/// What looking up shares.
#[derive(Debug)]
pub(crate) struct Lookups {
    rates: Rates,
    turns: Semaphore,
    answers: Mutex<HashMap<Asked, (Instant, Bytes)>>,
    /// Those who ask hosts, or why none are asked.
    network: Result<(Identities, Repos), String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Within {
    path: Option<String>,
}

/// Registers the route.
pub(super) fn register(api: &mut Api) {
    api.get("/api/repos/{did}", Access::Read, repo)
        .says("Says of a repo or a record what is held, what its host has, and why something is not there.")
        .query("path", "string", "the path of a record, <collection>/<key>; without it, the whole repo is looked up")
        .answers::<Report>("the answer first, then what it follows from; what could not be asked is named")
        .tells(400, "no DID, handle or AT-URI, or no path of a record")
        .tells(429, "too many were looked up from this address within a second");
}

async fn repo(
    State(app): State<Arc<App>>,
    account: Result<Path<String>, PathRejection>,
    within: Result<Query<Within>, QueryRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let (Path(account), Query(within)) = (account.map_err(|_| NO_ACCOUNT)?, within.map_err(|_| NO_PATH)?);
    let asked = match within.path {
        None => Asked::read(&account).map_err(|_| NO_ACCOUNT)?,
        Some(path) => {
            let read = Asked::read(&account).map_err(|_| NO_ACCOUNT)?;
            let whole = Asked::read(&format!("{read}/{path}")).map_err(|_| NO_PATH)?;
            if read.path.is_some() || whole.path.is_none() {
                return Err(NO_PATH);
            }
            whole
        }
    };
    if let Some(answer) = app.lookups.known(&asked) {
        return Ok(super::json(answer));
    }
    if !app.lookups.rates.allow(Client::of(request.extensions())) {
        return Err(TOO_FAST);
    }
    // Never closed; and who waits for too long is given up on by the time that each answer has.
    let _turn = app.lookups.turns.acquire().await.ok();
    if let Some(answer) = app.lookups.known(&asked) {
        return Ok(super::json(answer));
    }
    let report = app.look_up(&asked).await;
    let answer = super::write(&report)?;
    app.lookups.keep(asked, &answer);
    Ok(super::json(answer))
}

// === impl App ===

impl App {
    /// Asks everybody who can be asked.
    async fn look_up(&self, asked: &Asked) -> Report {
        let redis = self.client_and_snapshot().map(|(client, _)| client);
        let network = self.lookups.network.as_ref();
        let sources = Sources {
            database: self
                .stored
                .as_ref()
                .map(|stored| &stored.0)
                .ok_or_else(|| "the dashboard has no database: set postgres.url (DATABASE_URL)".to_owned()),
            redis: redis.as_ref().ok_or_else(|| "redis does not answer".to_owned()),
            keys: &self.settings.keys,
            rules: filter_files::load(&self.settings.filter).map_err(|error| chain(&error)),
            network: network.map(|(identities, repos)| Network { identities, repos }).map_err(Clone::clone),
        };
        look(asked, &sources).await
    }
}

// === impl Lookups ===

impl Lookups {
    pub(crate) fn new(settings: &Settings, metrics: &Metrics) -> Self {
        let network = if settings.identity.enabled {
            // Without the table, which a dashboard may have no right to write.
            let made = Identities::new(settings, None, metrics).and_then(|identities| {
                let repos = Repos::new(settings, identities.clone(), metrics)?;
                Ok((identities, repos))
            });
            made.map_err(|error| chain(&error))
        } else {
            Err("the dashboard asks no hosts while identity.enabled is false".to_owned())
        };
        Self { rates: Rates::new(PER_SECOND), turns: Semaphore::new(AT_ONCE), answers: Mutex::default(), network }
    }

    /// Returns what was answered a moment ago.
    fn known(&self, asked: &Asked) -> Option<Bytes> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.get(asked).filter(|(at, _)| at.elapsed() < FRESH).map(|(_, answer)| answer.clone())
    }

    fn keep(&self, asked: Asked, answer: &Bytes) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.retain(|_, (at, _)| at.elapsed() < FRESH);
        if answers.len() < KEPT {
            answers.insert(asked, (Instant::now(), answer.clone()));
        }
    }
}
