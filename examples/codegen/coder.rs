//! The agent that writes functions: durable, line by line, with a checkpoint every ten lines.
//!
//! *Invariant.* What it has written is its state, and a step adds to it what one call has brought. So it
//! can end between any two lines, and goes on after the last checkpoint.

use std::sync::Arc;
use std::time::Duration;

use mainstay::behavior::{Behavior, Context, Stateful, Step, Turn};
use mainstay::checkpoint::{Interval, Snapshot};
use mainstay::decision::Action;
use mainstay::error::CheckpointError;
use mainstay::fate::{Ended, Trail};
use mainstay::fault::{Class, Fault};
use mainstay::moment::Moment;
use mainstay::port::{Needs, Port};
use mainstay::spec::Kind;
use mainstay::spec::{ChildSpec, SupervisorSpec};
use mainstay_actors::model::Model;
use serde::{Deserialize, Serialize};

use crate::python::{Check, Python, Verdict};
use crate::specs::Spec;
use crate::writer::{self, Ask, Lines, Source, text};

/// How often in a row the process may end with a function in hand. None of them can end it by itself: they are run
/// in a process of their own.
const ENDS: u32 = 100;

/// Where specifications go in.
pub(crate) const CODER: &str = "codegen/coder";
/// What a checkpoint counts, and how many of it.
const LINES: &str = "lines";
const EVERY: u32 = 10;
/// A project may be submitted whole.
const MAILBOX: u32 = 4096;

/// The tree.
pub(crate) fn spec(python: Python, source: &Source, model: Option<Model>) -> SupervisorSpec {
    let root = SupervisorSpec::one_for_one("codegen");
    let root = match model {
        Some(model) => root.child(model.spec("llm")),
        None => root,
    };
    let python = ChildSpec::stateless("python", move || python.clone())
        .kind(Kind::Tool)
        .concurrency(2)
        .attempt_timeout(4 * crate::python::PATIENCE);
    let coder = ChildSpec::stateful("coder", Coder::default)
        .kind(Kind::Agent)
        .mailbox(MAILBOX)
        .checkpoint(Interval::Units { name: LINES.into(), n: EVERY })
        .durable::<Coder>()
        // A store that fails ends the process, as often as it is begun again without room: nobody's fault.
        .process_deaths(ENDS);
    root.child(python).group(writer::group(source)).child(coder)
}

/// A function as it came out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Written {
    pub(crate) lines: Vec<String>,
    /// The interpreter takes it, and it does what all examples say.
    pub(crate) usable: bool,
    /// It is only the template.
    pub(crate) template: bool,
    /// How often it was generated again.
    pub(crate) regenerations: u32,
    /// After how many lines it was gone on with by another process, the last time.
    pub(crate) resumed_after: Option<usize>,
    /// How long it took, without the time between processes.
    pub(crate) millis: u64,
}

/// What there is of the function in hand.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Draft {
    written: Option<Written>,
    /// Complete; what is left to do is the test of its result.
    done: bool,
}

#[derive(Clone, Debug, Default)]
struct Coder {
    draft: Arc<Draft>,
    /// Since when this life works on it.
    since: Option<Moment>,
}

impl Coder {
    /// The function in hand, with the time that has gone by noted.
    fn written(&mut self, ctx: &Context) -> &mut Draft {
        let now = ctx.now();
        let before = self.since.replace(now).unwrap_or(now);
        let draft = Arc::make_mut(&mut self.draft);
        let written = draft.written.get_or_insert_with(|| Written {
            lines: Vec::new(),
            usable: false,
            template: false,
            regenerations: 0,
            resumed_after: None,
            millis: 0,
        });
        written.millis += now.since(before).as_millis() as u64;
        draft
    }

    /// What has to be asked for next.
    fn go_on(&mut self, spec: &Spec, ctx: &Context) -> Result<Step<Written>, Fault> {
        let draft = self.written(ctx);
        let lines = draft.written.as_ref().map_or(&[][..], |written| &written.lines);
        let call = if draft.done {
            let check = Check {
                name: spec.name.clone(),
                code: text(lines),
                examples: spec.examples.clone(),
                occasion: "acceptance".to_owned(),
            };
            ctx.port::<Check, Verdict>("python")?.ask(check)
        } else {
            let ask = Ask { spec: Arc::new(spec.clone()), lines: lines.to_vec() };
            ctx.port::<Ask, Lines>("writers")?.ask(ask)
        };
        Ok(Step::Perform(vec![call]))
    }

    /// The function has its end.
    fn give(&mut self) -> Result<Step<Written>, Fault> {
        self.since = None;
        let written = std::mem::take(&mut self.draft).written.clone();
        written.map(Step::Reply).ok_or_else(|| Fault::internal("there is no function in hand"))
    }
}

impl Behavior for Coder {
    type Request = Spec;
    type Reply = Written;

    fn needs() -> Needs {
        Needs::none().needs::<Port<Ask, Lines>>("writers").needs::<Port<Check, Verdict>>("python")
    }
}

impl Stateful for Coder {
    async fn step(
        &mut self,
        spec: &Spec,
        turn: Turn,
        ctx: &Context,
    ) -> Result<Step<Written>, Fault> {
        let performed = match turn {
            Turn::Performed(performed) => performed,
            Turn::Resumed(_) => {
                self.since = None;
                if let Some(written) = &mut self.written(ctx).written {
                    written.resumed_after = Some(written.lines.len());
                }
                return self.go_on(spec, ctx);
            }
            // From the beginning, also after a rollback to it.
            _ => {
                *self = Self::default();
                return self.go_on(spec, ctx);
            }
        };
        let draft = self.written(ctx);
        let done = draft.done;
        let Some(written) = &mut draft.written else {
            return Err(Fault::internal("there is no function in hand"));
        };
        if done {
            // A tool that cannot say so has not found it good.
            let verdict = performed.get::<Verdict>(0);
            written.usable = verdict.is_ok_and(|answer| matches!(answer.value, Verdict::Passes(_)));
            return self.give();
        }
        let answer = performed.get::<Lines>(0)?;
        // A last line comes with the whole function: as long as nothing was wrong, it counts alone.
        let Lines { keep, lines, done } = answer.value;
        let same = |(old, new): &(&String, &String)| old == new;
        let kept = written.lines[..].iter().zip(lines).take_while(same).count().max(*keep);
        let fresh = keep + lines.len() - kept;
        written.lines.truncate(*keep);
        written.lines.extend(lines.iter().cloned());
        written.regenerations += regenerations(&answer.trail);
        written.template = answer.defaulted;
        draft.done = *done;
        ctx.count(LINES, fresh as u64);
        if answer.defaulted { self.give() } else { self.go_on(spec, ctx) }
    }

    fn snapshot(&self) -> Option<Snapshot> {
        Some(Snapshot::new("coder", 1).with("draft", Arc::clone(&self.draft)))
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), CheckpointError> {
        self.draft = snapshot.get("draft")?;
        Ok(())
    }
}

/// How often an invalid output was generated again.
fn regenerations(trail: &Trail) -> u32 {
    let again = trail.iter().filter(|attempt| {
        let invalid = matches!(attempt.ended, Ended::Fault { class: Class::OutputInvalid, .. });
        invalid && matches!(attempt.action, Action::Retry { .. })
    });
    again.count() as u32
}

impl Written {
    pub(crate) fn took(&self) -> Duration {
        Duration::from_millis(self.millis)
    }
}
