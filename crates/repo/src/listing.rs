//! A repo by its records, for a host that has no CAR of repos: collection by collection, page by page. Nothing of it is proven.

use std::sync::Arc;

use penstock_identity::web::Host;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::car::intake::Bounds;
use crate::car::spool::Spool;
use crate::client::{Client, Request};
use crate::error::RepoError;
use crate::records::{Records, Writer};

/// How often it is begun anew where the repo changes meanwhile.
const TRIES: usize = 3;

/// Records of a page, and the largest page in bytes.
const PAGE: &str = "50";
const PAGE_BYTES: usize = 16 * 1024 * 1024;

/// The largest answer about a repo, in bytes.
const SMALL: usize = 1024 * 1024;

/// The most collections of a repo.
const COLLECTIONS: usize = 10_000;

/// A repo that was listed.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) rev: Box<str>,
    pub(crate) records: Records,
    pub(crate) count: u64,
    pub(crate) bytes: u64,
}

/// As in `com.atproto.sync.getLatestCommit`.
#[derive(Deserialize)]
pub(crate) struct LatestCommit {
    pub(crate) cid: Box<str>,
    pub(crate) rev: Box<str>,
}

/// As in `com.atproto.repo.describeRepo`.
#[derive(Deserialize)]
struct Description {
    did: Box<str>,
    collections: Vec<String>,
}

/// As in `com.atproto.repo.listRecords`.
#[derive(Deserialize)]
struct Page {
    records: Vec<ListedRecord>,
    cursor: Option<String>,
}

#[derive(Deserialize)]
struct ListedRecord {
    uri: Box<str>,
    cid: Box<str>,
    value: Box<RawValue>,
}

/// Asks for the present rev of a repo, and its commit.
pub(crate) async fn latest(client: &Client, host: &Host, did: &str) -> Result<LatestCommit, RepoError> {
    let request = Request::new(host, "com.atproto.sync.getLatestCommit", &[("did", did)]);
    let latest: LatestCommit = client.json(&request, SMALL).await?;
    if penstock_wire::rev_number(&latest.rev).is_none() || !is_cid(&latest.cid) {
        return Err(refused(host, "answered getLatestCommit with what is no rev or no cid"));
    }
    Ok(latest)
}

/// Lists a repo at one rev.
pub(crate) async fn list(client: &Client, host: &Host, did: &str, bounds: &Bounds) -> Result<Listed, RepoError> {
    for _ in 0..TRIES {
        let before = latest(client, host, did).await?;
        let (records, count, bytes) = read(client, host, did, bounds).await?;
        if latest(client, host, did).await?.rev == before.rev {
            return Ok(Listed { rev: before.rev, records, count, bytes });
        }
    }
    Err(RepoError::Changed { host: host.name().into() })
}

async fn read(client: &Client, host: &Host, did: &str, bounds: &Bounds) -> Result<(Records, u64, u64), RepoError> {
    let spill = |source| RepoError::spill(&bounds.budget, source);
    let request = Request::new(host, "com.atproto.repo.describeRepo", &[("repo", did)]);
    let description: Description = client.json(&request, SMALL).await?;
    if *description.did != *did || description.collections.len() > COLLECTIONS {
        return Err(refused(host, "described another repo, or one of too many collections"));
    }
    let mut collections = description.collections;
    // The slash behind a collection comes before some of its characters: paths are in this order, names are not.
    for collection in &mut collections {
        collection.push('/');
    }
    collections.sort_unstable();
    collections.dedup();
    let mut writer = Writer::new(Spool::new(Arc::clone(&bounds.budget)));
    let mut count = 0;
    for start in &collections {
        let collection = start.trim_end_matches('/');
        let mut cursor: Option<String> = None;
        let mut last = String::new();
        loop {
            let mut parameters = vec![("repo", did), ("collection", collection), ("limit", PAGE), ("reverse", "true")];
            parameters.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
            let request = Request::new(host, "com.atproto.repo.listRecords", &parameters);
            let page: Page = client.json(&request, PAGE_BYTES).await?;
            let is_last = page.records.is_empty();
            for record in page.records {
                let path = record.uri.strip_prefix("at://").and_then(|uri| uri.strip_prefix(did));
                let path = path.and_then(|path| path.strip_prefix('/')).filter(|path| path.starts_with(start.as_str()));
                let Some(path) = path.filter(|path| is_path(path) && is_cid(&record.cid)) else {
                    return Err(refused(host, &format!("listed what is no record of {collection}")));
                };
                // In this order a page that comes twice, or a host that does not know the order, is noticed.
                if path <= last.as_str() {
                    return Err(refused(host, &format!("listed {collection} in another order than asked for")));
                }
                path.clone_into(&mut last);
                if writer.len() > bounds.bytes {
                    return Err(RepoError::TooLarge { what: "bytes (heal.repoBytes)", limit: bounds.bytes });
                }
                // At most some pages a second: writing them is not worth a thread.
                writer.record(path, &record.cid, record.value.get()).map_err(spill)?;
                count += 1;
            }
            match page.cursor {
                Some(next) if !is_last && !next.is_empty() => cursor = Some(next),
                _ => break,
            }
        }
    }
    let bytes = writer.len();
    Ok((writer.finish(None).map_err(spill)?, count, bytes))
}

fn refused(host: &Host, why: &str) -> RepoError {
    RepoError::Refused { host: host.name().into(), why: why.into() }
}

fn is_path(path: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'~' | b'-');
    path.len() <= 1_024
        && path.split_once('/').is_some_and(|(collection, rkey)| {
            !collection.is_empty() && !rkey.is_empty() && collection.bytes().chain(rkey.bytes()).all(is_plain)
        })
}

fn is_cid(cid: &str) -> bool {
    cid.len() == 59 && cid.starts_with("baf") && cid.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'2'..=b'7'))
}
