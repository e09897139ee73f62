//! The Secrets that a pipeline names: read by reference, never copied, never printed.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::core::v1::EnvVar;
use penstock_core::settings::without_line_end;

use super::error::{MissingSecret, PlanError};
use super::part::Part;
use crate::crd::{FirehosePipeline, FirehosePipelineSpec, SecretKey};
use crate::hash::HashKey;

/// What stands in Secrets, by name and key; never printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secrets(BTreeMap<(String, String), String>);

/// One key of a Secret that a pipeline names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The field that names it, from `spec` on.
    pub field: String,
    /// Which one.
    pub secret: SecretKey,
    /// Whether the pods start without it.
    pub optional: bool,
}

// === impl Secrets ===

impl Secrets {
    /// Takes the text under a key, without the end of a line.
    pub fn insert(&mut self, secret: &SecretKey, text: impl Into<String>) {
        self.0.insert((secret.name.clone(), secret.key.clone()), without_line_end(text.into()));
    }

    /// Returns the text under a key.
    #[must_use]
    pub fn get(&self, secret: &SecretKey) -> Option<&str> {
        self.0.get(&(secret.name.clone(), secret.key.clone())).map(String::as_str)
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys().map(|(name, key)| format!("{name}/{key}"))).finish()
    }
}

/// Lists every key of a Secret that must be read before the pipeline can be planned, each with the field that names it; those of the
/// healers too, whether there are any or not.
#[must_use]
pub fn references(pipeline: &FirehosePipeline) -> Vec<Reference> {
    all(pipeline, true)
}

fn all(pipeline: &FirehosePipeline, backfills: bool) -> Vec<Reference> {
    let spec = &pipeline.spec;
    // The operator itself reads Redis, whatever parts there are.
    let mut all: Vec<Reference> = of_redis(spec).collect();
    for reference in Part::enabled(spec, backfills).flat_map(|part| of(part, spec)) {
        if !all.contains(&reference) {
            all.push(reference);
        }
    }
    all
}

/// Returns the reference to a Secret of a variable that a person wrote.
pub(super) fn of_variable(variable: &EnvVar) -> Option<(SecretKey, bool)> {
    let source = variable.value_from.as_ref()?.secret_key_ref.as_ref()?;
    let secret = SecretKey { name: source.name.clone(), key: source.key.clone() };
    Some((secret, source.optional.unwrap_or(false)))
}

/// Fails where a Secret is missing that the pods do not start without.
pub(super) fn present(pipeline: &FirehosePipeline, backfills: bool, secrets: &Secrets) -> Result<(), PlanError> {
    let missing: Vec<MissingSecret> = all(pipeline, backfills)
        .into_iter()
        .filter(|reference| !reference.optional && secrets.get(&reference.secret).is_none_or(str::is_empty))
        .map(|Reference { field, secret: SecretKey { name, key }, .. }| MissingSecret { field, name, key })
        .collect();
    if missing.is_empty() { Ok(()) } else { Err(PlanError::Secrets(missing)) }
}

/// Returns what changes with the content of a part's Secrets, where it has any, and says nothing of it to who has not the key.
pub(super) fn hash_for(part: Part, spec: &FirehosePipelineSpec, secrets: &Secrets, key: &HashKey) -> Option<String> {
    let references = of(part, spec);
    let texts = references.iter().map(|reference| secrets.get(&reference.secret).unwrap_or_default());
    (!references.is_empty()).then(|| key.hash(texts))
}

fn of(part: Part, spec: &FirehosePipelineSpec) -> Vec<Reference> {
    let redis = of_redis(spec).filter(|_| part != Part::Migrate);
    let postgres = required("postgres.urlSecret", spec.postgres.url_secret.as_ref());
    let direct = required("postgres.directUrlSecret", spec.postgres.direct_url_secret.as_ref())
        .filter(|_| part == Part::Migrate);
    let auth = &spec.dashboard.auth;
    let tokens = required("dashboard.auth.readTokenSecret", auth.read_token_secret.as_ref())
        .chain(required("dashboard.auth.adminTokenSecret", auth.admin_token_secret.as_ref()))
        .filter(|_| part == Part::Dashboard);
    let headers = required("telemetry.otlp.headersSecret", spec.telemetry.otlp.headers_secret.as_ref())
        .filter(|_| part != Part::Migrate);
    let variables = part.pod(spec).extra_env.iter().filter_map(|variable| {
        let (secret, optional) = of_variable(variable)?;
        Some(Reference { field: format!("{}.extraEnv {}", part.pod_field(), variable.name), secret, optional })
    });
    redis.chain(postgres).chain(direct).chain(tokens).chain(headers).chain(variables).collect()
}

fn of_redis(spec: &FirehosePipelineSpec) -> impl Iterator<Item = Reference> {
    let certificates = spec.redis.certificates().flat_map(|(_, field, secret)| required(field, Some(secret)));
    required("redis.urlSecret", spec.redis.url_secret.as_ref()).chain(certificates)
}

fn required(field: &str, secret: Option<&SecretKey>) -> impl Iterator<Item = Reference> {
    secret.map(|secret| Reference { field: field.to_owned(), secret: secret.clone(), optional: false }).into_iter()
}
