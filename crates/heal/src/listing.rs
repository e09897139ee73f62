//! Lists the repos of backfills, page by page, as far ahead as may wait.

use std::time::Duration;

use penstock_core::backfill::{Reason, Scope};
use penstock_core::settings::{RelayUrl, Settings, Value as _};
use penstock_repo::{ListedRepo, RepoError};
use tokio_util::sync::CancellationToken;

use crate::backfills::Listing;
use crate::engine::{Engine, Shared};

/// How often it is looked for backfills of which repos are to be listed.
const EVERY: Duration = Duration::from_secs(1);

/// How long a listing is a process's own without another page.
const LEASE: Duration = Duration::from_secs(120);

/// How often a relay may refuse to list until that is believed.
const REFUSALS: u32 = 5;

/// The longest pause until a relay is asked again.
const LONGEST: Duration = Duration::from_secs(600);

impl Engine {
    /// Lists repos of backfills until asked to stop, and closes those that are through.
    pub async fn list(&self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            if let Some(Err(error)) = stop.run_until_cancelled(self.shared.list_once(&stop)).await {
                self.shared.events.database_failed("list the repos of a backfill", &error);
            }
            stop.run_until_cancelled(tokio::time::sleep(EVERY)).await;
        }
    }
}

impl Shared {
    async fn list_once(&self, stop: &CancellationToken) -> sqlx::Result<()> {
        let all = self.settings.heal.enabled || self.only.is_some();
        for listing in self.backfills.claim(&self.holder, LEASE, self.only.as_deref(), all).await? {
            self.list_some(listing, stop).await?;
        }
        self.backfills.mark().await?;
        for (name, done, failed, records) in self.backfills.finish().await? {
            self.events.finished(&name, done, failed, records);
        }
        Ok(())
    }

    /// Lists until as many wait as may.
    async fn list_some(&self, mut listing: Listing, stop: &CancellationToken) -> sqlx::Result<()> {
        let collection = match &listing.scope {
            Scope::Repos(dids) => {
                let named = |did: &String| ListedRepo { did: did.as_str().into(), rev: None, active: true };
                let named: Vec<ListedRepo> = dids.iter().map(named).collect();
                return self.backfills.listed(&self.holder, &listing, &named, None).await.map(drop);
            }
            Scope::Collection(collection) => Some(collection.clone()),
            Scope::All(_) => None,
        };
        let relay = base(&self.settings, listing.relay.as_deref());
        while listing.room > 0 && !stop.is_cancelled() {
            let cursor = listing.cursor.as_deref();
            let page = match self.repos.list(&relay, collection.as_deref(), cursor).await {
                Ok(page) => page,
                Err(RepoError::Ended) => return Ok(()),
                Err(error) => return self.not_listed(&listing, &relay, &error).await,
            };
            // A relay that gives the same cursor again would be asked for ever.
            let next = page.cursor.as_deref().filter(|next| Some(*next) != cursor);
            if !self.backfills.listed(&self.holder, &listing, &page.repos, next).await? {
                return Ok(());
            }
            self.listed.notify_one();
            let Some(next) = next else { return Ok(()) };
            listing.cursor = Some(next.to_owned());
            listing.room = listing.room.saturating_sub(page.repos.len() as u64);
            listing.attempts = 0;
        }
        Ok(())
    }

    async fn not_listed(&self, listing: &Listing, relay: &str, error: &RepoError) -> sqlx::Result<()> {
        let text = error.to_string();
        let is_final = error.is_final() && listing.attempts + 1 >= REFUSALS;
        self.events.not_listed(&listing.name, relay, error, is_final);
        if is_final && listing.reason == Reason::Filter.word() && matches!(listing.scope, Scope::Collection(_)) {
            let change = listing.name.rsplit_once('/').map_or(&*listing.name, |(change, _)| change);
            let instead = format!("{change}/all");
            self.backfills.list_all(&self.holder, &listing.name, &instead, &text).await?;
            self.events.all_instead(&listing.name, &instead);
            return Ok(());
        }
        if is_final {
            return self.backfills.list_failed(&self.holder, &listing.name, &text).await;
        }
        let heal = &self.settings.heal;
        let pause = heal.retry_min.saturating_mul(1_u32.checked_shl(listing.attempts).unwrap_or(u32::MAX));
        let pause = pause.min(heal.retry_max).min(LONGEST).max(error.retry_after().unwrap_or_default());
        self.backfills.list_again(&self.holder, &listing.name, &text, pause).await
    }
}

/// Returns the address of a relay for requests; that of the first that is read where none is named.
fn base(settings: &Settings, relay: Option<&str>) -> String {
    let named = relay.and_then(RelayUrl::parse);
    let Some(url) = named.as_ref().or(settings.relay.urls.first()) else { return String::new() };
    let scheme = if url.subscribe(None).scheme() == "ws" { "http" } else { "https" };
    format!("{scheme}://{}", url.host())
}

#[cfg(test)]
mod tests {
    use penstock_core::settings::Layers;

    use super::*;

    #[test]
    fn a_relay_is_asked_where_it_is_read() {
        let settings = Settings::load(&Layers::default().flag("relay.urls", "ws://localhost:2470")).unwrap();
        assert_eq!(base(&settings, None), "http://localhost:2470");
        assert_eq!(base(&settings, Some("bsky.network")), "https://bsky.network");
        assert_eq!(base(&settings, Some("https://relay.test:8443/xrpc")), "https://relay.test:8443");
    }
}
