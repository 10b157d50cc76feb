//! Objectives, by the playbook's definitions: what was reached, and whether that is enough.

use std::collections::HashMap;
use std::time::Duration;

use crate::desk::{COMPLAINTS, MODELS, REFUNDS};
use crate::input::{Complaint, Intent, Label};
use crate::shop::{Record, Shop};
use crate::watch::Watch;
use crate::work::Outcome;

/// One objective.
#[derive(Clone, Debug)]
pub(crate) struct Slo {
    /// The requirement's number; the three of the customer-service case have a word after it.
    pub(crate) id: &'static str,
    pub(crate) name: &'static str,
    pub(crate) target: Target,
    /// `None` when nothing happened that it is about.
    pub(crate) actual: Option<f64>,
    /// What it was taken from.
    pub(crate) of: String,
}

/// What an objective asks for; strictly.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    PercentAbove(f64),
    PercentBelow(f64),
    SecondsBelow(f64),
    NumberBelow(f64),
}

impl Target {
    fn is_met(self, actual: f64) -> bool {
        match self {
            Self::PercentAbove(least) => actual > least,
            Self::PercentBelow(most) | Self::SecondsBelow(most) | Self::NumberBelow(most) => {
                actual < most
            }
        }
    }

    pub(crate) fn text(self) -> String {
        match self {
            Self::PercentAbove(least) => format!("> {least} %"),
            Self::PercentBelow(most) => format!("< {most} %"),
            Self::SecondsBelow(most) => format!("< {most} s"),
            Self::NumberBelow(most) => format!("< {most}"),
        }
    }

    pub(crate) fn value(self, actual: f64) -> String {
        match self {
            Self::PercentAbove(_) | Self::PercentBelow(_) => format!("{actual:.1} %"),
            Self::SecondsBelow(_) => format!("{actual:.2} s"),
            Self::NumberBelow(_) => format!("{actual:.2}"),
        }
    }
}

impl Slo {
    /// Whether it is reached; `None` when there is nothing to judge.
    pub(crate) fn is_met(&self) -> Option<bool> {
        self.actual.map(|actual| self.target.is_met(actual))
    }
}

/// What the objectives are judged by.
pub(crate) struct Evidence<'a> {
    pub(crate) watch: &'a Watch,
    pub(crate) shop: &'a Shop,
    pub(crate) complaints: &'a [Complaint],
    pub(crate) labels: &'a HashMap<String, Label>,
    pub(crate) outcomes: &'a [Outcome],
}

fn percent(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 * 100.0 / whole as f64)
}

/// The value that this share of the durations does not exceed; `None` of none.
pub(crate) fn percentile(durations: &[Duration], share: f64) -> Option<Duration> {
    let mut sorted = durations.to_vec();
    sorted.sort_unstable();
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

fn p95(durations: &[Duration]) -> Option<f64> {
    percentile(durations, 0.95).map(|it| it.as_secs_f64())
}

/// All of them, in order of their numbers.
pub(crate) fn all(evidence: &Evidence<'_>) -> Vec<Slo> {
    let Evidence { watch, outcomes, .. } = *evidence;
    let (all, models, refunds) = (watch.home(COMPLAINTS), watch.home(MODELS), watch.home(REFUNDS));
    let requests: u64 = watch.homes.values().map(|home| home.ended).sum();
    let retries: u64 = watch.retries.values().sum();
    let retried = watch.recovered_by_retry.len() as u64;
    let handed_on = watch.recovered_by_fallback.len() as u64;
    let of = |what: &str, part: u64, whole: u64| format!("{part} of {whole} {what}");

    use Target::{NumberBelow, PercentAbove, PercentBelow, SecondsBelow};
    let slo = |id, name, target, actual, of| Slo { id, name, target, actual, of };
    let mut slos = vec![
        slo(
            "S25",
            "retry success",
            PercentAbove(95.0),
            percent(retried, watch.entered_retry),
            of("that entered retry", retried, watch.entered_retry),
        ),
        slo(
            "S26",
            "retry latency, P95",
            SecondsBelow(5.0),
            p95(&watch.recovered_by_retry),
            format!("{retried} recovered by retry"),
        ),
        slo(
            "S27",
            "retries a request",
            NumberBelow(2.0),
            (requests > 0).then(|| retries as f64 / requests as f64),
            of("requests", retries, requests),
        ),
        slo(
            "S28",
            "model degradation",
            PercentBelow(5.0),
            percent(models.degraded, models.answered),
            of("model answers", models.degraded, models.answered),
        ),
        slo(
            "S29",
            "alternative to a tool",
            PercentAbove(90.0),
            percent(refunds.handed_on_answered, refunds.handed_on),
            of("refunds handed on", refunds.handed_on_answered, refunds.handed_on),
        ),
        slo(
            "S30",
            "simplified flow completes",
            PercentAbove(80.0),
            percent(all.handed_on_answered, all.handed_on),
            of("complaints handed on", all.handed_on_answered, all.handed_on),
        ),
        slo("S31", "retrieval", PercentAbove(95.0), None, "no search in this desk".to_owned()),
        slo(
            "S32",
            "output available",
            PercentAbove(98.0),
            percent(all.answered - all.defaulted, all.ended),
            of("complaints, default replies left out", all.answered - all.defaulted, all.ended),
        ),
        slo(
            "S37",
            "fallback success",
            PercentAbove(90.0),
            percent(handed_on, watch.entered_fallback),
            of("handed on, default replies left out", handed_on, watch.entered_fallback),
        ),
        slo(
            "S38",
            "fallback latency, P95",
            SecondsBelow(3.0),
            p95(&watch.recovered_by_fallback),
            format!("{handed_on} recovered by fallback"),
        ),
        slo(
            "S39",
            "availability as customers see it",
            PercentAbove(95.0),
            percent(all.answered, all.ended),
            of("complaints answered", all.answered, all.ended),
        ),
    ];
    slos.extend(case_1(evidence, outcomes));
    slos
}

/// Those of the customer-service case.
fn case_1(evidence: &Evidence<'_>, outcomes: &[Outcome]) -> [Slo; 3] {
    use Target::{PercentAbove, PercentBelow, SecondsBelow};
    let (mut judged, mut content, mut answered, mut persons, mut asked) = (0, 0, 0, 0, 0);
    let mut time = Duration::ZERO;
    for outcome in outcomes {
        let complaint = &evidence.complaints[outcome.index];
        let record = evidence.shop.record(&complaint.id);
        persons += u64::from(record.person);
        if outcome.answer.is_ok() {
            answered += 1;
            time += outcome.took;
        }
        if let Some(label) = evidence.labels.get(&complaint.id) {
            judged += 1;
            asked += u64::from(record.person && label.intent == Intent::Human);
            let worked = matches!(&outcome.answer, Ok((_, defaulted)) if !defaulted);
            content += u64::from(worked && is_content(label, &record));
        }
    }
    let ended = outcomes.len() as u64;
    let labels = if judged == 0 {
        "no labels beside the input".to_owned()
    } else {
        format!("{content} of {judged} did what its label asks")
    };
    let mean = (answered > 0).then(|| time.as_secs_f64() / f64::from(answered));
    let slo = |id, name, target, actual, of| Slo { id, name, target, actual, of };
    [
        slo(
            "S65.satisfaction",
            "satisfaction, by labels",
            PercentAbove(95.0),
            percent(content, judged),
            labels,
        ),
        slo(
            "S65.intervention",
            "a person had to help",
            PercentBelow(10.0),
            percent(persons, ended),
            format!("{persons} of {ended} complaints; {asked} had asked for one"),
        ),
        slo(
            "S65.response",
            "response, mean",
            SecondsBelow(30.0),
            mean,
            format!("{answered} answers"),
        ),
    ]
}

/// Whether what was done is what a careful person would have done. The runtime cannot know whether a
/// customer is content; this stands in for asking them.
fn is_content(label: &Label, record: &Record) -> bool {
    let looked = label.order.is_none_or(|order| record.looked_up.contains(&order));
    match label.intent {
        Intent::Human => record.person && record.paid.is_empty(),
        Intent::Refund if label.exists => {
            // Paid back, given to a person, or found to have been paid back already.
            let right = record.paid.iter().all(|paid| Some(*paid) == label.order);
            let before = label.order.is_some_and(|it| record.found_refunded.contains(&it));
            right && (!record.paid.is_empty() || record.person || before)
        }
        Intent::Refund | Intent::Status => (looked || record.person) && record.paid.is_empty(),
        Intent::Other => record.paid.is_empty(),
    }
}
