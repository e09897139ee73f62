//! Two whole pipelines and their children. `UPDATE_GOLDEN=1 cargo test -p penstock-operator golden` writes them anew.

use super::*;

fn compare(name: &str, yaml: &str) {
    let path = format!("{}/src/children/testdata/{name}.children.yaml", env!("CARGO_MANIFEST_DIR"));
    let objects: Vec<String> =
        built(yaml, &[]).iter().map(|child| serde_saphyr::to_string(&child.object).unwrap()).collect();
    // What a release changes by itself is no difference.
    let version = concat!("app.kubernetes.io/version: ", env!("CARGO_PKG_VERSION"));
    let made = objects.join("---\n").replace(version, "app.kubernetes.io/version: VERSION");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let wanted = std::fs::read_to_string(&path).unwrap_or_default();
    let line = made.lines().zip(wanted.lines()).position(|(made, wanted)| made != wanted);
    assert!(
        made == wanted,
        "{path} differs at line {:?}: UPDATE_GOLDEN=1 writes it anew, git diff shows how",
        line.map(|at| at + 1)
    );
}

#[test]
fn the_golden_minimal_pipeline_is_built() {
    compare("minimal", MINIMAL);
}

#[test]
fn the_golden_full_pipeline_is_built() {
    compare("full", FULL);
}
