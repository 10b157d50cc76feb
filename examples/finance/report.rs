//! The report: for people, and as one line for programs.

use std::fmt::Write as _;

use mainstay::fate::FateCounts;
use mainstay::fault::Class;
use mainstay::ledger::EffectCounts;
use mainstay::system::{Recovered, Stats};
use mainstay::tree::TreeDump;
use mainstay::watch::Sample;
use serde::Serialize;

use crate::audit::Audit;
use crate::plan::{ACCOUNTS, Plan};

/// What is reported.
pub(crate) struct Report<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) audit: &'a Audit,
    pub(crate) recovered: &'a Recovered,
    pub(crate) fates: FateCounts,
    pub(crate) stats: &'a Stats,
    pub(crate) effects: EffectCounts,
    pub(crate) open: usize,
    pub(crate) rollbacks: u64,
    /// The share of transfers whose money is gone, as the runtime has it, and whether that is allowed.
    pub(crate) loss: Option<(Sample, bool)>,
    pub(crate) tree: &'a TreeDump,
}

/// The line for programs.
#[derive(Serialize)]
struct Summary {
    transfers: u32,
    sum_before: i64,
    sum_after: i64,
    lost: u32,
    duplicated: u32,
    notifications_duplicated: u32,
    unknown_open: usize,
    resumed: usize,
}

impl Report<'_> {
    pub(crate) fn summary(&self) -> String {
        let audit = self.audit;
        let summary = Summary {
            transfers: self.plan.transfers,
            sum_before: audit.sum_before,
            sum_after: audit.sum_after,
            lost: audit.lost,
            duplicated: audit.duplicated,
            notifications_duplicated: audit.notices_duplicated,
            unknown_open: self.open,
            resumed: self.recovered.requests,
        };
        // A struct of numbers can always be written.
        serde_json::to_string(&summary).unwrap_or_default()
    }

    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let Self { plan, audit, stats, effects, fates, recovered, .. } = self;
        writeln!(
            out,
            "{} transfers between {ACCOUNTS} accounts, seed {}: {} done, {} undone ({} for lack of \
             funds), {} in between",
            plan.transfers, plan.seed, audit.done, audit.undone, audit.beyond, audit.half
        )?;
        if audit.waiting > 0 {
            writeln!(out, "  of these   {} wait for a person, who has to find out", audit.waiting)?;
        }
        writeln!(
            out,
            "  database   {} before, {} after; lost {}, duplicated {}, notices duplicated {}",
            cents(audit.sum_before),
            cents(audit.sum_after),
            audit.lost,
            audit.duplicated,
            audit.notices_duplicated
        )?;
        writeln!(
            out,
            "  taken up   {} requests, {} effects, {} states refused",
            recovered.requests,
            total(&recovered.effects),
            recovered.refused.len()
        )?;
        let mut failures: Vec<(Class, u64)> =
            stats.failures.iter().map(|(class, count)| (*class, *count)).collect();
        failures.sort_unstable();
        let failures: Vec<_> =
            failures.iter().map(|(class, count)| format!("{class} {count}")).collect();
        let failures = if failures.is_empty() { "none".to_owned() } else { failures.join(", ") };
        writeln!(out, "  faults     {failures}")?;
        writeln!(
            out,
            "  answered   with {} retries and {} rollbacks",
            stats.retries.values().sum::<u64>(),
            self.rollbacks
        )?;
        writeln!(
            out,
            "  effects    {} confirmed, {} undone, {} waiting for a person",
            effects.confirmed, effects.compensated, self.open
        )?;
        writeln!(
            out,
            "  fates      {} accepted: {} done, {} failed, {} unknown, {} open",
            fates.accepted, fates.done, fates.failed, fates.unknown, fates.open
        )?;
        writeln!(out, "objectives (S71)")?;
        let possible = plan.transfers - audit.beyond;
        objective(out, "transaction success", audit.done, possible, 99.9)?;
        objective(out, "rollback success", audit.undone, audit.undone + audit.half, 99.0)?;
        let missing = audit.sum_before.abs_diff(audit.sum_after) + audit.half_cents.unsigned_abs();
        let loss = 100.0 * missing as f64 / audit.sum_before as f64;
        let verdict = if loss < 0.01 { "met" } else { "missed" };
        writeln!(out, "  {:<20} {loss:>8.4} %  (< 0.01 %)  {verdict}", "fund loss")?;
        if let Some((Sample { value, samples, .. }, met)) = self.loss {
            let (share, verdict) = (100.0 * value, if met { "met" } else { "missed" });
            writeln!(
                out,
                "  {:<20} {share:>8.4} %  (< 0.01 %)  {verdict}, of {samples}",
                "transfers lost"
            )?;
        }
        write!(out, "{}", self.tree)
    }
}

/// A share that must be greater than this many percent.
fn objective(out: &mut String, name: &str, good: u32, of: u32, above: f64) -> std::fmt::Result {
    if of == 0 {
        return writeln!(out, "  {name:<20} {:>8} %  (> {above} %)  nothing to judge", "-");
    }
    let share = 100.0 * f64::from(good) / f64::from(of);
    let verdict = if share > above { "met" } else { "missed" };
    // Where a single one is more than may fail, the run says little about the rate.
    let least = (100.0 / (100.0 - above)).ceil();
    let few = match f64::from(of) < least {
        true => format!(" (one alone is {:.1} %: too few to tell)", 100.0 / f64::from(of)),
        false => String::new(),
    };
    writeln!(out, "  {name:<20} {share:>8.4} %  (> {above} %)  {verdict}, {good} of {of}{few}")
}

fn cents(cents: i64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

fn total(effects: &EffectCounts) -> usize {
    effects.intended
        + effects.confirmed
        + effects.unknown
        + effects.compensating
        + effects.compensated
        + effects.stuck
}
