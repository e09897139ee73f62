//! The ConfigMap with the settings: one file that every part reads at its start, and the lists of the filter, which are read again
//! whenever they change.

use k8s_openapi::api::core::v1::ConfigMap;

use super::child::{Child, Stage};
use super::{labels, names};
use crate::crd::Filter;
use crate::plan::{FILTER_FILES, Plan};

/// The name of the file.
pub(super) const FILE: &str = "settings.yaml";

pub(super) fn settings(plan: &Plan) -> Child {
    let map = ConfigMap {
        metadata: labels::meta(plan, names::settings(&plan.name), "settings"),
        data: Some(
            [(FILE.to_owned(), plan.settings_file.clone())]
                .into_iter()
                .chain(filter_files(plan.spec.filter.as_ref()))
                .collect(),
        ),
        ..ConfigMap::default()
    };
    Child::of(Stage::Before, &map)
}

fn filter_files(filter: Option<&Filter>) -> impl Iterator<Item = (String, String)> {
    FILTER_FILES.into_iter().filter_map(move |(setting, file)| {
        let filter = filter?;
        let (entries, without) = match setting {
            "collections" => (&filter.collections, "*\n"),
            "repos" => (&filter.repos, "*\n"),
            _ => (&filter.exclude_repos, "# none\n"),
        };
        let lines: String = entries.iter().map(|entry| format!("{entry}\n")).collect();
        Some((file.to_owned(), if lines.is_empty() { without.to_owned() } else { lines }))
    })
}
