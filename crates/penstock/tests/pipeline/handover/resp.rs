//! The smallest client of Redis: a socket that is gone when it is dropped, as that of a killed process is.
//!
//! The players speak with it, not with the client under test: nothing is queued, sent again or connected anew behind
//! their backs.

use std::io;
use std::net::Ipv4Addr;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// A connection.
pub(crate) struct Redis {
    socket: BufReader<TcpStream>,
}

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Reply {
    Nil,
    Integer(i64),
    Text(String),
    Error(String),
    Array(Vec<Self>),
}

// === impl Redis ===

impl Redis {
    pub(crate) async fn connect(port: u16) -> io::Result<Self> {
        let mut redis = Self { socket: BufReader::new(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?) };
        // One that still loads its data accepts connections.
        match redis.call(&["PING"]).await? {
            Reply::Error(error) => Err(io::Error::other(error)),
            _ => Ok(redis),
        }
    }

    /// Sends a command, and waits for its answer.
    pub(crate) async fn call(&mut self, words: &[&str]) -> io::Result<Reply> {
        let mut command = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            command.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
        }
        self.socket.get_mut().write_all(&command).await?;
        self.reply().await
    }

    async fn reply(&mut self) -> io::Result<Reply> {
        let mut line = String::new();
        if self.socket.read_line(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (kind, rest) = line.trim_end().split_at(1);
        let number = || rest.parse::<i64>().map_err(io::Error::other);
        Ok(match kind {
            ":" => Reply::Integer(number()?),
            "+" => Reply::Text(rest.to_owned()),
            "-" => Reply::Error(rest.to_owned()),
            "$" => match usize::try_from(number()?) {
                Ok(length) => {
                    let mut text = vec![0; length + 2];
                    self.socket.read_exact(&mut text).await?;
                    text.truncate(length);
                    Reply::Text(String::from_utf8(text).map_err(io::Error::other)?)
                }
                Err(_) => Reply::Nil,
            },
            _ => match usize::try_from(number()?) {
                Ok(length) => {
                    let mut items = Vec::with_capacity(length);
                    for _ in 0..length {
                        items.push(Box::pin(self.reply()).await?);
                    }
                    Reply::Array(items)
                }
                Err(_) => Reply::Nil,
            },
        })
    }
}

// === impl Reply ===

impl Reply {
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn array(&self) -> &[Self] {
        match self {
            Self::Array(items) => items,
            _ => &[],
        }
    }

    /// The entries of an XRANGE, or of the one stream of an XREADGROUP: IDs, and names and values in turn.
    pub(crate) fn entries(&self) -> Vec<(String, Vec<String>)> {
        let entry = |entry: &Self| {
            let [id, fields] = entry.array() else { return None };
            let fields = fields.array().iter().filter_map(|field| field.text().map(str::to_owned)).collect();
            Some((id.text()?.to_owned(), fields))
        };
        self.array().iter().filter_map(entry).collect()
    }

    /// What an XREADGROUP of one stream gave.
    pub(crate) fn read(&self) -> Vec<(String, Vec<String>)> {
        let [stream] = self.array() else { return Vec::new() };
        let [_, entries] = stream.array() else { return Vec::new() };
        entries.entries()
    }
}
