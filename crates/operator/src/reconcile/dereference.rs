//! Reads what a pipeline names: Secrets, and what the operator knows.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use kube::Api;

use crate::context::Context;
use crate::crd::FirehosePipeline;
use crate::pipelines::Pipeline;
use crate::plan::{Part, Secrets, Seen, references};

/// Reads everything that a plan is made from; a Secret that is not there is the plan's to tell.
///
/// # Errors
/// The API server does not answer, or the operator may not read Secrets.
pub(super) async fn dereference(
    context: &Context,
    pipeline: &Pipeline,
    object: &FirehosePipeline,
) -> Result<Seen, kube::Error> {
    let settings = &context.settings.operator;
    let secrets = secrets(context, pipeline, object).await?;
    Ok(Seen {
        default_image: settings.image.clone().unwrap_or_default(),
        schema: context.schema.clone(),
        api: *context.apis.borrow(),
        secrets,
        recommendation_url: settings.recommendation_url.clone(),
        workers_exist: context.index.rollout(pipeline, Part::Worker).is_some(),
    })
}

async fn secrets(context: &Context, pipeline: &Pipeline, object: &FirehosePipeline) -> Result<Secrets, kube::Error> {
    let api: Api<Secret> = Api::namespaced(context.client.clone(), &pipeline.name.namespace);
    let mut read: BTreeMap<String, Option<Secret>> = BTreeMap::new();
    let mut secrets = Secrets::default();
    for reference in references(object) {
        let name = &reference.secret.name;
        if !read.contains_key(name) {
            read.insert(name.clone(), api.get_opt(name).await?);
        }
        let data = read.get(name).and_then(Option::as_ref).and_then(|secret| secret.data.as_ref());
        if let Some(text) = data.and_then(|data| data.get(&reference.secret.key)) {
            secrets.insert(&reference.secret, String::from_utf8_lossy(&text.0));
        }
    }
    Ok(secrets)
}
