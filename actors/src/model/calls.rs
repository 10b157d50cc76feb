//! The tool calls of an answer, put together from their pieces.
//!
//! *Invariant.* A piece goes to the call that it can be a piece of, and to no other. Servers give several calls the same
//! number, each piece of one call another id, or no ids at all: of an object that has been closed nothing is a piece.

use super::wire::Wire;
use crate::chat::ToolCall;

/// The calls of an answer, in the order in which they began.
#[derive(Debug, Default)]
pub(super) struct Calls(Vec<Begun>);

#[derive(Debug)]
struct Begun {
    number: u64,
    call: ToolCall,
    nesting: Nesting,
    /// Its name was said once more when its arguments were whole: those that follow are another call's.
    named_again: bool,
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
        self.0.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The bytes of their names and arguments.
    pub(super) fn size(&self) -> usize {
        self.0.iter().map(|begun| begun.call.name.len() + begun.call.arguments.len()).sum()
    }

    /// Whether one has no name.
    pub(super) fn lacks_a_name(&self) -> bool {
        self.0.iter().any(|begun| begun.call.name.is_empty())
    }

    /// Takes a piece.
    pub(super) fn hear(&mut self, wire: Wire, piece: Piece) {
        let at = match self.place(wire, &piece) {
            Place::To(at) => at,
            Place::New(name) => {
                let call = ToolCall { name, id: String::new(), arguments: String::new() };
                let (number, nesting) = (piece.number, Nesting::default());
                self.0.push(Begun { number, call, nesting, named_again: false });
                self.0.len() - 1
            }
            Place::Same(at) => {
                self.0[at].named_again |= piece.id.is_empty() && piece.arguments.is_empty();
                return;
            }
            Place::Anew(at) => {
                let begun = &mut self.0[at];
                begun.call.arguments.clear();
                begun.nesting = Nesting::default();
                at
            }
            Place::Nowhere => return,
        };
        let Begun { call, nesting, .. } = &mut self.0[at];
        if call.id.is_empty() {
            call.id = piece.id;
        }
        if let Some(name) = piece.name.filter(|name| !name.is_empty()) {
            call.name = name;
        }
        nesting.read(&piece.arguments);
        call.arguments.push_str(&piece.arguments);
    }

    fn place(&mut self, wire: Wire, piece: &Piece) -> Place {
        let new = || Place::New(piece.name().to_owned());
        let Some(at) = self.of(piece) else {
            // A piece of a call that the provider makes itself.
            let is_alien = wire == Wire::Anthropic && piece.name.is_none();
            return if is_alien { Place::Nowhere } else { new() };
        };
        let begun = &mut self.0[at];
        let (said, arguments) = (piece.arguments.trim(), begun.call.arguments.trim());
        let is_other = !piece.name().is_empty() && piece.name() != begun.call.name;
        if !begun.is_whole() {
            // Where ids are told, what has none goes on; and a name may come in ever longer pieces.
            let is_alone = piece.id.is_empty() && begun.call.id.is_empty();
            let is_longer = arguments.is_empty() && piece.name().starts_with(&*begun.call.name);
            return if is_other && is_alone && !is_longer { new() } else { Place::To(at) };
        }
        if is_other {
            new()
        } else if said.is_empty() && piece.name().is_empty() {
            Place::Nowhere
        } else if said.is_empty() || said == arguments {
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
            // Whose it is nobody says: they are no arguments any more, and the model is told.
            Place::To(at)
        }
    }

    /// The call that this is a piece of by what it is called. Some servers give every call the same number: their ids tell
    /// them apart. Others give every piece another id: only the first has a name.
    fn of(&self, piece: &Piece) -> Option<usize> {
        let with = |wanted: &dyn Fn(&ToolCall) -> bool| {
            self.0.iter().rposition(|it| it.number == piece.number && wanted(&it.call))
        };
        let latest = with(&|_| true)?;
        if piece.id.is_empty() {
            return Some(latest);
        }
        let same = with(&|call| call.id == piece.id);
        same.or_else(|| {
            let has_none = self.0[latest].call.id.is_empty();
            Some(latest).filter(|_| piece.name().is_empty() || has_none)
        })
    }

    /// All of them. Each has an id to send its result back under, and arguments.
    pub(super) fn made(self) -> Vec<ToolCall> {
        let mut made: Vec<ToolCall> = Vec::with_capacity(self.0.len());
        for Begun { number, mut call, .. } in self.0 {
            if call.id.is_empty() {
                let is_taken = |id: &String| made.iter().any(|call| call.id == *id);
                let ids = (number..).map(|number| format!("call-{number}"));
                call.id = { ids }.find(|id| !is_taken(id)).unwrap_or_default();
            }
            if call.arguments.is_empty() {
                call.arguments = "{}".to_owned();
            }
            made.push(call);
        }
        made
    }
}

impl Begun {
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

    /// What comes of these pieces, each an id, a name and arguments, all with the same number.
    fn put_together(wire: Wire, pieces: &[[&str; 3]]) -> Vec<[String; 3]> {
        let mut calls = Calls::default();
        for [id, name, arguments] in pieces.iter().map(|piece| piece.map(str::to_owned)) {
            let name = Some(name).filter(|name| !name.is_empty());
            calls.hear(wire, Piece { number: 0, id, name, arguments });
        }
        calls.made().into_iter().map(|call| [call.id, call.name, call.arguments]).collect()
    }

    #[test]
    fn a_call_begins_where_it_cannot_be_the_one_before_that_goes_on() {
        let cases: [(&str, &[[&str; 3]], &[[&str; 3]]); 14] = [
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
                "its name and nothing once more at the end",
                &[["", "f", "{\"x\":1}"], ["", "f", ""], ["", "", " \n"]],
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
    fn arguments_that_came_with_the_name_and_come_in_pieces_are_those_of_the_pieces() {
        let pieces = [["a", "f", "{\"x\":1}"], ["", "", "{\"x\""], ["", "", ": 1}"]];
        assert_eq!(put_together(Wire::Anthropic, &pieces), [["a", "f", "{\"x\": 1}"]]);
        // Of a call that the provider makes itself there is a piece, and no name.
        assert!(put_together(Wire::Anthropic, &[["", "", "{}"]]).is_empty());
    }
}
