//! Chat completions read straight from their bytes.
//!
//! *Invariant.* What is read here means what it means as a tree of values, in `openai.rs`. Whatever looks
//! otherwise than nearly all answers do, an error among them, is left to that: this says `None`.

use std::iter;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{ended, is_first};
use crate::model::ending::is_reason;
use crate::model::wire::Delta;

// No field has a default: then a list in the place of an object is read as one only if it has an item of
// the right type for each.

#[derive(Deserialize)]
struct Whole<'a> {
    error: Option<IgnoredAny>,
    model: Option<String>,
    usage: Option<Tokens>,
    #[serde(borrow)]
    choices: Vec<Answered<'a>>,
}

#[derive(Deserialize)]
struct Part<'a> {
    error: Option<IgnoredAny>,
    model: Option<String>,
    usage: Option<Tokens>,
    #[serde(borrow)]
    choices: Option<Vec<Added<'a>>>,
}

#[derive(Deserialize)]
struct Tokens {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct Answered<'a> {
    index: Option<u64>,
    error: Option<IgnoredAny>,
    message: Said,
    finish_reason: Option<&'a str>,
}

#[derive(Deserialize)]
struct Added<'a> {
    index: Option<u64>,
    error: Option<IgnoredAny>,
    delta: Option<Said>,
    message: Option<IgnoredAny>,
    finish_reason: Option<&'a str>,
}

#[derive(Deserialize)]
struct Said {
    content: Option<String>,
    reasoning_content: Option<String>,
    reasoning: Option<String>,
    function_call: Option<IgnoredAny>,
    refusal: Option<String>,
    tool_calls: Option<Vec<Call>>,
}

#[derive(Deserialize)]
struct Call {
    index: Option<u64>,
    id: Option<String>,
    function: Option<Function>,
}

#[derive(Deserialize)]
struct Function {
    name: Option<String>,
    arguments: Option<String>,
}

/// What a whole answer says; `None` for one that has to be looked at more closely.
pub(crate) fn whole(body: &[u8]) -> Option<impl Iterator<Item = Delta> + use<>> {
    let answer: Whole<'_> = read(body)?;
    let choice = answer.choices.into_iter().find(|choice| is_first(choice.index))?;
    let old = choice.message.function_call.is_some();
    if answer.error.is_some() || choice.error.is_some() || old {
        return None;
    }
    let found = found(answer.model, answer.usage, Some(choice.message), choice.finish_reason);
    Some(found.chain(iter::once(Delta::End)))
}

/// What a frame says; `None` as with [`whole`].
pub(crate) fn frame(frame: &[u8]) -> Option<impl Iterator<Item = Delta> + use<>> {
    let part: Part<'_> = read(frame)?;
    let mut choices = part.choices.into_iter().flatten();
    let choice = choices.find(|choice| is_first(choice.index));
    let is_odd = |choice: &Added<'_>| {
        let old = choice.delta.as_ref().is_some_and(|delta| delta.function_call.is_some());
        old || choice.error.is_some() || choice.message.is_some()
    };
    if part.error.is_some() || choice.as_ref().is_some_and(is_odd) {
        return None;
    }
    let (said, reason) = choice.map_or((None, None), |choice| (choice.delta, choice.finish_reason));
    Some(found(part.model, part.usage, said, reason))
}

/// Also what is not read must be UTF-8, and of what is known to be it a text is read faster.
fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<T> {
    serde_json::from_str(std::str::from_utf8(bytes).ok()?).ok()
}

fn found(
    model: Option<String>,
    usage: Option<Tokens>,
    said: Option<Said>,
    reason: Option<&str>,
) -> impl Iterator<Item = Delta> + use<> {
    let (thoughts, content, refusal, calls) = match said {
        Some(said) => {
            ([said.reasoning_content, said.reasoning], said.content, said.refusal, said.tool_calls)
        }
        None => ([None, None], None, None, None),
    };
    let thoughts = thoughts.into_iter().flatten().filter(|thought| !thought.is_empty());
    let thoughts = thoughts.map(|thought| Delta::Thought(thought.chars().count()));
    let usage = usage
        .map(|usage| Delta::Usage { input: usage.prompt_tokens, output: usage.completion_tokens });
    let calls = calls.into_iter().flatten().enumerate().map(|(place, call)| {
        let (name, arguments) =
            call.function.map_or((None, None), |function| (function.name, function.arguments));
        Delta::Call {
            number: call.index.unwrap_or(place as u64),
            id: call.id,
            name,
            arguments: arguments.unwrap_or_default(),
        }
    });
    let reason = reason.filter(|reason| is_reason(reason)).map(|reason| ended(reason.to_owned()));
    let refused = refusal.filter(|refusal| !refusal.is_empty()).map(|_| Delta::Refused);
    (model.map(Delta::Model).into_iter())
        .chain(usage)
        .chain(thoughts)
        .chain(content.map(Delta::Text))
        .chain(refused)
        .chain(calls)
        .chain(reason)
}
