//! One task of an agent: the conversation so far and what comes next. Knows no port and no clock.
//!
//! *Invariant.* What a task has done is in its state and nowhere else, so a copy of the state goes on
//! where the original stood.

use std::sync::Arc;

use mainstay::behavior::Undone;
use mainstay::checkpoint::Digest;
use mainstay::fault::{Class, EffectState, Fault};
use serde_json::json;

use super::context::{Conversation, cut};
use super::state::{Failed, Memory, Planned, Same};
use super::turns::LeftOut;
use super::{AgentReply, AgentRequest, Plan, ToolUse, past};
use crate::chat::{ChatReply, ChatRequest, Message, ResponseFormat, ToolCall};
use crate::model::{BAD_JSON, again};
use crate::names;
use crate::tool::schema::known;

/// Tool calls of one answer that are made; for the others the model is told that they were too many.
pub const MAX_CALLS: usize = 16;
/// The longest tool result that is shown to the model, in bytes; the rest is cut off, and it is told.
pub const MAX_RESULT: usize = 64 * 1024;
/// The same call failing in so many answers in the same way ends the task.
pub const MAX_FAILURES: u32 = 3;
/// Answers that a validator refuses and the model may give again.
pub const MAX_REGENERATIONS: u32 = 2;

impl Plan {
    /// The system message, with what the answer must be.
    fn system(&self) -> Option<String> {
        let Some(schema) = &self.answer else { return self.system.clone() };
        let told = format!(
            "Your final answer must be one JSON value of this JSON schema, and nothing else, no code fence either:\n{schema}"
        );
        Some(match &self.system {
            Some(system) => format!("{system}\n\n{told}"),
            None => told,
        })
    }
}

/// What comes next.
#[derive(Debug)]
pub(super) enum Next {
    /// Ask the model.
    Ask(ChatRequest),
    /// Call these tools.
    Call(Vec<Planned>),
    /// Answer.
    Done(AgentReply),
}

/// The progress of a task. Cheap to clone: everything in it is shared until it changes.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) plan: Arc<Plan>,
    pub(super) context: Conversation,
    pub(super) used: Arc<Vec<ToolUse>>,
    pub(super) memory: Arc<Memory>,
    pub(super) left_out: LeftOut,
    /// How often results were shortened, by this copy.
    pub(super) shortened: u32,
}

impl Run {
    /// Between two tasks.
    pub(super) fn idle(plan: Arc<Plan>) -> Self {
        Self {
            plan,
            context: Conversation::new(Vec::new()),
            used: Arc::default(),
            memory: Arc::default(),
            left_out: LeftOut::default(),
            shortened: 0,
        }
    }

    pub(super) fn new(plan: Arc<Plan>, task: String, request: &AgentRequest) -> Self {
        let history = &request.history;
        let mut messages = Vec::with_capacity(history.len() + 3);
        messages.extend(plan.system().map(Message::system));
        messages.extend_from_slice(history);
        LeftOut::turns(request.left_out).tell(&mut messages);
        messages.push(Message::user(request.text.as_str()));
        let memory = Memory { task: Some(task), ..Memory::default() };
        Self {
            plan,
            context: Conversation::new(messages),
            used: Arc::default(),
            memory: Arc::new(memory),
            left_out: LeftOut::default(),
            shortened: 0,
        }
    }

    pub(super) fn task(&self) -> Option<&str> {
        self.memory.task.as_deref()
    }

    pub(super) fn memory(&mut self) -> &mut Memory {
        Arc::make_mut(&mut self.memory)
    }

    /// The task begins anew, or goes on from an earlier step: the model is told once what of the work
    /// since stands, and what stands is not done again. While it waits for the results of its tools it is
    /// not told: nothing may come between them, and it knows of nothing that was done after.
    pub(super) fn rolled_back(&mut self, undone: &Undone) {
        let told = past::read(undone);
        for same in told.unknown {
            let fault = Fault::indeterminate("before the rollback").with_code("outcome_unknown");
            self.count_failure(same, &fault, true);
        }
        self.memory().stands = told.stands;
        if let Some(note) = told.note.filter(|_| self.memory.planned.is_empty()) {
            self.context.note(&note);
        }
    }

    /// Where it stands: after an interruption, the work that was not finished.
    pub(super) fn resume(&self) -> Next {
        if self.memory.planned.is_empty() {
            self.ask()
        } else {
            Next::Call(self.memory.planned.clone())
        }
    }

    /// How many tool calls it waits for; 0 when it waits for the model.
    pub(super) fn expects(&self) -> usize {
        self.memory.planned.len()
    }

    fn ask(&self) -> Next {
        let mut request = ChatRequest::new(self.context.messages().cloned());
        request.tools = self.plan.tools.iter().map(|(spec, _)| spec.clone()).collect();
        request.max_tokens = self.plan.max_tokens;
        request.temperature = self.plan.temperature;
        if let Some(schema) = self.plan.answer.as_ref().filter(|_| self.plan.tools.is_empty()) {
            request.response_format = ResponseFormat::Schema {
                name: "answer".to_owned(),
                schema: schema.to_string(),
                strict: known::is_closed(schema),
            };
            request.regenerated = true;
        }
        Next::Ask(request)
    }

    /// The model has answered.
    pub(super) fn on_model(&mut self, mut reply: ChatReply) -> Result<Next, Fault> {
        self.memory().steps += 1;
        if let Some(fault) = reply.broken_by() {
            let text = "the model's answer broke off after a part of it was heard";
            return Err(Fault::exhausted(text).with_code("partial").with_source(fault.clone()));
        }
        if reply.is_paused() {
            self.check_steps()?;
            self.context.open_round(Message::assistant(reply.text));
            return Ok(self.ask());
        }
        if reply.tool_calls.is_empty() {
            return self.on_answer(reply.text);
        }
        self.check_steps()?;
        // Some servers count their calls from 0 in each answer.
        names::distinguish(&mut reply.tool_calls, self.context.messages());
        let calls = reply.tool_calls.clone();
        self.context.open_round(Message::tool_calls(reply.text, reply.tool_calls));
        let mut failed = Vec::new();
        for (index, call) in calls.into_iter().enumerate() {
            match self.route(index, &call) {
                Ok(need) => match self.recorded(&call) {
                    Some(content) => self.on_success(&call, content),
                    None => self.memory().planned.push(Planned { need, call }),
                },
                Err(fault) => self.on_failure(&call, &fault, &mut failed)?,
            }
        }
        Ok(self.resume())
    }

    fn on_answer(&mut self, text: String) -> Result<Next, Fault> {
        if text.is_empty() {
            return Err(Fault::output_invalid("the model said nothing and asked for nothing")
                .with_code("empty_answer"));
        }
        let refused = self.plan.checks.iter().find_map(|check| (check.0)(&text).err());
        let Some(why) = refused else {
            return Ok(Next::Done(AgentReply {
                text,
                steps: self.memory.steps,
                tools_used: self.used.to_vec(),
                compacted: self.memory.compacted,
                left_out: self.left_out,
            }));
        };
        self.again(&why, Some(text))
    }

    /// Has the model give the whole answer again, since this is wrong with the one it `gave`.
    fn again(&mut self, why: &str, gave: Option<String>) -> Result<Next, Fault> {
        if self.memory.regenerations >= MAX_REGENERATIONS {
            let text =
                format!("after {MAX_REGENERATIONS} regenerations the answer is wrong: {why}");
            return Err(Fault::output_invalid(text).with_code("rejected"));
        }
        self.check_steps()?;
        self.memory().regenerations += 1;
        match gave {
            Some(text) => {
                let ask = format!(
                    "Your answer cannot be used: {why}\nGive the whole answer again, with that mended."
                );
                self.context.open_round(Message::assistant(text));
                self.context.push(Message::user(ask));
            }
            // Nobody has it any more, and it may be another model that answers now.
            None => self.context.ask_too(again::words(why)),
        }
        Ok(self.ask())
    }

    /// One more question would be one too many.
    fn check_steps(&self) -> Result<(), Fault> {
        if self.memory.steps < self.plan.max_steps {
            return Ok(());
        }
        let text = format!(
            "no answer within {} steps; raise `max_steps`, or give the task to a simpler flow",
            self.plan.max_steps
        );
        Err(Fault::exhausted(text).with_code("step_limit"))
    }

    /// The model could not be asked: with a conversation that is too long, again with a shorter one.
    /// `earlier` turns had been left out before the task.
    pub(super) fn on_model_fault(&mut self, fault: Fault, earlier: u32) -> Result<Next, Fault> {
        if innermost(&fault).class == Class::ContextLength && self.make_room(earlier) {
            return Ok(self.ask());
        }
        // The endpoint has looked at what it had asked for.
        if self.plan.answer.is_some() && innermost(&fault).code.as_deref() == Some(BAD_JSON) {
            self.memory().steps += 1;
            return self.again("it is not JSON", None);
        }
        Err(fault)
    }

    /// Makes the conversation shorter, by what hurts least; whether it has become shorter. Of each there is
    /// less the next time, so this comes to an end.
    fn make_room(&mut self, earlier: u32) -> bool {
        if self.context.compact() {
            self.memory().compacted = true;
            self.shortened += 1;
            return true;
        }
        // Half of them first: a window is usually missed by little.
        let turns = self.context.leave_out_turns(self.left_out.turns > 0);
        let steps = if turns == 0 { self.context.leave_out_rounds() } else { 0 };
        self.left_out.turns = self.left_out.turns.saturating_add(turns);
        self.left_out.steps = self.left_out.steps.saturating_add(steps);
        let turns_in_all = self.left_out.turns.saturating_add(earlier);
        self.context.tell(LeftOut { turns: turns_in_all, ..self.left_out });
        turns + steps > 0
    }

    /// The need a call goes to, or why it is not made.
    fn route(&self, index: usize, call: &ToolCall) -> Result<String, Fault> {
        if index >= MAX_CALLS {
            let text = format!("not called: at most {MAX_CALLS} tool calls at once");
            return Err(Fault::input_validation(text).with_code("too_many_calls"));
        }
        let same = Same::of(&call.name, &call.arguments);
        if self.memory.failed.iter().any(|failed| failed.unknown && failed.same == same) {
            let text = "not called again: nobody knows whether the call before took effect";
            return Err(Fault::indeterminate(text).with_code("outcome_unknown"));
        }
        let known = self.plan.tools.iter().find(|(spec, _)| spec.name == call.name);
        known.map(|(_, reach)| reach.need().clone()).ok_or_else(|| {
            let names: Vec<_> = self.plan.tools.iter().map(|(spec, _)| &*spec.name).collect();
            let text =
                format!("there is no tool \"{}\"; there are: {}", call.name, names.join(", "));
            Fault::input_validation(text).with_code("unknown_tool")
        })
    }

    /// What came of this call before the task was rolled back. Each record serves once.
    fn recorded(&mut self, call: &ToolCall) -> Option<String> {
        let same = Same::of(&call.name, &call.arguments);
        let at = self.memory.stands.iter().position(|stands| stands.same == same)?;
        Some(self.memory().stands.remove(at).content)
    }

    /// The tools have answered, in the order of the plan.
    pub(super) fn on_tools(
        &mut self,
        results: impl IntoIterator<Item = Result<String, Fault>>,
    ) -> Result<Next, Fault> {
        let planned = std::mem::take(&mut self.memory().planned);
        let (mut ended, mut failed) = (Ok(()), Vec::new());
        for (planned, result) in planned.into_iter().zip(results) {
            match result {
                Ok(content) => self.on_success(&planned.call, content),
                // What was denied or called off is the task's end, and no matter for the model.
                Err(fault) if matches!(fault.class, Class::BudgetDenied | Class::Cancelled) => {
                    ended = ended.and(Err(fault));
                }
                Err(fault) => {
                    ended = ended.and(self.on_failure(&planned.call, &fault, &mut failed));
                }
            }
        }
        ended.map(|()| self.ask())
    }

    /// Whether something may have been done for the task, in this course of it or one before.
    pub(super) fn has_acted(&self) -> bool {
        !self.used.is_empty() || !self.memory.stands.is_empty()
    }

    /// Whether nobody knows of something whether it was done.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.memory.failed.iter().any(|failed| failed.unknown)
    }

    fn on_success(&mut self, call: &ToolCall, content: String) {
        let same = Same::of(&call.name, &call.arguments);
        // Of two equal calls in one answer the one may have happened, whatever the other has come to.
        self.memory().failed.retain(|failed| failed.same != same || failed.unknown);
        self.note(call, None);
        self.context.push(Message::tool_result(call.id.clone(), clip(content)));
    }

    /// Tells the model about a failure, or gives up. Equal calls of one answer, of which those that have `failed` are
    /// known, fail once: the model has heard of it after that.
    fn on_failure(
        &mut self,
        call: &ToolCall,
        fault: &Fault,
        failed: &mut Vec<Same>,
    ) -> Result<(), Fault> {
        let effect = effect_of(fault);
        let fault = innermost(fault);
        let unknown = match effect {
            EffectState::Unstated => fault.class == Class::Indeterminate,
            said => said == EffectState::Unknown,
        };
        let same = Same::of(&call.name, &call.arguments);
        let times = match failed.contains(&same) {
            true => self.doubt(&same, unknown),
            false => {
                failed.push(same.clone());
                self.count_failure(same, fault, unknown)
            }
        };
        self.note(call, Some(fault.class));
        if times >= MAX_FAILURES {
            let text = format!("the same call of \"{}\" failed {times} times", call.name);
            return Err(Fault::exhausted(text).with_code("tool_loop"));
        }
        let advice = match fault.class {
            _ if unknown => {
                "it may have happened; do not call it again, tell the user that it is being checked"
            }
            Class::Indeterminate | Class::Timeout if effect == EffectState::NotApplied => {
                "nothing was done, there is only no answer; change it, use another tool, or tell the user"
            }
            _ => "do not repeat the same call; change it, use another tool, or tell the user",
        };
        let content = json!({
            "error": {
                "class": fault.class.name(), "code": fault.code, "message": fault.message,
                "advice": advice,
            },
        });
        self.context.push(Message::tool_result(call.id.clone(), clip(content.to_string())));
        Ok(())
    }

    /// How often this call has failed, which has failed once more in the same answer.
    fn doubt(&mut self, same: &Same, unknown: bool) -> u32 {
        let failed = self.memory().failed.iter_mut().find(|failed| failed.same == *same);
        failed.map_or(0, |failed| {
            failed.unknown |= unknown;
            failed.times
        })
    }

    /// How often this call has failed in this way, now included, without another end between.
    fn count_failure(&mut self, same: Same, fault: &Fault, unknown: bool) -> u32 {
        // All errors of one kind of server have one code: what it says tells them apart.
        let said = Digest::of(fault.message.as_bytes());
        let error = Some(format!("{} {said}", fault.code.as_deref().unwrap_or_default()));
        let failures = &mut self.memory().failed;
        let Some(failed) = failures.iter_mut().find(|failed| failed.same == same) else {
            failures.push(Failed { same, times: 1, class: fault.class, error, unknown });
            return 1;
        };
        let again = failed.class == fault.class && failed.error == error;
        failed.times = if again { failed.times + 1 } else { 1 };
        failed.unknown |= unknown;
        (failed.class, failed.error) = (fault.class, error);
        failed.times
    }

    fn note(&mut self, call: &ToolCall, failed: Option<Class>) {
        let used = ToolUse { name: call.name.clone(), arguments: call.arguments.clone(), failed };
        Arc::make_mut(&mut self.used).push(used);
    }
}

/// What is known of the effect of a call: of those who say something of it the last one knows most.
fn effect_of(fault: &Fault) -> EffectState {
    let mut layer = Some(fault);
    while let Some(fault) = layer {
        if fault.effect != EffectState::Unstated {
            return fault.effect;
        }
        layer = fault.source.as_ref().and_then(|source| source.downcast_ref());
    }
    EffectState::Unstated
}

/// The fault that an exhausted ladder was about: that is what the model can act on.
pub(super) fn innermost(fault: &Fault) -> &Fault {
    let mut fault = fault;
    while let Some(inner) = fault.source.as_ref().and_then(|source| source.downcast_ref::<Fault>())
        // Somebody has found out since that nothing happened.
        && (fault.effect, inner.effect) != (EffectState::NotApplied, EffectState::Unknown)
    {
        fault = inner;
    }
    fault
}

fn clip(mut content: String) -> String {
    if content.len() > MAX_RESULT {
        cut(&mut content, MAX_RESULT);
        content.push_str("… [cut off]");
    }
    content
}

#[cfg(test)]
mod tests;
