//! Names, resolved by ourselves: what is connected to is then exactly what was checked.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::RData;
use tokio::sync::Semaphore;

use super::Failed;
use crate::error::SettingsError;

/// Answers that are remembered, of which each may be some kilobytes.
const REMEMBERED: u64 = 1_024;

/// The longest that an answer is remembered: a handle's owner may change it at any time.
const LONGEST: Duration = Duration::from_secs(60);

/// Addresses of a host that are tried.
const TRIED: usize = 4;

/// Names that are resolved at a time.
const AT_A_TIME: usize = 512;

/// Resolves names.
#[derive(Debug)]
pub(super) struct Names {
    resolver: TokioResolver,
    turns: Semaphore,
}

/// The texts of a name.
#[derive(Debug)]
pub(super) enum Texts {
    /// These.
    Found(Vec<String>),
    /// There are none.
    None,
}

// === impl Names ===

impl Names {
    pub(super) fn new(server: Option<SocketAddr>, patience: Duration) -> Result<Self, SettingsError> {
        let provider = TokioRuntimeProvider::default();
        let mut builder = match server {
            Some(server) => {
                let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
                    connection.port = server.port();
                    connection
                });
                let server = NameServerConfig::new(server.ip(), true, connections.to_vec());
                TokioResolver::builder_with_config(ResolverConfig::from_name_servers(vec![server]), provider)
            }
            None => TokioResolver::builder_tokio().map_err(SettingsError::Resolver)?,
        };
        let options: &mut ResolverOpts = builder.options_mut();
        options.cache_size = REMEMBERED;
        options.positive_max_ttl = Some(LONGEST);
        options.negative_max_ttl = Some(LONGEST);
        // All tries together fit into the time of a request.
        options.timeout = options.timeout.min(patience / 3).max(Duration::from_millis(50));
        options.attempts = 2;
        options.max_active_requests = AT_A_TIME;
        let resolver = builder.build().map_err(SettingsError::Resolver)?;
        Ok(Self { resolver, turns: Semaphore::new(AT_A_TIME) })
    }

    /// Returns the addresses of a host, a few of them. A name that is searched for may be short for one of the system's own domains.
    pub(super) async fn addresses(&self, host: &str, is_searched: bool) -> Result<Vec<IpAddr>, Failed> {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Ok(vec![address]);
        }
        if host == "localhost" {
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        let _turn = self.turns.acquire().await.map_err(|_| Failed::Busy)?;
        // With a dot at its end it is short for nothing.
        let name = if is_searched { host.to_owned() } else { format!("{host}.") };
        match self.resolver.lookup_ip(name).await {
            Ok(found) => Ok(found.iter().take(TRIED).collect()),
            Err(error) if is_none(&error) => Err(Failed::NoSuchName),
            Err(error) => Err(Failed::Host(format!("could not be resolved: {error}"))),
        }
    }

    /// Returns the texts of a name, or why they cannot be had.
    pub(super) async fn texts(&self, name: &str) -> Result<Texts, String> {
        let _turn = self.turns.acquire().await.map_err(|_| "cannot be resolved now".to_owned())?;
        let found = match self.resolver.txt_lookup(name).await {
            Ok(found) => found,
            Err(error) if is_none(&error) => return Ok(Texts::None),
            Err(error) => return Err(format!("has texts that could not be read: {error}")),
        };
        let texts = found.answers().iter().filter_map(|record| match &record.data {
            RData::TXT(text) => String::from_utf8(text.txt_data.concat()).ok(),
            _ => None,
        });
        Ok(Texts::Found(texts.collect()))
    }
}

/// Returns whether the answer is that there is nothing.
fn is_none(error: &NetError) -> bool {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => {
            matches!(none.response_code, ResponseCode::NoError | ResponseCode::NXDomain)
        }
        _ => false,
    }
}
