//! The part of the streams that the workers have not settled: up to where they have, and which commits stand in the rest.

use std::sync::{Mutex, PoisonError};

use fred::clients::Client;
use fred::error::Error;
use fred::interfaces::LuaInterface;
use penstock_core::entry::read_root;
use penstock_core::keys::Keys;
use penstock_core::stream::StreamId;
use penstock_wire::rev_number;

use crate::intake::chain::Chain;
use crate::intake::chain::state::Why;
use crate::scripts;

/// How many entries one script reads at most, and roughly how many bytes of them.
const PAGE: (u32, u32) = (1_000, 8_000_000);

/// Up to where everything is settled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Settled {
    /// The first entry that is not.
    pub(crate) first: Option<StreamId>,
    /// The last entry there was.
    pub(crate) last: Option<StreamId>,
    /// How many marks wait in Redis.
    pub(crate) marks: u64,
}

// === impl Settled ===

impl Settled {
    /// Asks Redis.
    pub(crate) async fn read(client: &Client, keys: &Keys) -> Result<Self, Error> {
        let touched = vec![keys.stream().to_owned(), keys.bulk().to_owned(), keys.desynchronized()];
        let (first, last, marks): (String, String, u64) =
            client.eval(scripts::SETTLED, touched, vec![keys.group().to_owned()]).await?;
        Ok(Self { first: first.parse().ok(), last: last.parse().ok(), marks })
    }

    /// Returns the greatest ID up to which everything is settled.
    pub(crate) fn through(&self) -> Option<StreamId> {
        match self.first {
            Some(StreamId { ms, seq }) if seq > 0 => Some(StreamId { ms, seq: seq - 1 }),
            Some(StreamId { ms, .. }) => Some(StreamId { ms: ms.checked_sub(1)?, seq: u64::MAX }),
            None => self.last,
        }
    }
}

/// Reads into memory what is unsettled, as far as that is in doubt; while it fails nothing may be judged.
pub(crate) async fn read(client: &Client, keys: &Keys, chain: &Mutex<Chain>) -> Result<(), Error> {
    let Some(mut known) = lock(chain).to_read() else { return Ok(()) };
    let settled = Settled::read(client, keys).await?;
    if known.is_some() && settled.last < known {
        // A replica was promoted that lacks the last entries, or a file was cut: what was written is not all there.
        lock(chain).clear();
        known = None;
    }
    let (from, mut last) = match known {
        Some(known) => (Some(format!("({known}")), Some(known)),
        None => (settled.first.map(|first| first.to_string()), settled.last),
    };
    if let Some(from) = from {
        for stream in [keys.stream(), keys.bulk()] {
            last = last.max(read_stream(client, stream, from.clone(), chain).await?);
        }
    }
    lock(chain).read_through(last);
    Ok(())
}

async fn read_stream(
    client: &Client,
    stream: &str,
    mut from: String,
    chain: &Mutex<Chain>,
) -> Result<Option<StreamId>, Error> {
    let mut last = None;
    while !from.is_empty() {
        let arguments = vec![from, PAGE.0.to_string(), PAGE.1.to_string()];
        let answer: Vec<String> = client.eval(scripts::REVS, vec![stream.to_owned()], arguments).await?;
        let mut answer = answer.into_iter();
        from = answer.next().unwrap_or_default();
        last = last.max(answer.next().and_then(|id| id.parse().ok()));
        let mut chain = lock(chain);
        while let (Some(did), Some(rev), Some(root), Some(why)) =
            (answer.next(), answer.next(), answer.next(), answer.next())
        {
            let root = read_root(&root).map(u64::from_be_bytes);
            chain.read(&did, rev_number(&rev), root, Why::from_word(&why));
        }
    }
    Ok(last)
}

fn lock(chain: &Mutex<Chain>) -> std::sync::MutexGuard<'_, Chain> {
    chain.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_below_the_first_unsettled_entry_is_settled() {
        let id = |ms, seq| StreamId { ms, seq };
        let through = |first, last| Settled { first, last, marks: 0 }.through();
        assert_eq!(through(Some(id(5, 3)), Some(id(9, 0))), Some(id(5, 2)));
        assert_eq!(through(Some(id(5, 0)), Some(id(9, 0))), Some(id(4, u64::MAX)));
        assert_eq!(through(None, Some(id(9, 0))), Some(id(9, 0)));
        assert_eq!(through(Some(id(0, 0)), None), None);
        assert_eq!(through(None, None), None);
    }
}
