//! Asks the network, behind the fence: documents, whose handles are, and whether a host has an account.
//!
//! Each request is admitted ([`hosts`]), its host's name resolved ([`names`]) and the addresses checked, and then one of exactly these
//! connected to ([`http`]).

mod hosts;
mod http;
mod names;
mod retry_after;
mod shares;
pub mod web;

use std::net::IpAddr;
use std::time::Duration;

use penstock_core::settings;
use rustls::RootCertStore;
use serde::Deserialize;
use tokio::time::{Instant, timeout};
use url::Url;

use crate::did::Did;
use crate::document::{Document, LARGEST, origin};
use crate::error::{ResolveError, SettingsError};
use crate::events::{Asked, Events};
use crate::fence::Fence;
use crate::handle;
use hosts::{Hosts, Outcome};
use http::{Answer, Client, Target};
use names::{Names, Texts};

/// How many redirects are followed for a handle, and only there.
const REDIRECTS: usize = 3;

/// The largest answer about a handle or the status of an account, in bytes.
const SMALL: usize = 4 * 1024;

/// How soon an answer is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// Somebody waits for it.
    Now,
    /// Nobody does: it must take no turn from those who wait.
    Background,
}

/// Whose a handle is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// This DID's.
    Did(String),
    /// Nobody's, or of several at once.
    Nobody,
}

/// Whether a host has an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// It has.
    Known {
        /// Whether it shows it.
        active: bool,
        /// Why not.
        status: Option<Box<str>>,
        /// The rev of its repo.
        rev: Option<Box<str>>,
    },
    /// It has not.
    NotFound,
}

/// Asks the network.
#[derive(Debug)]
pub(crate) struct Fetcher {
    directory: Directory,
    fence: Fence,
    hosts: Hosts,
    names: Names,
    client: Client,
    events: Events,
    timeout: Duration,
    https_port: u16,
}

/// What tests need otherwise.
#[derive(Debug, Default)]
pub(crate) struct Options {
    /// Authorities instead of the system's.
    pub(crate) roots: Option<RootCertStore>,
    /// The port of `https` where no other is named.
    pub(crate) https_port: Option<u16>,
}

/// The directory of did:plc.
#[derive(Debug)]
struct Directory {
    target: Target,
    /// The path before each DID.
    base: String,
}

/// As in `com.atproto.sync.getRepoStatus`.
#[derive(Deserialize)]
struct StatusAnswer {
    did: String,
    active: bool,
    status: Option<Box<str>>,
    rev: Option<Box<str>>,
}

#[derive(Deserialize)]
struct ErrorAnswer {
    error: String,
}

// === impl Fetcher ===

impl Fetcher {
    pub(crate) fn new(settings: &settings::Identity, options: Options, events: Events) -> Result<Self, SettingsError> {
        let directory = Directory::parse(&settings.plc_url)?;
        let fence = Fence::new(&settings.allowed_networks);
        let names = Names::new(settings.dns_server, settings.timeout)?;
        let client = Client::new(options.roots)?;
        let hosts = Hosts::new(settings.rate, settings.timeout, settings.retry_after, directory.target.key());
        let https_port = options.https_port.unwrap_or(443);
        Ok(Self { directory, fence, hosts, names, client, events, timeout: settings.timeout, https_port })
    }

    /// Fetches the document of a DID.
    pub(crate) async fn document(&self, did: &str, urgency: Urgency) -> Result<Document, ResolveError> {
        let found = self.find_document(did, urgency).await;
        self.events.asked(Asked::Document, found.as_ref().map_or_else(ResolveError::word, |_| "ok"));
        found
    }

    async fn find_document(&self, did: &str, urgency: Urgency) -> Result<Document, ResolveError> {
        let method = Did::parse(did).map_err(|why| ResolveError::refused(format!("the DID {why}")))?;
        let is_plc = method == Did::Plc;
        let (target, path) = match method {
            Did::Plc => (self.directory.target.clone(), format!("{}/{did}", self.directory.base)),
            Did::Web { host, port } => {
                // Plain HTTP is for one's own machine, where there are no certificates.
                let scheme = if host == "localhost" { "http" } else { "https" };
                let port = port.map_or_else(String::new, |port| format!(":{port}"));
                (self.target(&format!("{scheme}://{host}{port}"))?, "/.well-known/did.json".to_owned())
            }
        };
        let answer = self.get(&target, &path, LARGEST, urgency).await?;
        match answer.status {
            200 => Document::parse(did, &answer.body).map_err(|error| ResolveError::refused(error.to_string())),
            404 => Err(ResolveError::NotFound),
            410 if is_plc => Err(ResolveError::Tombstoned),
            410 => Err(ResolveError::NotFound),
            status => Err(unusable(&target.host, status)),
        }
    }

    /// Asks whether a host has an account, and shows it.
    pub(crate) async fn status(&self, host: &str, did: &str) -> Result<Status, ResolveError> {
        let found = self.find_status(host, did).await;
        self.events.asked(Asked::Status, found.as_ref().map_or_else(ResolveError::word, |_| "ok"));
        found
    }

    async fn find_status(&self, host: &str, did: &str) -> Result<Status, ResolveError> {
        let target = self.target(host)?;
        let path = format!("/xrpc/com.atproto.sync.getRepoStatus?did={did}");
        let answer = self.get(&target, &path, SMALL, Urgency::Now).await.map_err(|error| match error {
            // That a host is gone says nothing of its accounts.
            ResolveError::NotFound => ResolveError::unreachable(&target.host, "is the name of no host"),
            error => error,
        })?;
        match answer.status {
            200 => {
                let read: Option<StatusAnswer> = serde_json::from_slice(&answer.body).ok();
                let Some(StatusAnswer { active, status, rev, .. }) = read.filter(|read| read.did == did) else {
                    return Err(ResolveError::refused(format!("{} answered with something else", target.host)));
                };
                Ok(Status::Known { active, status, rev })
            }
            400 | 404 => {
                let read: Option<ErrorAnswer> = serde_json::from_slice(&answer.body).ok();
                match read {
                    Some(read) if read.error == "RepoNotFound" => Ok(Status::NotFound),
                    _ => Err(unusable(&target.host, answer.status)),
                }
            }
            status => Err(unusable(&target.host, status)),
        }
    }

    /// Finds out whose a handle is: by DNS, and where that says nothing, at its host.
    pub(crate) async fn owner(&self, name: &str) -> Result<Owner, ResolveError> {
        let found = self.find_owner(name).await;
        let word = match &found {
            Ok(Owner::Did(_)) => "ok",
            Ok(Owner::Nobody) => "not_found",
            Err(error) => error.word(),
        };
        self.events.asked(Asked::Handle, word);
        found
    }

    async fn find_owner(&self, name: &str) -> Result<Owner, ResolveError> {
        if !handle::is_name(name) || handle::is_nobodys(name, self.fence.allows_any()) {
            return Ok(Owner::Nobody);
        }
        let texts = self.names.texts(&format!("_atproto.{name}.")).await;
        if let Ok(Texts::Found(texts)) = &texts {
            let mut dids: Vec<&str> = texts.iter().filter_map(|text| text.strip_prefix("did=")).collect();
            dids.sort_unstable();
            dids.dedup();
            match dids.as_slice() {
                [] => {}
                [did] if Did::parse(did).is_ok() => return Ok(Owner::Did((*did).to_owned())),
                _ => return Ok(Owner::Nobody),
            }
        }
        match (self.well_known(name).await?, texts) {
            (Owner::Nobody, Err(why)) => Err(ResolveError::unreachable(name, why)),
            (owner, _) => Ok(owner),
        }
    }

    /// Asks the host that is called as the handle.
    async fn well_known(&self, name: &str) -> Result<Owner, ResolveError> {
        let mut target = self.target(&format!("https://{name}"))?;
        let mut path = "/.well-known/atproto-did".to_owned();
        for _ in 0..=REDIRECTS {
            let answer = match self.get(&target, &path, SMALL, Urgency::Now).await {
                Err(ResolveError::NotFound | ResolveError::Refused { .. }) => return Ok(Owner::Nobody),
                answer => answer?,
            };
            match answer.status {
                200 => {
                    let text = std::str::from_utf8(&answer.body).unwrap_or_default().trim();
                    let is_did = Did::parse(text).is_ok();
                    return Ok(if is_did { Owner::Did(text.to_owned()) } else { Owner::Nobody });
                }
                301 | 302 | 303 | 307 | 308 => {
                    let here = Url::parse(&format!("{}{path}", target.origin())).ok();
                    let next = here.zip(answer.location).and_then(|(here, next)| here.join(&next).ok());
                    let Some(next) = next.filter(|next| next.scheme() == "https" && next.username().is_empty()) else {
                        return Ok(Owner::Nobody);
                    };
                    let Ok(there) = self.target(&next.origin().ascii_serialization()) else {
                        return Ok(Owner::Nobody);
                    };
                    target = there;
                    next[url::Position::BeforePath..url::Position::AfterQuery].clone_into(&mut path);
                }
                _ => return Ok(Owner::Nobody),
            }
        }
        Ok(Owner::Nobody)
    }

    /// Reads an origin that somebody wrote. What may only be asked in private networks is decided when its addresses are known.
    fn target(&self, text: &str) -> Result<Target, ResolveError> {
        let refused = || ResolveError::refused(format!("{text} is not the address of a host"));
        let text = origin(text).ok_or_else(refused)?;
        Target::parse(&text, self.https_port).ok_or_else(refused)
    }

    /// Gets one answer. 429 and what begins with 5 are failures of the host.
    async fn get(&self, target: &Target, path: &str, most: usize, urgency: Urgency) -> Result<Answer, ResolveError> {
        let is_directory = *target == self.directory.target;
        let admitted = self.hosts.admit(&target.key(), urgency).await?;
        let since = Instant::now();
        let answer = timeout(self.timeout, self.exchange(target, is_directory, path, most)).await;
        let answer = answer.unwrap_or_else(|_| {
            let why = format!("gave no answer within {:?}", self.timeout);
            Err(Failed::Host(why))
        });
        let host = &target.host;
        let (outcome, answer) = match answer {
            Ok(answer) if answer.status == 429 || answer.status >= 500 => {
                let why = format!("answered {}", answer.status);
                (Outcome::Failed(answer.retry_after), Err(Failed::Host(why)))
            }
            // Whatever stands between it and us: it must not be taken for its word on an account.
            Ok(answer) if is_directory && !answer.is_of_directory() => {
                let why = format!("answered {} with something that is not its own", answer.status);
                (Outcome::Failed(None), Err(Failed::Host(why)))
            }
            Ok(answer) => (Outcome::Answered, Ok(answer)),
            Err(Failed::Host(why)) => (Outcome::Failed(None), Err(Failed::Host(why))),
            Err(failed) => (Outcome::Answered, Err(failed)),
        };
        admitted.done(outcome, since.elapsed());
        if is_directory {
            match &answer {
                Err(Failed::Host(why)) => self.events.directory_failed(why),
                _ => self.events.directory_answered(),
            }
        }
        answer.map_err(|failed| match failed {
            Failed::Host(why) => ResolveError::unreachable(host, why),
            Failed::NoSuchName => ResolveError::NotFound,
            Failed::Refused(why) => ResolveError::refused(format!("{host} {why}")),
            Failed::Busy => ResolveError::Busy { host: host.clone() },
        })
    }

    async fn exchange(&self, target: &Target, is_directory: bool, path: &str, most: usize) -> Result<Answer, Failed> {
        if let Some(answer) = self.client.again(target, path, most).await {
            return answer.map_err(|error| Failed::of(&error));
        }
        let addresses = self.names.addresses(&target.host, is_directory).await?;
        // Where the directory is, is the administrator's own word.
        let open = if is_directory { known(addresses)? } else { target.open_of(&self.fence, addresses)? };
        // One host under very many names has one share.
        let _share = match (is_directory, open.first()) {
            (false, Some(address)) => Some(self.hosts.share_of(*address).await.ok_or(Failed::Busy)?),
            _ => None,
        };
        self.client.connect(target, &open, path, most).await.map_err(|error| Failed::of(&error))
    }
}

/// Returns addresses, if there are any.
fn known(addresses: Vec<IpAddr>) -> Result<Vec<IpAddr>, Failed> {
    if addresses.is_empty() { Err(Failed::NoSuchName) } else { Ok(addresses) }
}

impl Target {
    /// Returns those of its addresses that may be asked.
    fn open_of(&self, fence: &Fence, addresses: Vec<IpAddr>) -> Result<Vec<IpAddr>, Failed> {
        let mut refused = None;
        let mut open = Vec::new();
        for address in addresses {
            match self.may_be_at(fence.place(address)) {
                Ok(()) => open.push(address),
                Err(why) => refused = Some(why),
            }
        }
        match refused {
            Some(why) if open.is_empty() => Err(Failed::Refused(why.into())),
            _ => known(open),
        }
    }
}

/// Why there is no answer.
#[derive(Debug)]
enum Failed {
    /// The host did not give one.
    Host(String),
    /// There is no host of this name.
    NoSuchName,
    /// It may not be asked, or what it says may not be read.
    Refused(String),
    /// Too much is being asked for.
    Busy,
}

impl Failed {
    fn of(error: &http::HttpError) -> Self {
        if error.is_of_host() { Self::Host(error.to_string()) } else { Self::Refused(error.to_string()) }
    }
}

fn unusable(host: &str, status: u16) -> ResolveError {
    ResolveError::refused(format!("{host} answered {status}"))
}

// === impl Directory ===

impl Directory {
    fn parse(text: &str) -> Result<Self, SettingsError> {
        let refuse = |why: &str| SettingsError::PlcUrl { why: why.to_owned() };
        let url = Url::parse(text).map_err(|error| refuse(&error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(refuse("neither http nor https"));
        }
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
            return Err(refuse("a user, query or fragment has no place there"));
        }
        let target = Target::parse(&url.origin().ascii_serialization(), 443).ok_or_else(|| refuse("names no host"))?;
        Ok(Self { target, base: url.path().trim_end_matches('/').to_owned() })
    }
}
