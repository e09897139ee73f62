//! The pipeline in a terminal, over its dashboard.

use std::env;
use std::io::{Write as _, stderr, stdout};
use std::process::ExitCode;

use penstock_console::{ConsoleError, Filter, TOKEN_VARIABLE, Target, URL_VARIABLE, status, tail, top};
use penstock_core::settings::{Secret, without_line_end};
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::{Cli, Reach, Status, Tail, Wanted};
use crate::error::Error;

pub(super) async fn top(reach: &Reach, cli: &Cli) -> Result<(), Error> {
    Ok(top::top(target(reach, cli)?, ending()?).await?)
}

pub(super) async fn status(args: &Status, cli: &Cli) -> Result<ExitCode, Error> {
    let status = status::status(target(&args.reach, cli)?, args.told.pause).await;
    let text = if args.told.json { status.to_json() } else { status.to_text() };
    // Nobody reads any more: the exit code still tells.
    let _ = stdout().write_all(text.as_bytes());
    Ok(ExitCode::from(status.level().exit_code()))
}

pub(super) async fn tail(args: &Tail, cli: &Cli) -> Result<(), Error> {
    let (options, target) = (wanted(&args.wanted)?, target(&args.reach, cli)?);
    let (mut out, mut notes) = (stdout(), stderr());
    tokio::select! {
        ended = tail::tail(target, &options, &mut out, &mut notes) => Ok(ended?),
        () = ending()? => Ok(()),
    }
}

/// Reads which events are wanted.
pub(super) fn wanted(args: &Wanted) -> Result<tail::Options, Error> {
    Ok(tail::Options { filter: Filter::new(&args.collection, &args.did)?, limit: args.limit })
}

/// Waits for a signal to end: unlike a service, what only looks has nothing to finish.
pub(super) fn ending() -> Result<impl Future<Output = ()>, Error> {
    let listen = |kind| signal(kind).map_err(ConsoleError::Signals);
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hangup = listen(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    })
}

/// Finds the dashboard and the token for it.
fn target(reach: &Reach, cli: &Cli) -> Result<Target, Error> {
    let variable = |name| env::var(name).ok().map(without_line_end).filter(|value| !value.trim().is_empty());
    let (mut target, own) = match reach.url.clone().or_else(|| variable(URL_VARIABLE)) {
        // What the settings keep for the dashboard here is not shown to another one.
        Some(url) => (Target::new(&url)?, None),
        None => {
            let dashboard = super::settings::load(cli)?.dashboard;
            (Target::local(dashboard.address)?, dashboard.read_token.or(dashboard.admin_token))
        }
    };
    target = match (&reach.token_file, variable(TOKEN_VARIABLE), own) {
        (Some(file), ..) => target.with_token_of(file)?,
        (None, Some(token), _) => target.with_token(&Secret::from(token), TOKEN_VARIABLE)?,
        (None, None, Some(token)) => target.with_token(&token, "dashboard.readToken")?,
        (None, None, None) => target,
    };
    Ok(target)
}
