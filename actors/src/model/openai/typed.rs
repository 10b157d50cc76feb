//! Chat completions read straight from their bytes.
//!
//! *Invariant.* What is read here means what it means as a tree of values, in `openai.rs`. Whatever looks
//! otherwise than nearly all answers do, an error among them, is left to that: this says `None`.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::ended;
use crate::model::ending::is_reason;
use crate::model::read::{Heard, written_of};
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
    total_tokens: Option<u64>,
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

/// What an answer or a frame says.
pub(crate) struct Read {
    model: Option<String>,
    usage: Option<Tokens>,
    said: Option<Said>,
    reason: Option<Delta>,
    /// Whether there is nothing more to come.
    last: bool,
}

/// What a whole answer says; `None` for one that has to be looked at more closely.
pub(crate) fn whole(body: &[u8]) -> Option<Read> {
    let answer: Whole<'_> = read(body)?;
    let choice = Heard::default().of(answer.choices, |choice| choice.index)?;
    let old = choice.message.function_call.is_some();
    if answer.error.is_some() || choice.error.is_some() || old {
        return None;
    }
    let reason = reason(choice.finish_reason);
    let (model, usage) = (answer.model, answer.usage);
    Some(Read { model, usage, said: Some(choice.message), reason, last: true })
}

/// What a frame says; `None` as with [`whole`].
pub(crate) fn frame(frame: &[u8], first: &mut Heard) -> Option<Read> {
    let part: Part<'_> = read(frame)?;
    // One without choices may be an error that is not wrapped in anything.
    let choice = first.of(part.choices?, |choice| choice.index);
    let is_odd = |choice: &Added<'_>| {
        let old = choice.delta.as_ref().is_some_and(|delta| delta.function_call.is_some());
        old || choice.error.is_some() || choice.message.is_some()
    };
    if part.error.is_some() || choice.as_ref().is_some_and(is_odd) {
        return None;
    }
    let (said, ended) = choice.map_or((None, None), |choice| (choice.delta, choice.finish_reason));
    let (model, usage) = (part.model, part.usage);
    Some(Read { model, usage, said, reason: reason(ended), last: false })
}

fn reason(reason: Option<&str>) -> Option<Delta> {
    reason.filter(|reason| is_reason(reason)).map(ended)
}

/// Also what is not read must be UTF-8, and of what is known to be it a text is read faster.
fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<T> {
    serde_json::from_str(std::str::from_utf8(bytes).ok()?).ok()
}

impl Read {
    /// Tells each thing that was said, in order. Not as an iterator: one of so many parts, each of which may be
    /// missing, asks all of them again for each that is there.
    pub(crate) fn tell(self, mut told: impl FnMut(Delta)) {
        if let Some(model) = self.model {
            told(Delta::Model(model));
        }
        if let Some(Tokens { prompt_tokens: input, completion_tokens, total_tokens }) = self.usage {
            let output = written_of(input, completion_tokens, total_tokens);
            told(Delta::Usage { input, output });
        }
        if let Some(said) = self.said {
            for thought in [said.reasoning_content, said.reasoning].into_iter().flatten() {
                if !thought.is_empty() {
                    told(Delta::Thought(thought.chars().count()));
                }
            }
            if let Some(text) = said.content {
                told(Delta::Text(text));
            }
            if said.refusal.is_some_and(|refusal| !refusal.is_empty()) {
                told(Delta::Refused);
            }
            for (place, call) in said.tool_calls.into_iter().flatten().enumerate() {
                let (name, arguments) = call
                    .function
                    .map_or((None, None), |function| (function.name, function.arguments));
                let number = call.index.unwrap_or(place as u64);
                let arguments = arguments.unwrap_or_default();
                told(Delta::Call { number, id: call.id, name, arguments });
            }
        }
        if let Some(reason) = self.reason {
            told(reason);
        }
        if self.last {
            told(Delta::End);
        }
    }
}
