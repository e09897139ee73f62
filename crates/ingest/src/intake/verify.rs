//! Judges each commit by itself and by the chain of its repo, and says what its entry carries.

use penstock_core::settings::Verification;
use penstock_wire::{Event, Limits, Sync};

use crate::events::Events;
use crate::intake::chain::link;
use crate::intake::chain::state::{Verdict, Why, root};
use crate::relay::decode::Decoder;
use crate::relay::item::Failure;
use crate::relay::signatures::Signatures;
use crate::relay::states::States;
use crate::stream::batch::{Batch, Proven};

/// What verifies commits.
#[derive(Clone, Debug)]
pub(crate) struct Verify {
    /// The states of repos.
    pub(crate) states: States,
    /// What becomes of a commit that proves wrong.
    pub(crate) mode: Verification,
    /// What checks signatures, where they are checked.
    pub(crate) signatures: Option<Signatures>,
}

// === impl Verify ===

impl Verify {
    /// Returns how frames are decoded for it.
    pub(crate) fn decoder(&self) -> Decoder {
        Decoder {
            limits: Limits { proof: true, ..Limits::default() },
            is_enforced: self.mode == Verification::Enforce,
            signatures: self.signatures.clone(),
        }
    }

    /// Judges whether a commit follows the last one of its repo; returns what its entry carries. One that failed is counted already.
    pub(crate) fn commit(&self, event: &Event, has_failed: bool, events: &Events) -> Proven {
        let Some(link) = link::of_commit(event) else { return Proven::default() };
        let judged = self.states.lock().commit(&event.did, link);
        if !has_failed {
            events.verification().judged(judged.verdict);
        }
        if let Verdict::Breaks(why) = judged.verdict {
            events.verification().desynchronized(&event.did, why, Some(event.seq));
        }
        Proven { root: link.root.map(root), sync: judged.why.map(|why| why.word()) }
    }

    /// The same for a commit of which the filter leaves nothing; returns why its repo is desynchronized, if it is by that.
    pub(crate) fn commit_left_out(&self, event: &Event, has_failed: bool, events: &Events) -> Option<Why> {
        let judged = self.states.lock().commit_left_out(&event.did, link::of_commit(event)?);
        if !has_failed {
            events.verification().judged(judged.verdict);
        }
        let Verdict::Breaks(why) = judged.verdict else { return None };
        events.verification().desynchronized(&event.did, why, Some(event.seq));
        Some(why)
    }

    /// Judges a `#sync`; returns whether its repo is desynchronized by it.
    pub(crate) fn sync(&self, sync: &Sync, events: &Events) -> bool {
        // What proves wrong says nothing of the repo.
        let fault = sync.proof.as_deref().and_then(|proof| proof.fault.as_ref());
        if let Some(fault) = fault {
            let is_refused = self.mode == Verification::Enforce;
            events.verification().failed(fault.word(), &sync.did, sync.seq, fault, is_refused);
            if is_refused {
                return false;
            }
        }
        let Some((rev, root)) = link::of_sync(sync) else { return false };
        let verdict = self.states.lock().sync(&sync.did, rev, root);
        let is_new = verdict == Some(Verdict::Breaks(Why::Sync));
        if is_new {
            events.verification().desynchronized(&sync.did, Why::Sync, Some(sync.seq));
        }
        is_new
    }

    /// Counts a commit that proves wrong; returns whether it is refused.
    pub(crate) fn refuses(&self, event: &Event, failure: &Failure, events: &Events) -> bool {
        if *failure == Failure::Unresolved {
            events.verification().unresolved();
            return false;
        }
        let is_refused = match failure {
            Failure::Proof(_) | Failure::Future => self.mode == Verification::Enforce,
            Failure::Signature(_) | Failure::NoKey => self.signatures.as_ref().is_some_and(|of| of.is_enforced),
            Failure::Unresolved => false,
        };
        events.verification().failed(failure.word(), &event.did, event.seq, failure, is_refused);
        if is_refused {
            self.states.lock().refused(&event.did);
        }
        is_refused
    }

    /// Marks the repos that were found late with a batch that is being sent.
    pub(crate) fn send(&self, batch: &mut Batch) {
        let mut chain = self.states.lock();
        for late in chain.late() {
            batch.desynchronized(&late.did, late.why.word());
        }
        chain.send();
    }
}
