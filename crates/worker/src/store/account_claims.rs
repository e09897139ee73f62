//! Events that take an account away, from their arrival until they take effect or prove wrong.
//!
//! A batch only writes the claim, under the lock of the repo; whoever finds it due asks the account's host outside of any
//! transaction, and brings the answer here. A deletion also waits until its grace is over. What says that the account is active
//! again withdraws every claim that is older, in whatever order the two arrive: `returned_entry` stays behind. A deletion that
//! is carried out becomes `deleted_through`, as if it had just arrived.

use std::time::Duration;

use penstock_core::stream::StreamId;
use sqlx::PgConnection;
use sqlx::postgres::PgBindIterExt;

use super::accounts::Guards;
use super::claim_rules::{Claims, Rules};
use super::connection::Store;
use super::error::StoreError;
use super::parsed::Parsed;
use super::version::Stamp;

/// A claim whose next step is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    /// The account.
    pub(crate) did: String,
    /// The stamp of the event.
    pub(crate) entry: String,
    /// Where the account is; empty where that is to be found out.
    pub(crate) host: String,
    /// Whether it was confirmed already, and is asked about once more before rows go.
    pub(crate) is_confirmed: bool,
}

/// What there is to know of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The account's host says so.
    Present {
        /// Whether the account is active.
        active: bool,
        /// Why not.
        status: Option<String>,
    },
    /// There is no such account: its host does not know it, or its identity was removed.
    Gone,
    /// The event itself is believed.
    Believed,
    /// This is where the account is; it was not asked yet.
    At(String),
    /// Nobody could say.
    Nobody(String),
}

/// What became of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settled {
    /// Somebody else was faster, or a later event came meanwhile.
    Nothing,
    /// It is known whom to ask.
    Located,
    /// It takes effect; the rows of a deleted account wait for their time.
    Confirmed,
    /// The account's host says otherwise.
    Denied,
    /// Nobody could say: it is asked again.
    Unresolved,
    /// The same, and the account is hidden meanwhile: its grace is over.
    Hidden,
    /// The rows go.
    Deleted,
}

/// How many claims there are.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct ClaimedAccounts {
    /// Whose hosts are still to be asked.
    pub(crate) unconfirmed: u64,
    /// Of those, whose hosts failed to answer three times and more.
    pub(crate) unanswered: u64,
    /// Deleted, with rows that wait for their time.
    pub(crate) deletions: u64,
    /// In how many seconds the next of those is due.
    pub(crate) next_seconds: Option<f64>,
}

/// How often the pause after a failure doubles at most.
const DOUBLINGS: u32 = 6;

/// A claim as it stands, under the lock of its repo.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Standing {
    status: Option<String>,
    deletes: bool,
    is_confirmed: bool,
    is_hidden: bool,
    is_over: bool,
}

/// What is to be done about a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Decision {
    /// What the account's status becomes.
    status: Option<(bool, Option<String>)>,
    next: Next,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Next {
    /// Ask that host, at once.
    Ask(String),
    /// It has taken effect, and is done with.
    End,
    /// It was wrong, and is done with.
    Deny,
    /// It holds, and the rows wait until the grace is over.
    Wait,
    /// Ask again after a pause.
    Again(String),
    /// The rows go.
    Delete,
}

/// Withdraws and makes the claims of a batch whose repos are locked.
pub(super) async fn write(
    conn: &mut PgConnection,
    batch: &Parsed<'_>,
    guards: &Guards,
    rules: &Rules,
) -> sqlx::Result<Claims> {
    let returned = guards.newly_returned(batch);
    let withdrawn = if returned.is_empty() { 0 } else { withdraw(conn, &returned, rules).await? };
    let made = if batch.defers { make(conn, batch, guards, rules).await? } else { 0 };
    Ok(Claims { made, withdrawn })
}

// A claim that is repeated keeps its place; one that says something else is asked about soon, though not with each event.
const MAKE: &str = "\
INSERT INTO penstock.account_claims AS c (did, entry, status, deleted_entry, confirmed_at, due)
SELECT u.did, u.entry, u.status, u.deleted, CASE WHEN NOT $5 THEN clock_timestamp() END,
    clock_timestamp() + CASE WHEN $5 THEN 0 ELSE $6 END * interval '1 second'
  FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS u (did, entry, status, deleted)
ON CONFLICT (did) DO UPDATE SET
  entry = greatest(c.entry, excluded.entry),
  status = CASE WHEN excluded.entry > c.entry THEN excluded.status ELSE c.status END,
  deleted_entry = greatest(c.deleted_entry, excluded.deleted_entry),
  since = CASE WHEN c.deleted_entry IS NULL AND excluded.deleted_entry IS NOT NULL THEN excluded.since ELSE c.since END,
  host = CASE WHEN $5 AND excluded.entry > c.entry AND excluded.status IS DISTINCT FROM c.status THEN '' ELSE c.host END,
  due = CASE WHEN $5 AND excluded.entry > c.entry AND excluded.status IS DISTINCT FROM c.status
    THEN least(c.due, greatest(clock_timestamp(), c.asked_at + interval '30 seconds')) ELSE c.due END";

/// Makes the claims of a batch; returns how many.
async fn make(conn: &mut PgConnection, batch: &Parsed<'_>, guards: &Guards, rules: &Rules) -> sqlx::Result<u64> {
    let claimed: Vec<_> = batch
        .accounts
        .iter()
        .filter_map(|(did, change)| {
            let returned = change.returned.max(guards.returned(did));
            let is_new = |order: &StreamId| Some(*order) > returned;
            let deleted = change.deleted.filter(|order| is_new(order) && Some(*order) > guards.carried_out(did));
            let last = Some(change.order).filter(|order| rules.asks && !change.active && is_new(order));
            let last = last.filter(|order| Some(*order) > guards.account(did));
            let status = if last.is_some() { change.status } else { Some("deleted") };
            let entry = last.max(deleted)?;
            Some((*did, entry, status.map(|status| status.replace('\0', "")), deleted))
        })
        .collect();
    if claimed.is_empty() {
        return Ok(0);
    }
    let stamp = |order: StreamId| Stamp::live(order, None).to_string();
    let made = sqlx::query(MAKE)
        .bind(claimed.iter().map(|(did, ..)| *did).bind_iter())
        .bind(claimed.iter().map(|(_, entry, ..)| stamp(*entry)).bind_iter())
        .bind(claimed.iter().map(|(_, _, status, _)| status.as_deref()).bind_iter())
        .bind(claimed.iter().map(|(.., deleted)| deleted.map(stamp)).bind_iter())
        .bind(rules.asks)
        .bind(rules.grace.as_secs_f64())
        .execute(conn)
        .await?;
    Ok(made.rows_affected())
}

const WITHDRAW: &str = "\
DELETE FROM penstock.account_claims AS c USING unnest($1::text[], $2::text[]) AS u (did, entry)
 WHERE c.did = u.did AND c.entry <= u.entry";

// What was deleted after it is deleted again: its time begins anew.
const BEGIN_ANEW: &str = "\
UPDATE penstock.account_claims AS c
   SET deleted_entry = CASE WHEN c.deleted_entry > u.entry THEN c.deleted_entry END, since = clock_timestamp(),
       due = CASE WHEN c.confirmed_at IS NULL THEN c.due ELSE clock_timestamp() + $3 * interval '1 second' END
  FROM unnest($1::text[], $2::text[]) AS u (did, entry) WHERE c.did = u.did";

/// Withdraws the claims that are older than what says that the account is active; returns how many.
async fn withdraw(conn: &mut PgConnection, returned: &[(&str, StreamId)], rules: &Rules) -> sqlx::Result<u64> {
    let dids = || returned.iter().map(|(did, _)| *did).bind_iter();
    let entries = || returned.iter().map(|(_, order)| Stamp::live(*order, None).to_string()).bind_iter();
    let withdrawn = sqlx::query(WITHDRAW).bind(dids()).bind(entries()).execute(&mut *conn).await?;
    sqlx::query(BEGIN_ANEW).bind(dids()).bind(entries()).bind(rules.grace.as_secs_f64()).execute(conn).await?;
    Ok(withdrawn.rows_affected())
}

/// Follows a grace that was changed.
const FOLLOW: &str = "\
UPDATE penstock.account_claims SET due = since + $1 * interval '1 second'
 WHERE confirmed_at IS NOT NULL AND due <> since + $1 * interval '1 second'";

/// Whoever takes one has so long to settle it; then it is due again.
const LEASE: Duration = Duration::from_secs(120);

// Without asking, whoever is due: by the time of the statement, because no index is searched by that of the clock.
const TAKE_ANY: &str = "\
WITH taken AS (
  SELECT did FROM penstock.account_claims WHERE due <= statement_timestamp() ORDER BY due LIMIT $1 FOR UPDATE SKIP LOCKED
)
UPDATE penstock.account_claims AS c SET due = clock_timestamp() + $2 * interval '1 second'
  FROM taken AS t WHERE c.did = t.did RETURNING c.did, c.entry, c.host, c.confirmed_at IS NOT NULL";

// Of those whose host is not known.
const TAKE_NOWHERE: &str = "\
WITH taken AS (
  SELECT did FROM penstock.account_claims WHERE host = '' AND due <= statement_timestamp() ORDER BY due LIMIT $1
     FOR UPDATE SKIP LOCKED
)
UPDATE penstock.account_claims AS c SET due = clock_timestamp() + $2 * interval '1 second', asked_at = clock_timestamp()
  FROM taken AS t WHERE c.did = t.did RETURNING c.did, c.entry, c.host, c.confirmed_at IS NOT NULL";

// One of each host that is not being asked, however many wait for one of them: from host to host along the index.
const TAKE: &str = "\
WITH RECURSIVE hosts AS (
  (SELECT host FROM penstock.account_claims WHERE host > '' ORDER BY host LIMIT 1)
  UNION ALL
  SELECT (SELECT c.host FROM penstock.account_claims AS c WHERE c.host > h.host ORDER BY c.host LIMIT 1)
    FROM hosts AS h WHERE h.host IS NOT NULL
), first AS (
  SELECT c.did, c.due FROM hosts AS h CROSS JOIN LATERAL (
    SELECT c.did, c.due FROM penstock.account_claims AS c
     WHERE c.host = h.host AND c.due <= statement_timestamp() ORDER BY c.due LIMIT 1) AS c
   WHERE h.host IS NOT NULL AND NOT h.host = ANY($3::text[]) ORDER BY c.due LIMIT $1
), taken AS (
  SELECT c.did FROM penstock.account_claims AS c
   WHERE c.did = ANY(ARRAY(SELECT did FROM first)) AND c.due <= statement_timestamp() FOR UPDATE SKIP LOCKED
)
UPDATE penstock.account_claims AS c SET due = clock_timestamp() + $2 * interval '1 second', asked_at = clock_timestamp()
  FROM taken AS t WHERE c.did = t.did RETURNING c.did, c.entry, c.host, c.confirmed_at IS NOT NULL";

/// The lock that batches take.
const LOCK: &str = "SELECT account_entry FROM penstock.repos WHERE did = $1 FOR NO KEY UPDATE";

const STANDING: &str = "\
SELECT status, deleted_entry IS NOT NULL, confirmed_at IS NOT NULL, hidden,
    since + $3 * interval '1 second' <= clock_timestamp(), attempts
  FROM penstock.account_claims WHERE did = $1 AND entry = $2 FOR UPDATE";

/// An entry that came later stands, unless this is the host's word, which is newer than any: what it said of a later entry it said
/// before, and what says that the account is active withdraws the claim.
const STATUS: &str = "\
UPDATE penstock.repos SET active = $3, status = $4, account_entry = greatest(account_entry, $2)
 WHERE did = $1 AND ($5 OR account_entry IS NULL OR account_entry <= $2)";

const ASK: &str = "UPDATE penstock.account_claims SET host = $2, due = clock_timestamp() WHERE did = $1";

const END: &str = "DELETE FROM penstock.account_claims WHERE did = $1";

const WAIT: &str = "\
UPDATE penstock.account_claims SET confirmed_at = coalesce(confirmed_at, clock_timestamp()), host = '', attempts = 0, error = NULL,
    due = since + $2 * interval '1 second'
 WHERE did = $1";

const AGAIN: &str = "\
UPDATE penstock.account_claims SET host = '', attempts = attempts + 1, error = $3, hidden = hidden OR $4,
    due = CASE WHEN confirmed_at IS NULL THEN clock_timestamp() + $2 * (0.75 + random() / 2) * interval '1 second'
      ELSE least(clock_timestamp() + $2 * interval '1 second', since + $5 * interval '1 second') END
 WHERE did = $1";

const DELETE: &str = "\
WITH ended AS (DELETE FROM penstock.account_claims WHERE did = $1 RETURNING did, deleted_entry)
UPDATE penstock.repos AS r SET deleted_through = greatest(r.deleted_through, e.deleted_entry)
  FROM ended AS e WHERE r.did = e.did";

const COUNT: &str = "\
SELECT count(*) FILTER (WHERE confirmed_at IS NULL), count(*) FILTER (WHERE confirmed_at IS NULL AND attempts >= 3),
    count(*) FILTER (WHERE confirmed_at IS NOT NULL),
    extract(epoch FROM min(due) FILTER (WHERE confirmed_at IS NOT NULL) - clock_timestamp())::float8
  FROM penstock.account_claims";

type ClaimRow = (String, String, String, bool);

// === impl Store ===

impl Store {
    /// Lets claims that wait follow the settings, which may have changed since they were made.
    ///
    /// # Errors
    /// When PostgreSQL cannot be reached or refuses a statement.
    pub(crate) async fn follow_grace(&self) -> Result<(), StoreError> {
        let grace = self.rules.grace.as_secs_f64();
        self.of_claims(async |tx| sqlx::query(FOLLOW).bind(grace).execute(tx).await.map(drop)).await
    }

    /// Takes claims that are due, for two minutes: one of each host that is not busy, and some whose host is not known. Where
    /// nobody is asked, any.
    ///
    /// # Errors
    /// As [`Self::follow_grace`].
    pub(crate) async fn take_claims(
        &self,
        most: usize,
        nowhere: usize,
        busy: &[String],
    ) -> Result<Vec<Claim>, StoreError> {
        let lease = LEASE.as_secs_f64();
        let limit = |most: usize| i64::try_from(most).unwrap_or(i64::MAX);
        let rows: Vec<ClaimRow> = self
            .of_claims(async |tx| {
                if !self.rules.asks {
                    return sqlx::query_as(TAKE_ANY).bind(limit(most)).bind(lease).fetch_all(tx).await;
                }
                let mut rows: Vec<ClaimRow> =
                    sqlx::query_as(TAKE_NOWHERE).bind(limit(nowhere)).bind(lease).fetch_all(&mut *tx).await?;
                let asked = sqlx::query_as(TAKE).bind(limit(most)).bind(lease).bind(busy).fetch_all(tx).await?;
                rows.extend::<Vec<ClaimRow>>(asked);
                Ok(rows)
            })
            .await?;
        let claim = |(did, entry, host, is_confirmed)| Claim { did, entry, host, is_confirmed };
        Ok(rows.into_iter().map(claim).collect())
    }

    /// Settles a claim by what is known of it. Nothing happens where it is no longer the one that was asked about.
    ///
    /// # Errors
    /// As [`Self::follow_grace`]; the claim is then due again after its two minutes.
    pub(crate) async fn settle_claim(&self, claim: &Claim, answer: &Answer) -> Result<Settled, StoreError> {
        self.of_claims(async |tx| self.settle(tx, claim, answer).await).await
    }

    /// Counts the claims.
    ///
    /// # Errors
    /// As [`Self::follow_grace`].
    pub(crate) async fn claimed_accounts(&self) -> Result<ClaimedAccounts, StoreError> {
        let (unconfirmed, unanswered, deletions, next): (i64, i64, i64, Option<f64>) =
            self.of_claims(async |tx| sqlx::query_as(COUNT).fetch_one(tx).await).await?;
        Ok(ClaimedAccounts {
            unconfirmed: unconfirmed.cast_unsigned(),
            unanswered: unanswered.cast_unsigned(),
            deletions: deletions.cast_unsigned(),
            next_seconds: next.map(|next| next.max(0.0)),
        })
    }

    async fn of_claims<T>(&self, act: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>) -> Result<T, StoreError> {
        self.in_transaction(act).await.map_err(StoreError::AccountClaims)
    }

    async fn settle(&self, tx: &mut PgConnection, claim: &Claim, answer: &Answer) -> sqlx::Result<Settled> {
        let did = &*claim.did;
        let grace = self.rules.grace.as_secs_f64();
        sqlx::query(LOCK).bind(did).execute(&mut *tx).await?;
        let standing: Option<(Option<String>, bool, bool, bool, bool, i32)> =
            sqlx::query_as(STANDING).bind(did).bind(&claim.entry).bind(grace).fetch_optional(&mut *tx).await?;
        let Some((status, deletes, is_confirmed, is_hidden, is_over, attempts)) = standing else {
            return Ok(Settled::Nothing);
        };
        let standing = Standing { status, deletes, is_confirmed, is_hidden, is_over };
        let Decision { status, next } = decide(&standing, answer);
        let hides = status.as_ref().is_some_and(|(active, _)| !active);
        if let Some((active, status)) = status {
            let status = status.map(|status| status.replace('\0', ""));
            let is_its_word = matches!(answer, Answer::Present { .. } | Answer::Gone);
            let update = sqlx::query(STATUS).bind(did).bind(&claim.entry).bind(active).bind(status).bind(is_its_word);
            update.execute(&mut *tx).await?;
        }
        Ok(match next {
            Next::Ask(host) => {
                sqlx::query(ASK).bind(did).bind(host.replace('\0', "")).execute(tx).await?;
                Settled::Located
            }
            Next::End => {
                sqlx::query(END).bind(did).execute(tx).await?;
                Settled::Confirmed
            }
            Next::Deny => {
                sqlx::query(END).bind(did).execute(tx).await?;
                Settled::Denied
            }
            Next::Wait => {
                sqlx::query(WAIT).bind(did).bind(grace).execute(tx).await?;
                Settled::Confirmed
            }
            Next::Again(error) => {
                let pause = pause(self.rules.retry, attempts).as_secs_f64();
                let again =
                    sqlx::query(AGAIN).bind(did).bind(pause).bind(error.replace('\0', "")).bind(hides).bind(grace);
                again.execute(tx).await?;
                if hides { Settled::Hidden } else { Settled::Unresolved }
            }
            Next::Delete => {
                sqlx::query(DELETE).bind(did).execute(tx).await?;
                Settled::Deleted
            }
        })
    }
}

/// Decides what an answer means for a claim.
///
/// What the account's host says is taken for what it is, whatever was claimed. Where nobody can say, an account is hidden once
/// the grace is over, and its rows stay until somebody can; a deletion that was confirmed once is carried out.
fn decide(claim: &Standing, answer: &Answer) -> Decision {
    let gone = || Some((false, claim.status.clone()));
    let delete = |status| {
        let next = if claim.is_over { Next::Delete } else { Next::Wait };
        Decision { status, next }
    };
    match answer {
        Answer::At(host) => Decision { status: None, next: Next::Ask(host.clone()) },
        Answer::Gone if claim.deletes => delete(Some((false, Some("deleted".to_owned())))),
        Answer::Present { active: false, status } if status.as_deref() == Some("deleted") && claim.deletes => {
            delete(Some((false, status.clone())))
        }
        Answer::Believed if claim.deletes => delete(gone()),
        Answer::Gone | Answer::Believed => Decision { status: gone(), next: Next::End },
        Answer::Present { active: true, .. } => Decision { status: Some((true, None)), next: Next::Deny },
        Answer::Present { active: false, status } => {
            let next = if claim.deletes { Next::Deny } else { Next::End };
            Decision { status: Some((false, status.clone())), next }
        }
        Answer::Nobody(_) if claim.is_confirmed && claim.deletes && claim.is_over => delete(None),
        Answer::Nobody(error) => {
            let hides = claim.is_over && !claim.is_hidden && !claim.is_confirmed;
            Decision { status: if hides { gone() } else { None }, next: Next::Again(error.clone()) }
        }
    }
}

/// Returns how long a claim waits after so many failures.
fn pause(first: Duration, failures: i32) -> Duration {
    let doublings = u32::try_from(failures).unwrap_or_default().min(DOUBLINGS);
    first.saturating_mul(1 << doublings)
}

// === impl Claim ===

impl Claim {
    /// Returns the ID of the event.
    pub(crate) fn order(&self) -> Option<StreamId> {
        Some(Stamp::parse(&self.entry)?.id())
    }
}

// === impl Settled ===

impl Settled {
    /// Names it for metrics; not what is only a step on the way.
    pub(crate) fn word(self) -> Option<&'static str> {
        match self {
            Self::Nothing | Self::Located => None,
            Self::Confirmed => Some("confirmed"),
            Self::Denied => Some("denied"),
            Self::Unresolved => Some("unresolved"),
            Self::Hidden => Some("hidden"),
            Self::Deleted => Some("deleted"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(deletes: bool, is_confirmed: bool, is_hidden: bool, is_over: bool) -> Standing {
        let status = if deletes { "deleted" } else { "deactivated" };
        Standing { status: Some(status.to_owned()), deletes, is_confirmed, is_hidden, is_over }
    }

    fn present(active: bool, status: Option<&str>) -> Answer {
        Answer::Present { active, status: status.map(str::to_owned) }
    }

    #[test]
    fn what_the_host_says_decides_and_nothing_is_removed_on_nobodys_word() {
        let nobody = || Answer::Nobody("refused".to_owned());
        let again = || Next::Again("refused".to_owned());
        let inactive = |status: &str| Some((false, Some(status.to_owned())));
        let new = standing(true, false, false, false);
        let over = standing(true, false, false, true);
        let waits = standing(true, true, false, false);
        let due = standing(true, true, false, true);
        let hidden = standing(true, false, true, true);
        let away = standing(false, false, false, false);
        for (claim, answer, status, next) in [
            (&new, Answer::Gone, inactive("deleted"), Next::Wait),
            (&new, present(false, Some("deleted")), inactive("deleted"), Next::Wait),
            (&new, present(true, None), Some((true, None)), Next::Deny),
            (&new, present(false, Some("takendown")), inactive("takendown"), Next::Deny),
            (&new, present(false, None), Some((false, None)), Next::Deny),
            (&new, nobody(), None, again()),
            (&new, Answer::Believed, inactive("deleted"), Next::Wait),
            (&new, Answer::At("https://a.test".to_owned()), None, Next::Ask("https://a.test".to_owned())),
            // The first answer came late.
            (&over, Answer::Gone, inactive("deleted"), Next::Delete),
            (&over, Answer::Believed, inactive("deleted"), Next::Delete),
            (&over, present(true, None), Some((true, None)), Next::Deny),
            (&over, nobody(), inactive("deleted"), again()),
            (&hidden, nobody(), None, again()),
            (&hidden, present(true, None), Some((true, None)), Next::Deny),
            (&hidden, Answer::Gone, inactive("deleted"), Next::Delete),
            // It is asked once more before rows go.
            (&waits, nobody(), None, again()),
            (&waits, present(true, None), Some((true, None)), Next::Deny),
            (&due, Answer::Gone, inactive("deleted"), Next::Delete),
            (&due, present(true, None), Some((true, None)), Next::Deny),
            (&due, present(false, Some("deactivated")), inactive("deactivated"), Next::Deny),
            (&due, nobody(), None, Next::Delete),
            // What is not deleted only changes its status.
            (&away, present(false, Some("deactivated")), inactive("deactivated"), Next::End),
            (&away, present(false, Some("takendown")), inactive("takendown"), Next::End),
            (&away, present(false, Some("deleted")), inactive("deleted"), Next::End),
            (&away, present(true, None), Some((true, None)), Next::Deny),
            (&away, Answer::Gone, inactive("deactivated"), Next::End),
            (&away, Answer::Believed, inactive("deactivated"), Next::End),
            (&away, nobody(), None, again()),
        ] {
            assert_eq!(decide(claim, &answer), Decision { status, next }, "{claim:?} {answer:?}");
        }
    }

    #[test]
    fn pauses_double_and_are_bounded() {
        let minutes =
            [0, 1, 2, 5, 6, 7, i32::MAX, -1].map(|failures| pause(Duration::from_secs(60), failures).as_secs() / 60);
        assert_eq!(minutes, [1, 2, 4, 32, 64, 64, 64, 1]);
    }
}
