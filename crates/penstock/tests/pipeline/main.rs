//! The real binary between a relay, a Redis and a PostgreSQL, held against a model of what must come of the events.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test's helpers fail the test")]

mod admin;
mod audit;
mod backpressure;
mod crashes;
mod dialects;
mod doctor;
mod e2e;
mod faults;
mod frames;
mod full_redis;
mod handover;
mod http;
mod identity;
mod lookup;
mod loud;
mod memory;
mod messages;
mod model;
mod outages;
mod pds;
mod redis_kinds;
mod restricted;
mod rig;
mod run;
mod schema_tool;
mod servers;
mod service;
mod shutdown;
mod tls;
mod traces;
mod two_ingests;
mod whole;
