//! The figures by name.

use meter::Options;

pub(crate) mod call;
pub(crate) mod dump;
pub(crate) mod family;
pub(crate) mod hand;
pub(crate) mod memory;
pub(crate) mod meter;
pub(crate) mod ours;
pub(crate) mod restart;
pub(crate) mod rollback;
pub(crate) mod routing;
pub(crate) mod store;
pub(crate) mod storm;
pub(crate) mod substitute;

/// A name, what it measures, and how.
pub(crate) type Figure = (&'static str, &'static str, fn(&Options));

pub(crate) const ALL: [Figure; 15] = [
    ("P1", "a call that succeeds", call::run),
    ("P2", "64 callers while 1 % of requests panic", storm::run),
    ("P3", "from a failure to serving again", restart::one),
    ("P4", "restarts a second, 64 children at once", restart::many),
    ("P5", "one_for_all over 10,000 children", family::run),
    ("P6", "memory of a child, awake and without work so far", memory::run),
    ("P7", "what routing adds to a call", routing::run),
    ("P8", "fail-over to a sibling", substitute::run),
    ("P9", "an in-memory checkpoint of 10 MB, and the way back", store::memory),
    ("P10", "a durable step of a 10 MB agent", store::step),
    ("P11", "durable steps a second over many agents", store::many),
    ("P12", "a 10 MB agent from its file", store::restore),
    ("P13", "the dump of a million children", dump::run),
    ("P14", "restart of a system of 10,000 agents", store::system),
    ("RB", "a rollback of each scope at 10,000 agents", rollback::run),
];
