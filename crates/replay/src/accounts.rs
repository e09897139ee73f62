//! What a recording tells of each account, apart from its records: from when on it is there, its handles, states and revs.

use std::collections::HashMap;

use bytes::Bytes;
use ciborium::Value as Cbor;

use crate::cbor::{self, Kind};
use crate::error::Malformed;
use crate::value::tid_of_text;

/// One account; each list by the frames, in their order.
#[derive(Debug, Default)]
pub(crate) struct Account {
    pub(crate) did: Box<[u8]>,
    /// The first frame about it.
    pub(crate) first: usize,
    pub(crate) handles: Vec<(usize, Box<str>)>,
    pub(crate) states: Vec<(usize, State)>,
    /// The revs, as the integers behind their characters.
    pub(crate) revs: Vec<(usize, u64)>,
}

/// Whether an account is there, as its host says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) active: bool,
    pub(crate) status: Option<Box<str>>,
}

/// Reads what all frames tell, the accounts in the order in which they come up.
pub(crate) fn read(frames: &[Bytes]) -> Result<Vec<Account>, (usize, Malformed)> {
    let mut accounts: Vec<Account> = Vec::new();
    let mut known: HashMap<Box<[u8]>, usize> = HashMap::new();
    for (n, frame) in frames.iter().enumerate() {
        let told = told(frame).map_err(|malformed| (n, malformed))?;
        let Some(did) = told.did else { continue };
        let place = *known.entry(did.into()).or_insert_with(|| {
            accounts.push(Account { did: did.into(), first: n, ..Account::default() });
            accounts.len() - 1
        });
        let account = &mut accounts[place];
        account.revs.extend(told.rev.map(|rev| (n, rev)));
        account.states.extend(told.state.map(|state| (n, state)));
        if let Some(handle) = told.handle
            && account.handles.last().is_none_or(|(_, last)| **last != *handle)
        {
            account.handles.push((n, handle));
        }
    }
    Ok(accounts)
}

#[derive(Default)]
struct Told<'a> {
    did: Option<&'a [u8]>,
    rev: Option<u64>,
    handle: Option<Box<str>>,
    state: Option<State>,
}

fn told(frame: &[u8]) -> Result<Told<'_>, Malformed> {
    let mut told = Told::default();
    let mut kind: &[u8] = b"";
    let body = cbor::walk(frame, 0, &mut |item| {
        if (item.depth, item.key, item.kind) == (1, b"t", Kind::Text) {
            kind = &frame[item.at..item.end];
        }
        Ok(())
    })?;
    cbor::walk(frame, body, &mut |item| {
        let content = &frame[item.at..item.end];
        match (item.depth, item.key, item.kind) {
            (1, b"repo" | b"did", Kind::Text) => told.did = Some(content),
            (1, b"rev", Kind::Text) => told.rev = tid_of_text(content),
            (1, b"handle", Kind::Text) if kind == b"#identity" => {
                told.handle = str::from_utf8(content).ok().map(Into::into);
            }
            _ => {}
        }
        Ok(())
    })?;
    if kind == b"#account" {
        // The walk passes booleans by.
        let read = ciborium::from_reader(&frame[body..]).map_err(|_| Malformed::Cbor { at: body })?;
        let Cbor::Map(fields) = read else { return Ok(told) };
        let field = |name: &str| fields.iter().find(|(key, _)| key.as_text() == Some(name)).map(|(_, value)| value);
        told.state = Some(State {
            active: field("active").and_then(Cbor::as_bool).unwrap_or_default(),
            status: field("status").and_then(Cbor::as_text).map(Into::into),
        });
    }
    Ok(told)
}

// === impl Account ===

impl Account {
    /// The handle after so many frames of the loop, as recorded. Before the first word of one it is that: an account has its handle
    /// before its host says anything.
    pub(crate) fn handle(&self, frames: usize) -> Option<&str> {
        latest(&self.handles, frames).or(self.handles.first().map(|(_, handle)| handle)).map(|handle| &**handle)
    }

    /// What the host says of the account after so many frames of the loop.
    pub(crate) fn state(&self, frames: usize) -> State {
        latest(&self.states, frames).cloned().unwrap_or(State { active: true, status: None })
    }

    /// The newest rev after so many frames of the loop.
    pub(crate) fn rev(&self, frames: usize) -> Option<u64> {
        latest(&self.revs, frames).copied()
    }
}

fn latest<T>(list: &[(usize, T)], frames: usize) -> Option<&T> {
    let passed = list.partition_point(|(frame, _)| *frame < frames);
    list[..passed].last().map(|(_, thing)| thing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording;
    use crate::settings::Recording;

    #[test]
    fn the_bundled_accounts_are_as_its_readme_says() {
        let accounts = read(&recording::read(&Recording::Bundled).unwrap()).unwrap();
        assert_eq!(accounts.len(), 19);
        assert_eq!(accounts.iter().map(|account| account.states.len()).sum::<usize>(), 37);
        let first = &accounts[0];
        assert_eq!(&*first.did, b"did:plc:c47os3qgjghgkayigu7ddcft");
        let handles = [0, 1, 524, 525, 583].map(|frames| first.handle(frames).unwrap());
        assert_eq!(handles, ["user0-s3.test", "user0-s3.test", "user0-s3.test", "adm-s3.test", "adm-s3.test"]);
        assert_eq!((first.rev(2), first.rev(3).is_some()), (None, true));
        let gone = accounts.last().unwrap();
        let state = |frames| gone.state(frames);
        assert_eq!(state(580), State { active: true, status: None });
        assert_eq!(state(581), State { active: false, status: Some("deactivated".into()) });
        assert_eq!(state(583), State { active: false, status: Some("deleted".into()) });
    }
}
