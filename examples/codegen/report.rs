//! What came of it: a text for people and one JSON object for programs.

use std::fmt::Write as _;
use std::time::Duration;

use mainstay::fate::{Fate, FateCounts};
use serde_json::{Map, Value, json};

use crate::coder::Written;
use crate::specs::Spec;

/// A function and what came of it: how it came out, or why it did not.
pub(crate) type Outcome = (Spec, Result<Written, Fate>);

/// Everything the report is about.
pub(crate) struct Report<'a> {
    pub(crate) setting: [(&'static str, String); 3],
    pub(crate) took: Duration,
    pub(crate) outcomes: &'a [Outcome],
    /// Functions that were accepted by a process that had ended.
    pub(crate) resumed: usize,
    pub(crate) checkpoints: u64,
    pub(crate) fates: FateCounts,
    pub(crate) tree: String,
}

/// An objective: requirement, name, target, whether more than it is wanted, unit.
struct Slo {
    id: &'static str,
    name: &'static str,
    target: f64,
    above: bool,
    unit: &'static str,
    /// `None` when nothing happened that it is about.
    actual: Option<f64>,
}

impl Slo {
    fn met(&self) -> Option<bool> {
        let actual = self.actual?;
        Some(if self.above { actual > self.target } else { actual < self.target })
    }

    fn target(&self) -> String {
        format!("{} {} {}", if self.above { ">" } else { "<" }, self.target, self.unit)
    }
}

impl Report<'_> {
    fn written(&self) -> impl Iterator<Item = &Written> {
        self.outcomes.iter().filter_map(|(_, outcome)| outcome.as_ref().ok())
    }

    fn usable(&self) -> usize {
        self.written().filter(|written| written.usable).count()
    }

    fn templates(&self) -> usize {
        self.written().filter(|written| written.template).count()
    }

    fn regenerations(&self) -> u32 {
        self.written().map(|written| written.regenerations).sum()
    }

    fn objectives(&self) -> [Slo; 3] {
        let all = self.outcomes.len();
        let share = |part: usize| (all > 0).then(|| 100.0 * part as f64 / all as f64);
        let mut times: Vec<_> =
            self.written().map(|written| written.took().as_secs_f64()).collect();
        times.sort_by(f64::total_cmp);
        let p95 = times.get((times.len() * 95).div_ceil(100).saturating_sub(1)).copied();
        let slo =
            |id, name, target, above, unit, actual| Slo { id, name, target, above, unit, actual };
        [
            slo(
                "S77.usable",
                "passes the interpreter and its test",
                90.0,
                true,
                "%",
                share(self.usable()),
            ),
            slo(
                "S77.repair",
                "a person must finish it",
                5.0,
                false,
                "%",
                share(all - self.usable()),
            ),
            slo("S77.generation", "generation, P95", 10.0, false, "s", p95),
        ]
    }

    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        self.example(&mut out);
        let _ = writeln!(out, "The work");
        for (name, text) in &self.setting {
            let _ = writeln!(out, "  {name:<12}  {text}");
        }
        let all = self.outcomes.len();
        let lines: usize = self.written().map(|written| written.lines.len()).sum();
        let took = self.took.as_secs_f64();
        let _ = writeln!(out, "  functions     {all}, {lines} lines, in {took:.1} s");
        let _ = writeln!(
            out,
            "                usable: {}; templates: {}; written again: {}",
            self.usable(),
            self.templates(),
            self.regenerations(),
        );
        let _ = writeln!(
            out,
            "  state         checkpoints: {}; functions taken over from another process: {}",
            self.checkpoints, self.resumed,
        );
        for (spec, outcome) in self.outcomes {
            let Ok(Written { resumed_after: Some(lines), .. }) = outcome else { continue };
            let _ =
                writeln!(out, "                {} was gone on with after line {lines}", spec.name);
        }
        for (spec, outcome) in self.outcomes {
            let why = match outcome {
                Ok(written) if written.usable => continue,
                Ok(written) if written.template => "only a template".to_owned(),
                Ok(_) => "passes its check, but not its test".to_owned(),
                Err(fate) => format!("not written: {fate}"),
            };
            let _ = writeln!(out, "  for a person  {}: {why}", spec.name);
        }
        let kinds = Fate::ALL.map(|fate| (fate.name(), self.fates.of(fate)));
        let kinds: Vec<_> = kinds.iter().filter(|(_, count)| *count > 0).collect();
        let kinds: Vec<_> = kinds.iter().map(|(name, count)| format!("{count} {name}")).collect();
        let sum = if kinds.is_empty() { "0".to_owned() } else { kinds.join(" + ") };
        let _ = writeln!(
            out,
            "\nRequests of this process\n  fates         {} accepted = {sum}",
            self.fates.accepted
        );
        let _ = writeln!(out, "\nObjectives");
        for slo in self.objectives() {
            let (actual, met) = match (slo.actual, slo.met()) {
                (Some(actual), Some(true)) => (format!("{actual:.1} {}", slo.unit), "met"),
                (Some(actual), _) => (format!("{actual:.1} {}", slo.unit), "MISSED"),
                (None, _) => ("-".to_owned(), "-"),
            };
            let (id, name, target) = (slo.id, slo.name, slo.target());
            let _ = writeln!(out, "  {id:<14}  {name:<35}  {target:<6}  {actual:>7}  {met}");
        }
        let _ = write!(out, "\nThe tree, when all was done\n{}", self.tree);
        out
    }

    /// The first function that was generated more than once and came out well, or else the first.
    fn example(&self, out: &mut String) {
        let good = |outcome: &&Outcome| outcome.1.as_ref().is_ok_and(|written| written.usable);
        let again =
            |outcome: &&Outcome| outcome.1.as_ref().is_ok_and(|written| written.regenerations > 0);
        let mut usable = self.outcomes.iter().filter(good);
        let found = usable.clone().find(again).or_else(|| usable.next());
        let Some((_, Ok(written))) = found else { return };
        let _ = match written.regenerations {
            0 => writeln!(out, "A function"),
            1 => writeln!(out, "A function, written again once"),
            times => writeln!(out, "A function, written again {times} times"),
        };
        for line in &written.lines {
            let _ = writeln!(out, "  {line}");
        }
        out.push('\n');
    }

    pub(crate) fn summary(&self) -> Value {
        let fates: Map<_, _> = Fate::ALL
            .map(|fate| (fate.name().to_owned(), self.fates.of(fate).into()))
            .into_iter()
            .collect();
        let slo: Map<_, _> = self
            .objectives()
            .iter()
            .map(|slo| {
                let value =
                    json!({ "target": slo.target(), "actual": slo.actual, "met": slo.met() });
                (slo.id.to_owned(), value)
            })
            .collect();
        json!({
            "accepted": self.fates.accepted,
            "fates": fates,
            "functions": self.outcomes.len(),
            "usable": self.usable(),
            "templates": self.templates(),
            "regenerations": self.regenerations(),
            "resumed": self.resumed,
            "slo": slo,
        })
    }
}
