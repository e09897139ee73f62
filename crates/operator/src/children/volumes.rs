//! The volumes of the pods: the settings, and for healers a place for repos that do not fit into memory.

use k8s_openapi::api::core::v1::{ConfigMapVolumeSource, EmptyDirVolumeSource, Volume, VolumeMount};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::names;
use crate::plan::{Part, Plan, REPOS_FOLDER, REPOS_VOLUME, SETTINGS_FOLDER, SETTINGS_VOLUME};

/// Builds the volumes of a part's pods.
pub(super) fn of(plan: &Plan, part: Part) -> Vec<Volume> {
    let settings = Volume {
        name: SETTINGS_VOLUME.to_owned(),
        config_map: Some(ConfigMapVolumeSource {
            name: names::settings(&plan.name),
            ..ConfigMapVolumeSource::default()
        }),
        ..Volume::default()
    };
    let size_limit = plan.spec.heal.storage.bytes().map(|bytes| Quantity(bytes.to_string()));
    let repos = Volume {
        name: REPOS_VOLUME.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource { size_limit, medium: None }),
        ..Volume::default()
    };
    std::iter::once(settings).chain((part == Part::Heal).then_some(repos)).collect()
}

/// Builds where they are mounted.
pub(super) fn mounts(part: Part) -> Vec<VolumeMount> {
    let mount = |name: &str, folder: &str, read_only| VolumeMount {
        name: name.to_owned(),
        mount_path: folder.to_owned(),
        read_only,
        ..VolumeMount::default()
    };
    let repos = (part == Part::Heal).then(|| mount(REPOS_VOLUME, REPOS_FOLDER, None));
    std::iter::once(mount(SETTINGS_VOLUME, SETTINGS_FOLDER, Some(true))).chain(repos).collect()
}
