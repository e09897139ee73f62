//! Runs everything on one machine: servers of its own where none are given, ingest, one worker, the dashboard.

mod addresses;
mod ending;
mod folder;
mod oldest;
mod parts;
mod recording;
mod servers;
mod status;

use std::fmt::{Arguments, Write as _};
use std::io::{Write, stdout};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fred::clients::Client;
use fred::interfaces::{ClientLike, KeysInterface};
use jiff::Timestamp;
use penstock_core::redis;
use penstock_core::settings::{Layers, Settings, Start};
use penstock_ingest::Ingest;
use penstock_telemetry::admin::{self, Health};
use penstock_telemetry::metrics::Metrics;
use penstock_telemetry::shutdown;
use penstock_telemetry::summary::Rate;
use tokio::time::interval;
use tokio_util::sync::CancellationToken;

use crate::cli::{RECORDED, Run};
use crate::error::Error;

use addresses::Origins;
use ending::{Bounds, Ending, Events, Reached};
use folder::{Folder, Ports, shown};
use parts::{DASHBOARD, INGEST, Parts, RECORDING, WORKER};
use servers::Servers;
use status::{Looks, Status};

/// The dashboard's port where none is set and it is free.
const DASHBOARD_PORT: u16 = 8000;

/// Who holds it administrates the dashboard.
const ADMIN_TOKEN: &str = "dashboard.adminToken";

/// How many status lines in a row have to say that nothing waits before a run that is over ends.
const QUIET: u32 = 3;

/// What a run was told, and what it has.
struct Context<'a> {
    args: &'a Run,
    origins: Origins,
    folder: Folder,
    /// Those of the last run.
    ports: Ports,
    /// The admin token of the dashboard, where it is one of ours.
    token: Option<String>,
}

/// Runs until a signal or a bound, then ends everything in order.
pub(super) async fn run(args: &Run, layers: Layers) -> Result<(), Error> {
    let (layers, origins) = addresses::settle(layers, args);
    let layers = quiet(layers, &origins);
    // Checked before anything starts; what is filled in below are addresses of our own.
    let given = Settings::load(&layers).map_err(Error::Settings)?;
    let folder = Folder::take(&args.data)?;
    let token = if layers.sets(ADMIN_TOKEN, None) { None } else { Some(folder.token()?) };
    let layers = token.iter().fold(layers, |layers, token| layers.below(ADMIN_TOKEN, token));
    let context = Context { args, origins, ports: folder.ports(), folder, token };
    let metrics = Metrics::new();
    let exporting = super::telemetry::init(&given, "run", &metrics)?;
    let cancel = shutdown::on_signals()?;
    let mut servers = Servers::default();
    let started = tokio::select! {
        started = servers.start(&context.folder, layers, &context.origins, &context.ports) => started.map(Some),
        () = cancel.cancelled() => Ok(None),
    };
    let ended = match started {
        Ok(Some(layers)) => Box::pin(pipeline(&context, layers, &mut servers, metrics, &cancel)).await,
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    exporting.shutdown().await;
    servers.stop().await;
    ended
}

/// Runs the parts until a signal, until a bound is reached, or until one of them ends.
async fn pipeline(
    context: &Context<'_>,
    layers: Layers,
    servers: &mut Servers,
    metrics: Metrics,
    cancel: &CancellationToken,
) -> Result<(), Error> {
    let Context { args, folder, ports, .. } = context;
    let settings = Settings::load(&layers).map_err(Error::Settings)?;
    if let Some(url) = &settings.postgres.url {
        penstock_worker::migrate(url.expose(), settings.message_buffer.enabled).await?;
    }
    let client = redis::connect(&settings).await?;
    let mut parts = Parts::new();
    let (layers, events) = read(context, layers, &settings, &client, &mut parts).await?;
    let (layers, moved) = addressed(layers, ports);
    let settings = Arc::new(Settings::load(&layers).map_err(Error::Settings)?);
    let health = Health::new();
    let drained = CancellationToken::new();
    let (admin, admin_server) =
        admin::serve(settings.telemetry.admin_address, health.clone(), metrics.clone(), drained.clone()).await?;
    let dashboard = penstock_dashboard::bind(Arc::clone(&settings))?;
    let page = dashboard.local_addr();
    folder.keep(&Ports {
        redis: servers.redis.as_ref().map(|redis| redis.port()).or(ports.redis),
        postgres: servers.postgres.as_ref().map(|postgres| postgres.port()).or(ports.postgres),
        dashboard: Some(page.port()),
        metrics: Some(admin.port()),
    })?;
    let ingest = Ingest::new(Arc::clone(&settings), &metrics, &health);
    let (from_ingest, from_worker) = (ingest.progress(), penstock_worker::Progress::default());
    let end = parts.end(INGEST);
    parts.spawn(INGEST, async move { Ok(Box::pin(ingest.run(end)).await?) });
    let end = parts.end(WORKER);
    let worker =
        penstock_worker::run_observed(Arc::clone(&settings), metrics.clone(), health.clone(), from_worker.clone(), end);
    parts.spawn(WORKER, async move { Ok(worker.await?) });
    let end = parts.end(DASHBOARD);
    parts.spawn(DASHBOARD, async move { Ok(dashboard.run(metrics, health, end).await?) });

    tell_servers(context, servers, &settings, &moved);
    say(format_args!("metrics    http://{admin}/metrics"));
    say(format_args!("dashboard  http://{}", reachable(page)));
    if let Some(token) = &context.token {
        // Not part of what a browser sends, so no log and no proxy has it.
        let base = settings.dashboard.base_path.prefix();
        say(format_args!("           sign in: http://{}{base}/#token={token}", reachable(page)));
    }
    let bounds = Bounds { events, time: args.time, disk: folder::bound(args.max_disk, folder.path()) };
    tell_bounds(&bounds, args);

    let looks = Looks::start(client.clone(), settings.keys.clone(), folder.path());
    let started = Instant::now();
    let mut tick = interval(Duration::from_secs(1));
    let mut rate = Rate::new(0, started);
    let mut ending: Option<Ending> = None;
    let mut quiet = 0;
    tick.tick().await;
    let ended = {
        let mut keeping = pin!(servers.keep());
        loop {
            tokio::select! {
                () = cancel.cancelled() => break Ok(()),
                ended = parts.ended() => break ended,
                () = &mut keeping => {}
                _ = tick.tick() => {
                    let (worker, seen, now) = (from_worker.snapshot(), looks.seen(), Instant::now());
                    say(format_args!("{}", Status {
                        rate: rate.look(from_ingest.published(), now),
                        lag: from_ingest.lag(Timestamp::now()),
                        waiting: worker.lag,
                        applied: worker.applied,
                        seen,
                        bound: bounds.disk,
                    }));
                    if ending.is_none() {
                        ending = bounds.ending(&Reached {
                            published: from_ingest.published(),
                            cursor: from_ingest.cursor(),
                            time: now.duration_since(started),
                            disk: seen.disk,
                        });
                        if let Some(ending) = ending {
                            say(format_args!("finishing  {ending}; draining the stream"));
                            parts.end(INGEST).cancel();
                        }
                    } else {
                        quiet = if worker.lag == Some(0) && worker.in_flight == 0 { quiet + 1 } else { 0 };
                        if quiet >= QUIET {
                            break Ok(());
                        }
                    }
                }
            }
        }
    };
    say(format_args!("stopping"));
    let stopped = parts.stop().await;
    drained.cancel();
    let _ = admin_server.await;
    let _ = client.quit().await;
    ended.and(stopped)?;
    match ending {
        Some(Ending::Disk(bytes)) => Err(Error::FolderFull { path: args.data.clone(), size: shown(bytes) }),
        _ => Ok(()),
    }
}

/// Settles which relay is read: the one that is given, which may be told to begin with its oldest event, or the recording's.
async fn read(
    context: &Context<'_>,
    layers: Layers,
    settings: &Settings,
    client: &Client,
    parts: &mut Parts,
) -> Result<(Layers, Option<Events>), Error> {
    let Context { args, origins, folder, .. } = context;
    let total = args.total.filter(|total| *total > 0);
    if origins.relay.is_some() {
        if settings.relay.start == Start::Oldest
            && let Some(relay) = settings.relay.urls.first()
        {
            tell_cost(relay, client, settings).await;
        }
        return Ok((layers, total.map(Events::Count)));
    }
    let total = if args.total.is_none() { Some(RECORDED) } else { total };
    let (relay, last) = recording::bind(folder, args.rate, total, client, settings).await?;
    let url = format!("ws://{}", relay.local_addr());
    let end = parts.end(RECORDING);
    parts.spawn(RECORDING, async move { Ok(relay.run(end).await?) });
    let events = total.zip(last).map(|(count, last)| Events::Seq { count, last });
    Ok((layers.flag("relay.urls", url), events))
}

/// Says what reading from the oldest event will cost, where nothing was read before.
async fn tell_cost(relay: &penstock_core::settings::RelayUrl, client: &Client, settings: &Settings) {
    let cursor: Option<String> = client.get(settings.keys.cursor()).await.unwrap_or_default();
    if let Some(cursor) = cursor {
        say(format_args!("oldest     ignored: this folder resumes after event {cursor}"));
        return;
    }
    match oldest::cost(relay).await {
        Some(cost) => say(format_args!("oldest     {relay} has {cost}")),
        None => say(format_args!(
            "oldest     no estimate: {relay} sent no event within 10 s; starting with its oldest event"
        )),
    }
}

/// Fills in the addresses of dashboard and metrics: those of the last run where they are free. Returns a line for each that is not.
fn addressed(layers: Layers, ports: &Ports) -> (Layers, Vec<String>) {
    let mut moved = Vec::new();
    let (dashboard, usual) = (ports.dashboard.unwrap_or(DASHBOARD_PORT), ports.metrics.unwrap_or_default());
    let mut layers = layers;
    for (setting, older_name, port, name) in [
        ("dashboard.address", "DASHBOARD_ADDRESS", dashboard, "dashboard"),
        ("telemetry.adminAddress", "ADMIN_ADDRESS", usual, "metrics"),
    ] {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let free = std::net::TcpListener::bind(address).is_ok();
        if !free && !layers.sets(setting, Some(older_name)) {
            moved.push(format!("{name:<10} port {port} is in use; using another"));
        }
        let address = if free { address } else { SocketAddr::from((Ipv4Addr::LOCALHOST, 0)) };
        layers = layers.below(setting, address.to_string());
    }
    (layers, moved)
}

/// Says where each server is, and who said so.
fn tell_servers(context: &Context<'_>, servers: &Servers, settings: &Settings, moved: &[String]) {
    let Context { args, origins, ports, .. } = context;
    let data = args.data.display();
    let given = |origin: &Option<String>| origin.as_ref().map(|origin| format!("from {origin}"));
    let own = |name: &str| format!("local, in {data}/{name}");
    let relay = settings.relay.urls.first().map(ToString::to_string).unwrap_or_default();
    let from =
        given(&origins.relay).unwrap_or_else(|| format!("the bundled recording, {} events per second", args.rate));
    say(format_args!("relay      {relay} ({from})"));
    let from = given(&origins.redis).unwrap_or_else(|| own("redis"));
    say(format_args!("redis      {} ({from})", settings.redis_url));
    let from = given(&origins.postgres).unwrap_or_else(|| own("postgres"));
    let postgres = settings.postgres.url.as_ref().map(ToString::to_string).unwrap_or_default();
    say(format_args!("postgres   {postgres} ({from})"));
    let password = servers.postgres.is_some().then(|| args.data.join("postgres/password").display().to_string());
    say(format_args!("           {}", psql(&postgres, password.as_deref())));
    for line in &origins.passed_over {
        say(format_args!("           {line}"));
    }
    let now = [("redis", ports.redis, servers.redis.as_ref().map(|redis| redis.port()))];
    let now = now.into_iter().chain([(
        "postgres",
        ports.postgres,
        servers.postgres.as_ref().map(|postgres| postgres.port()),
    )]);
    for (name, before, port) in now {
        if let (Some(before), Some(port)) = (before, port)
            && before != port
        {
            say(format_args!("{name:<10} port {before} is in use; using {port}"));
        }
    }
    for line in moved {
        say(format_args!("{line}"));
    }
}

/// Says when the run ends by itself.
fn tell_bounds(bounds: &Bounds, args: &Run) {
    let mut ends = String::new();
    match bounds.events {
        Some(Events::Count(count) | Events::Seq { count, .. }) => {
            let default = if args.total.is_none() { "; 0 for no limit" } else { "" };
            let _ = write!(ends, "after {count} events (--total{default}), ");
        }
        None => ends.push_str("on Ctrl-C, "),
    }
    if let Some(time) = bounds.time {
        let _ = write!(ends, "after {time:?} (--for), ");
    }
    let why = if bounds.disk < args.max_disk { "free disk space" } else { "--max-disk" };
    say(format_args!("ends       {ends}or when {} reaches {} ({why})", args.data.display(), shown(bounds.disk)));
}

/// Writes the command that opens the database, ready for a shell and without the password.
fn psql(masked: &str, password_file: Option<&str>) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
    match password_file {
        Some(file) => {
            let file = if file.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c)) {
                file.to_owned()
            } else {
                quoted(file)
            };
            format!("psql \"{}\"", masked.replace(":***@", &format!(":$(cat {file})@")))
        }
        None => format!("psql {}", quoted(&masked.replace(":***@", "@"))),
    }
}

/// Fills in what suits a laptop, below everything that is set.
fn quiet(layers: Layers, origins: &Origins) -> Layers {
    let start = if origins.relay.is_none() { "oldest" } else { "live" };
    layers
        .below("telemetry.logLevel", "warn")
        .below("relay.start", start)
        .below("messageBuffer.enabled", "true")
        .below("telemetry.adminAddress", "127.0.0.1:0")
        .below("dashboard.address", "127.0.0.1:0")
}

/// Says something to whoever reads; the pipeline goes on where nobody does any more, as behind `| head -1`.
fn say(line: Arguments<'_>) {
    let _ = writeln!(stdout(), "{line}");
}

fn reachable(bound: SocketAddr) -> SocketAddr {
    if bound.ip().is_unspecified() { SocketAddr::from((Ipv4Addr::LOCALHOST, bound.port())) } else { bound }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_for_psql_is_quoted_and_holds_no_password() {
        let own = "postgres://penstock:***@127.0.0.1:5/penstock";
        assert_eq!(
            psql(own, Some("data/postgres/password")),
            r#"psql "postgres://penstock:$(cat data/postgres/password)@127.0.0.1:5/penstock""#
        );
        let spaced = psql(own, Some("it's a folder/password"));
        assert!(spaced.contains(r"$(cat 'it'\''s a folder/password')"), "{spaced}");
        assert_eq!(psql("postgres://u:***@h/d?sslmode=require", None), "psql 'postgres://u@h/d?sslmode=require'");
    }
}
