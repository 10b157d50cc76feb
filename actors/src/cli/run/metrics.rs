//! `/metrics`: what was measured over the window, as a person reads it.

use std::fmt::Write;

use mainstay::watch::Metrics;
use unicode_width::UnicodeWidthStr;

/// The objectives with what they came to, and the alerts that hold.
pub(super) fn page(metrics: &Metrics) -> String {
    let asked = &metrics.requests;
    let mut page = format!(
        "over {} s: {} requests accepted, {} done; {} attempts, {} retries",
        metrics.window.as_secs_f64(),
        asked.accepted,
        asked.done,
        metrics.attempts,
        metrics.retries,
    );
    let widest = metrics.slos.iter().map(|state| state.slo.name.width()).max().unwrap_or(0);
    for state in metrics.slos.iter().filter(|state| state.actual.is_some()) {
        let Some(actual) = state.actual else { continue };
        let (slo, verdict) = (&state.slo, if state.met == Some(false) { "missed" } else { "met" });
        let gap = " ".repeat(widest - slo.name.width());
        let value = slo.measure.unit().show(actual.value);
        let (name, goal, of) = (&slo.name, slo.target_text(), actual.samples);
        let _ = write!(page, "\n  {name}{gap}  {value} of {of} (goal {goal}): {verdict}");
    }
    for alert in &metrics.alerts {
        let value = alert.measure.unit().show(alert.value);
        let _ = write!(page, "\n  {}: alert {}: {value}", alert.severity, alert.rule);
    }
    page
}
