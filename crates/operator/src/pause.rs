//! The annotation with which a person stops the operator's hands.

use kube::api::ObjectMeta;

/// On a FirehosePipeline it stops the operator for the whole pipeline, on a child for that child.
pub(crate) const PAUSED: &str = "penstock.dev/paused";

/// Says whether an object is left as it is. Whatever the value, but for `false`.
pub(crate) fn is_paused(metadata: &ObjectMeta) -> bool {
    metadata.annotations.iter().flatten().any(|(name, value)| name == PAUSED && value != "false")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn every_value_pauses_but_false() {
        let annotated = |value: &str| ObjectMeta {
            annotations: Some(BTreeMap::from([(PAUSED.to_owned(), value.to_owned())])),
            ..ObjectMeta::default()
        };
        assert!(["true", "", "by Ann until Monday"].iter().all(|value| is_paused(&annotated(value))));
        assert!(!is_paused(&annotated("false")) && !is_paused(&ObjectMeta::default()));
    }
}
