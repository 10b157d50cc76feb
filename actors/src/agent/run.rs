//! One task of an agent: the conversation so far and what comes next. Knows no port and no clock.

use std::sync::Arc;

use mainstay::fault::{Class, Fault};
use serde_json::{Value, json};

use super::{AgentReply, Plan, ToolUse};
use crate::chat::{ChatReply, ChatRequest, Message, ToolCall};

/// Tool calls of one answer that are made; for the others the model is told that they were too many.
pub const MAX_CALLS: usize = 16;
/// The longest tool result that is shown to the model, in bytes; the rest is cut off, and it is told.
pub const MAX_RESULT: usize = 64 * 1024;
/// The same call failing so often ends the task.
pub const MAX_FAILURES: u32 = 3;

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

/// A tool call to be made.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Planned {
    pub(super) need: String,
    pub(super) call: ToolCall,
    /// What makes the idempotency key of the call, beside the task's: the logical step, the place in
    /// it, the tool and the arguments. Not the model's id, which is another in each attempt.
    pub(super) key: String,
}

/// The same call, however it is written.
#[derive(Clone, Debug, PartialEq)]
struct Same {
    name: String,
    arguments: String,
}

impl Same {
    fn of(call: &ToolCall) -> Self {
        // Reading and writing sorts the keys and drops the white space.
        let arguments = serde_json::from_str::<Value>(&call.arguments)
            .map_or_else(|_| call.arguments.clone(), |value| value.to_string());
        Self { name: call.name.clone(), arguments }
    }
}

#[derive(Clone, Debug)]
struct Failed {
    same: Same,
    times: u32,
    /// Nobody knows whether it happened: it must not be made again.
    unknown: bool,
}

/// The progress of a task. Cheap to clone: the conversation is shared until it grows.
#[derive(Clone, Debug)]
pub(super) struct Run {
    plan: Arc<Plan>,
    messages: Arc<Vec<Message>>,
    steps: u32,
    planned: Vec<Planned>,
    used: Arc<Vec<ToolUse>>,
    failed: Vec<Failed>,
}

impl Run {
    pub(super) fn new(plan: Arc<Plan>, history: &[Message], text: &str) -> Self {
        let mut messages = Vec::with_capacity(history.len() + 8);
        if let Some(system) = &plan.system {
            messages.push(Message::system(system.clone()));
        }
        messages.extend_from_slice(history);
        messages.push(Message::user(text));
        Self {
            plan,
            messages: Arc::new(messages),
            steps: 0,
            planned: Vec::new(),
            used: Arc::default(),
            failed: Vec::new(),
        }
    }

    /// Where it stands: after an interruption, the work that was not finished.
    pub(super) fn resume(&self) -> Next {
        if self.planned.is_empty() { self.ask() } else { Next::Call(self.planned.clone()) }
    }

    /// How many tool calls it waits for; 0 when it waits for the model.
    pub(super) fn expects(&self) -> usize {
        self.planned.len()
    }

    fn ask(&self) -> Next {
        let mut request = ChatRequest::new(self.messages.iter().cloned());
        request.tools = self.plan.tools.iter().map(|(spec, _)| spec.clone()).collect();
        request.max_tokens = self.plan.max_tokens;
        request.temperature = self.plan.temperature;
        Next::Ask(request)
    }

    /// The model has answered.
    pub(super) fn on_model(&mut self, reply: ChatReply) -> Result<Next, Fault> {
        self.steps += 1;
        if reply.tool_calls.is_empty() {
            if reply.text.is_empty() {
                return Err(Fault::output_invalid("the model said nothing and asked for nothing")
                    .with_code("empty_answer"));
            }
            return Ok(Next::Done(AgentReply {
                text: reply.text,
                steps: self.steps,
                tools_used: self.used.to_vec(),
            }));
        }
        if self.steps >= self.plan.max_steps {
            let text = format!(
                "no answer within {} steps; raise `max_steps`, or give the task to a simpler flow",
                self.plan.max_steps
            );
            return Err(Fault::exhausted(text).with_code("step_limit"));
        }
        let calls = reply.tool_calls.clone();
        self.push(Message::tool_calls(reply.text, reply.tool_calls));
        for (index, call) in calls.into_iter().enumerate() {
            match self.route(index, &call) {
                Ok(need) => {
                    let same = Same::of(&call);
                    let digest = fnv(&[same.name.as_bytes(), same.arguments.as_bytes()]);
                    let key = format!("{}.{index}/{}/{digest:016x}", self.steps, same.name);
                    self.planned.push(Planned { need, call, key });
                }
                Err(fault) => self.on_failure(&call, &fault)?,
            }
        }
        Ok(self.resume())
    }

    /// The need a call goes to, or why it is not made.
    fn route(&self, index: usize, call: &ToolCall) -> Result<String, Fault> {
        if index >= MAX_CALLS {
            let text = format!("not called: at most {MAX_CALLS} tool calls at once");
            return Err(Fault::input_validation(text).with_code("too_many_calls"));
        }
        let same = Same::of(call);
        if self.failed.iter().any(|failed| failed.unknown && failed.same == same) {
            let text = "not called again: nobody knows whether the call before took effect";
            return Err(Fault::indeterminate(text).with_code("outcome_unknown"));
        }
        let known = self.plan.tools.iter().find(|(spec, _)| spec.name == call.name);
        known.map(|(_, need)| need.clone()).ok_or_else(|| {
            let names: Vec<_> = self.plan.tools.iter().map(|(spec, _)| &*spec.name).collect();
            let text =
                format!("there is no tool \"{}\"; there are: {}", call.name, names.join(", "));
            Fault::input_validation(text).with_code("unknown_tool")
        })
    }

    /// The tools have answered, in the order of the plan.
    pub(super) fn on_tools(
        &mut self,
        results: impl IntoIterator<Item = Result<String, Fault>>,
    ) -> Result<Next, Fault> {
        let planned = std::mem::take(&mut self.planned);
        for (planned, result) in planned.into_iter().zip(results) {
            match result {
                Ok(content) => {
                    let same = Same::of(&planned.call);
                    self.failed.retain(|failed| failed.same != same);
                    self.note(&planned.call, None);
                    self.push(Message::tool_result(planned.call.id, clip(content)));
                }
                // What was denied or called off is the task's end, and no matter for the model.
                Err(fault) if matches!(fault.class, Class::BudgetDenied | Class::Cancelled) => {
                    return Err(fault);
                }
                Err(fault) => self.on_failure(&planned.call, &fault)?,
            }
        }
        Ok(self.ask())
    }

    /// Tells the model about a failure, or gives up.
    fn on_failure(&mut self, call: &ToolCall, fault: &Fault) -> Result<(), Fault> {
        let fault = innermost(fault);
        let unknown = fault.class == Class::Indeterminate;
        let same = Same::of(call);
        let times = match self.failed.iter_mut().find(|failed| failed.same == same) {
            Some(failed) => {
                failed.times += 1;
                failed.unknown |= unknown;
                failed.times
            }
            None => {
                self.failed.push(Failed { same, times: 1, unknown });
                1
            }
        };
        self.note(call, Some(fault.class));
        if times >= MAX_FAILURES {
            let text = format!("the same call of \"{}\" failed {times} times", call.name);
            return Err(Fault::exhausted(text).with_code("tool_loop"));
        }
        let advice = if unknown {
            "it may have happened; do not call it again, tell the user that it is being checked"
        } else {
            "do not repeat the same call; change it, use another tool, or tell the user"
        };
        let content = json!({
            "error": {
                "class": fault.class.name(), "code": fault.code, "message": fault.message,
                "advice": advice,
            },
        });
        self.push(Message::tool_result(call.id.clone(), clip(content.to_string())));
        Ok(())
    }

    fn note(&mut self, call: &ToolCall, failed: Option<Class>) {
        let used = ToolUse { name: call.name.clone(), arguments: call.arguments.clone(), failed };
        Arc::make_mut(&mut self.used).push(used);
    }

    fn push(&mut self, message: Message) {
        Arc::make_mut(&mut self.messages).push(message);
    }
}

/// The fault that an exhausted ladder was about: that is what the model can act on.
fn innermost(fault: &Fault) -> &Fault {
    let mut fault = fault;
    while let Some(inner) = fault.source.as_ref().and_then(|source| source.downcast_ref::<Fault>())
    {
        fault = inner;
    }
    fault
}

fn clip(mut content: String) -> String {
    if content.len() > MAX_RESULT {
        let mut end = MAX_RESULT;
        while !content.is_char_boundary(end) {
            end -= 1;
        }
        content.truncate(end);
        content.push_str("… [cut off]");
    }
    content
}

/// FNV-1a: the same in every process, unlike std's hasher.
fn fnv(parts: &[&[u8]]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for part in parts {
        for byte in part.iter().chain(&[0xff]) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash
}

#[cfg(test)]
mod tests;
