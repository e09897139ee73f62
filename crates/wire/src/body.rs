//! The two objects of a frame, borrowed from it: `blocks` stays where it was received.
//!
//! Unknown fields are passed over. Deprecated ones (`tooBig`, `rebase`, `blobs`) may be absent. This is the strict reading, and
//! the quick one; `envelope.rs` reads what it does not.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};

use crate::cid::Link;
use crate::limits::OPS_HELD;

#[derive(Deserialize)]
pub(crate) struct Header<'a> {
    pub(crate) op: i64,
    #[serde(borrow)]
    pub(crate) t: Option<&'a str>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct CommitBody<'a> {
    pub(crate) seq: u64,
    pub(crate) repo: &'a str,
    pub(crate) time: Option<&'a str>,
    pub(crate) rev: &'a str,
    pub(crate) since: Option<&'a str>,
    #[serde(borrow)]
    pub(crate) commit: Link<'a>,
    pub(crate) blocks: &'a [u8],
    #[serde(borrow)]
    pub(crate) ops: Ops<'a>,
    #[serde(rename = "tooBig")]
    pub(crate) too_big: Option<bool>,
    /// The root of the tree before; older hosts do not say it.
    #[serde(borrow, rename = "prevData")]
    pub(crate) prev_data: Option<Link<'a>>,
}

#[derive(Deserialize)]
pub(crate) struct SyncBody<'a> {
    pub(crate) seq: u64,
    pub(crate) did: &'a str,
    pub(crate) time: Option<&'a str>,
    pub(crate) rev: &'a str,
    pub(crate) blocks: &'a [u8],
}

#[derive(Deserialize)]
pub(crate) struct IdentityBody<'a> {
    pub(crate) seq: u64,
    pub(crate) did: &'a str,
    pub(crate) time: Option<&'a str>,
    pub(crate) handle: Option<&'a str>,
}

#[derive(Deserialize)]
pub(crate) struct AccountBody<'a> {
    pub(crate) seq: u64,
    pub(crate) did: &'a str,
    pub(crate) time: Option<&'a str>,
    pub(crate) active: bool,
    pub(crate) status: Option<&'a str>,
}

/// The commit block, as far as the frame can be held against it.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct CommitBlock<'a> {
    pub(crate) did: &'a str,
    pub(crate) rev: &'a str,
}

/// The ops of a commit: all of them counted, [`OPS_HELD`] of them held.
#[derive(Debug)]
pub(crate) struct Ops<'a> {
    pub(crate) held: Vec<Op<'a>>,
    pub(crate) count: usize,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Op<'a> {
    pub(crate) action: &'a str,
    pub(crate) path: &'a str,
    #[serde(borrow)]
    pub(crate) cid: Option<Link<'a>>,
    /// What the record was before; absent where the host says nothing of it.
    #[serde(borrow)]
    pub(crate) prev: Option<Link<'a>>,
}

// === impl Ops ===

impl<'de: 'a, 'a> Deserialize<'de> for Ops<'a> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct OpsVisitor;

        impl<'de> Visitor<'de> for OpsVisitor {
            type Value = Ops<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of ops")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
                let mut held = Vec::with_capacity(items.size_hint().unwrap_or_default().min(OPS_HELD));
                while held.len() < OPS_HELD {
                    match items.next_element()? {
                        Some(op) => held.push(op),
                        None => return Ok(Ops { count: held.len(), held }),
                    }
                }
                let mut count = held.len();
                while items.next_element::<IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(Ops { held, count })
            }
        }

        input.deserialize_seq(OpsVisitor)
    }
}
