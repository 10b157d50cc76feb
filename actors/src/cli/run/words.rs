//! What is said: answers, failures and progress, for people and for programs.

use std::time::Duration;

use mainstay::error::CallError;
use mainstay::event::Event;
use mainstay::fate::{Answer, Cost, Ended, Fate, Trail};
use mainstay::fault::{Class, ExitKind, Fault};
use mainstay::id::ChildPath;
use mainstay_actors::agent::{AgentReply, LeftOut, ToolUse};
use mainstay_actors::chat::ChatReply;
use serde_json::{Value, json};

use super::served::{Failed, StoodIn};

/// An answer, whoever gave it.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcome {
    pub(super) text: String,
    pub(super) served_by: Option<ChildPath>,
    pub(super) degraded: bool,
    pub(super) defaulted: bool,
    pub(super) attempts: u32,
    /// Model calls of an agent.
    pub(super) steps: Option<u32>,
    pub(super) tools_used: Vec<ToolUse>,
    /// What of the conversation an agent has left out, for lack of room.
    pub(super) left_out: LeftOut,
    /// What it has cost; `None` where no one has told this process.
    pub(super) cost: Option<Cost>,
    /// Whether another process had asked.
    pub(super) taken_up: bool,
    /// Who stood in for whom, below the one that was asked.
    pub(super) stood_in: Vec<StoodIn>,
}

impl Outcome {
    fn of<R>(answer: &Answer<R>) -> Self {
        Self {
            served_by: Some(answer.served_by.clone()),
            degraded: answer.degraded,
            defaulted: answer.defaulted,
            attempts: answer.attempts,
            cost: Some(answer.cost),
            ..Self::default()
        }
    }

    /// With those that it rests on, where it says that it rests on some.
    pub(super) fn resting_on(self, stood_in: Vec<StoodIn>) -> Self {
        let rests = self.degraded || self.defaulted || self.taken_up;
        Self { stood_in: if rests { stood_in } else { Vec::new() }, ..self }
    }

    /// As given by this one, as far as it is known.
    pub(super) fn given_by(self, by: Option<&StoodIn>) -> Self {
        let Some(StoodIn { by, degraded, defaulted, attempts, cost, .. }) = by else { return self };
        let (served_by, attempts, cost) = (Some(by.clone()), *attempts, Some(*cost));
        Self { served_by, degraded: *degraded, defaulted: *defaulted, attempts, cost, ..self }
    }

    pub(super) fn agent(answer: Answer<AgentReply>) -> Self {
        let outcome = Self::of(&answer);
        outcome.with(answer.value)
    }

    /// What an agent says, whoever asked it.
    pub(super) fn with(self, reply: AgentReply) -> Self {
        Self {
            text: reply.text,
            steps: Some(reply.steps),
            tools_used: reply.tools_used,
            left_out: reply.left_out,
            ..self
        }
    }

    pub(super) fn model(answer: Answer<ChatReply>) -> Self {
        let outcome = Self::of(&answer);
        Self { text: answer.value.text, ..outcome }
    }
}

/// Why there is no answer, for people and for programs.
#[derive(Clone, Debug)]
pub(super) struct Why {
    pub(super) text: String,
    pub(super) json: Value,
    /// What was asked, with all that goes along with it, is too long for whoever could serve.
    pub(super) too_long: bool,
}

impl Why {
    pub(super) fn called_off() -> Self {
        Self {
            text: "called off".to_owned(),
            json: json!({"error": {"kind": "cancelled", "message": "called off"}}),
            too_long: false,
        }
    }

    /// A question of before had no answer.
    pub(super) fn fated(key: &str, fate: Fate) -> Self {
        let message = format!("what was asked under the key {key:?} had no answer: {fate}");
        Self {
            json: json!({"error": {"kind": "asked_before", "message": &message}}),
            text: format!("no answer: {message}"),
            too_long: false,
        }
    }

    /// The tree has ended before a question of before had its answer.
    pub(super) fn suspended(key: &str) -> Self {
        let message = format!(
            "the tree has given up; what was asked under the key {key:?} goes on at the next start"
        );
        Self {
            json: json!({"error": {"kind": "suspended", "message": &message}}),
            text: format!("no answer: {message}"),
            too_long: false,
        }
    }

    /// The question has been asked under this key, and was another one.
    pub(super) fn other_question(key: &str) -> Self {
        let message = format!(
            "the key {key:?} stands for another question: ask this one under a key of its own"
        );
        Self {
            json: json!({"error": {"kind": "other_question", "message": &message}}),
            text: message,
            too_long: false,
        }
    }

    /// The same, with what the events of this process have told of it.
    pub(super) fn told(mut self, failed: Option<&Failed>) -> Self {
        let Some(Failed { fate, trail, .. }) = failed else { return self };
        let kind = match fate {
            Fate::Failed => "recovery_exhausted",
            Fate::Expired => "expired",
            Fate::Unknown => "unknown",
            Fate::Cancelled => "cancelled",
            Fate::Quarantined => "quarantined",
            _ => return self,
        };
        let mut error = self.json["error"].take();
        error["kind"] = kind.into();
        if let Some((_, _, ended)) = trail.last() {
            self.text = format!("{}: {ended}", self.text);
            error["message"] =
                format!("{}: {ended}", error["message"].as_str().unwrap_or_default()).into();
            if let (Ended::Fault { class, code }, Fate::Failed) = (ended, fate) {
                (error["class"], error["code"]) = (json!(class), json!(code));
            }
        }
        let attempt = |(child, attempt, ended): &(ChildPath, u32, Ended)| json!({"child": child, "attempt": attempt, "ended": ended});
        error["trail"] = trail.iter().map(attempt).collect();
        self.json = json!({ "error": error });
        self
    }

    pub(super) fn is_called_off(&self) -> bool {
        self.json["error"]["kind"] == "cancelled"
    }

    pub(super) fn of<Q>(error: &CallError<Q>) -> Self {
        let (kind, trail) = match error {
            CallError::Full { .. } => ("full", None),
            CallError::Refused { .. } => ("refused", None),
            CallError::Expired { trail, .. } => ("expired", Some(trail)),
            CallError::RecoveryExhausted { trail, .. } => ("recovery_exhausted", Some(trail)),
            CallError::Unknown { trail, .. } => ("unknown", Some(trail)),
            CallError::Quarantined { trail, .. } => ("quarantined", Some(trail)),
            CallError::Cancelled { .. } => ("cancelled", None),
            CallError::Stopped { .. } => ("stopped", None),
            CallError::Suspended { .. } => ("suspended", None),
            _ => ("other", None),
        };
        let mut body = json!({"kind": kind, "message": error.to_string()});
        if let CallError::RecoveryExhausted { fault, .. } = error {
            body["class"] = json!(fault.class);
            body["code"] = json!(fault.code);
        }
        if let Some(wait) = error.retry_after() {
            body["retry_after"] = json!(wait.as_secs_f64());
        }
        if let Some(Trail(attempts)) = trail {
            body["trail"] = json!(attempts);
        }
        let too_long = matches!(
            error,
            CallError::RecoveryExhausted { fault, .. } if is_too_long(fault)
        );
        Self { text: format!("no answer: {error}"), json: json!({"error": body}), too_long }
    }
}

/// Whether this is, in the end, about a text that is too long.
fn is_too_long(fault: &Fault) -> bool {
    let inner = fault.source.as_ref().and_then(|source| source.downcast_ref::<Fault>());
    fault.class == Class::ContextLength || inner.is_some_and(is_too_long)
}

impl Outcome {
    pub(super) fn as_json(&self, took: Duration) -> Value {
        let mut body = json!({
            "text": self.text,
            "served_by": self.served_by,
            "degraded": self.degraded,
            "defaulted": self.defaulted,
            "attempts": self.attempts,
            "steps": self.steps,
            "tools_used": self.tools_used,
            "tokens": self.cost.map(|cost| cost.tokens),
            "money_micros": self.cost.map(|cost| cost.money_micros),
            "elapsed_ms": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        });
        if self.taken_up {
            body["taken_up"] = json!(true);
        }
        if !self.left_out.is_nothing() {
            body["left_out"] = json!(self.left_out);
        }
        if !self.stood_in.is_empty() {
            let all: Vec<_> = self.stood_in.iter().map(StoodIn::as_json).collect();
            body["stood_in"] = json!(all);
        }
        body
    }

    /// The line below an answer.
    pub(super) fn footer(&self, took: Duration) -> String {
        let mut parts = Vec::new();
        if let Some(who) = &self.served_by {
            parts.push(format!("by {who}"));
        }
        if self.taken_up {
            parts.push("asked before, taken up again".to_owned());
        }
        if self.defaulted {
            parts.push("a default answer".to_owned());
        } else if self.degraded {
            parts.push("degraded".to_owned());
        }
        for StoodIn { by, defaulted, by_person, .. } in &self.stood_in {
            let what = match (*by_person, *defaulted) {
                (true, _) => "a person in the place of",
                (false, true) => "a default of",
                (false, false) => "rests on",
            };
            parts.push(format!("{what} {by}"));
        }
        let tool = |tool: &ToolUse| match tool.failed {
            Some(class) => format!("{} ({class})", tool.name),
            None => tool.name.clone(),
        };
        if !self.tools_used.is_empty() {
            let tools: Vec<_> = self.tools_used.iter().map(tool).collect();
            parts.push(format!("tools {}", tools.join(", ")));
        }
        if let Some(steps) = self.steps {
            parts.push(if steps == 1 { "1 step".to_owned() } else { format!("{steps} steps") });
        }
        let Cost { tokens, money_micros } = self.cost.unwrap_or_default();
        if tokens > 0 {
            parts.push(format!("{tokens} tokens"));
        }
        if money_micros > 0 {
            parts.push(format!("{:.6} paid", money_micros as f64 / 1e6));
        }
        parts.push(format!("{:.2} s", took.as_secs_f64()));
        format!("  ({})", parts.join("; "))
    }
}

/// What is worth a line while somebody waits.
pub(super) fn line(event: &Event) -> Option<String> {
    Some(match event {
        Event::Failed { child, attempt, ended, .. } => {
            format!("{child}: attempt {attempt} failed: {ended}")
        }
        Event::Decided { child, decision, to, asks: true, .. } => {
            let to = to.as_ref().map(|to| format!(" to {to}")).unwrap_or_default();
            let what = decision.action.name();
            format!("{child}: {what}{to}, unless a person decides otherwise")
        }
        Event::Decided { child, decision, to, .. } => match to {
            Some(to) => format!("{child}: {} to {to}", decision.action.name()),
            None => format!("{child}: {decision}"),
        },
        // A life that was to end is no news.
        Event::Exited { cause: ExitKind::Normal | ExitKind::Stopped, .. } => return None,
        Event::Exited { child, cause, .. } => format!("{child}: its life ended: {cause}"),
        Event::Restarting { child, .. } => format!("{child}: restarting"),
        Event::ChildQuarantined { child, .. } => {
            format!("{child}: set aside, it restarts too often")
        }
        Event::Noted { child, what, count, .. } => {
            format!("{child}: {}: {count}", what.replace('_', " "))
        }
        Event::Escalated { supervisor, .. } => format!("{supervisor}: gave up"),
        Event::Checkpointed { child, step, .. } => format!("{child}: checkpoint at step {step}"),
        Event::Circuit { child, state } => format!("{child}: circuit {state}"),
        Event::Switched { group, from, to, .. } => {
            format!("{group}: {to} serves instead of {from}")
        }
        Event::Hedged { group, to, after, .. } => {
            format!("{group}: no answer after {} ms, {to} is asked, too", after.as_millis())
        }
        Event::PointClosed { child, point, decision, by_person, .. } => {
            let who = if *by_person { "a person" } else { "nobody in time" };
            format!("{child}: #{point} decided by {who}: {decision}")
        }
        Event::Alert { child, attempts, .. } => {
            format!("{child}: alert S59: no rung is left after {attempts} attempts")
        }
        _ => return None,
    })
}
