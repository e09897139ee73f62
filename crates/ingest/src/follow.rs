//! Reads one connection after another, for as long as the lease is held.

use std::time::Duration;

use penstock_core::backoff::Backoff;
use penstock_core::servers::{Circumstances, Failing};
use penstock_core::settings::RelayUrl;
use penstock_core::units::seconds;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::relay::socket::UNREACHABLE;
use crate::resume::checkpoint::Standing;
use crate::resume::position::Position;
use crate::session::Session;
use crate::session::outcome::Outcome;
use crate::stream::pressure::Hold;
use crate::throttle::Throttle;

/// The pauses after Redis failed.
const REDIS: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));

/// The pauses after PostgreSQL was needed and did not answer.
const DATABASE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// The pauses after another program changed the cursor: ingest does not fight over it.
const FOREIGN: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// The longest pause between two checks whether another program still writes.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The longest pause between two tries to reach a relay that is not there: one that is back is read at once. The pauses beyond it are
/// for a relay that answers, and that too many tries would harm.
const NOT_THERE: Duration = Duration::from_secs(4);

/// After how long of events the end of a connection says nothing against the next.
const WELL: Duration = Duration::from_secs(5);

/// Why the lease is no longer used.
pub(crate) enum LeaseEnd {
    /// Shutdown was requested.
    Shutdown,
    /// The lease expired, or another ingest took it.
    Lost,
}

/// Decides which relay is read next, and when.
struct Follower<'a, 'kept> {
    session: &'a mut Session<'kept>,
    relays: Vec<RelayUrl>,
    /// The index of the relay; none before the first position.
    at: Option<usize>,
    /// Whether Redis had lost its data at the last check.
    was_lost: bool,
    relay: Backoff,
    redis: Backoff,
    database: Backoff,
    foreign: Backoff,
    foreign_log: Throttle,
    redis_log: Failing,
    database_log: Failing,
    /// Whether the stream may be taken over from another program: at first, and once that has been quiet.
    may_take_over: bool,
}

/// Follows the relays until the lease is lost or a shutdown is requested.
pub(crate) async fn follow(session: &mut Session<'_>, cancel: &CancellationToken) -> LeaseEnd {
    let settings = &session.settings.relay;
    let mut follower = Follower {
        relays: settings.urls.clone(),
        at: None,
        was_lost: false,
        relay: Backoff::new(settings.backoff_min, settings.backoff_max),
        redis: fresh(REDIS),
        database: fresh(DATABASE),
        foreign: fresh(FOREIGN),
        foreign_log: Throttle::default(),
        redis_log: Failing::default(),
        database_log: Failing::default(),
        may_take_over: true,
        session,
    };
    follower.run(cancel).await
}

// === impl Follower ===

impl Follower<'_, '_> {
    async fn run(&mut self, cancel: &CancellationToken) -> LeaseEnd {
        let watchdog = self.session.watchdog.clone();
        loop {
            let began = Instant::now();
            let outcome = tokio::select! {
                biased;
                () = cancel.cancelled() => return LeaseEnd::Shutdown,
                ready = self.ready() => match ready {
                    Ok(Some((relay, position))) => Box::pin(self.session.run(&relay, position, cancel)).await,
                    Ok(None) => return LeaseEnd::Shutdown,
                    Err(outcome) => outcome,
                },
            };
            if began.elapsed() >= self.session.settings.relay.healthy_after {
                self.redis.succeed();
                self.foreign.succeed();
            }
            let wait = match outcome {
                Outcome::Shutdown => return LeaseEnd::Shutdown,
                Outcome::LeaseLost => return LeaseEnd::Lost,
                Outcome::Crowded { id } => {
                    tokio::select! {
                        () = cancel.cancelled() => return LeaseEnd::Shutdown,
                        () = self.stand_by(id) => continue,
                    }
                }
                outcome => self.after(outcome),
            };
            tokio::select! {
                () = cancel.cancelled() => return LeaseEnd::Shutdown,
                () = watchdog.during(sleep(wait)) => {}
            }
        }
    }

    /// Waits until the stream may be written, and returns where to resume; none without a relay.
    async fn ready(&mut self) -> Result<Option<(RelayUrl, Position)>, Outcome> {
        // Nothing is trimmed until the position is stored, so a full stream would stay full.
        let first = if self.session.is_settled() { None } else { Some(self.position().await?) };
        let position = match first {
            Some(position) if !self.session.is_paused() => position,
            _ => {
                self.unpaused().await?;
                self.position().await?
            }
        };
        Ok(self.choose(&position).map(|relay| (relay, position)))
    }

    /// Waits while reading is paused. Another program's entries are not trimmed before the stream is taken over from it, so they
    /// may be what fills it: check for them meanwhile.
    async fn unpaused(&mut self) -> Result<(), Outcome> {
        let watchdog = self.session.watchdog.clone();
        while watchdog.during(timeout(LOOK_AGAIN, self.session.unpaused())).await.is_err() {
            let observed = self.session.observe("").await?;
            if let Some(id) = observed.foreign.filter(|_| !self.session.settings.ingest.shared_stream) {
                return Err(Outcome::Crowded { id });
            }
        }
        Ok(())
    }

    async fn position(&mut self) -> Result<Position, Outcome> {
        let position = self.session.position(self.may_take_over).await?;
        self.may_take_over = false;
        self.database.succeed();
        if self.database_log.over(std::time::Instant::now()).is_some() {
            info!("postgresql answers again, the checkpoint was read");
        }
        Ok(position)
    }

    /// Stands by until another program has written neither entries nor the cursor for the quiet time. Its last entries stay in
    /// the stream: they tell where it stopped.
    async fn stand_by(&mut self, first: String) {
        let quiet = self.session.settings.ingest.foreign_quiet;
        let watchdog = self.session.watchdog.clone();
        let began = Instant::now();
        let mut heard = began;
        let mut crowded_log = Throttle::default();
        let mut latest = first;
        // Keep the other program's entries from being trimmed.
        if let Ok(id) = latest.parse() {
            self.session.hold.send_replace(Hold::From(id));
        }
        let mut before: Option<(String, String)> = None;
        while heard.elapsed() < quiet {
            if crowded_log.permits() {
                self.session.events.publish_refused("foreign");
                self.session.events.crowded(&latest, began.elapsed(), quiet);
            }
            let from = before.as_ref().map(|(last, _)| last.as_str()).unwrap_or_default();
            match self.session.observe(from).await {
                Ok(observed) => {
                    let now = (observed.last().to_owned(), observed.position.fence.clone());
                    let moved_cursor = before.as_ref().is_some_and(|(_, cursor)| *cursor != now.1);
                    if let Some(id) = observed.foreign {
                        latest = id;
                        if let Ok(id) = latest.parse() {
                            self.session.hold.send_replace(Hold::From(id));
                        }
                        heard = Instant::now();
                    } else if moved_cursor {
                        heard = Instant::now();
                    }
                    before = Some(now);
                }
                // An unknown state does not count as quiet.
                Err(_) => heard = Instant::now(),
            }
            self.session
                .redis
                .failing(format!("another program is writing to the stream, most recently entry {latest}"));
            watchdog.during(sleep((quiet / 8).min(LOOK_AGAIN))).await;
        }
        self.session.redis.ok();
        self.session.events.alone(began.elapsed());
        self.may_take_over = true;
    }

    /// Chooses the relay: that of the position at first and whenever Redis has lost its data, otherwise the one failed over to.
    fn choose(&mut self, position: &Position) -> Option<RelayUrl> {
        let is_lost = position.standing.is_lost();
        let at = match self.at {
            Some(at) if self.was_lost || !is_lost => at,
            _ => position.home(&self.relays),
        };
        let relay = self.relays.get(at % self.relays.len().max(1))?.clone();
        if !self.was_lost
            && let Standing::Lost { checkpoints, .. } = &position.standing
            && !checkpoints.is_empty()
        {
            let host = relay.host();
            let checkpoint = checkpoints.iter().find(|checkpoint| checkpoint.host == host);
            self.session.events.lost(&host, checkpoint.map(|checkpoint| checkpoint.seq), checkpoint.is_some());
        }
        self.was_lost = is_lost;
        self.at = Some(at);
        Some(relay)
    }

    /// Reports how a connection ended, and decides how long to wait before the next.
    fn after(&mut self, outcome: Outcome) -> Duration {
        if !matches!(outcome, Outcome::Redis { .. } | Outcome::Foreign { .. } | Outcome::Database { .. }) {
            self.redis.succeed();
            self.redis_log = Failing::default();
        }
        let servers = self.session.events.servers().clone();
        match outcome {
            Outcome::Shutdown | Outcome::LeaseLost | Outcome::Paused | Outcome::Crowded { .. } => Duration::ZERO,
            Outcome::Reconnect => {
                self.session.events.reconnect("asked");
                Duration::ZERO
            }
            Outcome::Reset(_) => {
                self.session.events.reconnect("reset");
                self.relay.fail()
            }
            Outcome::Renewed => {
                self.session.events.reconnect("quiet");
                self.relay.succeed();
                Duration::ZERO
            }
            Outcome::Redis { reason, detail, is_answered } => {
                self.session.events.publish_refused(reason);
                let how = Circumstances { is_away: servers.redis.is_away(), is_unanswered: !is_answered };
                self.session.redis.failing(servers.redis.failure().unwrap_or_else(|| detail.clone()));
                let wait = self.redis.fail();
                match self.redis_log.failed(std::time::Instant::now(), how) {
                    Some(_) => warn!(reason, detail, wait_seconds = seconds(wait), "re-reading the cursor from redis"),
                    None => debug!(reason, detail, wait_seconds = seconds(wait), "re-reading the cursor from redis"),
                }
                wait
            }
            Outcome::Foreign { found, expected } => {
                self.session.events.publish_refused("cursor");
                let wait = self.foreign.fail();
                if self.foreign_log.permits() {
                    self.session.events.foreign_cursor(&found, &expected, self.foreign.failures());
                }
                self.session
                    .redis
                    .failing(format!("another program changed the cursor: found {found}, expected {expected}"));
                wait
            }
            Outcome::Database { detail } => {
                let how = Circumstances { is_away: false, is_unanswered: false };
                if self.database_log.failed(std::time::Instant::now(), how).is_some() {
                    error!(detail, "redis lost its data and the checkpoint cannot be read, waiting for postgresql");
                }
                self.session.checkpoint.failing(detail);
                self.database.fail()
            }
            Outcome::Relay { reason, detail, healthy } => {
                self.session.events.reconnect(reason);
                if healthy >= self.session.settings.relay.healthy_after {
                    self.relay.succeed();
                }
                let wait = pause(reason, healthy, &mut self.relay);
                let from =
                    self.at.and_then(|at| self.relays.get(at % self.relays.len().max(1))).map(ToString::to_string);
                if let Some(from) = &from {
                    servers.relay.moved(from);
                }
                match reason {
                    // What a frame did is told with the frame.
                    "oversized" => {}
                    "closed" | "failed" => servers.relay.lost_because(&detail),
                    _ => servers.relay.failed_because(&detail),
                }
                debug!(
                    relay = from,
                    reason,
                    detail,
                    wait_seconds = seconds(wait),
                    "relay connection ended, reconnecting"
                );
                let failover_after = self.session.settings.relay.failover_after.get();
                if self.relay.failures().is_multiple_of(failover_after) && self.relays.len() > 1 {
                    let at = self.at.map_or(0, |at| at + 1);
                    self.at = Some(at);
                    let to = self.relays.get(at % self.relays.len()).map(ToString::to_string);
                    error!(from, to, failures = self.relay.failures(), "failing over to the next relay");
                }
                wait
            }
        }
    }
}

/// Returns how long to wait after a connection to a relay ended, and counts the failure.
fn pause(reason: &str, healthy: Duration, backoff: &mut Backoff) -> Duration {
    match reason {
        UNREACHABLE => backoff.fail_within(NOT_THERE),
        // It restarts, or its proxy does: what it sent until then was well.
        "closed" | "failed" if healthy >= WELL => {
            let first = backoff.short_pause();
            backoff.fail().min(first)
        }
        _ => backoff.fail(),
    }
}

fn fresh((min, max): (Duration, Duration)) -> Backoff {
    Backoff::new(min, max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tired() -> Backoff {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        for _ in 0..20 {
            backoff.fail();
        }
        backoff
    }

    /// Returns the longest of many pauses after a long outage.
    fn longest(reason: &str, healthy: Duration) -> Duration {
        (0..1_000).map(|_| pause(reason, healthy, &mut tired())).max().unwrap_or_default()
    }

    #[test]
    fn a_relay_that_is_back_is_tried_within_seconds_and_one_that_answers_badly_is_spared() {
        let second = Duration::from_secs(1);
        assert!(longest("connect", Duration::ZERO) <= NOT_THERE);
        // After an hour of events, or after ten seconds.
        for healthy in [10, 3_600] {
            assert!(longest("closed", second * healthy) <= second);
            assert!(longest("failed", second * healthy) <= second);
        }
        for reason in ["refused", "closed", "failed", "unreadable", "said", "silent"] {
            assert!(longest(reason, Duration::ZERO) > second * 15, "{reason}");
        }
        let mut backoff = tired();
        pause("connect", Duration::ZERO, &mut backoff);
        assert_eq!(backoff.failures(), 21, "it counts towards the next relay");
    }
}
