//! Repos that are made, and hosts that serve them well or badly: for tests, of other crates too.

mod cbor;
mod made;
mod server;
mod taken;
mod world;

pub use cbor::dag_cbor;
pub use made::{Account, MadeBlocks, MadeRepo, car, car_of_blocks, cid_of, did, node, tree};
pub use server::{Asked, Pace, Reply, Server};
pub use taken::{Taken, take};
pub use world::World;
