//! What a relay may do wrong, and the desk where each connection hears of it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::Instant;

use crate::host::Host;
use crate::settings::Settings;

/// Names a way in which a relay misbehaves once; see [`Handle::inject`](crate::Handle::inject).
///
/// Times are cut to a day.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Every connection gets a close frame (1001) behind the frame that is being sent.
    Close,
    /// Every connection ends in the middle of a frame, without a close frame.
    Cut,
    /// No data comes for so long, then everything that became live meanwhile. The connections stay open, and pings are sent
    /// and answered; connections made meanwhile are upgraded, and as silent.
    Stall(Duration),
    /// Nothing comes for so long, not even a ping or its answer, as if the process were stopped, maybe in the middle of a
    /// frame. Connections made meanwhile are accepted, but their requests are answered only afterwards.
    Freeze(Duration),
    /// Every connection gets one binary message that is not CBOR; then its events go on as if nothing was. A connection made
    /// later gets none.
    Garbage,
    /// Every connection gets the error frame `ConsumerTooSlow`, then a close (1008).
    ErrorFrame,
    /// The last so many events that were sent on a connection are sent on it again, byte for byte; then it goes on. Where
    /// fewer were sent on it, those are.
    Repeat(u64),
    /// The next so many events that no client has taken are never sent to anybody, whatever cursor is asked for: the seqs jump.
    /// [`Handle::skipped`](crate::Handle::skipped) names them.
    Skip(u64),
    /// Every connection gets a close frame (1001), and every request is answered 503 for so long.
    Refuse(Duration),
    /// The host begins its sequence again without a word. Every connection gets a close frame (1001); from then on the relay serves
    /// the frames of these settings, by a clock that starts now, and none of the old ones, nor are their skips known any more.
    /// `address` is without effect. See [`Settings::restarted`].
    Restart(Box<Settings>),
}

/// Bytes that are not CBOR: no item begins with a break.
pub(crate) const GARBAGE: [u8; 64] = [0xff; 64];

/// The longest a fault lasts.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// When something ends that lasts so long from now.
pub(crate) fn end_of(time: Duration) -> Instant {
    Instant::now() + time.min(LONGEST)
}

/// What a connection is told to do.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Order {
    Close,
    Cut,
    Stall(Instant),
    Freeze(Instant),
    Garbage,
    TooSlow,
    Repeat(u64),
}

/// Holds what a new connection meets, and a way to each open one. Both change together: a connection either hears of a fault or
/// begins after it.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) host: Arc<Host>,
    members: Vec<UnboundedSender<Order>>,
    stalled: Option<Instant>,
    frozen: Option<Instant>,
    refused: Option<Instant>,
}

/// What a request meets.
#[derive(Debug)]
pub(crate) enum Admission {
    /// No answer until then.
    Frozen(Instant),
    /// A 503.
    Refused,
    /// The relay, as far as the request allows.
    Member(Member),
}

/// What a connection is given of the relay.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) host: Arc<Host>,
    pub(crate) orders: UnboundedReceiver<Order>,
    /// No data before then.
    pub(crate) stalled: Option<Instant>,
}

impl Desk {
    pub(crate) fn new(host: Arc<Host>) -> Self {
        Self { host, members: Vec::new(), stalled: None, frozen: None, refused: None }
    }

    /// Decides what a request meets; from then on a member hears of every fault.
    pub(crate) fn admit(&mut self) -> Admission {
        let now = Instant::now();
        if let Some(until) = self.frozen.filter(|&until| until > now) {
            return Admission::Frozen(until);
        }
        if self.refused.is_some_and(|until| until > now) {
            return Admission::Refused;
        }
        let (member, orders) = unbounded_channel();
        self.members.retain(|member| !member.is_closed());
        self.members.push(member);
        Admission::Member(Member { host: Arc::clone(&self.host), orders, stalled: self.stalled })
    }

    /// Tells every connection; returns how many there are.
    pub(crate) fn tell(&mut self, order: Order) -> usize {
        self.members.retain(|member| member.send(order).is_ok());
        self.members.len()
    }

    pub(crate) fn stall(&mut self, until: Instant) -> usize {
        self.stalled = self.stalled.max(Some(until));
        self.tell(Order::Stall(until))
    }

    pub(crate) fn freeze(&mut self, until: Instant) -> usize {
        self.frozen = self.frozen.max(Some(until));
        self.tell(Order::Freeze(until))
    }

    pub(crate) fn refuse(&mut self, until: Instant) -> usize {
        self.refused = self.refused.max(Some(until));
        self.tell(Order::Close)
    }

    /// Puts another host in the place of this one; its clock runs if this one's does.
    pub(crate) fn restart(&mut self, host: Arc<Host>) -> usize {
        if self.host.has_started() {
            host.start();
        }
        self.host = host;
        self.tell(Order::Close)
    }
}
