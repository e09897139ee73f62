//! What is known of one account: in the table, and over the network.

use std::fmt::Write as _;
use std::io::{Write as _, stdout};
use std::process::ExitCode;

use penstock_core::settings::Settings;
use penstock_identity::stored::{self, Stored};
use penstock_identity::{Handle, Identities, Identity, RepoStatus, ResolveError};
use penstock_telemetry::metrics::Metrics;
use penstock_wire::Key;
use serde_json::{Value, json};

use crate::cli::Show;
use crate::error::Error;

/// What was found out.
#[derive(Debug)]
struct Found {
    did: String,
    table: Option<Table>,
    network: Option<Network>,
}

/// What the table says.
#[derive(Debug)]
enum Table {
    Row(Box<Stored>),
    NoRow,
    /// The database is older than the table.
    Missing,
}

/// What others say now.
#[derive(Debug)]
struct Network {
    document: Result<Identity, ResolveError>,
    handle: Option<Result<Handle, ResolveError>>,
    status: Option<Result<RepoStatus, ResolveError>>,
}

/// Prints what is known; the exit code says whether the account's commits can be verified by it.
pub(super) async fn run(args: &Show, settings: &Settings) -> Result<ExitCode, Error> {
    let table = match super::pool(settings) {
        None => None,
        Some(pool) => Some(match stored::stored(&pool, &args.did).await {
            Ok(Some(row)) => Table::Row(Box::new(row)),
            Ok(None) => Table::NoRow,
            Err(error) if stored::is_missing(&error) => Table::Missing,
            Err(error) => return Err(Error::ReadIdentity(error)),
        }),
    };
    if table.is_none() && args.offline {
        let how =
            "set the database URL, such as DATABASE_URL=postgres://user:password@host/database, or leave out --offline";
        return Err(Error::Missing { field: "postgres.url", how });
    }
    let network = if args.offline { None } else { Some(ask(&args.did, settings).await?) };
    let found = Found { did: args.did.clone(), table, network };
    let text = if args.json { format!("{}\n", found.to_json()) } else { found.to_text() };
    // Nobody reads any more: the exit code still tells.
    let _ = stdout().write_all(text.as_bytes());
    Ok(ExitCode::from(u8::from(!found.is_good())))
}

/// Asks everybody, without the table: it is neither believed nor written.
async fn ask(did: &str, settings: &Settings) -> Result<Network, Error> {
    let identities = Identities::new(settings, None, &Metrics::new())?;
    let document = identities.resolve(did).await;
    let (mut handle, mut status) = (None, None);
    if let Ok(identity) = &document {
        if identity.handle.is_some() {
            handle = Some(identities.handle(did).await);
        }
        status = Some(identities.repo_status(did).await);
    }
    Ok(Network { document, handle, status })
}

// === impl Found ===

impl Found {
    /// Whether commits can be verified by what is known, and nobody says otherwise.
    fn is_good(&self) -> bool {
        let stored = match &self.table {
            Some(Table::Row(row)) => Some(row),
            _ => None,
        };
        match &self.network {
            Some(Network { document: Ok(identity), .. }) => {
                // What the table has not been told yet is asked for when it is needed; what it has wrongly is not.
                let differs =
                    stored.is_some_and(|row| row.fetched.is_some() && row.stale.is_none() && row.key != identity.key);
                identity.key.is_some() && !differs
            }
            Some(_) => false,
            None => stored.is_some_and(|row| row.key.is_some() && row.stale.is_none()),
        }
    }

    fn to_text(&self) -> String {
        let mut text = format!("{}\n", self.did);
        let mut line = |name: &str, value: &str| {
            let _ = writeln!(text, "  {name:<9} {value}");
        };
        match &self.table {
            None => line("table", "no database is set (DATABASE_URL)"),
            Some(Table::NoRow) => line("table", "nothing is known: it is resolved when it is needed"),
            Some(Table::Missing) => {
                line("table", "the database has no table penstock.identities: run penstock migrate");
            }
            Some(Table::Row(row)) => stored_lines(row, &mut line),
        }
        if let Some(network) = &self.network {
            network_lines(network, self.known_key(), &mut line);
        }
        text
    }

    /// The key that the table has of a document; none where it knows of no document.
    fn known_key(&self) -> Option<Option<Key>> {
        match &self.table {
            Some(Table::Row(row)) if row.fetched.is_some() => Some(row.key),
            _ => None,
        }
    }

    fn to_json(&self) -> Value {
        let table = match &self.table {
            Some(Table::Row(row)) => json!({
                "key": row.key.map(|key| key.to_string()),
                "curve": row.key.map(curve),
                "host": row.host,
                "handle": row.handle,
                "handleValid": row.handle_valid,
                "handleCheckedSecondsAgo": row.checked,
                "fetchedSecondsAgo": row.fetched,
                "stale": row.stale,
                "staleSecondsAgo": row.stale_for,
                "failures": row.failures,
                "failedSecondsAgo": row.failed,
                "error": row.error,
            }),
            _ => Value::Null,
        };
        json!({
            "did": self.did,
            "good": self.is_good(),
            "table": table,
            "network": self.network.as_ref().map(network_json),
        })
    }
}

fn stored_lines(row: &Stored, line: &mut dyn FnMut(&str, &str)) {
    let ago = |seconds: Option<i64>| {
        seconds.map_or_else(|| "at an unknown time".to_owned(), |seconds| format!("{} ago", span(seconds)))
    };
    match row.fetched {
        Some(_) => {
            line("table", &format!("document of {}", ago(row.fetched)));
            line("  key", &row.key.map_or_else(|| "none that can be used".to_owned(), key_text));
            line("  host", row.host.as_deref().unwrap_or("none"));
            line(
                "  handle",
                &match (&row.handle, row.handle_valid) {
                    (None, _) => "none".to_owned(),
                    (Some(handle), None) => format!("{handle}, not checked"),
                    (Some(handle), Some(true)) => {
                        format!("{handle}, leads back to the account (checked {})", ago(row.checked))
                    }
                    (Some(handle), Some(false)) => {
                        format!("{handle}, does NOT lead back to the account (checked {})", ago(row.checked))
                    }
                },
            );
        }
        None => line("table", "no document"),
    }
    if let Some(why) = &row.stale {
        line("  stale", &format!("{why}, {}: asked for again when it is needed", ago(row.stale_for)));
    }
    if row.failures > 0 {
        let error = row.error.as_deref().unwrap_or("of unknown cause");
        line("  failure", &format!("{error} ({} in a row, the last {})", row.failures, ago(row.failed)));
    }
}

fn network_lines(network: &Network, known: Option<Option<Key>>, line: &mut dyn FnMut(&str, &str)) {
    let identity = match &network.document {
        Ok(identity) => identity,
        Err(error) => return line("network", &format!("no document: {error}")),
    };
    line("network", "document as it is now");
    let mut key = identity.key.map_or_else(|| "none that can be used".to_owned(), key_text);
    match known {
        Some(known) if known == identity.key => key += ", as in the table",
        Some(_) => key += ", NOT that of the table",
        None => {}
    }
    line("  key", &key);
    line("  host", identity.host.as_deref().unwrap_or("none"));
    line(
        "  handle",
        &match (&identity.handle, &network.handle) {
            (None, _) => "none".to_owned(),
            (Some(handle), Some(Ok(Handle::Valid(_)))) => format!("{handle}, leads back to the account"),
            (Some(handle), Some(Ok(Handle::Invalid))) => format!("{handle}, does NOT lead back to the account"),
            (Some(handle), Some(Err(error))) => format!("{handle}, could not be checked: {error}"),
            (Some(handle), None) => handle.to_string(),
        },
    );
    let status = match &network.status {
        None => return,
        Some(Ok(RepoStatus::Active { rev })) => format!("active, rev {}", rev.as_deref().unwrap_or("not told")),
        Some(Ok(RepoStatus::Inactive { status, .. })) => {
            format!("not active: {}", status.as_deref().unwrap_or("no reason told"))
        }
        Some(Ok(RepoStatus::NotFound)) => "its host does not have it".to_owned(),
        Some(Ok(RepoStatus::NoHost)) => "its document names no host".to_owned(),
        Some(Err(error)) => format!("its host could not be asked: {error}"),
    };
    line("  account", &status);
}

fn network_json(network: &Network) -> Value {
    let identity = match &network.document {
        Ok(identity) => identity,
        Err(error) => return json!({ "error": error.word(), "message": error.to_string() }),
    };
    let (active, status, rev) = match &network.status {
        Some(Ok(RepoStatus::Active { rev })) => (Some(true), None, rev.clone()),
        Some(Ok(RepoStatus::Inactive { status, rev })) => (Some(false), status.clone(), rev.clone()),
        Some(Ok(RepoStatus::NotFound)) => (Some(false), Some("not_found".into()), None),
        _ => (None, None, None),
    };
    json!({
        "key": identity.key.map(|key| key.to_string()),
        "curve": identity.key.map(curve),
        "host": identity.host,
        "handle": identity.handle,
        "handleValid": network.handle.as_ref().and_then(|handle| handle.as_ref().ok()).map(|handle| matches!(handle, Handle::Valid(_))),
        "active": active,
        "status": status,
        "rev": rev,
        "statusError": network.status.as_ref().and_then(|status| status.as_ref().err()).map(ToString::to_string),
    })
}

fn key_text(key: Key) -> String {
    format!("{} {key}", curve(key))
}

fn curve(key: Key) -> &'static str {
    if key.to_bytes()[0] == 0xe7 { "K-256" } else { "P-256" }
}

/// Says a time as one would, in its largest unit.
fn span(seconds: i64) -> String {
    match seconds.max(0) {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7_200 => format!("{} min", seconds / 60),
        seconds @ 7_200..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const DID: &str = "did:plc:ewvi7nxzyoun6zhxrhs64oiz";

    fn key(text: &str) -> Option<Key> {
        Some(Key::from_multikey(text).unwrap())
    }

    fn k256() -> Option<Key> {
        key("zQ3shqwJEJyMBsBXCWyCBpUBMqxcon9oHB7mCvx4sSpMdLJwc")
    }

    fn row() -> Stored {
        Stored {
            key: k256(),
            host: Some("https://pds.example.com".to_owned()),
            handle: Some("alice.example.com".to_owned()),
            handle_valid: Some(true),
            checked: Some(10_800),
            fetched: Some(172_800),
            ..Stored::default()
        }
    }

    fn found(table: Option<Table>, network: Option<Network>) -> Found {
        Found { did: DID.to_owned(), table, network }
    }

    fn network(key: Option<Key>) -> Network {
        let identity = Identity {
            did: DID.into(),
            key,
            host: Some("https://pds.example.com".into()),
            handle: Some("alice.example.com".into()),
            age: Duration::ZERO,
        };
        let rev = Some("3n2sm4n4vwk22".into());
        Network {
            document: Ok(identity),
            handle: Some(Ok(Handle::Invalid)),
            status: Some(Ok(RepoStatus::Active { rev })),
        }
    }

    #[test]
    fn a_row_is_told_with_what_is_wrong_with_it() {
        let stale = Stored {
            stale: Some("identity".to_owned()),
            stale_for: Some(300),
            failures: 3,
            failed: Some(59),
            error: Some("refused: its document is not JSON".to_owned()),
            handle_valid: Some(false),
            ..row()
        };
        let text = found(
            Some(Table::Row(Box::new(stale))),
            Some(network(key("zDnaembgSGUhZULN2Caob4HLJPaxBh92N7rtH21TErzqf8HQo"))),
        )
        .to_text();
        assert_eq!(
            text,
            "\
did:plc:ewvi7nxzyoun6zhxrhs64oiz
  table     document of 2 d ago
    key     K-256 zQ3shqwJEJyMBsBXCWyCBpUBMqxcon9oHB7mCvx4sSpMdLJwc
    host    https://pds.example.com
    handle  alice.example.com, does NOT lead back to the account (checked 3 h ago)
    stale   identity, 5 min ago: asked for again when it is needed
    failure refused: its document is not JSON (3 in a row, the last 59 s ago)
  network   document as it is now
    key     P-256 zDnaembgSGUhZULN2Caob4HLJPaxBh92N7rtH21TErzqf8HQo, NOT that of the table
    host    https://pds.example.com
    handle  alice.example.com, does NOT lead back to the account
    account active, rev 3n2sm4n4vwk22
"
        );
    }

    #[test]
    fn what_there_is_not_is_said_in_a_line() {
        let lost = Network { document: Err(ResolveError::NotFound), handle: None, status: None };
        let text = found(Some(Table::NoRow), Some(lost)).to_text();
        assert!(text.contains("table     nothing is known: it is resolved when it is needed\n"), "{text}");
        assert!(text.ends_with("network   no document: no such DID\n"), "{text}");
        assert!(found(None, None).to_text().contains("DATABASE_URL"));
        assert!(found(Some(Table::Missing), None).to_text().contains("penstock migrate"));
    }

    #[test]
    fn good_is_what_verifies_and_is_not_contradicted() {
        let other = key("zDnaembgSGUhZULN2Caob4HLJPaxBh92N7rtH21TErzqf8HQo");
        let table = |row: Stored| Some(Table::Row(Box::new(row)));
        let stale = || Stored { stale: Some("signature".to_owned()), ..row() };
        let failed = || Network { document: Err(ResolveError::NotFound), handle: None, status: None };
        for (name, found, good) in [
            ("known", found(table(row()), None), true),
            ("stale", found(table(stale()), None), false),
            ("no key", found(table(Stored { key: None, ..row() }), None), false),
            ("no row", found(Some(Table::NoRow), None), false),
            ("the same", found(table(row()), Some(network(k256()))), true),
            ("another key", found(table(row()), Some(network(other))), false),
            ("another key, known to be old", found(table(stale()), Some(network(other))), true),
            ("only the network", found(Some(Table::NoRow), Some(network(other))), true),
            ("no document", found(table(row()), Some(failed())), false),
            ("a document without a key", found(None, Some(network(None))), false),
        ] {
            assert_eq!(found.is_good(), good, "{name}");
            assert_eq!(found.to_json()["good"], good, "{name}");
        }
    }

    #[test]
    fn json_has_the_same_names_on_both_sides() {
        let json = found(Some(Table::Row(Box::new(row()))), Some(network(k256()))).to_json();
        for side in ["table", "network"] {
            for (name, value) in [
                ("key", json!("zQ3shqwJEJyMBsBXCWyCBpUBMqxcon9oHB7mCvx4sSpMdLJwc")),
                ("curve", json!("K-256")),
                ("host", json!("https://pds.example.com")),
                ("handle", json!("alice.example.com")),
                ("handleValid", json!(side == "table")),
            ] {
                assert_eq!(json[side][name], value, "{side}.{name}");
            }
        }
    }
}
