//! Marks of desynchronized repos that ingest leaves in Redis.

use fred::interfaces::SortedSetsInterface;

use super::client::{Answer, Consumer};
use crate::store::Desynchronized;

/// How many marks are read at once.
const PAGE: i64 = 500;

// === impl Consumer ===

impl Consumer {
    /// Reads some marks.
    pub(crate) async fn marks(&self) -> Answer<Vec<Desynchronized>> {
        let key = self.names.keys.desynchronized();
        let marks: Vec<String> = self.client.zrangebylex(key, "-", "+", Some((0, PAGE))).await?;
        Ok(marks.iter().map(|mark| read(mark)).collect())
    }

    /// Removes marks that are in PostgreSQL.
    pub(crate) async fn remove_marks(&self, marks: &[Desynchronized]) -> Answer<()> {
        let members: Vec<String> = marks.iter().map(written).collect();
        self.client.zrem(self.names.keys.desynchronized(), members).await
    }
}

fn read(mark: &str) -> Desynchronized {
    let (did, reason) = mark.split_once(' ').unwrap_or((mark, ""));
    Desynchronized { did: did.to_owned(), reason: reason.to_owned() }
}

fn written(mark: &Desynchronized) -> String {
    format!("{} {}", mark.did, mark.reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_removed_as_it_was_read() {
        for text in ["did:plc:a sync", "did:plc:a ", "did:plc:a two words"] {
            assert_eq!(written(&read(text)), text);
        }
        assert_eq!(read("did:plc:a sync"), Desynchronized { did: "did:plc:a".to_owned(), reason: "sync".to_owned() });
    }
}
