//! Which server it is, and whether it can what we need: asked once, before anything is written.

use std::fmt;

use fred::clients::Client;
use fred::error::Error;
use fred::interfaces::ClientLike;
use fred::types::config::Options;
use fred::types::{ClusterHash, CustomCommand, Value};

use crate::keys::Keys;
use crate::script;

/// The lowest version of Redis, or of what another server says it is like: it has XAUTOCLAIM and XTRIM MINID.
pub const LOWEST: (u32, u32) = (6, 2);

/// How servers that speak as Redis does tell their own version; Redis' own is what they are like.
const VERSIONS: [(&str, &str); 6] = [
    ("valkey_version", "Valkey"),
    ("dragonfly_version", "Dragonfly"),
    ("garnet_version", "Garnet"),
    ("kvrocks_version", "Kvrocks"),
    ("redict_version", "Redict"),
    ("redis_version", "Redis"),
];

/// A server, as it calls itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Product {
    name: &'static str,
    version: String,
    like: Option<(u32, u32)>,
}

/// What a server cannot that we need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Lack {
    /// It is too old.
    Version,
    /// It has no such command, or forbids it in scripts.
    Command(String),
}

// === impl Product ===

impl Product {
    /// Reads it from `INFO server`; none where that does not tell.
    #[must_use]
    pub fn read(info: &str) -> Option<Self> {
        let field = |name: &str| {
            let mut fields = info.lines().filter_map(|line| line.split_once(':'));
            fields.find(|(key, _)| *key == name).map(|(_, value)| value.trim())
        };
        let (name, version) = VERSIONS.iter().find_map(|(key, name)| Some((*name, field(key)?)))?;
        let like = field("redis_version").and_then(|version| {
            let mut numbers = version.split('.').map(|number| number.parse::<u32>().ok());
            numbers.next()?.zip(numbers.next()?)
        });
        Some(Self { name, version: version.trim_start_matches("df-v").to_owned(), like })
    }

    /// Says whether it is too old.
    #[must_use]
    pub fn is_too_old(&self) -> bool {
        self.like.is_some_and(|like| like < LOWEST)
    }
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.version)
    }
}

/// Asks which server it is; none where it does not say: a managed one may forbid the question.
pub(super) async fn ask(client: &Client, keys: &Keys) -> Option<Product> {
    // In a Cluster each node tells of itself: the one that has the stream counts.
    let options = Options { cluster_hash: Some(ClusterHash::from(keys.stream())), ..Options::default() };
    let info = CustomCommand::new_static("INFO", ClusterHash::from(keys.stream()), false);
    let info: Result<Value, _> = client.with_options(&options).custom(info, vec!["server"]).await;
    Product::read(&info.ok()?.as_string()?)
}

/// Finds out what is missing, where it is not told by version: writes nothing.
///
/// # Errors
/// The server does not answer, or refuses scripts altogether.
pub(super) async fn probe(client: &Client, keys: &Keys, product: Option<&Product>) -> Result<Option<Lack>, Error> {
    if product.is_some_and(Product::is_too_old) {
        return Ok(Some(Lack::Version));
    }
    let touched = vec![keys.stream().to_owned(), keys.cursor().to_owned()];
    let refused: Vec<String> = script::run(client, include_str!("probe.lua"), touched, Vec::new()).await?;
    let mut refused = refused.into_iter();
    Ok(refused.next().zip(refused.next()).and_then(|(command, said)| lack(command, &said)))
}

/// Judges what a server said to a command in a script.
fn lack(command: String, said: &str) -> Option<Lack> {
    let said = said.to_ascii_lowercase();
    let is_lack = said.contains("not allowed from script")
        || said.contains("unknown redis command")
        || said.contains("unknown command")
        || said.contains("unknown subcommand");
    is_lack.then_some(Lack::Command(command))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_server_is_named_as_it_calls_itself_and_judged_by_what_it_is_like() {
        for (info, named, is_too_old) in [
            ("redis_version:7.0.15\r\nredis_mode:standalone", "Redis 7.0.15", false),
            ("redis_version:6.2.0", "Redis 6.2.0", false),
            ("redis_version:6.0.16", "Redis 6.0.16", true),
            ("redis_version:5.0.14", "Redis 5.0.14", true),
            ("redis_version:10.1.0", "Redis 10.1.0", false),
            ("redis_version:255.255.255", "Redis 255.255.255", false),
            ("redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:9.1.2", "Valkey 9.1.2", false),
            ("redis_version:7.4.0\r\ndragonfly_version:df-v1.34.2", "Dragonfly 1.34.2", false),
            ("redis_version:unstable", "Redis unstable", false),
        ] {
            let product = Product::read(&format!("# Server\r\n{info}\r\n")).unwrap();
            assert_eq!((product.to_string().as_str(), product.is_too_old()), (named, is_too_old));
        }
        assert_eq!(Product::read("# Server\r\nos:Linux"), None);
    }

    #[test]
    fn what_a_server_forbids_in_scripts_or_does_not_know_is_a_lack_and_nothing_else_is() {
        let command = || "XINFO STREAM".to_owned();
        for (said, lacks) in [
            // Dragonfly (dragonfly#6122); Redis; Redis 7.
            ("ERR This Redis command is not allowed from script", true),
            ("This Redis command is not allowed from scripts", true),
            ("ERR This Redis command is not allowed from script script: 4b24e, on @user_script:1.", true),
            ("ERR Unknown Redis command called from script", true),
            ("ERR unknown command `XAUTOCLAIM`", true),
            ("ERR no such key", false),
            ("NOGROUP No such key 'firehose:events'", false),
            ("ERR Wrong number of args calling Redis command from script", false),
            ("ERR ACL failure in script: User u has no permissions to run the 'xinfo|stream' command", false),
            ("WRONGTYPE Operation against a key holding the wrong kind of value", false),
        ] {
            assert_eq!(lack(command(), said), lacks.then(|| Lack::Command(command())), "{said}");
        }
    }
}
