//! What another process has left in the store, and what becomes of it.
//!
//! *Invariant.* A question that was accepted is answered once, whichever process lives to hear it.

use std::fmt::Write;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use mainstay::event::EventStream;
use mainstay::fate::{Fate, Given};
use mainstay::id::ChildPath;
use mainstay::journal::Journaled;
use mainstay::system::{Recovered, RecoveredRequest, System};
use mainstay_actors::agent::{AgentReply, AgentRequest};
use mainstay_actors::chat::{ChatReply, ChatRequest, Message, Role};
use serde_json::Value;

use super::words::{Outcome, Why};

/// A question of before, and what had been said until then.
pub(super) struct Question {
    pub(super) text: String,
    pub(super) history: Vec<Message>,
}

/// A question of before, and its answer or the fate it met instead.
pub(super) struct Answered {
    pub(super) question: Question,
    /// Under which it was asked.
    pub(super) key: Arc<str>,
    pub(super) outcome: Result<Outcome, Why>,
    /// Whether a conversation asked, which goes on from there.
    pub(super) is_turn: bool,
}

impl Answered {
    /// For programs.
    pub(super) fn as_json(&self, took: Duration) -> Value {
        let mut body = match &self.outcome {
            Ok(outcome) => outcome.as_json(took),
            Err(why) => why.json.clone(),
        };
        body["question"] = self.question.text.as_str().into();
        body["key"] = (*self.key).into();
        body
    }
}

/// What was taken up, in a line or more; `None` where there was nothing. What merely stands where it
/// stood is worth a line only to those who want to see what happens.
pub(super) fn summary(recovered: &Recovered, progress: bool) -> Option<String> {
    let effects = recovered.effects;
    let known = effects.intended + effects.unknown + effects.stuck;
    let still = recovered.children.is_empty() && effects.confirmed == 0;
    let nothing = recovered.requests == 0 && known == 0 && (still || !progress);
    let aside =
        recovered.set_aside.len() + recovered.ended_processes.len() + recovered.in_doubt.len();
    if nothing && recovered.refused.is_empty() && aside == 0 {
        return None;
    }
    let many = |number: usize| if number == 1 { "" } else { "s" };
    let mut parts = Vec::new();
    if recovered.requests > 0 {
        parts.push(format!("{0} open request{1}", recovered.requests, many(recovered.requests)));
    }
    if !recovered.children.is_empty() {
        let agents = recovered.children.len();
        parts.push(format!("the state of {agents} agent{}", many(agents)));
    }
    if effects.confirmed > 0 {
        let effects = effects.confirmed;
        parts.push(format!("{effects} effect{} not to be repeated", many(effects)));
    }
    let waits = effects.unknown + effects.stuck;
    if waits > 0 {
        parts.push(format!("{waits} effect{} for a person to settle (/effects)", many(waits)));
    }
    if parts.is_empty() {
        parts.push("nothing".to_owned());
    }
    let mut text = format!("taken up again: {}", parts.join(", "));
    for child in &recovered.children {
        let _ = write!(text, "\n  {}: its state of {} s ago", child.child, child.age.as_secs());
    }
    for gone in &recovered.set_aside {
        let _ = write!(
            text,
            "\n  set aside: request {:?}, accepted by {}, which is no more or cannot read it (see `mainstay store`)",
            gone.key, gone.child
        );
    }
    for ended in &recovered.ended_processes {
        let _ = write!(
            text,
            "\n  set aside: request {:?} to {}, with which in hand the process has ended too often",
            ended.key, ended.child
        );
    }
    for doubt in &recovered.in_doubt {
        let _ = write!(
            text,
            "\n  unknown: request {:?} to {} may have been done, and is not done again (`mainstay store FILE settle KEY did-not-happen` frees it)",
            doubt.key, doubt.child
        );
    }
    for refused in &recovered.refused {
        let _ = write!(text, "\n  set aside: {refused}");
    }
    Some(text)
}

/// What was asked, whether of an agent or of a model; `None` for what no user has asked.
fn question(request: &str) -> Option<Question> {
    if let Ok(AgentRequest { text, history, .. }) = serde_json::from_str(request) {
        return Some(Question { text, history });
    }
    let mut chat: ChatRequest = serde_json::from_str(request).ok()?;
    let text = chat.messages.pop().filter(|last| last.role == Role::User)?.text;
    let said = chat.messages.into_iter().filter(|said| said.role != Role::System);
    Some(Question { text, history: said.collect() })
}

/// What was answered, by an agent or by a model.
fn outcome(reply: &str) -> Option<Outcome> {
    let outcome = Outcome { taken_up: true, ..Outcome::default() };
    if let Ok(reply) = serde_json::from_str::<AgentReply>(reply) {
        return Some(outcome.with(reply));
    }
    let reply = serde_json::from_str::<ChatReply>(reply).ok()?;
    Some(Outcome { text: reply.text, ..outcome })
}

/// What became of the question that was asked under this key; `None` where there is none, or it is still open.
pub(super) fn known(
    system: &System,
    asked: &ChildPath,
    key: &str,
) -> Option<Result<Outcome, Fate>> {
    match system.journaled(key)? {
        Journaled::Fated(fate, reply) => {
            let outcome = reply.as_deref().and_then(outcome);
            Some(outcome.map(|outcome| given(system, asked, key, outcome)).ok_or(fate))
        }
        _ => None,
    }
}

/// Whether the question that was asked under this key has no fate yet.
pub(super) fn is_open(system: &System, key: &str) -> bool {
    system.journaled(key).is_some_and(|it| !matches!(it, Journaled::Fated(..)))
}

/// As its answer was given, by what the journal has of that. What it has cost was told by the process that
/// heard of it first.
fn given(system: &System, asked: &ChildPath, key: &str, outcome: Outcome) -> Outcome {
    let Some(Given { served_by, degraded, defaulted, attempts, .. }) = system.given(key) else {
        return outcome;
    };
    let served_by = Some(served_by.unwrap_or_else(|| asked.clone()));
    Outcome { served_by, degraded, defaulted, attempts, ..outcome }
}

/// Waits for the answer to a question of before, or for the end of the tree, after which nobody works on it here.
pub(super) async fn answer(
    system: &System,
    request: &RecoveredRequest,
    events: &mut EventStream,
) -> Option<Answered> {
    // The journal hears of a fate after the events do, and of some fates without any.
    const AGAIN: Duration = Duration::from_millis(50);
    let question = question(&request.request)?;
    let is_turn = !question.history.is_empty();
    let mut over = pin!(system.wait());
    let mut has_ended = false;
    loop {
        if let Some(Journaled::Fated(fate, reply)) = system.journaled(&request.key) {
            let outcome = reply.as_deref().and_then(outcome).ok_or(fate);
            let outcome = outcome.map(|it| given(system, &request.child, &request.key, it));
            let outcome = outcome.map_err(|fate| Why::fated(&request.key, fate));
            return Some(Answered { question, key: Arc::clone(&request.key), outcome, is_turn });
        }
        if has_ended {
            let outcome = Err(Why::suspended(&request.key));
            return Some(Answered { question, key: Arc::clone(&request.key), outcome, is_turn });
        }
        tokio::select! {
            // What it has come to by then is in the journal.
            _ = &mut over => has_ended = true,
            _ = tokio::time::timeout(AGAIN, events.next()) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use mainstay::checkpoint::{MemoryStore, Store};
    use mainstay::port::CallOptions;
    use mainstay::spec::SupervisorSpec;
    use mainstay_actors::agent::Agent;
    use mainstay_actors::scripted::Script;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_question_of_before_is_waited_for_until_the_tree_has_ended() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let recover = async || {
            let model = Script::<ChatRequest, ChatReply>::new(|_| ChatReply::text("late"));
            model.then_hang();
            let spec = SupervisorSpec::one_for_one("t")
                .child(model.stateless("llm"))
                .child(Agent::new("llm").durable_spec("a"));
            System::recover(spec, Arc::clone(&store)).await.unwrap()
        };
        let (system, _) = recover().await;
        let agent = system.port::<AgentRequest, AgentReply>("t/a").unwrap();
        agent.submit(AgentRequest::new("hello"), CallOptions::new().key("k")).await.unwrap();
        system.stop().await;
        let (system, recovered) = recover().await;
        let mut events = system.events();
        let (told, _) = tokio::join!(answer(&system, &recovered.open[0], &mut events), async {
            system.events().next().await;
            system.stop().await
        });
        let why = told.unwrap().outcome.unwrap_err();
        assert_eq!(why.json["error"]["kind"], "suspended", "{why:?}");
        assert!(why.text.contains("goes on at the next start"), "{why:?}");
    }
}
