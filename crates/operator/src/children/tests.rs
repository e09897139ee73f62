//! What is claimed of the children; [`golden`] holds two whole pipelines, [`every_field`] asks of each field whether it changes something,
//! [`pods`] has what people write of pods and routes.

mod every_field;
mod golden;
mod pods;

use std::collections::{BTreeSet, HashSet};

use penstock_telemetry::metrics::Metric;
use serde_json::{Value, json};

use super::*;
use crate::fixture::{FULL, MINIMAL, PASSWORD, known, pipeline, planned};
use crate::plan::{Apis, Dereferenced, Part, Plan};

fn built(yaml: &str, changes: &[(&str, Value)]) -> Vec<Child> {
    build(&planned(yaml, changes).unwrap())
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
fn who_writes_the_tables_waits_for_them_and_nothing_else_does() {
    let children = built(FULL, &[]);
    let after = children.iter().filter(|child| child.stage == Stage::After);
    let after: Vec<_> = after.map(|child| (child.resource.kind.as_str(), child.component().unwrap())).collect();
    assert_eq!(after, [("Deployment", "worker"), ("Deployment", "heal"), ("ScaledObject", "worker")]);
    let job = children.iter().position(|child| child.resource.kind == "Job").unwrap();
    assert!(children[..=job].iter().all(|child| child.stage == Stage::Before));
}

#[test]
fn what_is_suspended_has_no_pod_and_starts_none() {
    let suspended = pipeline(FULL, &[("suspend", json!(true))]);
    let known = Dereferenced { workers_exist: false, ..known(&suspended) };
    let children = build(&Plan::new(&suspended, &known).unwrap());
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
    for (yaml, count) in [(MINIMAL, 4), (FULL, 5)] {
        let children = built(yaml, &[]);
        assert_eq!(templates(&children).count(), count);
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
fn there_are_healers_while_the_pipeline_or_a_backfill_asks_for_them() {
    let count = |changes: &[(&str, Value)], backfills| {
        let pipeline = pipeline(MINIMAL, changes);
        let known = Dereferenced { backfills, ..known(&pipeline) };
        let children = build(&Plan::new(&pipeline, &known).unwrap());
        children.iter().filter(|child| child.component() == Some("heal")).count()
    };
    assert_eq!(count(&[], false), 0);
    // ServiceAccount, NetworkPolicy, PodDisruptionBudget, Service, Deployment.
    assert_eq!((count(&[], true), count(&[("heal.enabled", json!(true))], false)), (5, 5));
}

#[test]
fn the_number_of_healers_is_applied_only_where_there_are_to_be_none() {
    let replicas = |suspend: bool| {
        let children = built(MINIMAL, &[("heal", json!({ "enabled": true })), ("suspend", json!(suspend))]);
        spec(&children, "Deployment", "-heal").get("replicas").cloned()
    };
    assert_eq!((replicas(false), replicas(true)), (None, Some(json!(0))));
}

#[test]
fn a_healer_has_a_folder_for_repos_and_knows_the_operators_token_by_its_hash_alone() {
    let children = built(MINIMAL, &[("heal", json!({ "enabled": true, "storage": "2Gi" }))]);
    let pod = &spec(&children, "Deployment", "-heal")["template"]["spec"];
    let repos = json!({ "name": "repos", "emptyDir": { "sizeLimit": "2147483648" } });
    assert!(pod["volumes"].as_array().unwrap().contains(&repos), "{}", pod["volumes"]);
    let mount = json!({ "name": "repos", "mountPath": "/var/cache/penstock" });
    assert!(pod["containers"][0]["volumeMounts"].as_array().unwrap().contains(&mount));
    let settings = children.iter().find(|child| child.resource.kind == "ConfigMap").unwrap();
    let file = settings.object.data["data"]["settings.yaml"].as_str().unwrap();
    assert!(file.contains("folder: /var/cache/penstock"), "{file}");
    let hash =
        environment(&children, "-heal").iter().find(|one| one["name"] == "PENSTOCK_HEAL_ADMIN_TOKEN_HASH").unwrap();
    assert_eq!(hash["value"].as_str().unwrap().len(), 64);
    let pipeline = pipeline(MINIMAL, &[]);
    let token = known(&pipeline).hash_key.heal_token(pipeline.metadata.uid.as_deref().unwrap());
    assert!(!children.iter().any(|child| child.object.data.to_string().contains(&token)), "the token itself");
    for part in ["-ingest", "-worker", "-dashboard"] {
        assert!(!environment(&children, part).contains(hash), "{part}");
    }
}

#[test]
fn a_secret_of_healers_is_missed_only_where_there_are_any() {
    let variable = json!([{"name": "A", "valueFrom": {"secretKeyRef": {"name": "a", "key": "k"}}}]);
    let pipeline = pipeline(MINIMAL, &[("heal.pod.extraEnv", variable)]);
    let mut known = known(&pipeline);
    known.secrets.insert(&crate::crd::SecretKey { name: "a".into(), key: "k".into() }, "");
    assert!(Plan::new(&pipeline, &known).is_ok());
    let error = Plan::new(&pipeline, &Dereferenced { backfills: true, ..known }).unwrap_err().to_string();
    assert!(error.contains("heal.pod.extraEnv A"), "{error}");
}

#[test]
fn a_part_runs_its_command_with_the_settings_and_is_probed_where_it_listens() {
    let address = json!([{"name": "ADMIN_ADDRESS", "value": "0.0.0.0:9000"}]);
    let children = built(MINIMAL, &[("ingest.pod.extraEnv", address), ("heal", json!({ "enabled": true }))]);
    for (end, port) in [("-ingest", 9000), ("-worker", 9464), ("-dashboard", 9464), ("-heal", 9464)] {
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
fn the_address_beside_a_pooler_is_the_migrations_alone() {
    let direct = json!({"name": "postgres", "key": "direct"});
    let children = built(MINIMAL, &[("postgres.directUrlSecret", direct.clone())]);
    let variable = json!({"name": "DATABASE_DIRECT_URL", "valueFrom": {"secretKeyRef": direct}});
    let job = &children.iter().find(|child| child.resource.kind == "Job").unwrap().object.data;
    let environment_of_job = job["spec"]["template"]["spec"]["containers"][0]["env"].as_array().unwrap();
    assert!(environment_of_job.contains(&variable), "{environment_of_job:?}");
    assert!(["-ingest", "-worker", "-dashboard"].iter().all(|part| !environment(&children, part).contains(&variable)));
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
fn a_password_that_changes_is_read_by_all_that_use_the_database() {
    for (field, value) in [
        ("postgres.passwordFile", json!("/run/secrets/database/password")),
        ("postgres.passwordCommand", json!("/usr/bin/token --user penstock")),
    ] {
        let changes = [
            ("postgres.url", json!("postgres://penstock@a,b:5433/appview?target_session_attrs=read-write")),
            ("postgres.urlSecret", json!(null)),
            (field, value.clone()),
        ];
        let before = built(MINIMAL, &changes[..2]);
        let after = built(MINIMAL, &changes);
        let file = after[0].object.data["data"]["settings.yaml"].as_str().unwrap();
        assert!(file.contains(value.as_str().unwrap()), "{file}");
        for part in ["-ingest", "-worker", "-dashboard"] {
            let hash = |children| hash_of(children, "Deployment", part, "settings").clone();
            assert_ne!(hash(&before), hash(&after), "{field} {part}");
        }
        let job =
            |children: &[Child]| children.iter().find(|child| child.resource.kind == "Job").unwrap().name().to_owned();
        assert_ne!(job(&before), job(&after), "{field}");
    }
}

#[test]
fn caches_come_on_top_of_the_memory_that_a_part_gets() {
    let identity = ("identity.enabled", json!(true));
    let off = ("verify.mode", json!("off"));
    for (changes, ingest, worker) in [
        (vec![], ("192Mi", "320Mi"), ("128Mi", "512Mi")),
        (vec![off.clone()], ("128Mi", "256Mi"), ("128Mi", "512Mi")),
        (vec![identity.clone()], ("224Mi", "352Mi"), ("160Mi", "544Mi")),
        (vec![off, identity], ("160Mi", "288Mi"), ("160Mi", "544Mi")),
        (vec![("verify.memory", json!("1Gi"))], ("1152Mi", "1280Mi"), ("128Mi", "512Mi")),
        (vec![("verify.memory", json!("100Ki"))], ("129Mi", "257Mi"), ("128Mi", "512Mi")),
        // A variable goes before the resource.
        (
            vec![("ingest.pod.extraEnv", json!([{"name": "PENSTOCK_VERIFY_MEMORY", "value": "1048576"}]))],
            ("129Mi", "257Mi"),
            ("128Mi", "512Mi"),
        ),
    ] {
        let children = built(MINIMAL, &changes);
        for (part, (requested, limit)) in [("-ingest", ingest), ("-worker", worker)] {
            let resources = &spec(&children, "Deployment", part)["template"]["spec"]["containers"][0]["resources"];
            let memory = (&resources["requests"]["memory"], &resources["limits"]["memory"]);
            assert_eq!(memory, (&json!(requested), &json!(limit)), "{changes:?} {part}");
        }
    }
    let own = json!({"limits": {"memory": "300Mi"}});
    let children = built(MINIMAL, &[("ingest.pod.resources", own.clone())]);
    let given = &spec(&children, "Deployment", "-ingest")["template"]["spec"]["containers"][0]["resources"];
    assert_eq!(*given, own, "what a person wrote is taken as it is");
}

#[test]
fn a_changed_setting_rolls_the_parts_that_read_it_and_no_other() {
    let before = built(MINIMAL, &[]);
    for (field, value, rolled) in [
        ("workers.batchSize", json!(7), ["-worker"].as_slice()),
        ("relay.dataTimeout", json!("7s"), &["-ingest"]),
        ("workers.deleteGrace", json!("0s"), &["-worker"]),
        ("workers.recordCids", json!(true), &["-worker"]),
        ("verify.memory", json!("1Mi"), &["-ingest"]),
        ("identity.rate", json!(7), &["-ingest", "-worker", "-dashboard"]),
        ("dashboard.allowedOrigins", json!(["https://a"]), &["-dashboard"]),
        ("dashboard.trustedProxies", json!(["10.0.0.0/8"]), &["-dashboard"]),
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
    let before = build(&Plan::new(&written, &known(&written)).unwrap());
    let auth = &written.spec.dashboard.auth;
    let tls = written.spec.redis.tls.clone().unwrap();
    for (secret, text, rolled) in [
        (written.spec.redis.url_secret.as_ref(), "rediss://other", ["-ingest", "-worker", "-dashboard"].as_slice()),
        (tls.cert_secret.as_ref(), "other certificate", &["-ingest", "-worker", "-dashboard"]),
        (auth.admin_token_secret.as_ref(), "other", &["-dashboard"]),
        (written.spec.telemetry.otlp.headers_secret.as_ref(), "key=other", &["-ingest", "-worker", "-dashboard"]),
    ] {
        let mut known = known(&written);
        known.secrets.insert(secret.unwrap(), text);
        let after = build(&Plan::new(&written, &known).unwrap());
        for part in ["-ingest", "-worker", "-dashboard"] {
            let hash = |children| hash_of(children, "Deployment", part, "secrets").clone();
            assert_eq!(hash(&before) != hash(&after), rolled.contains(&part), "{text} {part}");
        }
    }
}

#[test]
fn the_tables_are_made_anew_for_another_schema_image_or_database_only() {
    let name = |written: &crate::crd::FirehosePipeline, known: &Dereferenced| {
        migration_job(&Plan::new(written, known).unwrap()).unwrap().name().to_owned()
    };
    let written = pipeline(MINIMAL, &[]);
    let known_now = known(&written);
    let now = name(&written, &known_now);
    assert!(now.starts_with("bluesky-migrate-") && now.len() == "bluesky-migrate-".len() + 8, "{now}");
    assert_ne!(now, name(&written, &Dereferenced { schema: "other".to_owned(), ..known_now.clone() }));
    assert_ne!(now, name(&written, &Dereferenced { default_image: "other".to_owned(), ..known_now.clone() }));
    let mut elsewhere = known_now.clone();
    elsewhere.secrets.insert(written.spec.postgres.url_secret.as_ref().unwrap(), "postgres://other/db");
    assert_ne!(now, name(&written, &elsewhere));
    let changes =
        [("telemetry.logLevel", json!("debug")), ("workers.batchSize", json!(7)), ("relay.start", json!("oldest"))];
    let changed = pipeline(MINIMAL, &changes);
    assert_eq!(now, name(&changed, &known(&changed)));
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
fn the_ways_from_outside_lead_to_the_base_path_unless_the_ingress_has_a_path_of_its_own() {
    let paths = |changes: &[(&str, Value)]| {
        let children = built(FULL, changes);
        let ingress = &spec(&children, "Ingress", "-dashboard")["rules"][0]["http"]["paths"][0]["path"];
        let route = &spec(&children, "HTTPRoute", "-dashboard")["rules"][0]["matches"][0]["path"]["value"];
        [ingress, route].map(|path| path.as_str().unwrap().to_owned())
    };
    let set = |base: &str, ingress: &str| {
        paths(&[("dashboard.basePath", json!(base)), ("dashboard.ingress.path", json!(ingress))])
    };
    assert_eq!(set("/", "/"), ["/", "/"]);
    assert_eq!(set("/firehose", "/"), ["/firehose", "/firehose"]);
    assert_eq!(set("/firehose", "/x(/|$)(.*)"), ["/x(/|$)(.*)", "/firehose"]);
    assert_eq!(set("/", "/x"), ["/x", "/"]);
}

#[test]
fn the_longest_name_still_fits() {
    let mut written = pipeline(FULL, &[]);
    written.metadata.name = Some(format!("{}-b", "a".repeat(48)));
    for child in build(&Plan::new(&written, &known(&written)).unwrap()) {
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
    let known = Dereferenced { api: Apis::default(), ..known(&written) };
    let children = build(&Plan::new(&written, &known).unwrap());
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
fn a_filter_is_read_from_files_that_change_without_a_restart() {
    let with = |filter: Value| built(MINIMAL, &[("filter", filter)]);
    let config = |children: &[Child]| {
        let map = children.iter().find(|child| child.resource.kind == "ConfigMap").unwrap();
        map.object.data["data"].clone()
    };
    let likes =
        with(json!({"collections": ["app.bsky.*", "!app.bsky.feed.like"], "excludeRepos": ["did:web:a.example"]}));
    let data = config(&likes);
    assert_eq!(data["filter-collections"], "app.bsky.*\n!app.bsky.feed.like\n");
    assert_eq!(data["filter-repos"], "*\n", "those of every repo");
    assert_eq!(data["filter-exclude-repos"], "did:web:a.example\n");
    assert!(data["settings.yaml"].as_str().unwrap().contains("@/etc/penstock/filter-collections"));
    let posts = with(json!({"collections": ["app.bsky.feed.post"]}));
    assert_ne!(config(&posts), data);
    let pods = |children: &[Child]| -> Vec<Value> {
        children.iter().filter_map(|child| child.object.data.pointer("/spec/template").cloned()).collect()
    };
    assert_eq!(pods(&likes), pods(&posts), "no pod is replaced");
    let without = built(MINIMAL, &[]);
    assert!(config(&without).get("filter-repos").is_none());
    for (filter, field, said) in [
        (json!({"collections": ["app.bsky"]}), "filter.collections", "rule \"app.bsky\""),
        (json!({"repos": ["alice.example"]}), "filter.repos", "\"alice.example\" is no DID"),
        (json!({"excludeRepos": ["@/etc/passwd"]}), "filter.excludeRepos", "is no DID"),
    ] {
        let error = planned(MINIMAL, &[("filter", filter)]).unwrap_err().to_string();
        assert!(error.contains(field) && error.contains(said), "{error}");
    }
}

#[test]
fn what_is_not_verified_has_no_alert() {
    let verified = ["PenstockVerificationFailing", "PenstockReposDesynchronized", "PenstockIdentityUnresolved"];
    let on = ("telemetry.prometheusRule", json!({"enabled": true}));
    for (changes, expected) in [
        (vec![on.clone()], &verified[..2]),
        (vec![on.clone(), ("verify.mode", json!("off"))], &[]),
        (vec![on, ("identity.enabled", json!(true))], &verified[..]),
    ] {
        let children = built(MINIMAL, &changes);
        let rules = spec(&children, "PrometheusRule", "bluesky")["groups"][0]["rules"].as_array().unwrap();
        let named: Vec<&str> = rules.iter().map(|rule| rule["alert"].as_str().unwrap()).collect();
        let told: Vec<&str> = named.into_iter().filter(|name| verified.contains(name)).collect();
        assert_eq!(told, expected, "{changes:?}");
    }
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
