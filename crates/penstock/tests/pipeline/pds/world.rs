//! The real servers of the AT Protocol: a directory, some personal data servers, a relay before them and a name server, driven by
//! `driver.mjs`.

use std::process::{Command as Blocking, Stdio};

use penstock_local::testing::TempFolder;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::{Mutex, Semaphore, SemaphorePermit};
use tokio::time::timeout;

use crate::rig::{PATIENCE, eventually};

/// Two at a time: each takes a quarter of a gigabyte, and mostly waits for others.
static SOME: Semaphore = Semaphore::const_new(2);

/// Where they listen.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Addresses {
    /// The directory of did:plc.
    pub(crate) directory: String,
    /// The personal data servers.
    pub(crate) servers: Vec<String>,
    /// The relay that has the events of all of them.
    pub(crate) relay: String,
    /// The name server.
    pub(crate) names: String,
}

/// The servers, which end with it.
pub(crate) struct World {
    pub(crate) addresses: Addresses,
    pipe: Mutex<Pipe>,
    _child: Child,
    _folder: TempFolder,
    _permit: SemaphorePermit<'static>,
}

/// Commands in, answers out, one at a time.
struct Pipe {
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

/// An account at one of the servers.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    pub(crate) did: String,
    pub(crate) handle: String,
}

// === impl World ===

impl World {
    /// Starts so many personal data servers and what they need, or none where they cannot be had here, after a line that says why.
    pub(crate) async fn start(servers: usize) -> Option<Self> {
        let permit = SOME.acquire().await.unwrap();
        let installed = tokio::task::spawn_blocking(|| {
            let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/pds.sh");
            Blocking::new(script).stderr(Stdio::inherit()).output().unwrap()
        });
        let installed = installed.await.unwrap();
        // Any other failure is one of the script.
        assert!(matches!(installed.status.code(), Some(0 | 3)), "scripts/pds.sh ended with {}", installed.status);
        if !installed.status.success() {
            return None;
        }
        let programs = std::path::PathBuf::from(String::from_utf8(installed.stdout).unwrap().trim_end());
        let folder = TempFolder::new().unwrap();
        let mut command = Command::new(programs.join("node"));
        command.arg(programs.join("driver.mjs")).arg(folder.path()).arg(servers.to_string());
        command.env("NODE_NO_WARNINGS", "1").stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = timeout(PATIENCE, output.next_line()).await.unwrap();
        let first = first.unwrap().unwrap();
        let addresses = serde_json::from_str(&first).unwrap();
        let pipe = Mutex::new(Pipe { input, output });
        Some(Self { addresses, pipe, _child: child, _folder: folder, _permit: permit })
    }

    /// Has something done, and returns what came of it or why it was not done.
    pub(crate) async fn attempt(&self, command: &str, mut parameters: Value) -> Result<Value, String> {
        parameters["do"] = command.into();
        let mut pipe = self.pipe.lock().await;
        pipe.input.write_all(format!("{parameters}\n").as_bytes()).await.unwrap();
        let answer = timeout(PATIENCE, pipe.output.next_line()).await;
        let answer = answer.unwrap_or_else(|_| panic!("{command} is not answered")).unwrap();
        let mut answer: Value = serde_json::from_str(&answer.unwrap()).unwrap();
        match answer.get("error") {
            Some(error) => Err(error.as_str().unwrap().to_owned()),
            None => Ok(answer["ok"].take()),
        }
    }

    /// Has something done that must be.
    pub(crate) async fn tell(&self, command: &str, parameters: Value) -> Value {
        self.attempt(command, parameters).await.unwrap_or_else(|error| panic!("{command}: {error}"))
    }

    /// Makes an account at a server.
    pub(crate) async fn account(&self, server: usize, name: &str) -> Account {
        let handle = format!("{name}.pds{}.test", server + 1);
        let made = self.tell("create", json!({"server": server, "handle": handle})).await;
        Account { did: made["did"].as_str().unwrap().to_owned(), handle }
    }

    /// Writes a record at the account's present server; returns its URI.
    pub(crate) async fn record(&self, account: &Account, mut record: Value) -> String {
        record["createdAt"] = "2026-07-04T14:38:08.000Z".into();
        let collection = record["$type"].clone();
        let made = json!({"did": account.did, "collection": collection, "record": record});
        self.tell("create_record", made).await["uri"].as_str().unwrap().to_owned()
    }

    /// Writes a post.
    pub(crate) async fn post(&self, account: &Account, text: &str) -> String {
        self.record(account, json!({"$type": "app.bsky.feed.post", "text": text})).await
    }

    /// Every record of these collections, as (URI, CID), in order.
    pub(crate) async fn records(&self, account: &Account, collections: &[&str]) -> Vec<(String, String)> {
        let listed = self.tell("list_records", json!({"did": account.did, "collections": collections})).await;
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let records = listed["records"].as_array().unwrap().iter();
        let mut records: Vec<_> = records.map(|record| (text(&record["uri"]), text(&record["cid"]))).collect();
        records.sort();
        records
    }

    /// Starts or stops the directory.
    pub(crate) async fn directory(&self, up: bool) {
        self.tell("directory", json!({"up": up})).await;
    }

    /// Waits until the relay has every event of the servers so far, and returns its last number.
    pub(crate) async fn relayed(&self) -> u64 {
        let mut last = 0;
        eventually("the relay has every event", async || {
            let said = self.tell("relayed", json!({})).await;
            last = said["last"].as_u64().unwrap();
            said["complete"] == json!(true)
        })
        .await;
        last
    }
}
