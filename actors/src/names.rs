//! The names of tools as every provider takes them. A server may call its tools what it likes; a provider
//! refuses a whole request for one name that it does not like.
//!
//! *Invariant.* A name has one alias, the same in every process; what needs none is its own.

use std::borrow::Cow;

use crate::chat::{ChatReply, ChatRequest};

/// The longest name that all of them take, in bytes.
const LONGEST: usize = 64;

/// The name by which a provider is told of this tool.
pub(crate) fn alias(name: &str) -> Cow<'_, str> {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-');
    if !name.is_empty() && name.len() <= LONGEST && name.chars().all(plain) {
        return Cow::Borrowed(name);
    }
    // Two names may be alike in what is kept of them. FNV-1a, since it must not change.
    let hash = name
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let kept = name.chars().map(|letter| if plain(letter) { letter } else { '_' });
    let kept: String = kept.take(LONGEST - 9).collect();
    Cow::Owned(format!("{kept}_{hash:08x}"))
}

/// Whether it can be one part of a path, and be seen there as what it is.
pub(crate) fn can_be_an_id(name: &str) -> bool {
    // Some letters have what comes after them shown in another order.
    let hides = |letter: char| {
        let turns = matches!(letter, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        letter.is_control() || turns || letter == '/'
    };
    !name.is_empty() && !name.contains(hides)
}

/// The request as a provider is told it.
pub(crate) fn told(request: &ChatRequest) -> Cow<'_, ChatRequest> {
    let calls = request.messages.iter().flat_map(|message| &message.tool_calls);
    let mut names = request.tools.iter().map(|tool| &tool.name).chain(calls.map(|call| &call.name));
    if names.all(|name| matches!(alias(name), Cow::Borrowed(_))) {
        return Cow::Borrowed(request);
    }
    let rename = |name: &mut String| {
        if let Cow::Owned(alias) = alias(name) {
            *name = alias;
        }
    };
    let mut told = request.clone();
    told.tools.iter_mut().for_each(|tool| rename(&mut tool.name));
    let calls = told.messages.iter_mut().flat_map(|message| &mut message.tool_calls);
    calls.for_each(|call| rename(&mut call.name));
    Cow::Owned(told)
}

/// The answer with the names that whoever asked has for its tools.
pub(crate) fn heard(mut reply: ChatReply, request: &ChatRequest) -> ChatReply {
    for call in &mut reply.tool_calls {
        let meant = request.tools.iter().find(|tool| alias(&tool.name) == call.name);
        if let Some(tool) = meant.filter(|tool| tool.name != call.name) {
            call.name.clone_from(&tool.name);
        }
    }
    reply
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn an_alias_is_plain_and_short_and_names_that_look_alike_have_different_ones() {
        let long = "q".repeat(80);
        let names = [
            "a.b",
            "a/b",
            "a b",
            "get weather",
            "",
            "\u{dc}n\u{ef}",
            &long,
            &long[..65],
            "\u{1f600}",
        ];
        let aliases: HashSet<_> = names.iter().map(|name| alias(name)).collect();
        assert_eq!(aliases.len(), names.len());
        for name in &aliases {
            assert!(!name.is_empty() && name.len() <= LONGEST, "{name}");
            assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte)));
            // What is plain is left alone.
            assert_eq!(alias(name), &**name);
        }
        assert_eq!(alias("query_order-2"), "query_order-2");
    }
}
