//! Events that are far larger than they look.

use ciborium::Value as Cbor;
use futures_util::SinkExt;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::{Bytes, Message};
use tokio_util::sync::{CancellationToken, DropGuard};

const DID: &str = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa";
const REV: &str = "3kaaaaaaaaaaa";

/// What a host sends, and what is to become of it.
pub(crate) struct Sent {
    pub(crate) frames: Vec<Bytes>,
    /// The numbers of the events that reach the stream.
    pub(crate) written: Vec<u64>,
    /// How many frames become letters.
    pub(crate) refused: usize,
    /// The last number.
    pub(crate) last: u64,
}

/// A host that sends to whoever comes, as fast as it is read, from the number that is asked for.
pub(crate) struct HostileRelay {
    pub(crate) url: String,
    _stop: DropGuard,
}

/// Fills a stream so many times: each time entries of about 16 MB that are hundreds as trees, and small ones between.
pub(crate) const FILL: &str = "
local function op(path, record)
  return '{\"action\":\"create\",\"path\":\"com.example.thing/' .. path .. '\",\"cid\":\"bafyx\",\"record\":' .. record .. '}'
end
local function add(repo, ops)
  local data = '{\"repo\":\"did:plc:' .. repo .. '\",\"ops\":[' .. table.concat(ops, ',')
    .. '],\"rev\":\"3kaaaaaaaaaaa\",\"time\":null,\"commit\":\"bafyc\",\"since\":null}'
  redis.call('XADD', KEYS[1], '*', 'type', 'commit', 'data', data, 'seq', '7')
end
local function record(content) return '{\"x\":[' .. content .. ']}' end
local function same(repo, count, content)
  local ops = {}
  for at = 1, count do ops[at] = op(at, content) end
  add(repo, ops)
end
local million = record(string.rep('0,', 1000000 - 1) .. '0')
local small = record(string.rep('0,', 40000 - 1) .. '0')
local text = '{\"x\":\"' .. string.rep('x', 1000000) .. '\"}'
local lists = record(string.rep('[0],', 150000 - 1) .. '[0]')
local maps = record(string.rep('{\"\":0},', 1000000 - 1) .. '{\"\":0}')
for round = 1, tonumber(ARGV[1]) do
  for at = 1, 300 do add('s' .. round .. 'x' .. at, { op('s', '{\"n\":1}') }) end
  same('m' .. round, 8, million)
  same('t' .. round, 16, text)
  same('p' .. round, 200, small)
  same('l' .. round, 20, lists)
  same('o' .. round, 1, maps)
  for at = 1, 20 do same('n' .. round .. 'x' .. at, 5, small) end
end
return 1";

/// How many rows of each filling there are at the end.
pub(crate) const ROWS_A_ROUND: i64 = 300 + 8 + 16 + 200 + 20 + 20 * 5;

// === impl Sent ===

impl Sent {
    pub(crate) fn rounds(rounds: u64) -> Self {
        let escapes = block(Cbor::Text("\u{1}".repeat(13_000)));
        let zeros = block(Cbor::Array(vec![Cbor::Integer(0.into()); 999_000]));
        let bytes = block(Cbor::Array(vec![Cbor::Bytes(Vec::new()); 999_000]));
        let text = block(Cbor::Text("x".repeat(999_000)));
        let mut sent = Self { frames: Vec::new(), written: Vec::new(), refused: 0, last: 0 };
        for round in 0..rounds {
            for _ in 0..150 {
                sent.push(|seq| identity(seq, 0), true);
            }
            for _ in 0..6 {
                sent.push(|seq| commit(seq, &escapes, 199), true);
            }
            sent.push(|seq| commit(seq, &zeros, 7), true);
            sent.push(|seq| commit(seq, &bytes, 1), true);
            for _ in 0..8 {
                sent.push(|seq| commit(seq, &text, 10), true);
            }
            // Within what is read whole, and over what a frame may have.
            sent.push(|seq| identity(seq, 7_000_000), false);
            if round == 0 {
                (0..3_000).for_each(|_| sent.push(|seq| identity(seq, 0), true));
            }
        }
        sent.push(|seq| identity(seq, 0), true);
        sent
    }

    fn push(&mut self, frame: impl FnOnce(u64) -> Vec<u8>, is_written: bool) {
        self.last += 1;
        self.frames.push(frame(self.last).into());
        if is_written {
            self.written.push(self.last);
        } else {
            self.refused += 1;
        }
    }
}

// === impl HostileRelay ===

impl HostileRelay {
    pub(crate) async fn serve(frames: Vec<Bytes>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let until = stop.clone();
        tokio::spawn(async move {
            let accept = async {
                while let Ok((stream, _)) = listener.accept().await {
                    let frames = frames.clone();
                    tokio::spawn(async move {
                        let mut cursor = 0;
                        #[expect(clippy::result_large_err, reason = "the library's own signature")]
                        let note = |request: &tokio_tungstenite::tungstenite::handshake::server::Request, response| {
                            let query = request.uri().query().unwrap_or_default();
                            cursor = query.strip_prefix("cursor=").and_then(|cursor| cursor.parse().ok()).unwrap_or(0);
                            Ok(response)
                        };
                        let mut socket = tokio_tungstenite::accept_hdr_async(stream, note).await.unwrap();
                        for frame in frames.into_iter().skip(cursor) {
                            if socket.send(Message::Binary(frame)).await.is_err() {
                                return;
                            }
                        }
                        std::future::pending::<()>().await;
                    });
                }
            };
            tokio::select! {
                () = accept => {}
                () = until.cancelled() => {}
            }
        });
        Self { url, _stop: stop.drop_guard() }
    }
}

fn text(text: &str) -> Cbor {
    Cbor::Text(text.to_owned())
}

fn map<const N: usize>(mut entries: [(&str, Cbor); N]) -> Cbor {
    // As DAG-CBOR orders keys.
    entries.sort_by_key(|(key, _)| (key.len(), key.to_string()));
    Cbor::Map(entries.into_iter().map(|(key, value)| (text(key), value)).collect())
}

fn encode(value: &Cbor) -> Vec<u8> {
    let mut out = Vec::new();
    ciborium::into_writer(value, &mut out).unwrap();
    out
}

/// A record's block with this content.
fn block(content: Cbor) -> Vec<u8> {
    encode(&map([("$type", text("com.example.thing")), ("x", content)]))
}

fn cid(block: &[u8]) -> Vec<u8> {
    [&[0x01, 0x71, 0x12, 0x20], &Sha256::digest(block)[..]].concat()
}

fn link(cid: &[u8]) -> Cbor {
    Cbor::Tag(42, Box::new(Cbor::Bytes([&[0], cid].concat())))
}

fn section(bytes: &[u8]) -> Vec<u8> {
    let (mut out, mut len) = (Vec::new(), bytes.len());
    while len >= 0x80 {
        out.push((len & 0x7F) as u8 | 0x80);
        len >>= 7;
    }
    out.push(len as u8);
    out.extend_from_slice(bytes);
    out
}

fn frame(t: &str, body: &Cbor) -> Vec<u8> {
    let mut frame = encode(&map([("op", Cbor::Integer(1.into())), ("t", text(t))]));
    ciborium::into_writer(body, &mut frame).unwrap();
    frame
}

/// A commit of so many ops that share one block.
fn commit(seq: u64, block: &[u8], ops: usize) -> Vec<u8> {
    let signed = encode(&map([("did", text(DID)), ("rev", text(REV)), ("version", Cbor::Integer(3.into()))]));
    let (root, record) = (cid(&signed), cid(block));
    let header = map([("roots", Cbor::Array(vec![link(&root)])), ("version", Cbor::Integer(1.into()))]);
    let car =
        [section(&encode(&header)), section(&[&root[..], &signed].concat()), section(&[&record[..], block].concat())];
    let op = |number: usize| {
        let path = text(&format!("com.example.thing/{number}"));
        map([("action", text("create")), ("path", path), ("cid", link(&record))])
    };
    let body = map([
        ("seq", Cbor::Integer(seq.into())),
        ("repo", text(DID)),
        ("rev", text(REV)),
        ("since", Cbor::Null),
        ("time", text("2026-07-04T14:38:07.877Z")),
        ("commit", link(&root)),
        ("blocks", Cbor::Bytes(car.concat())),
        ("ops", Cbor::Array((0..ops).map(op).collect())),
    ]);
    frame("#commit", &body)
}

/// An identity event with a field of so many bytes that nobody knows.
fn identity(seq: u64, padding: usize) -> Vec<u8> {
    let body = map([
        ("seq", Cbor::Integer(seq.into())),
        ("did", text(DID)),
        ("time", text("2026-07-04T14:38:07.877Z")),
        ("padding", Cbor::Bytes(vec![0; padding])),
    ]);
    frame("#identity", &body)
}
