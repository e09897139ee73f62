//! Commits and `#sync`: bounds, blocks and names checked, then the data written.

use std::cell::Cell;

use bytes::{Bytes, BytesMut};
use penstock_core::data::{CommitWriter, EventKind};
use penstock_core::filter::Rules;

use crate::body::{CommitBlock, CommitBody, Op, SyncBody};
use crate::car::Car;
use crate::changes::{Changes, LeftOuts};
use crate::error::{BadReason, quote};
use crate::frame::{Event, Headline, Sync};
use crate::limits::Limits;
use crate::proof::Proof;
use crate::quick;
use crate::syntax;
use crate::time::EventTime;

/// The largest buffer that is kept for the next commit: nearly all need some kB.
const KEPT: usize = 256 * 1024;

/// How much data of commits that follow each other stands in one piece of memory.
const PIECE: usize = 32 * 1024;

/// Data that is longer has a piece of its own.
const SHARED: usize = PIECE / 8;

thread_local! {
    /// Where data is written before its length is known.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    /// What is left of the piece. Nobody asks the allocator for each event, nor gives each back from another thread.
    static LEFT: Cell<BytesMut> = Cell::new(BytesMut::new());
}

/// Checks a commit and writes its data.
pub(crate) fn commit(
    body: &CommitBody<'_>,
    time: &EventTime<'_>,
    limits: &Limits,
    rules: &Rules,
) -> Result<Event, BadReason> {
    check_rev(body.rev)?;
    let cid = body.commit.dag_cbor().ok_or(BadReason::Root)?;
    let too_big = body.too_big == Some(true);
    let car = match blocks_of_filtered(body, limits, rules) {
        Some(car) => Some(car),
        None => read_blocks(body.blocks, limits, too_big)?,
    };
    let mut proof = None;
    if let Some(car) = &car {
        if car.root != cid {
            return Err(BadReason::Root);
        }
        match car.block(cid) {
            Some(block) => {
                check_commit(block, body.repo, body.rev)?;
                proof = limits.proof.then(|| Box::new(Proof::of_commit(body, car, block)));
            }
            None if too_big && car.first_fault().is_none() => {}
            None => return Err(car.first_fault().unwrap_or(BadReason::CommitMissing)),
        }
    }

    let since = body.since.filter(|since| syntax::is_tid(since));
    let mut buffer = SPARE.take();
    buffer.clear();
    let mut changes = Changes {
        writer: CommitWriter::start(&mut buffer, body.repo),
        car: car.as_ref(),
        limits,
        rules,
        filtered: Vec::new(),
        written: 0,
        first: None,
        is_full: false,
        left_out: LeftOuts::default(),
        missing: 0,
    };
    changes.write(&body.ops, too_big);
    let Changes { writer, written, first, left_out, filtered, missing, .. } = changes;
    writer.finish_missing(body.rev, time.text.as_deref(), cid.text().as_str(), since, missing);
    let is_filtered_out = written == 0 && missing == 0 && !filtered.is_empty();
    let data = if is_filtered_out { Bytes::new() } else { held(&buffer) };
    if buffer.capacity() <= KEPT {
        SPARE.set(buffer);
    }

    Ok(Event {
        seq: body.seq,
        kind: EventKind::Commit,
        did: body.repo.into(),
        time: time.at,
        data,
        rev: Some(body.rev.into()),
        since: since.map(Into::into),
        head: Headline::Commit { first },
        ops: written,
        left_out: left_out.finish(),
        filtered,
        missing,
        proof,
    })
}

/// Returns data as it goes on, beside that of its neighbours where it is short.
fn held(data: &[u8]) -> Bytes {
    if data.len() > SHARED {
        return Bytes::copy_from_slice(data);
    }
    let mut left = LEFT.take();
    if left.capacity() < data.len() {
        left = BytesMut::with_capacity(PIECE);
    }
    left.extend_from_slice(data);
    let held = left.split().freeze();
    LEFT.set(left);
    held
}

/// Checks a `#sync`. Its rev is that of the signed commit: of an account that has moved, the new server (@atproto/pds 0.5) says a later
/// one beside the commit that the former server signed, and the account's next commit follows the signed one.
pub(crate) fn sync(body: &SyncBody<'_>, time: &EventTime<'_>, limits: &Limits) -> Result<Sync, BadReason> {
    check_rev(body.rev)?;
    let car = read_blocks(body.blocks, limits, false)?.ok_or(BadReason::CommitMissing)?;
    if let Some(fault) = car.first_fault() {
        return Err(fault);
    }
    let block = car.block(car.root).ok_or(BadReason::CommitMissing)?;
    let commit = read_commit(block, body.did)?;
    check_rev(commit.rev)?;
    let proof = limits.proof.then(|| Box::new(Proof::of_sync(block, commit.rev)));
    Ok(Sync { seq: body.seq, did: body.did.into(), rev: commit.rev.into(), time: time.at, proof })
}

pub(crate) fn check_rev(rev: &str) -> Result<(), BadReason> {
    if syntax::is_tid(rev) { Ok(()) } else { Err(BadReason::Rev { rev: quote(rev) }) }
}

/// Reads the CAR; none where there is none and the host says it was too big.
fn read_blocks<'a>(blocks: &'a [u8], limits: &Limits, too_big: bool) -> Result<Option<Car<'a>>, BadReason> {
    match blocks {
        [] if too_big => Ok(None),
        [] => Err(BadReason::CommitMissing),
        _ => Car::read(blocks, limits.blocks).map(Some),
    }
}

/// Reads the CAR of a commit of which the filter leaves nothing, and of which nothing is proved: of its blocks only the commit is
/// looked at, and hashed. None where there is more to it, or something is wrong.
fn blocks_of_filtered<'a>(body: &CommitBody<'a>, limits: &Limits, rules: &Rules) -> Option<Car<'a>> {
    if limits.proof || !rules.has_collections() || body.ops.held.is_empty() || body.blocks.is_empty() {
        return None;
    }
    let is_filtered = |op: &Op<'_>| {
        let collection = syntax::split_path(op.path).map(|(collection, _)| collection);
        collection.is_some_and(|collection| rules.collection(collection).is_some())
    };
    let all = body.ops.held.iter().all(is_filtered);
    if all { Car::read_commit(body.blocks, limits.blocks) } else { None }
}

/// Holds the signed commit block against what the frame says of it.
fn check_commit(block: &[u8], did: &str, rev: &str) -> Result<(), BadReason> {
    if read_commit(block, did)?.rev == rev { Ok(()) } else { Err(of_another("rev")) }
}

/// Reads the signed commit block of a repo.
pub(crate) fn read_commit<'a>(block: &'a [u8], did: &str) -> Result<CommitBlock<'a>, BadReason> {
    let commit: CommitBlock<'_> = match quick::signed_commit(block) {
        Some(commit) => commit.names,
        None => serde_ipld_dagcbor::from_slice(block)
            .map_err(|error| BadReason::Commit { detail: quote(&error.to_string()) })?,
    };
    if commit.did == did { Ok(commit) } else { Err(of_another("repo")) }
}

fn of_another(what: &str) -> BadReason {
    BadReason::Commit { detail: format!("it is of another {what}").into() }
}
