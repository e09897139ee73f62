//! What a service reads repos with.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use penstock_core::settings::Settings;
use penstock_identity::web::{Host, Web};
use penstock_identity::{Identities, Identity, SettingsError};
use penstock_telemetry::metrics::Metrics;
use penstock_wire::{RepoCommit, is_future, rev_number};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use crate::car::commit;
use crate::car::intake::{Bounds, Intake, IntakeFault, Whole};
use crate::car::spool::Budget;
use crate::client::{Body, Client, Patience, Request};
use crate::error::RepoError;
use crate::events::{Asked, Events};
use crate::hosts::Hosts;
use crate::listing::{self, LatestCommit};
use crate::repo::{Content, Repo, Source};

/// Pieces of a body between the network and who hashes them; each has some kilobytes.
const PIECES: usize = 16;

/// Repos of a page, as many as a host is asked for, and the largest page in bytes.
const PAGE: &str = "1000";
const PAGE_BYTES: usize = 4 * 1024 * 1024;

/// How old the document of an account is at least that is asked for again because its host is away.
const RECENT: Duration = Duration::from_secs(3600);

/// The largest answer with one commit, in bytes.
const BLOCK: usize = 64 * 1024;

/// The largest answer with one record, in bytes.
const RECORD: usize = 4 * 1024 * 1024;

/// Reads repos from their hosts; clones share everything.
#[derive(Clone, Debug)]
pub struct Repos {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    identities: Identities,
    client: Client,
    bounds: Bounds,
    mirrors: Vec<Host>,
    /// Relays that the settings name: wherever they are, they may be asked.
    relays: Vec<Host>,
    events: Events,
}

/// What a host says of a repo's present state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latest {
    /// Its rev.
    pub rev: Box<str>,
    /// The CID of its signed commit.
    pub cid: Box<str>,
    /// The name of the host.
    pub host: Box<str>,
}

/// The signed head of a repo: what its records come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its rev.
    pub rev: Box<str>,
    /// The digest of the root of its tree.
    pub root: [u8; 32],
    /// The name of the host.
    pub host: Box<str>,
}

/// A record as a host shows it, unverified.
#[derive(Clone, Debug)]
pub struct HostRecord {
    /// Its CID.
    pub cid: Box<str>,
    /// Its JSON.
    pub record: Box<RawValue>,
    /// The name of the host.
    pub host: Box<str>,
}

/// A repo in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedRepo {
    /// Whose it is.
    pub did: Box<str>,
    /// Its rev, where it is said.
    pub rev: Option<Box<str>>,
    /// Whether it is shown; what is not said is taken for yes.
    pub active: bool,
}

/// As in `com.atproto.repo.getRecord`.
#[derive(Deserialize)]
struct RecordAnswer {
    cid: Option<Box<str>>,
    value: Box<RawValue>,
}

/// As in `com.atproto.sync.listRepos` and `listReposByCollection`.
#[derive(Deserialize)]
struct PageAnswer {
    repos: Vec<PageEntry>,
    cursor: Option<Box<str>>,
}

#[derive(Deserialize)]
struct PageEntry {
    did: Box<str>,
    rev: Option<Box<str>>,
    active: Option<bool>,
}

/// A piece of a body, or its end: what ends without it was given up.
enum Piece {
    Data(Bytes),
    End,
}

/// An account, and where its repo is.
struct Home {
    identity: Identity,
    host: Host,
}

/// One page of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepoPage {
    /// The repos.
    pub repos: Vec<ListedRepo>,
    /// Where the next page begins; none after the last one.
    pub cursor: Option<Box<str>>,
}

// === impl Repos ===

impl Repos {
    /// Makes what a service reads repos with. Nothing is connected to yet.
    ///
    /// # Errors
    /// A setting that cannot be used, or a system without certificate authorities or name servers.
    pub fn new(settings: &Settings, identities: Identities, metrics: &Metrics) -> Result<Self, SettingsError> {
        let patience = Patience::new(settings.identity.timeout);
        Self::with(settings, identities, metrics, Web::new(&settings.identity)?, patience)
    }

    /// Makes one with what tests need otherwise.
    pub(crate) fn with(
        settings: &Settings,
        identities: Identities,
        metrics: &Metrics,
        web: Web,
        patience: Patience,
    ) -> Result<Self, SettingsError> {
        let heal = &settings.heal;
        let folder = heal.folder.as_ref().map_or_else(std::env::temp_dir, PathBuf::from);
        let bounds = Bounds::new(heal.repo_bytes, Budget::new(heal.spill, folder));
        let hosts = Hosts::new(heal.of_host, heal.host_rate, patience.wait);
        let mirrors = heal.mirrors.iter().filter_map(|mirror| web.trusted_host(mirror.as_str())).collect();
        let relays = settings.relay.urls.iter();
        let relays = relays.filter_map(|relay| web.trusted_host(&http_origin(relay.subscribe(None).as_str())?));
        let relays = relays.collect();
        let client = Client::new(web, hosts, patience);
        let events = Events::new(metrics);
        Ok(Self { shared: Arc::new(Shared { identities, client, bounds, mirrors, relays, events }) })
    }

    /// Fetches a whole repo and checks every hash, the signature and the whole tree before it returns. Its own host is asked first,
    /// then the mirrors, unless the host says that it has no such repo or does not show it. Where a host has no CAR of repos, the
    /// records are listed: then nothing is proven.
    ///
    /// # Errors
    /// [`RepoError`], of the repo's own host.
    pub async fn fetch(&self, did: &str) -> Result<Repo, RepoError> {
        let fetched = self.shared.fetch(did).await;
        self.shared.events.asked(Asked::Repo, fetched.as_ref().map_or_else(RepoError::word, |_| "ok"));
        fetched
    }

    /// Asks a repo's host for its present rev and commit.
    ///
    /// # Errors
    /// [`RepoError`].
    pub async fn latest(&self, did: &str) -> Result<Latest, RepoError> {
        let latest = self.shared.latest(did).await;
        self.shared.events.asked(Asked::Latest, latest.as_ref().map_or_else(RepoError::word, |_| "ok"));
        latest
    }

    /// Asks a repo's host for its signed commit, and checks the signature: two small requests, however large the repo is.
    ///
    /// # Errors
    /// [`RepoError`].
    pub async fn head(&self, did: &str) -> Result<Head, RepoError> {
        let head = self.shared.head(did).await;
        self.shared.events.asked(Asked::Commit, head.as_ref().map_or_else(RepoError::word, |_| "ok"));
        head
    }

    /// Asks a repo's host for one record; none where the repo has none at this path.
    ///
    /// # Errors
    /// [`RepoError`].
    pub async fn record(&self, did: &str, path: &str) -> Result<Option<HostRecord>, RepoError> {
        let record = self.shared.record(did, path).await;
        self.shared.events.asked(Asked::Record, record.as_ref().map_or_else(RepoError::word, |_| "ok"));
        record
    }

    /// Asks a relay or a host for the repos that it has, or those that have records of a collection, page by page. The relay may be
    /// written as in `relay.urls`. Only those of the settings may be in a private network.
    ///
    /// # Errors
    /// [`RepoError`].
    pub async fn list(
        &self,
        relay: &str,
        collection: Option<&str>,
        cursor: Option<&str>,
    ) -> Result<RepoPage, RepoError> {
        let page = self.shared.list(relay, collection, cursor).await;
        self.shared.events.asked(Asked::List, page.as_ref().map_or_else(RepoError::word, |_| "ok"));
        page
    }
}

// === impl Shared ===

impl Shared {
    async fn fetch(&self, did: &str) -> Result<Repo, RepoError> {
        let mut home = self.home(did).await?;
        let error = match self.fetch_from(&home.host, &home.identity).await {
            Ok(repo) => return Ok(repo),
            Err(error) => error,
        };
        let error = match self.moved(&home, &error).await {
            Some(new) => {
                home = new;
                match self.fetch_from(&home.host, &home.identity).await {
                    Ok(repo) => return Ok(repo),
                    Err(error) => error,
                }
            }
            None => error,
        };
        let mirrors = if error.is_of_host() { self.mirrors.as_slice() } else { &[] };
        for mirror in mirrors {
            if let Ok(repo) = self.fetch_from(mirror, &home.identity).await {
                return Ok(repo);
            }
        }
        Err(error)
    }

    async fn latest(&self, did: &str) -> Result<Latest, RepoError> {
        let (Home { host, .. }, LatestCommit { rev, cid }) = self.latest_at_home(did).await?;
        Ok(Latest { rev, cid, host: host.name().into() })
    }

    /// Whose signature it is, is asked here; which blocks the tree has is not.
    async fn head(&self, did: &str) -> Result<Head, RepoError> {
        let (Home { identity, host }, LatestCommit { cid, .. }) = self.latest_at_home(did).await?;
        // With `since` of the present rev `getRepo` has no commit, and `getRecord` has a way through the tree, too.
        let request = Request::new(&host, "com.atproto.sync.getBlocks", &[("did", did), ("cids", &cid)]);
        let mut body = self.client.open(&request, "application/vnd.ipld.car").await?;
        let car = body.whole(BLOCK).await?;
        let commit = commit::read(&car, &cid, did);
        let commit = commit.map_err(|fault| RepoError::of_intake(fault, &body.host, &self.bounds.budget))?;
        self.check(&identity, &body.host, &commit).await?;
        Ok(Head { rev: commit.rev, root: *commit.root.digest(), host: body.host })
    }

    async fn latest_at_home(&self, did: &str) -> Result<(Home, LatestCommit), RepoError> {
        let mut home = self.home(did).await?;
        let mut latest = listing::latest(&self.client, &home.host, did).await;
        if let Err(error) = &latest
            && let Some(new) = self.moved(&home, error).await
        {
            home = new;
            latest = listing::latest(&self.client, &home.host, did).await;
        }
        Ok((home, latest?))
    }

    async fn record(&self, did: &str, path: &str) -> Result<Option<HostRecord>, RepoError> {
        let home = self.home(did).await?;
        match self.record_from(&home.host, did, path).await {
            Err(error) => match self.moved(&home, &error).await {
                Some(home) => self.record_from(&home.host, did, path).await,
                None => Err(error),
            },
            record => record,
        }
    }

    async fn record_from(&self, host: &Host, did: &str, path: &str) -> Result<Option<HostRecord>, RepoError> {
        let (collection, rkey) = path.split_once('/').unwrap_or((path, ""));
        let parameters = [("repo", did), ("collection", collection), ("rkey", rkey)];
        let request = Request::new(host, "com.atproto.repo.getRecord", &parameters);
        let answer: RecordAnswer = match self.client.json(&request, RECORD).await {
            Err(RepoError::NoRecord { .. }) => return Ok(None),
            answer => answer?,
        };
        let cid = answer.cid.ok_or_else(|| refused(host, "answered with a record without its cid"))?;
        Ok(Some(HostRecord { cid, record: answer.value, host: host.name().into() }))
    }

    async fn list(&self, relay: &str, collection: Option<&str>, cursor: Option<&str>) -> Result<RepoPage, RepoError> {
        let unusable = || RepoError::Refused { host: relay.into(), why: "is not the address of a relay".into() };
        let host = http_origin(relay).and_then(|origin| self.client.web.host(&origin)).ok_or_else(unusable)?;
        let known = self.relays.iter().chain(&self.mirrors).find(|known| known.key() == host.key());
        let host = known.unwrap_or(&host);
        let mut parameters = vec![("limit", PAGE)];
        parameters.extend(cursor.map(|cursor| ("cursor", cursor)));
        parameters.extend(collection.map(|collection| ("collection", collection)));
        let method = match collection {
            Some(_) => "com.atproto.sync.listReposByCollection",
            None => "com.atproto.sync.listRepos",
        };
        let page: PageAnswer = self.client.json(&Request::new(host, method, &parameters), PAGE_BYTES).await?;
        let repos = page.repos.into_iter().map(|PageEntry { did, rev, active }| ListedRepo {
            did,
            rev,
            active: active.unwrap_or(true),
        });
        // One that sends the same cursor again would be asked for ever.
        let next = page.cursor.filter(|next| !next.is_empty() && Some(&**next) != cursor);
        Ok(RepoPage { repos: repos.collect(), cursor: next })
    }

    /// Finds the host that an account's document names.
    async fn home(&self, did: &str) -> Result<Home, RepoError> {
        let identity = self.identities.resolve(did).await.map_err(RepoError::Identity)?;
        if let Some(host) = self.host_of(&identity) {
            return Ok(Home { identity, host });
        }
        let newer = self.newer(&identity).await.ok_or(RepoError::NoHost)?;
        let host = self.host_of(&newer).ok_or(RepoError::NoHost)?;
        Ok(Home { identity: newer, host })
    }

    /// Finds another host of an account whose host has it no more: perhaps the document was old.
    async fn moved(&self, home: &Home, error: &RepoError) -> Option<Home> {
        // A host that is away has very many accounts: their documents are not all asked for at once.
        let is_away = matches!(error, RepoError::Unreachable { .. });
        if !error.may_have_moved() || is_away && home.identity.age < RECENT {
            return None;
        }
        let identity = self.newer(&home.identity).await.filter(|newer| newer.host != home.identity.host)?;
        let host = self.host_of(&identity)?;
        Some(Home { identity, host })
    }

    fn host_of(&self, identity: &Identity) -> Option<Host> {
        self.client.web.host(identity.host.as_deref()?)
    }

    /// Returns what an account's document says now, if that was not just asked for.
    async fn newer(&self, identity: &Identity) -> Option<Identity> {
        match self.identities.refresh_after_failure(&identity.did).await {
            Ok(Some(newer)) => Some(newer),
            // Somebody else asked since; what they heard is known by now.
            Ok(None) => self.identities.resolve(&identity.did).await.ok(),
            Err(_) => None,
        }
    }

    async fn fetch_from(&self, host: &Host, identity: &Identity) -> Result<Repo, RepoError> {
        let did = &*identity.did;
        let request = Request::new(host, "com.atproto.sync.getRepo", &[("did", did)]);
        let body = match self.client.open(&request, "application/vnd.ipld.car").await {
            Err(RepoError::Unsupported { .. }) => return self.list_from(host, did).await,
            body => body?,
        };
        let host = body.host.clone();
        let Whole { commit, records, count, bytes } = self.receive(did, body).await?;
        self.check(identity, &host, &commit).await?;
        Ok(Repo {
            did: did.into(),
            rev: commit.rev,
            root: *commit.root.digest(),
            signed: true,
            records: count,
            source: Source::Car,
            host,
            bytes,
            content: Content { records: Some(records), budget: Arc::clone(&self.bounds.budget) },
        })
    }

    async fn list_from(&self, host: &Host, did: &str) -> Result<Repo, RepoError> {
        let listed = listing::list(&self.client, host, did, &self.bounds).await?;
        Ok(Repo {
            did: did.into(),
            rev: listed.rev,
            root: [0; 32],
            signed: false,
            records: listed.count,
            source: Source::Records,
            host: host.name().into(),
            bytes: listed.bytes,
            content: Content { records: Some(listed.records), budget: Arc::clone(&self.bounds.budget) },
        })
    }

    /// Receives a CAR: here it is waited for, on another thread it is hashed, laid down and walked.
    async fn receive(&self, did: &str, mut body: Body) -> Result<Whole, RepoError> {
        let (pieces, mut arrived) = mpsc::channel(PIECES);
        let mut intake = Intake::new(did, &self.bounds);
        let taking = spawn_blocking(move || {
            while let Some(piece) = arrived.blocking_recv() {
                match piece {
                    Piece::Data(piece) => intake.push(&piece)?,
                    Piece::End => return intake.finish(),
                }
            }
            Err(IntakeFault::Cut)
        });
        let arrived = loop {
            match body.piece().await {
                Ok(Some(piece)) => {
                    // Where the other side has gone, it says why.
                    if pieces.send(Piece::Data(piece)).await.is_err() {
                        break Ok(());
                    }
                }
                Ok(None) => {
                    let _ = pieces.send(Piece::End).await;
                    break Ok(());
                }
                Err(error) => break Err(error),
            }
        };
        drop(pieces);
        // The host is done with: whoever waits for it need not wait for the walk.
        let host = body.host.clone();
        drop(body);
        match (taking.await.map_err(|_| RepoError::Ended)?, arrived) {
            (Ok(whole), _) => Ok(whole),
            // It was cut because no more arrived, and here is why.
            (Err(IntakeFault::Cut), Err(error)) => Err(error),
            (Err(fault), _) => Err(RepoError::of_intake(fault, &host, &self.bounds.budget)),
        }
    }

    /// Holds a commit against the account's key, which may have changed since it was asked for, and against the clock.
    async fn check(&self, identity: &Identity, host: &str, commit: &RepoCommit) -> Result<(), RepoError> {
        let is_ahead = rev_number(&commit.rev).is_none_or(|rev| is_future(rev, Timestamp::now()));
        if is_ahead {
            // Rows are ordered by it: everything that comes would be older.
            return Err(RepoError::Commit { host: host.into(), detail: "its rev is of a time to come".into() });
        }
        let key = identity.key.as_ref().ok_or(RepoError::NoKey);
        let fault = match key.map(|key| commit.signed.verify(key)) {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(fault)) => RepoError::Signature { host: host.into(), fault },
            Err(error) => error,
        };
        let newer = self.newer(identity).await.and_then(|newer| newer.key);
        match newer.filter(|newer| Some(newer) != identity.key.as_ref()) {
            Some(key) if commit.signed.verify(&key).is_ok() => Ok(()),
            _ => Err(fault),
        }
    }
}

/// Returns the origin that a relay is asked at over HTTP; none where the text is no address.
fn http_origin(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://")?;
    let scheme = match scheme {
        "wss" | "https" => "https",
        "ws" | "http" => "http",
        _ => return None,
    };
    let authority = rest.split(['/', '?', '#']).next().filter(|authority| !authority.is_empty())?;
    Some(format!("{scheme}://{authority}"))
}

fn refused(host: &Host, why: &str) -> RepoError {
    RepoError::Refused { host: host.name().into(), why: why.into() }
}
