//! Settles claims that accounts are gone, as they become due: by what the account's host says or, where identities are not
//! resolved, by believing them.
//!
//! The claims are in PostgreSQL, and whoever takes one holds it for two minutes: any number of workers share them, and what
//! one of them does not settle is due again. A host has one request of this process at a time, so that it matters to nobody
//! else how many claims wait for it, or for how long it keeps silent.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use penstock_core::live::Source;
use penstock_identity::{Identities, RepoStatus, ResolveError};
use tokio::task::{JoinError, JoinSet};

use crate::action::Action;
use crate::state::work::Work;
use crate::store::{Claim, HostAnswer, Settled};

/// How often claims are looked for.
const INTERVAL: Duration = Duration::from_secs(1);

/// How often they are counted.
const COUNT_INTERVAL: Duration = Duration::from_secs(60);

/// How often it is logged that hosts do not answer.
const TELL_INTERVAL: Duration = Duration::from_secs(3600);

/// How many are taken at once where nobody is asked.
const AT_ONCE: usize = 100;

/// How many hosts are asked at a time.
const HOSTS: usize = 64;

/// How many accounts' hosts are being found out at a time.
const LOCATED: usize = 16;

/// What is being asked.
struct Asking {
    identities: Identities,
    answers: JoinSet<(Claim, HostAnswer)>,
    /// The hosts that are asked.
    busy: BTreeSet<String>,
    /// How many claims are asked about whose host is not known.
    locating: usize,
}

/// Settles claims until asked to stop.
///
/// # Errors
/// Asking panicked.
pub(crate) async fn settle(work: Arc<Work>, identities: Option<Identities>) -> Result<(), JoinError> {
    while work.record(Action::SettleClaims, work.store.follow_grace().await).is_none() {
        if !work.rest(INTERVAL).await {
            return Ok(());
        }
    }
    match identities {
        Some(identities) => Asking::new(identities).settle(&work).await,
        None => {
            believe(&work).await;
            while work.rest(INTERVAL).await {
                believe(&work).await;
            }
            Ok(())
        }
    }
}

/// Shows how many there are.
pub(crate) async fn count(work: Arc<Work>) {
    let mut told: Option<Instant> = None;
    loop {
        if let Some(claims) = work.record(Action::SettleClaims, work.store.claimed_accounts().await) {
            let is_due = claims.unanswered > 0 && told.is_none_or(|told| told.elapsed() >= TELL_INTERVAL);
            if is_due {
                told = Some(Instant::now());
            }
            work.events.claimed_accounts(&claims, is_due);
        }
        if !work.rest(COUNT_INTERVAL).await {
            return;
        }
    }
}

/// Believes every claim that is due.
async fn believe(work: &Work) {
    while let Some(claims) = work.record(Action::SettleClaims, work.store.take_claims(AT_ONCE, 0, &[]).await) {
        for claim in &claims {
            if work.stop.is_cancelled() {
                return;
            }
            settle_one(work, claim, &HostAnswer::Believed).await;
        }
        if claims.len() < AT_ONCE {
            return;
        }
    }
}

/// Brings an answer to its claim.
async fn settle_one(work: &Work, claim: &Claim, answer: &HostAnswer) {
    let Some(settled) = work.record(Action::SettleClaims, work.store.settle_claim(claim, answer).await) else { return };
    work.events.claim_settled(&claim.did, settled, answer);
    if settled == Settled::Deleted {
        work.deleted_account.notify_one();
    }
}

/// Finds out what there is to know of a claim: first where the account is, by a document that is newer than the claim, and when
/// it is taken the next time what is said there.
async fn ask(identities: &Identities, claim: &Claim, source: Option<&Source>) -> HostAnswer {
    if claim.host.is_empty() {
        identities.invalidate(&claim.did).await;
        return match identities.resolve(&claim.did).await {
            Ok(identity) => match identity.host {
                Some(host) if !claim.is_confirmed && is_source(&host, claim, source) => HostAnswer::Believed,
                Some(host) => HostAnswer::At(host.into()),
                None => HostAnswer::Nobody("its document names no host".to_owned()),
            },
            Err(error) => of_error(&error),
        };
    }
    match identities.repo_status(&claim.did).await {
        Ok(RepoStatus::Active { .. }) => HostAnswer::Present { active: true, status: None },
        Ok(RepoStatus::Inactive { status, .. }) => {
            HostAnswer::Present { active: false, status: status.map(Into::into) }
        }
        Ok(RepoStatus::NotFound) => HostAnswer::Gone,
        Ok(RepoStatus::NoHost) => HostAnswer::Nobody("its document names no host".to_owned()),
        Err(error) => of_error(&error),
    }
}

/// A DID that its owner ended has no account anywhere; of one that nobody knows, nothing is known.
fn of_error(error: &ResolveError) -> HostAnswer {
    match error {
        ResolveError::Tombstoned => HostAnswer::Gone,
        error => HostAnswer::Nobody(error.to_string()),
    }
}

/// Returns whether the event came from the account's own host.
fn is_source(host: &str, claim: &Claim, source: Option<&Source>) -> bool {
    let name = host.split_once("://").map_or(host, |(_, name)| name);
    source.is_some_and(|source| {
        source.host.eq_ignore_ascii_case(name) && source.first_id().is_some_and(|first| Some(first) <= claim.order())
    })
}

// === impl Asking ===

impl Asking {
    fn new(identities: Identities) -> Self {
        Self { identities, answers: JoinSet::new(), busy: BTreeSet::new(), locating: 0 }
    }

    async fn settle(mut self, work: &Work) -> Result<(), JoinError> {
        loop {
            self.take(work).await;
            // What was not settled when the worker ends is due again after its two minutes.
            tokio::select! {
                biased;
                () = work.stop.cancelled() => return Ok(()),
                Some(answered) = self.answers.join_next() => {
                    let (claim, answer) = answered?;
                    if claim.host.is_empty() {
                        self.locating = self.locating.saturating_sub(1);
                    } else {
                        self.busy.remove(&claim.host);
                    }
                    settle_one(work, &claim, &answer).await;
                }
                () = tokio::time::sleep(INTERVAL) => {}
            }
        }
    }

    /// Asks about claims that are due, as far as there is room.
    async fn take(&mut self, work: &Work) {
        let busy: Vec<String> = self.busy.iter().cloned().collect();
        let (hosts, located) = (HOSTS.saturating_sub(busy.len()), LOCATED.saturating_sub(self.locating));
        let taken = work.store.take_claims(hosts, located, &busy).await;
        let Some(claims) = work.record(Action::SettleClaims, taken) else { return };
        let source = if claims.iter().any(|claim| claim.host.is_empty()) {
            // Without it, hosts are asked.
            work.consumer.survey().await.ok().and_then(|survey| survey.source().cloned()).map(Arc::new)
        } else {
            None
        };
        for claim in claims {
            if claim.host.is_empty() {
                self.locating += 1;
            } else {
                self.busy.insert(claim.host.clone());
            }
            let (identities, source) = (self.identities.clone(), source.clone());
            self.answers.spawn(async move {
                let answer = ask(&identities, &claim, source.as_deref()).await;
                (claim, answer)
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_its_hosts_own_only_where_it_came_from_there_and_not_before_that_was_read() {
        let claim = |entry: &str| Claim {
            did: "did:plc:a".to_owned(),
            entry: entry.to_owned(),
            host: String::new(),
            is_confirmed: false,
        };
        let source = |host: &str, first_id: &str| Source {
            host: host.to_owned(),
            first_id: first_id.to_owned(),
            cursor_key: None,
        };
        let late = claim("0000000000020-000000");
        for (host, claim, source, expected) in [
            ("https://pds.test", &late, Some(source("pds.test", "10-0")), true),
            ("https://PDS.test", &late, Some(source("pds.test", "20-0")), true),
            ("http://127.0.0.1:2583", &late, Some(source("127.0.0.1:2583", "10-0")), true),
            ("https://pds.test", &late, Some(source("pds.test", "20-1")), false),
            ("https://pds.test", &late, Some(source("pds.test", "")), false),
            ("https://pds.test", &late, Some(source("relay.test", "10-0")), false),
            ("https://pds.test", &late, Some(source("pds.test:8443", "10-0")), false),
            ("https://pds.test", &claim("nonsense"), Some(source("pds.test", "10-0")), false),
            ("https://pds.test", &late, None, false),
        ] {
            assert_eq!(is_source(host, claim, source.as_ref()), expected, "{host} {source:?}");
        }
    }

    #[test]
    fn only_a_did_that_was_ended_is_gone() {
        assert_eq!(of_error(&ResolveError::Tombstoned), HostAnswer::Gone);
        for error in [
            ResolveError::NotFound,
            ResolveError::Refused { why: "no".into() },
            ResolveError::Unreachable { host: "a.test".into(), why: "is away".into() },
            ResolveError::Busy { host: "a.test".into() },
        ] {
            assert_eq!(of_error(&error), HostAnswer::Nobody(error.to_string()));
        }
    }
}
