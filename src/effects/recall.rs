//! What a request was answered with, for its replay: the outcomes of its effects, and of the questions that
//! are written down.
//!
//! *Invariant.* A replay changes nothing and asks nobody: what is not in the record is a fault.

use std::sync::Arc;

use super::joined::may_stand;
use super::{Effects, Site, recorded, unreadable};
use crate::fate::Answer;
use crate::fault::Fault;
use crate::ledger::{EffectKey, EffectStatus, Happened, Record};
use crate::port::{Call, Outcome, Tie};

/// The code of a fault that ends a replay.
pub(crate) const NOT_RECORDED: &str = "not_recorded";

impl Effects {
    /// Makes a call that is no effect, and writes down what came of it if that is to be recorded. What was
    /// answered before, and has led to an act since, is not asked for again.
    pub(crate) async fn ask(self: Arc<Self>, site: Site, call: Call, tie: Arc<Tie>) -> Outcome {
        let written = call.written();
        // What cannot be written down cannot be replayed: nothing else follows from it.
        let written = written.and_then(|it| Some((it.request.clone().ok()?, it)));
        let Some((request, written)) = written else {
            return self.asked(&site, None, call, tie).await.0;
        };
        let tool = call.target().clone();
        let key = EffectKey::of(&site.task, site.step, site.ordinal, &tool, &request);
        self.opens(&site, &tie);
        if let Some(happened) = self.led_to_an_act(&site, key)
            && let Ok(value) = (written.decode)(&happened.result)
        {
            let cost = self.due(&site, key, happened.cost, &tie);
            let answer = Answer { cost, ..recorded(value, &tool, happened) };
            tie.note(&answer);
            return Ok(answer);
        }
        let (outcome, mut cost) = self.asked(&site, Some(key), call, tie).await;
        if outcome.as_ref().is_ok_and(|answer| answer.attempts > 0)
            && let Some(EffectStatus::Confirmed(earlier)) =
                self.ledger.lock().recalled(&site.task, key)
        {
            // Asked anew, it was paid for twice.
            cost.add(earlier.cost);
        }
        let status = match &outcome {
            Ok(answer) => match (written.encode)(&answer.value) {
                Ok(result) => EffectStatus::Confirmed(Happened {
                    result,
                    served_by: (answer.served_by != tool).then(|| answer.served_by.clone()),
                    degraded: answer.degraded,
                    defaulted: answer.defaulted,
                    stands: false,
                    cost,
                }),
                Err(_) => return outcome,
            },
            Err(fault) => EffectStatus::Failed(fault.clone()),
        };
        let record = Record::Asked(site.task, key, status);
        self.used.store(true, std::sync::atomic::Ordering::Relaxed);
        self.ledger.lock().apply(record.clone());
        // Before the state that is made of it and the acts it leads to, which are written later. Lost with the
        // process it is asked for again.
        if let Some(journal) = self.journal.get() {
            journal.note(record);
        }
        outcome
    }

    /// What was answered to this question before, if the task has acted since and that stands: asked anew it
    /// might be told something else, and act once more.
    fn led_to_an_act(&self, site: &Site, key: EffectKey) -> Option<Happened> {
        let ledger = self.ledger.lock();
        let Some(EffectStatus::Confirmed(happened)) = ledger.recalled(&site.task, key) else {
            return None;
        };
        let acts = ledger.of_task(&site.task);
        let led = acts.iter().any(|act| {
            act.intent.kind.acts() && act.intent.step > site.step && may_stand(&act.status)
        });
        let happened = happened.clone();
        drop(ledger);
        // Who was asked since may have acted for the task.
        (led || self.has_asked_since(&site.task, site.step)).then_some(happened)
    }

    /// What came of a call when the request was handled first.
    ///
    /// # Errors
    /// That is not in the record, and nobody is asked.
    pub(crate) fn recall(&self, site: &Site, call: &Call) -> Result<Outcome, Fault> {
        let tool = call.target();
        let missing = |why: &str| {
            let step = site.step;
            let told = format!("what step {step} asked of \"{tool}\" {why}");
            Fault::internal(told).with_code(NOT_RECORDED)
        };
        let (request, decode) = match &call.act {
            Some(act) => (act.request.clone(), act.decode),
            None => match call.written() {
                Some(written) => (written.request, written.decode),
                None => {
                    let why = "is no effect, and its answer was not recorded";
                    return self.recall_answer(site, call).ok_or_else(|| missing(why));
                }
            },
        };
        let request = request.map_err(|error| missing(&format!("cannot be read: {error}")))?;
        let key = EffectKey::of(&site.task, site.step, site.ordinal, tool, &request);
        let recalled = self.ledger.lock().recalled(&site.task, key).cloned();
        match recalled {
            Some(EffectStatus::Confirmed(happened) | EffectStatus::Left(happened)) => {
                let value = decode(&happened.result)
                    .map_err(|error| unreadable(key, &error).with_code(NOT_RECORDED))?;
                Ok(Ok(recorded(value, tool, happened)))
            }
            Some(EffectStatus::Failed(fault)) => Ok(Err(fault)),
            Some(other) => Err(missing(&format!("is {} by now", other.name()))),
            None => Err(missing("is not in the record")),
        }
    }
}
