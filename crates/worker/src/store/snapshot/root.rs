//! The root of a repo's tree, computed from the records that are stored.

use std::collections::BTreeMap;

use penstock_wire::TreeRoot;
use sqlx::{AssertSqlSafe, PgConnection};

use super::DatabaseRoot;
use super::write::{path_of, stored};
use crate::store::cids;
use crate::store::connection::Store;
use crate::store::floor::END;
use crate::store::kept;
use crate::store::parsed::PROFILE;
use crate::store::table::Table;

/// How many records are read at once.
const PAGE: usize = if cfg!(test) { 5 } else { 10_000 };

/// How often it starts over because something was written meanwhile.
const ATTEMPTS: usize = 3;

const REV: &str = "SELECT rev FROM penstock.repos WHERE did = $1";

const PROFILE_STANDS: &str = "SELECT EXISTS (SELECT FROM penstock.profiles WHERE did = $1)";

/// Reads the CIDs of records by their keys: URI, CID as text, or its digest.
fn cids_of() -> String {
    let tables = Table::ALL.into_iter().filter(|table| table.has_cid());
    let mut selects: Vec<String> = tables
        .map(|table| {
            format!("SELECT t.uri, t.cid, NULL::bytea AS digest FROM {} AS t WHERE t.uri = ANY($1)", table.spec().name)
        })
        .collect();
    selects.push("SELECT s.uri, s.row ->> 'cid', NULL FROM penstock.shadowed AS s WHERE s.uri = ANY($1)".to_owned());
    selects.push(format!("SELECT r.uri, r.cid, NULL FROM {} AS r WHERE r.key = ANY($1)", kept::TABLE));
    selects.push("SELECT c.uri, NULL, c.cid FROM penstock.cids AS c WHERE c.uri = ANY($1)".to_owned());
    selects.join(" UNION ALL ")
}

// === impl Store ===

impl Store {
    pub(super) async fn root(&self, did: &str) -> sqlx::Result<DatabaseRoot> {
        let mut attempt = 1;
        loop {
            let (root, is_still) = self.in_transaction(async |conn| self.root_once(conn, did).await).await?;
            if is_still || attempt == ATTEMPTS {
                return Ok(root);
            }
            attempt += 1;
        }
    }

    /// Computes it once, and says whether nothing came in between.
    async fn root_once(&self, conn: &mut PgConnection, did: &str) -> sqlx::Result<(DatabaseRoot, bool)> {
        let before: Option<Option<String>> = sqlx::query_scalar(REV).bind(did).fetch_optional(&mut *conn).await?;
        let Some(rev) = before else { return Ok((DatabaseRoot::Empty, true)) };
        let has_profile: bool = sqlx::query_scalar(PROFILE_STANDS).bind(did).fetch_one(&mut *conn).await?;
        let mut profile = has_profile.then(|| format!("{}/{}", PROFILE.0, PROFILE.1));
        let mut tree = TreeRoot::new();
        let (mut without, mut example) = (0, None);
        let mut after: Option<String> = None;
        loop {
            let uris = stored(conn, self, did, after.as_deref(), END, None, PAGE).await?;
            let is_last = uris.len() < PAGE;
            let last = uris.last().map(|uri| path_of(did, uri).to_owned());
            let mut uris = uris;
            // It stands in no table of records.
            if let Some(path) = profile.take_if(|path| is_last || last.as_ref().is_some_and(|last| *path <= *last)) {
                uris.push(format!("at://{did}/{path}"));
                uris.sort_unstable();
            }
            let digests = digests(conn, &uris).await?;
            for uri in &uris {
                let path = path_of(did, uri);
                match digests.get(uri) {
                    Some(digest) if tree.push(path, *digest).is_ok() => {}
                    _ => {
                        without += 1;
                        example.get_or_insert_with(|| path.to_owned());
                    }
                }
            }
            if is_last {
                break;
            }
            after = last;
        }
        let now: Option<Option<String>> = sqlx::query_scalar(REV).bind(did).fetch_optional(conn).await?;
        let is_still = now.as_ref() == Some(&rev);
        let records = tree.count();
        Ok(match example {
            Some(example) => (DatabaseRoot::Lacking { without, example }, is_still),
            None if records == 0 => (DatabaseRoot::Empty, is_still),
            None => (DatabaseRoot::Known { root: tree.finish(), records, rev }, is_still),
        })
    }
}

async fn digests(conn: &mut PgConnection, uris: &[String]) -> sqlx::Result<BTreeMap<String, [u8; 32]>> {
    let keys: Vec<String> = uris.iter().cloned().map(kept::key_of).collect();
    let rows: Vec<(String, Option<String>, Option<Vec<u8>>)> =
        sqlx::query_as(AssertSqlSafe(cids_of())).bind(keys).fetch_all(conn).await?;
    let digest = |(uri, cid, digest): (String, Option<String>, Option<Vec<u8>>)| {
        let digest = digest.and_then(|digest| digest.try_into().ok());
        Some((uri, digest.or_else(|| cids::digest(&cid?))?))
    };
    Ok(rows.into_iter().filter_map(digest).collect())
}
