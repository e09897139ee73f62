//! Keeps the note of whose resource the claim on the prefix is, and frees the claim of one that is gone.

use fred::clients::Client;
use fred::error::Error;
use tokio::time::timeout;

use crate::context::Context;
use crate::holder::{self, Holder, Next};
use crate::state::{Pipeline, Target};

/// Takes the next step, with a Redis that has just answered. What fails, or takes longer than a question may, is tried again in the
/// next round.
pub(super) async fn tend(context: &Context, pipeline: &Pipeline, target: &Target, workers_ready: bool) {
    let Ok(client) = context.clients.get(target, &context.events) else { return };
    let tended = try_tend(context, &client, pipeline, target, workers_ready);
    if let Ok(Err(error)) = timeout(target.settings.redis.command_timeout, tended).await {
        context.events.claim_untended(&pipeline.name, &error);
    }
}

async fn try_tend(
    context: &Context,
    client: &Client,
    pipeline: &Pipeline,
    target: &Target,
    workers_ready: bool,
) -> Result<(), Error> {
    let keys = &target.settings.keys;
    let holder = Holder::read(client, keys).await?;
    match holder.next(&target.settings.pipeline.name, &pipeline.uid, workers_ready) {
        Next::Nothing => {}
        Next::Note => holder.note(client, keys, &pipeline.uid).await?,
        Next::ReleaseIfLeft => {
            if !holder::has_living_workers(client, keys).await? && holder.release(client, keys).await? > 0 {
                context.events.claim_freed(&pipeline.name, &keys.pipeline());
            }
        }
    }
    Ok(())
}
