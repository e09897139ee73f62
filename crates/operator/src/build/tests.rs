//! What is claimed of the children; [`golden`] holds two whole pipelines, [`every_field`] asks of each field whether it changes something.

mod every_field;
mod golden;

use std::collections::{BTreeSet, HashSet};

use penstock_telemetry::metrics::Metric;
use serde_json::{Value, json};

use super::*;
use crate::fixture::{FULL, MINIMAL, PASSWORD, pipeline, planned, seen};
use crate::plan::{Apis, Part, Seen};

fn built(yaml: &str, changes: &[(&str, Value)]) -> Vec<Child> {
    children(&planned(yaml, changes).unwrap())
}

/// Finds one child by kind and the end of its name.
fn find<'a>(children: &'a [Child], kind: &str, end: &str) -> Option<&'a Value> {
    let mut found = children.iter().filter(|child| child.resource.kind == kind && child.name().ends_with(end));
    let first = found.next()?;
    assert!(found.next().is_none(), "{kind} {end} twice");
    Some(&first.object.data["spec"])
}

fn spec<'a>(children: &'a [Child], kind: &str, end: &str) -> &'a Value {
    find(children, kind, end).unwrap_or_else(|| panic!("no {kind} {end}"))
}

fn templates(children: &[Child]) -> impl Iterator<Item = (&str, &Value)> {
    children.iter().filter_map(|child| Some((child.name(), child.object.data.pointer("/spec/template")?)))
}

fn hash_of<'a>(children: &'a [Child], kind: &str, end: &str, which: &str) -> &'a Value {
    &spec(children, kind, end)["template"]["metadata"]["annotations"][format!("penstock.dev/{which}-hash")]
}

fn environment<'a>(children: &'a [Child], end: &str) -> &'a Vec<Value> {
    spec(children, "Deployment", end)["template"]["spec"]["containers"][0]["env"].as_array().unwrap()
}

#[test]
fn there_is_one_writer_and_the_old_one_ends_first() {
    let children = built(MINIMAL, &[]);
    let ingest = spec(&children, "Deployment", "-ingest");
    assert_eq!((&ingest["replicas"], &ingest["strategy"]), (&json!(1), &json!({"type": "Recreate"})));
    let children = built(MINIMAL, &[("ingest.hotStandby", json!(true))]);
    let ingest = spec(&children, "Deployment", "-ingest");
    assert_eq!(ingest["replicas"], 2);
    let rolling = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}});
    assert_eq!(ingest["strategy"], rolling);
}

#[test]
fn the_number_of_workers_is_never_applied() {
    for mode in ["operator", "keda", "fixed"] {
        for suspend in [false, true] {
            let children =
                built(MINIMAL, &[("workers.autoscaling", json!({"mode": mode})), ("suspend", json!(suspend))]);
            assert_eq!(spec(&children, "Deployment", "-worker").get("replicas"), None, "{mode} {suspend}");
        }
    }
}

#[test]
fn workers_and_nothing_else_wait_for_the_tables() {
    let children = built(FULL, &[]);
    let after: Vec<&str> =
        children.iter().filter(|child| child.stage == Stage::After).map(|child| child.resource.kind.as_str()).collect();
    assert_eq!(after, ["Deployment", "ScaledObject"]);
    let job = children.iter().position(|child| child.resource.kind == "Job").unwrap();
    assert!(children[..=job].iter().all(|child| child.stage == Stage::Before));
}

#[test]
fn what_is_suspended_has_no_pod_and_starts_none() {
    let suspended = pipeline(FULL, &[("suspend", json!(true))]);
    let seen = Seen { workers_exist: false, ..seen(&suspended) };
    let children = children(&Plan::new(&suspended, &seen).unwrap());
    assert_eq!(find(&children, "Deployment", "-worker"), None, "a new Deployment begins with a pod");
    assert!(
        children.iter().all(|child| !["Job", "ScaledObject", "PrometheusRule"].contains(&child.resource.kind.as_str()))
    );
    for part in ["-ingest", "-dashboard"] {
        assert_eq!(spec(&children, "Deployment", part)["replicas"], 0, "{part}");
    }
    let children = built(FULL, &[("suspend", json!(true))]);
    let paused = children.iter().find(|child| child.resource.kind == "ScaledObject").unwrap();
    assert_eq!(paused.object.metadata.annotations.as_ref().unwrap()["autoscaling.keda.sh/paused-replicas"], "0");
}

#[test]
fn a_part_that_is_switched_off_leaves_nothing() {
    for (section, component) in [("ingest", "ingest"), ("workers", "worker"), ("dashboard", "dashboard")] {
        let children = built(FULL, &[(&format!("{section}.enabled"), json!(false))]);
        let left: Vec<&str> = children
            .iter()
            .filter(|child| {
                let labels = child.object.metadata.labels.as_ref().unwrap();
                labels["app.kubernetes.io/component"] == component
            })
            .map(|child| child.resource.kind.as_str())
            .collect();
        assert_eq!(left, [""; 0], "{section}");
    }
    let children = built(FULL, &[("workers.enabled", json!(false))]);
    assert!(children.iter().all(|child| child.resource.kind != "Job"), "the tables are the workers'");
}

#[test]
fn every_pod_is_one_that_a_restricted_namespace_takes() {
    for yaml in [MINIMAL, FULL] {
        let children = built(yaml, &[]);
        assert_eq!(templates(&children).count(), 4);
        for (name, template) in templates(&children) {
            let pod = &template["spec"];
            assert_eq!(pod["automountServiceAccountToken"], false, "{name}");
            assert_eq!(pod["enableServiceLinks"], false, "{name}");
            assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{name}");
            assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{name}");
            let container = &pod["containers"][0]["securityContext"];
            let wanted = json!({
                "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
            });
            assert_eq!(*container, wanted, "{name}");
        }
    }
}

#[test]
fn a_part_runs_its_command_with_the_settings_and_is_probed_where_it_listens() {
    let children =
        built(MINIMAL, &[("ingest.pod.extraEnv", json!([{"name": "ADMIN_ADDRESS", "value": "0.0.0.0:9000"}]))]);
    for (end, port) in [("-ingest", 9000), ("-worker", 9464), ("-dashboard", 9464)] {
        let container = &spec(&children, "Deployment", end)["template"]["spec"]["containers"][0];
        assert_eq!(container["command"], json!(["penstock"]));
        assert_eq!(container["args"], json!([&end[1..], "--config", "/etc/penstock/settings.yaml"]));
        assert_eq!(container["readinessProbe"]["httpGet"], json!({"path": "/readyz", "port": "metrics"}));
        assert_eq!(container["livenessProbe"]["httpGet"]["path"], "/healthz");
        assert_eq!(container["startupProbe"]["httpGet"]["path"], "/healthz");
        let metrics = json!({"name": "metrics", "containerPort": port, "protocol": "TCP"});
        assert!(container["ports"].as_array().unwrap().contains(&metrics), "{end}");
        let open = &spec(&children, "NetworkPolicy", end)["ingress"][0]["ports"];
        assert!(open.as_array().unwrap().contains(&json!({"port": port, "protocol": "TCP"})), "{end}");
    }
}

#[test]
fn no_child_holds_what_stands_in_a_secret() {
    for yaml in [MINIMAL, FULL] {
        let text: String = built(yaml, &[]).iter().map(|child| serde_json::to_string(&child.object).unwrap()).collect();
        assert!(!text.contains(PASSWORD));
    }
    let children = built(MINIMAL, &[]);
    let redis = json!({"name": "REDIS_URL", "valueFrom": {"secretKeyRef": {"name": "redis", "key": "url"}}});
    assert!(["-ingest", "-worker", "-dashboard"].iter().all(|part| environment(&children, part).contains(&redis)));
}

#[test]
fn an_inline_address_stands_in_the_settings_file() {
    let changes = [
        ("redis.url", json!("redis://redis:6379")),
        ("redis.urlSecret", json!(null)),
        ("postgres.url", json!("postgres://penstock@postgres/appview")),
        ("postgres.urlSecret", json!(null)),
    ];
    let children = built(MINIMAL, &changes);
    let file = children[0].object.data["data"]["settings.yaml"].as_str().unwrap();
    assert!(file.contains("redis://redis:6379") && file.contains("postgres://penstock@postgres/appview"), "{file}");
    assert!(environment(&children, "-ingest").is_empty());
}

#[test]
fn a_changed_setting_rolls_the_parts_that_read_it_and_no_other() {
    let before = built(MINIMAL, &[]);
    for (field, value, rolled) in [
        ("workers.batchSize", json!(7), ["-worker"].as_slice()),
        ("relay.dataTimeout", json!("7s"), &["-ingest"]),
        ("dashboard.allowedOrigins", json!(["https://a"]), &["-dashboard"]),
        ("telemetry.logLevel", json!("debug"), &["-ingest", "-worker", "-dashboard"]),
    ] {
        let after = built(MINIMAL, &[(field, value)]);
        for part in ["-ingest", "-worker", "-dashboard"] {
            let hash = |children| hash_of(children, "Deployment", part, "settings").clone();
            assert_eq!(hash(&before) != hash(&after), rolled.contains(&part), "{field} {part}");
        }
    }
}

#[test]
fn a_changed_secret_rolls_the_parts_that_read_it() {
    let written = pipeline(FULL, &[]);
    let before = children(&Plan::new(&written, &seen(&written)).unwrap());
    let auth = &written.spec.dashboard.auth;
    for (secret, text, rolled) in [
        (written.spec.redis.url_secret.as_ref(), "redis://other", ["-ingest", "-worker", "-dashboard"].as_slice()),
        (auth.admin_token_secret.as_ref(), "other", &["-dashboard"]),
        (written.spec.telemetry.otlp.headers_secret.as_ref(), "key=other", &["-ingest", "-worker", "-dashboard"]),
    ] {
        let mut seen = seen(&written);
        seen.secrets.insert(secret.unwrap(), text);
        let after = children(&Plan::new(&written, &seen).unwrap());
        for part in ["-ingest", "-worker", "-dashboard"] {
            let hash = |children| hash_of(children, "Deployment", part, "secrets").clone();
            assert_eq!(hash(&before) != hash(&after), rolled.contains(&part), "{text} {part}");
        }
    }
}

#[test]
fn the_tables_are_made_anew_for_another_schema_image_or_database_only() {
    let name = |written: &crate::crd::FirehosePipeline, seen: &Seen| {
        migration_job(&Plan::new(written, seen).unwrap()).unwrap().name().to_owned()
    };
    let written = pipeline(MINIMAL, &[]);
    let seen_now = seen(&written);
    let now = name(&written, &seen_now);
    assert!(now.starts_with("bluesky-migrate-") && now.len() == "bluesky-migrate-".len() + 8, "{now}");
    assert_ne!(now, name(&written, &Seen { schema: "other".to_owned(), ..seen_now.clone() }));
    assert_ne!(now, name(&written, &Seen { default_image: "other".to_owned(), ..seen_now.clone() }));
    let mut elsewhere = seen_now.clone();
    elsewhere.secrets.insert(written.spec.postgres.url_secret.as_ref().unwrap(), "postgres://other/db");
    assert_ne!(now, name(&written, &elsewhere));
    let changes =
        [("telemetry.logLevel", json!("debug")), ("workers.batchSize", json!(7)), ("relay.start", json!("oldest"))];
    let changed = pipeline(MINIMAL, &changes);
    assert_eq!(now, name(&changed, &seen(&changed)));
}

#[test]
fn a_job_that_runs_otherwise_has_another_name() {
    // The API server refuses to change a Job, so whatever stands in its pods must be part of its name.
    let before = migration_job(&planned(MINIMAL, &[]).unwrap()).unwrap();
    for (field, value) in [
        ("workers.pod.extraEnv", json!([{"name": "SSL_CERT_FILE", "value": "/etc/ca/ca.crt"}])),
        ("workers.pod.affinity", json!({"nodeAffinity": {}})),
        ("workers.pod.nodeSelector", json!({"a": "b"})),
        ("image.pullPolicy", json!("Always")),
        ("messageBuffer.enabled", json!(true)),
    ] {
        let after = migration_job(&planned(MINIMAL, &[(field, value)]).unwrap()).unwrap();
        assert_ne!(before.object.data, after.object.data, "{field}");
        assert_ne!(before.name(), after.name(), "{field}");
    }
}

#[test]
fn the_frontend_of_messages_may_simulate_where_it_is_set_so() {
    let changes = [("messageBuffer.enabled", json!(true)), ("messageBuffer.openAdmin", json!(true))];
    let is_open = |child: &Child| child.object.data.to_string().contains("PENSTOCK_MESSAGE_BUFFER_OPEN_ADMIN");
    let open: Vec<_> =
        built(MINIMAL, &changes).into_iter().filter(is_open).map(|child| child.name().to_owned()).collect();
    assert_eq!(open, ["bluesky-dashboard"]);
    assert!(!built(MINIMAL, &changes[..1]).iter().any(is_open));
}

#[test]
fn the_longest_name_still_fits() {
    let mut written = pipeline(FULL, &[]);
    written.metadata.name = Some(format!("{}-b", "a".repeat(48)));
    for child in children(&Plan::new(&written, &seen(&written)).unwrap()) {
        assert!(child.name().len() <= 63, "{} {}", child.resource.kind, child.name());
    }
}

#[test]
fn what_a_person_adds_goes_before_ours_only_where_it_may() {
    let changes = [
        ("workers.pod.labels", json!({"app.kubernetes.io/component": "other", "team": "data"})),
        (
            "workers.pod.extraEnv",
            json!([
                {"name": "CONSUMER_ID", "value": "first"},
                {"name": "REDIS_URL", "value": "redis://other"},
                {"name": "CONSUMER_ID", "value": "last"},
            ]),
        ),
    ];
    let children = built(MINIMAL, &changes);
    let labels = &spec(&children, "Deployment", "-worker")["template"]["metadata"]["labels"];
    assert_eq!((&labels["app.kubernetes.io/component"], &labels["team"]), (&json!("worker"), &json!("data")));
    let environment = environment(&children, "-worker");
    let names: HashSet<&str> = environment.iter().map(|variable| variable["name"].as_str().unwrap()).collect();
    assert_eq!(names.len(), environment.len(), "server-side apply refuses a name that stands twice");
    assert!(environment.contains(&json!({"name": "REDIS_URL", "value": "redis://other"})));
    assert!(environment.contains(&json!({"name": "CONSUMER_ID", "value": "last"})));
}

#[test]
fn a_spread_that_names_no_pods_means_the_parts_own() {
    let spread = json!([{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}]);
    let children = built(MINIMAL, &[("dashboard.pod.topologySpreadConstraints", spread)]);
    let dashboard = spec(&children, "Deployment", "-dashboard");
    let constraints = &dashboard["template"]["spec"]["topologySpreadConstraints"];
    assert_eq!(constraints[0]["labelSelector"], dashboard["selector"]);
    assert_eq!(constraints[0]["topologyKey"], "zone");

    let spread = json!([{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}]);
    let children = built(MINIMAL, &[("workers.pod.topologySpreadConstraints", spread)]);
    assert!(!spec(&children, "Deployment", "-worker")["template"]["spec"]["topologySpreadConstraints"].is_null());
    let job = children.iter().find(|child| child.resource.kind == "Job").unwrap();
    assert!(job.object.data["spec"]["template"]["spec"]["topologySpreadConstraints"].is_null());
}

#[test]
fn every_child_says_whose_it_is_and_is_found_again() {
    let kinds: BTreeSet<String> = kinds().into_iter().map(|kind| kind.kind).collect();
    let mut names = HashSet::new();
    let mut built_kinds = BTreeSet::new();
    for child in built(FULL, &[]).into_iter().chain(built(MINIMAL, &[("networkPolicy", json!({"enabled": false}))])) {
        let meta = &child.object.metadata;
        let owner = &meta.owner_references.as_ref().unwrap()[0];
        assert_eq!(
            (owner.name.as_str(), owner.controller, owner.block_owner_deletion),
            ("bluesky", Some(true), Some(true))
        );
        assert_eq!(meta.namespace.as_deref(), Some("firehose"));
        let labels = meta.labels.as_ref().unwrap();
        for selected in labels::owned_by("bluesky").split(',') {
            let (name, value) = selected.split_once('=').unwrap();
            assert_eq!(labels[name], value, "{}", child.name());
        }
        assert!(kinds.contains(&child.resource.kind), "{} would never be removed", child.resource.kind);
        built_kinds.insert(child.resource.kind.clone());
        names.insert((child.resource.kind.clone(), child.name().to_owned()));
    }
    assert_eq!(kinds, built_kinds);
    let children = built(FULL, &[]);
    let distinct: HashSet<_> = children.iter().map(|child| (&child.resource.kind, child.name())).collect();
    assert_eq!(distinct.len(), children.len());
}

#[test]
fn a_kind_that_the_cluster_does_not_know_is_not_built() {
    let written = pipeline(FULL, &[]);
    let seen = Seen { api: Apis::default(), ..seen(&written) };
    let children = children(&Plan::new(&written, &seen).unwrap());
    for kind in ["ServiceMonitor", "PrometheusRule", "ScaledObject", "HTTPRoute"] {
        assert!(children.iter().all(|child| child.resource.kind != kind), "{kind}");
    }
    assert!(find(&children, "Service", "-metrics").is_none(), "nobody asks it");
}

#[test]
fn a_node_can_always_be_drained() {
    let children = built(MINIMAL, &[]);
    for (part, wanted) in [("-ingest", json!(1)), ("-worker", json!("25%")), ("-dashboard", json!(1))] {
        let budget = spec(&children, "PodDisruptionBudget", part);
        assert_eq!((&budget["maxUnavailable"], budget.get("minAvailable")), (&wanted, None));
        assert_eq!(budget["selector"], spec(&children, "Deployment", part)["selector"]);
    }
}

#[test]
fn keda_is_told_where_to_ask() {
    let children = built(FULL, &[]);
    let scaled = spec(&children, "ScaledObject", "-worker");
    assert_eq!(scaled["scaleTargetRef"]["name"], "bluesky-worker");
    let trigger = &scaled["triggers"][0]["metadata"];
    assert_eq!(trigger["url"], "http://penstock.penstock.svc:8080/recommendation/firehose/bluesky");
    assert_eq!((&trigger["valueLocation"], &trigger["targetValue"]), (&json!("replicas"), &json!("1")));
    assert!(find(&built(MINIMAL, &[]), "ScaledObject", "-worker").is_none());
}

#[test]
fn the_selector_of_the_workers_is_that_of_their_deployment() {
    let children = built(MINIMAL, &[]);
    let selector = spec(&children, "Deployment", "-worker")["selector"]["matchLabels"].as_object().unwrap();
    let text: Vec<String> =
        selector.iter().map(|(name, value)| format!("{name}={}", value.as_str().unwrap())).collect();
    let mut told: Vec<String> = labels::pods_of("bluesky", Part::Worker).split(',').map(str::to_owned).collect();
    told.sort();
    assert_eq!(text, told);
}

#[test]
fn alerts_speak_of_metrics_that_there_are_and_say_what_to_do() {
    let children = built(FULL, &[]);
    let rules = spec(&children, "PrometheusRule", "bluesky")["groups"][0]["rules"].as_array().unwrap();
    assert!(rules.len() >= 10);
    let known: HashSet<&str> = Metric::ALL.iter().map(|metric| metric.definition().name).collect();
    for rule in rules {
        let expression = rule["expr"].as_str().unwrap();
        let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let metrics: Vec<&str> = words.filter(|word| word.starts_with("penstock_")).collect();
        assert!(!metrics.is_empty() && metrics.iter().all(|metric| known.contains(metric)), "{expression}");
        assert!(rule["annotations"]["description"].as_str().unwrap().len() > 40, "{}", rule["alert"]);
        assert!(!expression.contains("{{") && !expression.contains("}}"), "{expression}");
    }
}
