//! What a relay serves, and how it behaves.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;

/// Where the frames come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Recording {
    /// The recording inside this crate, [`BUNDLED`](crate::BUNDLED).
    #[default]
    Bundled,
    /// A file of the same format; it is read into memory whole.
    File(PathBuf),
}

/// How fast events become live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rate {
    /// Every event up to `total` is there from the start, so that a client without a cursor waits at the tail; an endless
    /// relay's head is where its fastest reader is.
    #[default]
    Unlimited,
    /// Events become live evenly at this rate, an event at a time, from when the relay runs.
    PerSecond(NonZeroU32),
}

/// What a cursor beyond the head gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FutureCursor {
    /// An error frame `FutureCursor`, then a close, as a PDS does.
    #[default]
    Error,
    /// Live events whose seqs are below the cursor, and not a word, as indigo does.
    SilentLive,
}

/// What a cursor that is not an integer of at least 0 gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BadCursor {
    /// HTTP 400 in the place of the upgrade, as a relay does.
    #[default]
    Http400,
    /// An error frame `InvalidRequest`, then a close.
    ErrorFrame,
}

/// Which keys the commits are signed with: the replay's own, one for each account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signing {
    /// Those of secp256k1, as nearly all of the network.
    K256,
    /// Those of NIST P-256.
    P256,
    /// Some accounts have one, some the other.
    Both,
}

/// Events that became live one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// The position of the first one: how many events there were before.
    pub from: u64,
    /// When that one became live.
    pub since: Timestamp,
    /// How many more did so a second.
    pub rate: NonZeroU32,
}

impl Stretch {
    /// Returns when the event at a position becomes live, in microseconds since 1970.
    pub(crate) fn micros(&self, position: u64) -> i64 {
        let step = 1_000_000_000 / i128::from(self.rate.get());
        let nanos = (i128::from(position) - i128::from(self.from)) * step;
        self.since.as_microsecond().saturating_add(i64::try_from(nanos.div_euclid(1000)).unwrap_or(i64::MAX))
    }
}

/// Turns a frame, of which the seq is given, into what is served in its place; `None` leaves it. What it returns must depend on
/// its arguments alone: a frame may be asked for again.
pub type Alter = fn(u64, &[u8]) -> Option<Vec<u8>>;

/// Holds everything a relay is told before it binds.
///
/// The frames depend on `recording`, `total`, `start_seq`, `start_time`, `signing` and `alter` alone, and where `live_since` is given on it, `lived`,
/// `rate` and `backlog`: two relays that agree in these serve the same bytes.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to listen; port 0 takes a free one. Default `127.0.0.1:0`.
    pub address: SocketAddr,
    /// Where the frames come from. Default: the bundled recording.
    pub recording: Recording,
    /// Events there will ever be, the recording looping as often as needed; `None` is endless. Default `None`.
    pub total: Option<u64>,
    /// How fast events become live. Default: unlimited.
    pub rate: Rate,
    /// Events that already lie in the past when the relay starts. Without effect where all are there from the start. Default 0.
    pub backlog: u64,
    /// Events before the head that a cursor may still reach; `None` is all. Default `None`.
    pub window: Option<u64>,
    /// What a cursor beyond the head gets. Default: an error frame.
    pub future_cursor: FutureCursor,
    /// What a malformed cursor gets. Default: HTTP 400.
    pub bad_cursor: BadCursor,
    /// Events a client that once had caught up may fall behind a live clock before it is told `ConsumerTooSlow` and closed.
    /// Default 16,384.
    pub client_buffer: u64,
    /// Time between the pings sent to each client. Default 30 s.
    pub ping_interval: Duration,
    /// Bytes of prepared frames kept in memory; where all of `total` fits, all is prepared ahead. Default 256 MiB.
    pub prepared: u64,
    /// The seq of the first event, at least 1; `None` keeps the recorded one. Default `None`.
    pub start_seq: Option<u64>,
    /// The time of the first event, to whole seconds; all times and revs move with it. `None` keeps the recorded ones.
    /// Default `None`.
    pub start_time: Option<Timestamp>,
    /// When the event at `backlog` becomes live: every event and its records bear the time at which it becomes live at `rate`, so
    /// that a reader's lag means something. `None` leaves the times to `start_time`. Default `None`.
    pub live_since: Option<Timestamp>,
    /// How the events before `backlog` became live, in their order, so that they are served again as they were; where `live_since` is
    /// given. Those of which nothing is said are taken to have come at `rate`. Default: none.
    pub lived: Vec<Stretch>,
    /// What becomes of each frame before it is served, a seq of its own included; cursors and skips still go by the seq that
    /// it had. Default: nothing.
    pub alter: Option<Alter>,
    /// Signs every commit, those of loop 0 included, with keys of the replay's own. Some 60 µs a commit, once for each loop that is
    /// prepared. `None` leaves the signatures as recorded, which are wrong in every loop but the first. Default `None`.
    pub signing: Option<Signing>,
    /// Answers as the directory of the accounts and as their host too: `GET /DID`, `/DID/data`, `/DID/log`, `/export` and
    /// `com.atproto.sync.getRepoStatus`. Needs `signing`. An account of `did:web` has no document here. Default false.
    pub directory: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            recording: Recording::default(),
            total: None,
            rate: Rate::default(),
            backlog: 0,
            window: None,
            future_cursor: FutureCursor::default(),
            bad_cursor: BadCursor::default(),
            client_buffer: 16_384,
            ping_interval: Duration::from_secs(30),
            prepared: 256 << 20,
            start_seq: None,
            start_time: None,
            live_since: None,
            lived: Vec::new(),
            alter: None,
            signing: None,
            directory: false,
        }
    }
}

impl Settings {
    /// Turns these into the settings of the same host after it lost its sequence, for [`Fault::Restart`](crate::Fault::Restart): its
    /// events begin at `start_seq` and `start_time`, and a cursor from before gets live events without a word.
    ///
    /// Such a cursor hears something only where events become live: at an unlimited rate with a `total` nothing ever does.
    #[must_use]
    pub fn restarted(self, start_seq: u64, start_time: Timestamp) -> Self {
        let (start_seq, start_time) = (Some(start_seq), Some(start_time));
        Self { start_seq, start_time, future_cursor: FutureCursor::SilentLive, ..self }
    }
}
