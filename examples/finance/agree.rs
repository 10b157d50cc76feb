//! Whether the database has what the store says was done, found out before anybody acts.
//!
//! *Invariant.* The runtime says that something was done only once the database has it. So a database that lacks
//! what the store says is older. That cannot be mended here: what is confirmed is never done again. A store
//! that is older than its database has fewer commits than that was written after, see [`Bank::check`].

use std::collections::HashMap;

use mainstay::fate::Fate;
use mainstay::journal::Journaled;
use mainstay::system::System;
use serde::Deserialize;

use crate::audit::{Books, State};
use crate::bank::{Bank, Leg, Message};
use crate::plan::Plan;
use crate::teller::Done;
use crate::work::{key, transfer_of};

/// So many transfers are named, the others are counted.
const NAMED: usize = 3;

/// What the store says of one side of a transfer, or of its notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Stands,
    Undone,
    /// Nobody knows, or not yet.
    Unclear,
}

/// What an act was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum About {
    Side {
        is_credit: bool,
    },
    /// That it is done, or undone.
    Notice {
        done: bool,
    },
}

/// What was asked of a tool.
#[derive(Deserialize)]
#[serde(untagged)]
enum Act {
    Post(Leg),
    Notify(Message),
}

/// Fails with what the store says and the database does not have. Nobody may act before it has succeeded.
pub(crate) fn agree(system: &System, bank: &Bank, plan: &Plan) -> Result<(), String> {
    let books = Books::read(bank).map_err(|refused| refused.to_string())?;
    let acts = acts(system);
    let mut lacks = Vec::new();
    for id in 0..plan.transfers {
        let found = || found(&books, plan, id);
        match system.journaled(&key(id)) {
            Some(Journaled::Fated(Fate::Done | Fate::Unheard, reply)) => {
                let done: Option<Done> = reply.and_then(|text| serde_json::from_str(&text).ok());
                let moved = done.map(|done| done.moved);
                if !is_whole(&books, plan, id, moved) {
                    let ended = match moved {
                        Some(true) => "done",
                        Some(false) => "undone",
                        None => "done or undone",
                    };
                    lacks.push(format!("transfer {id} is {ended} in the store, and {}", found()));
                }
            }
            _ => {
                let said = acts.get(&id).into_iter().flatten();
                let mut wrong =
                    said.filter_map(|(about, said)| differs(&books, plan, id, *about, *said));
                if let Some(what) = wrong.next() {
                    lacks.push(format!("transfer {id}: {what} in the store, and {}", found()));
                }
            }
        }
    }
    if lacks.is_empty() {
        return Ok(());
    }
    let named = lacks[..lacks.len().min(NAMED)].join("; ");
    let others = match lacks.len().saturating_sub(NAMED) {
        0 => String::new(),
        others => format!("; and {others} more"),
    };
    Err(format!(
        "the database is older than the store: {named}{others}. Nothing was done. Restore \"bank.redb\" from a \
         copy of the moment of the store, or both from copies of one moment, or begin with another --store"
    ))
}

/// What the ledger knows of the acts of each transfer.
fn acts(system: &System) -> HashMap<u32, HashMap<About, Said>> {
    let effects = system.effects();
    let mut acts: HashMap<u32, HashMap<About, Said>> = HashMap::new();
    for effect in effects.list() {
        // What takes an act back is no act of the transfer.
        if !["debit", "credit", "notify"].iter().any(|tool| effect.tool.as_str().ends_with(tool)) {
            continue;
        }
        let act = effects.request(effect.key).and_then(|text| serde_json::from_str(&text).ok());
        let (Some(id), Some(act)) = (transfer_of(&effect.task), act) else { continue };
        let about = match act {
            Act::Post(leg) => About::Side { is_credit: leg.amount > 0 },
            Act::Notify(message) => About::Notice { done: message.notice.done },
        };
        let said = match effect.status {
            "confirmed" | "left" => Said::Stands,
            "compensated" => Said::Undone,
            // What was refused did not happen, and nobody says that it was taken back.
            "rejected" | "failed" => continue,
            _ => Said::Unclear,
        };
        // A side that was undone may be asked for again later, under another key.
        acts.entry(id)
            .or_default()
            .entry(about)
            .and_modify(|known| {
                *known = match (*known, said) {
                    (Said::Unclear, _) | (_, Said::Unclear) => Said::Unclear,
                    (Said::Undone, Said::Undone) => Said::Undone,
                    _ => Said::Stands,
                }
            })
            .or_insert(said);
    }
    acts
}

/// What the store says that the database does not have.
fn differs(books: &Books, plan: &Plan, id: u32, about: About, said: Said) -> Option<&'static str> {
    match (about, said) {
        (_, Said::Unclear) | (About::Notice { .. }, Said::Undone) => None,
        (About::Side { is_credit }, said) => {
            let stands = books.stands(plan.transfer(id), is_credit);
            let what = match (is_credit, said) {
                (false, Said::Stands) => "its debit stands",
                (true, Said::Stands) => "its credit stands",
                (false, _) => "its debit is undone",
                (true, _) => "its credit is undone",
            };
            (stands != (said == Said::Stands)).then_some(what)
        }
        (About::Notice { done }, Said::Stands) => {
            (!books.told(id).contains(&done)).then_some("its user was told")
        }
    }
}

/// Whether the transfer ended as the store says, or either way if it does not say how, and its user knows.
fn is_whole(books: &Books, plan: &Plan, id: u32, moved: Option<bool>) -> bool {
    let done = match books.state(plan.transfer(id)) {
        State::Done => true,
        State::Undone => false,
        State::Half => return false,
    };
    moved.is_none_or(|moved| moved == done) && books.told(id).contains(&done)
}

/// What the database has of a transfer, in words.
fn found(books: &Books, plan: &Plan, id: u32) -> String {
    if !books.has(id) {
        return "the database has nothing of it".to_owned();
    }
    let state = match books.state(plan.transfer(id)) {
        State::Done => "done",
        State::Undone => "undone, or not begun",
        State::Half => "half done",
    };
    let told = match books.told(id) {
        [] => "nothing",
        [true, ..] => "that it is done",
        [false, ..] => "that it is undone",
    };
    format!("the database has it {state} and its user told {told}")
}
