//! Whom PostgreSQL runs as: it refuses root.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid, User, geteuid};

use crate::LocalError;

/// A user other than the one that we run as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    name: String,
}

impl Identity {
    /// Returns whom a PostgreSQL in `data` runs as, or `None` when that is ourselves.
    ///
    /// As root: the owner of the data if there is some, else the user `postgres`, else `nobody`.
    pub(crate) fn for_postgres(data: &Path) -> Result<Option<Self>, LocalError> {
        if !geteuid().is_root() {
            return Ok(None);
        }
        if let Ok(owned) = fs::metadata(data)
            && owned.uid() != 0
        {
            let user = User::from_uid(Uid::from_raw(owned.uid())).ok().flatten();
            let name = user.map_or_else(|| owned.uid().to_string(), |user| user.name);
            return Ok(Some(Self { uid: owned.uid(), gid: owned.gid(), name }));
        }
        let user = ["postgres", "nobody"].iter().find_map(|name| User::from_name(name).ok().flatten());
        let User { uid, gid, name, .. } = user.ok_or(LocalError::FindUser)?;
        Ok(Some(Self { uid: Uid::as_raw(uid), gid: Gid::as_raw(gid), name }))
    }

    /// Gives `path` to the user.
    pub(crate) fn own(&self, path: &Path) -> Result<(), LocalError> {
        std::os::unix::fs::chown(path, Some(self.uid), Some(self.gid)).map_err(LocalError::prepare(path))
    }

    /// Checks that the user may enter every folder on the way to `folder`, and it.
    pub(crate) fn check_reach(&self, folder: &Path) -> Result<(), LocalError> {
        let folder = folder.canonicalize().map_err(LocalError::prepare(folder))?;
        let mut way: Vec<&Path> = folder.ancestors().collect();
        way.reverse();
        match way.into_iter().find(|step| !self.may_enter(step)) {
            Some(closed) => Err(LocalError::ReachFolder { user: self.name.clone(), closed: PathBuf::from(closed) }),
            None => Ok(()),
        }
    }

    fn may_enter(&self, folder: &Path) -> bool {
        let Ok(folder) = fs::metadata(folder) else { return false };
        let search = match () {
            () if folder.uid() == self.uid => 0o100,
            () if folder.gid() == self.gid => 0o010,
            () => 0o001,
        };
        folder.permissions().mode() & search != 0
    }
}
