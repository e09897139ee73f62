//! What was applied last of each object, so that nothing is applied twice.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::index::{ObjectKey, Owned};

/// What was applied last, by object.
#[derive(Default)]
pub(crate) struct Applied {
    marks: Mutex<HashMap<ObjectKey, Mark>>,
}

/// What was asked for, and what stood there after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) asked: u64,
    pub(crate) version: u64,
}

// === impl Applied ===

impl Applied {
    pub(crate) fn get(&self, key: &ObjectKey) -> Option<Mark> {
        self.marks().get(key).copied()
    }

    pub(crate) fn set(&self, key: ObjectKey, mark: Mark) {
        self.marks().insert(key, mark);
    }

    pub(crate) fn remove(&self, key: &ObjectKey) {
        self.marks().remove(key);
    }

    /// Forgets what belongs to a pipeline that is gone.
    pub(crate) fn forget(&self, keys: &[(ObjectKey, Owned)]) {
        let mut marks = self.marks();
        for (key, _) in keys {
            marks.remove(key);
        }
    }

    /// Forgets what no longer exists.
    pub(crate) fn retain(&self, exists: impl Fn(&ObjectKey) -> bool) {
        self.marks().retain(|key, _| exists(key));
    }

    fn marks(&self) -> MutexGuard<'_, HashMap<ObjectKey, Mark>> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_longer_exists_is_forgotten() {
        let key = |name: &str| ObjectKey {
            group: String::new(),
            kind: "Service".to_owned(),
            namespace: "ns".to_owned(),
            name: name.to_owned(),
        };
        let applied = Applied::default();
        for name in ["a", "b", "c"] {
            applied.set(key(name), Mark { asked: 1, version: 1 });
        }
        applied.remove(&key("a"));
        applied.retain(|key| key.name == "c");
        assert_eq!(["a", "b", "c"].map(|name| applied.get(&key(name)).is_some()), [false, false, true]);
    }
}
