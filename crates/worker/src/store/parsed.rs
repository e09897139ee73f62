//! Entries split into record ops, profiles, identities and accounts, each with its version.

use std::collections::btree_map::Entry as Slot;
use std::collections::{BTreeMap, BTreeSet};

use penstock_core::data::Action;
use penstock_core::entry::{Account, Commit, Entry, Event, Identity, Op as CommitOp};
use penstock_core::stream::StreamId;

use super::chain::Chain;
use super::kept::{self, Kept};
use super::micros::Micros;
use super::project::{self, MAX_REPO, MAX_REV, Misfit, Profile, Projected, Source};
use super::row::Row;
use super::table::{MAX_DID, Table};
use super::version::{Stamp, Verdict, Version};

/// An op, or an entry, that has no place in its table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Which entry of the batch, from 0.
    pub entry: usize,
    /// Which op of its commit, from 0; none where the entry itself is refused.
    pub op: Option<usize>,
    /// Why.
    pub reason: String,
}

/// What a batch of entries says, not yet folded.
#[derive(Debug, Default)]
pub(crate) struct Parsed<'a> {
    /// The repos of all entries, with the greatest rev seen of each.
    pub(crate) actors: BTreeMap<&'a str, Option<&'a str>>,
    /// What is known of the chain of commits of those repos, where an entry says it.
    pub(crate) chains: BTreeMap<&'a str, Chain<'a>>,
    /// The accounts that follows, blocks and list items point at, and the repos that do so.
    pub(crate) subjects: BTreeSet<(&'a str, &'a str)>,
    /// Whether deletions of accounts take effect later, when their claims are due.
    pub(crate) defers: bool,
    /// Whether the CIDs of records are recorded.
    pub(crate) records_cids: bool,
    /// Whether it removes what a deleted account left: then no account was seen.
    pub(crate) sweeps: bool,
    /// Changes of records, in stream order.
    pub(crate) ops: Vec<Op<'a>>,
    /// Changes of profiles, in stream order.
    pub(crate) profiles: Vec<ProfileOp<'a>>,
    /// The last handle of each account.
    pub(crate) identities: BTreeMap<&'a str, (StreamId, &'a str)>,
    /// The last identity event of each account, whether it says a handle or not.
    pub(crate) renamed: BTreeMap<&'a str, StreamId>,
    /// The last status of each account.
    pub(crate) accounts: BTreeMap<&'a str, AccountChange<'a>>,
    /// The repos whose commits came without some of their records or ops.
    pub(crate) lacking: BTreeSet<&'a str>,
    /// What has no place in its table.
    pub(crate) rejected: Vec<Rejected>,
}

/// A change of one record.
#[derive(Debug)]
pub(crate) struct Op<'a> {
    pub(crate) repo: &'a str,
    /// Its URI, or what stands in for a URI that no column takes (`kept::key_of`).
    pub(crate) uri: String,
    /// Where the record may stand now, besides `penstock.records`.
    pub(crate) homes: &'static [Table],
    pub(crate) version: Version,
    pub(crate) what: What<'a>,
    /// The record itself, where no row says it, or not all of it.
    pub(crate) kept: Option<Kept<'a>>,
}

/// What becomes of a record.
#[derive(Debug)]
pub(crate) enum What<'a> {
    /// It exists like this.
    Put(Row<'a>),
    /// No table has a place for it: it is stored in `penstock.records` alone.
    Keep,
    /// Its repo deleted it.
    Delete,
    /// It goes with its account.
    Sweep,
}

/// A change of one profile; `None` deletes it.
#[derive(Debug)]
pub(crate) struct ProfileOp<'a> {
    pub(crate) repo: &'a str,
    pub(crate) version: Version,
    pub(crate) what: Option<Profile<'a>>,
    /// Whether it is of a snapshot, before which everything else of its rev gives way.
    pub(crate) settles: bool,
}

/// What a batch says of one account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AccountChange<'a> {
    /// The last of its entries.
    pub(crate) order: StreamId,
    pub(crate) active: bool,
    pub(crate) status: Option<&'a str>,
    /// The last entry that deleted it.
    pub(crate) deleted: Option<StreamId>,
    /// The last entry that said it is active.
    pub(crate) returned: Option<StreamId>,
}

/// The one change of a record that a batch amounts to.
#[derive(Debug)]
pub(crate) struct Change<'b, 'a> {
    pub(crate) op: &'b Op<'a>,
    pub(crate) version: Version,
    /// Whether it is of a snapshot, before which everything else of its rev gives way.
    pub(crate) settles: bool,
}

pub(crate) const PROFILE: (&str, &str) = ("app.bsky.actor.profile", "self");

// === impl Parsed ===

impl<'a> Parsed<'a> {
    /// Splits entries, in stream order whatever order they come in.
    pub(crate) fn read(entries: &'a [Entry]) -> Self {
        let mut batch = Self::default();
        let mut order: Vec<_> = entries.iter().enumerate().collect();
        order.sort_by_key(|(index, entry)| (entry.order, *index));
        for (index, entry) in order {
            if let Err(misfit) = batch.entry(index, entry) {
                batch.reject(index, None, &misfit);
            }
        }
        batch
    }

    fn entry(&mut self, index: usize, entry: &'a Entry) -> Result<(), Misfit> {
        let did = project::key(entry.event.did(), "did", MAX_REPO)?;
        let rev = match &entry.event {
            Event::Commit(commit) => commit.rev.as_deref(),
            Event::Identity(_) | Event::Account(_) => None,
        };
        if let Some(rev) = rev {
            project::key(rev, "rev", MAX_REV)?;
        }
        // A stub stands for whoever was seen, even where the rest of the entry is refused.
        let seen = self.actors.entry(did).or_default();
        *seen = (*seen).max(rev);
        match &entry.event {
            Event::Commit(commit) => {
                self.chains.entry(did).or_default().add(entry, commit);
                self.commit(index, entry, commit);
            }
            Event::Identity(identity) => self.identity(entry.order, identity)?,
            Event::Account(account) => self.account(entry.order, account),
        }
        Ok(())
    }

    fn commit(&mut self, index: usize, entry: &Entry, commit: &'a Commit) {
        let filled = commit.rev.is_none() && entry.seq.is_none();
        let number = entry.seq.map(|seq| seq.get());
        let stamp = if filled { Stamp::filled(entry.order) } else { Stamp::live(entry.order, number) };
        let version = Version { rev: commit.rev.clone(), stamp: Some(stamp) };
        let commit_time = commit.time.and_then(Micros::of_host);
        let place = Place {
            repo: &commit.repo,
            version,
            at: commit_time.unwrap_or_else(|| Micros::of_entry(entry.order)),
            commit_time,
        };
        if commit.missing > 0 {
            self.lacking.insert(&commit.repo);
        }
        for (number, op) in commit.ops.iter().enumerate() {
            // A fill says what stands; that something is gone only the live stream says.
            if filled && op.action == Action::Delete {
                continue;
            }
            if let Err(misfit) = self.op(&place, op) {
                self.reject(index, Some(number), &misfit);
            }
        }
    }

    fn op(&mut self, place: &Place<'a>, op: &'a CommitOp) -> Result<(), Misfit> {
        let CommitOp { action, collection, rkey, cid, record } = op;
        let (repo, version) = (place.repo, place.version.clone());
        let uri = format!("at://{repo}/{collection}/{rkey}");
        let homes = if kept::is_plain(&uri) { Table::homes(collection) } else { &[] };
        let is_profile = (collection.as_str(), rkey.as_str()) == PROFILE;
        let gone = match (action, record) {
            (Action::Delete, _) => Some(version.clone()),
            // What it is now is not known, but that what stood before is no longer so: as if deleted just before. Entries
            // without a rev are of other programs, which may leave out a record that another entry of the event brings.
            (_, None) => match version.just_below() {
                Some(below) => Some(below),
                None => return Ok(()),
            },
            (_, Some(_)) => None,
        };
        if let Some(version) = gone {
            if is_profile {
                self.profiles.push(ProfileOp { repo, version, what: None, settles: false });
            } else {
                let uri = kept::key_of(uri);
                self.ops.push(Op { repo, uri, homes, version, what: What::Delete, kept: None });
            }
            return Ok(());
        }
        let Some(record) = record else { return Ok(()) };
        let source = Source {
            repo,
            uri: &uri,
            collection,
            cid: cid.as_deref(),
            record,
            at: place.at,
            commit_time: place.commit_time,
        };
        if is_profile {
            let what = Some(project::profile(source)?);
            self.profiles.push(ProfileOp { repo, version, what, settles: false });
        } else {
            let Projected { row, kept } = project::record(source)?;
            let what = row.map_or(What::Keep, What::Put);
            self.subjects.extend(project::account_of(collection, record).map(|subject| (subject, repo)));
            self.ops.push(Op { repo, uri: kept::key_of(uri), homes, version, what, kept });
        }
        Ok(())
    }

    fn identity(&mut self, order: StreamId, identity: &'a Identity) -> Result<(), Misfit> {
        self.renamed.insert(&identity.did, order);
        // Without a handle the event only says that something changed: an earlier handle must still be taken.
        if let Some(handle) = &identity.handle {
            let handle = project::key(handle, "handle", MAX_DID)?;
            self.identities.insert(&identity.did, (order, handle));
        }
        Ok(())
    }

    fn account(&mut self, order: StreamId, account: &'a Account) {
        let status = account.status.as_deref();
        let deletes = !account.active && status == Some("deleted");
        let before = self.accounts.get(&*account.did);
        let deleted = if deletes { Some(order) } else { before.and_then(|change| change.deleted) };
        let returned = if account.active { Some(order) } else { before.and_then(|change| change.returned) };
        self.accounts.insert(&account.did, AccountChange { order, active: account.active, status, deleted, returned });
    }

    fn reject(&mut self, entry: usize, op: Option<usize>, misfit: &Misfit) {
        self.rejected.push(Rejected { entry, op, reason: misfit.to_string() });
    }
}

/// What the ops of one commit share.
struct Place<'a> {
    repo: &'a str,
    version: Version,
    at: Micros,
    commit_time: Option<Micros>,
}

// === impl Op ===

impl Op<'_> {
    /// Returns the path of the record within its repo; none where its URI is only known by its digest.
    pub(crate) fn path(&self) -> Option<&str> {
        self.uri.strip_prefix("at://")?.strip_prefix(self.repo)?.strip_prefix('/')
    }
}

/// Folds ops in stream order to one change a record, without those that a deleted account took with it or that a snapshot covers.
pub(crate) fn fold<'b, 'a>(
    ops: &'b [Op<'a>],
    deleted_through: impl Fn(&str) -> Option<StreamId>,
    is_covered: impl Fn(&str, Option<&str>, &Version) -> bool,
) -> BTreeMap<&'b str, Change<'b, 'a>> {
    let mut changes: BTreeMap<&str, Change<'_, '_>> = BTreeMap::new();
    for op in ops {
        let is_late = || op.version.is_gone(deleted_through(op.repo)) || is_covered(op.repo, op.path(), &op.version);
        if !matches!(op.what, What::Sweep) && is_late() {
            continue;
        }
        let change = Change { op, version: op.version.clone(), settles: false };
        match changes.entry(&op.uri) {
            Slot::Vacant(slot) => {
                slot.insert(change);
            }
            Slot::Occupied(mut slot) => match later(&op.version, &slot.get().version) {
                Verdict::Newer => *slot.get_mut() = change,
                Verdict::Again => slot.get_mut().version.stamp = op.version.stamp,
                Verdict::Older => {}
            },
        }
    }
    changes
}

/// Folds profile changes as [`fold`] does records.
pub(crate) fn fold_profiles<'b, 'a>(
    ops: &'b [ProfileOp<'a>],
    deleted_through: impl Fn(&str) -> Option<StreamId>,
    is_covered: impl Fn(&str, Option<&str>, &Version) -> bool,
) -> BTreeMap<&'a str, (&'b ProfileOp<'a>, Version)> {
    let path = format!("{}/{}", PROFILE.0, PROFILE.1);
    let is_late = |op: &ProfileOp<'_>| {
        op.version.is_gone(deleted_through(op.repo)) || !op.settles && is_covered(op.repo, Some(&path), &op.version)
    };
    let mut changes: BTreeMap<&str, (&ProfileOp<'_>, Version)> = BTreeMap::new();
    for op in ops.iter().filter(|op| !is_late(op)) {
        match changes.entry(op.repo) {
            Slot::Vacant(slot) => {
                slot.insert((op, op.version.clone()));
            }
            Slot::Occupied(mut slot) => match later(&op.version, &slot.get().1) {
                Verdict::Newer => *slot.get_mut() = (op, op.version.clone()),
                Verdict::Again => slot.get_mut().1.stamp = op.version.stamp,
                Verdict::Older => {}
            },
        }
    }
    changes
}

/// Within one entry the later op wins.
fn later(new: &Version, old: &Version) -> Verdict {
    if new.stamp == old.stamp { Verdict::Newer } else { new.against(old) }
}

#[cfg(test)]
mod tests {
    use penstock_core::stream::Seq;
    use serde_json::{Value, json};

    use super::*;

    fn commit(order: u64, rev: Option<&str>, seq: Option<u64>, ops: Vec<CommitOp>) -> Entry {
        let id = StreamId { ms: order, seq: 0 };
        let commit = Commit {
            repo: "did:plc:a".to_owned(),
            rev: rev.map(str::to_owned),
            since: None,
            commit: None,
            time: None,
            ops,
            missing: 0,
            proven: penstock_core::entry::Proven::default(),
        };
        Entry { id, order: id, seq: seq.and_then(Seq::new), event: Event::Commit(commit) }
    }

    fn op(action: Action, rkey: &str, record: Option<Value>) -> CommitOp {
        CommitOp {
            action,
            collection: "com.example.note".to_owned(),
            rkey: rkey.to_owned(),
            cid: Some("bafy".to_owned()),
            record,
        }
    }

    /// Folds entries and tells, per rkey, what stands and from which entry.
    fn folded(entries: &[Entry], deleted: Option<u64>) -> Vec<(String, String, u64)> {
        let batch = Parsed::read(entries);
        let through = deleted.map(|ms| StreamId { ms, seq: 0 });
        fold(&batch.ops, |_| through, |_, _, _| false)
            .into_iter()
            .map(|(uri, change)| {
                let what = match &change.op.what {
                    What::Put(row) => format!("{:?}", row.cells[3]),
                    other => format!("{other:?}"),
                };
                (uri.rsplit('/').next().unwrap().to_owned(), what, change.version.stamp.unwrap().id().ms)
            })
            .collect()
    }

    fn put(n: u64) -> String {
        format!("Json(Some({:?}))", json!({ "n": n }).to_string())
    }

    #[test]
    fn the_ops_of_one_entry_fold_in_their_order() {
        let entries = [commit(
            1,
            Some("3a"),
            Some(1),
            vec![
                op(Action::Create, "gone", Some(json!({"n": 1}))),
                op(Action::Delete, "gone", None),
                op(Action::Delete, "back", None),
                op(Action::Create, "back", Some(json!({"n": 2}))),
                op(Action::Create, "bare", None),
            ],
        )];
        let delete = || "Delete".to_owned();
        let expected = [("back".into(), put(2), 1), ("bare".into(), delete(), 1), ("gone".into(), delete(), 1)];
        assert_eq!(folded(&entries, None), expected);
    }

    #[test]
    fn what_comes_without_its_record_takes_away_what_was_before_and_no_more() {
        let with = |n: u64| vec![op(Action::Update, "r", Some(json!({ "n": n })))];
        let bare = || vec![op(Action::Update, "r", None)];
        let (before, after) = (commit(1, Some("3a"), Some(1), with(1)), commit(3, Some("3c"), Some(3), with(3)));
        let entry = || commit(2, Some("3b"), Some(2), bare());
        assert_eq!(folded(&[before.clone(), entry()], None), [("r".into(), "Delete".into(), 2)]);
        assert_eq!(folded(&[entry(), after], None), [("r".into(), put(3), 3)]);
        // The same event from another host, which has the block.
        let whole = |order| commit(order, Some("3b"), Some(order), with(2));
        assert_eq!(folded(&[entry(), whole(9)], None), [("r".into(), put(2), 9)]);
        assert_eq!(folded(&[whole(1), entry()], None), [("r".into(), put(2), 1)]);
        // Without a rev it says nothing.
        assert_eq!(folded(&[before, commit(2, None, Some(2), bare())], None), [("r".into(), put(1), 1)]);
    }

    #[test]
    fn the_greatest_rev_of_a_batch_wins_and_a_repeat_counts_from_the_later_entry() {
        let put_op = |n: u64| vec![op(Action::Update, "r", Some(json!({ "n": n })))];
        let entries = [
            commit(5, Some("3b"), Some(5), put_op(2)),
            commit(9, Some("3a"), Some(9), put_op(1)),
            commit(8, Some("3b"), Some(8), put_op(2)),
        ];
        assert_eq!(folded(&entries, None), [("r".into(), put(2), 8)]);
    }

    #[test]
    fn a_backfill_fills_only_what_nobody_else_says() {
        let fill = |order, rkey| commit(order, None, None, vec![op(Action::Create, rkey, Some(json!({"n": 0})))]);
        let live = commit(1, None, Some(1), vec![op(Action::Delete, "a", None)]);
        let entries = [fill(2, "a"), live, fill(3, "b"), commit(4, None, None, vec![op(Action::Delete, "b", None)])];
        assert_eq!(folded(&entries, None), [("a".into(), "Delete".into(), 1), ("b".into(), put(0), 3)]);
    }

    #[test]
    fn what_a_deleted_account_took_is_out_before_folding() {
        let entries = [
            commit(9, None, None, vec![op(Action::Create, "r", Some(json!({"n": 9})))]),
            commit(5, Some("3z"), Some(5), vec![op(Action::Create, "r", Some(json!({"n": 5})))]),
        ];
        assert_eq!(folded(&entries, Some(5)), [("r".into(), put(9), 9)]);
    }

    #[test]
    fn a_misfit_is_named_and_its_neighbours_stay() {
        let mut like = op(Action::Create, "r", Some(json!({"createdAt": "x"})));
        like.collection = "app.bsky.feed.like".to_owned();
        let list = op(Action::Create, "list", Some(json!([])));
        let entries = [commit(1, Some("3a"), Some(1), vec![like, op(Action::Create, "ok", Some(json!({}))), list])];
        let batch = Parsed::read(&entries);
        assert_eq!(batch.ops.len(), 1);
        let said: Vec<_> = batch.rejected.iter().map(|r| (r.entry, r.op, &*r.reason)).collect();
        assert_eq!(said, [(0, Some(0), "subject.uri is missing"), (0, Some(2), "record is not an object")]);
    }

    #[test]
    fn the_last_deletion_of_an_account_is_kept_beside_its_last_status() {
        let account = |order: u64, active: bool, status: Option<&str>| Entry {
            id: StreamId { ms: order, seq: 0 },
            order: StreamId { ms: order, seq: 0 },
            seq: Seq::new(order),
            event: Event::Account(Account {
                did: "did:plc:a".to_owned(),
                active,
                status: status.map(str::to_owned),
                time: None,
            }),
        };
        let entries = [account(7, true, None), account(5, false, Some("deleted")), account(3, false, Some("deleted"))];
        let batch = Parsed::read(&entries);
        let change = batch.accounts["did:plc:a"];
        assert_eq!((change.order.ms, change.active, change.deleted.map(|id| id.ms)), (7, true, Some(5)));
        assert_eq!(change.returned.map(|id| id.ms), Some(7));
    }
}
