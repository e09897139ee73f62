//! Against real servers: HTTP with and without TLS, DNS, PostgreSQL.

mod database;
mod dns;
mod fenced;
mod handles;
mod network;
mod web;

use std::time::Duration;

use penstock_core::settings::{Layers, Settings};
use penstock_postgres::Pool;
use penstock_telemetry::metrics::Metrics;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::fetch::Options;
use crate::{Identities, Identity, RepoStatus, ResolveError};
use web::{Reply, Web};

const P256: &str = "zDnaeTiq1PdzvZXUaMdezchcMJQpBdH2VN4pgrrEhMCCbmwSb";
const K256: &str = "zQ3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBme";
const DID: &str = "did:plc:ewvi7nxzyoun6zhxrhs64oiz";

/// The nth DID of many.
fn did(n: u64) -> String {
    let letters = b"abcdefghijklmnopqrstuvwxyz234567";
    let digit = |at: u32| char::from(letters[usize::try_from((n >> (5 * at)) & 31).unwrap()]);
    format!("did:plc:{}{}", "a".repeat(12), (0..12).rev().map(digit).collect::<String>())
}

fn document(did: &str, key: &str, host: &str, handle: &str) -> Value {
    json!({
        "id": did,
        "alsoKnownAs": [format!("at://{handle}")],
        "verificationMethod": [{"id": format!("{did}#atproto"), "type": "Multikey", "controller": did, "publicKeyMultibase": key}],
        "service": [{"id": "#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": host}],
    })
}

/// A directory where every DID exists.
async fn full_directory() -> Web {
    Web::start(|_, path| {
        let did = path.trim_start_matches('/');
        Reply::json(200, &document(did, K256, "https://pds.example.com", "alice.example.com"))
    })
    .await
}

/// Identities with settings that are short enough for tests.
fn identities(directory: &Web, flags: &[(&str, &str)]) -> Identities {
    identities_with(directory, flags, None, Options::default())
}

fn identities_with(directory: &Web, flags: &[(&str, &str)], database: Option<Pool>, options: Options) -> Identities {
    let layers = Layers::default()
        .flag("identity.enabled", "true")
        .flag("identity.plcUrl", directory.url())
        .flag("identity.rate", "10000")
        .flag("identity.timeout", "30s");
    let layers = flags.iter().fold(layers, |layers, (path, value)| layers.flag(path, *value));
    let settings = Settings::load(&layers).unwrap();
    let metrics = Metrics::new();
    Identities::with(&settings.identity, database, &metrics, options).unwrap()
}

fn key_of(identity: &Identity) -> String {
    identity.key.map(|key| key.to_string()).unwrap_or_default()
}

fn refused(result: Result<Identity, ResolveError>) -> String {
    match result {
        Err(ResolveError::Refused { why }) => why.into(),
        other => format!("not refused: {other:?}"),
    }
}

/// Waits until something holds; the machine may be slow.
async fn eventually(mut holds: impl AsyncFnMut() -> bool) {
    let waited = timeout(Duration::from_secs(60), async {
        while !holds().await {
            sleep(Duration::from_millis(20)).await;
        }
    });
    waited.await.expect("it should hold by now");
}
