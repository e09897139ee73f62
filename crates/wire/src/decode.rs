//! One WebSocket message, read as the two objects it consists of.

use bytes::Bytes;
use penstock_core::data::{EventKind, write_account, write_identity};
use penstock_core::filter::{LeftOutBy, Rules};
use serde::Deserialize;
use serde_ipld_dagcbor::de::Deserializer;

use crate::body::{AccountBody, CommitBody, Header, IdentityBody, SyncBody};
use crate::cbor::Input;
use crate::commit;
use crate::envelope::{self, Object};
use crate::error::{BadFrame, BadReason, FrameError, Part, quote};
use crate::frame::{Event, Frame, Headline, Ignored};
use crate::kind::BodyKind;
use crate::limits::Limits;
use crate::quick;
use crate::syntax;
use crate::time::EventTime;

/// Sequence numbers stay below this: what JavaScript counts exactly.
const SEQ_END: u64 = 1 << 53;

/// What JSON an identity or account event needs, as a rule.
const DATA: usize = 160;

/// The body of a frame that has a sequence number.
enum Body<'a> {
    Commit(CommitBody<'a>),
    Sync(SyncBody<'a>),
    Identity(IdentityBody<'a>),
    Account(AccountBody<'a>),
}

/// Decodes one message of the stream.
///
/// # Errors
/// [`FrameError::Unreadable`] where the CBOR, its framing or the sequence number cannot be read; [`FrameError::Bad`] where
/// the sequence number can, and something is wrong that the whole frame depends on.
pub fn decode(frame: &[u8], limits: &Limits) -> Result<Frame, FrameError> {
    decode_filtered(frame, limits, &Rules::default())
}

/// The same with a filter: what it leaves out never becomes JSON. What a commit proves is of all its ops nevertheless.
///
/// # Errors
/// As [`decode`].
pub fn decode_filtered(frame: &[u8], limits: &Limits, rules: &Rules) -> Result<Frame, FrameError> {
    match strict(frame, limits) {
        Some((kind, body)) => body.event(kind, limits, rules),
        None => lenient(frame, limits, rules),
    }
}

/// Reads a frame of a known kind that is strict DAG-CBOR throughout, as good as all are.
fn strict<'a>(frame: &'a [u8], limits: &Limits) -> Option<(BodyKind, Body<'a>)> {
    if frame.len() > limits.frame {
        return None;
    }
    if let Some(body) = quick::commit_body(frame) {
        return Some((BodyKind::Commit, Body::Commit(body)));
    }
    let mut input = Deserializer::from_slice(frame);
    let header = Header::deserialize(&mut input).ok()?;
    let kind = header.t.filter(|_| header.op == 1).and_then(BodyKind::of)?;
    let body = match kind {
        BodyKind::Commit => CommitBody::deserialize(&mut input).map(Body::Commit),
        BodyKind::Sync => SyncBody::deserialize(&mut input).map(Body::Sync),
        BodyKind::Identity => IdentityBody::deserialize(&mut input).map(Body::Identity),
        BodyKind::Account => AccountBody::deserialize(&mut input).map(Body::Account),
    };
    let body = body.ok()?;
    input.end().ok().map(|()| (kind, body))
}

/// Reads any frame as far as it can be read.
fn lenient(frame: &[u8], limits: &Limits, rules: &Rules) -> Result<Frame, FrameError> {
    let mut input = Input::new(frame);
    let header = envelope::Header::take(&mut input)?;
    let kind = match (header.op, header.t) {
        (1, Some("#info")) => return envelope::info(input).map(Frame::Info),
        (1, Some(t)) => BodyKind::of(t),
        (1, None) => return Err(FrameError::unreadable(Part::Header, "t is missing")),
        (-1, _) => return envelope::error(input).map(Frame::Error),
        _ => None,
    };
    let Some(kind) = kind else {
        let seq = envelope::number(input).filter(|seq| is_seq(*seq));
        return Ok(Frame::Ignored(Ignored { op: header.op, t: header.t.map(quote), seq }));
    };
    let object = Object::take(&mut input)?;
    let body = match kind {
        _ if frame.len() > limits.frame => Err(BadReason::FrameTooLarge { len: frame.len(), limit: limits.frame }),
        BodyKind::Commit => object.commit().map(Body::Commit),
        BodyKind::Sync => object.sync().map(Body::Sync),
        BodyKind::Identity => object.identity().map(Body::Identity),
        BodyKind::Account => object.account().map(Body::Account),
    };
    match body {
        Ok(body) => body.event(kind, limits, rules),
        Err(reason) => {
            check_seq(object.seq)?;
            Err(FrameError::Bad(BadFrame {
                seq: object.seq,
                kind,
                did: object.did.filter(|did| syntax::is_did(did)).map(Into::into),
                time: EventTime::read(object.time).at,
                reason,
            }))
        }
    }
}

// === impl Body ===

impl Body<'_> {
    fn event(&self, kind: BodyKind, limits: &Limits, rules: &Rules) -> Result<Frame, FrameError> {
        let (seq, did, time) = match self {
            Self::Commit(body) => (body.seq, body.repo, body.time),
            Self::Sync(body) => (body.seq, body.did, body.time),
            Self::Identity(body) => (body.seq, body.did, body.time),
            Self::Account(body) => (body.seq, body.did, body.time),
        };
        check_seq(seq)?;
        let time = EventTime::read(time);
        if !syntax::is_did(did) {
            let reason = BadReason::Did { did: quote(did) };
            return Err(FrameError::Bad(BadFrame { seq, kind, did: None, time: time.at, reason }));
        }
        let frame = match self {
            Self::Commit(body) => match rules.repo(did) {
                Some(by) => Ok(Frame::Event(outside(body, &time, by))),
                None => commit::commit(body, &time, limits, rules).map(Frame::Event),
            },
            Self::Sync(body) => commit::sync(body, &time, limits).map(Frame::Sync),
            Self::Identity(body) => Ok(Frame::Event(identity(body, &time))),
            Self::Account(body) => Ok(Frame::Event(account(body, &time))),
        };
        frame.map_err(|reason| FrameError::Bad(BadFrame { seq, kind, did: Some(did.into()), time: time.at, reason }))
    }
}

fn identity(body: &IdentityBody<'_>, time: &EventTime<'_>) -> Event {
    let mut data = Vec::with_capacity(DATA);
    write_identity(&mut data, body.did, body.handle, time.text.as_deref());
    let head = Headline::Identity { handle: body.handle.map(Into::into) };
    plain(body.seq, EventKind::Identity, body.did, time, data.into(), head)
}

fn account(body: &AccountBody<'_>, time: &EventTime<'_>) -> Event {
    let mut data = Vec::with_capacity(DATA);
    write_account(&mut data, body.did, body.active, body.status, time.text.as_deref());
    plain(body.seq, EventKind::Account, body.did, time, data.into(), Headline::Account { active: body.active })
}

/// Returns a commit of a repo that is left out: nothing but which one it is.
fn outside(body: &CommitBody<'_>, time: &EventTime<'_>, by: LeftOutBy) -> Event {
    let text = |text: &str| syntax::is_tid(text).then(|| text.into());
    Event {
        rev: text(body.rev),
        since: body.since.and_then(text),
        filtered: vec![(by, body.ops.count)],
        ..plain(body.seq, EventKind::Commit, body.repo, time, Bytes::new(), Headline::Commit { first: None })
    }
}

fn plain(seq: u64, kind: EventKind, did: &str, time: &EventTime<'_>, data: Bytes, head: Headline) -> Event {
    Event {
        seq,
        kind,
        did: did.into(),
        time: time.at,
        data,
        rev: None,
        since: None,
        head,
        ops: 0,
        left_out: Vec::new(),
        filtered: Vec::new(),
        missing: 0,
        proof: None,
    }
}

fn check_seq(seq: u64) -> Result<(), FrameError> {
    if is_seq(seq) { Ok(()) } else { Err(FrameError::unreadable(Part::Seq, &format!("{seq} is not in 1..2^53"))) }
}

fn is_seq(seq: u64) -> bool {
    (1..SEQ_END).contains(&seq)
}
