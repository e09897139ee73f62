//! The frames in stock: made on demand, each chunk once, and the most recently used ones kept.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;

use crate::accounts;
use crate::directory::Directory;
use crate::edition::{Chunk, Edition, Times};
use crate::error::Error;
use crate::names::Names;
use crate::recording;
use crate::settings::{Alter, Rate, Settings, Stretch};
use crate::template::Templates;
use crate::timeline::Timeline;

/// A chunk has about this many bytes: a reader's stride, and the grain of what is kept.
const CHUNK_BYTES: usize = 2 << 20;
/// Loops whose values are kept.
const EDITIONS: usize = 4;

/// Makes and keeps the frames of every loop.
#[derive(Debug)]
pub(crate) struct Stock {
    templates: Templates,
    timeline: Timeline,
    total: Option<u64>,
    alter: Option<Alter>,
    /// Which frames of a loop each of its chunks holds.
    parts: Vec<Range<usize>>,
    pace: Pace,
    editions: Shelf<Edition>,
    chunks: Shelf<Chunk>,
    directory: Option<Directory>,
}

/// How times go on from loop to loop.
#[derive(Clone, Debug)]
enum Pace {
    /// Seconds that loop 0 is moved by, and each loop against the one before.
    Moved { start: i64, step: i64 },
    /// By the clock: the stretches in their order, at least one.
    Live(Vec<Stretch>),
}

impl Stock {
    /// Reads the recording that the settings name.
    ///
    /// # Errors
    /// Where a setting is out of range, the recording cannot be read, or one of its frames cannot be served.
    pub(crate) fn new(settings: &Settings) -> Result<Self, Error> {
        check(settings)?;
        let frames = recording::read(&settings.recording)?;
        let refused = |(frame, source)| Error::ParseFrame { frame, source };
        let accounts = settings.directory.then(|| accounts::read(&frames).map_err(refused)).transpose()?;
        let templates = Templates::new(&frames, settings.signing, |salt| match &accounts {
            Some(accounts) => Names::reversible(salt, accounts.iter().map(|account| account.did.clone())),
            None => Names::hashed(salt),
        })?;
        let directory = accounts.zip(settings.signing).map(|(accounts, signing)| Directory::new(accounts, signing));
        let mut parts: Vec<Range<usize>> = Vec::new();
        let mut size = usize::MAX;
        for (place, segments) in templates.frames.iter().enumerate() {
            if size >= CHUNK_BYTES {
                parts.push(place..place);
                size = 0;
            }
            size += templates.segments[segments.clone()].iter().map(|segment| segment.bytes.len()).sum::<usize>();
            if let Some(part) = parts.last_mut() {
                part.end = place + 1;
            }
        }
        let largest = templates.bytes.len().div_ceil(parts.len().max(1)).max(1) as u64;
        Ok(Self {
            timeline: Timeline::new(&templates.seqs, settings.start_seq),
            total: settings.total,
            alter: settings.alter,
            parts,
            pace: Pace::new(settings, &templates),
            editions: Shelf::new(EDITIONS),
            chunks: Shelf::new(usize::try_from(settings.prepared / largest).unwrap_or(usize::MAX).max(EDITIONS)),
            templates,
            directory,
        })
    }

    pub(crate) fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    /// What answers as the directory, if anything does.
    pub(crate) fn directory(&self) -> Option<&Directory> {
        self.directory.as_ref()
    }

    /// What the DIDs are called in each loop.
    pub(crate) fn names(&self) -> &Names {
        &self.templates.names
    }

    /// When the event at this place of a loop happened, milliseconds since 1970.
    pub(crate) fn milli(&self, round: u64, place: usize) -> i64 {
        let recorded = self.templates.millis.get(place).copied().unwrap_or_default();
        self.pace.milli(round, self.timeline.length(), place, recorded)
    }

    /// What a recorded rev is in a loop.
    pub(crate) fn rev(&self, round: u64, rev: u64) -> Option<u64> {
        self.edition(round).rev(&self.templates, rev)
    }

    fn edition(&self, round: u64) -> Arc<Edition> {
        let times = || self.pace.times(round, self.timeline.length());
        self.editions.get(round, || Edition::new(&self.templates, round, &times()))
    }

    /// How many chunks to make ahead: all there will be if they can be kept, else the first few.
    pub(crate) fn ahead(&self) -> u64 {
        let last = self.total.map(|total| total.checked_sub(1).map_or(0, |last| self.number(last) + 1));
        last.filter(|&all| all <= self.chunks.capacity as u64).unwrap_or(EDITIONS as u64)
    }

    /// The number of the chunk that holds the event at `position`.
    pub(crate) fn number(&self, position: u64) -> u64 {
        let length = self.timeline.length();
        let place = (position % length) as usize;
        let part = self.parts.partition_point(|part| part.end <= place);
        position / length * self.parts.len() as u64 + part as u64
    }

    /// The chunk of this number, if it is in stock.
    pub(crate) fn ready(&self, number: u64) -> Option<Arc<Chunk>> {
        self.chunks.ready(number)
    }

    /// The chunk of this number, made now where it is not in stock: some milliseconds of work.
    pub(crate) fn make(&self, number: u64) -> Arc<Chunk> {
        let parts = self.parts.len() as u64;
        let (round, part) = (number / parts, (number % parts) as usize);
        self.chunks.get(number, || {
            self.edition(round).print(&self.templates, &self.timeline, self.parts[part].clone(), self.alter)
        })
    }
}

impl Pace {
    fn new(settings: &Settings, templates: &Templates) -> Self {
        match (settings.live_since, settings.rate) {
            (Some(since), Rate::PerSecond(rate)) => {
                let lived = settings.lived.iter().copied().filter(|lived| lived.from < settings.backlog);
                Self::Live(lived.chain([Stretch { from: settings.backlog, since, rate }]).collect())
            }
            _ => {
                let first = templates.first_second;
                let start = settings.start_time.map_or(0, |time| time.as_second().saturating_sub(first));
                Self::Moved { start, step: templates.seconds }
            }
        }
    }

    fn times(&self, round: u64, length: u64) -> Times {
        match self {
            Self::Moved { .. } => Times::Moved(self.moved(round)),
            Self::Live(stretches) => Times::Live(
                (round * length..(round + 1) * length).map(|position| micros(stretches, position)).collect(),
            ),
        }
    }

    /// When an event happens that was recorded at this time, in milliseconds since 1970.
    fn milli(&self, round: u64, length: u64, place: usize, recorded: i64) -> i64 {
        match self {
            Self::Moved { .. } => recorded.saturating_add(self.moved(round).saturating_mul(1000)),
            Self::Live(stretches) => micros(stretches, round * length + place as u64).div_euclid(1000),
        }
    }

    /// By how many seconds a loop is moved.
    fn moved(&self, round: u64) -> i64 {
        let Self::Moved { start, step } = self else { return 0 };
        i64::try_from(round).unwrap_or(i64::MAX).saturating_mul(*step).saturating_add(*start)
    }
}

fn micros(stretches: &[Stretch], position: u64) -> i64 {
    let stretch = stretches.iter().rfind(|stretch| stretch.from <= position).or(stretches.first());
    stretch.map_or(0, |stretch| stretch.micros(position))
}

fn check(settings: &Settings) -> Result<(), Error> {
    let refused = |field, value: &dyn std::fmt::Display, allowed| {
        Err(Error::Setting { field, value: value.to_string(), allowed })
    };
    match (settings.start_seq, settings.start_time) {
        (Some(seq), _) if !(1..1 << 53).contains(&seq) => refused("start_seq", &seq, "1 to 2^53 - 1"),
        (_, Some(time)) if !START_SECONDS.contains(&time.as_second()) => {
            refused("start_time", &time, "1980-01-01 to 2100-01-01")
        }
        _ if settings.directory && settings.signing.is_none() => {
            refused("directory", &"true", "false where signing is not given: a document without its key is of no use")
        }
        _ if settings.live_since.is_some() && settings.rate == Rate::Unlimited => {
            refused("rate", &"unlimited", "events a second where live_since is given")
        }
        _ if settings.ping_interval.is_zero() => refused("ping_interval", &"0", "more than 0"),
        _ => Ok(()),
    }
}

/// 1980 to 2100: revs hold times from 1970 on, and loops move on from the start.
const START_SECONDS: Range<i64> = 315_532_800..4_102_444_800;

/// Iterates over the frames that a relay of the same settings serves, from the first event to the last.
#[derive(Debug)]
pub struct Frames {
    stock: Stock,
    chunk: Option<Arc<Chunk>>,
    position: u64,
}

/// Returns the very frames that a relay with these settings serves; endless where `total` is `None`.
///
/// # Errors
/// Where a setting is out of range, the recording cannot be read, or one of its frames cannot be served.
pub fn frames(settings: &Settings) -> Result<Frames, Error> {
    Ok(Frames { stock: Stock::new(settings)?, chunk: None, position: 0 })
}

impl Iterator for Frames {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.stock.total.is_some_and(|total| self.position >= total) {
            return None;
        }
        let chunk = match self.chunk.take() {
            Some(chunk) if self.position < chunk.end() => chunk,
            _ => self.stock.make(self.stock.number(self.position)),
        };
        let frame = chunk.frame(self.position);
        self.chunk = Some(chunk);
        self.position += 1;
        frame
    }
}

/// Keeps the most recently used of many things; each is made once, by whoever asks first.
#[derive(Debug)]
struct Shelf<T> {
    capacity: usize,
    kept: Mutex<Kept<T>>,
}

#[derive(Debug)]
struct Kept<T> {
    uses: u64,
    /// Each thing, and the use that was its latest.
    things: HashMap<u64, (u64, Place<T>)>,
}

/// Where a thing stands once somebody has made it.
type Place<T> = Arc<OnceLock<Arc<T>>>;

impl<T> Shelf<T> {
    fn new(capacity: usize) -> Self {
        Self { capacity, kept: Mutex::new(Kept { uses: 0, things: HashMap::new() }) }
    }

    fn ready(&self, number: u64) -> Option<Arc<T>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.uses += 1;
        let now = kept.uses;
        let (used, thing) = kept.things.get_mut(&number)?;
        *used = now;
        thing.get().cloned()
    }

    fn get(&self, number: u64, make: impl FnOnce() -> T) -> Arc<T> {
        let thing = {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.uses += 1;
            let now = kept.uses;
            if kept.things.len() >= self.capacity
                && !kept.things.contains_key(&number)
                && let Some(oldest) = kept.things.iter().min_by_key(|(_, (used, _))| *used).map(|(number, _)| *number)
            {
                kept.things.remove(&oldest);
            }
            let (used, thing) = kept.things.entry(number).or_default();
            *used = now;
            Arc::clone(thing)
        };
        Arc::clone(thing.get_or_init(|| Arc::new(make())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shelf_makes_once_and_forgets_the_least_recently_used() {
        let shelf = Shelf::new(2);
        assert_eq!(*shelf.get(1, || 10), 10);
        assert_eq!(*shelf.get(2, || 20), 20);
        assert_eq!(*shelf.get(1, || 99), 10);
        shelf.get(3, || 30);
        assert_eq!(shelf.ready(1).as_deref(), Some(&10));
        assert_eq!(shelf.ready(2), None);
    }

    #[test]
    fn forgotten_chunks_are_made_again_the_same() {
        let stock = Stock::new(&Settings { prepared: 0, ..Settings::default() }).unwrap();
        let before = stock.make(1);
        for number in 2..20 {
            stock.make(number);
        }
        assert!(stock.ready(1).is_none());
        assert_eq!(stock.make(1).bytes, before.bytes);
    }

    #[test]
    fn altered_frames_stand_in_the_place_of_what_they_were() {
        let short = |seq: u64, frame: &[u8]| seq.is_multiple_of(3).then(|| frame[..7].to_vec());
        let settings = Settings { total: Some(900), ..Settings::default() };
        let altered = frames(&Settings { alter: Some(short), ..settings.clone() }).unwrap();
        let stock = Stock::new(&settings).unwrap();
        for (position, (altered, original)) in (0..).zip(altered.zip(frames(&settings).unwrap())) {
            let is_short = stock.timeline().newest(position + 1).is_multiple_of(3);
            assert_eq!(altered, if is_short { original.slice(..7) } else { original }, "position {position}");
        }
    }

    #[test]
    fn out_of_range_settings_are_refused_by_name() {
        let refused = frames(&Settings { start_seq: Some(0), ..Settings::default() }).unwrap_err();
        assert_eq!(refused.to_string(), "start_seq is 0; allowed: 1 to 2^53 - 1");
        let time = Some("1970-01-01T00:00:00Z".parse().unwrap());
        assert!(frames(&Settings { start_time: time, ..Settings::default() }).is_err());
    }
}
