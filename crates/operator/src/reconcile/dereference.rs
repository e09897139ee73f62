//! Reads what a pipeline names: Secrets, and what the operator knows.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use kube::Api;

use crate::context::Context;
use crate::crd::FirehosePipeline;
use crate::hash::HashKey;
use crate::plan::{Dereferenced, Part, Secrets, references};
use crate::state::Pipeline;

use super::error::ReconcileError;
use super::hash_key;

/// Reads everything that a plan is made from; a Secret that is missing is reported by the plan.
///
/// # Errors
/// The API server does not answer, or the operator may not read Secrets or make its own.
pub(super) async fn dereference(
    context: &Context,
    pipeline: &Pipeline,
    object: &FirehosePipeline,
) -> Result<Dereferenced, ReconcileError> {
    let settings = &context.settings.operator;
    let secrets = secrets(context, pipeline, object).await;
    let secrets = secrets.map_err(|source| ReconcileError::Dereference(Box::new(source)))?;
    let backfills = has_backfills(context, pipeline);
    // Without a Secret nothing is hashed with it, and without healers no token is made of it.
    let hash_key = if references(object).is_empty() && !object.spec.heal.enabled && !backfills {
        HashKey::default()
    } else {
        hash_key::get(context).await?
    };
    Ok(Dereferenced {
        hash_key,
        default_image: settings.image.clone().unwrap_or_default(),
        schema: context.schema.clone(),
        api: *context.apis.borrow(),
        secrets,
        recommendation_url: settings.recommendation_url.clone(),
        runbooks_url: settings.runbooks_url.clone(),
        backfills,
        workers_exist: context.index.rollout(pipeline, Part::Worker).is_some(),
    })
}

/// Says whether there must be healers because of a backfill. Before it is known which there are, those that run are kept.
fn has_backfills(context: &Context, pipeline: &Pipeline) -> bool {
    let is_listed = context.backfills.is_listed(&pipeline.name.namespace);
    let keeps = !is_listed && context.index.rollout(pipeline, Part::Heal).is_some();
    keeps || context.backfills.is_served(&pipeline.name)
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
