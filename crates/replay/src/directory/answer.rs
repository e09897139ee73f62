//! What the directory answers.

use std::ops::Range;

use ciborium::Value as Cbor;
use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value as Json, json};
use sha2::{Digest as _, Sha256};

use super::{After, Asked, Directory, Operation, What};
use crate::accounts::Account;
use crate::http::answer_as;
use crate::sign::{Key, Purpose, SIGNATURE};
use crate::stock::Stock;
use crate::value::{Digest, cid_text, milli_text, tid_text};

// === impl Directory ===

impl Directory {
    /// Answers while the first `live` events are live: some milliseconds of work for an export.
    pub(crate) fn answer(&self, asked: &Asked, stock: &Stock, live: u64) -> Vec<u8> {
        let view = View { directory: self, stock, live, host: &asked.host };
        let json = |body: Json| answer_as("200 OK", "application/json", &body.to_string());
        let of = |did: &str, then: &dyn Fn(Seen<'_>) -> Vec<u8>| match view.find(did) {
            Some(_) if self.is_buried(did) => refused("410 Gone", &format!("DID not available: {did}")),
            Some(seen) => then(seen),
            None => refused("404 Not Found", &format!("DID not registered: {did}")),
        };
        match &asked.what {
            What::Document(did) => {
                of(did, &|seen| answer_as("200 OK", "application/did+ld+json", &view.document(&seen).to_string()))
            }
            What::Data(did) => of(did, &|seen| json(view.data(&seen))),
            What::Log(did) => of(did, &|seen| json(view.operations(&seen).into_iter().map(|op| op.signed).collect())),
            What::Audit(did) => {
                of(did, &|seen| json(view.operations(&seen).iter().map(|op| view.exported(op)).collect()))
            }
            What::Last(did) => of(did, &|seen| json(view.operations(&seen).pop().map_or(Json::Null, |op| op.signed))),
            What::Export { count, after } => answer_as("200 OK", "application/jsonlines", &view.export(*count, *after)),
            What::Status(None) => answer_as(
                "400 Bad Request",
                "application/json",
                &json!({ "error": "InvalidRequest", "message": "did is missing" }).to_string(),
            ),
            What::Status(Some(did)) => view.status(did),
            What::Bad(message) => refused("400 Bad Request", message),
        }
    }
}

fn refused(status: &str, message: &str) -> Vec<u8> {
    answer_as(status, "application/json", &json!({ "message": message }).to_string())
}

/// The directory at one moment, as one asker sees it.
struct View<'a> {
    directory: &'a Directory,
    stock: &'a Stock,
    live: u64,
    host: &'a str,
}

/// An account in one loop.
struct Seen<'a> {
    did: String,
    account: &'a Account,
    number: usize,
    round: u64,
    /// How many frames of the loop are live.
    frames: usize,
}

/// An operation as it is signed.
struct SignedOperation {
    did: String,
    signed: Json,
    cid: String,
    milli: i64,
}

// === impl View ===

impl<'a> View<'a> {
    fn find(&self, did: &str) -> Option<Seen<'a>> {
        let (number, round) = self.stock.names().find(did.as_bytes())?;
        self.seen(number, round)
    }

    fn seen(&self, number: usize, round: u64) -> Option<Seen<'a>> {
        let account = self.directory.accounts.get(number)?;
        let length = self.stock.timeline().length();
        let frames = self.live.checked_sub(round.checked_mul(length)?)?.min(length) as usize;
        let did = String::from_utf8(self.stock.names().name(&account.did, round)).ok()?;
        (account.first < frames).then_some(Seen { did, account, number, round, frames })
    }

    fn document(&self, seen: &Seen<'_>) -> Json {
        let did = &seen.did;
        json!({
            "@context": ["https://www.w3.org/ns/did/v1", "https://w3id.org/security/multikey/v1"],
            "id": did,
            "alsoKnownAs": self.also_known_as(seen, seen.account.handle(seen.frames)),
            "verificationMethod": [{
                "id": format!("{did}#atproto"),
                "type": "Multikey",
                "controller": did,
                "publicKeyMultibase": self.key(did, Purpose::Repo).multikey(),
            }],
            "service": [{
                "id": "#atproto_pds",
                "type": "AtprotoPersonalDataServer",
                "serviceEndpoint": self.endpoint(),
            }],
        })
    }

    fn data(&self, seen: &Seen<'_>) -> Json {
        let mut data = self.unsigned(seen, seen.account.handle(seen.frames), None);
        if let Json::Object(data) = &mut data {
            data.remove("type");
            data.remove("prev");
            data.insert("did".to_owned(), json!(seen.did));
        }
        data
    }

    /// The live operations of an account.
    fn operations(&self, seen: &Seen<'_>) -> Vec<SignedOperation> {
        let mine = self.directory.operations.iter().filter(|operation| operation.account == seen.number);
        let live: Vec<_> = mine.filter(|operation| operation.frame < seen.frames).copied().collect();
        let times = self.times(seen.round);
        let mut signed: Vec<SignedOperation> = Vec::with_capacity(live.len());
        for operation in live {
            let handle = seen.account.handle(operation.frame + 1);
            let unsigned = self.unsigned(seen, handle, signed.last().map(|before| before.cid.as_str()));
            signed.push(self.signed(&seen.did, unsigned, self.milli(&times, operation)));
        }
        signed
    }

    fn unsigned(&self, seen: &Seen<'_>, handle: Option<&str>, prev: Option<&str>) -> Json {
        json!({
            "type": "plc_operation",
            "verificationMethods": { "atproto": format!("did:key:{}", self.key(&seen.did, Purpose::Repo).multikey()) },
            "rotationKeys": [format!("did:key:{}", self.key(&seen.did, Purpose::Rotation).multikey())],
            "alsoKnownAs": self.also_known_as(seen, handle),
            "services": { "atproto_pds": { "type": "AtprotoPersonalDataServer", "endpoint": self.endpoint() } },
            "prev": prev,
        })
    }

    fn signed(&self, did: &str, mut operation: Json, milli: i64) -> SignedOperation {
        let digest: Digest = Sha256::digest(dag_cbor(&operation)).into();
        let signature = self.key(did, Purpose::Rotation).sign(&digest).unwrap_or([0; SIGNATURE]);
        if let Json::Object(fields) = &mut operation {
            fields.insert("sig".to_owned(), json!(BASE64URL_NOPAD.encode(&signature)));
        }
        let cid = cid_text(&Sha256::digest(dag_cbor(&operation)).into());
        let cid = String::from_utf8(cid).unwrap_or_default();
        SignedOperation { did: did.to_owned(), signed: operation, cid, milli }
    }

    fn exported(&self, operation: &SignedOperation) -> Json {
        json!({
            "did": operation.did,
            "operation": operation.signed,
            "cid": operation.cid,
            "nullified": false,
            "createdAt": time(operation.milli),
        })
    }

    fn export(&self, count: usize, after: After) -> String {
        let each = self.directory.operations.len() as u64;
        let length = self.stock.timeline().length();
        let rounds = self.live.div_ceil(length);
        let first = match after {
            After::Nothing => 0,
            After::Number(number) => number,
            After::Time(after) => {
                let passed = partition(rounds, |round| self.times(round).last().is_some_and(|&last| last <= after));
                passed * each + self.times(passed).partition_point(|&time| time <= after) as u64
            }
        };
        let mut lines = String::new();
        for number in (first..rounds.saturating_mul(each)).take(count) {
            let (round, place) = (number / each, (number % each) as usize);
            let operation = self.directory.operations[place];
            let Some(seen) = self.seen(operation.account, round).filter(|seen| operation.frame < seen.frames) else {
                break;
            };
            let Some(signed) = self.operations(&seen).into_iter().nth(operation.nth) else { break };
            let mut line = self.exported(&signed);
            if let (After::Number(_), Json::Object(line)) = (after, &mut line) {
                line.remove("nullified");
                line.insert("seq".to_owned(), json!(number + 1));
                line.insert("type".to_owned(), json!("sequenced_op"));
            }
            if !lines.is_empty() {
                lines.push('\n');
            }
            lines.push_str(&line.to_string());
        }
        lines
    }

    fn status(&self, did: &str) -> Vec<u8> {
        let seen = self.find(did).map(|seen| (seen.account.state(seen.frames), seen));
        // A host forgets an account that was deleted.
        let Some((state, seen)) = seen.filter(|(state, _)| state.status.as_deref() != Some("deleted")) else {
            let message = format!("Could not find repo for DID: {did}");
            let body = json!({ "error": "RepoNotFound", "message": message });
            return answer_as("400 Bad Request", "application/json", &body.to_string());
        };
        let mut body = json!({ "did": seen.did, "active": state.active });
        if let Json::Object(body) = &mut body {
            body.extend(state.status.map(|status| ("status".to_owned(), json!(status))));
            let rev = seen.account.rev(seen.frames).filter(|_| state.active);
            let rev = rev.and_then(|rev| self.stock.rev(seen.round, rev));
            body.extend(rev.map(|rev| ("rev".to_owned(), json!(String::from_utf8_lossy(&tid_text(rev))))));
        }
        answer_as("200 OK", "application/json", &body.to_string())
    }

    /// When the operations of a loop were made, in milliseconds since 1970: no two at once, so that none is between two pages.
    fn times(&self, round: u64) -> Vec<i64> {
        let mut last = i64::MIN;
        let frames = self.directory.operations.iter().map(|operation| operation.frame);
        let time = frames.map(|frame| {
            last = self.stock.milli(round, frame).max(last.saturating_add(1));
            last
        });
        time.collect()
    }

    fn milli(&self, times: &[i64], operation: Operation) -> i64 {
        let same = |other: &Operation| (other.account, other.nth) == (operation.account, operation.nth);
        let place = self.directory.operations.iter().position(same);
        place.and_then(|place| times.get(place)).copied().unwrap_or_default()
    }

    fn also_known_as(&self, seen: &Seen<'_>, handle: Option<&str>) -> Vec<String> {
        let name = |handle: &str| match seen.round {
            0 => format!("at://{handle}"),
            round => format!("at://l{round}.{handle}"),
        };
        handle.map(name).into_iter().collect()
    }

    fn key(&self, did: &str, purpose: Purpose) -> Key {
        Key::of(did.as_bytes(), self.directory.signing, purpose)
    }

    fn endpoint(&self) -> String {
        format!("http://{}", self.host)
    }
}

/// The first of `0..end` of which `passed` is false, where it is true of all before.
fn partition(end: u64, passed: impl Fn(u64) -> bool) -> u64 {
    let Range { mut start, mut end } = 0..end;
    while start < end {
        let middle = start + (end - start) / 2;
        if passed(middle) {
            start = middle + 1;
        } else {
            end = middle;
        }
    }
    start
}

fn time(milli: i64) -> String {
    format!("{}Z", String::from_utf8_lossy(&milli_text(milli)))
}

/// Encodes what is made of maps, lists, texts and null: keys shorter first, then by their bytes.
fn dag_cbor(json: &Json) -> Vec<u8> {
    fn value(json: &Json) -> Cbor {
        match json {
            Json::Object(fields) => {
                let mut fields: Vec<_> = fields.iter().collect();
                fields.sort_by_key(|(key, _)| (key.len(), *key));
                Cbor::Map(fields.into_iter().map(|(key, json)| (Cbor::from(key.as_str()), value(json))).collect())
            }
            Json::Array(items) => Cbor::Array(items.iter().map(value).collect()),
            Json::String(text) => Cbor::from(text.as_str()),
            Json::Bool(is) => Cbor::from(*is),
            Json::Null | Json::Number(_) => Cbor::Null,
        }
    }
    let mut out = Vec::new();
    // Writing to a Vec cannot fail.
    let _ = ciborium::into_writer(&value(json), &mut out);
    out
}
