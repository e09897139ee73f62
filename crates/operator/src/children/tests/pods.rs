//! What a platform, a mesh or a gateway wants of pods, of the Job and of the route.

use super::*;

#[test]
fn no_pod_asks_for_a_user_of_its_own() {
    // OpenShift refuses a user that is none of the namespace's, and where none is asked for it gives one.
    for (name, template) in templates(&built(MINIMAL, &[])) {
        let context = template["spec"]["securityContext"].as_object().unwrap();
        let keys: Vec<&str> = context.keys().map(String::as_str).collect();
        assert_eq!(keys, ["runAsNonRoot", "seccompProfile"], "{name}");
    }
}

#[test]
fn a_written_security_context_replaces_ours_key_by_key() {
    let pod =
        json!({"runAsUser": 1_000_650_000, "seccompProfile": {"type": "Localhost", "localhostProfile": "p.json"}});
    let container = json!({"readOnlyRootFilesystem": false});
    for (part, ends) in
        [("ingest", ["-ingest"].as_slice()), ("workers", &["-worker", "migrate"]), ("dashboard", &["-dashboard"])]
    {
        let children = built(
            MINIMAL,
            &[
                (&format!("{part}.pod.securityContext"), pod.clone()),
                (&format!("{part}.pod.containerSecurityContext"), container.clone()),
            ],
        );
        for (name, template) in templates(&children) {
            let spec = &template["spec"];
            let (pods, containers) = (&spec["securityContext"], &spec["containers"][0]["securityContext"]);
            let is_written = ends.iter().any(|end| name.contains(end));
            assert_eq!(pods["runAsUser"] == 1_000_650_000, is_written, "{name}");
            assert_eq!(pods["seccompProfile"].get("localhostProfile").is_some(), is_written, "{name}");
            assert_eq!(containers["readOnlyRootFilesystem"], !is_written, "{name}");
            assert_eq!((&pods["runAsNonRoot"], &containers["capabilities"]), (&json!(true), &json!({"drop": ["ALL"]})));
        }
    }
}

#[test]
fn the_job_has_labels_and_annotations_that_nothing_else_has() {
    let changes = [
        ("workers.pod.annotations", json!({"mesh/inject": "true", "who": "workers"})),
        ("workers.pod.labels", json!({"mesh": "yes"})),
        ("postgres.migrationJob.annotations", json!({"job": "yes"})),
        ("postgres.migrationJob.podAnnotations", json!({"mesh/inject": "false"})),
        ("postgres.migrationJob.podLabels", json!({"mesh": "no", "app.kubernetes.io/component": "other"})),
    ];
    let children = built(MINIMAL, &changes);
    for (name, template) in templates(&children) {
        let is_job = name.contains("migrate");
        let meta = &template["metadata"];
        let inject = meta["annotations"].get("mesh/inject");
        let (wanted, mesh) = match (is_job, name.ends_with("-worker")) {
            (true, _) => (Some(json!("false")), json!("no")),
            (_, true) => (Some(json!("true")), json!("yes")),
            _ => (None, Value::Null),
        };
        assert_eq!((inject.cloned(), &meta["labels"]["mesh"]), (wanted, &mesh), "{name}");
        assert_ne!(meta["labels"]["app.kubernetes.io/component"], "other", "{name}");
    }
    let annotated: Vec<&str> = children
        .iter()
        .filter(|child| child.object.metadata.annotations.is_some())
        .map(|of| of.resource.kind.as_str())
        .collect();
    assert_eq!(annotated, ["Job"]);
    let before = built(MINIMAL, &changes[..2]);
    let name = |children: &[Child]| {
        children.iter().find(|child| child.resource.kind == "Job").map(|job| job.name().to_owned()).unwrap()
    };
    assert_ne!(name(&before), name(&children), "its pods are others, and a job's cannot be changed");
    assert_eq!(name(&built(MINIMAL, &changes[..2])), name(&built(MINIMAL, &changes[..3])), "its own annotations can");
}

#[test]
fn a_route_has_timeouts_only_where_asked() {
    for (written, wanted) in [(json!(null), None), (json!("0s"), Some(json!({"request": "0s"})))] {
        let children = built(FULL, &[("dashboard.httpRoute.requestTimeout", written)]);
        assert_eq!(spec(&children, "HTTPRoute", "-dashboard")["rules"][0].get("timeouts").cloned(), wanted);
    }
}
