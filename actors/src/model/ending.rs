//! Why an answer ended, and whether it did.
//!
//! *Invariant.* What is taken for the end of a stream was followed by nothing: a server may call every frame
//! the last one.

use serde_json::Value;

use super::wire::text_at;

/// Why an answer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    Complete,
    ToolCalls,
    Truncated,
    Filtered(String),
    ContextLength,
    BadOutput(String),
    /// The provider says that it is not what it should be.
    Spoiled(String),
    /// The provider has not brought it to its end.
    Broken(String),
    /// The provider says that something of it is missing, and no more than this word.
    Incomplete(String),
    Other(String),
}

impl Stop {
    /// What a word means that is none of its format's own: gateways pass on those of others.
    pub(crate) fn foreign(word: String) -> Self {
        // Google's compatible endpoint passes on its own.
        let lower = word.to_ascii_lowercase();
        match lower.as_str() {
            "stop" | "stop_sequence" | "end_turn" | "eos" | "eos_token" | "complete"
            | "completed" | "finished" => Self::Complete,
            "tool_calls" | "tool_call" | "tool_use" | "function_call" => Self::ToolCalls,
            "length" | "max_tokens" | "max_length" | "max_output_tokens" | "model_length"
            | "error_limit" => Self::Truncated,
            "content_filter"
            | "content_filtered"
            | "safety"
            | "sensitive"
            | "error_toxic"
            | "guardrail_intervened"
            | "language"
            | "recitation"
            | "blocklist"
            | "prohibited_content"
            | "model_armor"
            | "spii" => Self::Filtered(word),
            _ if lower.starts_with("image_") => Self::Filtered(word),
            "malformed_function_call" | "unexpected_tool_call" | "too_many_tool_calls" => {
                Self::BadOutput(word)
            }
            _ if lower.starts_with("function_call_filter") => Self::BadOutput(word),
            "other" | "malformed_response" | "missing_thought_signature" | "no_image" => {
                Self::Spoiled(word)
            }
            "insufficient_system_resource"
            | "abort"
            | "aborted"
            | "cancelled"
            | "canceled"
            | "user_cancel"
            | "timeout"
            | "error"
            | "network_error"
            | "server_error"
            | "load"
            | "unload" => Self::Broken(word),
            _ => Self::Other(word),
        }
    }
}

/// Whether this says why an answer ended. Where it has not ended, some servers say nothing in words.
pub(crate) fn is_reason(word: &str) -> bool {
    let word = word.trim();
    !(word.is_empty()
        || word.eq_ignore_ascii_case("null")
        || word.eq_ignore_ascii_case("none")
        || word.ends_with("_REASON_UNSPECIFIED"))
}

/// The reason at this place, if one is given.
pub(crate) fn reason_at(value: &Value, place: &str) -> Result<Option<String>, String> {
    Ok(text_at(value, place)?.filter(|word| is_reason(word)))
}

/// How far what was said of the end is to be believed. Some servers say in every frame that it is the last.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    pub(crate) said: Said,
    /// This frame says something.
    pub(crate) content: bool,
    /// This frame says why it ended.
    pub(crate) stopped: bool,
    /// There was a frame with something in it that did not say that it was the last.
    went_on: bool,
    /// There was one after one that said so.
    was_wrong: bool,
}

/// What was said of the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Said {
    /// Nothing, or nothing since there was more.
    #[default]
    Nothing,
    /// That this is all, which the end of the stream has to show.
    Perhaps,
    /// That this is all.
    All,
}

impl Ending {
    /// A frame was read. `said`: there is something that it can be the end of.
    pub(crate) fn weigh(&mut self, said: bool) {
        let (content, stopped) =
            (std::mem::take(&mut self.content), std::mem::take(&mut self.stopped));
        self.was_wrong |= content && self.said != Said::Nothing;
        self.went_on |= content && !stopped;
        if stopped {
            let certain = said && !self.was_wrong && (self.went_on || !content);
            self.said = if certain { Said::All } else { Said::Perhaps };
        } else if content {
            self.said = Said::Nothing;
        }
    }
}
