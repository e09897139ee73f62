//! The environment of the pods: what is secret or differs from pod to pod; all else stands in the settings file.

use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, SecretKeySelector};

use crate::crd::SecretKey;
use crate::plan::{Part, Plan};

/// Builds the environment of a part: ours, and what a person wrote in the place of ours.
pub(super) fn variables(plan: &Plan, part: Part) -> Vec<EnvVar> {
    let further = &part.pod(&plan.spec).extra_env;
    let mut variables: Vec<EnvVar> = Vec::new();
    // Of one name the last counts, as in a pod; server-side apply refuses the others.
    for variable in ours(plan, part).iter().chain(further) {
        variables.retain(|standing| standing.name != variable.name);
        variables.push(variable.clone());
    }
    variables
}

fn ours(plan: &Plan, part: Part) -> Vec<EnvVar> {
    let spec = &plan.spec;
    let mut ours = Vec::new();
    if part != Part::Migrate {
        ours.extend(secret("REDIS_URL", spec.redis.url_secret.as_ref()));
        ours.extend(spec.redis.certificates().filter_map(|(variable, _, key)| secret(variable, Some(key))));
    }
    ours.extend(secret("DATABASE_URL", spec.postgres.url_secret.as_ref()));
    if part == Part::Migrate {
        ours.extend(secret("DATABASE_DIRECT_URL", spec.postgres.direct_url_secret.as_ref()));
    } else {
        ours.extend(secret("PENSTOCK_TELEMETRY_OTLP_HEADERS", spec.telemetry.otlp.headers_secret.as_ref()));
    }
    if part == Part::Worker {
        let field = ObjectFieldSelector { field_path: "metadata.name".to_owned(), api_version: None };
        let source = EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() };
        ours.push(EnvVar { name: "CONSUMER_ID".to_owned(), value_from: Some(source), value: None });
    }
    if part == Part::Dashboard {
        let auth = &spec.dashboard.auth;
        ours.extend(secret("PENSTOCK_DASHBOARD_READ_TOKEN", auth.read_token_secret.as_ref()));
        ours.extend(secret("PENSTOCK_DASHBOARD_ADMIN_TOKEN", auth.admin_token_secret.as_ref()));
    }
    if part == Part::Heal {
        ours.extend(plan.heal_token_hash.as_deref().map(|hash| text("PENSTOCK_HEAL_ADMIN_TOKEN_HASH", hash)));
    }
    if spec.message_buffer.enabled && !matches!(part, Part::Ingest | Part::Heal) {
        let buffer = &spec.message_buffer;
        ours.push(text("PENSTOCK_MESSAGE_BUFFER_ENABLED", "true"));
        // The migration makes the table, and is made anew by nothing else.
        if part != Part::Migrate {
            ours.push(text("PENSTOCK_MESSAGE_BUFFER_BATCH_SIZE", &buffer.batch_size.to_string()));
            ours.push(text("PENSTOCK_MESSAGE_BUFFER_BATCH_DELAY", buffer.batch_delay.as_str()));
        }
        if buffer.open_admin && part == Part::Dashboard {
            ours.push(text("PENSTOCK_MESSAGE_BUFFER_OPEN_ADMIN", "true"));
        }
    }
    ours
}

fn text(name: &str, value: &str) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(value.to_owned()), value_from: None }
}

fn secret(name: &str, secret: Option<&SecretKey>) -> Option<EnvVar> {
    let SecretKey { name: of, key } = secret?.clone();
    let source = SecretKeySelector { name: of, key, optional: None };
    let source = EnvVarSource { secret_key_ref: Some(source), ..EnvVarSource::default() };
    Some(EnvVar { name: name.to_owned(), value_from: Some(source), value: None })
}
