//! Objectives: the runtime's own, with what it measured, and what only the desk can know.
//!
//! Whether a customer is content, a person had to help, and how long an answer took, are reported to the
//! runtime as signals; it judges them like everything else.

use std::collections::HashMap;
use std::time::Duration;

use mainstay::policy::GroupKind;
use mainstay::system::System;
use mainstay::watch::{Bound, Measure, Metrics, Profile, Sample, Signal, Slo, WatchSpec};

use crate::desk::COMPLAINTS;
use crate::input::{Complaint, Intent, Label};
use crate::shop::{Record, Shop};
use crate::watch::Watch;
use crate::work::Outcome;

/// Longer than any run: the report is about all of it.
const WHOLE_RUN: Duration = Duration::from_secs(6 * 3600);

/// What the runtime watches. Customers see complaints, and neither the requests of agents to models nor
/// the answers that are default replies.
pub(crate) fn watched() -> WatchSpec {
    let share = |name: &'static str| Measure::Share(name.into());
    let seen = "availability as customers see it";
    WatchSpec::profile(Profile::CustomerService)
        .window(WHOLE_RUN)
        .slo(Slo::new("S39", seen, share("answered"), Bound::Above(0.95)))
        .slo(Slo::new("S32", "output available", share("in full"), Bound::Above(0.98)))
}

/// What the objectives are judged by.
pub(crate) struct Evidence<'a> {
    pub(crate) shop: &'a Shop,
    pub(crate) complaints: &'a [Complaint],
    pub(crate) labels: &'a HashMap<String, Label>,
    pub(crate) outcomes: &'a [Outcome],
}

/// The value that this share of the durations does not exceed; `None` of none.
pub(crate) fn percentile(durations: &[Duration], share: f64) -> Option<Duration> {
    let mut sorted = durations.to_vec();
    sorted.sort_unstable();
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

/// Tells the runtime what it cannot know, and returns what it makes of everything.
pub(crate) fn report(system: &System, watch: &Watch, evidence: &Evidence<'_>) -> Metrics {
    let say = |name: &str, signal| {
        let counted = system.signal(name, signal);
        debug_assert!(counted, "no objective asks for {name}");
    };
    let share = |name: &str, yes| say(name, if yes { Signal::Yes } else { Signal::No });
    let all = watch.home(COMPLAINTS);
    for n in 0..all.ended {
        share("answered", n < all.answered);
        share("in full", n < all.answered - all.defaulted);
    }
    for outcome in evidence.outcomes {
        let complaint = &evidence.complaints[outcome.index];
        let record = evidence.shop.record(&complaint.id);
        share("intervention", record.person);
        if outcome.answer.is_ok() {
            say("response", Signal::Took(outcome.took));
        }
        if let Some(label) = evidence.labels.get(&complaint.id) {
            let worked = matches!(&outcome.answer, Ok((_, defaulted)) if !defaulted);
            share("satisfaction", worked && is_content(label, &record));
        }
    }
    system.metrics()
}

/// What an objective was taken from, in words.
pub(crate) fn of(id: &str, metrics: &Metrics, evidence: &Evidence<'_>) -> String {
    let counted = |measure: &Measure| {
        let Sample { value, samples, .. } = metrics.measure(measure)?;
        Some(((value * samples as f64).round() as u64, samples))
    };
    let share = |measure: Measure, what: &str| {
        let (part, whole) = counted(&measure).unwrap_or_default();
        format!("{part} of {whole} {what}")
    };
    let signal = |name: &'static str| Measure::Share(name.into());
    let tool = Measure::FallbackSuccessOf(GroupKind::Tool);
    let step = Measure::FallbackSuccessOf(GroupKind::Step);
    match id {
        "S94" => share(Measure::ErrorRate, "attempts failed"),
        "S25" => share(Measure::RetrySuccess, "that entered retry"),
        "S26" => format!("{} recovered by retry", metrics.retry.recovered),
        "S27" => format!("{} of {} requests", metrics.retries, metrics.requests.accepted),
        "S28" => share(Measure::Degraded(GroupKind::Model), "model answers"),
        "S29" => share(tool, "refunds handed on"),
        "S30" => share(step, "complaints handed on"),
        "S31" => "no search in this desk".to_owned(),
        "S32" => share(signal("in full"), "complaints, default replies left out"),
        "S37" => share(Measure::FallbackSuccess, "handed on, default replies left out"),
        "S38" => format!("{} recovered by fallback", metrics.fallback.recovered),
        "S39" => share(signal("answered"), "complaints answered"),
        "S98" => share(Measure::Recovery, "that had failed, default replies left out"),
        "S65.satisfaction" => match counted(&signal("satisfaction")) {
            None => "no labels beside the input".to_owned(),
            Some((content, judged)) => format!("{content} of {judged} did what its label asks"),
        },
        "S65.intervention" => {
            let asked = evidence.outcomes.iter().filter(|outcome| {
                let complaint = &evidence.complaints[outcome.index];
                let label = evidence.labels.get(&complaint.id);
                label.is_some_and(|label| label.intent == Intent::Human)
                    && evidence.shop.record(&complaint.id).person
            });
            let helped = share(signal("intervention"), "complaints");
            format!("{helped}; {} had asked for one", asked.count())
        }
        "S65.response" => {
            let answers = metrics.measure(&Measure::Mean("response".into()));
            format!("{} answers", answers.map_or(0, |sample| sample.samples))
        }
        _ => "nothing is rolled back in this desk".to_owned(),
    }
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
