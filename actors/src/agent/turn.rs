//! One turn of an agent: from what the runtime says to what it is asked to do next.
//!
//! *Invariant.* Nothing here waits for anything but a listener who is told an answer that is complete.

use mainstay::behavior::{Context, Performed, Step, Turn, Undone};
use mainstay::fault::{EffectState, Fault};
use mainstay::id::RequestId;

use super::budget::Spent;
use super::reach::Reach;
use super::run::{Next, Run};
use super::state::Planned;
use super::{Agent, AgentReply, AgentRequest, LINES, SHORTENED, STEPS_LEFT_OUT, TURNS_LEFT_OUT};
use crate::chat::{ChatReply, ChatRequest, ToolCall};
use crate::tool::ToolReply;
use crate::tool::schema::known;

/// What does not go back when the task does. Shared by the lives of a child.
#[derive(Debug, Default)]
pub(super) struct Till {
    task: String,
    /// Whose task that is, if it has begun in this process.
    request: Option<RequestId>,
    spent: Spent,
    /// The task ended by a limit of its own.
    ended: Option<Fault>,
}

impl Till {
    /// A key may be used for two requests, one after the other: what has ended the first does not end the second.
    fn begins(&mut self, request: RequestId) {
        if self.request != Some(request) {
            *self = Self { request: Some(request), ..Self::default() };
        }
    }
}

impl Agent {
    pub(super) async fn turn(
        &mut self,
        request: &AgentRequest,
        turn: Turn,
        ctx: &Context,
    ) -> Result<Step<AgentReply>, Fault> {
        let turn = self.take_turn(request, turn, ctx).await;
        // What a fault says of its effect is said of the last call, and not of the task.
        turn.map_err(|fault| match fault.effect {
            _ if self.run.is_in_doubt() => fault.effect_unknown(),
            EffectState::NotApplied if self.run.has_acted() => fault.effect_failed(),
            _ => fault,
        })
    }

    async fn take_turn(
        &mut self,
        request: &AgentRequest,
        turn: Turn,
        ctx: &Context,
    ) -> Result<Step<AgentReply>, Fault> {
        if let Some(Err(why)) = self.plan.answer.as_ref().map(known::checkable) {
            let text = format!("the schema of the answers cannot be held: {why}");
            return Err(Fault::input_validation(text).with_code("bad_schema").not_applied());
        }
        let performed = self.take_up(request, turn, ctx)?;
        self.count_time(ctx);
        let next = match performed {
            Some(performed) => self.heard(request, &performed, ctx),
            None => Ok(self.run.resume()),
        };
        let rounds = self.run.context.rounds.len();
        self.run.memory().rounds = u32::try_from(rounds).unwrap_or(u32::MAX);
        let step = match next? {
            Next::Done(reply) => {
                self.tell(request, &reply).await;
                self.run = self.idle.clone();
                self.counted = None;
                return Ok(Step::Reply(reply));
            }
            Next::Ask(mut chat) => {
                if self.plan.checks.is_empty() {
                    chat.stream = request.stream.clone().map(|sink| sink.in_turns());
                }
                let port = ctx.port::<ChatRequest, ChatReply>(&self.plan.model)?;
                let share = self.plan.budget.share(self.spent(), 1, ctx.now())?;
                vec![port.ask_recorded_with(chat, share)]
            }
            Next::Call(planned) => {
                let reached = |planned: Planned| {
                    let tools = self.plan.tools.iter();
                    // Of a checkpoint the plan of another version of the agent may know nothing.
                    let reach = tools
                        .filter(|(spec, _)| spec.name == planned.call.name)
                        .map(|(_, reach)| reach)
                        .find(|reach| *reach.need() == planned.need)
                        .map_or_else(|| Reach::new(planned.need), Reach::clone);
                    (reach, planned.call)
                };
                let calls: Vec<_> = planned.into_iter().map(reached).collect();
                let spenders = calls.iter().filter(|(reach, _)| !reach.is_free()).count();
                let share = |calls| self.plan.budget.share(self.spent(), calls, ctx.now());
                let (whole, part) = (share(1)?, share(spenders)?);
                let effect = |(reach, call): (Reach, ToolCall)| {
                    let share = if reach.is_free() { &whole } else { &part };
                    reach.effect(call, share.clone(), ctx)
                };
                calls.into_iter().map(effect).collect::<Result<_, Fault>>()?
            }
        };
        Ok(Step::Perform(step))
    }

    /// Makes the run that of this request: the one at hand, or a new one.
    fn take_up(
        &mut self,
        request: &AgentRequest,
        turn: Turn,
        ctx: &Context,
    ) -> Result<Option<Performed>, Fault> {
        let task = ctx.key();
        // What is taken over from a sibling begins here, too.
        if matches!(turn, Turn::First | Turn::RolledBack(_)) {
            self.till.lock().begins(ctx.request());
        }
        let here = self.run.task() == Some(&*task);
        let fresh = |agent: &Self| Run::new(agent.plan.clone(), task.clone(), request);
        let (run, performed) = match turn {
            Turn::Performed(performed) if here => (None, Some(performed)),
            Turn::RolledBack(undone) => {
                let mut run = fresh(self);
                run.rolled_back(&undone);
                if let Some(spent) = self.spent_on(&task)? {
                    run.memory().spent = spent;
                }
                (Some(run), None)
            }
            // A line was returned to that has the task in its middle.
            Turn::Resumed(undone) if here && *undone != Undone::default() => {
                self.run.rolled_back(&undone);
                if let Some(spent) = self.spent_on(&task)? {
                    self.run.memory().spent = spent;
                }
                (None, None)
            }
            // A key may be used for two requests, one after the other.
            Turn::First if here && self.request == Some(ctx.request()) => (None, None),
            Turn::First => (Some(fresh(self)), None),
            _ if here => (None, None),
            _ => (Some(fresh(self)), None),
        };
        if let Some(run) = run {
            self.run = run;
            self.counted = None;
        }
        self.request = Some(ctx.request());
        Ok(performed)
    }

    /// What the task has spent before it was rolled back, which stays spent.
    ///
    /// # Errors
    /// What has ended it: that is not undone, either.
    fn spent_on(&self, task: &str) -> Result<Option<Spent>, Fault> {
        let till = self.till.lock();
        if till.task != task {
            return Ok(None);
        }
        match &till.ended {
            Some(fault) => Err(fault.clone()),
            None => Ok(Some(till.spent)),
        }
    }

    fn heard(
        &mut self,
        request: &AgentRequest,
        performed: &Performed,
        ctx: &Context,
    ) -> Result<Next, Fault> {
        // What failed was paid for, too.
        self.run.memory().spent.add(performed.cost());
        self.note_spent();
        let next = match self.run.expects() {
            0 => match performed.get::<ChatReply>(0) {
                Ok(answer) => {
                    ctx.count(LINES, lines(answer.value));
                    self.run.on_model(answer.value.clone())
                }
                Err(fault) => {
                    // What ran out of the task's time is denied, and not the model's failure.
                    self.plan.budget.share(self.spent(), 1, ctx.now())?;
                    return self.with_less(fault, request.left_out, ctx);
                }
            },
            count => {
                let result = |index| {
                    performed.get::<ToolReply>(index).map(|answer| answer.value.content.clone())
                };
                self.run.on_tools((0..count).map(result).collect::<Vec<_>>())
            }
        };
        next.inspect_err(|fault| self.till.lock().ended = Some(fault.clone()))
    }

    /// Where the conversation was too long: the same with less, and it is told.
    fn with_less(&mut self, fault: Fault, earlier: u32, ctx: &Context) -> Result<Next, Fault> {
        let (shortened, before) = (self.run.shortened, self.run.left_out);
        let (class, code) = (fault.class, fault.code.clone());
        let next = self.run.on_model_fault(fault, earlier).inspect_err(|fault| {
            // A limit of the task's own, and not what the model said: a rollback does not lift it.
            if (fault.class, &fault.code) != (class, &code) {
                self.till.lock().ended = Some(fault.clone());
            }
        })?;
        let now = self.run.left_out;
        for (what, count) in [
            (SHORTENED, self.run.shortened - shortened),
            (TURNS_LEFT_OUT, now.turns - before.turns),
            (STEPS_LEFT_OUT, now.steps - before.steps),
        ] {
            if count > 0 {
                ctx.note(what, u64::from(count));
            }
        }
        Ok(next)
    }

    fn spent(&self) -> &Spent {
        &self.run.memory.spent
    }

    /// An attempt that is made again from the same state notes the same again.
    fn note_spent(&self) {
        let mut till = self.till.lock();
        let task = self.run.task().unwrap_or_default();
        if till.task != task {
            *till = Till { task: task.to_owned(), request: till.request, ..Till::default() };
        }
        till.spent = *self.spent();
    }

    fn count_time(&mut self, ctx: &Context) {
        let now = ctx.now();
        if let Some(before) = self.counted.replace(now) {
            self.run.memory().spent.add_time(now.since(before));
        }
        self.note_spent();
    }

    /// A listener who has not heard the answer from the model hears it now.
    async fn tell(&self, request: &AgentRequest, reply: &AgentReply) {
        if let Some(sink) = request.stream.as_ref().filter(|sink| !sink.is_over()) {
            // Refused, it is the answer of a newer attempt that is heard.
            let _ = sink.attempt().whole(&ChatReply::text(reply.text.as_str())).await;
        }
    }
}

/// How many lines an answer has, with those in the arguments of its calls: JSON, in which the end of a
/// line is written as two characters.
fn lines(answer: &ChatReply) -> u64 {
    let calls = answer.tool_calls.iter().filter(|call| !call.arguments.is_empty());
    let written = calls.map(|call| 1 + call.arguments.matches("\\n").count());
    (answer.text.lines().count() + written.sum::<usize>()) as u64
}
