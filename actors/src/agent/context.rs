//! The conversation of a task, in rounds: what it began with, then a round for each answer of the model
//! with the results of the tools it asked for.
//!
//! *Invariant.* A round that is over is not touched again, except where the conversation has become too long. So
//! a snapshot of a long conversation costs what the last round costs.

use std::sync::Arc;

use super::turns::{LeftOut, add_note, leave_out_turns, said_bytes};
use crate::chat::{Message, Role};

/// A tool result that is at most so long, in bytes, is not shortened.
pub const KEPT_RESULT: usize = 256;
/// The results of the last round, which the model has not answered to yet, keep so many bytes each.
const KEPT_LAST: usize = 4 * 1024;

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Conversation {
    pub(super) rounds: Vec<Arc<Vec<Message>>>,
}

impl Conversation {
    pub(super) fn new(beginning: Vec<Message>) -> Self {
        Self { rounds: vec![Arc::new(beginning)] }
    }

    pub(super) fn open_round(&mut self, message: Message) {
        self.rounds.push(Arc::new(vec![message]));
    }

    /// Adds to the last round.
    pub(super) fn push(&mut self, message: Message) {
        match self.rounds.last_mut() {
            Some(round) => Arc::make_mut(round).push(message),
            None => self.open_round(message),
        }
    }

    /// Adds to what the model was asked last, in one turn with it: there are models that want who speaks to change
    /// with every message.
    pub(super) fn ask_too(&mut self, words: String) {
        let last = self
            .rounds
            .last_mut()
            .filter(|round| round.last().is_some_and(|message| message.role == Role::User));
        match last.and_then(|round| Arc::make_mut(round).last_mut()) {
            Some(asked) => asked.text = format!("{}\n\n{words}", asked.text),
            None => self.open_round(Message::user(words)),
        }
    }

    pub(super) fn messages(&self) -> impl Iterator<Item = &Message> {
        self.rounds.iter().flat_map(|round| round.iter())
    }

    /// Leaves out the oldest half of the turns before the question in hand, or `all` of them; how many.
    pub(super) fn leave_out_turns(&mut self, all: bool) -> u32 {
        let Some(beginning) = self.rounds.first_mut() else { return 0 };
        let question = beginning.iter().rposition(|message| message.role == Role::User);
        let Some(before) = question.and_then(|at| beginning.get(..at)) else { return 0 };
        let mut history = before.to_vec();
        let half = said_bytes(&history).div_ceil(2);
        let turns = leave_out_turns(&mut history, if all { usize::MAX } else { half });
        if turns > 0 {
            let end = before.len();
            Arc::make_mut(beginning).splice(..end, history);
        }
        turns
    }

    /// Leaves out the rounds that are over, but for the last; how many. Each has the calls of the model with
    /// all their results, or a refused answer with what was wrong with it.
    pub(super) fn leave_out_rounds(&mut self) -> u32 {
        let over = self.rounds.len().saturating_sub(1).max(1);
        u32::try_from(self.rounds.drain(1..over).count()).unwrap_or(u32::MAX)
    }

    /// Tells the model something of the task that nobody has said in it.
    pub(super) fn note(&mut self, note: &str) {
        if let Some(beginning) = self.rounds.first_mut() {
            add_note(Arc::make_mut(beginning), note);
        }
    }

    /// Tells the model what was left out.
    pub(super) fn tell(&mut self, left_out: LeftOut) {
        if let Some(beginning) = self.rounds.first_mut() {
            left_out.tell(Arc::make_mut(beginning));
        }
    }

    /// Shortens tool results, those the model has dealt with first of all; whether anything became
    /// shorter. Also those of the history the task came with: they are the oldest.
    pub(super) fn compact(&mut self) -> bool {
        let last = self.rounds.len().saturating_sub(1);
        let mut shorter = false;
        for (index, round) in self.rounds.iter_mut().enumerate() {
            let keep = if index == last && index > 0 { KEPT_LAST } else { KEPT_RESULT };
            let long =
                |message: &Message| message.role == Role::Tool && is_long(&message.text, keep);
            if !round.iter().any(long) {
                continue;
            }
            for message in Arc::make_mut(round).iter_mut().filter(|message| long(message)) {
                let dropped = message.text.len() - cut(&mut message.text, keep);
                message.text.push_str(&format!("{CUT}{dropped}{DROPPED}"));
            }
            shorter = true;
        }
        shorter
    }
}

/// What stands at the end of a result that was shortened, around how many bytes were dropped.
const CUT: &str = "… [";
const DROPPED: &str =
    " bytes of this result were dropped to make room; call the tool again if you need them]";
/// How long that is at most.
const TOLD: usize = CUT.len() + 20 + DROPPED.len();

/// Whether a result has more than this to lose: one that was shortened to as much has not.
fn is_long(text: &str, keep: usize) -> bool {
    let is_cut = text.ends_with(DROPPED) && text.len() <= keep + TOLD;
    text.len() > keep && !is_cut
}

/// Cuts a text to at most `most` bytes, at a character; how long it is then.
pub(super) fn cut(text: &mut String, most: usize) -> usize {
    if text.len() > most {
        let mut end = most;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(len: usize) -> Message {
        Message::tool_result("id", "é".repeat(len / 2))
    }

    #[test]
    fn old_results_are_shortened_most_the_last_ones_less_and_words_not_at_all() {
        let mut talk = Conversation::new(vec![Message::user("u".repeat(9_000)), result(9_000)]);
        talk.open_round(Message::assistant("a".repeat(9_000)));
        talk.push(result(9_001));
        talk.push(result(KEPT_RESULT));
        talk.open_round(Message::assistant("calls"));
        talk.push(result(9_000));
        talk.push(result(KEPT_LAST));
        assert!(talk.compact());
        let lengths: Vec<_> = talk.messages().map(|message| message.text.len()).collect();
        assert_eq!((lengths[0], lengths[2]), (9_000, 9_000));
        assert_eq!((lengths[4], lengths[7]), (KEPT_RESULT, KEPT_LAST));
        for (at, keep) in [(1, KEPT_RESULT), (3, KEPT_RESULT), (6, KEPT_LAST)] {
            let told = talk.messages().nth(at).unwrap().text.clone();
            assert!(keep < told.len() && told.len() < keep + 120, "{at}: {}", told.len());
            assert!(told.contains("bytes of this result were dropped"), "{told}");
        }
        // It comes to an end, and begins anew with what is new.
        assert!(!talk.compact());
        talk.open_round(Message::assistant("calls"));
        talk.push(result(9_000));
        assert!(talk.compact() && !talk.compact());
        let lengths: Vec<_> = talk.messages().map(|message| message.text.len()).collect();
        assert!(lengths[6] < KEPT_RESULT + 120 && lengths[9] < KEPT_LAST + 120, "{lengths:?}");
    }

    #[test]
    fn a_conversation_without_long_results_cannot_be_shortened() {
        let mut talk = Conversation::new(vec![Message::user("u".repeat(90_000))]);
        talk.open_round(Message::assistant("calls"));
        talk.push(result(100));
        let before = talk.clone();
        assert!(!talk.compact());
        assert!(talk.rounds.iter().zip(&before.rounds).all(|(now, then)| Arc::ptr_eq(now, then)));
    }
}
