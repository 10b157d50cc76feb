//! The names of tools, and the ids of their calls, as every provider takes them. A server may call its tools what it
//! likes, and a provider its calls; another refuses a whole request for one name that it does not like.
//!
//! *Invariant.* A name has one alias, the same in every process; what needs none is its own.

use std::borrow::Cow;
use std::collections::HashSet;

use crate::chat::{ChatReply, ChatRequest, Message, Role, ToolCall};

/// Stands between a call's id and the signature that a model wants to see again with the call. A call has
/// no other place that keeps it.
pub(crate) const SIGNED: char = '~';
/// The longest id of a call that all but one take, in bytes.
const LONGEST_ID: usize = 40;
/// The longest name that all of them take, in bytes.
const LONGEST: usize = 64;

/// The name by which a provider is told of this tool.
pub(crate) fn alias(name: &str) -> Cow<'_, str> {
    if !name.is_empty() && name.len() <= LONGEST && name.chars().all(is_plain) {
        return Cow::Borrowed(name);
    }
    Cow::Owned(marked(name))
}

/// What is plain of a name, with a mark that tells it from all others.
pub(crate) fn marked(name: &str) -> String {
    // Two names may be alike in what is kept of them. FNV-1a, since it must not change.
    let hash = name
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let kept = name.chars().map(|letter| if is_plain(letter) { letter } else { '_' });
    let kept: String = kept.take(LONGEST - 9).collect();
    format!("{kept}_{hash:08x}")
}

fn is_plain(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-')
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

/// The calls that the messages of a request are the results of, as the place of the message and of the call in
/// it. Ids are not alone in a conversation: some servers count their calls from 0 in each answer.
pub(crate) fn answered(messages: &[Message]) -> Vec<Option<(usize, usize)>> {
    let mut waiting: Vec<(usize, usize, bool)> = Vec::new();
    let mut owners = Vec::with_capacity(messages.len());
    for (place, message) in messages.iter().enumerate() {
        let id = message.tool_call_id.as_deref().filter(|_| message.role == Role::Tool);
        let owner = id.and_then(|id| {
            let has_id = |at: &(usize, usize, bool)| messages[at.0].tool_calls[at.1].id == id;
            // The latest answer that has such a call; where it has several, one after the other.
            let latest = waiting.iter().rev().find(|call| has_id(call))?.0;
            let of_it = |call: &(usize, usize, bool)| call.0 == latest && has_id(call);
            let next = waiting.iter().position(|call| of_it(call) && !call.2);
            let at = next.or_else(|| waiting.iter().rposition(of_it))?;
            waiting[at].2 = true;
            Some((waiting[at].0, waiting[at].1))
        });
        owners.push(owner);
        waiting.extend((0..message.tool_calls.len()).map(|call| (place, call, false)));
    }
    owners
}

/// Gives these calls ids of their own, which none has that was made `before`.
pub(crate) fn distinguish<'a>(calls: &mut [ToolCall], before: impl Iterator<Item = &'a Message>) {
    let made = before.flat_map(|message| &message.tool_calls);
    let mut taken: HashSet<_> = made.map(|call| unsigned(&call.id).to_owned()).collect();
    for call in calls {
        let (plain, signature) = call.id.split_at(unsigned(&call.id).len());
        let stem = if plain.is_empty() { "call" } else { plain };
        let mut id = plain.to_owned();
        let mut number = 1;
        while id.is_empty() || !taken.insert(id.clone()) {
            number += 1;
            id = format!("{stem}-{number}");
        }
        if id != plain {
            call.id = id + signature;
        }
    }
}

/// An id without the signature that goes with it.
fn unsigned(id: &str) -> &str {
    id.split(SIGNED).next().unwrap_or(id)
}

/// The names of the tools that the messages of a request are the results of.
pub(crate) fn tools(messages: &[Message]) -> Vec<Option<&str>> {
    let owners = answered(messages).into_iter();
    owners.map(|owner| owner.map(|(at, call)| &*messages[at].tool_calls[call].name)).collect()
}

/// What ids of calls a provider takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ids {
    /// It is told none, or reads them as we write them.
    Any,
    /// At most 40 letters without a space.
    Short,
    /// At most 40 letters, digits, `_` and `-`.
    Plain,
    /// Nine letters and digits.
    Nine,
}

impl Ids {
    fn take(self, id: &str) -> bool {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
        let fits = (1..=LONGEST_ID).contains(&id.len());
        match self {
            Self::Any => true,
            Self::Short => fits && id.bytes().all(|byte| byte.is_ascii_graphic()),
            Self::Plain => fits && id.bytes().all(is_plain),
            Self::Nine => id.len() == 9 && id.bytes().all(|byte| byte.is_ascii_alphanumeric()),
        }
    }

    /// An id that is taken, the same in every process. FNV-1a, since it must not change.
    fn made(self, id: &str, nth: usize) -> String {
        let text = format!("{id}\0{nth}");
        let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        if self == Self::Nine {
            format!("{:09}", hash % 1_000_000_000)
        } else {
            format!("call_{hash:016x}")
        }
    }
}

/// The ids that a provider is told: of the calls of each message, and of the call it is the result of.
struct Retold {
    calls: Vec<Vec<String>>,
    results: Vec<Option<String>>,
}

/// The ids to tell, if they are others than there are.
fn retold(messages: &[Message], ids: Ids) -> Option<Retold> {
    let mut calls = messages.iter().flat_map(|message| &message.tool_calls).peekable();
    if ids == Ids::Any || calls.peek().is_none() {
        return None;
    }
    let mut taken = HashSet::new();
    if calls.all(|call| ids.take(&call.id) && !call.id.contains(SIGNED) && taken.insert(&*call.id))
    {
        return None;
    }
    let mut taken = HashSet::new();
    let told = messages.iter().map(|message| {
        let told = message.tool_calls.iter().map(|call| {
            let plain = unsigned(&call.id);
            let mut id = plain.to_owned();
            let mut nth = 0;
            while !ids.take(&id) || !taken.insert(id.clone()) {
                id = ids.made(plain, nth);
                nth += 1;
            }
            id
        });
        told.collect::<Vec<_>>()
    });
    let told: Vec<_> = told.collect();
    let owners = answered(messages).into_iter();
    let results = owners.map(|owner| owner.map(|(at, call)| told[at][call].clone())).collect();
    Some(Retold { calls: told, results })
}

/// The request as a provider is told it that takes these ids.
pub(crate) fn told(request: &ChatRequest, ids: Ids) -> Cow<'_, ChatRequest> {
    let ids = retold(&request.messages, ids);
    let calls = request.messages.iter().flat_map(|message| &message.tool_calls);
    let mut names = request.tools.iter().map(|tool| &tool.name).chain(calls.map(|call| &call.name));
    if ids.is_none() && names.all(|name| matches!(alias(name), Cow::Borrowed(_))) {
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
    if let Some(Retold { calls, results }) = ids {
        for ((message, calls), result) in told.messages.iter_mut().zip(calls).zip(results) {
            for (call, id) in message.tool_calls.iter_mut().zip(calls) {
                call.id = id;
            }
            message.tool_call_id = result.or(message.tool_call_id.take());
        }
    }
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

    #[test]
    fn an_id_that_a_provider_does_not_take_is_told_as_one_that_it_takes_the_same_for_call_and_result()
     {
        let long = format!("call-0{SIGNED}{}", "a/b+c=".repeat(80));
        let own =
            ["call-0", &long, "functions.look:0", "", "\u{fc} b", &"x".repeat(41), "abcDEF123"];
        let call = |id: &&str| ToolCall {
            id: (*id).to_owned(),
            name: "look".to_owned(),
            arguments: "{}".to_owned(),
        };
        let mut request = ChatRequest::new([Message::user("x")]);
        request.messages.push(Message::tool_calls("", own.iter().map(call).collect()));
        request.messages.extend(own.iter().map(|id| Message::tool_result(*id, "y")));
        assert!(matches!(told(&request, Ids::Any), Cow::Borrowed(_)));
        for (ids, kept) in [
            (Ids::Short, &["call-0", "functions.look:0", "abcDEF123"][..]),
            (Ids::Plain, &["call-0", "abcDEF123"]),
            (Ids::Nine, &["abcDEF123"]),
        ] {
            let once = told(&request, ids);
            assert_eq!(once, told(&request, ids));
            let calls: Vec<_> = once.messages[1].tool_calls.iter().map(|call| &*call.id).collect();
            let results: Vec<_> = once.messages[2..]
                .iter()
                .map(|message| message.tool_call_id.as_deref().unwrap())
                .collect();
            assert_eq!(calls, results, "{ids:?}");
            assert!(
                calls.iter().all(|id| ids.take(id) && !id.contains(SIGNED)),
                "{ids:?}: {calls:?}"
            );
            assert_eq!(calls.iter().collect::<HashSet<_>>().len(), own.len(), "{ids:?}: {calls:?}");
            for id in kept {
                assert_eq!(
                    own.iter().position(|own| own == id),
                    calls.iter().position(|own| own == id)
                );
            }
            // What is told is taken as it is.
            assert!(matches!(told(&once, ids), Cow::Borrowed(_)), "{ids:?}");
        }
    }
}
