//! An answer that cannot be used, and what the model is told of it before it gives another.
//!
//! *Invariant.* Only what a model can mend is told: not what an endpoint says in a form of its own. Nothing
//! of what was answered is in it: the next attempt may be another model's, and feedback goes with the fault.

use std::borrow::Cow;
use std::sync::Arc;

use mainstay::fault::Fault;

use super::BAD_JSON;
use super::share::TRUNCATED;
use crate::chat::{ChatRequest, Message, Role};

/// Ends what is told of an answer that had been asked for with the same words.
const STILL: &str = ", and the one that was given when this had been said was so again";

/// The fault of an answer of which the model is told what is wrong with it.
pub(super) fn unusable(
    what: impl Into<Cow<'static, str>>,
    code: impl Into<Cow<'static, str>>,
) -> Fault {
    let what = what.into();
    let told = Arc::<str>::from(&*what);
    Fault::output_invalid(what).with_code(code).with_feedback(told)
}

/// The fault of an answer that was cut off at its limit, before or after it had begun to call a tool. Of a call nothing is
/// told: it is as long the next time, and only a higher limit would let it through.
pub(super) fn cut_off(calls: bool) -> Fault {
    let text = "the answer was cut off at its token limit";
    if calls {
        let text = format!("{text}, with a tool call in it: it takes a higher `max_tokens`");
        return Fault::output_invalid(text).with_code(TRUNCATED);
    }
    unusable(text, TRUNCATED)
}

/// What a model is told of an answer that is not there to be shown: what is wrong with it.
pub(crate) fn words(feedback: &str) -> String {
    format!(
        "An answer that was given to this cannot be used: {feedback}.\nGive the whole answer, with that mended."
    )
}

/// The request with what was wrong with an answer to it, at its end.
pub(super) fn told(request: &ChatRequest, feedback: &str) -> ChatRequest {
    let words = words(feedback);
    let mut request = request.clone();
    match request.messages.last_mut() {
        // There are models that want who speaks to change with every message.
        Some(last) if last.role == Role::User => last.text = format!("{}\n\n{words}", last.text),
        _ => request.messages.push(Message::user(words)),
    }
    request
}

/// The fault of an attempt at this that had been `told` what was wrong before, at an answer of at most
/// `limit` tokens.
pub(super) fn after(
    mut fault: Fault,
    request: &ChatRequest,
    told: Option<&str>,
    limit: Option<u32>,
) -> Fault {
    let Some(now) = fault.feedback.take() else { return fault };
    let is = |code| fault.code.as_deref() == Some(code);
    // Of two who have it given again, each would do so for every time of the other.
    if request.regenerated && is(BAD_JSON) {
        return fault;
    }
    let now = match limit.filter(|_| is(TRUNCATED)) {
        Some(limit) => format!("{now}, which is {limit} tokens: say it in fewer").into(),
        None => now,
    };
    // To be told the same in the same words would change nothing.
    let still = told.is_some_and(|told| told.strip_suffix(STILL).unwrap_or(told) == &*now);
    fault.with_feedback(if still { format!("{now}{STILL}").into() } else { now })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_again_is_told_in_other_words_and_only_once() {
        let mut request = ChatRequest::from("write it");
        let empty = |told| after(unusable("it is empty", "empty_answer"), &request, told, Some(40));
        let first = empty(None).feedback.unwrap();
        assert_eq!(&*first, "it is empty");
        let second = empty(Some(&first)).feedback.unwrap();
        assert!(second != first && second.starts_with(&*first), "{second}");
        assert_eq!(empty(Some(&second)).feedback, Some(second));
        // Something else is wrong now.
        let cut = unusable("it was cut off at its limit", TRUNCATED);
        let cut = after(cut, &request, Some(&first), Some(40)).feedback.unwrap();
        assert!(cut.contains("40 tokens"), "{cut}");
        assert_eq!(after(Fault::network("x"), &request, Some(&first), None).feedback, None);
        let not_json = || unusable("no JSON at line 1", BAD_JSON);
        assert!(after(not_json(), &request, None, None).feedback.is_some());
        request.regenerated = true;
        assert_eq!(after(not_json(), &request, None, None).feedback, None);
    }
}
