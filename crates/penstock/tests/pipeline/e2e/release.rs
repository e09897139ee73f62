//! A pipeline as part of somebody's chart: Helm waits for it by its status, and a database that hesitates fails no release.

use std::fs;
use std::path::Path;
use std::time::Duration;

use penstock_local::testing::TempFolder;
use tokio::time::sleep;

use super::stage::Stage;

/// How long PostgreSQL is paused: longer than workers may settle nothing without that being told.
const PAUSED: Duration = Duration::from_secs(25);

/// The chart that has the pipeline, and its release.
struct Release<'a> {
    stage: &'a Stage,
    chart: TempFolder,
}

// === impl Release ===

impl<'a> Release<'a> {
    fn new(stage: &'a Stage, pipeline: &str) -> Self {
        let chart = TempFolder::new().unwrap();
        let write = |path: &str, text: &str| {
            let path = chart.path().join(path);
            fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).unwrap();
            fs::write(path, text).unwrap();
        };
        write("Chart.yaml", "apiVersion: v2\nname: flow\nversion: 0.1.0\n");
        write("values.yaml", "batchSize: 700\n");
        write(
            "templates/pipeline.yaml",
            &pipeline.replace("  workers:\n", "  workers:\n    batchSize: {{ .Values.batchSize }}\n"),
        );
        Self { stage, chart }
    }

    async fn helm(&self, line: &str) -> String {
        let chart = self.chart.path().display().to_string();
        self.stage.cluster.helm_of_pipelines(&line.replace("CHART", &chart)).await
    }

    async fn batch_size(&self) -> String {
        self.stage.cluster.kubectl("get fhp bluesky --output=jsonpath={.spec.workers.batchSize}").await
    }
}

/// Installs, upgrades while PostgreSQL is paused, rolls back and uninstalls, each with `--wait`.
pub(super) async fn a_release_waits_for_its_pipeline(stage: &Stage) {
    // Events flow all the while, so that workers have something to settle, and cannot.
    let relay = stage.relay().await;
    let release = Release::new(stage, &stage.pipeline(&relay.url, "Retain").replace("start: oldest", "start: live"));
    release.helm("install flow CHART").await;
    stage.cluster.keep("10-released").await;
    assert!(stage.cluster.is_ready_now().await, "helm waits until the pipeline is ready");

    let upgrade = async {
        release.helm("upgrade flow CHART --set batchSize=800").await;
    };
    let pause = async {
        stage.pause_postgres();
        sleep(PAUSED).await;
        stage.cluster.keep("11-postgresql-paused").await;
        stage.resume_postgres();
    };
    tokio::join!(upgrade, pause);
    stage.cluster.is_ready().await;
    assert_eq!(release.batch_size().await, "800");
    println!("e2e: an upgrade while PostgreSQL is paused for {} s is no failure", PAUSED.as_secs());

    release.helm("rollback flow 1").await;
    stage.cluster.is_ready().await;
    assert_eq!(release.batch_size().await, "700");
    release.helm("uninstall flow").await;
    stage.cluster.until("all children are gone", async || stage.cluster.children().await.is_empty()).await;
    stage.cluster.keep("12-released-no-more").await;
}
