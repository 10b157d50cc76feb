//! One question, and what became of those of before.
//!
//! *Invariant.* What was asked is told by a process that lives to tell it; the same command after one that did not
//! asks nothing anew.

use std::io::Read;
use std::time::Instant;

use anyhow::Context;
use serde_json::json;

use super::interrupt::interrupted;
use super::lines::{Lines, is_interactive};
use super::page::Page;
use super::taken::{self, Answered, Question};
use super::untold::{Record, Untold};
use super::words::{Outcome, Why};
use super::{Failed, Session, TOLD, has_told, tell_taken};

impl Session {
    /// One prompt, given or read from standard input.
    ///
    /// What has been asked under the key is not asked again.
    pub(crate) async fn once(
        &mut self,
        prompt: Option<String>,
        key: Option<String>,
    ) -> anyhow::Result<()> {
        let prompt = match prompt {
            Some(prompt) => prompt,
            None => {
                // In a thread of its own: meanwhile others ask for the end.
                let read = || {
                    let mut bytes = Vec::new();
                    std::io::stdin().read_to_end(&mut bytes).map(|_| bytes)
                };
                let bytes = tokio::select! {
                    bytes = tokio::task::spawn_blocking(read) => bytes.map_err(anyhow::Error::new),
                    () = interrupted() => return Err(Failed("called off".to_owned()).into()),
                };
                let bytes = bytes.and_then(|bytes| Ok(bytes?)).context("standard input")?;
                String::from_utf8(bytes).map_err(|error| {
                    let at = error.utf8_error().valid_up_to() + 1;
                    anyhow::anyhow!("standard input is not UTF-8, from byte {at} on")
                })?
            }
        };
        let prompt = prompt.trim();
        if prompt.is_empty() && self.taken.is_empty() && self.untold()?.is_empty() {
            anyhow::bail!("there is no prompt: give one as an argument or on standard input");
        }
        if !self.people.is_empty() && !self.show.json && is_interactive() {
            self.lines = Some(Lines::new(None)?);
        }
        let began = Instant::now();
        if let (Some(key), Some(keys), false) = (&key, &self.keys, prompt.is_empty())
            && !keys.stands_for(key, prompt).await.map_err(|error| Failed(error.to_string()))?
        {
            let refused = self.tell(Err(Why::other_question(key)), began.elapsed(), false);
            // What became of those of before is not.
            self.is_told = false;
            return refused;
        }
        let mut same = None;
        for answered in self.take_up().await? {
            let is_same = match &key {
                // Whoever gives keys says by them what is the same.
                Some(key) => *answered.key == **key,
                // The same command again after a kill asks the same question once. A turn of a conversation has
                // asked something else, whatever its words are.
                None => answered.question.text == prompt && !answered.is_turn,
            };
            let turn = match &answered.outcome {
                Ok(outcome) if answered.is_turn => {
                    Some((answered.question.text.clone(), outcome.text.clone()))
                }
                _ => None,
            };
            if is_same && same.is_none() {
                self.deeds.of(&*answered.key);
                same = Some(answered.outcome);
                self.turns.extend(turn);
                continue;
            }
            if answered.outcome.is_err() {
                self.deeds.was_unanswered(&answered.key);
            }
            if self.show.json {
                self.before.push(answered.as_json(began.elapsed()));
            } else {
                let mut is_heard = true;
                tell_taken(&answered, |text| is_heard &= has_told(text));
                if !is_heard {
                    self.unheard.push(answered.key.to_string());
                    continue;
                }
            }
            self.turns.extend(turn);
        }
        if let Some(same) = same {
            return self.tell_last(same, began, false).await;
        }
        if !self.show.json {
            // A program is told them together with the answer.
            self.all_told().await;
        }
        if prompt.is_empty() {
            if self.show.json && !self.before.is_empty() {
                self.write_last("taken_up", json!({}));
            }
            self.all_said().await;
            return Ok(());
        }
        if let Some(key) = key {
            if let Some(known) = taken::known(&self.system, &self.path(), &key) {
                self.deeds.of(&*key);
                let known = known.map_err(|fate| Why::fated(&key, fate));
                return self.tell_last(known, began, false).await;
            }
            self.key = Some(key);
        }
        let (outcome, shown) = self.ask(prompt).await;
        self.tell_last(outcome, began, shown).await
    }

    /// After which nothing is left to be told.
    async fn tell_last(
        &mut self,
        outcome: Result<Outcome, Why>,
        began: Instant,
        shown: bool,
    ) -> anyhow::Result<()> {
        match &outcome {
            Ok(_) => self.deeds.is_answered(),
            Err(_) => self.deeds.is_unanswered(),
        }
        self.tell(outcome.as_ref().map_err(Clone::clone), began.elapsed(), shown)?;
        self.all_said().await;
        Ok(())
    }

    /// What became of all is told, unless that is put off to the end.
    async fn all_said(&mut self) {
        if self.last.is_none() {
            self.all_told().await;
        }
    }

    /// The questions whose outcome nobody has been told.
    fn untold(&self) -> anyhow::Result<Vec<Record>> {
        Ok(self.untold.as_ref().map_or_else(|| Ok(Vec::new()), Untold::questions)?)
    }

    /// What became of what another process had asked: of what it has not told, and of what it was not answered.
    pub(super) async fn take_up(&mut self) -> anyhow::Result<Vec<Answered>> {
        let mut answers = Vec::new();
        let records = self.untold()?;
        for Record { key, text, is_turn } in &records {
            // What was open at the start is told below, also where it has ended since.
            if self.taken.iter().any(|it| *it.key == **key) {
                continue;
            }
            // What the store has never heard of was never asked.
            if let Some(outcome) = taken::known(&self.system, &self.path(), key) {
                let question = Question { text: text.clone(), history: Vec::new() };
                let outcome = outcome.map_err(|fate| Why::fated(key, fate));
                let (key, is_turn) = (key.as_str().into(), *is_turn);
                answers.push(Answered { question, key, outcome, is_turn });
            }
        }
        let is_turn = |key: &str| records.iter().any(|it| it.is_turn && it.key == key);
        let mut events = self.early.take().unwrap_or_else(|| self.system.events().into());
        let taken = std::mem::take(&mut self.taken);
        let is_one = taken.len() == 1;
        for request in taken {
            let system = self.system.clone();
            let work = async { taken::answer(&system, &request, &mut system.events()).await };
            let mut page = Page::new(None, self.show.json);
            let Some(answered) = self.attend(work, &mut page, &mut events).await else {
                let why = "called off; what was asked before goes on at the next start";
                return Err(Failed(why.to_owned()).into());
            };
            // The record holds the answer, and not who gave it; the event that tells may come after it.
            let told = tokio::time::Instant::now() + TOLD;
            while is_one
                && self.served.only(&request.child).is_none()
                && self.served.failed(&request.child).is_none()
            {
                let next = tokio::time::timeout_at(told, events.next()).await;
                let Ok(Some(stamped)) = next else { break };
                self.progress(&stamped.event, &mut page);
            }
            let by = self.served.only(&request.child).filter(|_| is_one);
            let below = self.served.below(&request.child);
            let failed = self.served.failed(&request.child).filter(|_| is_one);
            answers.extend(answered.map(|answered| {
                let outcome = answered.outcome.map_err(|why| why.told(failed));
                let outcome = outcome.map(|outcome| outcome.given_by(by).resting_on(below));
                // The first turn of a conversation has no other before it.
                let is_turn = answered.is_turn || is_turn(&answered.key);
                Answered { outcome, is_turn, ..answered }
            }));
        }
        Ok(answers)
    }
}
