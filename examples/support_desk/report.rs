//! The report at the end: for people, and as one JSON object for scripts.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::time::Duration;

use mainstay::fate::{Fate, FateCounts};
use mainstay::system::Stats;
use mainstay::tree::TreeDump;
use mainstay::watch::{Metrics, Unit};
use serde_json::{Map, Value, json};

use crate::args::Dump;
use crate::desk::{COMPLAINTS, GROUPS};
use crate::input::{Complaint, Label};
use crate::screen::{Style, cut, one_line};
use crate::shop::Shop;
use crate::slo::{self, Evidence, percentile};
use crate::watch::Watch;
use crate::work::Outcome;

/// Answers that are shown.
const EXAMPLES: usize = 4;

/// What there is to report.
pub(crate) struct Report<'a> {
    /// What was run: input, models, faults.
    pub(crate) setting: [(&'static str, String); 3],
    pub(crate) interrupted: bool,
    pub(crate) took: Duration,
    pub(crate) complaints: &'a [Complaint],
    pub(crate) labels: &'a HashMap<String, Label>,
    pub(crate) outcomes: &'a [Outcome],
    pub(crate) shop: &'a Shop,
    pub(crate) watch: &'a Watch,
    pub(crate) fates: FateCounts,
    pub(crate) stats: &'a Stats,
    pub(crate) metrics: &'a Metrics,
    pub(crate) tree: &'a TreeDump,
}

impl Report<'_> {
    fn evidence(&self) -> Evidence<'_> {
        Evidence {
            shop: self.shop,
            complaints: self.complaints,
            labels: self.labels,
            outcomes: self.outcomes,
        }
    }

    fn latencies(&self) -> Vec<Duration> {
        let answered = self.outcomes.iter().filter(|outcome| outcome.answer.is_ok());
        answered.map(|outcome| outcome.took).collect()
    }

    /// For people.
    pub(crate) fn text(&self, style: Style) -> String {
        let mut out = String::new();
        self.head(&mut out, style);
        self.counts(&mut out, style);
        self.objectives(&mut out, style);
        let when = if self.interrupted { "when it was interrupted" } else { "when all was done" };
        let _ = write!(out, "\n{}\n{}", style.bold(&format!("The tree, {when}")), self.tree);
        out
    }

    fn head(&self, out: &mut String, style: Style) {
        let (ended, total) = (self.outcomes.len(), self.complaints.len());
        let took = self.took.as_secs_f64();
        let _ = writeln!(out, "{}", style.bold("Some answers"));
        for outcome in self.examples() {
            let complaint = &self.complaints[outcome.index];
            let Ok((answer, _)) = &outcome.answer else { continue };
            let _ = writeln!(
                out,
                "  {}  {}",
                one_line(&complaint.id),
                cut(&one_line(&complaint.text), 80)
            );
            let _ = writeln!(out, "    {}", style.good(&cut(&one_line(answer), 84)));
        }
        let _ = writeln!(out, "\n{}", style.bold("The work"));
        for (name, text) in &self.setting {
            let _ = writeln!(out, "  {name:<12}  {text}");
        }
        let _ = writeln!(out, "  complaints    {ended} of {total} in {took:.1} s");
        if self.interrupted {
            let stopped = self.outcomes.iter().filter(|outcome| outcome.answer.is_err()).count();
            let left = total - ended;
            let note = format!("interrupted: {stopped} were stopped, {left} were not begun");
            let _ = writeln!(out, "                {}", style.warn(&note));
        }
        let home = self.watch.home(COMPLAINTS);
        let _ = writeln!(
            out,
            "                {} answered: {} in full, {} degraded ({} by default)",
            home.answered,
            home.answered - home.degraded,
            home.degraded,
            home.defaulted,
        );
        let shop = self.shop.counts();
        let _ = writeln!(
            out,
            "  in the world  {} orders paid back ({} by a person); tickets for people: {};\n                \
             asked again after a failure, and done once: {}",
            shop.paid, shop.paid_by_person, shop.tickets, shop.repeated,
        );
    }

    /// The first answers in different words.
    fn examples(&self) -> Vec<&Outcome> {
        let mut outcomes: Vec<_> = self.outcomes.iter().collect();
        outcomes.sort_by_key(|outcome| outcome.index);
        let mut seen = Vec::new();
        outcomes.retain(|outcome| match &outcome.answer {
            Ok((text, _)) if !seen.contains(text) => {
                seen.push(text.clone());
                true
            }
            _ => false,
        });
        outcomes.truncate(EXAMPLES);
        outcomes
    }

    fn counts(&self, out: &mut String, style: Style) {
        let fates = self.fates;
        let kinds = Fate::ALL.map(|fate| (fate.name(), fates.of(fate)));
        let _ =
            writeln!(out, "\n{}", style.bold("Requests, those of agents to models and tools too"));
        let _ = writeln!(
            out,
            "  fates         {} accepted = {}{}",
            fates.accepted,
            list(kinds.into_iter().filter(|(_, count)| *count > 0)),
            if fates.open > 0 { format!(" + {} open", fates.open) } else { String::new() },
        );
        let watch = self.watch;
        let failures: u64 = watch.failures.values().sum();
        let _ = writeln!(out, "  attempts      {}, {failures} failed", self.stats.attempts);
        let _ = writeln!(out, "  retries       {}", list(by_count(&watch.retries)));
        let fallbacks = by_count(&watch.fallbacks);
        let _ = writeln!(out, "  fallbacks     {}", list(fallbacks));
        let _ = writeln!(out, "  restarts      {}, {} alerts", watch.restarts, watch.alerts);
        if watch.missed() > 0 {
            let note = format!("{} events came too fast to be counted", watch.missed());
            let _ = writeln!(out, "                {}", style.warn(&note));
        }
        let latencies = self.latencies();
        let at = |share| match percentile(&latencies, share) {
            Some(latency) => format!("{:.2} s", latency.as_secs_f64()),
            None => "-".to_owned(),
        };
        let (p50, p95, p99) = (at(0.5), at(0.95), at(0.99));
        let _ = writeln!(out, "  latency       of a complaint: p50 {p50}, p95 {p95}, p99 {p99}",);
    }

    fn objectives(&self, out: &mut String, style: Style) {
        let _ = writeln!(out, "\n{}", style.bold("Objectives"));
        // On a narrow terminal the last column gives way.
        let room = style.columns().saturating_sub(84);
        for state in &self.metrics.slos {
            let verdict = match state.met {
                Some(true) => style.good("met   "),
                Some(false) => style.bad("missed"),
                None => style.dim("-     "),
            };
            let of = slo::of(&state.slo.id, self.metrics, &self.evidence());
            let _ = writeln!(
                out,
                "  {:<16}  {:<33}  {:>8}  {:>7}  {verdict}  {}",
                state.slo.id,
                state.slo.name,
                state.slo.target_text(),
                state.actual_text(),
                style.dim(&cut(&of, room)),
            );
        }
    }

    /// The tree in this format, with a line's end.
    pub(crate) fn dump(&self, format: Dump) -> String {
        let mut text = match format {
            Dump::Text => self.tree.to_string(),
            Dump::Json => self.tree.to_json(),
            Dump::Dot => self.tree.to_dot(),
            Dump::Mermaid => self.tree.to_mermaid(),
        };
        if !text.ends_with('\n') {
            text.push('\n');
        }
        text
    }

    /// For scripts.
    pub(crate) fn summary(&self) -> Value {
        let fates: Map<String, Value> = Fate::ALL
            .into_iter()
            .map(|fate| (fate.name().to_owned(), self.fates.of(fate).into()))
            .collect();
        let mut fallbacks: BTreeMap<&str, u64> = GROUPS.map(|group| (group, 0)).into();
        for (group, count) in &self.watch.fallbacks {
            fallbacks.insert(group, *count);
        }
        let latencies = self.latencies();
        let millis = |share| {
            let millis = percentile(&latencies, share)?.as_secs_f64() * 1e3;
            Some((millis * 10.0).round() / 10.0)
        };
        let slos: Map<String, Value> = self
            .metrics
            .slos
            .iter()
            .map(|state| {
                // Shares in percent, as their targets are written.
                let scale = if state.slo.measure.unit() == Unit::Share { 100.0 } else { 1.0 };
                let actual = state.actual.map(|it| (it.value * scale * 1e3).round() / 1e3);
                let value = json!({
                    "name": state.slo.name, "target": state.slo.target_text(), "actual": actual,
                    "met": state.met,
                });
                (state.slo.id.to_string(), value)
            })
            .collect();
        json!({
            "accepted": self.fates.accepted,
            "fates": fates,
            "retries": self.watch.retries,
            "fallbacks": fallbacks,
            "latency_ms": { "p50": millis(0.5), "p95": millis(0.95), "p99": millis(0.99) },
            "slo": slos,
        })
    }
}

fn by_count<K: AsRef<str>>(counts: &BTreeMap<K, u64>) -> impl Iterator<Item = (&str, u64)> {
    let mut all: Vec<_> = counts.iter().map(|(name, count)| (name.as_ref(), *count)).collect();
    all.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    all.into_iter()
}

/// `3 timeout, 1 network`; `none`.
fn list<'a>(counts: impl Iterator<Item = (&'a str, u64)>) -> String {
    let all: Vec<_> = counts.map(|(name, count)| format!("{count} {name}")).collect();
    if all.is_empty() { "none".to_owned() } else { all.join(", ") }
}
