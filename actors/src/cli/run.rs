//! `mainstay run`: one prompt, or a conversation.
//!
//! A model that is asked directly answers as it writes. An agent's answer comes whole: its loop asks
//! its model without a listener.

use std::io::{IsTerminal, Read, Write};
use std::path::PathBuf;
use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::Context;
use mainstay::error::RecoverError;
use mainstay::event::Event;
use mainstay::port::Port;
use mainstay::system::{RecoverOptions, RecoveredRequest, System, SystemOptions};
use mainstay::watch::Signal;
use mainstay_actors::agent::{AgentReply, AgentRequest};
use mainstay_actors::chat::stream::{ChatStream, OnBreak, StreamEvent, open};
use mainstay_actors::chat::{ChatReply, ChatRequest, Message};

use super::build::Tree;
use super::{Failed, Show, say};
use lines::{Lines, Typed};
use taken::Answered;
use words::{Outcome, Why, line};

mod alerts;
mod lines;
mod settle;
mod taken;
mod words;

pub(crate) use lines::is_interactive;

/// Pieces of an answer that wait to be shown.
const PIECES: usize = 64;
const HELP: &str = "\
/tree     the live tree
/effects  what nobody knows the outcome of, and how to settle it
/forget   begin a new conversation
/quit     leave; Ctrl-D does, too
Ctrl-C    calls a question off; twice, it leaves";

/// A tree at work and who is asked.
pub(crate) struct Session {
    system: System,
    asked: Asked,
    show: Show,
    history: Vec<Message>,
    /// What another process had asked.
    taken: Vec<RecoveredRequest>,
}

#[derive(Clone)]
enum Asked {
    Agent(Port<AgentRequest, AgentReply>),
    /// With a request that has everything but the conversation.
    Model(Port<ChatRequest, ChatReply>, ChatRequest),
}

impl Session {
    pub(crate) async fn start(tree: &mut Tree, show: Show, adopt: bool) -> anyhow::Result<Self> {
        let store = tree.store()?;
        tree.discover().await?;
        let spec = tree.spec()?;
        let watched = SystemOptions::new().watch(tree.watch());
        let (system, taken) = match store {
            None => (System::start_with(spec, watched).await?, Vec::new()),
            Some(store) => {
                if let (false, Some(group)) = (show.json, tree.unkept()) {
                    eprintln!("mainstay: {}", super::check::not_kept(group));
                }
                let mut options = RecoverOptions::default();
                options.adopt_topology = adopt;
                options.system = watched;
                let (system, recovered) =
                    System::recover_with(spec, store, options).await.map_err(with_hint)?;
                if let (false, Some(summary)) = (show.json, taken::summary(&recovered)) {
                    eprintln!("mainstay: {summary}");
                }
                (system, recovered.open)
            }
        };
        tokio::spawn(alerts::tell(system.events(), |line| eprintln!("mainstay: {line}")));
        let asked = match tree.asks_model() {
            true => Asked::Model(system.port(tree.entry())?, tree.question()?),
            false => Asked::Agent(system.port(tree.entry())?),
        };
        Ok(Self { system, asked, show, history: Vec::new(), taken })
    }

    pub(crate) async fn stop(self) {
        tokio::select! {
            _ = self.system.stop() => {}
            // A tool that does not end need not be waited for.
            _ = tokio::signal::ctrl_c() => {}
        }
    }

    /// One prompt, given or read from standard input.
    pub(crate) async fn once(&mut self, prompt: Option<String>) -> anyhow::Result<()> {
        let prompt = match prompt {
            Some(prompt) => prompt,
            None => {
                let mut text = String::new();
                std::io::stdin().read_to_string(&mut text).context("standard input")?;
                text
            }
        };
        let prompt = prompt.trim();
        if prompt.is_empty() && self.taken.is_empty() {
            return Err(Failed(
                "there is no prompt: give one as an argument or on standard input".to_owned(),
            )
            .into());
        }
        let began = Instant::now();
        let mut same = None;
        for answered in self.take_up().await? {
            // The same command again after a kill asks the same question once.
            let is_same = answered.question.text == prompt && answered.question.history.is_empty();
            if is_same && answered.outcome.is_ok() {
                same = Some(answered.outcome);
            } else if !self.show.json {
                tell_taken(&answered, |text| eprintln!("{text}"));
            }
        }
        if let Some(Ok(outcome)) = same {
            return self.tell(Ok(&outcome), began.elapsed(), false);
        }
        if prompt.is_empty() {
            return Ok(());
        }
        let (outcome, shown) = self.ask(prompt).await;
        self.tell(outcome.as_ref().map_err(Clone::clone), began.elapsed(), shown)
    }

    /// Waits for the answers to what another process had asked.
    async fn take_up(&mut self) -> anyhow::Result<Vec<Answered>> {
        let mut answers = Vec::new();
        let mut events = self.system.events();
        for request in std::mem::take(&mut self.taken) {
            tokio::select! {
                answered = taken::answer(&self.system, &request, &mut events) => {
                    answers.extend(answered);
                }
                _ = tokio::signal::ctrl_c() => {
                    return Err(Failed("called off; what was asked before goes on at the next start".to_owned()).into());
                }
            }
        }
        Ok(answers)
    }

    /// Asks, shows what happens meanwhile, and stops asking on Ctrl-C. Also says whether the answer
    /// has been shown as it came.
    async fn ask(&mut self, prompt: &str) -> (Result<Outcome, Why>, bool) {
        match self.asked.clone() {
            Asked::Agent(port) => {
                let history = self.history.iter().cloned();
                let call = port.call(AgentRequest::new(prompt).history(history));
                let call =
                    async { call.await.map(Outcome::agent).map_err(|error| Why::of(&error)) };
                self.wait(call, None).await
            }
            Asked::Model(port, mut request) => {
                request.messages.extend(self.history.iter().cloned());
                request.messages.push(Message::user(prompt));
                let stream = self.show.stream.then(|| open(PIECES));
                let stream = stream.map(|(sink, stream)| {
                    request.stream = Some(sink.on_break(OnBreak::Restart));
                    stream
                });
                let call = port.call(request);
                let call =
                    async { call.await.map(Outcome::model).map_err(|error| Why::of(&error)) };
                self.wait(call, stream).await
            }
        }
    }

    async fn wait(
        &self,
        call: impl Future<Output = Result<Outcome, Why>>,
        stream: Option<ChatStream>,
    ) -> (Result<Outcome, Why>, bool) {
        let began = Instant::now();
        let mut events = self.system.events();
        let mut page = Page { stream, text: String::new(), midline: false };
        let mut call = pin!(call);
        let mut interrupt = pin!(tokio::signal::ctrl_c());
        let outcome = loop {
            tokio::select! {
                biased;
                _ = &mut interrupt => {
                    page.end();
                    return (Err(Why::called_off()), false);
                }
                outcome = &mut call => break outcome,
                piece = page.next() => page.show(piece),
                event = events.next() => match event {
                    Some(stamped) => self.progress(&stamped.event, &mut page),
                    None => break (&mut call).await,
                },
            }
        };
        if outcome.is_ok() {
            // What a person waited for: the runtime knows requests, and not which of them are these.
            for name in ["response", "generation"] {
                self.system.signal(name, Signal::Took(began.elapsed()));
            }
        }
        page.rest();
        let whole = |outcome: &Outcome| page.text.ends_with(&outcome.text);
        let shown = !page.text.is_empty() && outcome.as_ref().is_ok_and(whole);
        page.end();
        if !page.text.is_empty() && !shown && outcome.is_ok() {
            eprintln!("  (the answer broke off; another one was given)");
        }
        while let Some(stamped) = events.try_next() {
            self.progress(&stamped.event, &mut page);
        }
        (outcome, shown)
    }

    fn progress(&self, event: &Event, page: &mut Page) {
        if let (true, Some(line)) = (self.show.progress, line(event)) {
            page.make_room();
            eprintln!("  {line}");
        }
    }

    fn tell(
        &self,
        outcome: Result<&Outcome, Why>,
        took: Duration,
        shown: bool,
    ) -> anyhow::Result<()> {
        match outcome {
            Ok(outcome) if self.show.json => say(outcome.as_json(took)),
            Ok(outcome) => {
                if !shown {
                    say(&outcome.text);
                }
                if self.show.progress {
                    eprintln!("{}", outcome.footer(took));
                }
            }
            Err(why) if self.show.json => {
                say(&why.json);
                return Err(Failed(String::new()).into());
            }
            Err(why) => return Err(Failed(why.text).into()),
        }
        Ok(())
    }

    /// A conversation: lines in, answers out, until the end of the input.
    pub(crate) async fn converse(&mut self, history: Option<PathBuf>) -> anyhow::Result<()> {
        let path = match &self.asked {
            Asked::Agent(port) => port.path().clone(),
            Asked::Model(port, _) => port.path().clone(),
        };
        let mut lines = Lines::new(history)?;
        for answered in self.take_up().await? {
            tell_taken(&answered, |text| say(text));
            // The conversation goes on from there.
            if let Ok(outcome) = &answered.outcome {
                self.history = answered.question.history;
                self.remember(&answered.question.text, &outcome.text);
            }
        }
        eprintln!("{path} answers. /tree, /effects, /forget, /help, /quit.");
        let mut interrupted = false;
        loop {
            let line = match lines.next().await {
                None => return Ok(()),
                Some(Typed::Interrupt) if interrupted => return Ok(()),
                Some(Typed::Interrupt) => {
                    interrupted = true;
                    eprintln!("Ctrl-C again leaves.");
                    continue;
                }
                Some(Typed::Line(line)) => line,
            };
            interrupted = false;
            match line.trim() {
                "" => {}
                "/quit" | "/exit" => return Ok(()),
                "/tree" => say(self.system.tree().to_string().trim_end()),
                "/forget" => self.history.clear(),
                "/help" => say(HELP),
                command if command.split_whitespace().next() == Some("/effects") => {
                    let words = command.trim_start_matches("/effects");
                    say(settle::command(&self.system, words).await);
                }
                command if command.starts_with('/') => {
                    say(format_args!("there is no {command}; /help shows what there is"));
                }
                prompt => {
                    let began = Instant::now();
                    let (outcome, shown) = self.ask(prompt).await;
                    match &outcome {
                        Ok(outcome) => self.remember(prompt, &outcome.text),
                        Err(why) => interrupted = why.is_called_off(),
                    }
                    let outcome = outcome.as_ref().map_err(Clone::clone);
                    if let Err(error) = self.tell(outcome, began.elapsed(), shown) {
                        eprintln!("{error}");
                    }
                }
            }
        }
    }

    fn remember(&mut self, question: &str, answer: &str) {
        self.history.push(Message::user(question));
        self.history.push(Message::assistant(answer));
    }
}

/// What can be done about a store of another tree.
fn with_hint(error: RecoverError) -> anyhow::Error {
    let is_other = matches!(error, RecoverError::Topology { .. });
    let error = anyhow::Error::new(error);
    if is_other { error.context("--adopt takes the store up all the same") } else { error }
}

/// What became of a question of before.
fn tell_taken(answered: &Answered, mut say: impl FnMut(&str)) {
    say(&format!("asked before: {}", answered.question.text));
    match &answered.outcome {
        Ok(outcome) => say(&outcome.text),
        Err(fate) => say(&format!("no answer: {fate}")),
    }
}

/// An answer on its way to the terminal.
struct Page {
    stream: Option<ChatStream>,
    /// What has been shown of this attempt at it.
    text: String,
    /// Whether the line that was last written to is not ended.
    midline: bool,
}

impl Page {
    /// The next piece; waits for ever where nothing is streamed.
    async fn next(&mut self) -> Option<StreamEvent> {
        match &mut self.stream {
            Some(stream) => stream.next().await,
            None => std::future::pending().await,
        }
    }

    fn show(&mut self, piece: Option<StreamEvent>) {
        match piece {
            None => self.stream = None,
            Some(StreamEvent::Text(piece)) => {
                let mut out = std::io::stdout().lock();
                let _ = write!(out, "{piece}").and_then(|()| out.flush());
                self.midline = !piece.ends_with('\n');
                self.text.push_str(&piece);
            }
            Some(StreamEvent::Restart) => {
                self.end();
                eprintln!("  (the answer broke off; once more)");
                self.text.clear();
            }
            Some(_) => {}
        }
    }

    /// What has come and was not shown yet.
    fn rest(&mut self) {
        while let Some(Ok(Some(piece))) = self.stream.as_mut().map(ChatStream::try_next) {
            self.show(Some(piece));
        }
    }

    /// Ends the line.
    fn end(&mut self) {
        if std::mem::take(&mut self.midline) {
            say("");
        }
    }

    /// Begins a line for what is said besides, where both go to the same terminal; what goes elsewhere
    /// stays as it was written.
    fn make_room(&mut self) {
        if self.midline && std::io::stdout().is_terminal() {
            self.midline = false;
            eprintln!();
        }
    }
}
