//! Whether the API server and every Redis answer this operator.

use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use penstock_core::servers::{self, Kind, Server};
use tokio::time::error::Elapsed;

/// How often it is tried at least whether a Redis answers again.
const REDIS: Duration = Duration::from_secs(10);

/// The servers of one operator; clones tell of the same ones.
#[derive(Clone, Debug)]
pub(crate) struct Servers {
    pub(crate) kubernetes: Server,
    redis: Arc<Mutex<HashMap<String, Server>>>,
}

// === impl Servers ===

impl Servers {
    /// Makes them; the API server is asked so often at least.
    pub(crate) fn new(api_server: &str, every: Duration) -> Self {
        let means = "pipelines go on as they are, nothing is reconciled or scaled";
        Self { kubernetes: Server::new(Kind::Kubernetes, api_server, means, every), redis: Arc::default() }
    }

    /// Returns the Redis of this masked address.
    pub(crate) fn redis(&self, address: &str) -> Server {
        let mut known = self.redis.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Server::new(Kind::Redis, address, "autoscaling is on hold", REDIS);
        known.entry(address.to_owned()).or_insert_with(new).clone()
    }

    /// Forgets every Redis but these masked addresses.
    pub(crate) fn keep_redis(&self, addresses: &HashSet<String>) {
        let mut known = self.redis.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|address, _| addresses.contains(address));
    }

    /// Records what an error says of the API server; returns whether the error is that it does not answer, which is told for
    /// all requests together.
    pub(crate) fn is_of_outage(&self, error: &(dyn Error + 'static)) -> bool {
        let is_unanswered = is_unanswered(error);
        if is_unanswered {
            self.kubernetes.failed(error);
        }
        is_unanswered || self.kubernetes.is_away()
    }
}

/// Returns whether the API server could not be reached or gave no answer.
pub(crate) fn is_unanswered(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        match error.downcast_ref::<kube::Error>() {
            Some(kube::Error::Service(_) | kube::Error::HyperError(_) | kube::Error::ReadEvents(_)) => return true,
            Some(kube::Error::Api(_)) => return false,
            _ if error.is::<Elapsed>() => return true,
            _ => cause = error.source(),
        }
    }
    servers::is_unanswered(error) && !is_of_redis(error)
}

fn is_of_redis(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<fred::error::Error>() {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_api_server_that_refuses_answers_and_a_redis_is_none() {
        let refused = || std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        assert!(is_unanswered(&kube::Error::Service(Box::new(refused()))));
        assert!(!is_unanswered(&kube::Error::Api(Box::default())));
        assert!(!is_unanswered(&fred::error::Error::new(fred::error::ErrorKind::IO, "Connection refused")));
        let servers = Servers::new("https://api:6443", Duration::from_secs(2));
        assert!(servers.is_of_outage(&kube::Error::Service(Box::new(refused()))));
        let expected = "kubernetes api https://api:6443 does not answer: connection refused";
        assert_eq!(servers.kubernetes.failure().unwrap(), expected);
    }
}
