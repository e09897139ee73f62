//! Checks who signed commits: with keys that are in memory while a chunk is decoded, with others before its turn comes.

mod allowance;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use penstock_core::backoff::Backoff;
use penstock_core::data::EventKind;
use penstock_core::settings::Unresolved;
use penstock_identity::{Identities, Identity, KnownKey, ResolveError};
use penstock_wire::{Event, Key, Proof};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::events::Events;
use crate::relay::item::{Failure, Item};

pub(crate) use allowance::Allowance;

/// How long events wait for keys that have to be resolved.
const WAIT: Duration = Duration::from_secs(2);

/// Keys that are asked for again at a time.
const AT_A_TIME: usize = 64;

/// What became of asking for an account's document; none where that took too long.
type Asked = Option<Result<Identity, ResolveError>>;

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
    /// For how long events may wait for hosts that accounts chose.
    pub(crate) allowance: Arc<Allowance>,
}

/// Until when events wait for keys.
#[derive(Clone, Copy, Debug)]
struct Deadlines {
    begun: Instant,
    /// Those that the directory has.
    directory: Instant,
    /// Those that accounts' own hosts have.
    own: Instant,
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
        let resolved = self.resolve_all(dids).await;
        for item in items.iter_mut().filter(|item| is_unresolved(item)) {
            let Item::Failed(event, failure, _) = item else { continue };
            match resolved.get(&event.did) {
                Some(Some(identity)) if !identity.as_ref().is_err_and(|error| !error.is_final()) => {
                    settle(item, identity);
                }
                // Everybody waits for the directory, and nobody for the host of one account.
                _ if self.unresolved == Unresolved::Hold && !is_in_directory(&event.did) => *failure = Failure::NoKey,
                _ => {}
            }
        }
    }

    /// Resolves accounts, as far as that can be waited for. What is not resolved in time is resolved nevertheless, for the next ones.
    async fn resolve_all(&self, dids: BTreeSet<Box<str>>) -> HashMap<Box<str>, Asked> {
        if dids.is_empty() {
            return HashMap::new();
        }
        let deadlines = self.deadlines();
        let (directory, own): (Vec<&str>, Vec<&str>) =
            dids.iter().map(|did| &**did).partition(|did| is_in_directory(did));
        let resolve = async |dids: &[&str], until| timeout_at(until, self.identities.resolve_many(dids)).await.ok();
        let (of_directory, of_own) = tokio::join!(
            resolve(&directory, deadlines.directory),
            self.spending(!own.is_empty(), deadlines, resolve(&own, deadlines.own))
        );
        let mut asked: HashMap<Box<str>, Asked> = HashMap::with_capacity(dids.len());
        for (dids, resolved) in [(directory, of_directory), (own, of_own)] {
            let mut resolved = resolved.unwrap_or_default().into_iter();
            asked.extend(dids.into_iter().map(|did| (did.into(), resolved.next())));
        }
        asked
    }

    /// Asks once more for keys that do not fit: they may have changed.
    async fn refresh(&self, items: &mut [Item]) {
        let is_failed = |item: &Item| matches!(item, Item::Failed(_, Failure::Signature(_) | Failure::NoKey, _));
        let dids: BTreeSet<Box<str>> = items.iter().filter(|item| is_failed(item)).filter_map(did).collect();
        if dids.is_empty() {
            return;
        }
        let deadlines = self.deadlines();
        let refreshing: Vec<_> = dids
            .iter()
            .map(|did| async move {
                let until = deadlines.of(did);
                // Where it is too soon to ask, another chunk has asked since this one was decoded.
                let identity = match timeout_at(until, self.identities.refresh_after_failure(did)).await {
                    Ok(Ok(Some(identity))) => Some(identity),
                    _ => timeout_at(until, self.identities.resolve(did)).await.ok().and_then(Result::ok),
                };
                (&**did, identity)
            })
            .collect();
        let refreshing = stream::iter(refreshing).buffer_unordered(AT_A_TIME).collect::<HashMap<&str, _>>();
        let has_own = dids.iter().any(|did| !is_in_directory(did));
        let refreshed = self.spending(has_own, deadlines, refreshing).await;
        for item in items.iter_mut().filter(|item| is_failed(item)) {
            if let Item::Failed(event, ..) = &*item
                && let Some(Some(identity)) = refreshed.get(&*event.did)
            {
                settle(item, &Ok(identity.clone()));
            }
        }
    }

    /// Passes over each `#sync` that is not signed by its account: that of an account that has moved is signed with its former key.
    async fn check_syncs(&self, items: &mut [Item]) {
        let is_unknown = |item: &&Item| matches!(item, Item::Sync(sync) if sync.proof.is_some() && self.identities.known_key(&sync.did) == KnownKey::Unknown);
        let dids = items.iter().filter(is_unknown).filter_map(|item| match item {
            Item::Sync(sync) => Some(Box::from(&*sync.did)),
            _ => None,
        });
        let resolved = self.resolve_all(dids.collect()).await;
        for item in items {
            let Item::Sync(sync) = &*item else { continue };
            let Some(proof) = sync.proof.as_deref() else { continue };
            let key = match (resolved.get(&*sync.did), self.identities.known_key(&sync.did)) {
                (Some(Some(Ok(identity))), _) => identity.key,
                (_, KnownKey::Key(key)) => Some(key),
                (_, KnownKey::None) => None,
                (_, KnownKey::Unknown) => continue,
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

    fn deadlines(&self) -> Deadlines {
        let begun = Instant::now();
        Deadlines { begun, directory: begun + WAIT, own: begun + self.allowance.left(begun).min(WAIT) }
    }

    /// Waits for something, and counts that against what may be waited for accounts' own hosts where it is for those.
    async fn spending<T>(&self, has_own: bool, deadlines: Deadlines, waiting: impl Future<Output = T>) -> T {
        let done = waiting.await;
        if has_own {
            self.allowance.spend(deadlines.begun.elapsed().min(deadlines.own - deadlines.begun));
        }
        done
    }
}

impl Deadlines {
    fn of(&self, did: &str) -> Instant {
        if is_in_directory(did) { self.directory } else { self.own }
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

/// Returns whether the directory has an account's document, and not a host of the account's own.
fn is_in_directory(did: &str) -> bool {
    did.starts_with("did:plc:")
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
    use penstock_core::settings::{Layers, Settings};
    use penstock_telemetry::metrics::Metrics;
    use penstock_wire::{Frame, Limits};
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;
    use crate::Progress;
    use crate::found::Found;
    use crate::servers::Servers;

    /// Signatures that hold the stream, and a directory that never answers.
    fn holding(directory: &str) -> Signatures {
        let layers = Layers::default()
            .flag("identity.enabled", "true")
            .flag("identity.plcUrl", directory)
            .flag("identity.allowedNetworks", "127.0.0.1");
        let settings = Settings::load(&layers).unwrap();
        let metrics = Metrics::new();
        let events = Events::new(&metrics, Progress::default(), Found::new(&settings.verify), Servers::new(&settings));
        Signatures {
            identities: Identities::new(&settings, None, &metrics).unwrap(),
            unresolved: Unresolved::Hold,
            is_enforced: true,
            events,
            is_holding: Arc::default(),
            allowance: Arc::default(),
        }
    }

    /// A commit of some account.
    fn commit(did: &str) -> Item {
        let settings = penstock_replay::Settings { total: Some(583), ..Default::default() };
        let limits = Limits { proof: true, ..Limits::default() };
        let found = penstock_replay::frames(&settings).unwrap().find_map(|frame| {
            match penstock_wire::decode(&frame, &limits) {
                Ok(Frame::Event(mut event)) if event.proof.is_some() => {
                    event.did = did.into();
                    Some(Item::Failed(event, Failure::Unresolved, frame))
                }
                _ => None,
            }
        });
        found.unwrap()
    }

    #[tokio::test]
    async fn all_wait_for_the_directory_and_nobody_for_the_host_of_one_account() {
        // Takes connections, and says nothing.
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = silent.local_addr().unwrap();
        let signatures = holding(&format!("http://{address}"));
        let cancel = CancellationToken::new();
        let mut turns = Turns::default();
        let own = format!("did:web:localhost%3A{}", address.port());
        for _ in 0..3 {
            let mut items = vec![commit(&own)];
            let finished = timeout(Duration::from_secs(60), signatures.finish(&mut items, turns.next(), &cancel));
            finished.await.expect("it goes on without a key");
            assert!(matches!(&*items, [Item::Failed(_, Failure::NoKey, _)]), "{items:?}");
        }
        let mut items = vec![commit("did:plc:ewvi7nxzyoun6zhxrhs64oiz"), commit(&own)];
        let finished = timeout(Duration::from_secs(5), signatures.finish(&mut items, turns.next(), &cancel)).await;
        assert!(finished.is_err() && signatures.is_holding.load(Ordering::Relaxed), "the first one waits");
    }

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
