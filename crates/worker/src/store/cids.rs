//! The CIDs of records whose tables have no column for them: so that the root of a repo can be computed from what is stored.
//!
//! One stands as long as its record does, wherever that is. Those that were written while it was switched off have none.

use std::collections::{BTreeMap, BTreeSet};

use data_encoding::{BASE32_NOPAD, DecodeError};
use sqlx::PgConnection;
use sqlx::postgres::PgBindIterExt;

use super::decide::Plan;
use super::kept;
use super::row::Row;

const SET: &str = "\
INSERT INTO penstock.cids (uri, cid) SELECT u.uri, u.cid FROM unnest($1::text[], $2::bytea[]) AS u (uri, cid)
ON CONFLICT (uri) DO UPDATE SET cid = excluded.cid";

const DROP: &str = "DELETE FROM penstock.cids WHERE uri = ANY($1)";

/// What a CID of a record begins with: version 1, DAG-CBOR, SHA-256 of 32 bytes.
const HEAD: [u8; 4] = [0x01, 0x71, 0x12, 0x20];

/// Returns the digest in a CID; none where it is no record's.
pub(crate) fn digest(cid: &str) -> Option<[u8; 32]> {
    let text = cid.strip_prefix('b')?.to_ascii_uppercase();
    let bytes: Result<Vec<u8>, DecodeError> = BASE32_NOPAD.decode(text.as_bytes());
    bytes.ok()?.strip_prefix(&HEAD)?.try_into().ok()
}

/// Records the CIDs of what a plan wrote, and drops those of what is gone.
pub(crate) async fn write(conn: &mut PgConnection, plan: &Plan<'_, '_>) -> sqlx::Result<()> {
    let mut stands: BTreeMap<String, Option<&str>> = BTreeMap::new();
    let mut moved: BTreeSet<String> = BTreeSet::new();
    let mut gone: BTreeSet<String> = plan.shadows.gone.clone();
    for (table, writes) in plan.tables.iter().filter(|(table, _)| !table.has_cid()) {
        let rows = writes.updates.iter().chain(&writes.inserts);
        stands.extend(rows.map(|(key, (_, row))| (table.uri_of(key).into_owned(), cid_of(row))));
        moved.extend(writes.demoted.iter().cloned());
        gone.extend(writes.gone.iter().map(|key| table.uri_of(key).into_owned()));
    }
    let waiting = plan.shadows.set.iter().filter(|(_, (pair, ..))| !pair.table.has_cid());
    stands.extend(waiting.map(|(uri, (.., row))| (uri.clone(), cid_of(row))));
    gone.retain(|uri| !stands.contains_key(uri) && !moved.contains(uri));
    if !gone.is_empty() {
        sqlx::query(DROP).bind(gone.iter().bind_iter()).execute(&mut *conn).await?;
    }
    // One that waited and has its place now is no new record.
    stands.retain(|_, cid| cid.is_some());
    set(conn, stands).await
}

fn cid_of<'r>(row: &'r Row<'_>) -> Option<&'r str> {
    row.derived.as_ref().map(|derived| &*derived.cid).or(row.cid.as_deref())
}

/// Records CIDs by URI; without one, or one that is no record's, it is dropped.
pub(crate) async fn set(conn: &mut PgConnection, cids: BTreeMap<String, Option<&str>>) -> sqlx::Result<()> {
    let cids = cids.into_iter().filter(|(uri, _)| kept::is_plain(uri));
    let cids = cids.map(|(uri, cid)| (uri, cid.and_then(digest)));
    let (known, unknown): (Vec<_>, Vec<_>) = cids.partition(|(_, digest)| digest.is_some());
    if !unknown.is_empty() {
        sqlx::query(DROP).bind(unknown.iter().map(|(uri, _)| uri).bind_iter()).execute(&mut *conn).await?;
    }
    if !known.is_empty() {
        sqlx::query(SET)
            .bind(known.iter().map(|(uri, _)| uri).bind_iter())
            .bind(known.iter().map(|(_, digest)| digest.as_ref().map(|digest| &digest[..])).bind_iter())
            .execute(conn)
            .await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cid_is_read_and_what_is_none_is_not() {
        let cid = "bafyreie5737gdxlw5i64vzichcalba3z2v5n6icifvx5xytvske7mr3hpm";
        assert_eq!(digest(cid).map(|digest| digest[..4].to_vec()), Some(vec![0x9D, 0xFE, 0xFE, 0x61]));
        let raw = "bafkreie5737gdxlw5i64vzichcalba3z2v5n6icifvx5xytvske7mr3hpm";
        for none in ["", "b", "bafy", "c", &cid[..40], raw, &cid[1..]] {
            assert_eq!(digest(none), None, "{none}");
        }
    }
}
