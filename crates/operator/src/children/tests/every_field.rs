//! Changes each field of the schema, one at a time, and asks whether anything that is applied changes.

use std::net::SocketAddr;

use super::*;
use crate::crd::definition;
use crate::fixture::{put, tree};
use crate::plan::PlanError;

/// Fields that the operator itself goes by; what is applied does not show them.
const OPERATOR: [&str; 10] = [
    "deletionPolicy",
    "workers.replicas",
    "workers.autoscaling.drainTarget",
    "workers.autoscaling.targetUtilization",
    "workers.autoscaling.stabilizationWindow",
    "workers.autoscaling.maxStepUp",
    "workers.autoscaling.maxStepDown",
    "workers.autoscaling.capacityPerWorker",
    "heal.minReplicas",
    "heal.maxReplicas",
];

/// In the place of Secrets that the full pipeline names, or not together with them; tests of their own show them.
const ELSEWHERE: [&str; 5] =
    ["redis.url", "postgres.url", "postgres.passwordFile", "postgres.passwordCommand", "messageBuffer.openAdmin"];

#[test]
fn no_field_is_ignored() {
    let schema = serde_json::to_value(definition()).unwrap();
    let schema = schema.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec").unwrap();
    let full = tree(FULL);
    let mut leaves = Vec::new();
    collect(schema, &full["spec"], String::new(), &mut leaves);
    assert!(leaves.len() > 90, "{}", leaves.len());
    let before = built(FULL, &[]);
    for (path, changed) in leaves {
        if OPERATOR.contains(&path.as_str()) {
            continue;
        }
        let after = match try_built(&path, &changed) {
            Ok(after) => after,
            Err(error) => panic!("{path} as {changed}: {error}"),
        };
        assert_ne!(before, after, "{path} as {changed} changes nothing");
    }
}

fn try_built(path: &str, changed: &Value) -> Result<Vec<Child>, PlanError> {
    planned(FULL, &[(path, changed.clone())]).map(|plan| build(&plan))
}

/// Lists every field with another value for it.
fn collect(schema: &Value, value: &Value, path: String, leaves: &mut Vec<(String, Value)>) {
    let join = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    if ELSEWHERE.contains(&path.as_str()) {
        return;
    }
    assert!(!value.is_null(), "testdata/full.yaml lacks {path}");
    let kubernetes_own =
        ["resources", "tolerations", "extraEnv"].iter().any(|own| path.ends_with(&format!("pod.{own}")));
    if let (Some(properties), false) = (schema.get("properties").and_then(Value::as_object), kubernetes_own) {
        for (name, schema) in properties {
            collect(schema, &value[name], join(name), leaves);
        }
    } else if let (Some(item), false) = (schema.pointer("/items/properties"), kubernetes_own) {
        for (name, schema) in item.as_object().unwrap() {
            collect(schema, &value[0][name], join(&format!("0.{name}")), leaves);
        }
    } else {
        leaves.push((path, other(schema, value)));
    }
}

/// Makes another value that is allowed too.
fn other(schema: &Value, value: &Value) -> Value {
    match value {
        Value::Bool(yes) => json!(!yes),
        Value::Number(number) => json!(number.as_i64().unwrap() + 1),
        Value::String(text) => match schema.get("enum").and_then(Value::as_array) {
            // The last: what is off may need something else to be off.
            Some(allowed) => allowed.iter().rfind(|other| *other != value).unwrap().clone(),
            None if schema["pattern"].as_str().is_some_and(|pattern| pattern.contains("Mi")) => json!("7Mi"),
            None if schema.get("pattern").is_some() => json!("7s"),
            None if text.parse::<SocketAddr>().is_ok() => json!("[2001:db8::1]:53"),
            None if text.contains('=') => json!("debug"),
            None => json!(format!("{text}x")),
        },
        Value::Array(items) if items.iter().any(|item| item == "10.0.0.0/8") => json!(["2001:db8::/32"]),
        Value::Array(items) if items.iter().all(Value::is_string) => {
            json!(items.iter().map(|item| format!("{}x", item.as_str().unwrap())).collect::<Vec<_>>())
        }
        Value::Array(_) => json!([]),
        Value::Object(_) => {
            let mut changed = value.clone();
            put(&mut changed, "requests", json!({"x": "1"}));
            if schema.pointer("/properties/requests").is_none() {
                put(&mut changed, "requests", json!("x"));
            }
            changed
        }
        Value::Null => panic!("null has no other value"),
    }
}
