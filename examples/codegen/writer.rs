//! Who writes the lines: a generator, by rules or with a model, and the template that stands in for it.
//!
//! With its last line a function is checked. One that the interpreter refuses, or that fails an example,
//! is an invalid output with the interpreter's words as feedback: the ladder has it generated again, at
//! most twice, and then hands the request to the template.

use std::sync::Arc;
use std::time::Duration;

use mainstay::behavior::{Behavior, Context, Stateless};
use mainstay::fault::{EffectKind, Fault};
use mainstay::policy::Policy;
use mainstay::port::Port;
use mainstay::spec::Kind;
use mainstay::spec::{ChildSpec, GroupSpec, Role};
use mainstay_actors::chat::{ChatReply, ChatRequest};

use crate::faults::Faults;
use crate::python::{Check, Verdict};
use crate::rules;
use crate::specs::{Spec, python};

/// The lines that are there; how do they go on?
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) spec: Arc<Spec>,
    pub(crate) lines: Vec<String>,
}

/// The function goes on with these lines after the first `keep` of those that are there.
#[derive(Clone, Debug)]
pub(crate) struct Lines {
    pub(crate) keep: usize,
    pub(crate) lines: Vec<String>,
    /// It is complete, and has been checked unless it is the template.
    pub(crate) done: bool,
}

impl Lines {
    /// A whole function in place of what is there.
    fn whole(lines: Vec<String>) -> Self {
        Self { keep: 0, lines, done: true }
    }
}

/// Where lines come from.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// Rules, at this time for a line.
    Rules(Faults, Duration),
    /// The model `llm`.
    Model,
}

/// The generator and its template.
pub(crate) fn group(source: &Source) -> GroupSpec {
    let generator = Generator(source.clone());
    let mut spec = ChildSpec::stateless("generator", move || generator.clone())
        .kind(Kind::Step)
        .policy(Policy::code_generation())
        .needs::<Port<Check, Verdict>>("python");
    let mut group = GroupSpec::step("writers");
    if matches!(source, Source::Model) {
        spec = spec.needs::<Port<ChatRequest, ChatReply>>("llm");
        group = group.deadline(Duration::from_secs(600));
    }
    let template = ChildSpec::stateless("template", || Template)
        .kind(Kind::Output)
        .role(Role::Default)
        .concurrency(8);
    group.member_spec(spec).member_spec(template)
}

#[derive(Clone, Debug)]
struct Generator(Source);

impl Behavior for Generator {
    type Request = Ask;
    type Reply = Lines;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Pure);
}

impl Stateless for Generator {
    async fn serve(&self, ask: &Ask, ctx: &Context) -> Result<Lines, Fault> {
        let Ask { spec, lines } = ask;
        let written = match &self.0 {
            Source::Rules(faults, pace) => {
                // What was found wrong is written anew, from its first line.
                let generation = if ctx.feedback().is_some() { ctx.attempt() } else { 1 };
                let all = rules::write(spec, faults, generation);
                let next = lines.len().min(all.len() - 1);
                let fresh = if generation > 1 { all.len() } else { 1 };
                tokio::time::sleep(*pace * u32::try_from(fresh).unwrap_or(u32::MAX)).await;
                if generation == 1 && next + 1 < all.len() {
                    return Ok(Lines { keep: next, lines: vec![all[next].clone()], done: false });
                }
                if generation == 1 { [&lines[..next], &all[next..]].concat() } else { all }
            }
            Source::Model => ask_model(spec, ctx).await?,
        };
        let python = ctx.port::<Check, Verdict>("python")?;
        let check = Check {
            name: spec.name.clone(),
            code: text(&written),
            examples: spec.shown().to_vec(),
            occasion: format!("generation {}", ctx.attempt()),
        };
        let (code, what) = match python.call(check).await?.value {
            Verdict::Passes(_) => return Ok(Lines::whole(written)),
            Verdict::Syntax(what) => ("syntax", what),
            Verdict::Wrong(what) => ("wrong_result", what),
        };
        let feedback = match &self.0 {
            Source::Rules(..) => what,
            Source::Model => format!("{what}\n\nThe code was:\n{}", text(&written)),
        };
        let fault = Fault::output_invalid("the function does not pass its check").with_code(code);
        Err(fault.with_feedback(feedback))
    }
}

async fn ask_model(spec: &Spec, ctx: &Context) -> Result<Vec<String>, Fault> {
    let mut words = format!(
        "Write the Python function `{}`. It returns {}.\n",
        spec.signature().trim_start_matches("def ").trim_end_matches(':'),
        spec.says
    );
    for refusal in &spec.refuses {
        words += &format!("When `{}` it raises a ValueError: {}.\n", refusal.when, refusal.because);
    }
    for example in spec.shown() {
        let gives = if example.raises { "ValueError".to_owned() } else { python(&example.gives) };
        words += &format!("`{}` gives `{gives}`.\n", spec.call(example));
    }
    if let Some(feedback) = ctx.feedback() {
        words += &format!("\nThe last attempt was wrong: {feedback}\n");
    }
    let request = ChatRequest::from(words.as_str())
        .system("You write Python 3. Answer with the code of one function and nothing else.")
        .max_tokens(600)
        .temperature(0.0);
    let reply = ctx.port::<ChatRequest, ChatReply>("llm")?.call(request).await?.value;
    let code = code(&reply.text);
    if code.is_empty() {
        let fault = Fault::output_invalid("the model wrote no code").with_code("no_code");
        return Err(fault.with_feedback("there was no code in it"));
    }
    Ok(code.lines().map(str::to_owned).collect())
}

/// The code in an answer: what stands in its first fence, or else all of it.
fn code(answer: &str) -> &str {
    let Some((_, fenced)) = answer.split_once("```") else { return answer.trim() };
    let fenced = fenced.split_once('\n').map_or("", |(_, code)| code);
    fenced.split("```").next().unwrap_or_default().trim_end()
}

/// The lines as a file.
pub(crate) fn text(lines: &[String]) -> String {
    lines.iter().flat_map(|line| [line, "\n"]).collect()
}

/// The last resort: a function that says what is missing, for a person to write.
#[derive(Clone, Debug)]
struct Template;

impl Behavior for Template {
    type Request = Ask;
    type Reply = Lines;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Pure);
}

impl Stateless for Template {
    async fn serve(&self, ask: &Ask, ctx: &Context) -> Result<Lines, Fault> {
        ctx.mark_defaulted();
        let mut lines = rules::head(&ask.spec);
        // A substitute hears what was wrong, too.
        if let Some(first) = ctx.feedback().and_then(|feedback| feedback.lines().next()) {
            lines.push(format!("    # The last generation was refused: {first}"));
        }
        lines.push(format!("    raise NotImplementedError({:?})", ask.spec.name));
        Ok(Lines::whole(lines))
    }
}
