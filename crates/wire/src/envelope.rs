//! The two objects of a frame, read field by field: in any order, and as far as they can be.
//!
//! This is the lenient reading and the slow one, for frames that the strict one does not take. What is not needed is
//! passed over, and a field that is needed and not as the lexicon says is named.

use crate::body::{AccountBody, CommitBody, IdentityBody, Op, Ops, SyncBody};
use crate::cbor::{self, Field, Input, Malformed, major};
use crate::cid::Link;
use crate::error::{BadReason, FrameError, Part};
use crate::frame::{ErrorFrame, Info};
use crate::limits::OPS_HELD;

/// The first object.
#[derive(Debug)]
pub(crate) struct Header<'a> {
    pub(crate) op: i64,
    pub(crate) t: Option<&'a str>,
}

/// The second object of a frame that has a number.
#[derive(Debug)]
pub(crate) struct Object<'a> {
    /// The number, whatever it is worth.
    pub(crate) seq: u64,
    /// The repo or account, if it is a text.
    pub(crate) did: Option<&'a str>,
    /// The time, if it is a text.
    pub(crate) time: Option<&'a str>,
    fields: [Field<'a>; NAMES.len()],
}

/// What is read of a body, whatever its kind.
const NAMES: [&str; 14] = [
    "seq", "did", "repo", "time", "rev", "since", "commit", "blocks", "ops", "tooBig", "prevData", "handle", "active",
    "status",
];

// === impl Header ===

impl<'a> Header<'a> {
    /// Takes the header.
    pub(crate) fn take(input: &mut Input<'a>) -> Result<Self, FrameError> {
        let unreadable = |detail| FrameError::unreadable(Part::Header, detail);
        let [op, t] = cbor::fields(input, ["op", "t"]).map_err(|Malformed(detail)| unreadable(detail))?;
        if t == Field::Twice {
            return Err(unreadable("t stands twice"));
        }
        let op = op.once().and_then(cbor::number).and_then(|op| i64::try_from(op).ok());
        let op = op.ok_or_else(|| unreadable("op is no number"))?;
        Ok(Self { op, t: t.once().and_then(cbor::text) })
    }
}

// === impl Object ===

impl<'a> Object<'a> {
    /// Takes the body of a frame and its number.
    pub(crate) fn take(input: &mut Input<'a>) -> Result<Self, FrameError> {
        let unreadable = |detail: &str| FrameError::unreadable(Part::Body, detail);
        let fields = cbor::fields(input, NAMES).map_err(|Malformed(detail)| unreadable(detail))?;
        if !input.is_empty() {
            return Err(unreadable("there is more behind it"));
        }
        let mut object = Self { seq: 0, did: None, time: None, fields };
        object.seq = match object.field("seq") {
            Field::Absent => return Err(unreadable("seq is missing")),
            Field::Twice => return Err(unreadable("seq stands twice")),
            Field::Once(seq) => cbor::number(seq)
                .and_then(|seq| u64::try_from(seq).ok())
                .ok_or_else(|| unreadable("seq is no unsigned integer"))?,
        };
        let text = |name| object.field(name).once().and_then(cbor::text);
        (object.did, object.time) = (text("did").or_else(|| text("repo")), text("time"));
        Ok(object)
    }

    pub(crate) fn commit(&self) -> Result<CommitBody<'a>, BadReason> {
        Ok(CommitBody {
            seq: self.seq,
            repo: self.need("repo", cbor::text)?,
            time: self.may("time", cbor::text),
            rev: self.need("rev", cbor::text)?,
            since: self.may("since", cbor::text),
            commit: self.need("commit", cbor::link).map(Link)?,
            blocks: self.need("blocks", cbor::bytes)?,
            ops: self.need("ops", ops)?,
            too_big: self.may("tooBig", cbor::truth),
            // What is no CID is none of a tree, which is for the proof to say.
            prev_data: self
                .may("prevData", |item| (item != [0xF6]).then(|| Link(cbor::link(item).unwrap_or_default()))),
        })
    }

    pub(crate) fn sync(&self) -> Result<SyncBody<'a>, BadReason> {
        Ok(SyncBody {
            seq: self.seq,
            did: self.need("did", cbor::text)?,
            time: self.may("time", cbor::text),
            rev: self.need("rev", cbor::text)?,
            blocks: self.need("blocks", cbor::bytes)?,
        })
    }

    pub(crate) fn identity(&self) -> Result<IdentityBody<'a>, BadReason> {
        Ok(IdentityBody {
            seq: self.seq,
            did: self.need("did", cbor::text)?,
            time: self.may("time", cbor::text),
            handle: self.may("handle", cbor::text),
        })
    }

    pub(crate) fn account(&self) -> Result<AccountBody<'a>, BadReason> {
        Ok(AccountBody {
            seq: self.seq,
            did: self.need("did", cbor::text)?,
            time: self.may("time", cbor::text),
            active: self.need("active", cbor::truth)?,
            status: self.may("status", cbor::text),
        })
    }

    fn field(&self, name: &str) -> Field<'a> {
        let place = NAMES.iter().position(|other| *other == name);
        place.and_then(|place| self.fields.get(place)).copied().unwrap_or(Field::Absent)
    }

    /// Reads a field without which the body says nothing.
    fn need<T>(&self, name: &str, read: impl Fn(&'a [u8]) -> Option<T>) -> Result<T, BadReason> {
        let wrong = |what| BadReason::Body { detail: format!("{name} {what}").into() };
        match self.field(name) {
            Field::Absent => Err(wrong("is missing")),
            Field::Twice => Err(wrong("stands twice")),
            Field::Once(item) => read(item).ok_or_else(|| wrong("is of another type")),
        }
    }

    /// Reads a field that may be absent: one that is not as it should be says nothing.
    fn may<T>(&self, name: &str, read: impl Fn(&'a [u8]) -> Option<T>) -> Option<T> {
        self.field(name).once().and_then(read)
    }
}

/// Reads the ops: what is wrong with one of them is an empty text or no CID, and its neighbours are read.
fn ops(item: &[u8]) -> Option<Ops<'_>> {
    let mut items = Input::new(item).open(major::LIST)?;
    let mut ops = Ops { held: Vec::new(), count: 0 };
    while let Some(item) = items.next().ok()? {
        ops.count += 1;
        if ops.held.len() == OPS_HELD {
            continue;
        }
        let fields = cbor::fields(&mut Input::new(item), ["action", "path", "cid", "prev"]);
        let [action, path, cid, prev] = fields.unwrap_or([Field::Absent; 4]).map(Field::once);
        ops.held.push(Op {
            action: action.and_then(cbor::text).unwrap_or_default(),
            path: path.and_then(cbor::text).unwrap_or_default(),
            cid: cid.and_then(cbor::link).map(Link),
            prev: prev.and_then(cbor::link).map(Link),
        });
    }
    Some(ops)
}

/// Finds the number of a frame of whatever kind.
pub(crate) fn number(mut input: Input<'_>) -> Option<u64> {
    Object::take(&mut input).ok().map(|object| object.seq)
}

/// Reads the body of a word from the host.
pub(crate) fn info(input: Input<'_>) -> Result<Info, FrameError> {
    let (name, message) = said(input, "name")?;
    Ok(Info { name: name.into(), message: message.map(Into::into) })
}

/// Reads the body of the host's last word.
pub(crate) fn error(input: Input<'_>) -> Result<ErrorFrame, FrameError> {
    let (error, message) = said(input, "error")?;
    Ok(ErrorFrame { error: error.into(), message: message.map(Into::into) })
}

fn said<'a>(mut input: Input<'a>, name: &'static str) -> Result<(&'a str, Option<&'a str>), FrameError> {
    let unreadable = |detail: &str| FrameError::unreadable(Part::Body, detail);
    let fields = cbor::fields(&mut input, [name, "message"]).map_err(|Malformed(detail)| unreadable(detail))?;
    let [word, message] = fields.map(Field::once);
    let word = word.and_then(cbor::text).ok_or_else(|| unreadable(&format!("{name} is no text")))?;
    if !input.is_empty() {
        return Err(unreadable("there is more behind it"));
    }
    Ok((word, message.and_then(cbor::text)))
}
