//! `penstock identity`: an export of a directory into the table, and what is known of an account, in the table and out there.

use std::process::{Output, Stdio};

use penstock_replay::{Settings, Signing};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::rig::{Relay, Rig, binary, serve};

const LENGTH: u64 = 583;
/// The recording's third account, under the handle that it took last.
const DID: &str = "did:plc:7e55uudm37mfnbtzwdlhfsu4";

/// A recording of two loops that is the directory of its accounts.
async fn directory() -> Relay {
    let (signing, total) = (Some(Signing::Both), Some(2 * LENGTH));
    serve(Settings { total, signing, directory: true, ..Settings::default() }).await
}

fn address(relay: &Relay) -> String {
    relay.url.trim_start_matches("ws://").trim_end_matches('/').to_owned()
}

async fn export(relay: &Relay) -> String {
    let address = address(relay);
    let mut stream = TcpStream::connect(&address).await.unwrap();
    stream.write_all(format!("GET /export HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

/// Imports from standard input.
async fn import(rig: &Rig, export: &str) -> Output {
    let mut command = Command::new(binary());
    command.args(["identity", "import", "-"]).env_clear().envs(rig.environment());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(export.as_bytes()).await.unwrap();
    drop(input);
    child.wait_with_output().await.unwrap()
}

async fn show(rig: &Rig, arguments: &[&str]) -> (Option<i32>, String) {
    let shown = rig.run(&[&["identity", "show"][..], arguments].concat()).await;
    (shown.status.code(), String::from_utf8(shown.stdout).unwrap())
}

#[tokio::test]
async fn an_export_is_imported_from_standard_input_and_what_is_known_is_shown() {
    let relay = directory().await;
    let mut rig = Rig::new().await;
    rig.set("PENSTOCK_IDENTITY_PLC_URL", &format!("http://{}", address(&relay)));
    rig.set("PENSTOCK_IDENTITY_ALLOWED_NETWORKS", "127.0.0.0/8");
    rig.set("PENSTOCK_IDENTITY_TIMEOUT", "2s");

    let (code, text) = show(&rig, &[DID, "--offline"]).await;
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("nothing is known"), "{text}");

    let export = export(&relay).await;
    let operations = export.lines().count();
    assert_eq!(operations, 2 * 26);
    let imported = import(&rig, &export).await;
    let log = String::from_utf8_lossy(&imported.stderr).into_owned() + &String::from_utf8_lossy(&imported.stdout);
    assert_eq!(imported.status.code(), Some(0), "{log}");
    assert_eq!(rig.count("penstock.identities").await, 2 * 19);

    let (code, text) = show(&rig, &[DID, "--offline"]).await;
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("new3-s3.test, not checked"), "{text}");

    // The directory says the same; nobody answers for the handle.
    let (code, text) = show(&rig, &[DID, "--json"]).await;
    assert_eq!(code, Some(0), "{text}");
    let shown: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(shown["table"]["key"], shown["network"]["key"], "{shown:#}");
    assert_eq!(shown["network"]["host"], format!("http://{}", address(&relay)), "{shown:#}");
    assert_eq!(shown["network"]["active"], true, "{shown:#}");

    // The same again reads nothing anew.
    let again = import(&rig, &export).await;
    assert_eq!(again.status.code(), Some(0));
    assert_eq!(rig.count("penstock.identities").await, 2 * 19);

    let other = export.replacen("createdAt", "createdOn", 1).replace("alsoKnownAs", "alsoknownas");
    let refused = import(&rig, "nonsense\n").await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("this is no export of the directory"), "{refused:?}");
    assert_eq!(import(&rig, &other).await.status.code(), Some(0), "bad lines are passed over");
}

#[tokio::test]
async fn what_nobody_knows_and_what_cannot_be_asked_is_said_so() {
    let relay = directory().await;
    let mut rig = Rig::new().await;
    rig.set("PENSTOCK_IDENTITY_PLC_URL", &format!("http://{}", address(&relay)));
    rig.set("PENSTOCK_IDENTITY_ALLOWED_NETWORKS", "127.0.0.0/8");
    rig.set("PENSTOCK_IDENTITY_TIMEOUT", "2s");
    let (code, text) = show(&rig, &["did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"]).await;
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("no document: no such DID"), "{text}");

    rig.set("DATABASE_URL", "postgres://nobody@127.0.0.1:1/nothing");
    let refused = rig.run(&["identity", "show", DID, "--offline"]).await;
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert_eq!(import(&rig, "{}").await.status.code(), Some(1));
}
