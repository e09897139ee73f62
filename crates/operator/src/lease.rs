//! Leader election among several operators: by a Lease of the cluster, renewed in time or given up.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use penstock_core::causes::chain;
use penstock_core::servers::Server;
use penstock_telemetry::admin::Heartbeat;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::error::OperatorError;
use crate::outage::is_unanswered;

/// The least time that one request is given.
const SHORTEST_REQUEST: Duration = Duration::from_millis(100);

/// The times of a lease.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    /// How long others wait for a leader that does not renew.
    pub(crate) duration: Duration,
    /// How long the leader tries to renew before it ends.
    pub(crate) deadline: Duration,
    /// How often it is requested, or renewed.
    pub(crate) retry: Duration,
}

/// Acquires the lease, renews it, and releases it.
pub(crate) struct Elector {
    api: Api<Lease>,
    name: String,
    identity: String,
    times: Times,
    heartbeat: Heartbeat,
    server: Server,
    seen: Option<Sighting>,
}

/// What the lease said, and since when it says so by the clock of this process: those of others may differ.
#[derive(Clone, Debug, PartialEq)]
struct Sighting {
    holder: Option<String>,
    renewed: Option<MicroTime>,
    since: Instant,
}

/// What is to be done about a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// It is nobody's, or its holder has not renewed it in time.
    Take,
    /// It is ours.
    Renew,
    /// It is somebody else's.
    Wait,
}

// === impl Elector ===

impl Elector {
    pub(crate) fn new(
        client: Client,
        namespace: &str,
        name: &str,
        identity: String,
        times: Times,
        heartbeat: Heartbeat,
        server: Server,
    ) -> Self {
        let api = Api::namespaced(client, namespace);
        Self { api, name: name.to_owned(), identity, times, heartbeat, server, seen: None }
    }

    /// Waits until the lease is ours; returns when it was asked for, or none when cancelled first.
    pub(crate) async fn acquire(&mut self, cancel: &CancellationToken) -> Option<Instant> {
        let mut logged = None;
        loop {
            self.heartbeat.beat();
            let asked = Instant::now();
            let outcome = tokio::select! {
                () = cancel.cancelled() => return None,
                outcome = timeout(self.times.deadline, self.ask()) => outcome,
            };
            self.record(&outcome);
            match outcome {
                Ok(Ok(true)) => {
                    info!(lease = %self.name, identity = %self.identity, "became the leader");
                    return Some(asked);
                }
                Ok(Ok(false)) => {
                    let holder = self.seen.as_ref().and_then(|seen| seen.holder.clone());
                    if holder != logged {
                        info!(lease = %self.name, holder = holder.as_deref().unwrap_or_default(), "standing by");
                        logged = holder;
                    }
                }
                Ok(Err(error)) if self.server.is_away() => {
                    debug!(error = chain(&error), lease = %self.name, "could not acquire the lease, retrying");
                }
                Ok(Err(error)) => {
                    warn!(error = chain(&error), lease = %self.name, "could not acquire the lease, retrying");
                }
                Err(_) => {
                    debug!(lease = %self.name, "the api server did not answer in time, retrying to acquire the lease");
                }
            }
            tokio::select! {
                () = cancel.cancelled() => return None,
                () = sleep(self.times.retry) => {}
            }
        }
    }

    /// Renews the lease, which was ours at `renewed`, until it is lost or renewing is cancelled.
    ///
    /// # Errors
    /// Somebody else holds it, or it could not be renewed within the deadline: this process must not lead any more.
    pub(crate) async fn keep(&mut self, mut renewed: Instant, cancel: &CancellationToken) -> Result<(), OperatorError> {
        let lost = |lease: &str, why: String| OperatorError::LeaseLost { lease: lease.to_owned(), why };
        loop {
            tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                () = sleep(self.times.retry) => {}
            }
            self.heartbeat.beat();
            let asked = Instant::now();
            let left = self.times.deadline.saturating_sub(asked.duration_since(renewed));
            // One request that gets no answer leaves time for another, on another connection.
            let patience = left.min(self.times.deadline / 3).max(SHORTEST_REQUEST);
            let outcome = timeout(patience, self.ask()).await;
            self.record(&outcome);
            let why = match outcome {
                Ok(Ok(true)) => {
                    renewed = asked;
                    continue;
                }
                Ok(Ok(false)) => {
                    let holder = self.seen.as_ref().and_then(|seen| seen.holder.clone()).unwrap_or_default();
                    if holder != self.identity {
                        return Err(lost(&self.name, format!("{holder} holds it")));
                    }
                    "it was changed by someone else".to_owned()
                }
                Ok(Err(error)) => chain(&error),
                Err(_) => "the api server did not answer in time".to_owned(),
            };
            if renewed.elapsed() >= self.times.deadline {
                return Err(lost(&self.name, format!("not renewed within {:?}: {why}", self.times.deadline)));
            }
            if self.server.is_away() {
                debug!(error = why, lease = %self.name, "could not renew the lease, retrying");
            } else {
                warn!(error = why, lease = %self.name, "could not renew the lease, retrying");
            }
        }
    }

    /// Records whether the API server answered.
    fn record(&self, outcome: &Result<Result<bool, kube::Error>, Elapsed>) {
        match outcome {
            Ok(Err(error)) if is_unanswered(error) => self.server.failed(error),
            Err(_) => self.server.failed_because("no answer in time"),
            Ok(_) => self.server.answered(),
        }
    }

    /// Releases the lease, so that nobody need wait for it to expire.
    pub(crate) async fn release(&mut self) {
        let released = async {
            let Some(mut lease) = self.api.get_opt(&self.name).await? else { return Ok(()) };
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_deref() != Some(&self.identity) {
                return Ok(());
            }
            spec.holder_identity = None;
            spec.lease_duration_seconds = Some(1);
            self.api.replace(&self.name, &PostParams::default(), &lease).await.map(drop)
        };
        match timeout(self.times.retry.max(Duration::from_secs(1)), released).await {
            Ok(Ok(())) => info!(lease = %self.name, "released the lease"),
            Ok(Err(error)) if self.server.is_away() => {
                let error: kube::Error = error;
                debug!(error = chain(&error), lease = %self.name, "could not release the lease, it will expire");
            }
            Ok(Err(error)) => {
                let error: kube::Error = error;
                warn!(error = chain(&error), lease = %self.name, "could not release the lease, it will expire");
            }
            Err(_) if self.server.is_away() => debug!(lease = %self.name, "could not release the lease in time"),
            Err(_) => warn!(lease = %self.name, "could not release the lease in time, it will expire"),
        }
    }

    /// Asks once; says whether the lease is ours now.
    async fn ask(&mut self) -> Result<bool, kube::Error> {
        let now = MicroTime(Timestamp::now());
        let Some(mut lease) = self.api.get_opt(&self.name).await? else {
            let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(self.held(None, now)) };
            return settled(self.api.create(&PostParams::default(), &lease).await);
        };
        let spec = lease.spec.take().unwrap_or_default();
        let seen = Sighting::new(&spec, self.seen.take(), Instant::now());
        let step = judge(&spec, &seen, &self.identity, Instant::now(), self.times.duration);
        self.seen = Some(seen);
        match step {
            Step::Wait => return Ok(false),
            Step::Take | Step::Renew => lease.spec = Some(self.held(Some(spec), now)),
        }
        // The resource version that was read goes along: of two that take it at once, one is refused.
        settled(self.api.replace(&self.name, &PostParams::default(), &lease).await)
    }

    fn held(&self, before: Option<LeaseSpec>, now: MicroTime) -> LeaseSpec {
        let before = before.unwrap_or_default();
        let ours = before.holder_identity.as_deref() == Some(&self.identity);
        let transitions = before.lease_transitions.unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(i32::try_from(self.times.duration.as_secs().max(1)).unwrap_or(i32::MAX)),
            acquire_time: if ours { before.acquire_time } else { Some(now.clone()) },
            renew_time: Some(now),
            lease_transitions: Some(if ours { transitions } else { transitions.saturating_add(1) }),
            ..before
        }
    }
}

// === impl Sighting ===

impl Sighting {
    /// Looks again: only a change begins a new time.
    fn new(spec: &LeaseSpec, before: Option<Self>, now: Instant) -> Self {
        let holder = spec.holder_identity.clone().filter(|holder| !holder.is_empty());
        let renewed = spec.renew_time.clone();
        match before {
            Some(before) if before.holder == holder && before.renewed == renewed => before,
            _ => Self { holder, renewed, since: now },
        }
    }
}

fn judge(spec: &LeaseSpec, seen: &Sighting, identity: &str, now: Instant, ours: Duration) -> Step {
    match &seen.holder {
        None => Step::Take,
        Some(holder) if holder == identity => Step::Renew,
        Some(_) => {
            let written = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
            let patience = written.map_or(ours, Duration::from_secs);
            if now.duration_since(seen.since) > patience { Step::Take } else { Step::Wait }
        }
    }
}

/// Takes a conflict for a no: somebody else was faster.
fn settled<T>(answer: Result<T, kube::Error>) -> Result<bool, kube::Error> {
    match answer {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: Duration = Duration::from_secs(15);

    fn spec(holder: &str, renewed: i64) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(15),
            renew_time: Some(MicroTime(Timestamp::from_second(renewed).unwrap())),
            ..LeaseSpec::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn another_ones_lease_is_taken_only_after_it_was_not_renewed_for_its_duration() {
        let start = Instant::now();
        let first = Sighting::new(&spec("a", 1), None, start);
        assert_eq!(judge(&spec("a", 1), &first, "b", start, OURS), Step::Wait);
        // However old the renewal is by the holder's clock: its clock may be wrong.
        assert_eq!(judge(&spec("a", 1), &first, "b", start + OURS, OURS), Step::Wait);
        let again = Sighting::new(&spec("a", 1), Some(first.clone()), start + OURS);
        assert_eq!(judge(&spec("a", 1), &again, "b", start + OURS + Duration::from_secs(1), OURS), Step::Take);
        let renewed = Sighting::new(&spec("a", 2), Some(first), start + OURS);
        assert_eq!(judge(&spec("a", 2), &renewed, "b", start + OURS + Duration::from_secs(1), OURS), Step::Wait);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_of_nobody_is_free_and_ones_own_is_renewed() {
        let now = Instant::now();
        let free = LeaseSpec { holder_identity: Some(String::new()), ..spec("", 1) };
        assert_eq!(judge(&free, &Sighting::new(&free, None, now), "b", now, OURS), Step::Take);
        let own = spec("b", 1);
        assert_eq!(judge(&own, &Sighting::new(&own, None, now), "b", now, OURS), Step::Renew);
    }
}
