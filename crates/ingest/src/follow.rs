//! Reads one connection after the other, for as long as the lease is held.

use std::time::Duration;

use penstock_core::backoff::Backoff;
use penstock_core::settings::RelayUrl;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::checkpoint::Standing;
use crate::outcome::Outcome;
use crate::position::Position;
use crate::pressure::Hold;
use crate::session::Session;
use crate::{Left, TELL_AGAIN};

/// The pauses after Redis failed.
const REDIS: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));

/// The pauses after PostgreSQL was needed and did not answer.
const DATABASE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// The pauses after something else wrote the cursor: it is not fought over.
const FOREIGN: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// How often it is looked at the longest whether another program still writes.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Decides which relay is read next, and when.
struct Follower<'a, 'kept> {
    session: &'a mut Session<'kept>,
    relays: Vec<RelayUrl>,
    /// Which relay; none before the first position.
    at: Option<usize>,
    /// Whether Redis was lost when last looked at.
    was_lost: bool,
    relay: Backoff,
    redis: Backoff,
    database: Backoff,
    foreign: Backoff,
    foreign_told: Option<Instant>,
    database_told: Option<Instant>,
    /// Whether entries of another program are gone by: at first, and once it was quiet.
    may_take_over: bool,
}

/// Follows the relays until the lease is no longer used.
pub(crate) async fn follow(session: &mut Session<'_>, cancel: &CancellationToken) -> Left {
    let settings = &session.settings.relay;
    let mut follower = Follower {
        relays: settings.urls.clone(),
        at: None,
        was_lost: false,
        relay: Backoff::new(settings.backoff_min, settings.backoff_max),
        redis: fresh(REDIS),
        database: fresh(DATABASE),
        foreign: fresh(FOREIGN),
        foreign_told: None,
        database_told: None,
        may_take_over: true,
        session,
    };
    follower.run(cancel).await
}

// === impl Follower ===

impl Follower<'_, '_> {
    async fn run(&mut self, cancel: &CancellationToken) -> Left {
        let pulse = self.session.pulse.clone();
        let mut anew = false;
        loop {
            let began = Instant::now();
            let outcome = tokio::select! {
                biased;
                () = cancel.cancelled() => return Left::Asked,
                ready = self.ready() => match ready {
                    Ok(Some((relay, position))) => Box::pin(self.session.run(&relay, position, anew, cancel)).await,
                    Ok(None) => return Left::Asked,
                    Err(outcome) => outcome,
                },
            };
            anew = matches!(outcome, Outcome::Reset);
            if began.elapsed() >= self.session.settings.relay.healthy_after {
                self.redis.succeed();
                self.foreign.succeed();
            }
            let wait = match outcome {
                Outcome::Asked => return Left::Asked,
                Outcome::LeaseLost => return Left::Lost,
                Outcome::Crowded { id } => {
                    tokio::select! {
                        () = cancel.cancelled() => return Left::Asked,
                        () = self.stand_by(id) => continue,
                    }
                }
                outcome => self.after(outcome),
            };
            tokio::select! {
                () = cancel.cancelled() => return Left::Asked,
                () = pulse.during(sleep(wait)) => {}
            }
        }
    }

    /// Waits until the stream may be written, and says where to read on; none where there is no relay.
    async fn ready(&mut self) -> Result<Option<(RelayUrl, Position)>, Outcome> {
        // Until what was found is kept nothing is trimmed, and a full stream would stay full.
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

    /// Waits until reading is not paused. Another program's entries may be what fills the stream, as they are not trimmed
    /// before they are gone by: so they are looked for meanwhile.
    async fn unpaused(&mut self) -> Result<(), Outcome> {
        let pulse = self.session.pulse.clone();
        while pulse.during(timeout(LOOK_AGAIN, self.session.unpaused())).await.is_err() {
            let seen = self.session.look("").await?;
            if let Some(id) = seen.foreign.filter(|_| !self.session.settings.ingest.shared_stream) {
                return Err(Outcome::Crowded { id });
            }
        }
        Ok(())
    }

    async fn position(&mut self) -> Result<Position, Outcome> {
        let position = self.session.position(self.may_take_over).await?;
        self.may_take_over = false;
        self.database.succeed();
        Ok(position)
    }

    /// Waits until another program that writes the stream has written nothing for the quiet time, neither entries nor the
    /// cursor. What tells its position stays in the stream.
    async fn stand_by(&mut self, first: String) {
        let quiet = self.session.settings.ingest.foreign_quiet;
        let pulse = self.session.pulse.clone();
        let began = Instant::now();
        let mut heard = began;
        let mut told: Option<Instant> = None;
        let mut latest = first;
        // What shows the other is not trimmed from here on, nor is its place ours to keep.
        if let Ok(id) = latest.parse() {
            self.session.hold.send_replace(Hold::From(id));
        }
        let mut before: Option<(String, String)> = None;
        while heard.elapsed() < quiet {
            if is_due(&mut told) {
                self.session.telemetry.publish_refused("foreign");
                self.session.telemetry.crowded(&latest, began.elapsed(), quiet);
            }
            let from = before.as_ref().map(|(last, _)| last.as_str()).unwrap_or_default();
            match self.session.look(from).await {
                Ok(seen) => {
                    let now = (seen.last().to_owned(), seen.position.fence.clone());
                    let moved_cursor = before.as_ref().is_some_and(|(_, cursor)| *cursor != now.1);
                    if let Some(id) = seen.foreign {
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
                // What is not known is not quiet.
                Err(_) => heard = Instant::now(),
            }
            self.session.redis.failing(format!("another program writes the stream, entry {latest} for one"));
            pulse.during(sleep((quiet / 8).min(LOOK_AGAIN))).await;
        }
        self.session.redis.ok();
        self.session.telemetry.alone(began.elapsed());
        self.may_take_over = true;
    }

    /// Chooses the relay: that of the position at first and when Redis is found lost; later the one that failing over led to.
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
            self.session.telemetry.lost(&host, checkpoint.map(|checkpoint| checkpoint.seq), checkpoint.is_some());
        }
        self.was_lost = is_lost;
        self.at = Some(at);
        Some(relay)
    }

    /// Tells how a connection ended, and decides how long to wait before the next.
    fn after(&mut self, outcome: Outcome) -> Duration {
        if !matches!(outcome, Outcome::Redis { .. } | Outcome::Foreign { .. } | Outcome::Database { .. }) {
            self.redis.succeed();
        }
        match outcome {
            Outcome::Asked | Outcome::LeaseLost | Outcome::Paused | Outcome::Crowded { .. } => Duration::ZERO,
            Outcome::Reconnect => {
                self.session.telemetry.reconnect("asked");
                Duration::ZERO
            }
            Outcome::Reset => {
                self.session.telemetry.reconnect("reset");
                self.relay.fail()
            }
            Outcome::Redis { reason, detail } => {
                self.session.telemetry.publish_refused(reason);
                self.session.redis.failing(detail.clone());
                let wait = self.redis.fail();
                warn!(reason, detail, ?wait, "position is in doubt, reading it anew");
                wait
            }
            Outcome::Foreign { found, expected } => {
                self.session.telemetry.publish_refused("cursor");
                let wait = self.foreign.fail();
                if is_due(&mut self.foreign_told) {
                    self.session.telemetry.foreign_cursor(&found, &expected, self.foreign.failures());
                }
                self.session.redis.failing(format!("something else wrote the cursor: {found} instead of {expected}"));
                wait
            }
            Outcome::Database { detail } => {
                if is_due(&mut self.database_told) {
                    error!(detail, "redis is lost and the checkpoint cannot be read, waiting for postgresql");
                }
                self.session.checkpoint.failing(detail);
                self.database.fail()
            }
            Outcome::Relay { reason, detail, healthy } => {
                self.session.telemetry.reconnect(reason);
                if healthy >= self.session.settings.relay.healthy_after {
                    self.relay.succeed();
                }
                let wait = self.relay.fail();
                let from =
                    self.at.and_then(|at| self.relays.get(at % self.relays.len().max(1))).map(ToString::to_string);
                warn!(relay = from, reason, detail, ?wait, "connection to the relay ended");
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

fn fresh((min, max): (Duration, Duration)) -> Backoff {
    Backoff::new(min, max)
}

/// Says whether it is time to tell something again, and notes that it is told.
fn is_due(told: &mut Option<Instant>) -> bool {
    let is_due = told.is_none_or(|at| at.elapsed() >= TELL_AGAIN);
    if is_due {
        *told = Some(Instant::now());
    }
    is_due
}
