//! What a batch does to the record tables, decided from its changes and from what exists: pure.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use penstock_core::stream::StreamId;

use super::existing::{Existing, Place, Standing, Waiting};
use super::kept::Kept;
use super::parsed::{Change, What};
use super::row::{Pair, Row};
use super::table::{Count, Table, repo_of};
use super::version::{Stamp, Verdict, Version};

/// Everything that a batch writes to the record tables, and to Penstock's own tables beside them.
///
/// A record stands in one place as a row and may stand in `penstock.records` besides; or it waits for a pair that another
/// record holds; or it is gone. What a change does in each of the four places:
///
/// | the change             | its table        | `shadows`    | `kept`            | `tombstones` |
/// |------------------------|------------------|--------------|-------------------|--------------|
/// | put, gets its pair     | insert or update | gone         | set, else gone    | gone         |
/// | put, another has it    | gone             | set          | set, else gone    | gone         |
/// | put, no row says it    | gone             | gone         | set               | gone         |
/// | delete                 | gone             | gone         | gone              | set          |
/// | sweep                  | gone             | gone         | gone              | –            |
/// | the same once more     | again            | again        | again             | set          |
///
/// "Gone" only where something stands. Two more rows follow from a pair that changes hands: whoever held it is demoted, which
/// copies its row to the shadows; and the best of those that wait takes a pair that became free, which ends its wait.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Plan<'b, 'a> {
    pub(crate) tables: BTreeMap<Table, Writes<'b, 'a>>,
    pub(crate) counts: Counts,
    /// The places of records that came, changed or went.
    pub(crate) pairs: Vec<Pair>,
    /// Records that wait for their pair, by URI.
    pub(crate) shadows: Edits<(Pair, Version, Cow<'b, Row<'a>>)>,
    /// Records that stand in `penstock.records`, by key.
    pub(crate) kept: Edits<(Version, &'b Kept<'a>)>,
    /// Records that are gone, by URI. One that goes again is set again: its rev stays.
    pub(crate) tombstones: Edits<Version>,
}

/// What changes in one of Penstock's own tables. A key may be both gone and set: it goes before it comes.
#[derive(Debug, PartialEq)]
pub(crate) struct Edits<T> {
    pub(crate) gone: BTreeSet<String>,
    pub(crate) set: BTreeMap<String, T>,
    /// What came again, and the stamps that they get.
    pub(crate) again: BTreeMap<String, Stamp>,
}

/// What changes in one table; each kind sorted by key.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Writes<'b, 'a> {
    /// Rows that give up their pair: they are copied to the shadows, then deleted.
    pub(crate) demoted: BTreeSet<String>,
    pub(crate) gone: BTreeSet<String>,
    pub(crate) updates: BTreeMap<String, (Version, Cow<'b, Row<'a>>)>,
    pub(crate) inserts: BTreeMap<String, (Version, Cow<'b, Row<'a>>)>,
    /// Rows that came again, and the stamps that they get.
    pub(crate) again: BTreeMap<String, Stamp>,
}

/// What is added to the counts of a post, by [`Count`].
pub(crate) type Deltas = [i64; Count::NUMBER];

/// What is added to the counts of each post.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts(BTreeMap<String, Deltas>);

/// Records that compete for one pair.
#[derive(Default)]
struct Contest<'b, 'a> {
    /// The row that held the pair and changes or goes in this batch.
    vacated: Option<String>,
    arrivals: Vec<(&'b str, Version, &'b Row<'a>)>,
}

/// A record that competes for a pair.
enum Candidate<'c, 'b, 'a> {
    Holder(&'c str, &'c Version),
    Arrival(&'b str, &'c Version, &'b Row<'a>),
    Waiting(&'c Waiting),
}

/// Decides what becomes of each changed record, of those that share a pair with one, and of the counts.
pub(crate) fn decide<'b, 'a>(
    changes: BTreeMap<&'b str, Change<'b, 'a>>,
    seen: &Existing,
    deleted_through: impl Fn(&str) -> Option<StreamId>,
) -> Plan<'b, 'a> {
    let mut plan = Plan::default();
    let mut contests: BTreeMap<Pair, Contest<'b, 'a>> = BTreeMap::new();
    for (uri, Change { op, version, settles }) in changes {
        let standing = seen.standing.get(uri).map_or(&[][..], Vec::as_slice);
        let through = deleted_through(op.repo);
        if let What::Sweep = op.what {
            let gone = standing.iter().filter(|s| s.place != Place::Tombstone && s.version.is_gone(through));
            plan.vacate(uri, gone, None, &mut contests);
            continue;
        }
        match verdict(&version, settles, standing, through) {
            Verdict::Older => {}
            Verdict::Again => plan.again(uri, &version, standing, through),
            Verdict::Newer => match &op.what {
                What::Sweep => {}
                What::Delete => {
                    plan.vacate(uri, standing.iter(), None, &mut contests);
                    plan.tombstones.set.insert(uri.to_owned(), version);
                }
                What::Keep => {
                    plan.vacate(uri, standing.iter(), None, &mut contests);
                    plan.stand(uri, &version, op.kept.as_ref(), standing);
                }
                What::Put(row) => {
                    let stays = plan.vacate(uri, standing.iter(), Some(row), &mut contests);
                    plan.stand(uri, &version, op.kept.as_ref(), standing);
                    match row.pair() {
                        Some(pair) => contests.entry(pair).or_default().arrivals.push((uri, version, row)),
                        None => plan.write(uri, version, Cow::Borrowed(row), stays),
                    }
                }
            },
        }
    }
    for (pair, contest) in contests {
        plan.award(&pair, &contest, seen, &deleted_through);
        plan.pairs.push(pair);
    }
    plan
}

/// Compares a change with everything that stands and that no deleted account took. Where it `settles` its rev, whatever else stands
/// at the same one gives way.
pub(crate) fn verdict(version: &Version, settles: bool, standing: &[Standing], through: Option<StreamId>) -> Verdict {
    let alive = standing.iter().filter(|s| !s.version.is_gone(through));
    let mut verdict = Verdict::Newer;
    for standing in alive {
        match version.against(&standing.version) {
            Verdict::Newer => {}
            Verdict::Again | Verdict::Older if settles && version.has_rev_of(&standing.version) => {}
            Verdict::Again => verdict = Verdict::Again,
            Verdict::Older => return Verdict::Older,
        }
    }
    verdict
}

// === impl Plan ===

impl<'b, 'a> Plan<'b, 'a> {
    fn table(&mut self, table: Table) -> &mut Writes<'b, 'a> {
        self.tables.entry(table).or_default()
    }

    /// Clears what exists under a URI, and returns whether `next` can replace an existing row in place.
    fn vacate<'s>(
        &mut self,
        uri: &str,
        standing: impl Iterator<Item = &'s Standing>,
        next: Option<&Row<'_>>,
        contests: &mut BTreeMap<Pair, Contest<'b, 'a>>,
    ) -> bool {
        let mut stays = false;
        for Standing { place, pair, counted, .. } in standing {
            match (place, pair) {
                (Place::Tombstone, _) => {}
                (Place::Shadow, _) => {
                    self.shadows.gone.insert(uri.to_owned());
                }
                (Place::Kept, _) => {
                    self.kept.gone.insert(uri.to_owned());
                }
                // Whether the row changes or goes is known when the pair is awarded.
                (Place::Row(_), Some(pair)) => contests.entry(pair.clone()).or_default().vacated = Some(uri.to_owned()),
                (Place::Row(table), None) => {
                    self.counts.add(*table, counted.as_deref(), -1);
                    if next.is_some_and(|row| row.table == *table) {
                        stays = true;
                    } else {
                        let key = table.key_of(uri).into_owned();
                        self.table(*table).gone.insert(key);
                    }
                }
            }
        }
        stays
    }

    /// Takes away the tombstone of a record that stands, and keeps what no row says of it.
    fn stand(&mut self, uri: &str, version: &Version, kept: Option<&'b Kept<'a>>, standing: &[Standing]) {
        if standing.iter().any(|s| s.place == Place::Tombstone) {
            self.tombstones.gone.insert(uri.to_owned());
        }
        if let Some(kept) = kept {
            self.kept.gone.remove(uri);
            self.kept.set.insert(uri.to_owned(), (version.clone(), kept));
        }
    }

    /// Writes a row, over the one that stands where there is one.
    fn write(&mut self, uri: &str, version: Version, row: Cow<'b, Row<'a>>, stands: bool) {
        self.counts.add(row.table, row.counted(), 1);
        let key = row.table.key_of(uri).into_owned();
        let writes = self.table(row.table);
        let rows = if stands { &mut writes.updates } else { &mut writes.inserts };
        rows.insert(key, (version, row));
    }

    fn again(&mut self, uri: &str, version: &Version, standing: &[Standing], through: Option<StreamId>) {
        let Some(stamp) = version.stamp else { return };
        for standing in standing.iter().filter(|s| !s.version.is_gone(through)) {
            match standing.place {
                Place::Row(table) => {
                    self.table(table).again.insert(table.key_of(uri).into_owned(), stamp);
                }
                Place::Shadow => {
                    self.shadows.again.insert(uri.to_owned(), stamp);
                }
                Place::Kept => {
                    self.kept.again.insert(uri.to_owned(), stamp);
                }
                Place::Tombstone => {
                    let version = Version { stamp: Some(stamp), ..standing.version.clone() };
                    self.tombstones.set.insert(uri.to_owned(), version);
                }
            }
        }
    }

    /// Gives a pair to the record that it belongs to; the others wait.
    fn award(
        &mut self,
        pair: &Pair,
        contest: &Contest<'b, 'a>,
        seen: &Existing,
        deleted_through: &impl Fn(&str) -> Option<StreamId>,
    ) {
        let Contest { vacated, arrivals } = contest;
        let is_gone = |uri: &str, version: &Version| version.is_gone(deleted_through(repo_of(uri)));
        let mut candidates: Vec<Candidate<'_, 'b, 'a>> = Vec::with_capacity(arrivals.len());
        if let Some((uri, version)) = seen.holders.get(pair)
            && vacated.as_ref() != Some(uri)
        {
            if is_gone(uri, version) {
                self.remove(pair, uri);
            } else {
                candidates.push(Candidate::Holder(uri, version));
            }
        }
        candidates.extend(arrivals.iter().map(|(uri, version, row)| Candidate::Arrival(uri, version, row)));
        let waiting = seen.waiting.get(pair).map_or(&[][..], Vec::as_slice);
        let waiting = waiting.iter().filter(|w| !self.shadows.gone.contains(&w.uri) && !is_gone(&w.uri, &w.version));
        candidates.extend(waiting.map(Candidate::Waiting));

        let winner = candidates.iter().enumerate().max_by(|(_, a), (_, b)| a.compare(b, pair.table)).map(|(at, _)| at);
        let mut stays = false;
        for (at, candidate) in candidates.into_iter().enumerate() {
            let wins = Some(at) == winner;
            match candidate {
                Candidate::Holder(uri, _) if !wins => {
                    self.remove(pair, uri);
                    self.table(pair.table).demoted.insert(uri.to_owned());
                }
                Candidate::Arrival(uri, version, row) if wins => {
                    stays = vacated.as_deref() == Some(uri);
                    if stays {
                        // Changed in place: the pair, and so the count, is the same.
                        let row = (version.clone(), Cow::Borrowed(row));
                        self.table(pair.table).updates.insert(uri.to_owned(), row);
                    } else {
                        self.write(uri, version.clone(), Cow::Borrowed(row), false);
                    }
                }
                Candidate::Arrival(uri, version, row) => {
                    self.shadows.set.insert(uri.to_owned(), (pair.clone(), version.clone(), Cow::Borrowed(row)));
                }
                Candidate::Waiting(Waiting { uri, version, row }) if wins => {
                    self.shadows.gone.insert(uri.clone());
                    let mut version = version.clone();
                    version.stamp = self.shadows.again.remove(uri).or(version.stamp);
                    self.write(uri, version, Cow::Owned(Row::from_json(pair.table, row)), false);
                }
                Candidate::Holder(..) | Candidate::Waiting(_) => {}
            }
        }
        if let Some(uri) = vacated
            && !stays
        {
            self.remove(pair, uri);
        }
    }

    /// Takes away the row that holds a pair.
    fn remove(&mut self, pair: &Pair, uri: &str) {
        self.counts.add(pair.table, Some(&pair.b), -1);
        self.table(pair.table).gone.insert(uri.to_owned());
    }
}

// === impl Edits ===

impl<T> Default for Edits<T> {
    fn default() -> Self {
        Self { gone: BTreeSet::new(), set: BTreeMap::new(), again: BTreeMap::new() }
    }
}

// === impl Candidate ===

impl Candidate<'_, '_, '_> {
    fn identity(&self) -> (&str, &Version) {
        match self {
            Self::Holder(uri, version) => (uri, version),
            Self::Arrival(uri, version, _) => (uri, version),
            Self::Waiting(waiting) => (&waiting.uri, &waiting.version),
        }
    }

    fn compare(&self, other: &Self, table: Table) -> Ordering {
        let ((uri, version), (other_uri, other_version)) = (self.identity(), other.identity());
        match table {
            // Revs of different repos say nothing about each other.
            Table::Verifications => other_uri.cmp(uri),
            _ => version.rank(uri).cmp(&other_version.rank(other_uri)),
        }
    }
}

// === impl Counts ===

impl Counts {
    /// Adds to what the rows of a table count for, if they count for anything.
    fn add(&mut self, table: Table, counted: Option<&str>, by: i64) {
        if let (Some((_, count)), Some(uri)) = (table.spec().counted, counted) {
            self.add_to(uri, count, by);
        }
    }

    /// Adds to one count of a post.
    pub(crate) fn add_to(&mut self, uri: &str, count: Count, by: i64) {
        let deltas = match self.0.get_mut(uri) {
            Some(deltas) => deltas,
            None => self.0.entry(uri.to_owned()).or_default(),
        };
        deltas[count as usize] += by;
    }

    /// Adds what other counts add.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (uri, more) in &other.0 {
            let deltas = self.0.entry(uri.clone()).or_default();
            for (delta, more) in deltas.iter_mut().zip(more) {
                *delta += more;
            }
        }
    }

    /// Makes sure that the row of a post is locked, whether or not its counts change.
    pub(crate) fn lock(&mut self, uri: &str) {
        self.0.entry(uri.to_owned()).or_default();
    }

    /// Drops posts whose counts end as they were.
    pub(crate) fn drop_unchanged(&mut self) {
        self.0.retain(|_, deltas| deltas.iter().any(|by| *by != 0));
    }

    /// Returns the posts in order.
    pub(crate) fn by_post(&self) -> &BTreeMap<String, Deltas> {
        &self.0
    }
}

#[cfg(test)]
mod tests;
