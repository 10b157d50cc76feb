//! The snapshot as text for scrapers, in the exposition format of Prometheus.
//!
//! *Invariant.* Every line is a gauge over the window: what was counted there may fall again. No label
//! holds anything but names of classes, fates, kinds, scopes, and ids of objectives and rules.

use std::fmt::{Display, Write};

use super::*;

impl Metrics {
    /// For an endpoint that Prometheus, or whatever reads its text format, scrapes.
    pub fn prometheus(&self) -> String {
        let mut page = Page(String::new());
        page.gauge("window_seconds", "How far back the other values go.");
        page.value("window_seconds", "", self.window.as_secs_f64());
        page.gauge("attempts", "Attempts made.");
        page.value("attempts", "", self.attempts);
        page.gauge("failed_attempts", "Attempts without an answer, by class.");
        for (class, count) in &self.failures {
            page.labelled("failed_attempts", "class", class, count);
        }
        page.labelled("failed_attempts", "class", "crash", self.crashes);
        page.gauge("requests", "Requests that have their fate, by fate.");
        for fate in Fate::ALL {
            page.labelled("requests", "fate", fate, self.requests.of(fate));
        }
        page.gauge("requests_accepted", "Requests accepted.");
        page.value("requests_accepted", "", self.requests.accepted);
        page.gauge("retries", "Retries decided.");
        page.value("retries", "", self.retries);
        page.gauge("rung", "What entered a rung of the ladder, and what became of it.");
        let rungs = [
            ("retry", self.retry),
            ("fallback", self.fallback),
            ("rollback", self.rollback),
            ("all", self.recovery),
        ];
        for (name, rung) in rungs {
            let counts = [
                ("entered", rung.entered),
                ("recovered", rung.recovered),
                ("defaulted", rung.defaulted),
            ];
            for (what, count) in counts {
                page.value("rung", &format!("{{rung=\"{name}\",what=\"{what}\"}}"), count);
            }
        }
        page.gauge("latency_seconds", "Percentiles of retries, fallbacks and rollbacks.");
        page.times("retry", self.retry_latency);
        page.times("fallback", self.fallback_latency);
        for (scope, times) in &self.rollback_time {
            page.times(&format!("rollback_{}", scope.name()), Some(*times));
        }
        page.gauge("slo_actual", "What the measure of an objective came to.");
        for state in &self.slos {
            if let Some(actual) = state.actual {
                page.labelled("slo_actual", "slo", &state.slo.id, actual.value);
            }
        }
        page.gauge("slo_met", "Whether an objective is met.");
        for state in &self.slos {
            if let Some(met) = state.met {
                page.labelled("slo_met", "slo", &state.slo.id, u8::from(met));
            }
        }
        page.gauge("alert", "Alerts that hold.");
        for alert in &self.alerts {
            let labels =
                format!("{{rule=\"{}\",severity=\"{}\"}}", escaped(&alert.rule), alert.severity);
            page.value("alert", &labels, 1);
        }
        page.0
    }
}

struct Page(String);

impl Page {
    fn gauge(&mut self, name: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP mainstay_{name} {help}\n# TYPE mainstay_{name} gauge");
    }

    fn value(&mut self, name: &str, labels: &str, value: impl Display) {
        let _ = writeln!(self.0, "mainstay_{name}{labels} {value}");
    }

    fn labelled(&mut self, name: &str, label: &str, of: impl Display, value: impl Display) {
        let of = escaped(&of.to_string());
        self.value(name, &format!("{{{label}=\"{of}\"}}"), value);
    }

    fn times(&mut self, of: &str, times: Option<Times>) {
        let Some(times) = times else { return };
        for (share, value) in [("0.5", times.p50), ("0.95", times.p95), ("0.99", times.p99)] {
            let labels = format!("{{of=\"{of}\",quantile=\"{share}\"}}");
            self.value("latency_seconds", &labels, value);
        }
    }
}

/// As the format wants it between quotes.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
