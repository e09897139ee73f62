//! A pipeline that reads the real servers.

use std::collections::BTreeSet;

use crate::rig::{Rig, eventually};
use crate::service::Service;

use super::world::{Account, World};

/// Servers of the test's own, and what every process is told of the world.
pub(crate) struct Stage {
    pub(crate) rig: Rig,
    relay: String,
}

// === impl Stage ===

impl Stage {
    /// Everything is proven, and what proves wrong is refused.
    pub(crate) async fn enforcing(world: &World) -> Self {
        let mut rig = Box::pin(Rig::new()).await;
        let addresses = &world.addresses;
        for (name, value) in [
            ("PENSTOCK_VERIFY_MODE", "enforce"),
            ("PENSTOCK_VERIFY_SIGNATURES", "enforce"),
            ("PENSTOCK_VERIFY_UNRESOLVED", "hold"),
            ("PENSTOCK_IDENTITY_ENABLED", "true"),
            ("PENSTOCK_IDENTITY_PLC_URL", &*addresses.directory),
            ("PENSTOCK_IDENTITY_DNS_SERVER", &*addresses.names),
            ("PENSTOCK_IDENTITY_ALLOWED_NETWORKS", "127.0.0.0/8,::1/128"),
            ("PENSTOCK_IDENTITY_RATE", "1000"),
            ("PENSTOCK_IDENTITY_RETRY_AFTER", "200ms"),
        ] {
            rig.set(name, value);
        }
        rig.keep_stream().await;
        Self { rig, relay: addresses.relay.clone() }
    }

    /// Reads one of the servers itself instead of the relay.
    pub(crate) fn directly(mut self, server: &str) -> Self {
        self.relay = server.replace("http:", "ws:");
        self
    }

    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.rig.set(name, value);
    }

    pub(crate) fn ingest(&self) -> Service {
        self.rig.start(&["ingest", "--set", &format!("relay.urls={}", self.relay)])
    }

    pub(crate) fn worker(&self, name: &str) -> Service {
        self.rig.worker(name)
    }

    /// Waits until everything that the servers have said is in the stream.
    pub(crate) async fn ingested(&self, world: &World) {
        self.rig.ingested(world.relayed().await).await;
    }

    /// Waits until everything that the servers have said is applied.
    pub(crate) async fn caught_up(&self, world: &World) {
        self.ingested(world).await;
        self.rig.settled().await;
    }

    /// Waits until an account has this handle.
    pub(crate) async fn shows_handle(&self, account: &Account, handle: &str) {
        eventually(&format!("{} shows as {handle}", account.did), async || {
            let shown = sqlx::query_scalar::<_, String>("SELECT handle FROM users WHERE did = $1").bind(&account.did);
            shown.fetch_optional(&self.rig.pool).await.unwrap().as_deref() == Some(handle)
        })
        .await;
    }

    /// Whether an account is active, and why it is not, as far as anybody said so.
    pub(crate) async fn status(&self, account: &Account) -> (Option<bool>, Option<String>) {
        let status = sqlx::query_as("SELECT active, status FROM penstock.repos WHERE did = $1").bind(&account.did);
        status.fetch_optional(&self.rig.pool).await.unwrap().unwrap_or_default()
    }

    pub(crate) async fn is_active(&self, account: &Account) -> bool {
        self.status(account).await == (Some(true), None)
    }

    /// How many commits verified, or did not, for one of the reasons.
    pub(crate) async fn verified(&self, ingest: &Service, result: &str) -> f64 {
        ingest.sum("penstock_ingest_verified_total", &format!("result=\"{result}\"")).await
    }

    /// Asserts that nothing was refused, set aside or found wanting.
    pub(crate) async fn assert_nothing_failed(&self) {
        assert_eq!(self.rig.dead_letters().await, [], "dead letters in redis");
        assert_eq!(self.rig.kept_dead_letters().await, BTreeSet::new(), "dead letters in postgresql");
        assert_eq!(self.rig.set_aside().await, [0_u64; 0], "frames set aside");
        assert_eq!(self.rig.lacking().await, BTreeSet::new(), "repos that lack something");
        let marked = sqlx::query_as("SELECT did, sync FROM penstock.repos WHERE sync IS NOT NULL");
        let marked: Vec<(String, String)> = marked.fetch_all(&self.rig.pool).await.unwrap();
        assert_eq!(marked, [], "repos that missed something");
    }

    /// Asserts that every commit that this process has read is proven.
    pub(crate) async fn assert_proven(&self, ingest: &Service) {
        assert!(self.verified(ingest, "passed").await > 0.0, "commits that are proven");
        for result in ["failed", "refused", "unresolved", "broken", "unknown"] {
            assert_eq!(self.verified(ingest, result).await, 0.0, "commits by result: {result}");
        }
    }
}
