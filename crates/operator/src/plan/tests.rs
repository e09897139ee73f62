use serde_json::json;

use super::*;
use crate::fixture::{FULL, MINIMAL, PASSWORD, known, pipeline, planned, tree};

fn refused(changes: &[(&str, serde_json::Value)]) -> String {
    planned(MINIMAL, changes).unwrap_err().to_string()
}

#[test]
fn the_settings_are_what_was_written() {
    let settings = planned(FULL, &[]).unwrap().settings;
    assert_eq!(settings.pipeline.name, "firehose/bluesky");
    assert_eq!(settings.keys.stream(), "bluesky:events");
    assert_eq!(settings.redis.max_stream_len, 2_000_000);
    assert_eq!(settings.worker.batch_size, 500);
    assert_eq!(settings.ingest.high_watermark.to_string(), "75%");
    assert_eq!(settings.relay.urls.len(), 2);
    assert_eq!(settings.dashboard.allowed_origins, ["https://app.example.com"]);
    assert!(settings.redis_url.expose().contains(PASSWORD), "the operator itself needs the address");
}

#[test]
fn what_is_not_written_is_the_services_default() {
    use penstock_core::settings::{Layers, Settings};
    let ours = planned(MINIMAL, &[]).unwrap().settings;
    let default = Settings::load(&Layers::default()).unwrap();
    assert_eq!((ours.relay, ours.ingest, ours.worker), (default.relay, default.ingest, default.worker));
    assert_eq!((ours.dashboard, ours.keys), (default.dashboard, default.keys));
    assert_eq!(ours.postgres.pool_size, default.postgres.pool_size);
}

#[test]
fn what_a_service_would_refuse_is_told_by_its_field() {
    let error = refused(&[("workers.batchDelay", json!("1h")), ("redis.maxStreamLength", json!(1))]);
    assert!(error.contains("workers.batchDelay: \"1h\" is not allowed; allowed: a duration"), "{error}");
    assert!(error.contains("redis.maxStreamLength"), "all at once: {error}");
    for path in ["/api", "/a/../b", "firehose/"] {
        let error = refused(&[("dashboard.basePath", json!(path))]);
        assert!(
            error.contains(&format!("dashboard.basePath: {path:?} is not allowed; allowed: a path such as")),
            "{error}"
        );
    }
    let error = refused(&[("telemetry.logLevel", json!("loud"))]);
    assert!(error.contains("telemetry.logLevel"), "{error}");
    let secret = json!({ "name": "tokens", "key": "read" });
    let open = [("messageBuffer.openAdmin", json!(true)), ("dashboard.auth.readTokenSecret", secret)];
    assert!(refused(&open).contains("messageBuffer.openAdmin: clients that may not read"), "{}", refused(&open));
    let error = refused(&[("ingest.lowWatermark", json!(90))]);
    assert!(error.contains("ingest.lowWatermark") && error.contains("less than"), "{error}");
    let error = refused(&[("redis.url", json!("redis-cluster://redis:7000")), ("redis.urlSecret", json!(null))]);
    assert!(error.contains("redis.keyPrefix") && error.contains("{bluesky}:"), "{error}");
}

#[test]
fn a_variable_that_a_service_would_refuse_is_told_by_its_name() {
    let variable = json!([{"name": "PENSTOCK_WORKER_BATCH_SIZE", "value": "many"}]);
    let error = refused(&[("workers.pod.extraEnv", variable.clone())]);
    assert!(error.contains("workers.pod.extraEnv PENSTOCK_WORKER_BATCH_SIZE"), "{error}");
    // What only the pod will know cannot be judged here.
    let variable = json!([{"name": "PENSTOCK_WORKER_BATCH_SIZE", "value": "$(OTHER)"}]);
    assert!(planned(MINIMAL, &[("workers.pod.extraEnv", variable)]).is_ok());
}

#[test]
fn a_bad_address_in_a_secret_is_told_without_its_password() {
    let pipeline = pipeline(MINIMAL, &[]);
    let mut known = known(&pipeline);
    known.secrets.insert(pipeline.spec.redis.url_secret.as_ref().unwrap(), format!("http://:{PASSWORD}@redis"));
    let error = Plan::new(&pipeline, &known).unwrap_err();
    assert_eq!(error.reason(), "InvalidSpec");
    assert!(error.to_string().contains("redis.urlSecret") && !error.to_string().contains(PASSWORD), "{error}");
}

#[test]
fn certificates_without_tls_and_half_a_pair_are_told_by_their_fields() {
    let secret = |key: &str| json!({ "name": "redis-tls", "key": key });
    let error = refused(&[
        ("redis.url", json!("redis://redis:6379")),
        ("redis.urlSecret", json!(null)),
        ("redis.tls", json!({ "caSecret": secret("ca.crt") })),
    ]);
    assert!(error.contains("redis.tls.caSecret: ") && error.contains("not rediss://"), "{error}");
    let error = refused(&[("redis.tls", json!({ "certSecret": secret("tls.crt") }))]);
    assert!(error.contains("redis.tls.key"), "{error}");
    let pair = json!({ "certSecret": secret("tls.crt"), "keySecret": secret("tls.key") });
    let settings = planned(MINIMAL, &[("redis.tls", pair)]).unwrap().settings;
    assert!(settings.redis.tls_cert.is_some() && settings.redis.tls_key.is_some());
}

#[test]
fn every_missing_secret_is_named_and_an_optional_one_is_not_missed() {
    let variables = json!([
        {"name": "A", "valueFrom": {"secretKeyRef": {"name": "a", "key": "k", "optional": true}}},
        {"name": "B", "valueFrom": {"secretKeyRef": {"name": "b", "key": "k"}}},
    ]);
    let pipeline = pipeline(MINIMAL, &[("workers.pod.extraEnv", variables)]);
    let known = Dereferenced { secrets: Secrets::default(), ..known(&pipeline) };
    let error = Plan::new(&pipeline, &known).unwrap_err();
    assert_eq!(error.reason(), "SecretMissing");
    let PlanError::Secrets(missing) = error else { panic!("{error}") };
    let fields: Vec<&str> = missing.iter().map(|missing| missing.field.as_str()).collect();
    assert_eq!(fields, ["redis.urlSecret", "postgres.urlSecret", "workers.pod.extraEnv B"]);
}

#[test]
fn an_address_comes_from_one_place() {
    for section in ["redis", "postgres"] {
        let url = format!("{section}://host/0");
        let error = refused(&[(&format!("{section}.url"), json!(url))]);
        assert!(error.contains(&format!("exactly one of {section}.url")), "{error}");
        let error = refused(&[(&format!("{section}.urlSecret"), json!(null))]);
        assert!(error.contains(&format!("exactly one of {section}.url")), "{error}");
    }
}

#[test]
fn what_an_older_schema_let_through_is_refused() {
    for (field, value) in [
        ("workers.autoscaling.minReplicas", json!(11)),
        ("workers.autoscaling.drainTarget", json!("100ms")),
        ("workers.autoscaling.stabilizationWindow", json!("2d")),
        ("messageBuffer.batchDelay", json!("2h")),
        ("telemetry.serviceMonitor.interval", json!("2h")),
        ("telemetry.otlp.endpoint", json!("collector:4317")),
        ("relay.urls", json!(["wss://a/x,wss://b"])),
        ("workers.pod.extraVolumes", json!([{"name": "settings", "emptyDir": {}}])),
        ("dashboard.pod.extraVolumeMounts", json!([{"name": "x", "mountPath": "/etc/penstock/"}])),
    ] {
        let error = refused(&[(field, value)]);
        assert!(error.contains(&format!("{field}: ")), "{field}: {error}");
    }
    let none = [("telemetry.otlp.endpoint", json!("http://collector")), ("telemetry.otlp.sampleOneIn", json!(0))];
    assert!(refused(&none).contains("telemetry.otlp.sampleOneIn: "));
}

#[test]
fn a_name_that_no_service_can_have_is_refused() {
    for name in ["1st", "a.b", "a-", &"a".repeat(51)] {
        let mut pipeline = pipeline(MINIMAL, &[]);
        pipeline.metadata.name = Some(name.to_owned());
        assert_eq!(Plan::new(&pipeline, &known(&pipeline)).unwrap_err().reason(), "InvalidName", "{name}");
    }
}

#[test]
fn without_an_image_nothing_is_planned() {
    let pipeline = pipeline(MINIMAL, &[]);
    let known = Dereferenced { default_image: String::new(), ..known(&pipeline) };
    assert_eq!(Plan::new(&pipeline, &known).unwrap_err().reason(), "ImageUnknown");
}

#[test]
fn what_the_cluster_cannot_do_is_left_out_and_told() {
    let pipeline = pipeline(FULL, &[]);
    let known = Dereferenced { api: Apis::default(), ..known(&pipeline) };
    let fields: Vec<&str> = Plan::new(&pipeline, &known).unwrap().left_out.iter().map(|left| left.field).collect();
    assert_eq!(
        fields,
        ["workers.autoscaling.mode", "dashboard.httpRoute", "telemetry.serviceMonitor", "telemetry.prometheusRule"]
    );
    let fields: Vec<&str> = planned(FULL, &[]).unwrap().left_out.iter().map(|left| left.field).collect();
    assert_eq!(fields, [""; 0]);
}

#[test]
fn every_sample_can_be_planned() {
    let samples = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/samples");
    let mut count = 0;
    for file in std::fs::read_dir(samples).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        for sample in text.split("\n---\n") {
            let mut sample = tree(sample);
            sample["metadata"]["namespace"] = json!("firehose");
            sample["metadata"]["uid"] = json!("22222222-2222-2222-2222-222222222222");
            let pipeline: FirehosePipeline = serde_json::from_value(sample).unwrap();
            Plan::new(&pipeline, &known(&pipeline)).unwrap();
            count += 1;
        }
    }
    assert!(count >= 3, "{count}");
}
