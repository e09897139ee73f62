//! What an account's present host says of it, behind the fence that everything fetched is behind.

use std::time::Duration;

use penstock_identity::{Handle, Identities, RepoStatus};
use penstock_repo::Repos;
use tokio::time::timeout;

use crate::asked::RecordPath;
use crate::report::{Host, HostRecord, tid_time};

/// How long all questions together may take.
const PATIENCE: Duration = Duration::from_secs(6);

/// Those who ask hosts.
#[derive(Clone, Copy, Debug)]
pub struct Network<'a> {
    /// Documents and handles.
    pub identities: &'a Identities,
    /// Repos.
    pub repos: &'a Repos,
}

/// Asks the host of an account.
pub(crate) async fn ask(network: Network<'_>, did: &str, path: Option<&RecordPath>) -> Result<Host, String> {
    let asking = Box::pin(ask_in_turn(network, did, path));
    timeout(PATIENCE, asking).await.unwrap_or_else(|_| Err(format!("no answer within {} s", PATIENCE.as_secs())))
}

async fn ask_in_turn(network: Network<'_>, did: &str, path: Option<&RecordPath>) -> Result<Host, String> {
    let Network { identities, repos } = network;
    let identity = identities.resolve(did).await.map_err(|error| error.to_string())?;
    let mut host =
        Host { host: identity.host.map(String::from), handle: identity.handle.map(String::from), ..Host::default() };
    let handle = async {
        host.handle.as_ref()?;
        identities.handle(did).await.ok().map(|handle| matches!(handle, Handle::Valid(_)))
    };
    let record = async {
        match path {
            Some(path) => Some(repos.record(did, &path.to_string()).await),
            None => None,
        }
    };
    let (handle_valid, status, record) = tokio::join!(handle, identities.repo_status(did), record);
    host.handle_valid = handle_valid;
    match status {
        Ok(RepoStatus::Active { rev }) => (host.active, host.rev) = (Some(true), rev.map(String::from)),
        Ok(RepoStatus::Inactive { status, rev }) => {
            host.active = Some(false);
            (host.status, host.rev) = (status.map(String::from), rev.map(String::from));
        }
        Ok(RepoStatus::NotFound) => (host.active, host.status) = (Some(false), Some("notFound".to_owned())),
        Ok(RepoStatus::NoHost) => (host.active, host.status) = (Some(false), Some("noHost".to_owned())),
        Err(error) => host.error = Some(error.to_string()),
    }
    host.rev_at = host.rev.as_deref().and_then(tid_time);
    match record {
        Some(Ok(Some(record))) => host.record = Some(HostRecord { exists: true, cid: Some(record.cid.into()) }),
        Some(Ok(None)) => host.record = Some(HostRecord { exists: false, cid: None }),
        Some(Err(error)) => host.record_error = Some(error.to_string()),
        None => {}
    }
    Ok(host)
}
