//! The status line, and what of it has to be asked for.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fred::clients::Client;
use fred::interfaces::{HashesInterface, StreamsInterface};
use penstock_core::dead_letter::Author;
use penstock_core::keys::Keys;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{interval, timeout};

use super::folder::{shown, size};

/// How long Redis may take to say how many rows and letters there are.
const ANSWER: Duration = Duration::from_millis(800);

/// After how many looks at Redis, one a second, the data folder is measured anew.
const MEASURED: u64 = 5;

/// One status line.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Status {
    pub(super) rate: f64,
    pub(super) lag: Option<Duration>,
    pub(super) waiting: Option<u64>,
    pub(super) applied: u64,
    pub(super) seen: Seen,
    /// The most bytes of the data folder.
    pub(super) bound: u64,
}

/// What was seen last; none while unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) rows: Option<u64>,
    pub(super) letters: Option<u64>,
    pub(super) disk: Option<u64>,
}

/// Looks at Redis and the data folder, until dropped.
pub(super) struct Looks {
    seen: Arc<Mutex<Seen>>,
    _tasks: JoinSet<()>,
}

// === impl Status ===

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
        let lag = self.lag.map_or_else(|| "-".to_owned(), |lag| format!("{:.1} s", lag.as_secs_f64()));
        write!(
            f,
            "{:>7.0} events/s   lag {lag:>7}   waiting {:>7}   applied {:>9}   rows {:>9}   letters {}   disk {} of {}",
            self.rate,
            number(self.waiting),
            self.applied,
            number(self.seen.rows),
            number(self.seen.letters),
            self.seen.disk.map_or_else(|| "-".to_owned(), shown),
            shown(self.bound),
        )
    }
}

// === impl Looks ===

impl Looks {
    /// Begins to look.
    pub(super) fn start(client: Client, keys: Keys, folder: &Path) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let mut tasks = JoinSet::new();
        tasks.spawn(look(client, keys, folder.to_owned(), Arc::clone(&seen)));
        Self { seen, _tasks: tasks }
    }

    /// Returns what was seen last.
    pub(super) fn seen(&self) -> Seen {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn look(client: Client, keys: Keys, folder: PathBuf, seen: Arc<Mutex<Seen>>) {
    let mut tick = interval(Duration::from_secs(1));
    for turn in 0_u64.. {
        tick.tick().await;
        let (rows, letters) = timeout(ANSWER, counts(&client, &keys)).await.unwrap_or_default();
        let measured = if turn.is_multiple_of(MEASURED) {
            let folder = folder.clone();
            spawn_blocking(move || size(&folder)).await.ok()
        } else {
            None
        };
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        let disk = measured.or(seen.disk);
        *seen = Seen { rows, letters, disk };
    }
}

/// Asks how many rows the tables have, and how many letters there are.
async fn counts(client: &Client, keys: &Keys) -> (Option<u64>, Option<u64>) {
    let rows: Result<Vec<i64>, _> = client.hvals(keys.record_counts()).await;
    let rows = rows.ok().filter(|rows| !rows.is_empty()).map(|rows| {
        // A field may be below 0 for a moment: what is gone was published before what came.
        rows.into_iter().map(|rows| u64::try_from(rows).unwrap_or_default()).sum()
    });
    let letters = async |author| -> Option<u64> { client.xlen(keys.letters_of(author)).await.ok() };
    let letters = letters(Author::Worker).await.zip(letters(Author::Ingest).await);
    (rows, letters.map(|(entries, frames)| entries + frames))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unknown_is_a_dash_and_never_a_number() {
        let status = Status { rate: 481.6, applied: 949, bound: 20_000_000_000, ..Status::default() };
        let words: Vec<String> = status.to_string().split_whitespace().map(str::to_owned).collect();
        assert_eq!(words.join(" "), "482 events/s lag - waiting - applied 949 rows - letters - disk - of 20 GB");
        let seen = Seen { rows: Some(2053), letters: Some(0), disk: Some(85_000_000) };
        let status = Status { lag: Some(Duration::from_millis(40)), waiting: Some(3), seen, ..status };
        let words: Vec<String> = status.to_string().split_whitespace().map(str::to_owned).collect();
        assert_eq!(
            words.join(" "),
            "482 events/s lag 0.0 s waiting 3 applied 949 rows 2053 letters 0 disk 85 MB of 20 GB"
        );
    }
}
