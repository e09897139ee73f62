//! The pipeline on the real servers of the AT Protocol, as npm has them: personal data servers and a directory of did:plc
//! (`scripts/pds.sh`). A line says so where they cannot be had, and the tests do nothing then.

mod accounts;
mod directory;
mod handles;
mod healing;
mod records;
mod session;
mod stage;
mod suite;
mod world;
