//! Questions to those whose requests survive the process: a step that is done again joins what it asked for
//! before, and whoever is asked does its work once.
//!
//! *Invariant.* A question is known by its task, its logical step, its place in the step, whom it is asked of
//! and what it is. One that is open is waited for, and one that was answered is not asked again, unless its
//! asker went back to before it and nothing that was done for it stands.

use std::fmt;
use std::sync::Arc;

use super::dispatch::happened;
use super::{Asked, EFFECT_UNKNOWN, Effects, Site, recorded};
use crate::fate::{Answer, Cost, Fate, Given};
use crate::fault::{Class, Fault};
use crate::id::{ChildPath, EffectKey};
use crate::ledger::EffectStatus;
use crate::port::{Call, Outcome, Question, Tie};

/// The code of a fault that tells of work that was done and whose answer is not kept any more.
const ANSWER_FORGOTTEN: &str = "answer_forgotten";

/// The idempotency key under which a step asks somebody durable:
/// `<task>/<step>.<ordinal><mark><digest>`. The mark says whether answering twice does no harm (`-`) or may
/// (`!`); the digest is of whom and what is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AskKey<'a> {
    pub(crate) task: &'a str,
    step: u64,
    ordinal: u32,
    may_repeat: bool,
    digest: u64,
}

impl<'a> AskKey<'a> {
    fn of(site: &'a Site, target: &ChildPath, request: &[u8], may_repeat: bool) -> Self {
        let Site { task, step, ordinal, .. } = site;
        let digest = digest(task, (*step, *ordinal), target, request);
        Self { task, step: *step, ordinal: *ordinal, may_repeat, digest }
    }

    /// What a key says that was made so; `None` of one that was not.
    fn read(key: &'a str) -> Option<Self> {
        let (task, name) = key.rsplit_once('/')?;
        let at = name.find(['-', '!'])?;
        let (place, digest) = name.split_at(at);
        let may_repeat = digest.starts_with('-');
        let digest = digest.get(1..).filter(|digest| digest.len() == 16)?;
        let digest = u64::from_str_radix(digest, 16).ok()?;
        let (step, ordinal) = place.split_once('.')?;
        let (step, ordinal) = (step.parse().ok()?, ordinal.parse().ok()?);
        let read = Self { task, step, ordinal, may_repeat, digest };
        (read.to_string() == key).then_some(read)
    }

    /// The key of a request as the runtime has made it for a step of another one: `None` of any other key,
    /// whatever it looks like.
    pub(crate) fn verified(key: &'a str, target: &ChildPath, request: &[u8]) -> Option<Self> {
        Self::read(key)
            .filter(|it| it.digest == digest(it.task, (it.step, it.ordinal), target, request))
    }
}

impl fmt::Display for AskKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.may_repeat { '-' } else { '!' };
        let Self { task, step, ordinal, digest, .. } = self;
        write!(f, "{task}/{step}.{ordinal}{mark}{digest:016x}")
    }
}

fn digest(task: &str, (step, ordinal): (u64, u32), target: &ChildPath, request: &[u8]) -> u64 {
    let key = EffectKey::of(task, step, ordinal, target, request);
    key.as_bytes().iter().take(8).fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
}

impl Effects {
    /// Makes a call that is no effect; one that was made before, by this process or another, is joined. Its
    /// `effect` is how it is known in the ledger, if it is. Also says what an answer has cost, whether or not
    /// that was told before.
    pub(super) async fn asked(
        &self,
        site: &Site,
        effect: Option<EffectKey>,
        call: Call,
        tie: Arc<Tie>,
    ) -> (Outcome, Cost) {
        let cost =
            |outcome: &Outcome| outcome.as_ref().map_or_else(|_| Cost::default(), |it| it.cost);
        let question = self.journal.get().and_then(|_| call.question());
        // What cannot be written down is refused by whom it is asked of.
        let question = question.and_then(|it| Some((it.request.clone().ok()?, it)));
        let Some((request, question)) = question else {
            let outcome = call.make(tie, None).await.map_err(Fault::from);
            let cost = cost(&outcome);
            return (outcome, cost);
        };
        let Site { task, step, ordinal, .. } = site;
        let effect =
            effect.unwrap_or_else(|| EffectKey::of(task, *step, *ordinal, call.target(), &request));
        let key = AskKey::of(site, call.target(), &request, question.may_repeat).to_string();
        let key: Arc<str> = Arc::from(key);
        self.opens(site, &tie);
        // What it costs is told to whoever asked, and once.
        let tell = |cost| tie.note_cost(self.due_in_vain(site, effect, cost, &tie));
        if let Some(outcome) = self.answer_to(&key, call.target(), &question, tell).await {
            let cost = cost(&outcome);
            let outcome = outcome.map(|mut answer| {
                answer.cost = self.due(site, effect, cost, &tie);
                tie.note(&answer);
                answer
            });
            return (outcome, cost);
        }
        self.makes(site, effect);
        let outcome = call.make(tie, Some(key)).await.map_err(Fault::from);
        self.heard(site, effect);
        let cost = cost(&outcome);
        (outcome, cost)
    }

    /// What came of what was asked under this key before; `None` when it is to be asked. What it has cost for
    /// nothing is told.
    async fn answer_to(
        &self,
        key: &Arc<str>,
        target: &ChildPath,
        question: &Question,
        tell: impl Fn(Cost),
    ) -> Option<Outcome> {
        let journal = self.journal.get()?;
        loop {
            let told = journal.told();
            match journal.known(key)? {
                Asked::Open => told.await,
                // Of an answer whose text is not kept any more nothing else can be told.
                Asked::Done(None) if question.may_repeat => {
                    if let Err(fault) = journal.let_go(&[Arc::clone(key)]).await {
                        return Some(Err(fault));
                    }
                }
                Asked::Over(fate) if question.may_repeat || is_untouched(fate) => {
                    tell(journal.given(key).cost);
                    if let Err(fault) = Arc::clone(journal).free(key).await {
                        return Some(Err(fault));
                    }
                }
                ended => {
                    let given = journal.given(key);
                    if !matches!(ended, Asked::Done(Some(_))) {
                        tell(given.cost);
                    }
                    return Some(told_of(ended, target, question, given));
                }
            }
        }
    }

    /// What came of it when the request was handled first.
    pub(super) fn recall_answer(&self, site: &Site, call: &Call) -> Option<Outcome> {
        let question = call.question()?;
        let request = question.request.as_ref().ok()?;
        let key = AskKey::of(site, call.target(), request, question.may_repeat).to_string();
        let journal = self.journal.get()?;
        match journal.known(&key)? {
            done @ Asked::Done(Some(_)) => {
                // It was paid for when the request was handled first.
                let given = Given { cost: Cost::default(), ..journal.given(&key) };
                told_of(done, call.target(), &question, given).ok().map(Ok)
            }
            _ => None,
        }
    }

    /// Whether others have been asked for something by this task at a later step.
    pub(super) fn has_asked_since(&self, task: &str, step: u64) -> bool {
        let asked = self.journal.get().map(|journal| journal.asked_by(task)).unwrap_or_default();
        asked.iter().any(|(key, _)| direct(task, key).is_some_and(|it| it.step > step))
    }

    /// What others have answered this task at this step and later, and is to be asked anew when the task goes
    /// back to there: all but that for which something was done to the world that stands.
    pub(crate) fn given_up(&self, task: &str, step: u64) -> Vec<Arc<str>> {
        let Some(journal) = self.journal.get() else { return Vec::new() };
        let asked = journal.asked_by(task);
        let mut given_up = Vec::new();
        for (key, answered) in &asked {
            let from_here = direct(task, key).is_some_and(|it| it.step >= step);
            if !from_here || !answered {
                continue;
            }
            let below = |other: &str| other == &**key || is_below(other, key);
            let parts: Vec<_> = asked.iter().filter(|(other, _)| below(other)).collect();
            let acts = |other: &str| AskKey::read(other).is_some_and(|it| !it.may_repeat);
            if !parts.iter().any(|(other, _)| acts(other)) && !self.stands_below(key) {
                let answered = parts.iter().filter(|(_, answered)| *answered);
                given_up.extend(answered.map(|(other, _)| Arc::clone(other)));
            }
        }
        given_up
    }

    /// As [`Effects::given_up`], which is let go of for good.
    pub(crate) async fn give_up(&self, task: &str, step: u64) -> Result<(), Fault> {
        let keys = self.given_up(task, step);
        match self.journal.get() {
            Some(journal) if !keys.is_empty() => journal.let_go(&keys).await,
            _ => Ok(()),
        }
    }

    /// Whether something that was done for this request, or for what it asked for, may stand in the world.
    fn stands_below(&self, task: &str) -> bool {
        let ledger = self.ledger.lock();
        let mut acts = ledger.below(task).filter(|entry| entry.intent.kind.acts());
        acts.any(|entry| may_stand(&entry.status))
    }

    /// Whether the tool of an effect without an outcome was asked under this key, by a task that is open.
    pub(crate) fn waits_for(&self, key: &str, is_open: impl Fn(&str) -> bool) -> bool {
        // Not asked under the lock: a journal that is written anew takes both the other way round.
        let task = {
            let ledger = self.ledger.lock();
            let entry = ledger.asked_under(key).filter(|it| it.status == EffectStatus::Intended);
            entry.map(|entry| Arc::clone(&entry.intent.task))
        };
        task.is_some_and(|task| is_open(&task))
    }
}

/// What this task itself asked for.
fn direct<'a>(task: &str, key: &'a str) -> Option<AskKey<'a>> {
    AskKey::read(key).filter(|it| it.task == task)
}

fn is_below(key: &str, task: &str) -> bool {
    key.strip_prefix(task).is_some_and(|rest| rest.starts_with('/'))
}

/// Whether nothing can have been done by what may not be done twice.
pub(super) fn is_untouched(fate: Fate) -> bool {
    matches!(fate, Fate::Expired | Fate::Cancelled | Fate::Stopped)
}

/// Whether an effect with this status may be there.
pub(super) fn may_stand(status: &EffectStatus) -> bool {
    match status {
        EffectStatus::Intended
        | EffectStatus::Unknown
        | EffectStatus::Confirmed(_)
        | EffectStatus::Left(_)
        | EffectStatus::Failed(_)
        | EffectStatus::Compensating
        | EffectStatus::Stuck(_) => true,
        EffectStatus::Rejected | EffectStatus::Compensated => false,
    }
}

fn told_of(ended: Asked, target: &ChildPath, question: &Question, given: Given) -> Outcome {
    match ended {
        Asked::Done(Some(reply)) => {
            let value = (question.read)(reply.as_bytes()).map_err(|error| {
                Fault::internal(format!(
                    "the recorded answer of \"{target}\" cannot be read: {error}"
                ))
            })?;
            let cost = given.cost;
            Ok(Answer { cost, ..recorded(value, target, happened(String::new(), given)) })
        }
        Asked::Done(None) => {
            let text =
                format!("\"{target}\" has answered this, and the answer is not kept any more");
            Err(Fault::new(Class::Indeterminate, text).with_code(ANSWER_FORGOTTEN))
        }
        Asked::Over(Fate::Unknown) => {
            let text = format!("nobody knows whether what was asked of \"{target}\" was done");
            Err(Fault::new(Class::Indeterminate, text).with_code(EFFECT_UNKNOWN).effect_unknown())
        }
        Asked::Aside => {
            let text =
                format!("what was asked of \"{target}\" has ended two lives, and was set aside");
            Err(Fault::new(Class::Exhausted, text))
        }
        Asked::Over(fate) => {
            let text = format!("what was asked of \"{target}\" has ended as {fate:?}");
            Err(Fault::new(Class::Exhausted, text))
        }
        Asked::Open => Err(Fault::internal("it is open")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::EffectKind;
    use crate::ledger::{Intent, Record};

    #[test]
    fn a_key_says_what_it_was_made_of_and_no_other_key_does() {
        let owner = ChildPath::from("desk/agent");
        let (task, owner_of) = (Arc::from("t/1"), owner.clone());
        let site = Site { task, owner: owner_of, step: 3, ordinal: 1, before: None };
        for may_repeat in [true, false] {
            let made = AskKey::of(&site, &owner, b"7", may_repeat);
            let text = made.to_string();
            assert_eq!(AskKey::verified(&text, &owner, b"7"), Some(made), "{text}");
            assert_eq!(AskKey::verified(&text, &owner, b"8"), None);
            assert_eq!(AskKey::verified(&text, &"desk/other".into(), b"7"), None);
            assert_eq!(direct("t/1", &text), Some(made));
            assert_eq!(direct("t", &text), None);
        }
        for other in ["", "t-1", "t/1", "t/3.1-", "t/3.1-00", "t/+3.1-0000000000000000", "a/b-c"] {
            assert_eq!(AskKey::read(other), None, "{other}");
        }
    }

    /// The journal takes both the other way round.
    #[test]
    fn nobody_is_asked_what_is_open_while_the_ledger_is_locked() {
        let effects = Effects::new(|_| {});
        let (tool, request) = (ChildPath::from("desk/tool"), Arc::<[u8]>::from(b"7".as_slice()));
        let intent = Intent {
            key: EffectKey::of("t-1", 0, 0, &tool, &request),
            task: Arc::from("t-1"),
            owner: "desk/agent".into(),
            step: 0,
            ordinal: 0,
            tool,
            kind: EffectKind::Idempotent,
            request,
            undo: None,
        };
        let key = intent.key;
        effects.ledger.lock().apply(Record::Intent(intent, 0));
        let asked = effects.ledger.lock().get(key).unwrap().idempotency_key();
        let is_free = |task: &str| task == "t-1" && effects.ledger.try_lock().is_some();
        assert!(effects.waits_for(&asked, is_free));
        effects.take_up(is_free);
        assert_eq!(effects.ended.lock().count(), 1);
    }

    #[test]
    fn only_what_begins_with_a_key_and_a_slash_is_below_it() {
        assert!(is_below("t-1/x", "t-1"));
        assert!(!is_below("t-10/x", "t-1") && !is_below("t-1", "t-1"));
    }
}
