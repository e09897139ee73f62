//! What `top`, `status`, `tail` and the kubectl plugin take.

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use super::help;

/// Which dashboard is asked.
#[derive(Debug, Args)]
pub(crate) struct Reach {
    /// The dashboard, such as https://firehose.example.com. Default: PENSTOCK_URL, else the one on this machine or pod.
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// A file with the token, where the dashboard wants one. Default: PENSTOCK_TOKEN, else the settings' own for the one here.
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
}

/// What `status` takes.
#[derive(Debug, Args)]
#[command(after_help = help::STATUS)]
pub(crate) struct Status {
    #[command(flatten)]
    pub(crate) reach: Reach,
    #[command(flatten)]
    pub(crate) told: Told,
}

/// How a status is told.
#[derive(Debug, Args)]
pub(crate) struct Told {
    /// Prints one JSON object instead of lines.
    #[arg(long)]
    pub(crate) json: bool,
    /// Time between the two looks that show what moves, 1s to 60s.
    #[arg(long, default_value = "2s", value_parser = pause, value_name = "TIME")]
    pub(crate) pause: Duration,
}

/// What `tail` takes.
#[derive(Debug, Args)]
#[command(after_help = help::TAIL)]
pub(crate) struct Tail {
    #[command(flatten)]
    pub(crate) reach: Reach,
    #[command(flatten)]
    pub(crate) wanted: Wanted,
}

/// Which events are wanted.
#[derive(Debug, Args)]
pub(crate) struct Wanted {
    /// A collection such as app.bsky.feed.post, or all below app.bsky.feed, or app.*.like; may be repeated. Default: all.
    #[arg(long, value_name = "PATTERN")]
    pub(crate) collection: Vec<String>,
    /// An account such as did:plc:…, or did:web:*; may be repeated. Default: all.
    #[arg(long, value_name = "PATTERN")]
    pub(crate) did: Vec<String>,
    /// Ends after so many events. Default: without end.
    #[arg(long, value_name = "EVENTS")]
    pub(crate) limit: Option<NonZeroU64>,
}

/// The FirehosePipelines of a Kubernetes cluster, over their dashboards.
///
/// Connections go through the API server, with the rights of the kubeconfig: reading FirehosePipelines, listing pods and
/// forwarding ports.
#[derive(Debug, Parser)]
#[command(name = "kubectl-penstock", bin_name = "kubectl penstock", version, disable_help_subcommand = true)]
#[command(after_help = help::PLUGIN)]
pub(crate) struct Plugin {
    /// The namespace of the pipelines. Default: that of the context.
    #[arg(long, short, global = true, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
    /// The context of the kubeconfig. Default: the current one.
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// The kubeconfig. Default: KUBECONFIG, else ~/.kube/config.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: PluginCommand,
}

/// Which pipeline is meant.
#[derive(Debug, Args)]
pub(crate) struct Named {
    /// The FirehosePipeline. Default: the only one of the namespace.
    pub(crate) name: Option<String>,
}

/// What the plugin does.
#[derive(Debug, Subcommand)]
pub(crate) enum PluginCommand {
    /// Prints how a pipeline is, or all of the namespace: by its resource and by its dashboard.
    ///
    /// Exit codes: 0 good, 1 degraded or not known, 2 down or not reached, 64 bad flags. With several: the worst.
    #[command(after_help = help::PLUGIN_STATUS)]
    Status {
        /// The FirehosePipeline. Default: all of the namespace.
        name: Option<String>,
        #[command(flatten)]
        told: Told,
    },
    /// Draws a pipeline in this terminal.
    #[command(after_help = help::PLUGIN_TOP)]
    Top(Named),
    /// Prints the live events of a pipeline, one JSON object a line.
    #[command(after_help = help::PLUGIN_TAIL)]
    Tail {
        #[command(flatten)]
        named: Named,
        #[command(flatten)]
        wanted: Wanted,
    },
    /// Writes a bundle for a bug report: resource, children, events, logs, settings and figures, with secrets masked.
    #[command(after_help = help::PLUGIN_REPORT)]
    Report {
        #[command(flatten)]
        named: Named,
        /// The file, a .tar.gz, or a folder for it. Default: a new one in this folder.
        #[arg(long, short, value_name = "PATH")]
        output: Option<PathBuf>,
        /// The last lines of each container's log.
        #[arg(long, default_value_t = 2_000, value_name = "LINES")]
        log_lines: u32,
    },
}

fn pause(text: &str) -> Result<Duration, String> {
    let allowed = Duration::from_secs(1)..=Duration::from_secs(60);
    super::duration(text)
        .and_then(|pause| if allowed.contains(&pause) { Ok(pause) } else { Err("1s to 60s".to_owned()) })
}
