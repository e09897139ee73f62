//! What a commit proves: who signed it, and that its ops lead from the state before to the state after.
//!
//! Comes in: a commit's frame and its blocks, each of which is what its CID says. Goes out: a [`Proof`], with the first thing
//! that is wrong named. `commit.rs` calls, where [`Limits::proof`](crate::Limits::proof) asks for it.

mod fault;
mod node;
mod rev;
mod root;
mod signed;
mod tree;
mod whole;

use penstock_core::data::Action;

use self::tree::{Change, Tree};
use crate::body::{CommitBody, Op};
use crate::car::Car;
use crate::cid::{Cid, Link};

pub use fault::ProofFault;
pub use node::EMPTY_TREE;
pub use rev::{is_future, rev_number, rev_text};
pub use root::{KeyOrder, TreeRoot};
pub use signed::Signed;
pub use whole::{NodePlace, RepoNode};

/// What the signed commit of a frame says, and whether the frame follows from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The revision, a TID as a number.
    pub rev: u64,
    /// The revision before; none at first, or where the host does not say.
    pub since: Option<u64>,
    /// The digest of the tree's root at this revision, as signed. Zeros where the signed commit cannot be read.
    pub data: [u8; 32],
    /// The digest of the tree's root before. None where the host does not say, and so nothing can be proved (an older host); of a
    /// repo's first commit, which has no `since` either, [`EMPTY_TREE`] if its ops lead there.
    pub prev_data: Option<[u8; 32]>,
    /// What is wrong with it, if anything is.
    pub fault: Option<ProofFault>,
    /// What was signed, and the signature.
    pub signed: Signed,
}

// === impl Proof ===

impl Proof {
    /// Says whether the state before is known, so that the ops can be held against it. Always of a `#sync`: it has no ops.
    #[must_use]
    pub fn is_provable(&self) -> bool {
        self.prev_data.is_some()
    }

    /// Proves a commit, as far as that can be without a key and without the state before.
    pub(crate) fn of_commit(body: &CommitBody<'_>, car: &Car<'_>, block: &[u8]) -> Self {
        let (mut proof, data) = Self::of_block(block, body.rev, body.since);
        let Some(data) = data else { return proof };
        // A commit that was too big says so little of itself that there is nothing to prove.
        if body.too_big == Some(true) {
            return proof;
        }
        let prev_data = body.prev_data.map(|link| link.dag_cbor().map(Cid::sha256));
        proof.prev_data = prev_data.flatten();
        proof.fault = match prev_data {
            Some(None) => Some(ProofFault::PrevData),
            Some(Some(prev_data)) => undo(body, car, data)
                .and_then(|found| if found == prev_data { Ok(()) } else { Err(ProofFault::PrevData) })
                .err(),
            None if proof.since.is_none() && undo(body, car, data) == Ok(EMPTY_TREE) => {
                proof.prev_data = Some(EMPTY_TREE);
                None
            }
            None => check(body, car, data).err(),
        };
        proof
    }

    /// Proves a `#sync`.
    pub(crate) fn of_sync(block: &[u8], rev: &str) -> Self {
        Self::of_block(block, rev, None).0
    }

    /// Reads the commit block; returns the root of the tree beside the proof, where there is one.
    fn of_block<'a>(block: &'a [u8], rev: &str, since: Option<&str>) -> (Self, Option<Cid<'a>>) {
        let (rev, since) = (rev_number(rev).unwrap_or_default(), since.and_then(rev_number));
        let proof = Self { rev, since, data: [0; 32], prev_data: None, fault: None, signed: Signed::default() };
        match Signed::read(block) {
            Ok((data, signed)) => (Self { data: data.sha256(), signed, ..proof }, Some(data)),
            Err(detail) => (Self { fault: Some(ProofFault::Commit { detail }), ..proof }, None),
        }
    }
}

/// Undoes the ops of a commit.
fn undo<'a>(body: &CommitBody<'a>, car: &Car<'a>, data: Cid<'a>) -> Result<[u8; 32], ProofFault> {
    let mut tree = Tree::new(car);
    let changes = changes(body, &mut tree, true)?;
    tree.undo(data, &changes)
}

/// Holds the ops of a commit against its tree where they cannot be undone.
fn check<'a>(body: &CommitBody<'a>, car: &Car<'a>, data: Cid<'a>) -> Result<(), ProofFault> {
    let mut tree = Tree::new(car);
    let changes = changes(body, &mut tree, false)?;
    tree.check(data, &changes)
}

/// Reads the ops as changes, in the order of their keys. What was before has to be said where they are undone.
fn changes<'a>(body: &CommitBody<'a>, tree: &mut Tree<'a, '_>, is_undone: bool) -> Result<Vec<Change<'a>>, ProofFault> {
    if body.ops.count > body.ops.held.len() {
        return Err(ProofFault::TooManyOps { count: body.ops.count });
    }
    let mut steps = Vec::with_capacity(body.ops.held.len());
    for op in &body.ops.held {
        let wrong = |detail| ProofFault::Op { detail, path: fault::path(op.path) };
        if !node::is_key(op.path.as_bytes()) {
            return Err(wrong("its path is none"));
        }
        steps.push((op, Step::of(op).map_err(wrong)?));
    }
    // Servers send several ops of one record, such as its create and its delete, if one request had them: they follow each other.
    steps.sort_by_key(|(op, _)| op.path);
    let mut broken = None;
    steps.dedup_by(|(next, then), (op, first)| {
        if next.path != op.path {
            return false;
        }
        if then.before.is_some_and(|before| before != first.now) {
            broken.get_or_insert(op.path);
        }
        first.now = then.now;
        true
    });
    if let Some(path) = broken {
        return Err(ProofFault::Duplicate { path: fault::path(path) });
    }
    let mut changes = Vec::with_capacity(steps.len());
    for (op, Step { now, before }) in steps {
        match before {
            None if is_undone => {
                return Err(ProofFault::Op { detail: "it has no prev", path: fault::path(op.path) });
            }
            // It came and went: to the tree it is as if it had never been.
            Some(None) if now.is_none() => {}
            before => changes.push(tree.change(op.path, now, before.flatten())?),
        }
    }
    Ok(changes)
}

/// What an op says of a record.
struct Step<'a> {
    /// The record now; none where there is none.
    now: Option<Cid<'a>>,
    /// The one before, or that there was none; none where it is not said.
    before: Option<Option<Cid<'a>>>,
}

// === impl Step ===

impl<'a> Step<'a> {
    fn of(op: &Op<'a>) -> Result<Self, &'static str> {
        let cid = |link: Option<Link<'a>>| match link.map(Link::dag_cbor) {
            Some(None) => Err("a cid is of another kind"),
            Some(cid) => Ok(cid),
            None => Ok(None),
        };
        let (now, before) = (cid(op.cid)?, cid(op.prev)?);
        let action: Action = op.action.parse().map_err(|_| "its action is none of the three")?;
        match action {
            Action::Create if before.is_some() => Err("a create has a prev"),
            Action::Create | Action::Update if now.is_none() => Err("it has no cid"),
            Action::Delete if now.is_some() => Err("a delete has a cid"),
            Action::Create => Ok(Self { now, before: Some(None) }),
            Action::Update | Action::Delete => Ok(Self { now, before: before.map(Some) }),
        }
    }
}
