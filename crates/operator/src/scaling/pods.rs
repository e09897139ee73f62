//! Why pods do not run, asked only while some are not ready: the pods themselves, and the Events of a Job that gets none.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::{ListParams, Request};
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::children::labels;
use crate::context::Context;
use crate::plan::Part;
use crate::state::Pipeline;
use crate::status::{Pod, PodTrouble, troubles};

/// How many pipelines' pods are read at once: a list is small, but there may be hundreds of pipelines.
static AT_ONCE: Semaphore = Semaphore::const_new(4);

/// How many pods of a pipeline are looked at.
const PODS: u32 = 100;

/// How long the API server may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// A list of pods, as far as it counts here.
#[derive(Deserialize)]
struct Pods {
    items: Vec<Pod>,
}

/// Records why pods of a pipeline do not run. What was seen last stays where the API server does not answer.
pub(super) async fn look(context: &Context, pipeline: &Pipeline) {
    let (wanted, job) = {
        let mut state = pipeline.state();
        let facts = &mut state.facts;
        facts.ingest.rollout = context.index.rollout(pipeline, Part::Ingest);
        facts.workers.rollout = context.index.rollout(pipeline, Part::Worker);
        facts.dashboard.rollout = context.index.rollout(pipeline, Part::Dashboard);
        (facts.wants_pods(), facts.migrating().map(str::to_owned))
    };
    if !wanted {
        pipeline.state().facts.pods.clear();
        return;
    }
    let Ok(_turn) = AT_ONCE.acquire().await else { return };
    let found = match timeout(PATIENCE, ask(context, pipeline, job.as_deref())).await {
        Ok(Ok(found)) => {
            context.events.watching("Pod");
            found
        }
        Ok(Err(error)) => return context.events.watch_failed("Pod", &error),
        Err(slow) => return context.events.watch_failed("Pod", &slow),
    };
    let mut state = pipeline.state();
    let facts = &mut state.facts;
    let refused = [&facts.ingest, &facts.workers, &facts.dashboard].map(|part| part.rollout.as_ref()?.refused.clone());
    let refused = ["ingest", "worker", "dashboard"].into_iter().zip(refused);
    let refused = refused.filter_map(|(component, why)| Some(PodTrouble::refused(component, &why?)));
    // A pod that is not made explains more than one that does not begin.
    facts.pods = refused.chain(found).collect();
}

async fn ask(context: &Context, pipeline: &Pipeline, job: Option<&str>) -> Result<Vec<PodTrouble>, kube::Error> {
    let name = &pipeline.name;
    let path = format!("/api/v1/namespaces/{}/pods", name.namespace);
    // From the cache of the API server: what it shows is young enough.
    let params = ListParams::default().labels(&labels::owned_by(&name.name)).limit(PODS);
    let request = Request::new(path).list(&params).map_err(kube::Error::BuildRequest)?;
    let Pods { items } = context.client.request(request).await?;
    let migrates = job.is_some_and(|job| items.iter().any(|pod| pod.is_of(job)));
    let mut found = troubles(items, job, Timestamp::now());
    if let Some(job) = job.filter(|_| !migrates)
        && let Some(why) = refusal(context, pipeline, job).await?
    {
        found.push(PodTrouble::refused(Part::Migrate.component(), &why));
    }
    Ok(found)
}

/// Returns why a Job gets no pods, which only an Event tells.
async fn refusal(context: &Context, pipeline: &Pipeline, job: &str) -> Result<Option<String>, kube::Error> {
    let api: Api<Event> = Api::namespaced(context.client.clone(), &pipeline.name.namespace);
    let fields = format!("regarding.kind=Job,regarding.name={job},reason=FailedCreate");
    let mut events = api.list(&ListParams::default().fields(&fields).limit(20)).await?.items;
    events
        .sort_by_key(|event| event.metadata.resource_version.as_ref().and_then(|version| version.parse::<u64>().ok()));
    Ok(events.pop().and_then(|event| event.note))
}
