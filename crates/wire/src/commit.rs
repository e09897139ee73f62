//! Commits and `#sync`: bounds, blocks and names checked, then the data written.

use penstock_core::data::{Action, CommitWriter, EventKind};

use crate::body::{CommitBlock, CommitBody, Op, SyncBody};
use crate::car::Car;
use crate::cid::{Cid, Link};
use crate::error::{BadReason, quote};
use crate::frame::{Event, Headline, Sync};
use crate::json::{RecordFault, write_record};
use crate::limits::{Limits, NESTING_READ, OPS_HELD};
use crate::syntax;
use crate::time::EventTime;

/// What JSON a commit needs, as a rule: around its ops, and for each of them. Longer records reserve what they need.
const DATA_AROUND: usize = 320;
const DATA_AN_OP: usize = 640;

/// An op whose names and CID are sound.
struct Change<'a> {
    action: Action,
    path: &'a str,
    collection: &'a str,
    /// What the record now is; none on a delete.
    cid: Option<Cid<'a>>,
}

/// Checks a commit and writes its data.
pub(crate) fn commit(body: &CommitBody<'_>, time: &EventTime<'_>, limits: &Limits) -> Result<Event, BadReason> {
    let most = limits.ops.min(OPS_HELD);
    if body.ops.count > most {
        return Err(BadReason::TooManyOps { count: body.ops.count, limit: most });
    }
    check_rev(body.rev)?;
    let cid = body.commit.dag_cbor().ok_or(BadReason::Root)?;
    let car = read_blocks(body.blocks, limits, body.too_big == Some(true))?;
    if let Some(car) = &car {
        if car.root != cid {
            return Err(BadReason::Root);
        }
        match car.block(cid) {
            Some(block) => check_commit(block, body.repo, body.rev)?,
            None if body.too_big == Some(true) => {}
            None => return Err(BadReason::CommitMissing),
        }
    }

    let since = body.since.filter(|since| syntax::is_tid(since));
    let ops = &body.ops.held;
    let mut data = Vec::with_capacity(DATA_AROUND + DATA_AN_OP * ops.len());
    let mut writer = CommitWriter::start(&mut data, body.repo);
    let mut first = None;
    for op in ops {
        let change = Change::read(op)?;
        change.write(&mut writer, car.as_ref(), limits)?;
        first.get_or_insert_with(|| (change.action, change.collection.into()));
    }
    writer.finish(body.rev, time.text.as_deref(), cid.text().as_str(), since);

    Ok(Event {
        seq: body.seq,
        kind: EventKind::Commit,
        did: body.repo.into(),
        time: time.at,
        data,
        rev: Some(body.rev.into()),
        since: since.map(Into::into),
        head: Headline::Commit { first },
        ops: ops.len(),
    })
}

/// Checks a `#sync`.
pub(crate) fn sync(body: &SyncBody<'_>, time: &EventTime<'_>, limits: &Limits) -> Result<Sync, BadReason> {
    check_rev(body.rev)?;
    let car = read_blocks(body.blocks, limits, false)?.ok_or(BadReason::CommitMissing)?;
    let block = car.block(car.root).ok_or(BadReason::CommitMissing)?;
    check_commit(block, body.did, body.rev)?;
    Ok(Sync { seq: body.seq, did: body.did.into(), rev: body.rev.into(), time: time.at })
}

fn check_rev(rev: &str) -> Result<(), BadReason> {
    if syntax::is_tid(rev) { Ok(()) } else { Err(BadReason::Rev { rev: quote(rev) }) }
}

/// Reads the CAR; none where there is none and the host says it was too big.
fn read_blocks<'a>(blocks: &'a [u8], limits: &Limits, too_big: bool) -> Result<Option<Car<'a>>, BadReason> {
    if blocks.len() > limits.blocks {
        return Err(BadReason::BlocksTooLarge { len: blocks.len(), limit: limits.blocks });
    }
    match blocks {
        [] if too_big => Ok(None),
        [] => Err(BadReason::CommitMissing),
        _ => Car::read(blocks).map(Some),
    }
}

/// Holds the signed commit block against what the frame says of it.
fn check_commit(block: &[u8], did: &str, rev: &str) -> Result<(), BadReason> {
    let commit: CommitBlock<'_> = serde_ipld_dagcbor::from_slice(block)
        .map_err(|error| BadReason::Commit { detail: quote(&error.to_string()) })?;
    let differs = |what: &str| Err(BadReason::Commit { detail: format!("it is of another {what}").into() });
    match commit {
        CommitBlock { did: signed, .. } if signed != did => differs("repo"),
        CommitBlock { rev: signed, .. } if signed != rev => differs("rev"),
        _ => Ok(()),
    }
}

// === impl Change ===

impl<'a> Change<'a> {
    fn read(op: &Op<'a>) -> Result<Self, BadReason> {
        let action = op.action.parse().map_err(|_| BadReason::Action { action: quote(op.action) })?;
        let (collection, _) = syntax::split_path(op.path).ok_or_else(|| BadReason::Path { path: quote(op.path) })?;
        let cid = match action {
            Action::Delete => None,
            Action::Create | Action::Update => {
                Some(op.cid.and_then(Link::dag_cbor).ok_or_else(|| BadReason::OpCid { path: quote(op.path) })?)
            }
        };
        Ok(Self { action, path: op.path, collection, cid })
    }

    fn write(&self, writer: &mut CommitWriter<'_>, car: Option<&Car<'_>>, limits: &Limits) -> Result<(), BadReason> {
        let Some(cid) = self.cid else {
            writer.delete(self.path);
            return Ok(());
        };
        let text = cid.text();
        // Without its block (tooBig, or deleted again in the same commit) an op is carried without its record.
        let Some(block) = car.and_then(|car| car.block(cid)) else {
            writer.op(self.action, self.path, text.as_str());
            return Ok(());
        };
        if block.len() > limits.record {
            return Err(BadReason::RecordTooLarge { len: block.len(), limit: limits.record, path: quote(self.path) });
        }
        let nesting = limits.nesting.min(NESTING_READ);
        writer
            .op_with_record(self.action, self.path, text.as_str(), |out| write_record(out, block, nesting))
            .map_err(|fault| self.refuse(fault, nesting))?;
        if writer.written() > limits.data {
            return Err(BadReason::DataTooLarge { limit: limits.data });
        }
        Ok(())
    }

    fn refuse(&self, fault: RecordFault, limit: usize) -> BadReason {
        let path = quote(self.path);
        match fault {
            RecordFault::TooDeep => BadReason::RecordTooDeep { limit, path },
            RecordFault::NotMap => BadReason::Record { path, detail: "it is no map".into() },
            RecordFault::Unreadable(detail) => BadReason::Record { path, detail: quote(&detail) },
        }
    }
}
