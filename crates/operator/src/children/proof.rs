//! The Job that proves an image where nothing is to be migrated: its pod prints the version and ends.

use k8s_openapi::api::batch::v1::{Job, JobSpec};

use super::child::{Child, Stage};
use super::{labels, names, pod};
use crate::hash::hash;
use crate::plan::{Part, PartPlan, Plan};

/// Its own, so that no Service, Deployment or policy of a part selects its pod.
const COMPONENT: &str = "image";

/// How often a pod that ran and failed is tried again. One whose image cannot be pulled waits in its own time.
const TRIES: i32 = 3;

/// How long it may take, seconds.
const DEADLINE: i64 = 3600;

/// Builds the Job; absent where the pipeline has no part with pods.
#[must_use]
pub fn job(plan: &Plan) -> Option<Child> {
    let of = plan.parts.iter().find(|own| own.part != Part::Migrate)?.part;
    // A Job's pod, with nothing of the settings or the Secrets of a part.
    let own = PartPlan {
        part: Part::Migrate,
        settings_hash: hash([plan.image.as_str()]),
        secrets_hash: None,
        admin_port: 0,
        http_port: 0,
        caches: 0,
    };
    let mut template = pod::template(plan, &own);
    if let Some(labels) = template.metadata.as_mut().and_then(|metadata| metadata.labels.as_mut()) {
        labels.extend(labels::of_pods(&plan.name, COMPONENT));
    }
    if let Some(spec) = &mut template.spec {
        let account = of.pod(&plan.spec).service_account_name.clone();
        spec.service_account_name = Some(account.unwrap_or_else(|| names::part(&plan.name, of)));
        for container in &mut spec.containers {
            container.args = Some(vec!["--version".to_owned()]);
            container.env = None;
        }
    }
    let job = Job {
        metadata: labels::meta(plan, String::new(), COMPONENT),
        spec: Some(JobSpec {
            backoff_limit: Some(TRIES),
            active_deadline_seconds: Some(DEADLINE),
            template,
            ..JobSpec::default()
        }),
        ..Job::default()
    };
    let mut child = Child::with_pods(Stage::Before, &job, own.part.pod(&plan.spec));
    let content = child.object.data.to_string();
    child.object.metadata.name = Some(names::proof(&plan.name, &hash([plan.name.as_str(), content.as_str()])));
    Some(child)
}
