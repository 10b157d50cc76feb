//! OTP-grade supervision for AI agents, on `ractor`.
//!
//! Every agent, tool and model endpoint is a child in a supervision tree. A failure is retried, handed
//! to a sibling, rolled back or escalated, in that order; restart strategies are how retries are made,
//! and siblings are how a fallback is.
//!
//! In `src/lib.rs` the modules stand in the order they should be read, which is also the order of dependency: a
//! module uses only those above it. To use the crate, start with [`behavior`] (your code), [`spec`]
//! (the tree) and [`system`] (running it); to know what it promises, with
//! [`documentation::semantics`]; to change it, with [`documentation::architecture`] and then
//! [`policy`], the page that decides. Ready-made agents, tools and model endpoints are in the crate
//! `mainstay-actors`.

// Words: plain data.
pub mod id;
pub mod moment;
pub mod fault;
pub mod decision;
pub mod fate;
pub mod error;
mod text;

// Core: judgement and machines, pure.
pub mod policy;
pub mod circuit;
pub mod mailbox;
pub mod lifecycle;
pub mod family;
pub mod ledger;

// Contracts: what others implement.
pub mod clock;
pub mod checkpoint;
pub mod watch;
pub mod event;
#[doc(hidden)]
pub mod mirror;
pub mod port;
pub mod behavior;
pub mod spec;
pub mod points;
mod effects;
pub mod journal;
pub mod quarantine;
mod hub;

// Shell: the only rooms that know ractor.
mod slot;
mod incarnation;
mod group;
mod recipe;
mod supervisor;
pub mod system;

// Windows: looking in, never touching.
pub mod tree;

// Pages: what is read beside the code.
pub mod documentation;

// The README's program is compiled and run with the documentation's tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
