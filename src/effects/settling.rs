//! The effects of a system as people see and settle them.
//!
//! *Invariant.* What is shown holds no user data unless it says so, and nothing is settled that is not
//! open.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::Effects;
use crate::error::ResolveError;
use crate::fault::EffectKind;
use crate::id::ChildPath;
use crate::ledger::{EffectCounts, EffectKey, EffectStatus, Entry, Input, Resolution, Said};
use crate::text;

/// The effects of a system, for looking at them and for settling what only a person can.
#[derive(Clone)]
pub struct EffectsRef {
    effects: Arc<Effects>,
    said: Option<Arc<Said>>,
}

impl fmt::Debug for EffectsRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EffectsRef").field("counts", &self.counts()).finish()
    }
}

/// An effect as a person sees it. Holds no user data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct EffectView {
    /// The effect.
    pub key: EffectKey,
    /// The child that acts.
    pub owner: ChildPath,
    /// The tool.
    pub tool: ChildPath,
    /// The idempotency key of the request it belongs to.
    pub task: String,
    /// Which step of the request.
    pub step: u64,
    /// Which act of the step.
    pub ordinal: u32,
    /// What the tool does to the world.
    pub kind: EffectKind,
    /// What is known: `confirmed`, `unknown`, `stuck`, ...
    pub status: &'static str,
    /// Who has said that this is its status, and why ([`EffectsRef::by`]); `None` once it is another without a name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub said: Option<Said>,
}

impl EffectsRef {
    pub(crate) fn new(effects: Arc<Effects>) -> Self {
        Self { effects, said: None }
    }

    /// The same, for this person to speak, who has this reason: both are written down with whatever is said
    /// by what this returns, and listed with the effect ([`EffectView::said`]), also by the next process,
    /// as long as what was said is what is known of it.
    ///
    /// # Default
    /// Nobody's name: what is said counts as much.
    #[must_use = "it is who speaks, and has said nothing yet"]
    pub fn by(&self, by: impl Into<String>, why: impl Into<String>) -> Self {
        Self { effects: Arc::clone(&self.effects), said: Some(Arc::new(Said::new(by, why))) }
    }

    /// How many effects there are of each status.
    pub fn counts(&self) -> EffectCounts {
        self.effects.ledger.lock().counts()
    }

    /// Every effect that is known, in the order of the intents.
    pub fn list(&self) -> Vec<EffectView> {
        let ledger = self.effects.ledger.lock();
        ledger.entries().into_iter().map(view).collect()
    }

    /// Those that wait for a person: unknown, stuck in their undo, with an undo that could not be asked for,
    /// or left standing where the undo of their task stopped.
    pub fn open(&self) -> Vec<EffectView> {
        let undoing = self.effects.undoing.lock().clone();
        let ledger = self.effects.ledger.lock();
        let waits = |entry: &&Entry| match entry.status {
            EffectStatus::Unknown | EffectStatus::Stuck(_) | EffectStatus::Left(_) => true,
            EffectStatus::Compensating => !undoing.contains(&entry.intent.key),
            _ => false,
        };
        ledger.entries().into_iter().filter(waits).map(view).collect()
    }

    /// Those that are still to be undone, since their requests have ended without an answer, the earliest first: the
    /// undoing goes on, and the next process goes on with it, if a store has them. Not those that are being undone, nor
    /// those that [wait for a person](Self::open).
    pub fn owed(&self) -> Vec<EffectView> {
        let ledger = self.effects.ledger.lock();
        ledger.owed().into_iter().map(view).collect()
    }

    /// What was asked of the tool, as JSON, for the person who has to find out. Holds user data.
    pub fn request(&self, key: EffectKey) -> Option<String> {
        let ledger = self.effects.ledger.lock();
        ledger.get(key).map(|entry| String::from_utf8_lossy(&entry.intent.request).into_owned())
    }

    /// Says that an unknown effect did happen, with this result: a step that asks for it again is
    /// given the result. Where the undo of its task has stopped at it, it goes on if this one can be undone; if
    /// not, it is left standing with those before it, until it is said to be [undone](Self::undone).
    ///
    /// # Errors
    /// The effect is not known or not open; the result cannot be recorded, or the journal not written.
    pub async fn happened<R: Serialize>(
        &self,
        key: EffectKey,
        result: &R,
    ) -> Result<(), ResolveError> {
        let result = text::canonical(result).map_err(ResolveError::Result)?;
        let result = Arc::from(result);
        match self.effects.stops_at(key) {
            true => self.settle(key, is_unknown, Input::FoundLeft(key, result)).await,
            false => self.resolve(key, Resolution::Happened(result)).await,
        }
    }

    /// Says that an unknown effect did not happen and will not: a step that asks for it again has it
    /// take place. Where the undo of its task, which has ended, has stopped at it, it goes on: what was left
    /// standing before it is undone, the latest first, by the next process if none runs on the store.
    ///
    /// # Errors
    /// The effect is not known or not open, or the journal cannot be written.
    pub async fn did_not_happen(&self, key: EffectKey) -> Result<(), ResolveError> {
        self.resolve(key, Resolution::NotHappened).await
    }

    /// Says that an effect whose undo is stuck or could not be asked for, or which was left standing, has been
    /// undone by hand. Where the undo of its task, which has ended, has stopped at it, it goes on with those
    /// before it: of what you have undone by hand, say so from the earliest to the latest.
    ///
    /// # Errors
    /// The effect is not known or none of these, its tool is being asked to undo it, or the journal cannot be
    /// written.
    pub async fn undone(&self, key: EffectKey) -> Result<(), ResolveError> {
        let is_asked = || self.effects.undoing.lock().contains(&key);
        let fits = |status: &EffectStatus| match status {
            EffectStatus::Stuck(_) | EffectStatus::Left(_) => true,
            EffectStatus::Compensating => !is_asked(),
            _ => false,
        };
        self.settle(key, fits, Input::Undone(key)).await
    }

    /// Says that an effect which was left standing, where the undo of its task stopped, stands rightly. It is
    /// not undone by itself any more, also not by the next process. What was left standing before it waits for
    /// words of its own.
    ///
    /// # Errors
    /// The effect is not known or was not left standing, or the journal cannot be written.
    pub async fn stands(&self, key: EffectKey) -> Result<(), ResolveError> {
        let fits = |status: &EffectStatus| matches!(status, EffectStatus::Left(_));
        self.feed(key, fits, Input::Stands(key)).await
    }

    /// A person has found out that what a durable tool was asked under this key did not happen: so did not the
    /// act that it was asked for.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub(crate) async fn was_not_done(&self, request: &str) -> Result<(), ResolveError> {
        let key = {
            let ledger = self.effects.ledger.lock();
            let entry = ledger.asked_under(request);
            let unknown = entry.filter(|entry| entry.status == EffectStatus::Unknown);
            unknown.map(|entry| entry.intent.key)
        };
        match key {
            Some(key) => self.did_not_happen(key).await,
            None => Ok(()),
        }
    }

    async fn resolve(&self, key: EffectKey, resolution: Resolution) -> Result<(), ResolveError> {
        self.settle(key, is_unknown, Input::Resolved(key, resolution)).await
    }

    /// Something is certain now: what stood for that is undone.
    async fn settle(
        &self,
        key: EffectKey,
        fits: impl Fn(&EffectStatus) -> bool,
        input: Input,
    ) -> Result<(), ResolveError> {
        self.feed(key, fits, input).await?;
        self.effects.spoken_on(key);
        Ok(())
    }

    async fn feed(
        &self,
        key: EffectKey,
        fits: impl Fn(&EffectStatus) -> bool,
        input: Input,
    ) -> Result<(), ResolveError> {
        let input = match &self.said {
            Some(said) => Input::By(Arc::clone(said), Box::new(input)),
            None => input,
        };
        // Under one lock: what another person says meanwhile lets the task act again.
        let output = {
            let mut ledger = self.effects.ledger.lock();
            match ledger.get(key).map(|entry| &entry.status) {
                None => return Err(ResolveError::NotFound(key)),
                Some(status) if !fits(status) => {
                    return Err(ResolveError::NotOpen { key, status: status.name() });
                }
                Some(_) => ledger.on(input),
            }
        };
        self.effects.fed(&output).await.map_err(ResolveError::Journal)
    }
}

fn is_unknown(status: &EffectStatus) -> bool {
    matches!(status, EffectStatus::Unknown)
}

fn view(entry: &Entry) -> EffectView {
    EffectView {
        key: entry.intent.key,
        owner: entry.intent.owner.clone(),
        tool: entry.intent.tool.clone(),
        task: entry.intent.task.to_string(),
        step: entry.intent.step,
        ordinal: entry.intent.ordinal,
        kind: entry.intent.kind,
        status: entry.status.name(),
        said: entry.said.as_deref().cloned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Intent, Record};

    #[tokio::test]
    async fn a_word_is_weighed_and_taken_in_one_go() {
        let effects = Effects::new(|_| {});
        let (tool, request) = (ChildPath::from("desk/tool"), Arc::<[u8]>::from(&b"7"[..]));
        let key = EffectKey::of("one", 0, 0, &tool, &request);
        let (task, owner) = (Arc::from("one"), "desk/agent".into());
        let (kind, undo) = (EffectKind::Irreversible, None);
        let intent = Intent { key, task, owner, step: 0, ordinal: 0, tool, kind, request, undo };
        effects.ledger.lock().apply(Record::Intent(intent, 0));
        effects.ledger.lock().apply(Record::Status(key, EffectStatus::Unknown));
        let people = EffectsRef::new(Arc::clone(&effects));
        let fits = |status: &EffectStatus| {
            assert!(effects.ledger.try_lock().is_none(), "nobody else speaks meanwhile");
            is_unknown(status)
        };
        let word = || Input::Resolved(key, Resolution::NotHappened);
        people.feed(key, fits, word()).await.unwrap();
        let second = people.feed(key, fits, word()).await;
        assert!(matches!(second, Err(ResolveError::NotOpen { status: "rejected", .. })));
    }
}
