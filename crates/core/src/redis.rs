//! How every service connects to Redis: no hidden re-sends, dead connections noticed, a wrong server named.

use std::time::Duration;

use fred::clients::{Client, SubscriberClient};
use fred::error::ErrorKind;
use fred::interfaces::ClientLike;
use fred::types::config::{Config, Options, ReconnectPolicy, UnresponsiveConfig};
use fred::types::{Builder, ClusterHash, ConnectHandle, CustomCommand, InfoKind};
use thiserror::Error;

use crate::settings::Settings;

/// How long fred waits at first and at most before it connects again, in milliseconds.
const RECONNECT_MS: (u32, u32) = (50, 2_000);

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
    #[error("{url} is a read-only replica: give the address of the primary, or of the Sentinels that know it")]
    Replica {
        /// The address, masked.
        url: String,
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
    let client = builder(settings)?.build().map_err(|source| address(settings, source))?;
    init(settings, &client, Some(settings.redis.command_timeout)).await?;
    if let Err(error) = refuse_replica(settings, &client).await {
        let _ = client.quit().await;
        return Err(error);
    }
    Ok(client)
}

/// Connects a client for subscriptions, which it takes up again by itself after a reconnection; up to 8,192 messages wait.
///
/// # Errors
/// Nobody answers or the login fails.
pub async fn connect_subscriber(settings: &Settings) -> Result<SubscriberClient, RedisError> {
    let mut builder = builder(settings)?;
    builder.with_performance_config(|performance| performance.broadcast_channel_capacity = MESSAGES_WAITING);
    let client = builder.build_subscriber_client().map_err(|source| address(settings, source))?;
    // A subscription says nothing for as long as there is nothing to say, and cannot be asked.
    init(settings, &client, None).await?;
    client.manage_subscriptions();
    Ok(client)
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

/// Refuses a Redis that may evict keys, unless the settings allow it.
///
/// # Errors
/// The server does not answer, or its policy is not noeviction.
pub async fn refuse_eviction(settings: &Settings, client: &Client) -> Result<(), RedisError> {
    let url = settings.redis_url.to_string();
    let memory = memory(client, settings.keys.stream()).await;
    let memory = memory.map_err(|source| RedisError::Ask { url: url.clone(), what: "its memory", source })?;
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
    let config = Config::from_url(settings.redis_url.expose()).map_err(|source| address(settings, source))?;
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
async fn init<C: ClientLike + 'static>(
    settings: &Settings,
    client: &C,
    patience: Option<Duration>,
) -> Result<(), RedisError> {
    let url = settings.redis_url.to_string();
    match client.init().await {
        Ok(connection) => {
            tokio::spawn(keep(url, client.clone(), connection, patience));
            Ok(())
        }
        Err(source) => Err(RedisError::Connect { url, source }),
    }
}

/// Connects anew when the task behind a client ended by itself: all commands of the client would wait in vain for good.
async fn keep<C: ClientLike>(url: String, client: C, mut connection: ConnectHandle, patience: Option<Duration>) {
    loop {
        let watch = async {
            match patience {
                Some(patience) => give_up_dead(&url, &client, patience).await,
                None => std::future::pending().await,
            }
        };
        let ended = tokio::select! {
            ended = &mut connection => ended,
            () = watch => return,
        };
        let error = match ended {
            // Somebody quit, or the runtime ends.
            Ok(Ok(())) => return,
            Err(error) if error.is_cancelled() => return,
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        tracing::warn!(redis = %url, error, "redis client ended by itself, connecting anew");
        tokio::time::sleep(Duration::from_millis(RECONNECT_MS.1.into())).await;
        connection = client.connect();
    }
}

/// Connects anew whenever nothing comes back any more: fred itself gives a connection up only when nothing was written to
/// it for as long either, and there is always something to write.
async fn give_up_dead<C: ClientLike>(url: &str, client: &C, patience: Duration) {
    loop {
        tokio::time::sleep(patience / 2).await;
        let was_connected = client.is_connected();
        let answer: Result<(), _> = client.ping(None).await;
        let silent = answer.is_err_and(|error| *error.kind() == ErrorKind::Timeout);
        if silent && was_connected && client.is_connected() {
            tracing::warn!(redis = %url, ?patience, "nothing comes back from redis, connecting anew");
            let _ = client.force_reconnection().await;
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
        Err(error) if error.details().contains("NOPERM") || error.details().contains("unknown command") => Ok(()),
        Err(source) => Err(RedisError::Ask { url, what: "its role", source }),
    }
}

fn address(settings: &Settings, source: fred::error::Error) -> RedisError {
    RedisError::Address { url: settings.redis_url.to_string(), source }
}
