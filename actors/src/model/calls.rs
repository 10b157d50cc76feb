//! The tool calls of an answer, put together from their pieces.
//!
//! *Invariant.* A piece goes to the call that it can be a piece of, and to no other. Servers give several calls the same
//! number, each piece of one call another id, or no ids at all: of an object that has been closed nothing is a piece.

use std::collections::{HashMap, HashSet};

use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::wire::Wire;
use crate::chat::ToolCall;

/// The calls of an answer, in the order in which they began.
#[derive(Debug, Default)]
pub(super) struct Calls {
    begun: Vec<Begun>,
    /// The latest of each number, and of each id: an answer has room for tens of thousands.
    by_number: HashMap<u64, usize>,
    by_id: HashMap<String, Vec<usize>>,
    size: usize,
}

#[derive(Debug)]
struct Begun {
    number: u64,
    call: ToolCall,
    nesting: Nesting,
    /// Its name was said once more when its arguments were whole: those that follow are another call's.
    named_again: bool,
    /// Its arguments as a value, once they were whole and somebody asked.
    value: Option<Option<Value>>,
    /// The last piece of its arguments, if each says what was said before it, and more.
    growing: Option<String>,
    /// What came without a name when they were whole, and is at the end of them.
    after: String,
}

/// What a piece of an answer says of a call.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) number: u64,
    /// Empty where none is said.
    pub(super) id: String,
    pub(super) name: Option<String>,
    pub(super) arguments: String,
}

impl Piece {
    fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }
}

/// Where a piece belongs.
enum Place {
    /// To the call at this place.
    To(usize),
    /// To another one, of this name.
    New(String),
    /// It says once more what this call is.
    Same(usize),
    /// The arguments of this call, once more and in other words.
    Anew(usize),
    /// To none of ours.
    Nowhere,
}

impl Calls {
    pub(super) fn is_empty(&self) -> bool {
        self.begun.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.begun.len()
    }

    /// The bytes of their names and arguments.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Whether one has no name.
    pub(super) fn lacks_a_name(&self) -> bool {
        self.begun.iter().any(|begun| begun.call.name.is_empty())
    }

    /// Takes a piece.
    pub(super) fn hear(&mut self, wire: Wire, piece: Piece) {
        let at = match self.place(wire, &piece) {
            Place::To(at) => at,
            Place::New(name) => {
                self.size += name.len();
                let call = ToolCall { name, id: String::new(), arguments: String::new() };
                let (number, nesting) = (piece.number, Nesting::default());
                self.by_number.insert(number, self.begun.len());
                self.begun.push(Begun {
                    number,
                    call,
                    nesting,
                    named_again: false,
                    value: None,
                    growing: None,
                    after: String::new(),
                });
                self.begun.len() - 1
            }
            Place::Same(at) => {
                self.begun[at].named_again |= piece.id.is_empty() && piece.arguments.is_empty();
                return;
            }
            Place::Anew(at) => {
                let begun = &mut self.begun[at];
                self.size -= begun.call.arguments.len();
                begun.call.arguments.clear();
                begun.nesting = Nesting::default();
                begun.value = None;
                at
            }
            Place::Nowhere => return,
        };
        let Begun { call, nesting, growing, .. } = &mut self.begun[at];
        let before = call.name.len() + call.arguments.len();
        if call.id.is_empty() && !piece.id.is_empty() {
            self.by_id.entry(piece.id.clone()).or_default().push(at);
            call.id = piece.id;
        }
        if let Some(name) = piece.name.filter(|name| !name.is_empty()) {
            call.name = name;
        }
        nesting.read(&piece.arguments);
        if !piece.arguments.is_empty() && !call.arguments.is_empty() {
            let is_more = |before: &str| piece.arguments.starts_with(before);
            let is_more = is_more(&call.arguments) || growing.as_deref().is_some_and(is_more);
            *growing = is_more.then(|| piece.arguments.clone());
        }
        call.arguments.push_str(&piece.arguments);
        self.size = self.size + call.name.len() + call.arguments.len() - before;
    }

    fn place(&mut self, wire: Wire, piece: &Piece) -> Place {
        let new = || Place::New(piece.name().to_owned());
        let Some(at) = self.of(piece) else {
            // A piece of a call that the provider makes itself.
            let is_alien = wire == Wire::Anthropic && piece.name.is_none();
            // There are servers that count on within a call.
            let is_rest = piece.id.is_empty() && piece.name().is_empty();
            return match self.begun.last().filter(|_| is_rest) {
                _ if is_alien => Place::Nowhere,
                Some(last) if !last.is_whole() => Place::To(self.begun.len() - 1),
                _ => new(),
            };
        };
        let begun = &mut self.begun[at];
        let said = piece.arguments.trim();
        let is_other = !piece.name().is_empty() && piece.name() != begun.call.name;
        if !begun.is_whole() {
            // Where ids are told, what has none goes on; and a name may come in ever longer pieces.
            let is_alone = piece.id.is_empty() && begun.call.id.is_empty();
            let is_longer = begun.call.arguments.trim().is_empty()
                && piece.name().starts_with(&*begun.call.name);
            return if is_other && is_alone && !is_longer { new() } else { Place::To(at) };
        }
        if is_other {
            new()
        } else if piece.name().is_empty() && !begun.after.is_empty() {
            begun.after.push_str(&piece.arguments);
            Place::To(at)
        } else if said.is_empty() && piece.name().is_empty() {
            Place::Nowhere
        } else if said.is_empty() || begun.says(said) {
            // Some servers say a call once more at the end. To do it twice is worse than to do it once where a model has
            // asked for the very same thing twice.
            Place::Same(at)
        } else if !piece.name().is_empty() {
            new()
        } else if std::mem::take(&mut begun.named_again) {
            Place::New(begun.call.name.clone())
        } else if wire == Wire::Anthropic {
            // All of it came with the name, and now comes in pieces, too.
            Place::Anew(at)
        } else {
            // Whose it is nobody says.
            begun.value = Some(None);
            begun.after.push_str(&piece.arguments);
            Place::To(at)
        }
    }

    /// The call that this is a piece of by what it is called. Some servers give every call the same number: their ids tell
    /// them apart. Others give every piece another id: only the first has a name.
    fn of(&self, piece: &Piece) -> Option<usize> {
        let latest = self.by_number.get(&piece.number);
        if piece.id.is_empty() {
            return latest.copied();
        }
        let same = self.by_id.get(&piece.id).and_then(|all| {
            let its = all.iter().rev().find(|at| self.begun[**at].number == piece.number);
            // Others count on within a call.
            its.or_else(|| all.last().filter(|_| latest.is_none() && piece.name().is_empty()))
        });
        let is_its = |at: &&usize| piece.name().is_empty() || self.begun[**at].call.id.is_empty();
        same.or_else(|| latest.filter(is_its)).copied()
    }

    /// All of them. Each has an id to send its result back under, and arguments.
    pub(super) fn made(mut self) -> Vec<ToolCall> {
        self.begun.iter_mut().for_each(Begun::settle);
        self.join();
        let ids = self.begun.iter().map(|begun| begun.call.id.clone());
        let taken: HashSet<String> = ids.filter(|id| !id.is_empty()).collect();
        let mut made = Vec::with_capacity(self.begun.len());
        let mut next = 0;
        for Begun { number, mut call, .. } in self.begun {
            if call.id.is_empty() {
                // Each number is tried once, however many calls have it.
                next = next.max(number);
                while taken.contains(&format!("call-{next}")) {
                    next = next.wrapping_add(1);
                }
                call.id = format!("call-{next}");
                next = next.wrapping_add(1);
            }
            if call.arguments.is_empty() {
                call.arguments = "{}".to_owned();
            }
            made.push(call);
        }
        made
    }
}

impl Calls {
    /// What was said under several numbers with one id, and is one call: in pieces, or once more.
    fn join(&mut self) {
        let mut gone = HashSet::new();
        for all in self.by_id.values().filter(|all| all.len() > 1) {
            let mut named: HashMap<&str, Vec<usize>> = HashMap::new();
            for at in all {
                named.entry(&*self.begun[*at].call.name).or_default().push(*at);
            }
            for all in named.into_values() {
                let texts = || all.iter().map(|at| &*self.begun[*at].call.arguments);
                let whole: String = texts().collect();
                if texts().any(|text| !text.is_empty() && !reads(text)) && reads(&whole) {
                    gone.extend(all[1..].iter().map(|at| (*at, None)));
                    gone.insert((all[0], Some(whole)));
                    continue;
                }
                let mut said = HashSet::new();
                let is_nothing = |text: &str| matches!(text.trim(), "" | "{}");
                let is_said = texts().any(|text| !is_nothing(text));
                for at in &all {
                    let text = &*self.begun[*at].call.arguments;
                    // In the order of their keys, as every value is.
                    let value = serde_json::from_str::<Value>(text).map(|it| it.to_string());
                    if is_said && is_nothing(text)
                        || !said.insert(value.unwrap_or_else(|_| text.to_owned()))
                    {
                        gone.insert((*at, None));
                    }
                }
            }
        }
        let mut whole: HashMap<usize, Option<String>> = gone.into_iter().collect();
        let begun = std::mem::take(&mut self.begun).into_iter().enumerate();
        self.begun = begun
            .filter_map(|(at, mut begun)| match whole.remove(&at) {
                None => Some(begun),
                Some(None) => None,
                Some(Some(whole)) => {
                    begun.call.arguments = whole;
                    Some(begun)
                }
            })
            .collect();
    }
}

/// Whether these arguments say the same as those that came after them, or nothing.
fn is_same_or_nothing(arguments: &str, after: &str) -> bool {
    let [arguments, after] = [arguments, after].map(serde_json::from_str::<Value>);
    arguments.is_ok_and(|it| {
        it.as_object().is_none_or(Map::is_empty) || after.is_ok_and(|after| it == after)
    })
}

/// Whether this is an object.
fn reads(arguments: &str) -> bool {
    let is_one = arguments.trim_start().starts_with('{');
    is_one && serde_json::from_str::<IgnoredAny>(arguments).is_ok()
}

impl Begun {
    /// Which of what was said its arguments are.
    fn settle(&mut self) {
        let said = &mut self.call.arguments;
        let after = std::mem::take(&mut self.after);
        if reads(&after) && is_same_or_nothing(&said[..said.len() - after.len()], &after) {
            // All of it, or the word for nothing yet, came with the name. Of others the model is told that they are no
            // arguments.
            *said = after;
        }
        if let Some(last) = self.growing.take().filter(|last| reads(last) && !reads(said)) {
            // There are servers that say all of it with every piece, or with the last one.
            *said = last;
        }
    }

    /// Whether its arguments are these, in whatever words. They are read once, however many pieces there are.
    fn says(&mut self, arguments: &str) -> bool {
        if !self.after.is_empty() {
            let [after, said] = [&*self.after, arguments].map(serde_json::from_str::<Value>);
            return after.is_ok_and(|after| said.is_ok_and(|said| said == after));
        }
        let its = &self.call.arguments;
        let value = self.value.get_or_insert_with(|| serde_json::from_str(its).ok());
        value.is_some() && serde_json::from_str(arguments).ok() == *value
    }

    /// Whether it has a name, and arguments of which nothing can be missing.
    fn is_whole(&self) -> bool {
        let none = || self.call.arguments.trim() == "null";
        !self.call.name.is_empty() && (self.nesting.closed || none())
    }
}

/// How far the arguments of a call have come. They are not parsed: a piece of a call is looked at once.
#[derive(Debug, Default)]
struct Nesting {
    depth: usize,
    in_text: bool,
    escaped: bool,
    /// The last brace has come.
    closed: bool,
}

impl Nesting {
    fn read(&mut self, piece: &str) {
        for byte in piece.bytes() {
            match byte {
                _ if std::mem::take(&mut self.escaped) => {}
                b'\\' if self.in_text => self.escaped = true,
                b'"' => self.in_text = !self.in_text,
                _ if self.in_text => {}
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => {
                    self.closed |= self.depth == 1;
                    self.depth = self.depth.saturating_sub(1);
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An id, a name and arguments.
    type Said = [&'static str; 3];

    /// What comes of these pieces, each an id, a name and arguments, all with the same number.
    fn put_together(wire: Wire, pieces: &[Said]) -> Vec<[String; 3]> {
        let mut calls = Calls::default();
        for [id, name, arguments] in pieces.iter().map(|piece| piece.map(str::to_owned)) {
            let name = Some(name).filter(|name| !name.is_empty());
            calls.hear(wire, Piece { number: 0, id, name, arguments });
        }
        calls.made().into_iter().map(|call| [call.id, call.name, call.arguments]).collect()
    }

    #[test]
    fn a_call_begins_where_it_cannot_be_the_one_before_that_goes_on() {
        let cases: [(&str, &[Said], &[Said]); 22] = [
            (
                "each whole, without ids",
                &[["", "f", "{\"x\":1}"], ["", "f", "{\"x\":2}"], ["", "g", "{\"x\":2}"]],
                &[
                    ["call-0", "f", "{\"x\":1}"],
                    ["call-1", "f", "{\"x\":2}"],
                    ["call-2", "g", "{\"x\":2}"],
                ],
            ),
            (
                "in pieces, without ids",
                &[
                    ["", "f", ""],
                    ["", "", "{\"x\":\"}"],
                    ["", "", "\\\"}\"}"],
                    ["", "f", ""],
                    ["", "", "{\"x\""],
                    ["", "", ":2}"],
                    ["", "g", ""],
                ],
                &[
                    ["call-0", "f", "{\"x\":\"}\\\"}\"}"],
                    ["call-1", "f", "{\"x\":2}"],
                    ["call-2", "g", "{}"],
                ],
            ),
            (
                "its name with every piece",
                &[["", "f", ""], ["", "f", "{\"x\":{"], ["", "f", "\"y\":[1]}"], ["", "f", "}"]],
                &[["call-0", "f", "{\"x\":{\"y\":[1]}}"]],
            ),
            (
                "no arguments, and then another's",
                &[["", "f", ""], ["", "g", "{\"x\":"], ["", "", "1}"]],
                &[["call-0", "f", "{}"], ["call-1", "g", "{\"x\":1}"]],
            ),
            (
                "a name that grows",
                &[["", "f", ""], ["", "find", ""], ["", "", "{}"]],
                &[["call-0", "find", "{}"]],
            ),
            (
                "a name that is said in another way, beside an id",
                &[["a", "f", ""], ["", "find", ""], ["", "", "{}"]],
                &[["a", "find", "{}"]],
            ),
            (
                "an id that comes late",
                &[["", "f", ""], ["a", "f", "{\"x\":"], ["a", "f", "1}"]],
                &[["a", "f", "{\"x\":1}"]],
            ),
            (
                "one without an id before one that has one",
                &[["", "f", "{}"], ["b", "g", "{}"]],
                &[["call-0", "f", "{}"], ["b", "g", "{}"]],
            ),
            (
                "the same id for all",
                &[["a", "f", "{\"x\":1}"], ["a", "f", "{\"x\":2}"]],
                &[["a", "f", "{\"x\":1}"], ["a", "f", "{\"x\":2}"]],
            ),
            (
                "no arguments, in the word for nothing",
                &[["", "f", "null"], ["", "g", "{}"]],
                &[["call-0", "f", "null"], ["call-1", "g", "{}"]],
            ),
            (
                "an id that another would get",
                &[["call-0", "f", "{}"], ["", "g", "{}"]],
                &[["call-0", "f", "{}"], ["call-1", "g", "{}"]],
            ),
            (
                "once more at the end",
                &[["a", "f", "{\"x\":"], ["", "", "1}"], ["a", "f", ""], ["a", "f", "{\"x\":1}"]],
                &[["a", "f", "{\"x\":1}"]],
            ),
            (
                "once more at the end, in other words",
                &[["a", "f", "{\"x\":"], ["", "", "1}"], ["a", "f", "{ \"x\": 1 }"]],
                &[["a", "f", "{\"x\":1}"]],
            ),
            (
                "all of it with every piece",
                &[
                    ["a", "f", ""],
                    ["a", "f", "{\"x"],
                    ["a", "f", "{\"x\":"],
                    ["a", "f", "{\"x\":1}"],
                ],
                &[["a", "f", "{\"x\":1}"]],
            ),
            (
                "what only looks like all of it",
                &[["a", "f", "{\"x\":"], ["", "", "{\"x\":1}"], ["", "", "}"]],
                &[["a", "f", "{\"x\":{\"x\":1}}"]],
            ),
            (
                "its name and nothing once more at the end",
                &[["", "f", "{\"x\":1}"], ["", "f", ""], ["", "", " \n"]],
                &[["call-0", "f", "{\"x\":1}"]],
            ),
            (
                "all of it with the name, and in pieces",
                &[
                    ["a", "f", "{\"x\":\" \"}"],
                    ["", "", "{\"x\":\""],
                    ["", "", " "],
                    ["", "", "\"}"],
                ],
                &[["a", "f", "{\"x\":\" \"}"]],
            ),
            (
                "nothing yet with the name, and in pieces",
                &[["a", "f", "{}"], ["", "", "{\"x\""], ["", "", ":1}"], ["b", "g", "{}"]],
                &[["a", "f", "{\"x\":1}"], ["b", "g", "{}"]],
            ),
            (
                "without ids, before one that has the id they would get",
                &[["", "f", "{}"], ["", "g", "{}"], ["call-0", "h", "{}"], ["call-2", "h", "{}"]],
                &[
                    ["call-1", "f", "{}"],
                    ["call-3", "g", "{}"],
                    ["call-0", "h", "{}"],
                    ["call-2", "h", "{}"],
                ],
            ),
            (
                "nothing yet with the name, in pieces, and once more at the end",
                &[["a", "f", "{}"], ["", "", "{\"x\""], ["", "", ":1}"], ["a", "f", "{\"x\":1}"]],
                &[["a", "f", "{\"x\":1}"]],
            ),
            (
                "the same without ids",
                &[["", "f", "{}"], ["", "", "{\"x\""], ["", "", ":1}"], ["", "f", "{\"x\":1}"]],
                &[["call-0", "f", "{\"x\":1}"]],
            ),
            // Nobody says of what tool these are.
            (
                "arguments of nobody",
                &[["a", "f", "{\"x\":1}"], ["", "", "{\"x\":2}"]],
                &[["a", "f", "{\"x\":1}{\"x\":2}"]],
            ),
        ];
        for (what, pieces, expected) in cases {
            assert_eq!(put_together(Wire::Chat, pieces), expected, "{what}");
        }
    }

    #[test]
    fn what_has_no_name_goes_on_with_the_call_before_it_whatever_its_number() {
        let made = |pieces: &[(u64, &str, &str)]| {
            let mut calls = Calls::default();
            for (number, name, arguments) in pieces {
                let name = Some(name.to_string()).filter(|name| !name.is_empty());
                let (number, arguments) = (*number, arguments.to_string());
                calls.hear(Wire::Chat, Piece { number, id: String::new(), name, arguments });
            }
            let is_nameless = calls.lacks_a_name();
            let calls = calls.made().into_iter().map(|call| call.arguments);
            (is_nameless, calls.collect::<Vec<_>>())
        };
        let pieces = [(0, "f", "{\"x\":1}"), (0, "g", "{\"y\""), (1, "", ":2"), (2, "", "}")];
        assert_eq!(made(&pieces), (false, vec!["{\"x\":1}".to_owned(), "{\"y\":2}".to_owned()]));
        // After one that is whole it is a call whose name is missing.
        assert!(made(&[(0, "f", "{}"), (1, "", "{}")]).0);
    }

    #[test]
    fn a_call_that_is_said_under_several_numbers_is_made_once() {
        let whole = "{\"x\":1}";
        let cases: [&[(u64, &str, &str, &str)]; 9] = [
            &[(0, "a", "f", whole), (0, "a", "f", "{}")],
            &[(0, "a", "f", "{}"), (0, "a", "f", "{\"x\""), (0, "a", "f", ":1}")],
            &[(0, "a", "f", "{}"), (0, "", "", whole), (1, "a", "f", whole)],
            &[(0, "a", "f", whole), (1, "a", "f", whole)],
            &[(0, "a", "f", ""), (0, "", "", "{\"x\""), (0, "", "", ":1}"), (1, "a", "f", whole)],
            &[(0, "a", "f", ""), (1, "a", "f", whole)],
            &[(0, "a", "f", ""), (1, "a", "", "{\"x\""), (2, "a", "", ":1}")],
            &[(0, "a", "f", ""), (1, "a", "f", "{\"x\""), (2, "a", "f", ":1}")],
            &[(0, "a", "f", "{\"x\""), (1, "a", "f", ":1}"), (2, "a", "f", "")],
        ];
        for pieces in cases {
            assert_eq!(numbered(pieces), [whole], "{pieces:?}");
        }
    }

    #[test]
    fn calls_that_have_one_id_and_each_its_number_are_told_apart() {
        let expected = ["{\"x\":1}", "{\"x\":2}"];
        let cases: [&[(u64, &str, &str, &str)]; 4] = [
            &[
                (0, "a", "f", ""),
                (0, "", "", expected[0]),
                (1, "a", "f", ""),
                (1, "", "", expected[1]),
            ],
            &[
                (0, "a", "f", ""),
                (1, "a", "f", ""),
                (0, "", "", expected[0]),
                (1, "", "", expected[1]),
            ],
            &[(0, "a", "f", expected[0]), (1, "a", "f", expected[1])],
            &[
                (0, "a", "f", "{\"x\""),
                (1, "a", "f", "{\"x\""),
                (0, "a", "", ":1}"),
                (1, "a", "", ":2}"),
            ],
        ];
        for pieces in cases {
            assert_eq!(numbered(pieces), expected, "{pieces:?}");
        }
        // Nor are those of other names one.
        let pieces = [(0, "a", "f", ""), (1, "a", "g", ""), (1, "", "", expected[1])];
        assert_eq!(numbered(&pieces), ["{}", expected[1]]);
    }

    /// The arguments of the calls that come of these pieces, each a number, an id, a name and arguments.
    fn numbered(pieces: &[(u64, &str, &str, &str)]) -> Vec<String> {
        let mut calls = Calls::default();
        for &(number, id, name, arguments) in pieces {
            let name = Some(name.to_owned()).filter(|name| !name.is_empty());
            let (id, arguments) = (id.to_owned(), arguments.to_owned());
            calls.hear(Wire::Chat, Piece { number, id, name, arguments });
        }
        calls.made().into_iter().map(|call| call.arguments).collect()
    }

    #[test]
    fn as_many_calls_as_an_answer_has_room_for_are_told_apart_at_once() {
        let mut calls = Calls::default();
        for n in 0..40_000 {
            let (name, arguments) = (Some("f".to_owned()), format!("{{\"n\":{n}}}"));
            calls.hear(Wire::Chat, Piece { number: 0, id: String::new(), name, arguments });
        }
        let bytes = |made: &[ToolCall]| {
            made.iter().map(|call| call.name.len() + call.arguments.len()).sum::<usize>()
        };
        let size = calls.size();
        let made = calls.made();
        assert_eq!(size, bytes(&made));
        let ids: HashSet<_> = made.iter().map(|call| &*call.id).collect();
        assert_eq!((made.len(), ids.len()), (40_000, 40_000));
    }

    #[test]
    fn arguments_that_came_with_the_name_and_come_in_pieces_are_those_of_the_pieces() {
        let pieces = [["a", "f", "{\"x\":1}"], ["", "", "{\"x\""], ["", "", ": 1}"]];
        assert_eq!(put_together(Wire::Anthropic, &pieces), [["a", "f", "{\"x\": 1}"]]);
        // Of a call that the provider makes itself there is a piece, and no name.
        assert!(put_together(Wire::Anthropic, &[["", "", "{}"]]).is_empty());
    }
}
