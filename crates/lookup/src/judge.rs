//! Draws the answer from what was found. Asks nobody.

use crate::asked::{Asked, RecordPath};
use crate::report::{Answer, Held, Host, Letter, RecordRows, RepoRow, Report, Waiting, Word, tid_time};
use crate::text::{self, time};

/// What came so recently may still be under way, in milliseconds.
const UNDER_WAY: i64 = 60_000;

/// What was found, for both questions.
struct Found<'r> {
    report: &'r Report,
    did: &'r str,
    held: Option<&'r Held>,
    repo: Option<&'r RepoRow>,
    host: Option<&'r Host>,
    waiting: Option<&'r Waiting>,
}

pub(crate) fn no_account(asked: &Asked) -> Answer {
    let text = format!("No account has the handle of {asked}: neither does its owner name one, nor does a row.");
    answer(Word::NoAccount, Some(true), text)
}

pub(crate) fn account_unknown(asked: &Asked, why: &str) -> Answer {
    let text = format!("Whose the handle of {asked} is could not be found out: {why}.");
    answer(Word::Unknown, None, text).advise("give the account's DID instead")
}

/// Answers of a record, or of a repo.
pub(crate) fn judge(report: &Report, path: Option<&RecordPath>) -> Answer {
    let held = report.held.get();
    let found = Found {
        report,
        did: report.did.as_deref().unwrap_or_default(),
        held,
        repo: held.and_then(|held| held.repo.as_ref()),
        host: report.host.get(),
        waiting: report.waiting.get(),
    };
    match path {
        None => found.of_repo(),
        Some(path) => match held.and_then(|held| held.record.as_ref()) {
            Some(rows) if rows.is_held() => found.of_held(rows),
            Some(rows) => found.of_absent(rows, path),
            None => found.without_tables(),
        },
    }
}

fn answer(word: Word, good: impl Into<Option<bool>>, text: impl Into<String>) -> Answer {
    Answer { word, good: good.into(), text: text.into(), advice: Vec::new() }
}

fn left_out(by: &str) -> Answer {
    answer(Word::LeftOut, true, format!("Not stored: a filter leaves it out ({by})."))
}

// === impl Answer ===

impl Answer {
    fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice.push(advice.into());
        self
    }
}

// === impl Found ===

impl Found<'_> {
    /// A record that is held somewhere.
    fn of_held(&self, rows: &RecordRows) -> Answer {
        let place = [&rows.row, &rows.wide].into_iter().flatten().next();
        let table = place.map_or("penstock.shadowed", |place| &place.table);
        if let Some(entry) = self.waiting.and_then(|waiting| waiting.entries.iter().find(|entry| entry.names_record)) {
            let text =
                format!("Stored in {table}, and a newer commit of it waits in the stream since {}.", time(entry.at));
            return answer(Word::Waiting, None, text);
        }
        let at_host = self.host.and_then(|host| host.record.as_ref());
        if let Some(record) = at_host.filter(|record| !record.exists) {
            let _ = record;
            let text =
                format!("Stored in {table}, but its host no longer has it: a delete was missed, or is under way.");
            return answer(Word::Leftover, false, text).advise(self.repair());
        }
        let cids = at_host.and_then(|record| record.cid.as_deref()).zip(rows.cid());
        if let Some((at_host, held)) = cids.filter(|(one, other)| one != other) {
            let text = format!(
                "Stored in {table} with the CID {held}, but its host has {at_host}: an update was missed, or is under way."
            );
            return answer(Word::Outdated, false, text).advise(self.repair());
        }
        if let (None, Some(shadow)) = (place, &rows.shadow) {
            let place: Vec<String> = shadow.place.iter().map(|(column, value)| format!("{column} {value}")).collect();
            let holder = shadow.holder.as_deref().unwrap_or("another record");
            let why = if shadow.table == "verifications" {
                "of verifications of one account the one with the lowest URI is visible"
            } else {
                "of an account's records with the same subject the latest one is visible"
            };
            let text = format!(
                "Stored, but not visible in {}: {holder} holds its place ({}), because {why}.",
                shadow.table,
                place.join(", ")
            );
            return answer(Word::Shadowed, true, text);
        }
        let is_alone = rows.row.is_none();
        let when = place
            .and_then(|place| place.entry_at.or(place.indexed_at))
            .map_or_else(String::new, |at| format!(", since {}", time(at)));
        let checked = if at_host.is_some() { ", as its host has it" } else { "" };
        if is_alone {
            let text = format!(
                "Stored in penstock.records alone{when}{checked}: the AppView's columns are too narrow for it."
            );
            return answer(Word::StoredAlone, true, text);
        }
        let hidden = self.hidden();
        let text = format!("Stored in {table}{when}{checked}.{hidden}");
        answer(Word::Stored, true, text)
    }

    /// A record that is held nowhere.
    fn of_absent(&self, rows: &RecordRows, path: &RecordPath) -> Answer {
        let at_host = self.host.and_then(|host| host.record.as_ref()).map(|record| record.exists);
        if self.repo.is_some_and(|repo| repo.opted_out) {
            return self.opted_out();
        }
        if let Some(entry) = self.waiting.and_then(|waiting| waiting.entries.iter().find(|entry| entry.names_record)) {
            let hands = if entry.delivered { "a worker has it in hand" } else { "no worker has read it yet" };
            let text = format!("Not stored yet: its commit is in the stream since {}, and {hands}.", time(entry.at));
            return answer(Word::Waiting, None, text);
        }
        if let Some(letter) = self.letter() {
            return self.of_letter(letter);
        }
        if let Some(gone) = self.deleted_account() {
            return gone;
        }
        if let Some(tombstone) = &rows.tombstone {
            let when =
                tombstone.entry_at.or(tombstone.rev_at).map_or_else(String::new, |at| format!(" at {}", time(at)));
            if at_host == Some(true) {
                let text = format!(
                    "Deleted here{when}, but its host has it: it was made again since and that was missed, or is under way."
                );
                return answer(Word::WronglyDeleted, false, text).advise(self.repair());
            }
            return answer(Word::Deleted, true, format!("Deleted by its account{when}."));
        }
        if let Some(by) = &self.report.left_out_by {
            return left_out(by);
        }
        if at_host == Some(false) {
            return answer(Word::NotAtHost, true, "Not stored, and its host does not have it either.");
        }
        if let Some(host) = self.host.filter(|host| host.active == Some(false)) {
            return self.not_shown(host);
        }
        self.of_missing(path, at_host == Some(true))
    }

    /// A record that nothing here explains.
    fn of_missing(&self, path: &RecordPath, is_at_host: bool) -> Answer {
        let host_has = if is_at_host { "its host has it" } else { "its host was not asked" };
        let Some(repo) = self.repo else {
            let text =
                format!("Not stored: no event of this account was ever applied{}, and {host_has}.", self.since());
            return answer(Word::NeverSeen, if is_at_host { Some(false) } else { None }, text).advise(self.backfill());
        };
        if let Some(sync) = &repo.sync {
            let since = repo.sync_at.map_or_else(String::new, |at| format!(" since {}", time(at)));
            let text = format!(
                "Not stored, and {host_has}: the repo is desynchronized{since} ({}).{}",
                text::sync(sync),
                self.repair_told()
            );
            return answer(Word::Desynchronized, false, text).advise(self.repair());
        }
        if self.held.is_some_and(|held| held.repair.is_some()) {
            let text = format!("Not stored, and {host_has}.{}", self.repair_told());
            return answer(Word::Repair, false, text).advise(self.repair());
        }
        let made = tid_time(&path.rkey);
        let since = self.held.and_then(|held| held.since);
        if let Some((made, since)) = made.zip(since).filter(|(made, since)| made < since) {
            let text = format!(
                "Not stored, and {host_has}: by its key it was made at {}, and this database was created at {}. What is older comes with a backfill.",
                time(made),
                time(since)
            );
            return answer(Word::BeforeReading, if is_at_host { Some(false) } else { None }, text)
                .advise(self.backfill());
        }
        let host_rev = self.host.and_then(|host| host.rev.as_deref().zip(host.rev_at));
        if let Some((_, at)) = host_rev.filter(|(rev, _)| is_at_host && Some(*rev) > repo.rev.as_deref()) {
            let recent = self.report.at - at < UNDER_WAY;
            let good = if recent { None } else { Some(false) };
            let text = format!(
                "Not stored, and its host has it: the last commit there is of {}, the last one applied here {}.{}",
                time(at),
                repo.rev_at.map_or_else(|| "of an unknown time".to_owned(), |at| format!("of {}", time(at))),
                if recent { " It may still be under way: look again in a minute." } else { "" }
            );
            let answer = answer(Word::Behind, good, text);
            return if recent { answer } else { answer.advise(self.repair()) };
        }
        let searched = if self.waiting.is_some_and(|waiting| waiting.complete) {
            ""
        } else {
            " What waits in the stream was not looked through to its end."
        };
        if is_at_host {
            let text =
                format!("Not stored, though its host has it, and nothing here says why: it was missed.{searched}");
            let good = if searched.is_empty() { Some(false) } else { None };
            return answer(Word::Missing, good, text).advise(self.repair());
        }
        let why = self.report.host.unknown.as_deref();
        let why = why.or_else(|| self.host.and_then(|host| host.record_error.as_deref())).unwrap_or("no reason told");
        let text = format!(
            "Not stored, and nothing here says why. Whether its host has it could not be found out: {why}.{searched}"
        );
        answer(Word::Unknown, None, text)
    }

    /// A record, without PostgreSQL.
    fn without_tables(&self) -> Answer {
        if let Some(letter) = self.letter() {
            return self.of_letter(letter);
        }
        if let Some(entry) = self.waiting.and_then(|waiting| waiting.entries.iter().find(|entry| entry.names_record)) {
            return answer(Word::Waiting, None, format!("Its commit is in the stream since {}.", time(entry.at)));
        }
        let why = self.report.held.unknown.as_deref().unwrap_or("not asked");
        let host = match self.host.and_then(|host| host.record.as_ref()) {
            Some(record) if record.exists => " Its host has it.",
            Some(_) => " Its host does not have it.",
            None => "",
        };
        answer(Word::Unknown, None, format!("Whether it is stored is not known: {why}.{host}"))
    }

    /// A repo.
    fn of_repo(&self) -> Answer {
        if self.held.is_none() {
            let why = self.report.held.unknown.as_deref().unwrap_or("not asked");
            return answer(Word::Unknown, None, format!("What is held of it is not known: {why}."));
        }
        if self.repo.is_some_and(|repo| repo.opted_out) {
            return self.opted_out();
        }
        if let Some(gone) = self.deleted_account() {
            return gone;
        }
        if let Some(by) = self.report.left_out_by.as_ref().filter(|_| self.repo.is_none_or(|repo| repo.rev.is_none())) {
            return left_out(by);
        }
        let Some(repo) = self.repo else {
            if let Some(host) = self.host.filter(|host| host.active == Some(false)) {
                return self.not_shown(host);
            }
            let text = format!("Nothing is held: no event of this account was ever applied{}.", self.since());
            return answer(Word::NeverSeen, None, text).advise(self.backfill());
        };
        if let Some(sync) = &repo.sync {
            let since = repo.sync_at.map_or_else(String::new, |at| format!(" since {}", time(at)));
            let text = format!("Desynchronized{since}: {}.{}", text::sync(sync), self.repair_told());
            return answer(Word::Desynchronized, false, text).advise(self.repair());
        }
        if self.held.is_some_and(|held| held.repair.is_some()) {
            return answer(Word::Repair, false, self.repair_told().trim_start()).advise(self.repair());
        }
        let letters = &self.report.letters;
        if let Some(letter) = letters.letters.first() {
            let more = if letters.more { " or more" } else { "" };
            let text = format!(
                "Held, but for {}{more} dead {}, the last of {}: {}.",
                letters.letters.len(),
                if letters.letters.len() == 1 { "letter" } else { "letters" },
                time(letter.at),
                text::cut(&letter.error)
            );
            return answer(Word::DeadLetter, false, text).advise(LETTERS);
        }
        if repo.active == Some(false) {
            let status = repo.status.as_deref().unwrap_or("no reason told");
            let text = match self.host.and_then(|host| host.active) {
                Some(true) => {
                    return answer(
                        Word::NotActive,
                        false,
                        format!(
                            "Held, and hidden: the last account event says {status}, but its host says that it is active. The event that says so was missed, or is under way."
                        ),
                    );
                }
                _ => format!("Held, and hidden: the account is not active ({status})."),
            };
            return answer(Word::NotActive, true, text);
        }
        self.by_revs(repo)
    }

    /// Compares the revs of both sides.
    fn by_revs(&self, repo: &RepoRow) -> Answer {
        let held_at = repo.rev_at.map_or_else(String::new, |at| format!(", last commit of {}", time(at)));
        let Some(rev) = self.host.and_then(|host| host.rev.as_deref()) else {
            let why = self.report.host.unknown.as_deref();
            let why = why.or_else(|| self.host.and_then(|host| host.error.as_deref())).unwrap_or("it names no rev");
            let text = format!("Held{held_at}. Its host could not be asked: {why}.");
            return answer(Word::Held, None, text);
        };
        let at = self.host.and_then(|host| host.rev_at);
        let Some(own) = repo.rev.as_deref() else {
            let text =
                "Known, but no commit of it was ever applied: its records are those of other programs, or not here.";
            return answer(Word::Behind, false, text).advise(self.backfill());
        };
        if own == rev {
            return answer(
                Word::InStep,
                true,
                format!(
                    "Held up to the last commit that its host has{}.",
                    at.map_or_else(String::new, |at| format!(", of {}", time(at)))
                ),
            );
        }
        if own > rev {
            let text = format!(
                "Held{held_at}, which its host does not have: the host went back to an older state, or the account is on another one now."
            );
            return answer(Word::Ahead, false, text).advise(self.repair());
        }
        if let Some(entry) = self.waiting.and_then(|waiting| waiting.entries.first()) {
            let text = format!(
                "Held{held_at}; what came since waits in the stream, the first of it since {}.",
                time(entry.at)
            );
            return answer(Word::Waiting, None, text);
        }
        let recent = at.is_some_and(|at| self.report.at - at < UNDER_WAY);
        let host_at = at.map_or_else(|| rev.to_owned(), time);
        let text = format!(
            "Behind: its host's last commit is of {host_at}, the last one applied here {}.",
            repo.rev_at.map_or_else(|| own.to_owned(), |at| format!("of {}", time(at)))
        );
        if recent {
            return answer(Word::Behind, None, format!("{text} It may still be under way: look again in a minute."));
        }
        answer(Word::Behind, false, text).advise(self.repair())
    }

    fn opted_out(&self) -> Answer {
        answer(Word::OptedOut, true, "Not kept: the account opted out (user_settings.data_collection_forbidden).")
    }

    /// An account that is deleted, as far as that is carried out.
    fn deleted_account(&self) -> Option<Answer> {
        let repo = self.repo?;
        let is_gone = repo.status.as_deref() == Some("deleted") && repo.active == Some(false);
        if !is_gone {
            return None;
        }
        let at = repo.deleted_through.map_or_else(String::new, |at| format!(" at {}", time(at)));
        let rows = if repo.sweeping { "its rows are being removed" } else { "its rows are removed" };
        let claim = self.held.and_then(|held| held.claim.as_ref());
        let rows = if repo.deleted_through.is_none() || claim.is_some_and(|claim| claim.confirmed_at.is_none()) {
            "whether that is true is being found out"
        } else {
            rows
        };
        Some(match self.host.and_then(|host| host.active) {
            Some(true) => answer(
                Word::NotActive,
                false,
                format!("The account was deleted{at}, and {rows}; but its host says that it is active."),
            )
            .advise(self.backfill()),
            _ => answer(Word::NotActive, true, format!("The account was deleted{at}, and {rows}.")),
        })
    }

    /// An account that its host does not show.
    fn not_shown(&self, host: &Host) -> Answer {
        let text = match host.status.as_deref() {
            Some("notFound") => "Nothing is held, and the host that its document names has no such account.".to_owned(),
            Some("noHost") => "Nothing is held, and its document names no host.".to_owned(),
            status => format!(
                "Nothing is held, and its host does not show the account ({}).",
                status.unwrap_or("no reason told")
            ),
        };
        answer(Word::NotActive, true, text)
    }

    /// The letter that names the record.
    fn letter(&self) -> Option<&Letter> {
        self.report.letters.letters.iter().find(|letter| letter.names_record)
    }

    fn of_letter(&self, letter: &Letter) -> Answer {
        let text = format!("Not stored: it is a dead letter since {}: {}.", time(letter.at), text::cut(&letter.error));
        answer(Word::DeadLetter, false, text).advise(LETTERS)
    }

    /// Says of a stored record that its account is hidden.
    fn hidden(&self) -> String {
        let status = self.repo.filter(|repo| repo.active == Some(false)).map(|repo| repo.status.as_deref());
        status.map_or_else(String::new, |status| {
            format!(" The account is not active ({}), so an AppView hides it.", status.unwrap_or("no reason told"))
        })
    }

    fn since(&self) -> String {
        let since = self.held.and_then(|held| held.since);
        since.map_or_else(String::new, |since| format!(" since this database was created at {}", time(since)))
    }

    fn repair_told(&self) -> String {
        let Some(repair) = self.held.and_then(|held| held.repair.as_ref()) else { return String::new() };
        let since = repair.since.map_or_else(String::new, |at| format!(" since {}", time(at)));
        let state = match (&repair.error, repair.running) {
            (_, true) => ", a healer is at it".to_owned(),
            (Some(error), false) => format!(", tried {} times, the last time: {}", repair.attempts, text::cut(error)),
            (None, false) => String::new(),
        };
        format!(" It is listed for repair{since} ({}){state}.", repair.reason)
    }

    fn repair(&self) -> String {
        format!("penstock audit {} --repair", self.did)
    }

    fn backfill(&self) -> String {
        format!("penstock backfill {}", self.did)
    }
}

const LETTERS: &str = "mend the cause, then replay the letter: see docs/operations.md, Dead letters";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{ClaimRow, HostRecord, Letters, Place, RepairRow, Shadow, WaitingEntry};

    const NOW: i64 = 1_900_000_000_000;

    /// Everything is asked, and all is as it should be: a record that is held as its host has it.
    fn report(change: impl FnOnce(&mut Report, &mut Held, &mut Host, &mut Waiting)) -> Report {
        let asked = Asked::read("at://did:plc:a/app.bsky.feed.post/3k").unwrap();
        let mut report = Report::of(&asked);
        (report.did, report.at) = (Some("did:plc:a".to_owned()), NOW);
        let place = Place { table: "posts".to_owned(), cid: Some("bafy1".to_owned()), ..Place::default() };
        let record = RecordRows { row: Some(place), ..RecordRows::default() };
        let repo =
            RepoRow { rev: rev(NOW - 500_000), rev_at: Some(NOW - 500_000), active: Some(true), ..RepoRow::default() };
        let mut held =
            Held { repo: Some(repo), record: Some(record), since: Some(NOW - 1_000_000_000), ..Held::default() };
        let mut host = Host {
            active: Some(true),
            rev: rev(NOW - 500_000),
            rev_at: Some(NOW - 500_000),
            record: Some(HostRecord { exists: true, cid: Some("bafy1".to_owned()) }),
            ..Host::default()
        };
        let mut waiting = Waiting { complete: true, ..Waiting::default() };
        change(&mut report, &mut held, &mut host, &mut waiting);
        if report.held.unknown.as_deref() == Some("not asked") {
            report.held = crate::report::Part::found(held);
        }
        if report.host.unknown.as_deref() == Some("not asked") {
            report.host = crate::report::Part::found(host);
        }
        report.waiting = crate::report::Part::found(waiting);
        report
    }

    fn rev(ms: i64) -> Option<String> {
        Some(penstock_wire::rev_text((ms.unsigned_abs() * 1000) << 10))
    }

    fn entry(names_record: bool) -> WaitingEntry {
        let (stream, id, kind) = ("s".to_owned(), "1-0".to_owned(), "commit".to_owned());
        WaitingEntry { stream, id, at: NOW - 5_000, kind, delivered: false, names_record }
    }

    fn letter(names_record: bool) -> Letters {
        let letter = Letter {
            source: "redis",
            id: "1-0".to_owned(),
            orig_id: String::new(),
            at: NOW - 5_000,
            kind: "commit".to_owned(),
            error: "op 0: too\u{1b}[31m deep".to_owned(),
            names_record,
        };
        Letters { letters: vec![letter], ..Letters::default() }
    }

    fn absent(held: &mut Held) {
        held.record = Some(RecordRows::default());
    }

    type Change = fn(&mut Report, &mut Held, &mut Host, &mut Waiting);

    #[test]
    fn of_a_record_the_first_thing_that_explains_it_is_the_answer() {
        let cases: &[(&str, Change, Word, Option<bool>)] = &[
            ("all is well", |_, _, _, _| {}, Word::Stored, Some(true)),
            (
                "the host has another",
                |_, _, host, _| host.record.as_mut().unwrap().cid = Some("bafy2".to_owned()),
                Word::Outdated,
                Some(false),
            ),
            (
                "the host has it no longer",
                |_, _, host, _| host.record = Some(HostRecord::default()),
                Word::Leftover,
                Some(false),
            ),
            (
                "its delete waits",
                |_, _, host, waiting| {
                    host.record = Some(HostRecord::default());
                    waiting.entries.push(entry(true));
                },
                Word::Waiting,
                None,
            ),
            ("another entry waits", |_, _, _, waiting| waiting.entries.push(entry(false)), Word::Stored, Some(true)),
            ("the host was not asked", |_, _, host, _| host.record = None, Word::Stored, Some(true)),
            (
                "shadowed",
                |_, held, _, _| {
                    held.record = Some(RecordRows {
                        shadow: Some(Shadow { table: "likes".to_owned(), ..Shadow::default() }),
                        ..RecordRows::default()
                    });
                },
                Word::Shadowed,
                Some(true),
            ),
            (
                "alone",
                |_, held, _, _| {
                    let rows = held.record.as_mut().unwrap();
                    rows.wide = rows.row.take();
                },
                Word::StoredAlone,
                Some(true),
            ),
            ("missed", |_, held, _, _| absent(held), Word::Missing, Some(false)),
            (
                "missed, and not all was looked through",
                |_, held, _, waiting| {
                    absent(held);
                    waiting.complete = false;
                },
                Word::Missing,
                None,
            ),
            (
                "it waits",
                |_, held, _, waiting| {
                    absent(held);
                    waiting.entries.push(entry(true));
                },
                Word::Waiting,
                None,
            ),
            (
                "a letter",
                |report, held, _, _| {
                    absent(held);
                    report.letters = letter(true);
                },
                Word::DeadLetter,
                Some(false),
            ),
            (
                "a letter of another",
                |report, held, _, _| {
                    absent(held);
                    report.letters = letter(false);
                },
                Word::Missing,
                Some(false),
            ),
            (
                "left out",
                |report, held, _, _| {
                    absent(held);
                    report.left_out_by = Some("!app.bsky.feed.post".to_owned());
                },
                Word::LeftOut,
                Some(true),
            ),
            (
                "held, and left out by now",
                |report, _, _, _| report.left_out_by = Some("x".to_owned()),
                Word::Stored,
                Some(true),
            ),
            (
                "deleted",
                |_, held, host, _| {
                    held.record = Some(RecordRows { tombstone: Some(Place::default()), ..RecordRows::default() });
                    host.record = Some(HostRecord::default());
                },
                Word::Deleted,
                Some(true),
            ),
            (
                "deleted, and the host has it",
                |_, held, _, _| {
                    held.record = Some(RecordRows { tombstone: Some(Place::default()), ..RecordRows::default() });
                },
                Word::WronglyDeleted,
                Some(false),
            ),
            (
                "not at the host",
                |_, held, host, _| {
                    absent(held);
                    host.record = Some(HostRecord::default());
                },
                Word::NotAtHost,
                Some(true),
            ),
            (
                "the host is away",
                |_, held, host, _| {
                    absent(held);
                    host.record = None;
                },
                Word::Unknown,
                None,
            ),
            (
                "the host shows no such account",
                |_, held, host, _| {
                    absent(held);
                    host.record = None;
                    host.active = Some(false);
                },
                Word::NotActive,
                Some(true),
            ),
            (
                "opted out",
                |_, held, _, _| {
                    absent(held);
                    held.repo.as_mut().unwrap().opted_out = true;
                },
                Word::OptedOut,
                Some(true),
            ),
            (
                "deleted account",
                |_, held, host, _| {
                    absent(held);
                    let repo = held.repo.as_mut().unwrap();
                    (repo.active, repo.status) = (Some(false), Some("deleted".to_owned()));
                    host.active = Some(false);
                },
                Word::NotActive,
                Some(true),
            ),
            (
                "deleted account, which its host has",
                |_, held, _, _| {
                    absent(held);
                    let repo = held.repo.as_mut().unwrap();
                    (repo.active, repo.status) = (Some(false), Some("deleted".to_owned()));
                },
                Word::NotActive,
                Some(false),
            ),
            (
                "never seen",
                |_, held, _, _| {
                    absent(held);
                    held.repo = None;
                },
                Word::NeverSeen,
                Some(false),
            ),
            (
                "desynchronized",
                |_, held, _, _| {
                    absent(held);
                    held.repo.as_mut().unwrap().sync = Some("since".to_owned());
                },
                Word::Desynchronized,
                Some(false),
            ),
            (
                "listed",
                |_, held, _, _| {
                    absent(held);
                    held.repair = Some(RepairRow::default());
                },
                Word::Repair,
                Some(false),
            ),
            (
                "the host is ahead",
                |_, held, host, _| {
                    absent(held);
                    host.rev = rev(NOW - 400_000);
                    host.rev_at = Some(NOW - 400_000);
                },
                Word::Behind,
                Some(false),
            ),
            (
                "the host is ahead by a moment",
                |_, held, host, _| {
                    absent(held);
                    host.rev = rev(NOW - 1_000);
                    host.rev_at = Some(NOW - 1_000);
                },
                Word::Behind,
                None,
            ),
            ("no tables", |report, _, _, _| report.held = crate::report::Part::unknown("away"), Word::Unknown, None),
            (
                "no tables, and a letter",
                |report, _, _, _| {
                    report.held = crate::report::Part::unknown("away");
                    report.letters = letter(true);
                },
                Word::DeadLetter,
                Some(false),
            ),
        ];
        let path = RecordPath { collection: "app.bsky.feed.post".to_owned(), rkey: "3k".to_owned() };
        for (name, change, word, good) in cases {
            let answer = judge(&report(change), Some(&path));
            assert_eq!((answer.word, answer.good), (*word, *good), "{name}: {}", answer.text);
            assert!(answer.text.ends_with('.') && !answer.text.contains('\u{1b}'), "{name}: {}", answer.text);
        }
    }

    #[test]
    fn a_key_that_is_older_than_the_database_says_so() {
        let path = |ms: i64| RecordPath { collection: "app.bsky.feed.post".to_owned(), rkey: rev(ms).unwrap() };
        let missing = report(|_, held, _, _| absent(held));
        assert_eq!(judge(&missing, Some(&path(NOW - 2_000_000_000))).word, Word::BeforeReading);
        assert_eq!(judge(&missing, Some(&path(NOW - 1_000))).word, Word::Missing);
        let unknown = report(|_, held, _, _| {
            absent(held);
            held.since = None;
        });
        assert_eq!(judge(&unknown, Some(&path(NOW - 2_000_000_000))).word, Word::Missing);
    }

    #[test]
    fn of_a_repo_what_is_wrong_comes_before_how_far_it_is() {
        let cases: &[(&str, Change, Word, Option<bool>)] = &[
            ("in step", |_, _, _, _| {}, Word::InStep, Some(true)),
            (
                "behind",
                |_, _, host, _| {
                    host.rev = rev(NOW - 400_000);
                    host.rev_at = Some(NOW - 400_000);
                },
                Word::Behind,
                Some(false),
            ),
            (
                "behind by a moment",
                |_, _, host, _| {
                    host.rev = rev(NOW - 1_000);
                    host.rev_at = Some(NOW - 1_000);
                },
                Word::Behind,
                None,
            ),
            (
                "behind, and it waits",
                |_, _, host, waiting| {
                    host.rev = rev(NOW - 400_000);
                    waiting.entries.push(entry(false));
                },
                Word::Waiting,
                None,
            ),
            ("ahead", |_, _, host, _| host.rev = rev(NOW - 600_000), Word::Ahead, Some(false)),
            ("the host is away", |_, _, host, _| host.rev = None, Word::Held, None),
            ("no commit", |_, held, _, _| held.repo.as_mut().unwrap().rev = None, Word::Behind, Some(false)),
            ("never seen", |_, held, _, _| held.repo = None, Word::NeverSeen, None),
            (
                "nowhere",
                |_, held, host, _| {
                    held.repo = None;
                    (host.active, host.status) = (Some(false), Some("notFound".to_owned()));
                },
                Word::NotActive,
                Some(true),
            ),
            (
                "left out",
                |report, held, _, _| {
                    held.repo = None;
                    report.left_out_by = Some("filter.excludeRepos".to_owned());
                },
                Word::LeftOut,
                Some(true),
            ),
            (
                "desynchronized",
                |report, held, _, _| {
                    held.repo.as_mut().unwrap().sync = Some("sync".to_owned());
                    report.letters = letter(false);
                },
                Word::Desynchronized,
                Some(false),
            ),
            ("listed", |_, held, _, _| held.repair = Some(RepairRow::default()), Word::Repair, Some(false)),
            ("a letter", |report, _, _, _| report.letters = letter(false), Word::DeadLetter, Some(false)),
            (
                "deactivated",
                |_, held, host, _| {
                    (held.repo.as_mut().unwrap().active, host.active) = (Some(false), Some(false));
                },
                Word::NotActive,
                Some(true),
            ),
            (
                "deactivated here alone",
                |_, held, _, _| held.repo.as_mut().unwrap().active = Some(false),
                Word::NotActive,
                Some(false),
            ),
            (
                "said to be deleted",
                |_, held, host, _| {
                    let repo = held.repo.as_mut().unwrap();
                    (repo.active, repo.status) = (Some(false), Some("deleted".to_owned()));
                    host.active = None;
                    held.claim = Some(ClaimRow::default());
                },
                Word::NotActive,
                Some(true),
            ),
            ("no tables", |report, _, _, _| report.held = crate::report::Part::unknown("away"), Word::Unknown, None),
        ];
        for (name, change, word, good) in cases {
            let answer = judge(&report(change), None);
            assert_eq!((answer.word, answer.good), (*word, *good), "{name}: {}", answer.text);
            assert!(answer.text.ends_with('.') && !answer.text.contains('\u{1b}'), "{name}: {}", answer.text);
        }
    }
}
