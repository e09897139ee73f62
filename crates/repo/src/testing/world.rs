//! A directory and a host with repos, in one server: what a network of one's own needs at least.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use penstock_core::settings::{Layers, Settings, SettingsError};
use penstock_wire::{Limits, record_json};
use serde_json::{Value, json};

use super::made::{MadeRepo, car, car_of_blocks};
use super::server::{Asked, Reply, Server};

/// A directory and a host.
#[derive(Debug)]
pub struct World {
    /// The server.
    pub server: Server,
    state: Arc<Mutex<State>>,
}

type Meddling = dyn Fn(&Asked) -> Option<Reply> + Send + Sync;

#[derive(Default)]
struct State {
    repos: BTreeMap<String, Held>,
    meddle: Option<Arc<Meddling>>,
    /// Where the host is, as documents have it; none: here.
    host: Option<String>,
}

struct Held {
    repo: MadeRepo,
    /// The CAR, once somebody asked for it.
    car: Option<Bytes>,
    commit: Option<String>,
}

// === impl World ===

impl World {
    /// Starts one without repos.
    ///
    /// # Errors
    /// The system has no port to spare.
    pub async fn start() -> io::Result<Self> {
        let state = Arc::new(Mutex::new(State::default()));
        let answering = Arc::clone(&state);
        let own = Arc::new(Mutex::new(String::new()));
        let here = Arc::clone(&own);
        let server = Server::start(move |asked| {
            let meddle = lock(&answering).meddle.clone();
            let reply = meddle.and_then(|meddle| meddle(asked));
            reply.unwrap_or_else(|| lock(&answering).answer(asked, &lock(&here)))
        });
        let server = server.await?;
        *lock(&own) = server.url();
        Ok(Self { server, state })
    }

    /// Hosts a repo, or another state of it.
    pub fn put(&self, repo: MadeRepo) {
        let did = repo.account.did.clone();
        lock(&self.state).repos.insert(did, Held { repo, car: None, commit: None });
    }

    /// Changes a repo that it hosts.
    pub fn change(&self, did: &str, change: impl FnOnce(&mut MadeRepo)) {
        if let Some(held) = lock(&self.state).repos.get_mut(did) {
            change(&mut held.repo);
            (held.car, held.commit) = (None, None);
        }
    }

    /// Returns a repo that it hosts.
    #[must_use]
    pub fn repo(&self, did: &str) -> Option<MadeRepo> {
        lock(&self.state).repos.get(did).map(|held| held.repo.clone())
    }

    /// Forgets a repo.
    pub fn remove(&self, did: &str) {
        lock(&self.state).repos.remove(did);
    }

    /// Answers in its place where this has an answer.
    pub fn meddle(&self, meddle: impl Fn(&Asked) -> Option<Reply> + Send + Sync + 'static) {
        lock(&self.state).meddle = Some(Arc::new(meddle));
    }

    /// Meddles no more.
    pub fn behave(&self) {
        lock(&self.state).meddle = None;
    }

    /// Names another host in the documents.
    pub fn host_at(&self, host: &str) {
        lock(&self.state).host = Some(host.to_owned());
    }

    /// Returns how often a method was asked for a repo.
    #[must_use]
    pub fn hits(&self, method: &str, did: &str) -> usize {
        let is_it = |asked: &&Asked| {
            let of = asked.parameter("did").or(asked.parameter("repo"));
            asked.method() == method && of == Some(did)
        };
        self.server.asked().iter().filter(is_it).count()
    }

    /// Returns the settings that lead to it, for a test's own to be added.
    #[must_use]
    pub fn layers(&self) -> Layers {
        Layers::default()
            .flag("identity.enabled", "true")
            .flag("identity.plcUrl", self.server.url())
            .flag("identity.rate", "10000")
            .flag("identity.timeout", "20s")
            .flag("identity.retryAfter", "50ms")
            .flag("identity.allowedNetworks", "127.0.0.1")
            .flag("heal.hostRate", "10000")
    }

    /// Returns such settings with some flags.
    ///
    /// # Errors
    /// A flag is not allowed.
    pub fn settings(&self, flags: &[(&str, &str)]) -> Result<Settings, SettingsError> {
        Settings::load(&flags.iter().fold(self.layers(), |layers, (path, value)| layers.flag(path, *value)))
    }
}

// === impl State ===

impl State {
    fn answer(&mut self, asked: &Asked, here: &str) -> Reply {
        let unknown = || Reply::error(400, "RepoNotFound");
        if let Some(did) = asked.path.strip_prefix('/').filter(|did| did.starts_with("did:")) {
            let host = self.host.as_deref().unwrap_or(here);
            return match self.repos.get(did) {
                Some(held) => Reply::json(200, &held.repo.account.document(host)),
                None => Reply::json(404, &json!({"message": "DID not registered"})),
            };
        }
        let did = asked.parameter("did").or(asked.parameter("repo")).unwrap_or_default();
        match asked.method() {
            "com.atproto.sync.listRepos" => self.list(asked, None),
            "com.atproto.sync.listReposByCollection" => self.list(asked, asked.parameter("collection")),
            method => match self.repos.get_mut(did) {
                Some(held) => held.answer(method, asked),
                None => unknown(),
            },
        }
    }

    fn list(&self, asked: &Asked, collection: Option<&str>) -> Reply {
        let limit = number(asked, "limit", 500);
        let after = asked.parameter("cursor").unwrap_or_default();
        let has = |repo: &MadeRepo| {
            let start = collection.map(|collection| format!("{collection}/"));
            start.is_none_or(|start| repo.records.keys().any(|path| path.starts_with(&start)))
        };
        let after = self.repos.iter().filter(|(did, held)| did.as_str() > after && has(&held.repo));
        let page: Vec<_> = after.take(limit).collect();
        let cursor = page.last().filter(|_| page.len() == limit).map(|(did, _)| did.as_str());
        let entries = page.iter().map(|(did, held)| match collection {
            Some(_) => json!({"did": did}),
            None => json!({"did": did, "rev": held.repo.rev, "head": "", "active": true}),
        });
        let entries: Vec<Value> = entries.collect();
        Reply::json(200, &json!({"repos": entries, "cursor": cursor}))
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").finish_non_exhaustive()
    }
}

// === impl Held ===

impl Held {
    fn answer(&mut self, method: &str, asked: &Asked) -> Reply {
        let repo = &self.repo;
        let did = &repo.account.did;
        match method {
            "com.atproto.sync.getRepo" => {
                self.build();
                Reply::bytes(self.car.clone().unwrap_or_default())
            }
            "com.atproto.sync.getLatestCommit" => {
                self.build();
                Reply::json(200, &json!({"rev": self.repo.rev, "cid": self.commit}))
            }
            "com.atproto.sync.getBlocks" => {
                let wanted = asked.parameter("cids").unwrap_or_default();
                let blocks = repo.blocks().blocks.into_iter().filter(|(cid, _)| cid.to_string() == wanted);
                match blocks.collect::<Vec<_>>() {
                    blocks if blocks.is_empty() => Reply::error(400, "BlockNotFound"),
                    blocks => Reply::bytes(car_of_blocks(&blocks)),
                }
            }
            "com.atproto.sync.getRepoStatus" => Reply::json(200, &json!({"did": did, "active": true, "rev": repo.rev})),
            "com.atproto.repo.describeRepo" => {
                let mut collections: Vec<&str> =
                    repo.records.keys().filter_map(|path| path.split_once('/')).map(|(name, _)| name).collect();
                collections.sort_unstable_by(|one, other| other.cmp(one));
                collections.dedup();
                Reply::json(200, &json!({"did": did, "handle": "a.example.com", "collections": collections}))
            }
            "com.atproto.repo.getRecord" => {
                let part = |name| asked.parameter(name).unwrap_or_default();
                let path = format!("{}/{}", part("collection"), part("rkey"));
                match self.record(&path) {
                    Some(record) => Reply::json(200, &record),
                    None => Reply::error(400, "RecordNotFound"),
                }
            }
            "com.atproto.repo.listRecords" => self.list(asked),
            _ => Reply::error(501, "MethodNotImplemented"),
        }
    }

    fn list(&self, asked: &Asked) -> Reply {
        let start = format!("{}/", asked.parameter("collection").unwrap_or_default());
        let limit = number(asked, "limit", 50);
        let mut paths: Vec<&String> = self.repo.records.keys().filter(|path| path.starts_with(&start)).collect();
        if asked.parameter("reverse") != Some("true") {
            paths.reverse();
        }
        let from = number(asked, "cursor", 0);
        let page: Vec<Value> = paths.iter().skip(from).take(limit).filter_map(|path| self.record(path)).collect();
        let cursor = (page.len() == limit).then(|| (from + limit).to_string());
        Reply::json(200, &json!({"records": page, "cursor": cursor}))
    }

    fn record(&self, path: &str) -> Option<Value> {
        let block = self.repo.records.get(path)?;
        let json = record_json(path, block, &Limits::default()).ok()?;
        let value: Value = serde_json::from_str(&json).ok()?;
        let uri = format!("at://{}/{path}", self.repo.account.did);
        Some(json!({"uri": uri, "cid": self.repo.cid(path)?.to_string(), "value": value}))
    }

    fn build(&mut self) {
        if self.car.is_none() {
            let made = self.repo.blocks();
            self.commit = Some(made.commit.to_string());
            self.car = Some(car(&made.commit, &made.blocks).into());
        }
    }
}

fn number(asked: &Asked, name: &str, default: usize) -> usize {
    asked.parameter(name).and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
