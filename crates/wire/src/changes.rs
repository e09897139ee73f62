//! The ops of a commit, written one by one: what is wrong with one costs no other.

use penstock_core::data::{Action, CommitWriter};
use penstock_core::filter::{LeftOutBy, Rules};

use crate::body::{Op, Ops};
use crate::car::{Car, hash_of};
use crate::cid::{Cid, Link};
use crate::error::{BadReason, quote, shorten};
use crate::frame::LeftOut;
use crate::json::write_record;
use crate::limits::{Limits, NESTING_READ, OPS_HELD, PARTS_TOLD};
use crate::record::RecordFault;
use crate::syntax;

/// The longest path that is told of an op that was left out, in bytes: collection, slash and key have room.
const PATH_TOLD: usize = 1_024;

/// The ops of one commit on their way into its data.
pub(crate) struct Changes<'w, 'c> {
    pub(crate) writer: CommitWriter<'w>,
    pub(crate) car: Option<&'c Car<'c>>,
    pub(crate) limits: &'c Limits,
    /// Which collections are carried.
    pub(crate) rules: &'c Rules,
    /// How many ops were left out by each of them.
    pub(crate) filtered: Vec<(LeftOutBy, usize)>,
    /// How many were written.
    pub(crate) written: usize,
    /// The first of them, and its path.
    pub(crate) first: Option<(Action, Box<str>)>,
    /// Whether a record crossed the bound of the data: no further one is tried.
    pub(crate) is_full: bool,
    pub(crate) left_out: LeftOuts<'c>,
    /// How many records or ops the repo has and the data lacks.
    pub(crate) missing: usize,
}

/// What was left out, and whose block is told already.
#[derive(Default)]
pub(crate) struct LeftOuts<'c> {
    parts: Vec<LeftOut>,
    told: Vec<Cid<'c>>,
    more: usize,
}

/// Why an op comes without its record.
enum Without {
    /// The repo has it, the frame does not.
    Missing(Option<BadReason>),
    /// Nobody could carry it.
    Unfit(BadReason),
}

// === impl Changes ===

impl<'c> Changes<'_, 'c> {
    /// Writes the ops in their order.
    pub(crate) fn write(&mut self, ops: &Ops<'c>, too_big: bool) {
        let most = self.limits.ops.min(OPS_HELD);
        for (index, op) in ops.held.iter().enumerate() {
            // What a later op undoes, or does again, nobody misses.
            let is_undone = || ops.held.iter().skip(index + 1).any(|later| later.path == op.path);
            self.op(op, index < most, too_big, is_undone);
        }
        if ops.count > most {
            self.missing += ops.count - ops.held.len();
            self.left_out.add(None, None, BadReason::TooManyOps { count: ops.count, limit: most }, None);
        }
        if self.written > 0 || self.filtered.is_empty() {
            self.blocks();
        }
    }

    fn op(&mut self, op: &Op<'c>, has_room: bool, too_big: bool, is_undone: impl Fn() -> bool) {
        let Some((collection, _)) = syntax::split_path(op.path) else {
            return self.left_out.add(Some(op.path), None, BadReason::Path { path: quote(op.path) }, None);
        };
        if let Some(by) = self.rules.collection(collection) {
            return self.filter(op, by);
        }
        let Ok(action) = op.action.parse() else {
            self.missing += usize::from(!is_undone());
            return self.left_out.add(Some(op.path), None, BadReason::Action { action: quote(op.action) }, None);
        };
        let before = self.written;
        match (action, op.cid.and_then(Link::dag_cbor)) {
            (Action::Delete, _) => {
                self.writer.delete(op.path);
                self.written += 1;
            }
            (_, Some(cid)) => self.change(action, op, cid, has_room, too_big, is_undone),
            (_, None) => {
                self.writer.op_without_cid(action, op.path);
                self.written += 1;
                self.missing += usize::from(!is_undone());
                self.left_out.add(Some(op.path), None, BadReason::OpCid { path: quote(op.path) }, None);
            }
        }
        if self.written > before {
            self.first.get_or_insert_with(|| (action, op.path.into()));
        }
    }

    /// Leaves an op out, and with it what is wrong with its block.
    fn filter(&mut self, op: &Op<'c>, by: LeftOutBy) {
        match self.filtered.iter_mut().find(|(same, _)| *same == by) {
            Some((_, count)) => *count += 1,
            None => self.filtered.push((by, 1)),
        }
        if let Some(cid) = op.cid.and_then(Link::dag_cbor)
            && self.car.is_some_and(|car| car.spoilt.iter().any(|(spoilt, _)| *spoilt == cid))
        {
            self.left_out.told.push(cid);
        }
    }

    /// Writes a create or an update, with its record if that can be.
    fn change(
        &mut self,
        action: Action,
        op: &Op<'c>,
        cid: Cid<'c>,
        has_room: bool,
        too_big: bool,
        is_undone: impl Fn() -> bool,
    ) {
        let block = self.car.and_then(|car| car.block(cid));
        // A commit brings the blocks that are new: a record that stays as it was is not among them.
        if block.is_none() && action == Action::Update && op.prev.and_then(Link::dag_cbor) == Some(cid) {
            return;
        }
        self.written += 1;
        let text = cid.text();
        let without = match block {
            Some(block) if has_room => match self.record(action, op.path, text.as_str(), block) {
                Ok(()) => return,
                Err(without) => without,
            },
            // Told once for all that are behind the bound.
            Some(_) => Without::Missing(None),
            None => Without::Missing(self.loss_of(cid)),
        };
        self.writer.op(action, op.path, text.as_str());
        let reason = match without {
            Without::Missing(reason) => {
                self.missing += usize::from(!too_big && !is_undone());
                reason
            }
            Without::Unfit(reason) => Some(reason),
        };
        if let Some(reason) = reason {
            let spoilt = || self.car?.spoilt.iter().find(|(spoilt, _)| *spoilt == cid).map(|(_, block)| *block);
            let block = block.or_else(spoilt);
            self.left_out.add(Some(op.path), Some(cid), reason, block);
        }
    }

    fn record(&mut self, action: Action, path: &str, cid: &str, block: &[u8]) -> Result<(), Without> {
        let Limits { record, nesting, data, .. } = *self.limits;
        let full = || Without::Missing(Some(BadReason::DataTooLarge { limit: data }));
        if block.len() > record {
            let reason = BadReason::RecordTooLarge { len: block.len(), limit: record, path: quote(path) };
            return Err(Without::Unfit(reason));
        }
        if self.is_full {
            return Err(full());
        }
        let nesting = nesting.min(NESTING_READ);
        let written = self.writer.op_with_record(action, path, cid, |out| {
            write_record(out, block, nesting).map_err(|fault| Without::Unfit(refuse(fault, path, nesting)))?;
            if out.len() > data { Err(full()) } else { Ok(()) }
        });
        self.is_full |= matches!(written, Err(Without::Missing(_)));
        written
    }

    /// Says why the block of a record is not there, if something is known of it.
    fn loss_of(&self, cid: Cid<'_>) -> Option<BadReason> {
        let car = self.car?;
        let spoilt = car.spoilt.iter().any(|(spoilt, _)| *spoilt == cid).then(|| hash_of(cid));
        spoilt.or_else(|| car.fault.clone())
    }

    /// Tells what is wrong with the blocks, where no op told it.
    fn blocks(&mut self) {
        let Some(car) = self.car else { return };
        if let Some((cid, block)) = car.spoilt.iter().find(|(cid, _)| !self.left_out.told.contains(cid)) {
            self.left_out.add(None, Some(*cid), hash_of(*cid), Some(block));
        }
        if let Some(fault) = &car.fault
            && !self.left_out.parts.iter().any(|part| part.reason == *fault)
        {
            self.left_out.add(None, None, fault.clone(), None);
        }
    }
}

// === impl LeftOuts ===

impl<'c> LeftOuts<'c> {
    fn add(&mut self, path: Option<&str>, cid: Option<Cid<'c>>, reason: BadReason, block: Option<&[u8]>) {
        if self.parts.len() == PARTS_TOLD {
            self.more += 1;
            return;
        }
        // Ops may share a block by the hundred.
        let is_told = cid.is_some_and(|cid| self.told.contains(&cid));
        self.told.extend(cid.filter(|_| !is_told));
        self.parts.push(LeftOut {
            path: path.map(|path| shorten(path, PATH_TOLD)),
            cid: cid.map(|cid| cid.text().as_str().into()),
            reason,
            block: block.filter(|_| !is_told).unwrap_or_default().to_vec(),
        });
    }

    pub(crate) fn finish(mut self) -> Vec<LeftOut> {
        if self.more > 0 {
            let reason = BadReason::More { count: self.more };
            self.parts.push(LeftOut { path: None, cid: None, reason, block: Vec::new() });
        }
        self.parts
    }
}

pub(crate) fn refuse(fault: RecordFault, path: &str, limit: usize) -> BadReason {
    let path = quote(path);
    match fault {
        RecordFault::TooDeep => BadReason::RecordTooDeep { limit, path },
        RecordFault::NotMap => BadReason::Record { path, detail: "it is no map".into() },
        RecordFault::Unreadable(detail) => BadReason::Record { path, detail: quote(&detail) },
    }
}
