//! `[points]`: where a person may decide what becomes of a request that retries, substitutes or a
//! rollback could not help.
//!
//! *Invariant.* The runtime decides when a point opens and what may be chosen; here it is only named.

use std::time::Duration;

use mainstay::decision::Rung;
use mainstay::points::{Choice, Point, PointError, PointSpec, PointsRef};
use mainstay_actors::agent::AgentReply;
use mainstay_actors::chat::ChatReply;
use serde::Deserialize;
use serde_json::json;
use toml::Spanned;

use super::build::answers;
use super::file::{Span, TreeFile};
use super::people::{Shown, Word};
use super::snag::Snag;

/// The longest wait for a person: as long as a checkpoint stays pinned for them.
const LONGEST: Duration = mainstay::checkpoint::LONGEST_PIN;

/// What is done when nobody decides in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Undecided {
    #[default]
    Continue,
    Abort,
    RetryAgain,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Points {
    pub(crate) at_once: Option<Spanned<Span>>,
    pub(crate) after_retry: Option<Spanned<Span>>,
    pub(crate) after_substitute: Option<Spanned<Span>>,
    pub(crate) after_rollback: Option<Spanned<Span>>,
    pub(crate) otherwise: Option<Spanned<Undecided>>,
}

impl Points {
    fn waits(&self) -> [(&'static str, Option<&Spanned<Span>>); 4] {
        [
            ("at_once", self.at_once.as_ref()),
            ("after_retry", self.after_retry.as_ref()),
            ("after_substitute", self.after_substitute.as_ref()),
            ("after_rollback", self.after_rollback.as_ref()),
        ]
    }
}

/// What the section says to the runtime.
pub(crate) fn spec(file: &TreeFile) -> PointSpec {
    let mut spec = PointSpec::new();
    let Some(section) = file.points.as_ref().map(Spanned::get_ref) else { return spec };
    let wait = |span: &Option<Spanned<Span>>| span.as_ref().map(|span| span.get_ref().0);
    spec.at_once = wait(&section.at_once);
    spec.after_retry = wait(&section.after_retry);
    spec.after_substitute = wait(&section.after_substitute);
    spec.after_rollback = wait(&section.after_rollback);
    let otherwise = section.otherwise.as_ref().map(|it| *it.get_ref()).unwrap_or_default();
    spec.otherwise(match otherwise {
        Undecided::Continue => Choice::Continue,
        Undecided::Abort => Choice::Abort,
        Undecided::RetryAgain => Choice::RetryAgain,
    })
}

/// How long a person has where nobody can be heard. Not nothing: who is only told decides nothing, and what
/// is to be done otherwise would not be.
pub(crate) const NOBODY: Duration = Duration::from_millis(1);

impl Points {
    /// Has nobody be waited for: what is done otherwise is done at once.
    pub(crate) fn wait_for_nobody(&mut self) {
        let Self { at_once, after_retry, after_substitute, after_rollback, otherwise: _ } = self;
        for wait in [at_once, after_retry, after_substitute, after_rollback].into_iter().flatten() {
            wait.get_mut().0 = NOBODY;
        }
    }
}

/// How long a request may take in all, so that people have the time that the file gives them; `None`
/// where nobody is waited for. The runtime gives them at most half of what is left.
pub(crate) fn patience(file: &TreeFile) -> Option<Duration> {
    /// For the attempts themselves.
    const WORK: Duration = Duration::from_secs(600);
    let spec = spec(file);
    let waits = [spec.at_once, spec.after_retry, spec.after_substitute, spec.after_rollback];
    let sum: Duration = waits.into_iter().flatten().sum();
    (!sum.is_zero()).then(|| WORK + sum * 2)
}

/// What is wrong with the section.
pub(crate) fn verify(file: &TreeFile, snags: &mut Vec<Snag>) {
    let Some(points) = &file.points else { return };
    let waits = points.get_ref().waits();
    if waits.iter().all(|(_, wait)| wait.is_none()) {
        let hint = "add `after_retry`, `after_substitute` or `after_rollback`, such as \"5m\"";
        let message = "[points] at which nobody is waited for";
        snags.push(Snag::new(points.span(), message, "no time is given", hint));
    }
    for (key, wait) in waits {
        let Some(wait) = wait.filter(|wait| wait.get_ref().0 > LONGEST) else { continue };
        let hint = "write `\"24h\"` or less: what waits keeps its checkpoint for so long";
        snags.push(Snag::new(wait.span(), format!("`{key}` above 24 h"), "at most 24 h", hint));
    }
}

/// What is shown of a point that is open.
pub(crate) fn show(point: &Point, spec: &PointSpec) -> Shown {
    let failed = match point.after {
        None => "and nothing else may help",
        Some(Rung::Retry) => "after its retries",
        Some(Rung::Substitute) => "after its substitutes",
        Some(Rung::Rollback) => "after its rollback",
        Some(Rung::Escalate) => "after its ladder",
    };
    let class = point.class.map_or("the end of a life", |class| class.name());
    let again = point.choices.contains(&Choice::RetryAgain);
    let otherwise = match spec.otherwise {
        Choice::Abort => "it fails".to_owned(),
        Choice::RetryAgain if again => "tried once more".to_owned(),
        _ => format!("the ladder goes on: {}", point.proposed),
    };
    let wait = point.until.since(point.since).as_secs_f64();
    Shown {
        id: format!("#{}", point.id),
        asked: format!("{} has failed {failed} ({class})", point.child),
        otherwise: format!("{otherwise}, after {wait} s"),
        again,
    }
}

/// Does what a person says about a point; what is wrong with it otherwise.
pub(crate) fn decide(
    points: &PointsRef,
    id: u64,
    word: Word,
    text: &str,
    by: &str,
) -> Result<(), String> {
    let choice = match word {
        Word::Answer => return answer(points, id, text, by).map_err(|error| error.to_string()),
        Word::Refuse => Choice::Abort,
        Word::Pass => Choice::Continue,
        Word::Again => Choice::RetryAgain,
    };
    points.decide(id, choice, by, text).map_err(|error| error.to_string())
}

/// An answer in the place of whoever failed: an agent, a model or a tool.
fn answer(points: &PointsRef, id: u64, text: &str, by: &str) -> Result<(), PointError> {
    let why = "an answer of their own";
    let other = |error: &PointError| matches!(error, PointError::WrongType { .. });
    let mut said = points.answer(id, ChatReply::text(text), by, why);
    if said.as_ref().is_err_and(other) {
        said = points.answer(id, answers::result(text), by, why);
    }
    let reply = json!({"text": text, "steps": 0, "tools_used": []});
    match serde_json::from_value::<AgentReply>(reply) {
        Ok(reply) if said.as_ref().is_err_and(other) => points.answer(id, reply, by, why),
        _ => said,
    }
}
