//! A name server that knows what a test says.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use hickory_resolver::proto::op::{Message, MessageType, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, TXT};
use hickory_resolver::proto::rr::{RData, Record, RecordType};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// What is known of a name.
#[derive(Clone, Debug)]
pub(super) enum Entry {
    /// Addresses.
    At(Vec<IpAddr>),
    /// Texts, each of parts.
    Texts(Vec<Vec<&'static str>>),
    /// Its servers fail.
    Broken,
}

/// A name server on a loopback address.
pub(super) struct Dns {
    pub(super) address: SocketAddr,
    entries: Arc<Mutex<HashMap<String, Entry>>>,
    asked: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Dns {
    pub(super) async fn start(entries: &[(&str, Entry)]) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let known = entries.iter().map(|(name, entry)| ((*name).to_owned(), entry.clone())).collect();
        let entries = Arc::new(Mutex::new(known));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let task = tokio::spawn(serve(socket, Arc::clone(&entries), Arc::clone(&asked)));
        Self { address, entries, asked, task }
    }

    pub(super) fn set(&self, name: &str, entry: Entry) {
        self.entries.lock().unwrap().insert(name.to_owned(), entry);
    }

    /// Which names were asked for.
    pub(super) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(socket: UdpSocket, entries: Arc<Mutex<HashMap<String, Entry>>>, asked: Arc<Mutex<Vec<String>>>) {
    let mut buffer = [0; 4096];
    while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
        let Ok(mut message) = Message::from_vec(&buffer[..length]) else { continue };
        let query = message.queries[0].clone();
        let name = query.name().to_ascii().trim_end_matches('.').to_ascii_lowercase();
        asked.lock().unwrap().push(name.clone());
        let entry = entries.lock().unwrap().get(&name).cloned();
        message.metadata.message_type = MessageType::Response;
        message.metadata.recursion_available = true;
        message.edns = None;
        let datas: Vec<RData> = match (entry, query.query_type()) {
            (Some(Entry::Broken), _) => {
                message.metadata.response_code = ResponseCode::ServFail;
                Vec::new()
            }
            (Some(Entry::At(addresses)), kind) => addresses
                .into_iter()
                .filter_map(|address| match (address, kind) {
                    (IpAddr::V4(address), RecordType::A) => Some(RData::A(A(address))),
                    (IpAddr::V6(address), RecordType::AAAA) => Some(RData::AAAA(AAAA(address))),
                    _ => None,
                })
                .collect(),
            (Some(Entry::Texts(texts)), RecordType::TXT) => texts
                .into_iter()
                .map(|parts| RData::TXT(TXT::new(parts.into_iter().map(str::to_owned).collect())))
                .collect(),
            (Some(_), _) => Vec::new(),
            (None, _) => {
                message.metadata.response_code = ResponseCode::NXDomain;
                Vec::new()
            }
        };
        for data in datas {
            // Nothing is remembered: each request asks anew.
            message.add_answer(Record::from_rdata(query.name().clone(), 0, data));
        }
        let _ = socket.send_to(&message.to_vec().unwrap(), from).await;
    }
}
