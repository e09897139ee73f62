//! Checks who signed commits: with keys that are in memory while a chunk is decoded, with others before its turn comes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use penstock_core::backoff::Backoff;
use penstock_core::data::EventKind;
use penstock_core::settings::Unresolved;
use penstock_identity::{Identities, Identity, KnownKey, ResolveError};
use penstock_wire::{Event, Key, Proof};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::events::Events;
use crate::relay::item::{Failure, Item};

/// How long events wait for keys that have to be resolved.
const WAIT: Duration = Duration::from_secs(2);

/// The pauses between two tries while events are held.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// Checks signatures; clones share what is known of keys.
#[derive(Clone)]
pub(crate) struct Signatures {
    pub(crate) identities: Identities,
    /// What becomes of a commit whose account's key cannot be had.
    pub(crate) unresolved: Unresolved,
    /// Whether what is not signed by the account is refused.
    pub(crate) is_enforced: bool,
    pub(crate) events: Events,
    /// Whether events are held because keys cannot be had.
    pub(crate) is_holding: Arc<AtomicBool>,
}

/// The turns of chunks that are checked beside each other: each tells of changed accounts before the next one looks at them. A key is
/// refused only after everything that came before it in the stream was told.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    last: Option<oneshot::Receiver<()>>,
}

/// The turn of one chunk.
#[derive(Debug)]
pub(crate) struct Turn {
    before: Option<oneshot::Receiver<()>>,
    done: Option<oneshot::Sender<()>>,
}

// === impl Turns ===

impl Turns {
    /// Gives the next chunk its turn.
    pub(crate) fn next(&mut self) -> Turn {
        let (done, last) = oneshot::channel();
        Turn { before: self.last.replace(last), done: Some(done) }
    }
}

// === impl Turn ===

impl Turn {
    /// Waits for the chunk before; one that is gone holds up nobody.
    async fn come(&mut self) {
        if let Some(before) = self.before.take() {
            let _ = before.await;
        }
    }

    fn pass(&mut self) {
        if let Some(done) = self.done.take() {
            let _ = done.send(());
        }
    }
}

// === impl Signatures ===

impl Signatures {
    /// Checks a commit with the key that is in memory.
    pub(crate) fn check(&self, event: &Event) -> Option<Failure> {
        let proof = event.proof.as_deref()?;
        match self.identities.known_key(&event.did) {
            KnownKey::Key(key) => check(proof, &key),
            KnownKey::None => Some(Failure::NoKey),
            KnownKey::Unknown => Some(Failure::Unresolved),
        }
    }

    /// Checks what is left of a decoded chunk: resolves keys, and asks again for those that do not fit. `turn` says that the chunk
    /// before has told which accounts changed.
    pub(crate) async fn finish(&self, items: &mut [Item], mut turn: Turn, cancel: &CancellationToken) {
        turn.come().await;
        let changed: BTreeSet<&str> = items.iter().filter_map(renamed).collect();
        self.identities.invalidate_many(&changed.into_iter().collect::<Vec<_>>()).await;
        turn.pass();
        // What was checked with a key that is known to have changed since is not checked.
        for item in items.iter_mut() {
            if let Item::Failed(event, failure @ (Failure::Signature(_) | Failure::NoKey), _) = item
                && self.identities.known_key(&event.did) == KnownKey::Unknown
            {
                *failure = Failure::Unresolved;
            }
        }
        let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
        loop {
            self.resolve(items).await;
            let is_held = self.unresolved == Unresolved::Hold && items.iter().any(is_unresolved);
            if is_held != self.is_holding.swap(is_held, Ordering::Relaxed) {
                self.events.verification().holding(is_held);
            }
            if !is_held {
                break;
            }
            tokio::select! {
                () = cancel.cancelled() => return,
                () = sleep(backoff.fail()) => {}
            }
        }
        self.refresh(items).await;
        self.check_syncs(items).await;
    }

    /// Resolves the keys that are not in memory, and checks what they are for.
    async fn resolve(&self, items: &mut [Item]) {
        let dids: BTreeSet<Box<str>> = items.iter().filter(|item| is_unresolved(item)).filter_map(did).collect();
        if dids.is_empty() {
            return;
        }
        let asked: Vec<&str> = dids.iter().map(|did| &**did).collect();
        // What is not resolved in time is resolved nevertheless, for the next ones.
        let Ok(resolved) = timeout(WAIT, self.identities.resolve_many(&asked)).await else { return };
        for (did, identity) in asked.into_iter().zip(resolved) {
            if identity.as_ref().is_err_and(|error| !error.is_final()) {
                continue;
            }
            for item in items.iter_mut().filter(|item| is_unresolved(item) && is_of(item, did)) {
                settle(item, &identity);
            }
        }
    }

    /// Asks once more for keys that do not fit: they may have changed.
    async fn refresh(&self, items: &mut [Item]) {
        let is_failed = |item: &Item| matches!(item, Item::Failed(_, Failure::Signature(_) | Failure::NoKey, _));
        let dids: BTreeSet<Box<str>> = items.iter().filter(|item| is_failed(item)).filter_map(did).collect();
        for did in dids {
            let asked = timeout(WAIT, self.identities.refresh_after_failure(&did)).await;
            // Where it is too soon to ask, another chunk has asked since this one was decoded.
            let identity = match asked {
                Ok(Ok(Some(identity))) => Ok(identity),
                _ => match timeout(WAIT, self.identities.resolve(&did)).await {
                    Ok(Ok(identity)) => Ok(identity),
                    _ => continue,
                },
            };
            for item in items.iter_mut().filter(|item| is_failed(item) && is_of(item, &did)) {
                settle(item, &identity);
            }
        }
    }

    /// Passes over each `#sync` that is not signed by its account: that of an account that has moved is signed with its former key.
    async fn check_syncs(&self, items: &mut [Item]) {
        for item in items {
            let Item::Sync(sync) = &*item else { continue };
            let Some(proof) = sync.proof.as_deref() else { continue };
            let key = match self.identities.known_key(&sync.did) {
                KnownKey::Unknown => match timeout(WAIT, self.identities.resolve(&sync.did)).await {
                    Ok(Ok(identity)) => identity.key,
                    _ => continue,
                },
                KnownKey::Key(key) => Some(key),
                KnownKey::None => None,
            };
            let failure = key.map_or(Some(Failure::NoKey), |key| check(proof, &key));
            if let Some(failure) = failure {
                self.events.verification().unsigned_sync(failure.word(), &sync.did, sync.seq, &failure);
                if self.is_enforced {
                    *item = Item::Ignored(Some(sync.seq));
                }
            }
        }
    }
}

impl std::fmt::Debug for Signatures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signatures").finish_non_exhaustive()
    }
}

fn check(proof: &Proof, key: &Key) -> Option<Failure> {
    proof.signed.verify(key).err().map(Failure::Signature)
}

/// Returns the account of an `#identity`.
fn renamed(item: &Item) -> Option<&str> {
    match item {
        Item::Event(event) if event.kind == EventKind::Identity => Some(&event.did),
        _ => None,
    }
}

fn is_unresolved(item: &Item) -> bool {
    matches!(item, Item::Failed(_, Failure::Unresolved, _))
}

fn did(item: &Item) -> Option<Box<str>> {
    match item {
        Item::Failed(event, ..) => Some(event.did.clone()),
        _ => None,
    }
}

fn is_of(item: &Item, did: &str) -> bool {
    matches!(item, Item::Failed(event, ..) if &*event.did == did)
}

/// Checks a commit anew with what was resolved.
fn settle(item: &mut Item, identity: &Result<Identity, ResolveError>) {
    let Item::Failed(event, failure, _) = item else { return };
    let key = identity.as_ref().ok().and_then(|identity| identity.key);
    let found = match (&event.proof, key) {
        (Some(proof), Some(key)) => check(proof, &key),
        _ => Some(Failure::NoKey),
    };
    // What was not looked at before, for the signature comes first.
    match found.or_else(|| Failure::of(event, jiff::Timestamp::now())) {
        Some(found) => *failure = found,
        None => {
            let taken = std::mem::replace(item, Item::Ignored(None));
            if let Item::Failed(event, ..) = taken {
                *item = Item::Event(event);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_chunk_waits_for_the_one_before_to_tell_and_for_none_that_is_gone() {
        let mut turns = Turns::default();
        let [mut first, mut second, third, mut fourth] = [(); 4].map(|()| turns.next());
        first.come().await;
        let waits = async |turn: &mut Turn| {
            let Some(before) = turn.before.as_mut() else { return false };
            timeout(Duration::from_millis(50), before).await.is_err()
        };
        assert!(waits(&mut second).await, "the first has told nothing yet");
        first.pass();
        second.come().await;
        assert!(waits(&mut fourth).await);
        drop(third);
        fourth.come().await;
    }
}
