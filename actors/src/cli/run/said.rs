//! What was said before, as it goes along with each question.
//!
//! *Invariant.* It has at most [`MOST`] bytes, since each question is kept with all of it; and what was left
//! out of it is counted, so that a model is told.

use mainstay_actors::agent::{LeftOut, leave_out_turns, said_bytes};
use mainstay_actors::chat::Message;

use super::talk::pair;

/// How much goes along with a question, in bytes: some 60,000 tokens. A store keeps it with each question, so
/// without an end a long conversation would weigh as the square of its length.
pub(super) const MOST: usize = 256 * 1024;

/// See the [module](self).
#[derive(Clone, Debug, Default)]
pub(super) struct Said {
    turns: Vec<Message>,
    left_out: u32,
}

impl Said {
    /// As it was said so far; how many of the oldest turns had to be left out.
    pub(super) fn of(turns: Vec<Message>) -> (Self, u32) {
        let mut said = Self { turns, left_out: 0 };
        let over = said.bound();
        (said, over)
    }

    pub(super) fn turns(&self) -> &[Message] {
        &self.turns
    }

    /// How many turns were left out.
    pub(super) const fn left_out(&self) -> u32 {
        self.left_out
    }

    /// One more question with its answer; how many of the oldest turns had to be left out for it.
    pub(super) fn add(&mut self, question: &str, answer: &str) -> u32 {
        self.turns.extend(pair(question, answer));
        self.bound()
    }

    /// Leaves so many of the oldest turns out: they are not worth another failure.
    pub(super) fn leave_out(&mut self, turns: u32) {
        for _ in 0..turns {
            self.left_out += leave_out_turns(&mut self.turns, 1);
        }
    }

    /// Leaves out the oldest half, or `all`; how many.
    pub(super) fn make_room(&mut self, all: bool) -> u32 {
        let half = said_bytes(&self.turns).div_ceil(2);
        let turns = leave_out_turns(&mut self.turns, if all { usize::MAX } else { half });
        self.left_out += turns;
        turns
    }

    /// The conversation before a question, as a model is told it.
    pub(super) fn tell(&self, messages: &mut Vec<Message>) {
        messages.extend(self.turns.iter().cloned());
        LeftOut::turns(self.left_out).tell(messages);
    }

    fn bound(&mut self) -> u32 {
        let over = said_bytes(&self.turns).saturating_sub(MOST);
        let turns = leave_out_turns(&mut self.turns, over);
        self.left_out += turns;
        turns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_along_with_a_question_has_an_end_and_the_newest_stays() {
        let (mut said, over) = Said::of(Vec::new());
        assert_eq!(over, 0);
        let answer = "x".repeat(MOST / 4);
        let over: Vec<_> = (0..6).map(|n| said.add(&n.to_string(), &answer)).collect();
        assert_eq!((over, said.left_out()), (vec![0, 0, 0, 1, 1, 1], 3));
        assert!(said_bytes(said.turns()) <= MOST);
        assert_eq!((&*said.turns()[0].text, said.turns().len()), ("3", 6));
        let (again, over) = Said::of((0..6).flat_map(|_| pair("q", &answer)).collect());
        assert_eq!((again.turns().len(), over, again.left_out()), (6, 3, 3));
        said.leave_out(1);
        assert_eq!((said.make_room(false), said.make_room(true), said.make_room(true)), (1, 1, 0));
        let mut told = vec![Message::system("be kind")];
        said.tell(&mut told);
        assert!(told[0].text.contains("the 6 oldest turns") && told.len() == 1, "{told:?}");
    }
}
