//! A conversation with whoever answers: at a terminal, or line by line from elsewhere.
//!
//! *Invariant.* A line is a question or a command, and each is answered before the next one is read.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Instant;

use mainstay_actors::chat::Message;

use super::super::UNREAD;
use super::lines::{Lines, Typed, is_interactive};
use super::said::Said;
use super::talk::Talk;
use super::words::Why;
use super::{Session, TOO_MUCH, interrupt, say, tell, tell_left_out, tell_taken};

/// Commands of a conversation that come in their turn.
pub(super) const COMMANDS: [&str; 3] = ["/quit", "/exit", "/forget"];

impl Session {
    /// A conversation: lines in, answers out, until the end of the input.
    pub(crate) async fn converse(&mut self, history: Option<PathBuf>) -> anyhow::Result<()> {
        let path = self.path();
        self.lines = Some(Lines::new(history)?);
        self.later = Some(VecDeque::new());
        self.go_on_from(self.talk.as_ref().map_or_else(|| Ok(Vec::new()), Talk::said)?);
        for answered in self.take_up().await? {
            tell_taken(&answered, |text| say(text));
            if answered.outcome.is_err() {
                self.deeds.of(&*answered.key);
                self.tell_done_so_far();
            }
            // The conversation goes on from there, if it was a part of one.
            if let Ok(outcome) = &answered.outcome {
                if !answered.question.history.is_empty() {
                    self.go_on_from(answered.question.history);
                }
                self.remember(&answered.question.text, &outcome.text);
            }
        }
        self.all_told().await;
        if !self.said.turns().is_empty() {
            tell("the conversation goes on where it was left; /forget begins a new one");
        }
        let pending = if self.people.is_empty() { "" } else { "/pending, " };
        tell(format_args!(
            "{path} answers. /tree, /effects, /aside, /metrics, {pending}/forget, /help, /quit."
        ));
        let mut interrupted = false;
        loop {
            if UNREAD.load(Ordering::Relaxed) {
                // What is asked costs, and nobody would hear the answer.
                tell("nobody reads the answers any more");
                return Ok(());
            }
            let put_off = self.put_off();
            let typed = tokio::select! {
                biased;
                () = std::future::ready(()), if put_off.is_some() => put_off,
                // At a terminal it is typed; elsewhere it comes from outside, and nobody else listens any more.
                () = interrupt::interrupted() => {
                    // A terminal without a line editor has written what was typed: ^C.
                    if is_interactive() {
                        tell("");
                    }
                    Some(Typed::Interrupt)
                }
                typed = next_or_end(&mut self.lines) => typed,
            };
            let line = match typed {
                None => return Ok(()),
                Some(Typed::Interrupt) if interrupted => return Ok(()),
                Some(Typed::Interrupt) => {
                    interrupted = true;
                    tell("Ctrl-C again leaves.");
                    continue;
                }
                Some(Typed::Unreadable) => {
                    tell("that line is not UTF-8");
                    continue;
                }
                Some(Typed::Line(line)) => line,
            };
            interrupted = false;
            match line.trim() {
                "" => {}
                "/quit" | "/exit" => return Ok(()),
                "/forget" => {
                    self.said = Said::default();
                    self.turns.clear();
                    if let Some(talk) = &self.talk
                        && let Err(error) = talk.forget().await
                    {
                        tell(format_args!(
                            "the next process goes on with it all the same: {error}"
                        ));
                    }
                }
                command if command.starts_with('/') => match self.command(command).await {
                    Some(text) => say(text),
                    None => say(format_args!("there is no {command}; /help shows what there is")),
                },
                prompt => {
                    let began = Instant::now();
                    let (outcome, shown) = self.ask(prompt).await;
                    if outcome.as_ref().is_err_and(Why::is_called_off) {
                        interrupted = true;
                        self.forget_put_off();
                    }
                    let told = outcome.as_ref().map_err(Clone::clone);
                    if let Err(error) = self.tell(told, began.elapsed(), shown) {
                        tell(error);
                        self.tell_done_so_far();
                    }
                    self.deeds.is_answered();
                    // Told first: a process that ends in between has the next one tell it, and go on from there.
                    if let Ok(outcome) = &outcome {
                        self.remember(prompt, &outcome.text);
                    }
                    self.all_told().await;
                }
            }
        }
    }

    /// What was said in earlier processes.
    fn go_on_from(&mut self, turns: Vec<Message>) {
        let (said, over) = Said::of(turns);
        self.said = said;
        tell_left_out(over, TOO_MUCH);
    }

    fn remember(&mut self, question: &str, answer: &str) {
        tell_left_out(self.said.add(question, answer), TOO_MUCH);
        self.turns.push((question.to_owned(), answer.to_owned()));
    }
}

/// The next line; `None` at the end of the input.
async fn next_or_end(lines: &mut Option<Lines>) -> Option<Typed> {
    lines.as_mut()?.next().await
}
