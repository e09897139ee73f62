//! The Job that creates or migrates the tables before the workers of a new version start.

use k8s_openapi::api::batch::v1::{Job, JobSpec};

use super::child::{Child, Stage};
use super::{labels, names, pod};
use crate::hash::hash;
use crate::plan::{Part, Plan};

/// How often a failed pod is tried again. A database that is away for some minutes is no reason to give up.
const TRIES: i32 = 8;

/// How long the Job may take, tries and all, seconds.
const DEADLINE: i64 = 3600;

/// Builds the Job that this plan's tables need, under a name that tells it from every other; absent where nothing is to be migrated.
///
/// A Job's pods cannot be changed, so the name carries the hash of the schema and of all that stands in them. It stays when it is done:
/// that is how the operator knows.
#[must_use]
pub fn job(plan: &Plan) -> Option<Child> {
    let own = plan.part(Part::Migrate)?;
    let job = Job {
        metadata: labels::meta_with(
            plan,
            String::new(),
            own.part.component(),
            &labels::Texts::new(),
            &plan.spec.postgres.migration_job.annotations,
        ),
        spec: Some(JobSpec {
            backoff_limit: Some(TRIES),
            active_deadline_seconds: Some(DEADLINE),
            template: pod::template(plan, own),
            ..JobSpec::default()
        }),
        ..Job::default()
    };
    let mut child = Child::with_pods(Stage::Before, &job, own.part.pod(&plan.spec));
    let content = child.object.data.to_string();
    let name = names::migration(&plan.name, &hash([plan.schema.as_str(), plan.name.as_str(), content.as_str()]));
    child.object.metadata.name = Some(name);
    Some(child)
}
