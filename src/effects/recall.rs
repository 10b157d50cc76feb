//! What a request was answered with, for its replay: the outcomes of its effects, and of the questions that
//! are written down.
//!
//! *Invariant.* A replay changes nothing and asks nobody: what is not in the record is a fault.

use std::sync::Arc;

use super::{Effects, Site, recorded, unreadable};
use crate::fault::Fault;
use crate::ledger::{EffectKey, EffectStatus, Happened, Record};
use crate::port::{Call, Outcome, Tie};

/// The code of a fault that ends a replay.
pub(crate) const NOT_RECORDED: &str = "not_recorded";

impl Effects {
    /// Makes a call that is no effect, and writes down what came of it if that is to be recorded.
    pub(crate) async fn ask(self: Arc<Self>, site: Site, call: Call, tie: Arc<Tie>) -> Outcome {
        let written = self.journal.get().and_then(|journal| Some((journal, call.written()?)));
        let Some((journal, written)) = written else {
            return call.make(tie, None).await.map_err(Fault::from);
        };
        let tool = call.target().clone();
        let outcome = call.make(tie, None).await.map_err(Fault::from);
        // What cannot be written down cannot be replayed: nothing else follows from it.
        let Ok(request) = &written.request else { return outcome };
        let status = match &outcome {
            Ok(answer) => match (written.encode)(&answer.value) {
                Ok(result) => EffectStatus::Confirmed(Happened {
                    result,
                    served_by: (answer.served_by != tool).then(|| answer.served_by.clone()),
                    degraded: answer.degraded,
                    defaulted: answer.defaulted,
                    stands: false,
                }),
                Err(_) => return outcome,
            },
            Err(fault) => EffectStatus::Failed(fault.clone()),
        };
        let key = EffectKey::of(&site.task, site.step, site.ordinal, &tool, request);
        let record = Record::Asked(site.task, key, status);
        self.used.store(true, std::sync::atomic::Ordering::Relaxed);
        self.ledger.lock().apply(record.clone());
        // Before the state that is made of it, which is written later. Lost with the process it is asked
        // for again.
        journal.note(record);
        outcome
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
                None => return Err(missing("is no effect, and its answer was not recorded")),
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
