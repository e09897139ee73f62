//! A commit's entry read op by op: what is too large to stand in memory as trees all at once.

use std::borrow::Cow;

use serde_json::Value;
use serde_json::value::RawValue;

use crate::data::EventKind;
use crate::entry::{Commit, CommitData, Entry, EntryError, Event, Op, OpData, RawEntry, bare, op};
use crate::stream::{Seq, StreamId};
use crate::{dialect, json};

/// A commit of which everything is read but the records, which are text still.
pub struct Outline<'a> {
    id: StreamId,
    order: StreamId,
    seq: Option<Seq>,
    commit: Commit,
    ops: Vec<OpData<'a, &'a RawValue>>,
}

// === impl Outline ===

impl<'a> Outline<'a> {
    /// Reads the outline of a commit; none where the entry is of another kind.
    ///
    /// # Errors
    /// As [`RawEntry::decode`], but for what is wrong with a single op.
    pub fn read<B: AsRef<[u8]>>(raw: &'a RawEntry<B>) -> Result<Option<Self>, EntryError> {
        let (kind, data, seq, order) = raw.head()?;
        if kind != EventKind::Commit {
            return Ok(None);
        }
        let fault = |source| EntryError::Data { kind: kind.as_str(), source };
        let mut data: CommitData<'a, &'a RawValue> = serde_json::from_slice(data).map_err(fault)?;
        let ops = std::mem::take(&mut data.ops);
        let commit = Commit { proven: raw.proven(), ..bare(data)? };
        Ok(Some(Self { id: raw.id, order, seq, commit, ops }))
    }

    /// Returns the ops' paths, in their order.
    pub fn paths(&self) -> impl ExactSizeIterator<Item = &str> {
        self.ops.iter().map(|op| &*op.path)
    }

    /// Returns the text of an op's record; none where it has none.
    #[must_use]
    pub fn record(&self, index: usize) -> Option<&'a str> {
        self.ops.get(index)?.record.map(RawValue::get)
    }

    /// Decodes the entry with some of its ops.
    ///
    /// # Errors
    /// Names the first of them that is not as the contract says.
    pub fn entry(&self, ops: &[usize]) -> Result<Entry, EntryError> {
        let ops = ops.iter().map(|index| self.op(*index)).collect::<Result<_, _>>()?;
        let event = Event::Commit(Commit { ops, ..self.commit.clone() });
        Ok(Entry { id: self.id, order: self.order, seq: self.seq, event })
    }

    fn op(&self, index: usize) -> Result<Op, EntryError> {
        let spelt = self.ops.get(index).ok_or(EntryError::Missing { field: "ops" })?;
        let record = spelt.record.map(record).transpose()?;
        let data = OpData {
            action: Cow::Borrowed(&*spelt.action),
            path: Cow::Borrowed(&*spelt.path),
            cid: spelt.cid.as_deref().map(Cow::Borrowed),
            record,
        };
        op(index, data)
    }
}

fn record(text: &RawValue) -> Result<Value, EntryError> {
    let fault = |source| EntryError::Data { kind: EventKind::Commit.as_str(), source };
    match json::from_str(text.get()) {
        Err(error) => match dialect::mend_lone_surrogates(text.get().as_bytes()) {
            Some(mended) => json::from_slice(&mended).map_err(fault),
            None => Err(fault(error)),
        },
        record => record.map_err(fault),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATA: &str = r#"{"repo":"did:plc:aa","ops":[{"action":"create","path":"a.b.c/1","cid":"b","record":{"n":1}},{"action":"delete","path":"a.b.c/2"},{"action":"update","path":"a.b.c/3","cid":"b","record":{"t":"a\ud83d"}},{"action":"create","path":"nopath","cid":"b","record":null}],"rev":"3m","time":"2026-07-04T14:38:08.999Z","commit":"bafyc","since":null}"#;

    fn raw(data: &str) -> RawEntry<&str> {
        RawEntry::from_fields("5-1".parse().unwrap(), [("type", "commit"), ("data", data), ("seq", "42")])
    }

    #[test]
    fn an_entry_in_parts_is_the_entry_as_a_whole() {
        let sound = DATA.replace(r#",{"action":"create","path":"nopath","cid":"b","record":null}"#, "");
        let raw = raw(&sound);
        let outline = Outline::read(&raw).unwrap().unwrap();
        assert_eq!(outline.entry(&[0, 1, 2]).unwrap(), raw.decode().unwrap());
        assert_eq!(outline.paths().collect::<Vec<_>>(), ["a.b.c/1", "a.b.c/2", "a.b.c/3"]);
        let Event::Commit(commit) = outline.entry(&[2]).unwrap().event else { panic!() };
        assert_eq!((commit.ops.len(), &*commit.ops[0].rkey), (1, "3"));
        assert_eq!((outline.record(0), outline.record(1)), (Some(r#"{"n":1}"#), None));
    }

    #[test]
    fn an_op_that_is_wrong_leaves_the_others_readable() {
        let raw = raw(DATA);
        let outline = Outline::read(&raw).unwrap().unwrap();
        assert!(outline.entry(&[0, 1, 2]).is_ok());
        assert!(outline.entry(&[3]).unwrap_err().to_string().contains("op 3: path"));
        let account = RawEntry::from_fields(StreamId::MIN, [("type", "account"), ("data", "{}")]);
        assert!(Outline::read(&account).unwrap().is_none());
    }
}
