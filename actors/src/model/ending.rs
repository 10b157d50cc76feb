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
    Other(String),
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
    /// A frame was read.
    pub(crate) fn weigh(&mut self) {
        let (content, stopped) =
            (std::mem::take(&mut self.content), std::mem::take(&mut self.stopped));
        self.was_wrong |= content && self.said != Said::Nothing;
        self.went_on |= content && !stopped;
        if stopped {
            let certain = !self.was_wrong && (self.went_on || !content);
            self.said = if certain { Said::All } else { Said::Perhaps };
        } else if content {
            self.said = Said::Nothing;
        }
    }
}
