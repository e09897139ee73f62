//! How every service connects to Redis: no hidden re-sends, dead connections noticed, a wrong server named.

mod explain;
mod product;
mod tls;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use fred::clients::{Client, SubscriberClient};
use fred::error::ErrorKind;
use fred::interfaces::{ClientLike, EventInterface};
use fred::types::config::{Config, Options, ReconnectPolicy, UnresponsiveConfig};
use fred::types::{Builder, ClusterHash, ConnectHandle, CustomCommand, InfoKind};
use thiserror::Error;
use tokio::sync::broadcast::error::RecvError;

use crate::causes::innermost;
use crate::servers::{Server, is_unanswered};
use crate::settings::{Redis, Settings};
use crate::units::seconds;
use product::Lack;

pub use product::{LOWEST, Product};
pub use tls::TlsError;

/// How long fred waits at first and at most before it connects again, in milliseconds.
const RECONNECT_MS: (u32, u32) = (50, 2_000);

/// How often it is asked at least whether a server still answers.
const PING: Duration = Duration::from_secs(1);

/// How many messages of a subscription may wait to be taken; fred's own 32 are less than one batch of ingest broadcasts.
const MESSAGES_WAITING: usize = 8_192;

/// Why a Redis cannot be used.
#[derive(Debug, Error)]
pub enum RedisError {
    /// The client refuses the address.
    #[error("could not use the address {url}")]
    Address {
        /// The address, masked.
        url: String,
        /// Why.
        source: fred::error::Error,
    },
    /// Nobody answers, or the login failed.
    #[error("could not connect to {url}")]
    Connect {
        /// The address, masked.
        url: String,
        /// Why.
        source: fred::error::Error,
    },
    /// A certificate or key of the settings cannot be used.
    #[error("could not set up TLS for {url}")]
    Certificates {
        /// The address, masked.
        url: String,
        /// Why.
        source: TlsError,
    },
    /// The address asks for TLS, and the port does not speak it.
    #[error("{url} does not speak TLS on this port: use redis:// here, or the port that Redis has as tls-port")]
    NotTls {
        /// The address, masked.
        url: String,
    },
    /// The port speaks TLS, and the address does not ask for it.
    #[error("{url} speaks TLS on this port: use rediss:// here, or the port without TLS")]
    Tls {
        /// The address, masked.
        url: String,
    },
    /// The server wants to know who connects.
    #[error("{url} asks for a client certificate: set redis.tls.cert and redis.tls.key")]
    ClientCertificate {
        /// The address, masked.
        url: String,
    },
    /// It is a node of a Cluster.
    #[error(
        "{url} is a Redis Cluster: use redis-cluster:// (with TLS rediss-cluster://) and a redis.keyPrefix with a hash tag, such as \
         {{bluesky}}:"
    )]
    Cluster {
        /// The address, masked.
        url: String,
    },
    /// It is too old.
    #[error("{url} is {server}, which is too old: Redis {}.{} or newer is needed, or a server that is compatible with it", LOWEST.0, LOWEST.1)]
    TooOld {
        /// The address, masked.
        url: String,
        /// Which server, with its version.
        server: String,
    },
    /// It forbids what we need.
    #[error(
        "{url} is {server}, which does not allow {command} in scripts: Redis, Valkey, or a newer version of this server is needed"
    )]
    Scripts {
        /// The address, masked.
        url: String,
        /// Which server, with its version where it tells.
        server: String,
        /// The command.
        command: String,
    },
    /// It answers, but not as a Redis does.
    #[error("could not ask {url} for {what}")]
    Ask {
        /// The address, masked.
        url: String,
        /// What was asked.
        what: &'static str,
        /// Why not.
        source: fred::error::Error,
    },
    /// It is a replica.
    #[error("{url} is a read-only replica: use the address of the primary, or of its Sentinels")]
    Replica {
        /// The address, masked.
        url: String,
    },
    /// Its user lacks permissions.
    #[error("this user of {url} lacks what {part} needs: add {missing} to its rules (ACL SETUSER)")]
    Permissions {
        /// The address, masked.
        url: String,
        /// For which part.
        part: String,
        /// What, as rules.
        missing: String,
    },
    /// It may evict keys.
    #[error(
        "{url} has maxmemory-policy {policy} and may evict the stream: set noeviction there (or redis.allowEviction here, \
         and lose events when its memory is full)"
    )]
    Evicts {
        /// The address, masked.
        url: String,
        /// The policy.
        policy: String,
    },
}

/// How much of its memory a Redis uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Bytes in use.
    pub used: u64,
    /// The most bytes it may use; none where it is not bounded.
    pub max: Option<u64>,
    /// What it does when full.
    pub policy: String,
}

/// Connects a client for commands.
///
/// A command whose reply is lost fails: nothing is ever sent twice without the caller's knowledge. Later commands wait
/// for the connection to come back, up to the command timeout. In a Cluster a command that meets a slot on the move fails
/// too, and the next one goes where the slot is.
///
/// # Errors
/// Nobody answers, the login fails, or the server is a replica.
pub async fn connect(settings: &Settings) -> Result<Client, RedisError> {
    connect_as(settings, None).await
}

/// Connects as [`connect`] does, and for as long as the client is connected records whether the server answers.
///
/// # Errors
/// As [`connect`].
pub async fn connect_for(settings: &Settings, server: &Server) -> Result<Client, RedisError> {
    let connected = connect_as(settings, Some(server.clone())).await;
    match &connected {
        Err(error) if is_unanswered(error) => server.failed(error),
        _ => server.answered(),
    }
    connected
}

/// Returns what tells connections apart: whoever has the same may share one. It holds a password.
#[must_use]
pub fn connection_key(settings: &Settings) -> String {
    let Redis { tls_ca, tls_cert, tls_key, .. } = &settings.redis;
    let mut hasher = DefaultHasher::new();
    (tls_ca, tls_cert, tls_key).hash(&mut hasher);
    format!("{} {:x}", settings.redis_url.expose(), hasher.finish())
}

async fn connect_as(settings: &Settings, server: Option<Server>) -> Result<Client, RedisError> {
    let client = builder(settings)?.build().map_err(|source| address(settings, source))?;
    let watch = Watch { patience: settings.redis.command_timeout, server };
    init(settings, &client, Some(watch)).await?;
    let checked = async {
        refuse_replica(settings, &client).await?;
        refuse_unfit(settings, &client).await
    };
    if let Err(error) = checked.await {
        let _ = client.quit().await;
        return Err(error);
    }
    Ok(client)
}

/// How a client is watched that answers pings.
#[derive(Clone, Debug)]
struct Watch {
    /// How long an answer may take.
    patience: Duration,
    /// Where it is recorded.
    server: Option<Server>,
}

/// A client for subscriptions. Its connection ends with it.
#[derive(Debug)]
pub struct Subscriber(SubscriberClient);

impl std::ops::Deref for Subscriber {
    type Target = SubscriberClient;

    fn deref(&self) -> &SubscriberClient {
        &self.0
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        // The library's own tasks keep a client connected that nobody holds any more.
        let client = self.0.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { client.quit().await });
        }
    }
}

/// Connects a client for subscriptions, which it takes up again by itself after a reconnection; up to 8,192 messages wait.
///
/// # Errors
/// Nobody answers or the login fails.
pub async fn connect_subscriber(settings: &Settings) -> Result<Subscriber, RedisError> {
    let mut builder = builder(settings)?;
    builder.with_performance_config(|performance| performance.broadcast_channel_capacity = MESSAGES_WAITING);
    let client = builder.build_subscriber_client().map_err(|source| address(settings, source))?;
    let subscriber = Subscriber(client);
    // A subscription says nothing for as long as there is nothing to say, and cannot be asked.
    init(settings, &*subscriber, None).await?;
    subscriber.manage_subscriptions();
    Ok(subscriber)
}

/// Asks the server that holds a key how much memory is used.
///
/// # Errors
/// The server does not answer.
pub async fn memory(client: &Client, key: &str) -> Result<Memory, fred::error::Error> {
    // fred takes the argument of INFO for a key: in a Cluster it would ask whichever node that falls to.
    let options = Options { cluster_hash: Some(ClusterHash::from(key)), ..Options::default() };
    let info: String = client.with_options(&options).info(Some(InfoKind::Memory)).await?;
    let field = |name: &str| {
        info.lines()
            .find_map(|line| line.split_once(':').filter(|(key, _)| *key == name).map(|(_, value)| value.trim()))
    };
    let number = |name: &str| field(name).and_then(|text| text.parse().ok()).unwrap_or_default();
    Ok(Memory {
        used: number("used_memory"),
        max: Some(number("maxmemory")).filter(|max| *max > 0),
        policy: field("maxmemory_policy").unwrap_or("noeviction").to_owned(),
    })
}

/// Asks as [`memory`] does; none where the user may not ask, or the server has no INFO.
///
/// # Errors
/// As [`memory`].
pub async fn memory_if_told(client: &Client, key: &str) -> Result<Option<Memory>, fred::error::Error> {
    match memory(client, key).await {
        Err(error) if is_forbidden(&error) => Ok(None),
        memory => memory.map(Some),
    }
}

/// Says whether Redis refused a command because this user may not run it, or because it has no such command; a script that runs
/// such a command fails with other words, and a different set of them on each server.
#[must_use]
pub fn is_forbidden(error: &fred::error::Error) -> bool {
    let said = error.details();
    [
        "NOPERM",
        "ACL failure in script",
        "The user executing the script can't",
        "unknown command",
        "unknown subcommand",
        "Unknown Redis command called from script",
    ]
    .iter()
    .any(|words| said.contains(words))
}

/// Refuses a Redis that may evict keys, unless the settings allow it.
///
/// # Errors
/// The server does not answer, or its policy is not noeviction.
pub async fn refuse_eviction(settings: &Settings, client: &Client) -> Result<(), RedisError> {
    let url = settings.redis_url.to_string();
    let memory = memory_if_told(client, settings.keys.stream()).await;
    let memory = memory.map_err(|source| RedisError::Ask { url: url.clone(), what: "its memory", source })?;
    let Some(memory) = memory else {
        tracing::warn!(redis = %url, "redis does not allow info: its memory and its eviction policy are not watched");
        return Ok(());
    };
    if memory.policy == "noeviction" {
        return Ok(());
    }
    if settings.redis.allow_eviction {
        tracing::warn!(redis = %url, policy = %memory.policy, "redis may evict keys and lose events: set noeviction");
        return Ok(());
    }
    Err(RedisError::Evicts { url, policy: memory.policy })
}

fn builder(settings: &Settings) -> Result<Builder, RedisError> {
    let mut config = Config::from_url(settings.redis_url.expose()).map_err(|source| address(settings, source))?;
    let certificates = |source| RedisError::Certificates { url: settings.redis_url.to_string(), source };
    if let Some(connector) = tls::connector(&settings.redis).map_err(certificates)? {
        config.tls = Some(connector.into());
    }
    let timeout = settings.redis.command_timeout;
    let mut builder = Builder::from_config(config);
    builder
        .set_policy(ReconnectPolicy::new_exponential(0, RECONNECT_MS.0, RECONNECT_MS.1, 2))
        .with_performance_config(|performance| performance.default_command_timeout = timeout)
        .with_connection_config(|connection| {
            connection.max_command_attempts = 1;
            // A redirected command counts as another attempt. Were it let through, fred's task would end over an ASK; so it
            // learns from a MOVED where the slot is, and the command fails.
            connection.max_redirections = 0;
            connection.connection_timeout = timeout;
            connection.internal_command_timeout = timeout;
            connection.tcp.nodelay = Some(true);
            connection.unresponsive = UnresponsiveConfig {
                // Past the command's own timeout the connection is dropped, so that a late reply meets nobody.
                max_timeout: Some(timeout + timeout / 2),
                interval: (timeout / 4).max(Duration::from_millis(10)),
            };
        });
    Ok(builder)
}

/// Connects; a client that answers pings is given up after so long without an answer.
async fn init<C: ClientLike + EventInterface + 'static>(
    settings: &Settings,
    client: &C,
    watch: Option<Watch>,
) -> Result<(), RedisError> {
    let url = settings.redis_url.to_string();
    match client.init().await {
        Ok(connection) => {
            tokio::spawn(keep(url, client.clone(), connection, watch));
            Ok(())
        }
        Err(source) => Err(explain::connection(&settings.redis_url, source).await),
    }
}

/// Connects anew when the task behind a client ended by itself: all commands of the client would wait in vain for good.
async fn keep<C: ClientLike + EventInterface>(
    url: String,
    client: C,
    mut connection: ConnectHandle,
    watch: Option<Watch>,
) {
    loop {
        let watching = async {
            match &watch {
                Some(watch) => tokio::join!(give_up_dead(&url, &client, watch), record_losses(&client, watch)).0,
                None => std::future::pending().await,
            }
        };
        let ended = tokio::select! {
            ended = &mut connection => ended,
            () = watching => return,
        };
        let error = match ended {
            // Somebody quit, or the runtime ends.
            Ok(Ok(())) => return,
            Err(error) if error.is_cancelled() => return,
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        tracing::warn!(redis = %url, error, "redis client stopped unexpectedly, reconnecting");
        tokio::time::sleep(Duration::from_millis(RECONNECT_MS.1.into())).await;
        connection = client.connect();
    }
}

/// Connects anew whenever nothing comes back any more: fred itself gives a connection up only when nothing was written to
/// it for as long either, and there is always something to write.
async fn give_up_dead<C: ClientLike>(url: &str, client: &C, watch: &Watch) {
    let Watch { patience, server } = watch;
    loop {
        tokio::time::sleep((*patience / 2).min(PING)).await;
        let was_connected = client.is_connected();
        let answer: Result<(), _> = client.ping(None).await;
        let is_silent = answer.as_ref().is_err_and(|error| *error.kind() == ErrorKind::Timeout);
        let is_connected = was_connected && client.is_connected();
        if let Some(server) = server {
            match &answer {
                Err(_) if is_silent && is_connected => server.failed_because(&format!("no answer within {patience:?}")),
                // Whoever connects anew tells why that fails.
                Err(error) if is_unanswered(error) && !is_connected => {}
                Err(error) if is_unanswered(error) => server.failed(error),
                // Also one that forbids the command.
                _ => server.answered(),
            }
        }
        if is_silent && is_connected {
            tracing::debug!(redis = %url, patience_seconds = seconds(*patience), "no response from redis, reconnecting");
            let _ = client.force_reconnection().await;
        }
    }
}

/// Records connections that end, and those that cannot be made again.
async fn record_losses<C: ClientLike + EventInterface>(client: &C, watch: &Watch) {
    let Some(server) = &watch.server else { return };
    let mut errors = client.error_rx();
    loop {
        match errors.recv().await {
            // A Cluster that moves its slots.
            Ok((error, _)) if *error.kind() == ErrorKind::Cluster => {}
            Ok((error, Some(_))) => server.lost_because(&innermost(&error)),
            Ok((error, None)) => server.failed(&error),
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

async fn refuse_replica(settings: &Settings, client: &Client) -> Result<(), RedisError> {
    let url = settings.redis_url.to_string();
    if settings.redis_url.kind() == crate::settings::RedisKind::Cluster {
        // A cluster client finds the primaries by itself.
        return Ok(());
    }
    let role = CustomCommand::new_static("ROLE", None, false);
    let role: Result<Vec<fred::types::Value>, _> = client.custom(role, Vec::<String>::new()).await;
    match role {
        Ok(role) if role.first().and_then(fred::types::Value::as_str).as_deref() == Some("slave") => {
            Err(RedisError::Replica { url })
        }
        Ok(_) => Ok(()),
        // A managed Redis may forbid the command: then a write will tell.
        Err(error) if is_forbidden(&error) => Ok(()),
        Err(source) => Err(RedisError::Ask { url, what: "its role", source }),
    }
}

/// Refuses a server that is too old, or cannot what every part needs.
async fn refuse_unfit(settings: &Settings, client: &Client) -> Result<(), RedisError> {
    let url = settings.redis_url.to_string();
    let product = product::ask(client, &settings.keys).await;
    let server = product.as_ref().map_or_else(|| "a server of unknown version".to_owned(), Product::to_string);
    match product::probe(client, &settings.keys, product.as_ref()).await {
        Ok(None) => Ok(()),
        Ok(Some(Lack::Version)) => Err(RedisError::TooOld { url, server }),
        Ok(Some(Lack::Command(command))) => Err(RedisError::Scripts { url, server, command }),
        Err(error) if error.details().contains("unknown command") => {
            Err(RedisError::Scripts { url, server, command: "EVAL".to_owned() })
        }
        // Whoever lacks the permission, or finds Redis loading, is told so by what it does next.
        Err(error) if !is_unanswered(&error) && !explain::is_cluster(&error) => Ok(()),
        Err(error) => Err(explain::command(&settings.redis_url, error)),
    }
}

fn address(settings: &Settings, source: fred::error::Error) -> RedisError {
    RedisError::Address { url: settings.redis_url.to_string(), source }
}
