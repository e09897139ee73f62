//! The directory of the accounts, and their host: what `plc.directory` and `com.atproto.sync.getRepoStatus` would say of them.
//!
//! In: a request's path and query, and how much of the timeline is live. Out: the answer's bytes. An account is there once its first event
//! is live, under the handle that its latest live `#identity` told. DIDs are the recording's and those of the loops, so the operations are
//! signed, but none hashes to its DID.

mod answer;

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use tokio_tungstenite::tungstenite::handshake::server::Request;

use crate::accounts::Account;
use crate::settings::Signing;

/// Answers for the accounts of all loops.
#[derive(Debug)]
pub(crate) struct Directory {
    signing: Signing,
    accounts: Vec<Account>,
    /// One loop's operations, in their order.
    operations: Vec<Operation>,
    /// DIDs that were given up.
    tombstones: Mutex<HashSet<String>>,
}

/// An operation: an account comes up, or takes another handle.
#[derive(Clone, Copy, Debug)]
struct Operation {
    account: usize,
    /// Which one of the account's it is.
    nth: usize,
    /// The frame that tells it.
    frame: usize,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    /// How the asker calls this host.
    host: String,
    what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    Document(String),
    Data(String),
    Log(String),
    Audit(String),
    Last(String),
    Export { count: usize, after: After },
    Status(Option<String>),
    Bad(&'static str),
}

/// Behind what an export begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    Nothing,
    /// Milliseconds since 1970.
    Time(i64),
    Number(u64),
}

/// Operations that an export gives at most, and where nothing is said.
const MOST: usize = 1000;

/// Reads a request for the directory or the host; `None` of any other.
pub(crate) fn asked(request: &Request) -> Option<Asked> {
    let path = request.uri().path().replace("%3A", ":").replace("%3a", ":");
    let query: Vec<(String, String)> =
        url::form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes()).into_owned().collect();
    let given = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let what = match path.as_str() {
        "/xrpc/com.atproto.sync.getRepoStatus" => What::Status(given("did")),
        "/export" => export(given("count"), given("after")),
        path => {
            let (did, rest) = path
                .strip_prefix('/')
                .filter(|path| path.starts_with("did:"))?
                .split_once('/')
                .map_or_else(|| (path[1..].to_owned(), ""), |(did, rest)| (did.to_owned(), rest));
            match rest {
                "" => What::Document(did),
                "data" => What::Data(did),
                "log" => What::Log(did),
                "log/audit" => What::Audit(did),
                "log/last" => What::Last(did),
                _ => return None,
            }
        }
    };
    let host = request.headers().get("host").and_then(|host| host.to_str().ok()).unwrap_or("127.0.0.1");
    Some(Asked { host: host.to_owned(), what })
}

fn export(count: Option<String>, after: Option<String>) -> What {
    let Ok(count) = count.map_or(Ok(MOST), |count| count.parse::<usize>()) else {
        return What::Bad("Invalid count parameter");
    };
    let after = match after {
        None => Some(After::Nothing),
        Some(text) if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() => {
            text.parse().ok().map(After::Number)
        }
        Some(text) => text.parse().ok().map(|time: Timestamp| After::Time(time.as_millisecond())),
    };
    match after {
        Some(after) if count > 0 => What::Export { count: count.min(MOST), after },
        Some(_) => What::Bad("Invalid count parameter"),
        None => What::Bad("Invalid after parameter"),
    }
}

// === impl Directory ===

impl Directory {
    pub(crate) fn new(accounts: Vec<Account>, signing: Signing) -> Self {
        let mut operations: Vec<Operation> = Vec::new();
        for (account, told) in accounts.iter().enumerate() {
            operations.push(Operation { account, nth: 0, frame: told.first });
            let later = told.handles.iter().skip(1).enumerate();
            operations.extend(later.map(|(n, &(frame, _))| Operation { account, nth: n + 1, frame }));
        }
        operations.sort_by_key(|operation| (operation.frame, operation.nth));
        Self { signing, accounts, operations, tombstones: Mutex::default() }
    }

    /// Gives up a DID: from now on its document is gone.
    pub(crate) fn bury(&self, did: &str) {
        self.tombstones.lock().unwrap_or_else(PoisonError::into_inner).insert(did.to_owned());
    }

    fn is_buried(&self, did: &str) -> bool {
        self.tombstones.lock().unwrap_or_else(PoisonError::into_inner).contains(did)
    }
}
