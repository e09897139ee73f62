//! Requests to hosts, each within its host's limits, and with bounds on how long an answer may take.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use penstock_identity::web::{Answering, Host, Web, WebError};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout};
use url::form_urlencoded;

use crate::error::RepoError;
use crate::hosts::{Admitted, Hosts, Limit};

/// How many redirects are followed: relays send on to a repo's own host.
const REDIRECTS: usize = 3;

/// The largest refusal that is read, in bytes.
const REFUSAL: usize = 16 * 1024;

/// How long is waited.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// For the head of an answer, for each piece of its body, and for a turn.
    pub(crate) wait: Duration,
    /// After so much waiting for pieces, a body has to have come this fast, in bytes a second.
    pub(crate) rate: u64,
}

/// Asks hosts.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) web: Web,
    hosts: Hosts,
    patience: Patience,
}

/// An answer whose body is being read.
#[derive(Debug)]
pub(crate) struct Body {
    answering: Answering,
    admitted: Admitted,
    /// The name of the host that gave it.
    pub(crate) host: Box<str>,
    patience: Patience,
    waited: Duration,
    received: u64,
}

/// What is asked for.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    /// The name of the method.
    method: &'static str,
    path: String,
    host: &'a Host,
}

/// As XRPC has it.
#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    error: String,
    #[serde(default)]
    message: String,
}

// === impl Patience ===

impl Patience {
    /// A tenth of a megabit: whoever is slower holds a connection for nothing.
    const RATE: u64 = 8 * 1024;

    pub(crate) fn new(of_request: Duration) -> Self {
        Self { wait: of_request * 3, rate: Self::RATE }
    }
}

// === impl Request ===

impl<'a> Request<'a> {
    pub(crate) fn new(host: &'a Host, method: &'static str, parameters: &[(&str, &str)]) -> Self {
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
        Self { method, path: format!("/xrpc/{method}?{query}"), host }
    }
}

// === impl Client ===

impl Client {
    pub(crate) fn new(web: Web, hosts: Hosts, patience: Patience) -> Self {
        Self { web, hosts, patience }
    }

    /// Asks, and reads the whole answer as JSON.
    pub(crate) async fn json<T: DeserializeOwned>(&self, request: &Request<'_>, most: usize) -> Result<T, RepoError> {
        let mut body = self.open(request, "application/json").await?;
        let bytes = body.whole(most).await?;
        serde_json::from_slice(&bytes).map_err(|error| RepoError::Refused {
            host: body.host.clone(),
            why: format!("answered {} with something else: {error}", request.method).into(),
        })
    }

    /// Asks, and returns once the host has begun to answer with what is asked for.
    pub(crate) async fn open(&self, request: &Request<'_>, accept: &str) -> Result<Body, RepoError> {
        let (mut host, mut path) = (request.host.clone(), request.path.clone());
        for _ in 0..=REDIRECTS {
            let mut body = self.begin(&host, &path, accept).await?;
            match body.answering.status() {
                200 => return Ok(body),
                301 | 302 | 303 | 307 | 308 => {
                    let next = body.answering.elsewhere(&host, &path);
                    let there = next.and_then(|(origin, path)| Some((self.web.host(&origin)?, path)));
                    // Wherever it leads, it is behind the fence, though the first host was named by the administrator.
                    let Some((next, next_path)) = there else {
                        return Err(refused(&body.host, "sends on to something that is no host"));
                    };
                    (host, path) = (next, next_path);
                }
                status => {
                    let refusal = body.whole(REFUSAL).await.ok();
                    let refusal = refusal.and_then(|bytes| serde_json::from_slice(&bytes).ok());
                    return Err(Refusal::read(&body.host, request.method, status, refusal));
                }
            }
        }
        Err(refused(host.name(), "sends on too often"))
    }

    /// Asks one host, and reads the head. 429 and what begins with 5 are failures of the host, but for a method that it has not.
    async fn begin(&self, host: &Host, path: &str, accept: &str) -> Result<Body, RepoError> {
        let admitted = self.hosts.admit(&host.key()).await?;
        let answered = timeout(self.patience.wait, self.web.get(host, path, accept)).await;
        let answering = match answered {
            Ok(Ok(answering)) => answering,
            Ok(Err(WebError::Failed(why))) => return Err(admitted.failed(&why, None)),
            Ok(Err(error @ WebError::NoSuchName)) => return Err(admitted.failed(&error.to_string(), None)),
            Ok(Err(WebError::Busy)) => {
                return Err(RepoError::Busy { host: host.name().into(), retry_after: self.patience.wait });
            }
            Ok(Err(WebError::Refused(why))) => return Err(refused(host.name(), &why)),
            Err(_) => {
                let why = format!("gave no answer within {} s", self.patience.wait.as_secs_f32());
                return Err(admitted.failed(&why, None));
            }
        };
        let status = answering.status();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let (remaining, reset) = (answering.header("ratelimit-remaining"), answering.header("ratelimit-reset"));
        let limit = Limit::read(status == 429, answering.retry_after(), remaining, reset, now);
        match status {
            429 => return Err(admitted.limited(limit)),
            500.. if status != 501 => {
                let asked = answering.retry_after();
                return Err(admitted.failed(&format!("answered {status}"), asked));
            }
            _ => admitted.answered(limit),
        }
        let host = host.name().into();
        Ok(Body { answering, admitted, host, patience: self.patience, waited: Duration::ZERO, received: 0 })
    }
}

// === impl Body ===

impl Body {
    /// Returns the next piece; none at its end. One that comes too slowly is a failure of the host.
    pub(crate) async fn piece(&mut self) -> Result<Option<Bytes>, RepoError> {
        let since = Instant::now();
        let piece = timeout(self.patience.wait, self.answering.piece()).await;
        // Only waiting for the host counts, not what we take for our part of it.
        self.waited += since.elapsed();
        match piece {
            Ok(Ok(None)) => Ok(None),
            Ok(Ok(Some(piece))) => {
                self.received += piece.len() as u64;
                let due = self.waited.saturating_sub(self.patience.wait).as_secs().saturating_mul(self.patience.rate);
                if self.received < due { Err(self.slow()) } else { Ok(Some(piece)) }
            }
            Ok(Err(error)) => Err(RepoError::Cut { host: self.host.clone(), why: error.to_string().into() }),
            Err(_) => Err(self.slow()),
        }
    }

    fn slow(&self) -> RepoError {
        self.admitted.failed("sends too slowly", None);
        RepoError::Slow { host: self.host.clone() }
    }

    /// Reads all of it, up to a bound.
    pub(crate) async fn whole(&mut self, most: usize) -> Result<Vec<u8>, RepoError> {
        let mut bytes = Vec::new();
        while let Some(piece) = self.piece().await? {
            if bytes.len() + piece.len() > most {
                return Err(refused(&self.host, &format!("answered with more than {most} bytes")));
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }
}

// === impl Refusal ===

impl Refusal {
    fn read(host: &str, method: &'static str, status: u16, refusal: Option<Self>) -> RepoError {
        let host: Box<str> = host.into();
        let Some(Self { error, message }) = refusal else {
            return match status {
                404 | 405 | 501 => RepoError::Unsupported { host, method },
                _ => refused(&host, &format!("answered {status}")),
            };
        };
        let inactive = |status| RepoError::Inactive { host: host.clone(), status };
        match error.as_str() {
            "RepoNotFound" | "AccountNotFound" => RepoError::NotFound { host },
            "RepoTakendown" | "AccountTakedown" => inactive("takendown"),
            "RepoSuspended" => inactive("suspended"),
            "RepoDeactivated" => inactive("deactivated"),
            "MethodNotImplemented" | "XRPCNotSupported" | "NotImplemented" => RepoError::Unsupported { host, method },
            // An older PDS says it in words.
            _ if message.starts_with("Could not find repo") || message.starts_with("Could not find user") => {
                RepoError::NotFound { host }
            }
            "RecordNotFound" => RepoError::NoRecord { host },
            _ if message.starts_with("Could not locate record") => RepoError::NoRecord { host },
            _ if status == 501 => RepoError::Unsupported { host, method },
            _ => {
                let said: String = [error, message].join(": ").chars().filter(|c| !c.is_control()).take(200).collect();
                refused(&host, &format!("answered {status}: {said}"))
            }
        }
    }
}

fn refused(host: &str, why: &str) -> RepoError {
    RepoError::Refused { host: host.into(), why: why.into() }
}
