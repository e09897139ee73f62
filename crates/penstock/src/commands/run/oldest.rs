//! What reading a relay from its oldest event will cost.

use std::fmt;
use std::time::Duration;

use futures_util::StreamExt;
use jiff::Timestamp;
use penstock_core::settings::RelayUrl;
use penstock_wire::{Event, Frame, Limits, Sync};
use tokio::time::timeout;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;

use super::folder::shown;

/// How long a relay is listened to for one event.
const SAMPLE: Duration = Duration::from_secs(10);

/// Bytes of disk that an event takes in Redis and PostgreSQL, about: as measured with the bundled recording.
const BYTES_AN_EVENT: u64 = 5_000;

/// Events a second that a laptop applies, about.
const EVENTS_A_SECOND: u64 = 3_000;

/// An event of the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    seq: u64,
    time: Timestamp,
}

/// What the events that a relay still has come to; it displays as a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cost {
    events: u64,
    /// How long ago the oldest event was.
    age: Duration,
}

/// Asks a relay for its oldest and its next event; none where it has none to show within 10 s each.
pub(super) async fn cost(relay: &RelayUrl) -> Option<Cost> {
    let (oldest, next) = tokio::join!(first(relay, Some(0)), first(relay, None));
    Some(between(oldest?, next?))
}

fn between(oldest: Place, next: Place) -> Cost {
    let age = next.time.duration_since(oldest.time);
    Cost { events: next.seq.saturating_sub(oldest.seq), age: Duration::try_from(age).unwrap_or_default() }
}

async fn first(relay: &RelayUrl, cursor: Option<u64>) -> Option<Place> {
    let listen = async {
        let (mut socket, _) = connect_async(relay.subscribe(cursor).as_str()).await.ok()?;
        loop {
            let Message::Binary(frame) = socket.next().await?.ok()? else { continue };
            if let Ok(
                Frame::Event(Event { seq, time: Some(time), .. }) | Frame::Sync(Sync { seq, time: Some(time), .. }),
            ) = penstock_wire::decode(&frame, &Limits::default())
            {
                return Some(Place { seq, time });
            }
        }
    };
    timeout(SAMPLE, Box::pin(listen)).await.ok().flatten()
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { events, age } = self;
        let (age, reading) = (hours(age.as_secs()), hours(events / EVENTS_A_SECOND));
        let bytes = shown(events.saturating_mul(BYTES_AN_EVENT));
        write!(f, "about {events} events from the last {age}: roughly {bytes} of disk and {reading} to catch up")
    }
}

/// Writes seconds as hours, to a digit behind the point.
fn hours(seconds: u64) -> String {
    let hours = seconds as f64 / 3600.0;
    if hours < 0.1 { "less than 0.1 hours".to_owned() } else { format!("{hours:.1} hours") }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use penstock_core::settings::Value;
    use penstock_replay::{Rate, Settings, bind};
    use tokio_util::sync::CancellationToken;

    use super::*;

    #[test]
    fn events_gigabytes_and_hours_are_told() {
        let oldest = Place { seq: 1_000, time: "2026-01-01T00:00:00Z".parse().unwrap() };
        let next = Place { seq: 108_001_000, time: "2026-01-04T00:00:00Z".parse().unwrap() };
        assert_eq!(
            between(oldest, next).to_string(),
            "about 108000000 events from the last 72.0 hours: roughly 540 GB of disk and 10.0 hours to catch up"
        );
        assert_eq!(between(next, oldest).events, 0, "a host that counts anew");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_relay_is_asked_for_its_ends_and_one_that_is_away_is_unknown() {
        let rate = Rate::PerSecond(NonZeroU32::new(100).unwrap());
        let settings = Settings { rate, backlog: 5_000, live_since: Some(Timestamp::now()), ..Settings::default() };
        let relay = bind(settings).await.unwrap();
        let url = RelayUrl::parse(&format!("ws://{}", relay.local_addr())).unwrap();
        let cancel = CancellationToken::new();
        let running = tokio::spawn(relay.run(cancel.clone()));
        let cost = cost(&url).await.unwrap();
        assert!((5_000..6_000).contains(&cost.events) && (50..60).contains(&cost.age.as_secs()), "{cost:?}");
        cancel.cancel();
        running.await.unwrap().unwrap();
        assert_eq!(super::cost(&url).await, None);
    }
}
