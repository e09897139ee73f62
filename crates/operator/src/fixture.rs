//! Pipelines and what is known of the cluster, for the tests.

use serde_json::Value;

use crate::crd::FirehosePipeline;
use crate::hash::HashKey;
use crate::plan::{Apis, Dereferenced, Plan, PlanError, Secrets, references};

/// What stands in every Secret beside its own text; no child may hold it.
pub(crate) const PASSWORD: &str = "hunter2";

/// The least that can be written.
pub(crate) const MINIMAL: &str = include_str!("children/testdata/minimal.yaml");

/// Everything that can be written.
pub(crate) const FULL: &str = include_str!("children/testdata/full.yaml");

pub(crate) fn tree(yaml: &str) -> Value {
    serde_saphyr::from_str(yaml).unwrap()
}

/// Reads a pipeline after values were put at some paths of its spec, such as `("workers.batchSize", json!(5))`.
pub(crate) fn pipeline(yaml: &str, changes: &[(&str, Value)]) -> FirehosePipeline {
    let mut tree = tree(yaml);
    for (path, value) in changes {
        put(&mut tree["spec"], path, value.clone());
    }
    serde_json::from_value(tree).unwrap()
}

/// Puts a value at a path of names and indexes; null takes it away.
pub(crate) fn put(at: &mut Value, path: &str, value: Value) {
    let (name, rest) = path.split_once('.').map_or((path, None), |(name, rest)| (name, Some(rest)));
    if let (Value::Array(items), Ok(index)) = (&mut *at, name.parse::<usize>()) {
        match rest {
            Some(rest) => put(&mut items[index], rest, value),
            None => items[index] = value,
        }
        return;
    }
    match (rest, value) {
        (Some(rest), value) => put(&mut at[name], rest, value),
        (None, Value::Null) => drop(at.as_object_mut().unwrap().remove(name)),
        (None, value) => at[name] = value,
    }
}

/// A cluster that has everything, Secrets included.
pub(crate) fn known(pipeline: &FirehosePipeline) -> Dereferenced {
    let mut secrets = Secrets::default();
    for reference in references(pipeline) {
        let text = match reference.field.as_str() {
            "redis.urlSecret" if pipeline.spec.redis.tls.is_some() => format!("rediss://:{PASSWORD}@redis:6379"),
            "redis.urlSecret" => format!("redis://:{PASSWORD}@redis:6379"),
            "postgres.urlSecret" | "postgres.directUrlSecret" => {
                format!("postgres://penstock:{PASSWORD}@postgres/appview")
            }
            "telemetry.otlp.headersSecret" => format!("x-api-key={PASSWORD}"),
            _ => PASSWORD.to_owned(),
        };
        secrets.insert(&reference.secret, text);
    }
    Dereferenced {
        default_image: "ghcr.io/penstock/penstock:dev".to_owned(),
        schema: "0123456789abcdef".to_owned(),
        api: Apis { service_monitor: true, prometheus_rule: true, scaled_object: true, http_route: true },
        secrets,
        hash_key: HashKey::new(&[7; 32]).unwrap(),
        recommendation_url: Some("http://penstock.penstock.svc:8080".to_owned()),
        runbooks_url: "https://wiki.example.com/penstock/".to_owned(),
        workers_exist: true,
        backfills: false,
    }
}

/// Plans a pipeline on a cluster that has everything.
pub(crate) fn planned(yaml: &str, changes: &[(&str, Value)]) -> Result<Plan, PlanError> {
    let pipeline = pipeline(yaml, changes);
    Plan::new(&pipeline, &known(&pipeline))
}
