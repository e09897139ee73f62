//! Tells a report to people: the answer first, then what it follows from.

use std::fmt::Write as _;

use jiff::Timestamp;

use crate::report::{Held, Host, Place, Report, Waiting};

/// The longest text of others that is told in a line, in bytes.
const LONGEST: usize = 200;

/// How many collections, entries and letters are told.
const MOST: usize = 12;

/// Writes a time, in UTC.
pub(crate) fn time(ms: i64) -> String {
    let time = Timestamp::from_millisecond(ms).unwrap_or(Timestamp::UNIX_EPOCH);
    time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// Cuts what others wrote, and takes out what a terminal would obey.
pub(crate) fn cut(text: &str) -> String {
    let end = text.floor_char_boundary(LONGEST);
    let mut cut: String =
        text.get(..end).unwrap_or_default().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if end < text.len() {
        cut.push('…');
    }
    cut.trim_end_matches(['.', ' ']).to_owned()
}

/// Says in words why a repo is desynchronized.
pub(crate) fn sync(word: &str) -> String {
    match word {
        "since" => "a commit follows another one than the last one here".to_owned(),
        "prev_data" => "a commit changes another tree than the last one here left".to_owned(),
        "sync" => "its host said so with #sync".to_owned(),
        "refused" => "a commit proved wrong, and was refused".to_owned(),
        other => cut(other),
    }
}

// === impl Report ===

impl Report {
    /// Writes the report for people.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text =
            format!("{}\n{}\n", self.uri.as_ref().or(self.did.as_ref()).unwrap_or(&self.asked), self.answer.text);
        for advice in &self.answer.advice {
            let _ = writeln!(text, "  → {advice}");
        }
        if self.did.is_none() {
            return text;
        }
        text.push('\n');
        let mut line = |name: &str, value: &str| {
            let _ = writeln!(text, "  {name:<9} {value}");
        };
        if let Some(by) = &self.left_out_by {
            line("filter", &format!("leaves it out ({})", cut(by)));
        }
        match self.host.get() {
            Some(host) => host_lines(host, &mut line),
            None => line("host", &unasked(self.host.unknown.as_deref())),
        }
        match self.held.get() {
            Some(held) => held_lines(held, self.uri.is_some(), &mut line),
            None => line("held", &unasked(self.held.unknown.as_deref())),
        }
        match self.waiting.get() {
            Some(waiting) => waiting_lines(waiting, &mut line),
            None => line("stream", &unasked(self.waiting.unknown.as_deref())),
        }
        self.letter_lines(&mut line);
        text
    }

    fn letter_lines(&self, line: &mut dyn FnMut(&str, &str)) {
        let letters = &self.letters;
        let mut name = "letters";
        for (place, why) in [("redis", &letters.redis_unknown), ("postgresql", &letters.postgres_unknown)] {
            if let Some(why) = why {
                line(name, &format!("those in {place} are not known: {why}"));
                name = "";
            }
        }
        if letters.letters.is_empty() && name == "letters" {
            line(name, "none");
        }
        for letter in letters.letters.iter().take(MOST) {
            let names = if letter.names_record { ", names the record" } else { "" };
            let told = format!(
                "{} in {}, {}, {}{names}: {}",
                letter.id,
                letter.source,
                letter.kind,
                time(letter.at),
                cut(&letter.error)
            );
            line(name, &told);
            name = "";
        }
        if letters.more || letters.letters.len() > MOST {
            line(name, "and more");
        }
    }
}

fn unasked(why: Option<&str>) -> String {
    format!("not asked: {}", why.unwrap_or("no reason told"))
}

fn host_lines(host: &Host, line: &mut dyn FnMut(&str, &str)) {
    let name = host.host.as_deref().unwrap_or("none in the account's document");
    let state = match (host.active, &host.error) {
        (_, Some(error)) => format!(", could not be asked: {}", cut(error)),
        (Some(true), _) => match (&host.rev, host.rev_at) {
            (Some(rev), Some(at)) => format!(", active, rev {rev} of {}", time(at)),
            (Some(rev), None) => format!(", active, rev {rev}"),
            (None, _) => ", active".to_owned(),
        },
        (Some(false), _) => format!(", not active: {}", cut(host.status.as_deref().unwrap_or("no reason told"))),
        (None, None) => String::new(),
    };
    line("host", &format!("{}{state}", cut(name)));
    match (&host.record, &host.record_error) {
        (Some(record), _) if record.exists => {
            line("", &format!("has the record, CID {}", cut(record.cid.as_deref().unwrap_or("not told"))));
        }
        (Some(_), _) => line("", "does not have the record"),
        (None, Some(error)) => line("", &format!("could not be asked for the record: {}", cut(error))),
        (None, None) => {}
    }
    if let Some(handle) = &host.handle {
        line("handle", &format!("{}, {}", cut(handle), leads_back(host.handle_valid)));
    }
}

fn leads_back(valid: Option<bool>) -> &'static str {
    match valid {
        Some(true) => "leads back to the account",
        Some(false) => "does NOT lead back to the account",
        None => "not checked",
    }
}

fn held_lines(held: &Held, of_record: bool, line: &mut dyn FnMut(&str, &str)) {
    if let Some(record) = &held.record {
        let mut name = "record";
        let mut told = |what: &str, place: &Option<Place>| {
            if let Some(place) = place {
                line(name, &format!("{what} {}", place_text(place)));
                name = "";
            }
        };
        told("row in", &record.row);
        told("row in", &record.wide);
        told("deleted, remembered in", &record.tombstone);
        if let Some(shadow) = &record.shadow {
            line(
                name,
                &format!(
                    "waits in penstock.shadowed for its place in {}, held by {}",
                    shadow.table,
                    shadow.holder.as_deref().unwrap_or("none")
                ),
            );
        } else if name == "record" {
            line(name, "no row, and no delete of it is remembered");
        }
    }
    match &held.repo {
        None => line("held", "no event of this account was ever applied"),
        Some(repo) => {
            let rev = match (&repo.rev, repo.rev_at) {
                (Some(rev), Some(at)) => format!("rev {rev} of {}", time(at)),
                (Some(rev), None) => format!("rev {rev}"),
                (None, _) => "no rev".to_owned(),
            };
            let root = repo.root.as_ref().map_or_else(String::new, |root| format!(", root {root}…"));
            line("held", &format!("{rev}{root}"));
            let status = match (repo.active, &repo.status) {
                (None, _) => "no account event came".to_owned(),
                (Some(true), _) => "active".to_owned(),
                (Some(false), status) => format!("not active ({})", cut(status.as_deref().unwrap_or("no reason told"))),
            };
            let at = repo.account_at.map_or_else(String::new, |at| format!(", since {}", time(at)));
            line("account", &format!("{status}{at}"));
            if let Some(handle) = &repo.handle {
                let at = repo.identity_at.map_or_else(String::new, |at| format!(" (identity event of {})", time(at)));
                line("", &format!("handle {}{at}", cut(handle)));
            }
            if let Some(why) = &repo.sync {
                let at = repo.sync_at.map_or_else(String::new, |at| format!(" since {}", time(at)));
                line("sync", &format!("desynchronized{at}: {}", sync(why)));
            }
            if repo.opted_out {
                line("", "opted out (user_settings.data_collection_forbidden)");
            }
            if let Some(at) = repo.deleted_through {
                let rows = if repo.sweeping { "are being removed" } else { "are removed" };
                line("", &format!("deleted at {}: rows up to then {rows}", time(at)));
            }
        }
    }
    if let Some(claim) = &held.claim {
        let since = claim.since.map_or_else(String::new, |at| format!(" since {}", time(at)));
        let state = match (claim.confirmed_at, &claim.error) {
            (Some(at), _) => format!("confirmed by its host at {}", time(at)),
            (None, Some(error)) => format!("its host could not be asked: {}", cut(error)),
            (None, None) => "its host is to be asked".to_owned(),
        };
        line("claim", &format!("said to be {}{since}, {state}", cut(claim.status.as_deref().unwrap_or("gone"))));
    }
    if let Some(repair) = &held.repair {
        let since = repair.since.map_or_else(String::new, |at| format!(" since {}", time(at)));
        let state = match (repair.running, repair.due) {
            (true, _) => ", a healer is at it".to_owned(),
            (false, Some(due)) => format!(", due {}", time(due)),
            (false, None) => String::new(),
        };
        let error = repair
            .error
            .as_ref()
            .map_or_else(String::new, |error| format!(", failed {} times: {}", repair.attempts, cut(error)));
        line("repair", &format!("{}{since}{state}{error}", cut(&repair.reason)));
    }
    if let Some(identity) = &held.identity {
        let handle = identity.handle.as_deref().map_or_else(|| "no handle".to_owned(), cut);
        let fetched =
            identity.fetched_at.map_or_else(|| "no document".to_owned(), |at| format!("document of {}", time(at)));
        line(
            "identity",
            &format!(
                "{fetched}: {}, {handle}, {}",
                identity.host.as_deref().map_or_else(|| "no host".to_owned(), cut),
                leads_back(identity.handle_valid)
            ),
        );
    }
    if !of_record {
        let mut name = "records";
        for counted in held.collections.iter().take(MOST) {
            let more = if counted.more { " or more" } else { "" };
            line(name, &format!("{:>6}{more} {} in {}", counted.rows, cut(&counted.collection), counted.table));
            name = "";
        }
        if held.collections.is_empty() {
            line(name, "none");
        }
        if held.more_collections || held.collections.len() > MOST {
            line("", "and others: --output json lists up to 100 for each table");
        }
    }
}

fn place_text(place: &Place) -> String {
    let mut text = place.table.clone();
    if let Some(rev) = &place.rev {
        let _ = write!(text, ", rev {rev}");
    }
    if let Some(at) = place.rev_at {
        let _ = write!(text, " of {}", time(at));
    }
    if let Some(at) = place.entry_at {
        let _ = write!(text, ", entry of {}", time(at));
    }
    if let Some(cid) = &place.cid {
        let _ = write!(text, ", CID {}", cut(cid));
    }
    text
}

fn waiting_lines(waiting: &Waiting, line: &mut dyn FnMut(&str, &str)) {
    let searched = if waiting.complete {
        format!("all {} entries that wait were looked through", waiting.searched)
    } else {
        format!("the first {} entries that wait were looked through", waiting.searched)
    };
    if waiting.entries.is_empty() {
        line("stream", &format!("nothing of it waits ({searched})"));
        return;
    }
    let mut name = "stream";
    for entry in waiting.entries.iter().take(MOST) {
        let names = if entry.names_record { ", names the record" } else { "" };
        let hands = if entry.delivered { "in a worker's hands" } else { "not read yet" };
        line(name, &format!("{} in {}, {}, {hands}{names}", entry.id, entry.stream, cut(&entry.kind)));
        name = "";
    }
    line("", &searched);
}
