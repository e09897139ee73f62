//! The ConfigMap with the settings: one file that every part reads at its start.

use k8s_openapi::api::core::v1::ConfigMap;

use super::child::{Child, Stage};
use super::{labels, names};
use crate::plan::Plan;

/// The name of the file.
pub(super) const FILE: &str = "settings.yaml";

pub(super) fn settings(plan: &Plan) -> Child {
    let map = ConfigMap {
        metadata: labels::meta(plan, names::settings(&plan.name), "settings"),
        data: Some([(FILE.to_owned(), plan.settings_file.clone())].into()),
        ..ConfigMap::default()
    };
    Child::of(Stage::Before, &map)
}
