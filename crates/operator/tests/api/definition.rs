//! What the API server takes and refuses by the schema alone.

use std::process::Command;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResourceList;
use kube::api::{Patch, PatchParams, PostParams};
use penstock_operator::crd::{self, FirehosePipeline, FirehosePipelineSpec, Verification};
use serde_json::{Value, json};

use crate::rig::{Rig, pipeline, words};

#[path = "definition/backfills.rs"]
mod backfills;

/// Specs that are refused, each with the words that say what to write.
fn refused() -> Vec<(Value, &'static str)> {
    let origin = "each of dashboard.allowedOrigins must be scheme, host and port only, such as https://example.com";
    let base_path = "dashboard.basePath must be a path such as /firehose, without a trailing slash";
    let relay = "each of relay.urls must be wss://host or ws://host:port, such as wss://bsky.network";
    let redis = "set exactly one of redis.url (without a password) and redis.urlSecret (name and key of a Secret)";
    let postgres =
        "set exactly one of postgres.url (without a password) and postgres.urlSecret (name and key of a Secret)";
    let redis_url = "redis.url must be redis://host:port, rediss://, redis-sentinel:// or redis-cluster://, without user and \
                     password: put a URL with a password into a Secret, see redis.urlSecret";
    let postgres_url = "postgres.url must be postgres://user@host:port/database without a password: put a URL with a password \
                        into a Secret, see postgres.urlSecret";
    let watermarks = "ingest.lowWatermark must be less than ingest.highWatermark: reading pauses at the high one and resumes below the low one";
    let replicas = "workers.autoscaling.minReplicas must not be greater than workers.autoscaling.maxReplicas";
    let timeout = "dashboard.httpRoute.requestTimeout must be a duration of the Gateway API, such as 0s or 1h30m";
    let route = |timeout: &str| json!({ "dashboard": { "httpRoute": { "parentRefs": [{ "name": "public" }], "requestTimeout": timeout } } });
    let secret = json!({ "name": "redis", "key": "url" });
    let tls = "set redis.tls.certSecret and redis.tls.keySecret together: a client certificate needs its key";
    let password =
        "set at most one of postgres.passwordFile and postgres.passwordCommand: one of them says the password";
    let mode = "verify.signatures must be off while verify.mode is off: a signature is over the commit that verify.mode checks";
    let identity =
        "verify.signatures needs identity.enabled: signatures are checked against keys that have to be resolved";
    let directory = "identity.plcUrl must be a URL without user, query and fragment, such as https://plc.directory";
    vec![
        (json!({ "relay": { "urls": ["https://bsky.network"] } }), relay),
        (json!({ "relay": { "urls": ["wss://user:secret@bsky.network"] } }), relay),
        (json!({ "relay": { "urls": ["wss://a", "wss://b", "wss://a"] } }), "relay.urls must not contain duplicates"),
        (json!({ "relay": { "urls": [] } }), "spec.relay.urls: Invalid value"),
        (json!({ "relay": { "start": "newest" } }), "supported values: \"live\", \"oldest\""),
        (json!({ "relay": { "dataTimeout": "30" } }), "spec.relay.dataTimeout: Invalid value"),
        (json!({ "relay": { "dataTimeout": "1.5s" } }), "spec.relay.dataTimeout: Invalid value"),
        (json!({ "redis": { "urlSecret": secret } }), redis),
        (json!({ "redis": { "url": null } }), redis),
        (json!({ "redis": null }), "spec.redis: Required value"),
        (json!({ "redis": { "url": "redis" } }), redis_url),
        (json!({ "redis": { "url": "http://redis:6379" } }), redis_url),
        (json!({ "redis": { "url": "redis://:secret@redis:6379" } }), redis_url),
        (
            json!({ "redis": { "url": null, "urlSecret": { "name": "redis" } } }),
            "spec.redis.urlSecret.key: Required value",
        ),
        (json!({ "redis": { "url": null, "urlSecret": { "name": "", "key": "url" } } }), "spec.redis.urlSecret.name"),
        (json!({ "redis": { "tls": { "certSecret": secret } } }), tls),
        (json!({ "redis": { "tls": { "keySecret": secret } } }), tls),
        (json!({ "redis": { "maxStreamLength": 9 } }), "spec.redis.maxStreamLength: Invalid value"),
        (json!({ "postgres": { "urlSecret": { "name": "postgres", "key": "url" } } }), postgres),
        (json!({ "postgres": { "url": null } }), postgres),
        (json!({ "postgres": { "url": "mysql://postgres/penstock" } }), postgres_url),
        (json!({ "postgres": { "url": "postgres://penstock:secret@postgres/penstock" } }), postgres_url),
        (
            json!({ "postgres": { "url": "postgres://penstock@postgres/penstock?sslmode=require&password=secret" } }),
            postgres_url,
        ),
        (json!({ "postgres": { "url": "postgres://penstock:secret@a,b/penstock" } }), postgres_url),
        (json!({ "postgres": { "passwordFile": "/a", "passwordCommand": "/b" } }), password),
        (json!({ "postgres": { "schema": "" } }), "spec.postgres.schema: Invalid value"),
        (json!({ "postgres": { "poolSize": 1 } }), "spec.postgres.poolSize: Invalid value"),
        (json!({ "ingest": { "lowWatermark": 80 } }), watermarks),
        (json!({ "ingest": { "highWatermark": 40 } }), watermarks),
        (json!({ "ingest": { "highWatermark": 101 } }), "spec.ingest.highWatermark: Invalid value"),
        (json!({ "workers": { "autoscaling": { "minReplicas": 11 } } }), replicas),
        (json!({ "workers": { "autoscaling": { "minReplicas": 3, "maxReplicas": 2 } } }), replicas),
        (
            json!({ "workers": { "autoscaling": { "maxReplicas": 0 } } }),
            "spec.workers.autoscaling.maxReplicas: Invalid value",
        ),
        (
            json!({ "workers": { "autoscaling": { "mode": "hpa" } } }),
            "supported values: \"operator\", \"keda\", \"fixed\"",
        ),
        (json!({ "workers": { "replicas": -1 } }), "spec.workers.replicas: Invalid value"),
        (json!({ "workers": { "batchSize": 10_001 } }), "spec.workers.batchSize: Invalid value"),
        (json!({ "workers": { "deleteGrace": "1 day" } }), "spec.workers.deleteGrace: Invalid value"),
        (json!({ "verify": { "mode": "strict" } }), "supported values: \"off\", \"count\", \"enforce\""),
        // What a bare `off` is in YAML.
        (json!({ "verify": { "mode": false } }), "spec.verify.mode in body must be of type string"),
        (json!({ "verify": { "unresolved": "drop" } }), "supported values: \"pass\", \"hold\""),
        (json!({ "verify": { "memory": "64MB" } }), "spec.verify.memory: Invalid value"),
        (json!({ "verify": { "mode": "off", "signatures": "count" }, "identity": { "enabled": true } }), mode),
        (json!({ "verify": { "signatures": "count" } }), identity),
        (json!({ "verify": { "signatures": "enforce" }, "identity": { "enabled": false } }), identity),
        (json!({ "filter": { "collections": [""] } }), "spec.filter.collections[0]: Invalid value"),
        (json!({ "identity": { "plcUrl": "plc.directory" } }), directory),
        (json!({ "identity": { "plcUrl": "https://user:secret@plc.example.com" } }), directory),
        (json!({ "identity": { "plcUrl": "https://plc.example.com?key=secret" } }), directory),
        (json!({ "identity": { "rate": 0 } }), "spec.identity.rate: Invalid value"),
        (json!({ "identity": { "maxAge": "a day" } }), "spec.identity.maxAge: Invalid value"),
        (json!({ "heal": { "minReplicas": 5 } }), "heal.minReplicas must not be greater than heal.maxReplicas"),
        (
            json!({ "heal": { "auditRate": 100 } }),
            "heal.auditRate needs heal.enabled: repos are compared by healers that always run",
        ),
        (
            json!({ "heal": { "mirrors": ["https://mirror.example.com/"] } }),
            "each of heal.mirrors must be scheme, host and port only, such as https://mirror.example.com",
        ),
        (json!({ "heal": { "minReplicas": 0 } }), "spec.heal.minReplicas: Invalid value"),
        (json!({ "heal": { "memory": "64MB" } }), "spec.heal.memory: Invalid value"),
        (json!({ "dashboard": { "maxConnections": 15 } }), "spec.dashboard.maxConnections: Invalid value"),
        (json!({ "dashboard": { "maxConnectionsPerPeer": 0 } }), "spec.dashboard.maxConnectionsPerPeer: Invalid value"),
        (json!({ "dashboard": { "allowedOrigins": ["https://example.com/"] } }), origin),
        (json!({ "dashboard": { "allowedOrigins": ["*"] } }), origin),
        (json!({ "dashboard": { "basePath": "/firehose/" } }), base_path),
        (json!({ "dashboard": { "basePath": "firehose" } }), base_path),
        (json!({ "dashboard": { "basePath": "/fire hose" } }), base_path),
        (
            json!({ "dashboard": { "ingress": { "host": "a", "path": "page" } } }),
            "dashboard.ingress.path must begin with /",
        ),
        (json!({ "dashboard": { "ingress": {} } }), "spec.dashboard.ingress.host: Required value"),
        (json!({ "dashboard": { "httpRoute": { "parentRefs": [] } } }), "spec.dashboard.httpRoute.parentRefs"),
        (route("30"), timeout),
        (route("1.5s"), timeout),
        (route("s"), timeout),
        (json!({ "ingest": { "pod": { "securityContext": 7 } } }), "spec.ingest.pod.securityContext: Invalid value"),
        (
            json!({ "dashboard": { "service": { "type": "ExternalName" } } }),
            "spec.dashboard.service.type: Unsupported value",
        ),
        (json!({ "dashboard": { "service": { "port": 0 } } }), "spec.dashboard.service.port: Invalid value"),
        (json!({ "ingest": { "pod": { "terminationGracePeriodSeconds": 1 } } }), "terminationGracePeriodSeconds"),
        (json!({ "deletionPolicy": "Orphan" }), "supported values: \"Retain\", \"Delete\""),
    ]
}

/// Specs that are taken: what stands beside each border, and every form of an address.
fn taken() -> Vec<Value> {
    let address = |url: &str| json!({ "redis": { "url": url } });
    let database = |url: &str| json!({ "postgres": { "url": url } });
    vec![
        json!({}),
        address("rediss://redis.example.com"),
        address("redis-sentinel://sentinel:26379?sentinelServiceName=main"),
        address("rediss-cluster://redis-0.redis:6379?node=redis-1.redis:6379"),
        address("redis://[fd00::1]:6379/3"),
        database("postgresql://postgres:5432/penstock?sslmode=require"),
        database("postgresql://a,b/db?target_session_attrs=read-write"),
        database("postgres://penstock@a:5432,[2001:db8::1]:5433/appview?target_session_attrs=read-write"),
        database("postgresql://penstock@/appview?host=/var/run/postgresql"),
        json!({ "postgres": { "passwordFile": "/run/secrets/database/password", "schema": "appview" } }),
        json!({ "postgres": { "passwordCommand": "aws rds generate-db-auth-token --hostname db.example" } }),
        json!({ "redis": { "url": null, "urlSecret": { "name": "redis", "key": "url" }, "keyPrefix": "{bluesky}:" } }),
        json!({ "redis": { "tls": {
            "caSecret": { "name": "redis", "key": "ca" }, "certSecret": { "name": "redis", "key": "cert" },
            "keySecret": { "name": "redis", "key": "key" },
        } } }),
        json!({ "postgres": { "url": null, "urlSecret": { "name": "postgres", "key": "url" }, "migrate": false } }),
        json!({ "relay": { "urls": ["wss://bsky.network", "ws://10.0.0.1:2470/xrpc", "ws://[::1]:2470"], "start": "oldest" } }),
        json!({ "relay": { "dataTimeout": "1500ms" } }),
        json!({ "ingest": { "lowWatermark": 1, "highWatermark": 2, "foreignGroupHold": "3d" } }),
        json!({ "workers": { "autoscaling": { "minReplicas": 0, "maxReplicas": 1, "mode": "keda" } } }),
        json!({ "workers": { "autoscaling": { "minReplicas": 10 } } }),
        json!({ "workers": { "replicas": 0, "autoscaling": { "mode": "fixed" } } }),
        json!({ "workers": { "deleteGrace": "0s" } }),
        json!({ "workers": { "recordCids": true } }),
        json!({ "verify": { "mode": "off" } }),
        json!({ "verify": { "mode": "enforce", "unresolved": "hold", "memory": "1Gi" } }),
        json!({ "verify": { "mode": "enforce", "signatures": "enforce" }, "identity": { "enabled": true } }),
        json!({ "identity": { "enabled": true, "plcUrl": "http://plc.firehose.svc:2582/", "allowedNetworks": ["10.0.0.0/8", "::1"] } }),
        json!({ "heal": { "enabled": true, "minReplicas": 4, "auditRate": 1_000_000, "mirrors": ["http://a:3000"] } }),
        json!({ "dashboard": { "maxConnections": 16, "maxConnectionsPerPeer": 1, "trustedProxies": ["10.0.0.0/8"] } }),
        json!({ "dashboard": { "allowedOrigins": [] } }),
        json!({ "dashboard": { "basePath": "/" } }),
        json!({ "dashboard": { "basePath": "/tools/fire-hose_1" } }),
        json!({ "dashboard": { "allowedOrigins": ["http://localhost:3000", "https://app.example.com"] } }),
        json!({ "dashboard": { "ingress": { "host": "firehose.example.com", "path": "/firehose" } } }),
        json!({ "dashboard": { "httpRoute": { "parentRefs": [{ "name": "public", "namespace": "gateways" }] } } }),
        json!({ "dashboard": { "httpRoute": { "parentRefs": [{ "name": "public" }], "requestTimeout": "1h30m" } } }),
        json!({ "dashboard": { "httpRoute": { "parentRefs": [{ "name": "public" }], "requestTimeout": "0s" } } }),
        json!({ "ingest": { "pod": { "securityContext": { "runAsUser": 1_000_650_000, "supplementalGroupsPolicy": "Strict" } } } }),
        json!({ "ingest": { "pod": { "resources": { "limits": { "cpu": 1, "memory": "1Gi" } } } } }),
        json!({ "ingest": { "pod": { "affinity": { "podAntiAffinity": { "anything": ["as", "it", "is"] } } } } }),
    ]
}

#[tokio::test]
async fn what_is_not_valid_is_refused_with_words_that_say_what_to_write() {
    let Some(rig) = Rig::new("refused").await else { return };
    for (changes, message) in refused() {
        match rig.try_create("refused", &changes).await {
            Ok(_) => panic!("taken: {changes}"),
            Err(said) => assert!(said.contains(message), "{changes}: {said}"),
        }
    }
}

#[tokio::test]
async fn what_is_valid_is_taken() {
    let Some(rig) = Rig::new("taken").await else { return };
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    for changes in taken() {
        let made = rig.raw().create(&dry, &pipeline("taken", &changes)).await;
        made.unwrap_or_else(|error| panic!("{changes}: {}", words(&error)));
    }
}

#[test]
fn every_rule_of_the_schema_is_among_those_that_are_shown() {
    fn gather(schema: &Value, messages: &mut Vec<String>) {
        match schema {
            Value::Object(fields) => {
                for rule in fields.get("x-kubernetes-validations").and_then(Value::as_array).into_iter().flatten() {
                    messages.push(rule["message"].as_str().unwrap().to_owned());
                }
                fields.values().for_each(|value| gather(value, messages));
            }
            Value::Array(values) => values.iter().for_each(|value| gather(value, messages)),
            _ => {}
        }
    }
    let mut messages = Vec::new();
    gather(&serde_json::to_value(crd::definitions()).unwrap(), &mut messages);
    let shown: Vec<&str> = refused()
        .into_iter()
        .chain(backfills::refused())
        .map(|(_, message)| message)
        .chain([LONG_NAME, BAD_NAME, PREFIX])
        .chain(backfills::ELSEWHERE)
        .collect();
    messages.retain(|message| !shown.contains(&message.as_str()));
    assert!(messages.is_empty(), "no test shows: {messages:#?}");
}

const LONG_NAME: &str = "metadata.name must have at most 50 characters: names derived from it must fit into 63";
const BAD_NAME: &str = "metadata.name must begin with a letter, contain only a-z, 0-9 and -, and not end with -: Services are named after it";
const PREFIX: &str = "redis.keyPrefix is immutable, because it names the stream and the cursor: delete the pipeline and create a new one";

#[tokio::test]
async fn a_name_from_which_no_other_fits_is_refused() {
    let Some(rig) = Rig::new("names").await else { return };
    let said = rig.try_create(&"a".repeat(51), &json!({})).await.unwrap_err();
    assert!(said.contains(LONG_NAME), "{said}");
    for name in ["2nd", "blue.sky"] {
        let said = rig.try_create(name, &json!({})).await.unwrap_err();
        assert!(said.contains(BAD_NAME), "{said}");
    }
    rig.create(&"a".repeat(50), json!({})).await;
}

#[tokio::test]
async fn a_key_prefix_stays_what_it_was_while_the_rest_may_change() {
    let Some(rig) = Rig::new("prefix").await else { return };
    rig.create("with", json!({ "redis": { "keyPrefix": "a:" } })).await;
    rig.create("without", json!({})).await;
    for (name, prefix) in [("with", json!("b:")), ("with", json!(null)), ("without", json!("a:"))] {
        let said = rig.try_change(name, json!({ "redis": { "keyPrefix": prefix } })).await.unwrap_err();
        assert!(said.contains(PREFIX), "{said}");
    }
    rig.change("with", json!({ "redis": { "url": "redis://other:6379", "keyPrefix": "a:" } })).await;
    rig.change("without", json!({ "redis": { "maxStreamLength": 1_000, "keyPrefix": "" } })).await;
}

#[tokio::test]
async fn defaults_are_written_by_the_api_server_and_are_those_of_the_types() {
    let Some(rig) = Rig::new("defaults").await else { return };
    let route = json!({ "parentRefs": [{ "name": "public" }] });
    for changes in [json!({}), json!({ "dashboard": { "ingress": { "host": "a.example.com" }, "httpRoute": route } })] {
        let given = pipeline("defaults", &changes);
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        let made = rig.raw().create(&dry, &given).await.unwrap();
        let spec: FirehosePipelineSpec = serde_json::from_value(given.data["spec"].clone()).unwrap();
        assert_eq!(made.data["spec"], serde_json::to_value(spec).unwrap());
    }
}

#[tokio::test]
async fn the_defaults_are_those_that_the_manual_names() {
    let Some(rig) = Rig::new("manual").await else { return };
    let spec = rig.create("manual", json!({})).await.spec;
    assert_eq!(spec.relay.urls, ["wss://bsky.network"]);
    assert_eq!((spec.redis.max_stream_length, spec.postgres.pool_size, spec.postgres.migrate), (500_000, 8, true));
    assert_eq!((spec.ingest.high_watermark, spec.ingest.low_watermark), (80, 50));
    assert!(spec.ingest.enabled && spec.workers.enabled && spec.dashboard.enabled && !spec.message_buffer.enabled);
    let scaling = spec.workers.autoscaling;
    assert_eq!((scaling.min_replicas, scaling.max_replicas, spec.workers.replicas), (1, 10, 1));
    assert_eq!((scaling.drain_target.as_str(), scaling.stabilization_window.as_str()), ("30s", "5m"));
    assert_eq!((spec.dashboard.replicas, spec.dashboard.service.port), (1, 8000));
    assert!(spec.network_policy.enabled && !spec.suspend && !spec.identity.enabled);
    assert!(!spec.heal.enabled && spec.heal.audit_rate == 0);
    assert_eq!((spec.heal.min_replicas, spec.heal.max_replicas, spec.heal.parallelism), (1, 4, 8));
    assert_eq!((spec.verify.mode, spec.verify.signatures), (Verification::Count, Verification::Off));
    assert_eq!((spec.verify.memory.bytes(), spec.identity.memory.bytes()), (Some(64 << 20), Some(32 << 20)));
    assert_eq!((spec.identity.plc_url.as_str(), spec.workers.delete_grace.as_str()), ("https://plc.directory", "24h"));
}

#[tokio::test]
async fn the_scale_subresource_reads_and_writes_the_fixed_number_of_workers() {
    let Some(rig) = Rig::new("scale").await else { return };
    rig.create("scale", json!({ "workers": { "replicas": 3, "autoscaling": { "mode": "fixed" } } })).await;
    let status = json!({ "status": { "workers": { "replicas": 2, "ready": 1, "desired": 3, "selector": "a=b" } } });
    rig.raw().patch_status("scale", &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
    let scale = rig.raw().get_scale("scale").await.unwrap();
    let seen = scale.status.unwrap();
    assert_eq!((scale.spec.unwrap().replicas, seen.replicas, seen.selector.as_deref()), (Some(3), 2, Some("a=b")));
    let five = Patch::Merge(json!({ "spec": { "replicas": 5 } }));
    rig.raw().patch_scale("scale", &PatchParams::default(), &five).await.unwrap();
    assert_eq!(rig.api::<FirehosePipeline>().get("scale").await.unwrap().spec.workers.replicas, 5);
}

#[tokio::test]
async fn a_status_that_was_written_changes_no_spec_and_no_generation() {
    let Some(rig) = Rig::new("status").await else { return };
    let made = rig.create("status", json!({})).await;
    let patch = json!({ "spec": { "suspend": true }, "status": { "phase": "Pending" } });
    let patched = rig.raw().patch_status("status", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    assert_eq!(patched.metadata.generation, made.metadata.generation);
    assert_eq!(patched.data["status"]["phase"], "Pending");
    assert_eq!(patched.data["spec"]["suspend"], false);
}

#[tokio::test]
async fn it_is_found_by_its_short_name_and_in_its_categories() {
    let Some(rig) = Rig::new("discovery").await else { return };
    let found: APIResourceList = rig.client.list_api_group_resources("penstock.dev/v1alpha1").await.unwrap();
    let resource = found.resources.iter().find(|resource| resource.name == "firehosepipelines").unwrap();
    assert!(resource.namespaced);
    assert_eq!(resource.short_names.as_deref(), Some(&["fhp".to_owned()][..]));
    assert_eq!(resource.categories.as_deref(), Some(&["all".to_owned(), "penstock".to_owned()][..]));
}

#[tokio::test]
async fn kubectl_tells_the_story_in_one_line_and_explains_every_field() {
    let Some(rig) = Rig::new("kubectl").await else { return };
    rig.create("bluesky", json!({})).await;
    let status = json!({ "status": {
        "phase": "Running",
        "ingest": { "connected": true, "lag": "3s", "cursor": "42" },
        "workers": { "replicas": 4, "ready": 3, "desired": 4, "summary": "3/4", "backlog": ">= 1000" },
        "conditions": [{ "type": "Ready", "status": "True", "reason": "AllReady", "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z" }],
    } });
    rig.raw().patch_status("bluesky", &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
    let folder = penstock_local::testing::TempFolder::new().unwrap();
    let config = folder.path().join("config");
    std::fs::write(&config, rig.server.kubeconfig()).unwrap();
    let kubectl = |args: &[&str]| {
        let mut command = Command::new(rig.server.programs().join("kubectl"));
        command.arg("--kubeconfig").arg(&config).arg("--cache-dir").arg(folder.path()).args(args);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let table = kubectl(&["get", "fhp", "--namespace", &rig.namespace]);
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["NAME", "PHASE", "RELAY", "LAG", "BACKLOG", "WORKERS", "READY", "REASON", "AGE"]);
    assert!(table.contains("true    3s    >= 1000"), "{table}");
    let manual = kubectl(&["explain", "fhp", "--recursive"]);
    for section in [
        "relay",
        "redis",
        "postgres",
        "ingest",
        "workers",
        "dashboard",
        "verify",
        "identity",
        "heal",
        "messageBuffer",
        "telemetry",
        "image",
    ] {
        assert!(manual.contains(&format!("  {section}\t<")), "{manual}");
    }
    assert!(kubectl(&["explain", "fhp.spec.workers.autoscaling.drainTarget"]).contains("Default: 30s"));
}

#[test]
fn every_field_of_the_spec_is_explained() {
    fn look(path: &str, schema: &Value, silent: &mut Vec<String>) {
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            // What Kubernetes defines has Kubernetes' own words or none.
            if field["description"].is_null() && !path.contains(".resources") {
                silent.push(path.clone());
            }
            look(&path, field, silent);
        }
        if schema["items"].is_object() {
            look(&format!("{path}[]"), &schema["items"], silent);
        }
    }
    let mut silent = Vec::new();
    for definition in crd::definitions() {
        let definition = serde_json::to_value(definition).unwrap();
        let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
        look("spec", &schema["spec"], &mut silent);
        look("status", &schema["status"], &mut silent);
    }
    assert!(silent.is_empty(), "no words for {silent:#?}");
}
