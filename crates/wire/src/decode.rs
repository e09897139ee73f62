//! One WebSocket message, read as the two objects it consists of.

use penstock_core::data::{EventKind, write_account, write_identity};
use serde::Deserialize;
use serde_ipld_dagcbor::DecodeError;
use serde_ipld_dagcbor::de::Deserializer;

use crate::body::{AccountBody, CommitBody, ErrorBody, Glimpse, Header, IdentityBody, InfoBody, Numbered, SyncBody};
use crate::commit;
use crate::error::{BadFrame, BadReason, FrameError, Part, quote};
use crate::frame::{BodyKind, ErrorFrame, Event, Frame, Headline, Ignored, Info};
use crate::limits::Limits;
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
/// the sequence number can, and something else is wrong or over `limits`.
pub fn decode(frame: &[u8], limits: &Limits) -> Result<Frame, FrameError> {
    let mut input = Deserializer::from_slice(frame);
    let header =
        Header::deserialize(&mut input).map_err(|error| FrameError::unreadable(Part::Header, &error.to_string()))?;
    let kind = match (header.op, header.t) {
        (1, Some("#info")) => return info(frame),
        (1, Some(t)) => BodyKind::of(t),
        (1, None) => return Err(FrameError::unreadable(Part::Header, "t is missing")),
        (-1, _) => return error(frame),
        _ => None,
    };
    let Some(kind) = kind else {
        let seq = whole::<Numbered>(frame).ok().map(|body| body.seq).filter(|seq| is_seq(*seq));
        return Ok(Frame::Ignored(Ignored { op: header.op, t: header.t.map(quote), seq }));
    };
    if frame.len() > limits.frame {
        return Err(glimpse(frame, kind, BadReason::FrameTooLarge { len: frame.len(), limit: limits.frame }));
    }
    let body = match kind {
        BodyKind::Commit => CommitBody::deserialize(&mut input).map(Body::Commit),
        BodyKind::Sync => SyncBody::deserialize(&mut input).map(Body::Sync),
        BodyKind::Identity => IdentityBody::deserialize(&mut input).map(Body::Identity),
        BodyKind::Account => AccountBody::deserialize(&mut input).map(Body::Account),
    };
    match body.and_then(|body| input.end().map(|()| body)) {
        Ok(body) => body.event(kind, limits),
        // Who reads on meets the same end: nothing can be said of a frame that is cut.
        Err(error @ (DecodeError::Eof { .. } | DecodeError::RequireLength { .. })) => {
            Err(FrameError::unreadable(Part::Body, &error.to_string()))
        }
        Err(error) => Err(glimpse(frame, kind, BadReason::Body { detail: quote(&error.to_string()) })),
    }
}

// === impl Body ===

impl Body<'_> {
    fn event(&self, kind: BodyKind, limits: &Limits) -> Result<Frame, FrameError> {
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
            Self::Commit(body) => commit::commit(body, &time, limits).map(Frame::Event),
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
    plain(body.seq, EventKind::Identity, body.did, time, data, head)
}

fn account(body: &AccountBody<'_>, time: &EventTime<'_>) -> Event {
    let mut data = Vec::with_capacity(DATA);
    write_account(&mut data, body.did, body.active, body.status, time.text.as_deref());
    plain(body.seq, EventKind::Account, body.did, time, data, Headline::Account { active: body.active })
}

fn plain(seq: u64, kind: EventKind, did: &str, time: &EventTime<'_>, data: Vec<u8>, head: Headline) -> Event {
    Event { seq, kind, did: did.into(), time: time.at, data, rev: None, since: None, head, ops: 0 }
}

fn info(frame: &[u8]) -> Result<Frame, FrameError> {
    let body: InfoBody<'_> = whole(frame).map_err(|detail| FrameError::unreadable(Part::Body, &detail))?;
    Ok(Frame::Info(Info { name: body.name.into(), message: body.message.map(Into::into) }))
}

fn error(frame: &[u8]) -> Result<Frame, FrameError> {
    let body: ErrorBody<'_> = whole(frame).map_err(|detail| FrameError::unreadable(Part::Body, &detail))?;
    Ok(Frame::Error(ErrorFrame { error: body.error.into(), message: body.message.map(Into::into) }))
}

/// Looks only for what says which frame it is, and so whether it can be set aside.
fn glimpse(frame: &[u8], kind: BodyKind, reason: BadReason) -> FrameError {
    let found = whole::<Glimpse<'_>>(frame)
        .or_else(|_| whole::<Numbered>(frame).map(|body| Glimpse { seq: body.seq, did: None, repo: None, time: None }));
    let body = match found {
        Ok(body) => body,
        Err(detail) => return FrameError::unreadable(Part::Body, &detail),
    };
    if let Err(error) = check_seq(body.seq) {
        return error;
    }
    FrameError::Bad(BadFrame {
        seq: body.seq,
        kind,
        did: body.did.or(body.repo).filter(|did| syntax::is_did(did)).map(Into::into),
        time: EventTime::read(body.time).at,
        reason,
    })
}

/// Reads the whole frame with a body of type `B`.
fn whole<'a, B: Deserialize<'a>>(frame: &'a [u8]) -> Result<B, String> {
    let mut input = Deserializer::from_slice(frame);
    Header::deserialize(&mut input)
        .and_then(|_| B::deserialize(&mut input))
        .and_then(|body| input.end().map(|()| body))
        .map_err(|error| error.to_string())
}

fn check_seq(seq: u64) -> Result<(), FrameError> {
    if is_seq(seq) { Ok(()) } else { Err(FrameError::unreadable(Part::Seq, &format!("{seq} is not in 1..2^53"))) }
}

fn is_seq(seq: u64) -> bool {
    (1..SEQ_END).contains(&seq)
}
