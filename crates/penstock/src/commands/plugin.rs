//! The same binary as a plugin of kubectl: under the name `kubectl-penstock`.

use std::env;
use std::ffi::OsStr;
use std::io::{Write as _, stderr, stdout};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use penstock_console::Level;
use penstock_console::cluster::{Cluster, Place, ReportOptions};
use tokio::runtime::Builder;

use super::console::{ending, wanted};
use crate::cli::{Plugin, PluginCommand};
use crate::error::{Error, USAGE};

/// The name by which kubectl finds it.
const NAME: &str = "kubectl-penstock";

/// Runs the plugin where this process was started under its name.
pub(crate) fn main() -> Option<ExitCode> {
    let is_plugin = |name: &OsStr| Path::new(name).file_stem().is_some_and(|stem| stem == NAME);
    if !env::args_os().next().is_some_and(|name| is_plugin(&name)) {
        return None;
    }
    let plugin = match Plugin::try_parse() {
        Ok(plugin) => plugin,
        Err(asked) => {
            let _ = asked.print();
            let help = matches!(asked.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return Some(if help { ExitCode::SUCCESS } else { ExitCode::from(USAGE) });
        }
    };
    let done = Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Error::Runtime)
        .and_then(|runtime| runtime.block_on(Box::pin(run(&plugin))));
    Some(done.unwrap_or_else(|failed| {
        eprintln!("kubectl penstock: {}", penstock_core::causes::chain(&failed));
        // What cannot be reached is down, for whoever asks how it is.
        match (&plugin.command, failed.exit_code()) {
            (_, USAGE) => ExitCode::from(USAGE),
            (PluginCommand::Status { .. }, _) => ExitCode::from(Level::Down.exit_code()),
            (_, code) => ExitCode::from(code),
        }
    }))
}

async fn run(plugin: &Plugin) -> Result<ExitCode, Error> {
    let Plugin { namespace, context, kubeconfig, command } = plugin;
    let place = Place { kubeconfig: kubeconfig.clone(), context: context.clone(), namespace: namespace.clone() };
    let connect = async || Cluster::connect(&place).await.map_err(penstock_console::ConsoleError::from);
    match command {
        PluginCommand::Status { name, told } => {
            let all = connect().await?.status(name.as_deref(), told.pause).await?;
            let texts = all.iter().map(|status| if told.json { status.to_json() } else { status.to_text() });
            // JSON objects follow each other; screens are parted by a line.
            let text = texts.collect::<Vec<_>>().join(if told.json { "" } else { "\n" });
            // Nobody reads any more: the exit code still tells.
            let _ = stdout().write_all(text.as_bytes());
            let worst = all.iter().map(|status| status.level()).max().unwrap_or(Level::Down);
            return Ok(ExitCode::from(worst.exit_code()));
        }
        PluginCommand::Top(named) => connect().await?.top(named.name.as_deref(), ending()?).await?,
        PluginCommand::Tail { named, wanted: which } => {
            let (options, cluster) = (wanted(which)?, connect().await?);
            let (mut out, mut notes) = (stdout(), stderr());
            tokio::select! {
                ended = cluster.tail(named.name.as_deref(), &options, &mut out, &mut notes) => ended?,
                () = ending()? => {}
            }
        }
        PluginCommand::Report { named, output, log_lines } => {
            let options = ReportOptions { output: output.clone(), log_lines: *log_lines };
            let written = connect().await?.report(named.name.as_deref(), &options).await?;
            for problem in &written.problems {
                eprintln!("not in it: {problem}");
            }
            let told = writeln!(
                stdout(),
                "{}: {} files, secrets masked; look through it before you give it away",
                written.path.display(),
                written.files
            );
            told.map_err(Error::Print)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
