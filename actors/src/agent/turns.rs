//! Leaving out the oldest turns of a conversation that has become too long.
//!
//! *Invariant.* A turn goes whole: what a user said, and all that was answered, called and returned up to what
//! the user said next. System messages stay.

use serde::{Deserialize, Serialize};

use crate::chat::{Message, Role};

/// How what is said about it begins; it is found again by this.
const MARK: &str = "[Left out to make room: ";

/// What a conversation has been relieved of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LeftOut {
    /// Turns of the conversation before the task: what a user said, with its answer.
    pub turns: u32,
    /// Steps of the task itself: an answer of the model, with the results of what it called.
    pub steps: u32,
}

/// Tells the model something in the first system message, or one of its own where there is none: many servers
/// refuse one that is not the first.
pub(super) fn add_note(messages: &mut Vec<Message>, note: &str) {
    match messages.first_mut().filter(|first| first.role == Role::System) {
        Some(first) => {
            // What is said of what was left out stands at the end, and is cut off there.
            let at = first.text.find(MARK).unwrap_or(first.text.len());
            let left_out = first.text.split_off(at);
            let text = first.text.trim_end();
            let gap = if text.is_empty() { "" } else { "\n\n" };
            let end = if left_out.is_empty() { "" } else { "\n\n" };
            first.text = format!("{text}{gap}{note}{end}{left_out}");
        }
        None => messages.insert(0, Message::system(note)),
    }
}

impl LeftOut {
    /// So many turns.
    pub const fn turns(turns: u32) -> Self {
        Self { turns, steps: 0 }
    }

    /// Whether nothing was left out.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// Tells the model, in the first system message, or one of its own where there is none. What was told
    /// there before is told anew.
    pub fn tell(&self, messages: &mut Vec<Message>) {
        let of = |count: u32, one: &str, many: &str| match count {
            0 => None,
            1 => Some(format!("the oldest {one}")),
            _ => Some(format!("the {count} oldest {many}")),
        };
        let parts = [
            of(self.turns, "turn of this conversation", "turns of this conversation"),
            of(self.steps, "step of your work on this task", "steps of your work on this task"),
        ];
        let parts: Vec<_> = parts.into_iter().flatten().collect();
        if parts.is_empty() {
            return;
        }
        let note = format!(
            "{MARK}{}. If you need what was said there, say so, or call the tool again.]",
            parts.join(" and ")
        );
        match messages.first_mut().filter(|first| first.role == Role::System) {
            Some(first) => {
                if let Some(at) = first.text.find(MARK) {
                    first.text.truncate(at);
                }
                let text = first.text.trim_end().to_owned();
                first.text = if text.is_empty() { note } else { format!("{text}\n\n{note}") };
            }
            None => messages.insert(0, Message::system(note)),
        }
    }
}

/// Takes the oldest turns out of a conversation until `bytes` bytes of text are gone, or there are none
/// left; how many. For callers that hold a conversation themselves: an [`Agent`](super::Agent) does it for what
/// it was given.
pub fn leave_out_turns(history: &mut Vec<Message>, bytes: usize) -> u32 {
    let (mut turns, mut gone, mut end) = (0, 0, 0);
    while gone < bytes && end < history.len() {
        let next = history.iter().skip(end + 1).position(|it| it.role == Role::User);
        let next = next.map_or(history.len(), |at| end + 1 + at);
        let turn = history.get(end..next).unwrap_or_default();
        gone += said_bytes(turn);
        turns += u32::from(turn.iter().any(|it| it.role != Role::System));
        end = next;
    }
    let mut at = 0;
    history.retain(|message| {
        at += 1;
        at > end || message.role == Role::System
    });
    turns
}

/// About how many bytes the turns of a conversation have.
pub fn said_bytes(history: &[Message]) -> usize {
    history.iter().filter(|message| message.role != Role::System).map(weight).sum()
}

fn weight(message: &Message) -> usize {
    let calls = message.tool_calls.iter().map(|call| call.name.len() + call.arguments.len());
    message.text.len() + calls.sum::<usize>() + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::ToolCall;

    fn talk() -> Vec<Message> {
        let call = ToolCall { id: "c".into(), name: "look".into(), arguments: "{}".into() };
        vec![
            Message::system("be kind"),
            Message::user("one"),
            Message::tool_calls(String::new(), vec![call]),
            Message::tool_result("c", "found"),
            Message::assistant("first"),
            Message::system("noted"),
            Message::user("two"),
            Message::assistant("second"),
        ]
    }

    #[test]
    fn turns_go_whole_the_oldest_first_and_system_messages_stay() {
        let mut history = talk();
        assert_eq!(leave_out_turns(&mut history, 0), 0);
        assert_eq!(history, talk());
        assert_eq!(leave_out_turns(&mut history, 1), 1);
        let left = [
            Message::system("be kind"),
            Message::system("noted"),
            Message::user("two"),
            Message::assistant("second"),
        ];
        assert_eq!(history, left);
        let mut history = talk();
        assert_eq!(leave_out_turns(&mut history, usize::MAX), 2);
        assert_eq!(history, left[..2]);
        assert_eq!(leave_out_turns(&mut history, usize::MAX), 0);
        // What was said before any user said something is a turn, too.
        let mut history = vec![Message::assistant("hello"), Message::user("hi")];
        assert_eq!(leave_out_turns(&mut history, 3), 1);
        assert_eq!(history, [Message::user("hi")]);
    }

    #[test]
    fn the_model_is_told_once_and_anew() {
        let mut told = vec![Message::system("be kind"), Message::user("hi")];
        LeftOut::default().tell(&mut told);
        assert_eq!(told[0].text, "be kind");
        LeftOut::turns(1).tell(&mut told);
        LeftOut { turns: 12, steps: 1 }.tell(&mut told);
        let note = "[Left out to make room: the 12 oldest turns of this conversation and the oldest step of your work on this task. If you need what was said there, say so, or call the tool again.]";
        assert_eq!(told[0].text, format!("be kind\n\n{note}"));
        let mut told = vec![Message::user("hi")];
        LeftOut { turns: 3, steps: 2 }.tell(&mut told);
        LeftOut { turns: 12, steps: 1 }.tell(&mut told);
        assert_eq!(told, [Message::system(note), Message::user("hi")]);
    }
}
