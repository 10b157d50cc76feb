//! [`Agent`]: asks a model, calls the tools it asks for, tells it what came of them, until it answers.
//!
//! The loop is a stateful behavior in steps: every model call and every round of tool calls is a
//! [`Step::Perform`], made by the runtime. Between two steps the agent can be looked at, stopped and
//! taken up again where it stood; with [`Agent::durable_spec`] also by another process.
//!
//! *Invariant.* The agent acts only through the ports it declared, and a model's answer can name
//! nothing else: a tool is found by its name among those configured, or not at all.

use std::fmt;
use std::sync::Arc;

use mainstay::behavior::{Behavior, Call, Context, PastAct, Stateful, Step, Turn};
use mainstay::checkpoint::{Interval, Schema, Snapshot};
use mainstay::error::CheckpointError;
use mainstay::fault::{EffectKind, Fault};
use mainstay::id::RequestId;
use mainstay::moment::Moment;
use mainstay::port::Port;
use mainstay::spec::ChildSpec;
use mainstay::spec::Kind;
use parking_lot::Mutex;
use serde_json::Value;

use crate::chat::{ChatReply, ChatRequest, ToolSpec};
use crate::tool::schema::{faults, known};
use crate::tool::{ToolReply, ToolRequest};
use run::Run;
use turn::Till;

mod budget;
mod context;
mod past;
mod reach;
mod run;
mod state;
mod sub;
mod task;
mod turn;
mod turns;

pub use budget::TaskBudget;
pub use context::KEPT_RESULT;
pub use reach::Reach;
pub use run::{MAX_CALLS, MAX_FAILURES, MAX_REGENERATIONS, MAX_RESULT};
pub use sub::{AgentTool, SubTask, Team};
pub use task::{AgentReply, AgentRequest, ToolUse};
pub use turns::{LeftOut, leave_out_turns, said_bytes};

/// What agents count for [`Interval::Units`]: the lines that their models write, of answers and of the
/// arguments of calls.
pub const LINES: &str = "lines";
/// What agents note when tool results were shortened to make room.
pub const SHORTENED: &str = "results_shortened";
/// What agents note when turns of the conversation before were left out, with how many.
pub const TURNS_LEFT_OUT: &str = "turns_left_out";
/// What agents note when steps of the task were left out, with how many.
pub const STEPS_LEFT_OUT: &str = "steps_left_out";
/// Model calls an agent makes for one task, by default.
pub const DEFAULT_MAX_STEPS: u32 = 8;

/// Says what is wrong with an answer.
#[derive(Clone)]
struct Check(Arc<Judge>);

type Judge = dyn Fn(&str) -> Result<(), String> + Send + Sync;

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Check")
    }
}

/// How an agent works; shared by all its states.
#[derive(Clone, Debug)]
struct Plan {
    model: String,
    system: Option<String>,
    tools: Vec<(ToolSpec, Reach)>,
    max_steps: u32,
    max_tokens: Option<u32>,
    temperature: Option<f32>,
    checks: Vec<Check>,
    answer: Option<Value>,
    budget: TaskBudget,
}

/// The model and tool loop. Made with [`Agent::new`], turned into a child with [`Agent::spec`].
///
/// A tool call that fails is not the agent's failure: its own ladder has retried and substituted what
/// it could, and what is left is told to the model, which can do better with it than another retry.
/// So is a call of a tool that does not exist.
///
/// # What happens once
/// Tool calls are [effects](mainstay::port::Port::effect): those of one round are made together and
/// settle one by one in the ledger. A step that comes again after a fault, a crash or, with
/// [`Agent::durable_spec`], in another process gets the recorded results, and only what has none is
/// asked for again. After a rollback the model is told in one system message what of its calls stands,
/// was undone, or is unknown; what stands is served from the record when the model asks for it again,
/// and what is unknown is refused. So it is told what another member of its group had called for the task that it
/// takes over, once the [question](Reach::verify) was asked of what nobody knew.
///
/// # When the conversation is too long
/// A larger window comes first, and is the group's to offer. Where none helps, the model is asked again with
/// less: with earlier tool results shortened, if there are any longer than [`KEPT_RESULT`]; then without the
/// oldest half of the turns before the task; then without any of them; then without the steps of the task that
/// are over, but for the last. The system message, the question in hand and what the last step came to stay, calls
/// go with their results, and the model is told in the system message how much was left out. The reply says it
/// ([`AgentReply::left_out`]), and so do the events [`Noted`](mainstay::event::Event::Noted): [`SHORTENED`],
/// [`TURNS_LEFT_OUT`], [`STEPS_LEFT_OUT`]. If it is too long even so, the task fails with that fault.
///
/// # Errors
/// | What | Class, code |
/// |---|---|
/// | the model call failed for good | that fault, usually `Exhausted` |
/// | the model still asks for tools, or must mend its answer, after its last step | `Exhausted`, `step_limit`: again would end there again, a simpler flow may not |
/// | the same tool call, with the same arguments, failed with the same error in [`MAX_FAILURES`] answers | `Exhausted`, `tool_loop` |
/// | the model said nothing | `OutputInvalid`, `empty_answer` |
/// | the [answer's schema](Agent::answer_schema) has a word that is not checked | `InputValidation`, `bad_schema` |
/// | a validator refused the answer and [`MAX_REGENERATIONS`] more | `OutputInvalid`, `rejected` |
/// | the answer broke off after a listener had heard a part | `Exhausted`, `partial` |
/// | the [budget](Agent::budget) is used up | `BudgetDenied`, `task_tokens`, `task_money`, `task_time` |
/// | a tool call was called off, or denied by the caller's budget | that fault |
///
/// A task that ended by a limit of its own is not worked on again after a rollback: it would end there
/// again.
#[derive(Clone, Debug)]
pub struct Agent {
    plan: Arc<Plan>,
    run: Run,
    /// Between two tasks; kept so that its pieces are shared by all snapshots taken there.
    idle: Run,
    /// Whose `run` this is, in this process.
    request: Option<RequestId>,
    /// Up to when the time of the task was counted.
    counted: Option<Moment>,
    till: Arc<Mutex<Till>>,
}

impl Agent {
    /// An agent that asks the model under this need: the id of a child or group beside it or above it.
    pub fn new(model: impl Into<String>) -> Self {
        Self::of(Plan {
            model: model.into(),
            system: None,
            tools: Vec::new(),
            max_steps: DEFAULT_MAX_STEPS,
            max_tokens: None,
            temperature: None,
            checks: Vec::new(),
            answer: None,
            budget: TaskBudget::default(),
        })
    }

    fn of(plan: Plan) -> Self {
        let plan = Arc::new(plan);
        let idle = Run::idle(Arc::clone(&plan));
        let (request, counted, till) = (None, None, Arc::default());
        Self { run: idle.clone(), idle, plan, request, counted, till }
    }

    fn with(self, change: impl FnOnce(&mut Plan)) -> Self {
        let mut plan = Arc::unwrap_or_clone(self.plan);
        change(&mut plan);
        Self::of(plan)
    }

    /// The system message.
    ///
    /// # Default
    /// None.
    #[must_use]
    pub fn system(self, text: impl Into<String>) -> Self {
        self.with(|plan| plan.system = Some(text.into()))
    }

    /// Offers the model this tool; calls of it go to the child or group under this need. A tool of the
    /// same name is replaced. A [`Reach`] in place of the need also says how a call is undone, and how
    /// it is found out whether it happened.
    #[must_use]
    pub fn tool(self, spec: ToolSpec, reach: impl Into<Reach>) -> Self {
        self.with(|plan| {
            plan.tools.retain(|(other, _)| other.name != spec.name);
            plan.tools.push((spec, reach.into()));
        })
    }

    /// Model calls for one task, at least 1. After a rollback they are counted anew.
    ///
    /// # Default
    /// [`DEFAULT_MAX_STEPS`].
    #[must_use]
    pub fn max_steps(self, steps: u32) -> Self {
        self.with(|plan| plan.max_steps = steps.max(1))
    }

    /// Tokens an answer of the model may have.
    ///
    /// # Default
    /// The provider's.
    #[must_use]
    pub fn max_tokens(self, tokens: u32) -> Self {
        self.with(|plan| plan.max_tokens = Some(tokens))
    }

    /// How much chance is in the model's answers, from 0.
    ///
    /// # Default
    /// The provider's.
    #[must_use]
    pub fn temperature(self, temperature: f32) -> Self {
        self.with(|plan| plan.temperature = Some(temperature))
    }

    /// Also checks each final answer. One that is wrong goes back to the model with what is wrong with
    /// it, up to [`MAX_REGENERATIONS`] times, each time as one more step of the conversation. The
    /// validators are asked in the order in which they were added, the first complaint counts.
    ///
    /// A validator should be a function of the text: it may be asked again about the same one.
    ///
    /// # Default
    /// Every answer is taken.
    #[must_use]
    pub fn validate(
        self,
        check: impl Fn(&str) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        self.with(|plan| plan.checks.push(Check(Arc::new(check))))
    }

    /// An answer must be JSON of this schema, and nothing else. The model is told so in the system message;
    /// an agent without tools asks the provider for it, too
    /// ([`ChatRequest::response_format`]), strictly where the schema lists all fields of its objects,
    /// requires them and allows no others. Tools and such an answer in one request are refused by some providers,
    /// and keep others from calling any. What the model answers is checked as by a
    /// [validator](Agent::validate) that names what is wrong; with a second schema, the first one's check stays,
    /// and the second is asked for. Of an answer that is no JSON, where the provider was asked for it, only the fault is
    /// there: that is told in one turn with the question, and not after the answer.
    ///
    /// # Limits
    /// Checked are `type`, `properties`, `required`, `additionalProperties`, `items`, `enum`, `const`, `anyOf`,
    /// `oneOf`, `allOf`, `not`, `$ref` within the schema, and bounds of numbers, lengths and counts.
    /// `title`, `description`, `default`, `examples`, `format` and the like are notes. With any other word (`pattern`,
    /// `if`, `prefixItems`) tasks fail as `InputValidation`, `bad_schema`, which names it and its place.
    ///
    /// # Default
    /// Any text.
    #[must_use]
    pub fn answer_schema(self, schema: Value) -> Self {
        let agent = self.with(|plan| plan.answer = Some(schema.clone()));
        agent.validate(move |text| {
            let answer = serde_json::from_str::<Value>(text.trim())
                .map_err(|error| format!("the answer is not JSON alone: {error}"))?;
            match faults(&schema, &answer) {
                wrong if wrong.is_empty() => Ok(()),
                wrong => Err(format!("the answer is not of the schema: {wrong}")),
            }
        })
    }

    /// The first thing in a schema that [`Agent::answer_schema`] does not check, or that is no JSON schema, with
    /// where it stands.
    ///
    /// # Errors
    /// Its words.
    pub fn checks_schema(schema: &Value) -> Result<(), String> {
        known::checkable(schema)
    }

    /// What one task may spend.
    ///
    /// # Default
    /// No limit but the caller's.
    #[must_use]
    pub fn budget(self, budget: TaskBudget) -> Self {
        self.with(|plan| plan.budget = budget)
    }

    /// The child spec: stateful, kind `agent`, with the needs of its model and its tools.
    pub fn spec(self, id: impl AsRef<str>) -> ChildSpec {
        let plan = Arc::clone(&self.plan);
        // A till of its own: two children made of one agent spend nothing together.
        let agent = Self { till: Arc::default(), ..self };
        let mut needs: Vec<&String> =
            plan.tools.iter().flat_map(|(_, reach)| reach.needs()).collect();
        needs.sort();
        needs.dedup();
        let spec = ChildSpec::stateful(id, move || agent.clone()).kind(Kind::Agent).needs::<Port<
            ChatRequest,
            ChatReply,
        >>(
            plan.model.clone(),
        );
        needs
            .into_iter()
            .fold(spec, |spec, need| spec.needs::<Port<ToolRequest, ToolReply>>(need.clone()))
    }

    /// [`Agent::spec`], and what it is asked survives the process: a task goes on after a kill or a
    /// power cut where its last step had ended, in a system started with
    /// [`System::recover`](mainstay::system::System::recover). Its state is stored after every step.
    pub fn durable_spec(self, id: impl AsRef<str>) -> ChildSpec {
        self.spec(id).durable::<Self>().checkpoint(Interval::Steps(1))
    }
}

impl Behavior for Agent {
    type Request = AgentRequest;
    type Reply = AgentReply;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Pure);
}

impl Stateful for Agent {
    async fn step(
        &mut self,
        request: &AgentRequest,
        turn: Turn,
        ctx: &Context,
    ) -> Result<Step<AgentReply>, Fault> {
        self.turn(request, turn, ctx).await
    }

    fn question(&self, act: &PastAct, ctx: &Context) -> Option<Call> {
        past::question(&self.plan.tools, act, ctx)
    }

    fn schema() -> Option<Schema> {
        Some(state::schema())
    }

    fn snapshot(&self) -> Option<Snapshot> {
        Some(self.run.snapshot())
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), CheckpointError> {
        self.run = self.run.restored(snapshot)?;
        Ok(())
    }
}
