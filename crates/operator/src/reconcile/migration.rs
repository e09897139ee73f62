//! The Job that migrates the tables: how far it is, and when one that failed, or waits to be tried again, is made anew.

use std::time::Duration;

use jiff::Timestamp;
use kube::api::DeleteParams;

use crate::children::Child;
use crate::context::Context;
use crate::name::Name;
use crate::plan::Part;
use crate::state::Pipeline;
use crate::status::{JobEnd, Migration, PodTrouble};

use super::apply::{self, ApplyError};

/// After how long a migration that failed is tried again: the database may have been away.
const RETRY: Duration = Duration::from_secs(600);

/// After how long one is tried again that could not reach PostgreSQL, or got no pods: Kubernetes itself would wait for minutes.
const SOON: Duration = Duration::from_secs(20);

/// Deletes a Job that failed some time ago, so that it is made anew once it is gone.
pub(super) async fn retry(context: &Context, pipeline: &Pipeline, children: &[Child]) -> Result<(), ApplyError> {
    for job in children.iter().filter(|child| child.resource.kind == "Job") {
        let is_migration = job.component() == Some(Part::Migrate.component());
        let is_servers_fault =
            is_migration && pipeline.state().facts.trouble_of("migrate").is_some_and(PodTrouble::may_be_over);
        let (since, pause) = match context.index.job(&Name::of(&job.object)) {
            Some(JobEnd::Failed { since }) => (since, if is_servers_fault { SOON } else { RETRY }),
            Some(JobEnd::Resting { since }) if is_servers_fault => (since, SOON),
            _ => continue,
        };
        let rested = Duration::try_from(Timestamp::now().duration_since(since)).is_ok_and(|rested| rested >= pause);
        let key = apply::key_of(job);
        if let Some(seen) = context.index.get(&key).filter(|seen| rested && !seen.paused) {
            apply::delete(context, pipeline, &key, &seen, &DeleteParams::background()).await?;
        }
    }
    Ok(())
}

/// Returns how far the Job among the children is.
pub(super) fn progress(context: &Context, children: &[Child]) -> Migration {
    let Some(job) = job(children) else { return Migration::NotOurs };
    let name = Name::of(&job.object);
    match context.index.job(&name) {
        Some(JobEnd::Complete) => Migration::Done,
        Some(JobEnd::Failed { .. }) => Migration::Failed { job: name.name },
        // Made just now, or not seen yet.
        Some(JobEnd::Running | JobEnd::Resting { .. }) | None => Migration::Running { job: name.name },
    }
}

/// Finds the Job of the migration among the children.
pub(super) fn job(children: &[Child]) -> Option<&Child> {
    children.iter().find(|child| child.resource.kind == "Job" && child.component() == Some(Part::Migrate.component()))
}
