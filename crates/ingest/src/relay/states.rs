//! Gets the states of a chunk's repos from PostgreSQL while the chunk waits for its turn.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::intake::chain::state::State;
use crate::intake::chain::{Chain, link};
use crate::relay::item::Item;
use crate::resume::lookup::Lookup;

/// How many deferred commits are judged with a chunk at most.
const DEFERRED: usize = 64;

/// The states of repos, and where those are found that are not in memory; clones share them.
#[derive(Clone, Debug)]
pub(crate) struct States {
    chain: Arc<Mutex<Chain>>,
    /// None without a database.
    lookup: Option<Lookup>,
}

// === impl States ===

impl States {
    pub(crate) fn new(chain: Chain, lookup: Option<Lookup>) -> Self {
        Self { chain: Arc::new(Mutex::new(chain)), lookup }
    }

    /// Returns the states themselves.
    pub(crate) fn shared(&self) -> &Arc<Mutex<Chain>> {
        &self.chain
    }

    /// Locks the states: only for as long as nothing is waited for.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Chain> {
        self.chain.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gets the states that are not in memory, for a chunk whose turn will come.
    pub(crate) async fn prefetch(&self, items: &[Item]) {
        let Some(lookup) = &self.lookup else { return };
        let (dids, generation) = {
            let chain = self.lock();
            (
                repos(items).filter(|did| chain.is_missing(did)).map(Box::from).collect::<BTreeSet<_>>(),
                chain.generation(),
            )
        };
        if let Some(told) = ask(lookup, dids).await {
            let mut chain = self.lock();
            for (did, state) in told {
                chain.learn(&did, state, generation);
            }
        }
    }

    /// Gets what is still missing of a chunk whose turn it is, and asks once more for what would be marked.
    pub(crate) async fn complete(&self, items: &[Item]) {
        let Some(lookup) = &self.lookup else { return };
        let (dids, deferred, generation) = {
            let mut chain = self.lock();
            repos(items).for_each(|did| chain.pin(did));
            let doubtful = |item: &&Item| match item {
                Item::Event(event) | Item::Failed(event, ..) => {
                    link::of_commit(event).is_some_and(|link| chain.is_doubtful(&event.did, link))
                }
                Item::Sync(sync) => {
                    link::of_sync(sync).is_some_and(|(rev, root)| chain.is_sync_doubtful(&sync.did, rev, root))
                }
                _ => false,
            };
            let dids: BTreeSet<Box<str>> = items.iter().filter(doubtful).filter_map(repo).map(Box::from).collect();
            (dids, chain.deferred(DEFERRED), chain.generation())
        };
        let all = dids.iter().chain(&deferred).cloned().collect();
        if let Some(told) = ask(lookup, all).await {
            let mut chain = self.lock();
            // First, since what they are told of is not written yet.
            for did in &deferred {
                let _ = chain.judge_deferred(told.get(did).copied().unwrap_or(State::NOTHING));
            }
            for did in &dids {
                chain.learn_now(did, told.get(did).copied().unwrap_or(State::NOTHING), generation);
            }
        }
    }
}

async fn ask(lookup: &Lookup, dids: BTreeSet<Box<str>>) -> Option<HashMap<Box<str>, State>> {
    if dids.is_empty() {
        return None;
    }
    lookup.states(&dids.into_iter().collect::<Vec<_>>()).await
}

fn repos(items: &[Item]) -> impl Iterator<Item = &str> {
    items.iter().filter_map(repo)
}

fn repo(item: &Item) -> Option<&str> {
    match item {
        Item::Event(event) | Item::Failed(event, ..) => {
            (event.rev.is_some() && !event.is_outside()).then_some(&*event.did)
        }
        Item::Sync(sync) => Some(&*sync.did),
        _ => None,
    }
}
