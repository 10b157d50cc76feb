//! What an error shows about the act that was asked for: that it was refused before the tool was run, that
//! the tool has run, or neither.
//!
//! | Shown by | The act |
//! |---|---|
//! | there is no such tool, its arguments do not fit its schema: in the words of the official libraries, which say so before they run the tool, from a trusted server | has not happened |
//! | the same from any other, as an error of the protocol (-32601, -32602) that names the tool | has not happened |
//! | the result does not fit its schema: in their words, once the tool has run | may have happened: nobody knows |
//! | time ran out behind the server, in their words or with their code | may have happened: nobody knows |
//! | HTTP 401, 403, 404, 405, 406, 411, 414, 415, 426, 429, 431: who asks, how often, and the form of the request | has not happened |
//! | HTTP 408, 5xx: a gateway says the same before it hands a request on and after | may have happened: nobody knows |
//! | anything else | has failed, and may have done a part |
//!
//! *Invariant.* That nothing has happened is taken from these words and numbers alone: whoever else says that
//! something went wrong may have acted first. A tool that has acted and then asks another server hands on what that
//! says, in the same words: in a result, or without a name, only of a trusted server is it known that it does not.

use std::borrow::Cow;

/// How the reference servers begin the text of a protocol error that they put into a result.
const PREFIX: &str = "MCP error ";

/// The code at the head of a text, and what follows it.
pub(super) fn split(text: &str) -> (Option<i32>, &str) {
    let coded = text.strip_prefix(PREFIX).and_then(|rest| {
        let (code, rest) = rest.split_once(':')?;
        Some((code.parse().ok()?, rest.trim_start()))
    });
    coded.map_or((None, text), |(code, rest)| (Some(code), rest))
}

/// Why a tool was not run, by the words of who says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// There is no such tool, or its arguments do not fit.
    pub(super) code: &'static str,
    /// They name the tool.
    pub(super) is_named: bool,
}

/// Why the tool of this name was not run, if the text, without its code, says that. Whether it is believed is for
/// [`shows`] to say.
pub(super) fn refusal(tool: &str, text: &str) -> Option<Refusal> {
    let bare: Cow<'_, str> = if text.contains(['"', '\'', '`']) {
        text.replace(['"', '\'', '`'], "").into()
    } else {
        text.into()
    };
    let bare = bare.trim().trim_end_matches('.');
    let about = |before: &str, after: &str| {
        let inner = bare.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
        inner.is_some_and(|inner| inner == tool)
    };
    let gone = [
        ("Unknown tool: ", ""),
        ("Unknown tool ", ""),
        ("unknown tool ", ""),
        ("Tool not found: ", ""),
        ("Tool ", " not found"),
        ("Tool ", " disabled"),
    ];
    let is_named = gone.iter().any(|(before, after)| about(before, after));
    // Rust's library does not name it.
    if is_named || bare == "tool not found" {
        return Some(Refusal { code: "unknown_tool", is_named });
    }
    let fits = |rest: &str| {
        let named = rest.strip_prefix("Invalid arguments for tool ");
        named.and_then(|rest| rest.strip_prefix(tool)).is_some_and(|rest| rest.starts_with(':'))
    };
    // TypeScript's library, with and without its own prefix; Python's does not name the tool.
    let (is_named, unfit) = match bare.strip_prefix("Input validation error: ") {
        Some(rest) => (fits(rest), !rest.starts_with("Invalid arguments for tool ")),
        None => (fits(bare), bare.starts_with("failed to deserialize parameters: ")),
    };
    (is_named || unfit).then_some(Refusal { code: "bad_arguments", is_named })
}

/// Who says that a tool was not run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Voice {
    /// A server that was marked as trusted.
    pub(super) trusted: bool,
    /// In a result, not in an error of the protocol.
    pub(super) in_result: bool,
}

/// Whether it is believed that nothing has happened, when this is said with this code.
pub(super) fn shows(voice: Voice, code: Option<i32>, refusal: Refusal) -> bool {
    let by_protocol = !voice.in_result && matches!(code, Some(-32601 | -32602));
    voice.trusted || by_protocol && refusal.is_named
}

/// Whether a text, without its code, says that the tool has run and its result is not as promised.
pub(super) fn is_about_output(tool: &str, text: &str) -> bool {
    let of_tool = || {
        // The library of a gateway checks once more, and so did that of servers before it had a name for it.
        let promised = text.strip_prefix("Tool ").and_then(|rest| rest.strip_prefix(tool));
        let invalid = [
            "Invalid structured content returned by tool ",
            "Invalid structured content for tool ",
        ];
        promised.is_some_and(|rest| rest.starts_with(" has an output schema but "))
            || invalid.iter().any(|start| text.starts_with(start))
    };
    text.starts_with("Output validation error: ")
        || text.starts_with("Unexpected return type from tool: ")
        || of_tool()
}

/// Whether a text, without its code, says that a gateway has waited in vain.
pub(super) fn is_late(text: &str) -> bool {
    text.starts_with("Timed out while waiting for response to ")
}

/// Whether this code says that time ran out behind the server: the one of TypeScript's library, and the one
/// that Python's borrows from HTTP.
pub(super) const fn is_late_code(code: i32) -> bool {
    matches!(code, -32001 | 408)
}

/// Whether whoever answers with this status has not run the tool.
pub(super) const fn is_refusal_status(status: u16) -> bool {
    matches!(status, 401 | 403 | 404 | 405 | 406 | 411 | 414 | 415 | 426 | 429 | 431)
}
