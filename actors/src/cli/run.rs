//! `mainstay run`: one prompt, or a conversation.

use std::io::{IsTerminal, Read};
use std::time::{Duration, Instant};

use anyhow::Context;
use mainstay::error::CallError;
use mainstay::event::{Event, EventStream};
use mainstay::fate::{Answer, Trail};
use mainstay::port::Port;
use mainstay::system::System;
use mainstay_actors::agent::{AgentReply, AgentRequest};
use mainstay_actors::chat::Message;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::build::Tree;
use super::{Failed, Show, say};

/// A tree at work and who is asked.
pub(crate) struct Session {
    system: System,
    port: Port<AgentRequest, AgentReply>,
    show: Show,
    history: Vec<Message>,
}

impl Session {
    pub(crate) async fn start(tree: &mut Tree, show: Show) -> anyhow::Result<Self> {
        if tree.file.store.is_some() && !show.json {
            eprintln!("mainstay: [store] is {}", super::check::NOT_USED);
        }
        tree.discover().await?;
        let system = System::start(tree.spec()?).await?;
        let port = system.port(tree.entry())?;
        Ok(Self { system, port, show, history: Vec::new() })
    }

    pub(crate) async fn stop(self) {
        self.system.stop().await;
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
        if prompt.trim().is_empty() {
            return Err(Failed(
                "there is no prompt: give one as an argument or on standard input".to_owned(),
            )
            .into());
        }
        let began = Instant::now();
        let outcome = self.ask(&prompt).await;
        self.tell(outcome.as_ref().map_err(Clone::clone), began.elapsed())
    }

    /// Asks, shows what happens meanwhile, and stops asking on Ctrl-C.
    async fn ask(&mut self, prompt: &str) -> Result<Answer<AgentReply>, Why> {
        let request = AgentRequest::new(prompt.trim()).history(self.history.iter().cloned());
        let mut events = self.system.events();
        let call = self.port.call(request);
        tokio::pin!(call);
        let outcome = loop {
            tokio::select! {
                biased;
                outcome = &mut call => break outcome,
                _ = tokio::signal::ctrl_c() => return Err(Why::called_off()),
                event = events.next() => match event {
                    Some(stamped) => self.progress(&stamped.event),
                    None => break (&mut call).await,
                },
            }
        };
        self.rest(&mut events);
        outcome.map_err(|error| Why::of(&error))
    }

    fn rest(&self, events: &mut EventStream) {
        while let Some(stamped) = events.try_next() {
            self.progress(&stamped.event);
        }
    }

    fn progress(&self, event: &Event) {
        if let (true, Some(line)) = (self.show.progress, line(event)) {
            eprintln!("  {line}");
        }
    }

    fn tell(
        &self,
        outcome: Result<&Answer<AgentReply>, Why>,
        took: Duration,
    ) -> anyhow::Result<()> {
        match outcome {
            Ok(answer) if self.show.json => say(as_json(answer, took)),
            Ok(answer) => {
                say(&answer.value.text);
                if self.show.progress {
                    eprintln!("{}", footer(answer, took));
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
    pub(crate) async fn converse(&mut self) -> anyhow::Result<()> {
        eprintln!("{} answers. /tree, /forget, /help, /quit.", self.port.path());
        let (mut lines, next) = lines()?;
        loop {
            next.send(()).ok();
            let Some(line) = lines.recv().await else { return Ok(()) };
            match line.trim() {
                "" => {}
                "/quit" | "/exit" => return Ok(()),
                "/tree" => say(self.system.tree().to_string().trim_end()),
                "/forget" => self.history.clear(),
                "/help" => say(
                    "/tree    the live tree\n/forget  begin a new conversation\n/quit    leave; Ctrl-D does, too\nCtrl-C   calls a question off",
                ),
                command if command.starts_with('/') => {
                    say(format_args!("there is no {command}; /help shows what there is"));
                }
                prompt => {
                    let began = Instant::now();
                    let outcome = self.ask(prompt).await;
                    if let Ok(answer) = &outcome {
                        self.history.push(Message::user(prompt));
                        self.history.push(Message::assistant(answer.value.text.clone()));
                    }
                    if let Err(error) =
                        self.tell(outcome.as_ref().map_err(Clone::clone), began.elapsed())
                    {
                        eprintln!("{error}");
                    }
                }
            }
        }
    }
}

/// Reads lines with a history, in a thread of its own: one for each word on the sender.
fn lines() -> anyhow::Result<(mpsc::UnboundedReceiver<String>, std::sync::mpsc::Sender<()>)> {
    let mut editor = rustyline::DefaultEditor::new().context("the terminal")?;
    let (to_lines, lines) = mpsc::unbounded_channel();
    let (next, wanted) = std::sync::mpsc::channel();
    std::thread::Builder::new().name("lines".to_owned()).spawn(move || {
        while wanted.recv().is_ok() {
            let line = match editor.readline("> ") {
                Ok(line) => line,
                // Ctrl-C clears the line.
                Err(rustyline::error::ReadlineError::Interrupted) => String::new(),
                Err(_) => return,
            };
            if !line.trim().is_empty() {
                editor.add_history_entry(line.as_str()).ok();
            }
            if to_lines.send(line).is_err() {
                return;
            }
        }
    })?;
    Ok((lines, next))
}

/// Whether a person sits at the input.
pub(crate) fn is_interactive() -> bool {
    std::io::stdin().is_terminal()
}

/// Why there is no answer, for people and for programs.
#[derive(Clone, Debug)]
struct Why {
    text: String,
    json: Value,
}

impl Why {
    fn called_off() -> Self {
        Self {
            text: "called off".to_owned(),
            json: json!({"error": {"kind": "cancelled", "message": "called off"}}),
        }
    }

    fn of(error: &CallError<AgentRequest>) -> Self {
        let (kind, trail) = match error {
            CallError::Full(_) => ("full", None),
            CallError::Refused { .. } => ("refused", None),
            CallError::Expired { trail, .. } => ("expired", Some(trail)),
            CallError::RecoveryExhausted { trail, .. } => ("recovery_exhausted", Some(trail)),
            CallError::Unknown { trail, .. } => ("unknown", Some(trail)),
            CallError::Quarantined { trail, .. } => ("quarantined", Some(trail)),
            CallError::Cancelled { .. } => ("cancelled", None),
            CallError::Stopped { .. } => ("stopped", None),
            _ => ("other", None),
        };
        let mut body = json!({"kind": kind, "message": error.to_string()});
        if let CallError::RecoveryExhausted { fault, .. } = error {
            body["class"] = json!(fault.class);
            body["code"] = json!(fault.code);
        }
        if let Some(Trail(attempts)) = trail {
            body["trail"] = json!(attempts);
        }
        Self { text: format!("no answer: {error}"), json: json!({"error": body}) }
    }
}

fn as_json(answer: &Answer<AgentReply>, took: Duration) -> Value {
    json!({
        "text": answer.value.text,
        "served_by": answer.served_by,
        "degraded": answer.degraded,
        "defaulted": answer.defaulted,
        "attempts": answer.attempts,
        "steps": answer.value.steps,
        "tools_used": answer.value.tools_used,
        "tokens": answer.cost.tokens,
        "money_micros": answer.cost.money_micros,
        "elapsed_ms": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
    })
}

fn footer(answer: &Answer<AgentReply>, took: Duration) -> String {
    let mut parts = vec![format!("by {}", answer.served_by)];
    if answer.defaulted {
        parts.push("a default answer".to_owned());
    } else if answer.degraded {
        parts.push("degraded".to_owned());
    }
    let tools: Vec<_> = answer
        .value
        .tools_used
        .iter()
        .map(|tool| match tool.failed {
            Some(class) => format!("{} ({class})", tool.name),
            None => tool.name.clone(),
        })
        .collect();
    if !tools.is_empty() {
        parts.push(format!("tools {}", tools.join(", ")));
    }
    parts.push(format!("{} steps", answer.value.steps));
    if answer.cost.tokens > 0 {
        parts.push(format!("{} tokens", answer.cost.tokens));
    }
    parts.push(format!("{:.2} s", took.as_secs_f64()));
    format!("  ({})", parts.join("; "))
}

/// What is worth a line while somebody waits.
fn line(event: &Event) -> Option<String> {
    Some(match event {
        Event::Failed { child, attempt, ended, .. } => {
            format!("{child}: attempt {attempt} failed: {ended}")
        }
        Event::Decided { child, decision, to, .. } => match to {
            Some(to) => format!("{child}: {} to {to}", decision.action.name()),
            None => format!("{child}: {decision}"),
        },
        Event::Exited { child, cause, .. } => format!("{child}: its life ended: {cause}"),
        Event::Restarting { child, .. } => format!("{child}: restarting"),
        Event::ChildQuarantined { child, .. } => {
            format!("{child}: set aside, it restarts too often")
        }
        Event::Escalated { supervisor, .. } => format!("{supervisor}: gave up"),
        Event::Circuit { child, state } => format!("{child}: circuit {state}"),
        Event::Switched { group, from, to, .. } => {
            format!("{group}: {to} serves instead of {from}")
        }
        _ => return None,
    })
}
