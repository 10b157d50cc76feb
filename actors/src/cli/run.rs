//! `mainstay run`: one prompt, or a conversation.
//!
//! *Invariant.* An answer is shown once: as it is written, or whole.

use std::collections::{BTreeSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::io::IsTerminal;
use std::pin::pin;
use std::time::{Duration, Instant};

use mainstay::error::RecoverError;
use mainstay::event::Event;
use mainstay::id::ChildPath;
use mainstay::port::{CallOptions, Port};
use mainstay::system::{RecoverOptions, RecoveredRequest, System, SystemOptions};
use mainstay::watch::Signal;
use mainstay_actors::agent::{AgentReply, AgentRequest};
use mainstay_actors::chat::stream::{ChatStream, OnBreak, StreamSink, open};
use mainstay_actors::chat::{ChatReply, ChatRequest, Message};

use serde_json::{Value, json};

use super::aside;
use super::build::Tree;
use super::people::{self, People};
use super::points;
use super::signals::Ended;
use super::{Failed, Show, has_told, is_heard, say, tell};
use alerts::Alerts;
use done::Deeds;
use heard::Heard;
pub(crate) use interrupt::{hear_interrupts, interrupted};
use keys::Keys;
pub(crate) use keys::wrong_key;
use lines::{Lines, Typed};
use page::Page;
use said::Said;
use served::Served;
use taken::Answered;
use talk::Talk;
use untold::Untold;
use words::{Outcome, Why, line};

mod alerts;
mod converse;
mod done;
mod heard;
mod interrupt;
mod keys;
mod lines;
mod lost;
mod metrics;
mod once;
mod page;
mod said;
mod served;
pub(crate) mod settle;
mod taken;
mod talk;
mod untold;
mod words;

pub(crate) use lines::{is_interactive, restore_terminal};
pub(crate) use page::as_line;

/// Pieces of an answer that wait to be shown.
const PIECES: usize = 64;
/// How long is waited to hear who gave an answer that is there already.
const TOLD: Duration = Duration::from_secs(2);
/// After which time it is said that the start takes its time.
const SLOW: Duration = Duration::from_secs(2);
/// Why turns are left out.
const NO_ROOM: &str = "for lack of room in the model's window (/forget begins a new one)";
/// Why turns are left out.
const TOO_MUCH: &str =
    "since no more than 256 KiB go along with a question (/forget begins a new one)";
const HELP: &str = "\
/tree     the live tree
/effects  what nobody knows the outcome of, and how to settle it
/aside    what was set aside, and how to release it or give it up
/metrics  the objectives and what they came to, and the alerts that hold
/good     the last answer was of use; /bad, it was not (for the objectives)
/forget   begin a new conversation
/quit     leave; Ctrl-D does, too
Ctrl-C    calls a question off; twice, it leaves";

/// A tree at work and who is asked.
pub(crate) struct Session {
    system: System,
    asked: Asked,
    show: Show,
    said: Said,
    /// Where a conversation is kept; `None` where nothing is kept of who is asked.
    talk: Option<Talk>,
    /// What another process had asked, and what has happened since it was taken up.
    taken: Vec<RecoveredRequest>,
    early: Option<Heard>,
    people: People,
    /// What waited for a person in questions that were called off: it is about to leave.
    leaving: BTreeSet<String>,
    /// Whether the question that was asked last has waited for a person.
    helped: bool,
    /// Who answered whom while it was worked on.
    served: Served,
    /// Under which the next question is asked.
    key: Option<String>,
    /// What was asked under which; `None` where nothing is kept of who is asked.
    keys: Option<Keys>,
    /// What was asked and is not told; `None` where nothing is kept of who is asked.
    untold: Option<Untold>,
    /// Whether all of it is told with the last that is said.
    is_told: bool,
    /// What became of which questions of before could not be told.
    unheard: Vec<String>,
    /// What was said in a conversation that is told and is to be kept.
    turns: Vec<(String, String)>,
    /// What became of questions of before, for a program.
    before: Vec<Value>,
    /// Who can say what a person is asked; `None` where nobody types.
    lines: Option<Lines>,
    /// Lines that came while a person was waited for, which come after that; `None` outside of a conversation.
    later: Option<VecDeque<String>>,
    /// Who says what is to be said in any case; `None` once all is said.
    alerts: Option<Alerts>,
    /// What a program is told when the tree has stopped.
    last: Option<(&'static str, Value)>,
    /// What is told of acts on the world.
    rest: settle::Rest,
    /// What is told of those of a question without an answer.
    deeds: Deeds,
    /// Whether the tree was stopped in order.
    stopped: bool,
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
        if show.json {
            tree.wait_for_nobody("no person is asked with --json");
        }
        for note in discover(tree, show.progress).await? {
            if !show.json {
                tell(format_args!("mainstay: {note}"));
            }
        }
        let spec = tree.spec()?;
        let keeps = store.clone().filter(|_| tree.unkept().is_none());
        let (entry, durability) = (tree.entry(), tree.durability());
        let keys = keeps.clone().map(|store| Keys::new(store, &entry, durability));
        let untold = keeps.clone().map(|store| Untold::new(store, &entry, durability));
        let talk = keeps.map(|store| Talk::new(store, &entry, durability));
        let points = points::spec(&tree.file);
        // Many commands of one timer do not come back together.
        let seed = RandomState::new().hash_one(1);
        let watched = SystemOptions::new().jitter_seed(seed);
        let watched = watched.watch(tree.watch()).points(points.clone());
        let (system, taken, mut early) = match store {
            None => (System::start_with(spec, watched).await?, Vec::new(), None),
            Some(store) => {
                if let (false, Some(group)) = (show.json, tree.unkept()) {
                    tell(format_args!("mainstay: {}", super::check::not_kept(group)));
                }
                let mut options = RecoverOptions::default();
                options.adopt_topology = adopt;
                options.set_unreadable_aside = adopt;
                options.system = watched;
                let (system, recovered, events) =
                    System::recover_observed(spec, store, options).await.map_err(with_hint)?;
                let summary = taken::summary(&recovered, show.progress);
                if let (false, Some(summary)) = (show.json, summary) {
                    tell(format_args!("mainstay: {summary}"));
                }
                // What agents had asked is theirs to hear.
                let open = recovered.open.into_iter().filter(|it| !tree.is_inner(&it.child));
                (system, open.collect(), Some(Heard::from(events)))
            }
        };
        let say = |line| tell(format_args!("mainstay: {line}"));
        let before = || early.as_mut().map(Heard::until_now).unwrap_or_default();
        let alerts = Some(Alerts::tell(&system, before, say));
        let asked = match tree.asks_model() {
            true => Asked::Model(system.port(tree.entry())?, tree.question()?),
            false => Asked::Agent(system.port(tree.entry())?),
        };
        tree.attach(&system);
        let people = People::new(tree.people(), system.points(), points);
        let (said, leaving, helped, served, key, lines, later, before, last) = Default::default();
        let rest = settle::Rest { in_order: true, is_kept: tree.has_store() };
        let deeds = Deeds::new(tree.only_asked(), tree.undoes());
        Ok(Self {
            system,
            asked,
            show,
            said,
            talk,
            taken,
            early,
            people,
            leaving,
            helped,
            served,
            key,
            keys,
            untold,
            is_told: false,
            unheard: Vec::new(),
            turns: Vec::new(),
            before,
            lines,
            later,
            alerts,
            last,
            rest,
            deeds,
            stopped: false,
        })
    }

    /// Who is asked.
    fn path(&self) -> ChildPath {
        match &self.asked {
            Asked::Agent(port) => port.path().clone(),
            Asked::Model(port, _) => port.path().clone(),
        }
    }

    pub(crate) fn system(&self) -> System {
        self.system.clone()
    }

    /// Stops the tree. Called off before, it is not stopped in order.
    pub(crate) async fn stop(&mut self) {
        tokio::select! {
            biased;
            _ = self.system.stop() => self.stopped = true,
            // A tool that does not end need not be waited for.
            () = interrupted() => {}
        }
    }

    /// A program that is told why the command was ended is told all else there is to say as well.
    pub(crate) fn told_end(&mut self, result: anyhow::Result<()>) -> anyhow::Result<()> {
        let ended = result.as_ref().err().and_then(|error| error.downcast_ref::<Ended>()).copied();
        if ended.is_some() {
            self.deeds.is_unanswered();
        }
        let Some(ended) = ended.filter(|_| self.show.json) else { return result };
        let ended_by = json!({"error": {"kind": "ended", "message": ended.to_string()}});
        self.last = Some(("error", ended_by));
        Err(ended.told().into())
    }

    /// Says what is known only now: whether what a question did that has failed is undone, and what nobody has
    /// waited for.
    pub(crate) async fn end(mut self) {
        if let Some(alerts) = self.alerts.take() {
            alerts.end().await;
        }
        self.rest.in_order = self.stopped;
        let mut told = Vec::new();
        if let Some((event, mut body)) = self.last.take() {
            told.extend(self.before.iter().filter_map(|it| it["key"].as_str().map(str::to_owned)));
            if event == "error" {
                body = self.with_done(body, self.unanswered());
            }
            self.write_json(event, body);
        }
        self.tell_done();
        for left in settle::left(&self.system, self.rest) {
            tell(format_args!("mainstay: {left}"));
        }
        if self.is_told {
            self.all_told().await;
        } else if !told.is_empty() {
            // What is asked now goes on at the next start, and is told then.
            self.forget(|key| !told.iter().any(|it| it == key)).await;
        }
    }

    /// What became of all that was asked has been shown. What could not be written is told by the next process:
    /// nobody has it, and who gives the command again would have it all done again.
    async fn all_told(&mut self) {
        let (system, unheard) = (self.system.clone(), std::mem::take(&mut self.unheard));
        self.forget(|key| taken::is_open(&system, key) || unheard.iter().any(|it| it == key)).await;
        self.unheard = unheard;
    }

    /// Takes off the list of what is to be told all but what is left, and keeps the turns of a conversation.
    async fn forget(&mut self, left: impl Fn(&str) -> bool) {
        let (Some(untold), Some(talk), true) = (&self.untold, &self.talk, is_heard()) else {
            return;
        };
        let turns = std::mem::take(&mut self.turns);
        let told = untold.told(left);
        let batch = told.and_then(|told| match (told, &*turns) {
            (None, []) => Ok(None),
            // In one: a conversation has a turn once.
            (told, turns) => talk.keep(turns, told.unwrap_or_default()).map(Some),
        });
        let done = match batch {
            Ok(None) => return,
            Ok(Some(batch)) => untold.commit(batch).await,
            Err(error) => Err(error),
        };
        if let (Err(error), false) = (done, turns.is_empty()) {
            // It ends nothing. What is not taken off the list is told again.
            tell(format_args!("the next process will not know this: {error}"));
        }
    }

    /// Asks, shows what happens meanwhile, and stops asking on Ctrl-C. Also says whether the answer
    /// has been shown as it came.
    async fn ask(&mut self, prompt: &str) -> (Result<Outcome, Why>, bool) {
        match self.asked.clone() {
            Asked::Agent(port) => {
                let options = self.options(prompt).await;
                let (sink, stream) = self.listen().unzip();
                let request = AgentRequest::new(prompt)
                    .history(self.said.turns().iter().cloned())
                    .left_out(self.said.left_out());
                let request =
                    sink.into_iter().fold(request, |request, sink| request.stream_to(sink));
                let call = port.call_with(request, options);
                let call =
                    async { call.await.map(Outcome::agent).map_err(|error| Why::of(&error)) };
                let (outcome, shown) = self.wait(call, stream).await;
                if let Ok(Outcome { left_out, .. }) = &outcome {
                    // The next question does not fail first.
                    self.said.leave_out(left_out.turns);
                    tell_left_out(left_out.turns, NO_ROOM);
                }
                (outcome, shown)
            }
            Asked::Model(port, request) => {
                let (before, mut left_out) = (self.said.clone(), 0);
                loop {
                    let options = self.options(prompt).await;
                    let (sink, stream) = self.listen().unzip();
                    let mut request = request.clone();
                    self.said.tell(&mut request.messages);
                    request.messages.push(Message::user(prompt));
                    request.stream = sink;
                    let call = port.call_with(request, options);
                    let call =
                        async { call.await.map(Outcome::model).map_err(|error| Why::of(&error)) };
                    let (outcome, shown) = self.wait(call, stream).await;
                    let too_long = outcome.as_ref().is_err_and(|why| why.too_long);
                    let turns = if too_long { self.said.make_room(left_out > 0) } else { 0 };
                    left_out += turns;
                    if turns > 0 {
                        continue;
                    }
                    match &outcome {
                        Ok(_) => tell_left_out(left_out, NO_ROOM),
                        // It was not the conversation.
                        Err(_) => self.said = before,
                    }
                    break (outcome, shown);
                }
            }
        }
    }

    /// With which a question is asked: it is kept that it is, until it is told what became of it.
    async fn options(&mut self, question: &str) -> CallOptions {
        let mut key = self.key.take();
        self.is_told = false;
        let is_turn = self.later.is_some();
        if let Some(untold) = &self.untold
            // A store that does not take it does not take the question, either.
            && let Ok(own) = untold.asks(key.clone(), question, is_turn).await
        {
            key = Some(own);
        }
        // By its key it is known what it has done, also where nothing is kept.
        let key = key.unwrap_or_else(done::own_key);
        self.deeds.of(&*key);
        CallOptions::new().key(key)
    }

    /// The two ends of an answer that is shown as it is written.
    fn listen(&self) -> Option<(StreamSink, ChatStream)> {
        let (sink, stream) = self.show.stream.then(|| open(PIECES))?;
        Some((sink.on_break(OnBreak::Restart), stream))
    }

    async fn wait(
        &mut self,
        call: impl Future<Output = Result<Outcome, Why>>,
        stream: Option<ChatStream>,
    ) -> (Result<Outcome, Why>, bool) {
        let began = Instant::now();
        let mut events = Heard::from(self.system.events());
        let mut page = Page::new(stream, self.show.json);
        let outcome = self.attend(call, &mut page, &mut events).await;
        let outcome = outcome.unwrap_or_else(|| Err(Why::called_off()));
        if outcome.as_ref().is_err_and(Why::is_called_off) {
            // The terminal has written what was typed: ^C.
            if !page.end() && is_interactive() && std::io::stderr().is_terminal() {
                tell("");
            }
            return (outcome, false);
        }
        if outcome.is_ok() {
            // What a person waited for: the runtime knows requests, and not which of them are these.
            for name in ["response", "generation"] {
                self.system.signal(name, Signal::Took(began.elapsed()));
            }
            let helped = if self.helped { Signal::Yes } else { Signal::No };
            self.system.signal("intervention", helped);
        }
        page.rest(self.show.progress);
        let shown = outcome.as_ref().is_ok_and(|outcome| page.has_shown(&outcome.text));
        if page.has_begun() && !shown && outcome.is_ok() {
            page.give_up();
        }
        page.end();
        while let Some(stamped) = events.try_next() {
            self.progress(&stamped.event, &mut page);
        }
        let path = self.path();
        let outcome = outcome.map(|outcome| outcome.resting_on(self.served.below(&path)));
        (outcome, shown)
    }

    /// Waits for work to end, shows what happens meanwhile, and lets people decide. `None` when it was
    /// called off.
    async fn attend<T>(
        &mut self,
        work: impl Future<Output = T>,
        page: &mut Page,
        events: &mut Heard,
    ) -> Option<T> {
        (self.helped, self.served) = Default::default();
        let (mut work, mut interrupt) = (pin!(work), pin!(interrupted()));
        let mut told = BTreeSet::new();
        let mut lines = self.lines.take();
        let done = loop {
            // Told before a line is asked for: the prompt comes below what it is about.
            let waits = self.ask_people(&mut told, lines.is_some(), page);
            tokio::select! {
                biased;
                () = &mut interrupt => break None,
                done = &mut work => break Some(done),
                piece = page.next() => page.show(piece, self.show.progress),
                event = events.next() => match event {
                    Some(stamped) => self.progress(&stamped.event, page),
                    None => break Some((&mut work).await),
                },
                () = self.people.news() => {}
                typed = next(&mut lines), if waits => match typed {
                    Some(Typed::Line(line)) => self.while_waiting(&line, page).await,
                    Some(Typed::Interrupt) => break None,
                    Some(Typed::Unreadable) => tell("that line is not UTF-8"),
                    None => lines = None,
                },
            }
        };
        self.lines = lines;
        self.helped = !told.is_empty();
        if done.is_none() {
            self.leaving.extend(self.people.points().into_iter().map(|point| point.id));
        }
        done
    }

    /// Says what waits for a person and has not been told yet. Whether anything waits.
    fn ask_people(&self, told: &mut BTreeSet<String>, is_typing: bool, page: &mut Page) -> bool {
        let mut points = self.people.points();
        points.retain(|point| !self.leaving.contains(&point.id));
        for point in &points {
            if !told.insert(point.id.clone()) || self.show.json {
                continue;
            }
            page.make_room();
            let (id, asked) = (&point.id, &point.asked);
            tell(format_args!("  {id} waits for a person: {asked} ({})", point.otherwise));
            if is_typing {
                tell(format_args!("  {}", point.choices()));
            } else {
                tell("  nobody types here, so that is what happens");
            }
        }
        !points.is_empty()
    }

    /// A line that is typed while a person is waited for. What is for nobody who can be asked now comes after that.
    async fn while_waiting(&mut self, line: &str, page: &mut Page) {
        let line = line.trim();
        page.end();
        let comes_later = !line.starts_with('/') || converse::COMMANDS.contains(&line);
        if let Some(text) = self.command(line).await {
            say(text);
        } else if !comes_later {
            // Not put off: it may be what was to be said to who waits, and their time runs.
            say(format_args!(
                "there is no {line}, and somebody waits for a person:\n{}",
                people::HOW
            ));
        } else if let (Some(later), false) = (&mut self.later, line.is_empty()) {
            later.push_back(line.to_owned());
            match later.len() {
                1 => say(format_args!(
                    "first, somebody waits for a person; what you type comes after that:\n{}",
                    people::HOW
                )),
                _ => say("comes after that, too"),
            }
        } else if !line.is_empty() {
            say(format_args!("first, somebody waits for a person:\n{}", people::HOW));
        }
    }

    /// The next line that was to wait until a person had decided.
    fn put_off(&mut self) -> Option<Typed> {
        let line = self.later.as_mut()?.pop_front()?;
        // It was shown when it was typed, which may be long ago.
        tell(format_args!("> {line}"));
        Some(Typed::Line(line))
    }

    /// Who calls a question off does not want those after it, either.
    fn forget_put_off(&mut self) {
        for line in self.later.iter_mut().flat_map(std::mem::take) {
            tell(format_args!("  not asked any more: {line}"));
        }
    }

    /// What is to be said about a line that is a command at any time.
    async fn command(&self, line: &str) -> Option<String> {
        let (verb, words) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        Some(match verb {
            "/tree" => self.system.tree().to_string().trim_end().to_owned(),
            "/help" if self.people.is_empty() => HELP.to_owned(),
            "/help" => format!("{HELP}\n{}", people::HOW),
            "/effects" => settle::command(&self.system, words).await,
            "/aside" => aside::live::command(&self.system, words).await,
            "/metrics" => metrics::page(&self.system.metrics()),
            "/good" | "/bad" => self.judge(verb == "/good"),
            _ => return self.people.command(line),
        })
    }

    /// What a person says about the last answer.
    fn judge(&self, good: bool) -> String {
        let yes = |yes| if yes { Signal::Yes } else { Signal::No };
        // What is of no use as it is has to be repaired by somebody.
        let counted = [("satisfaction", good), ("usable", good), ("repair", !good)]
            .map(|(name, so)| self.system.signal(name, yes(so)));
        match counted.contains(&true) {
            true => "noted".to_owned(),
            false => "no objective asks for it".to_owned(),
        }
    }

    fn progress(&mut self, event: &Event, page: &mut Page) {
        self.served.note(event);
        if let (true, Some(line)) = (self.show.progress, line(event)) {
            page.make_room();
            tell(format_args!("  {line}"));
        }
    }

    fn tell(
        &mut self,
        outcome: Result<&Outcome, Why>,
        took: Duration,
        shown: bool,
    ) -> anyhow::Result<()> {
        match outcome {
            Ok(outcome) if self.show.json => self.write_last("answer", outcome.as_json(took)),
            Ok(outcome) => {
                if !shown {
                    say(&outcome.text);
                }
                if self.show.progress {
                    tell(outcome.footer(took));
                }
            }
            Err(why) if self.show.json => {
                self.is_told = true;
                // What it did is undone while the tree stops, and is named if that does not help.
                self.last = Some(("error", why.json));
                return Err(Failed(String::new()).into());
            }
            Err(why) => {
                self.is_told = true;
                return Err(Failed(why.text).into());
            }
        }
        Ok(())
    }

    /// The last line for a program: put off to the end where it will only be known then what is still to be undone.
    fn write_last(&mut self, event: &'static str, body: Value) {
        if self.system.effects().owed().is_empty() {
            self.write_json(event, body);
        } else {
            self.is_told = true;
            self.last = Some((event, body));
        }
    }

    /// The last line for a program. Where lines came before, it says which it is.
    fn write_json(&self, event: &str, mut body: Value) {
        let before = self.before.iter().map(|it| self.with_done(it.clone(), it["key"].as_str()));
        let parts = [
            ("before", before.collect()),
            ("undecided", self.people.undecided()),
            ("unsettled", settle::unsettled(&self.system, self.rest)),
            ("lost", lost::list(&self.system)),
        ];
        for (name, part) in parts {
            if !part.is_empty() {
                body[name] = part.into();
            }
        }
        say(if self.show.stream { as_line(event, body) } else { body });
    }
}

/// Says that the model does not hear all of the conversation any more.
fn tell_left_out(turns: u32, why: &str) {
    let what = match turns {
        0 => return,
        1 => "the oldest turn".to_owned(),
        _ => format!("the {turns} oldest turns"),
    };
    tell(format_args!("  {what} of this conversation: left out from now on, {why}"));
}

/// Asks the servers for their tools; a person who waits for that is told for whom.
async fn discover(tree: &mut Tree, progress: bool) -> anyhow::Result<Vec<String>> {
    let servers: Vec<_> = tree.servers().map(|name| format!("`{name}`")).collect();
    let mut work = pin!(tree.discover());
    tokio::select! {
        notes = &mut work => return notes,
        () = tokio::time::sleep(SLOW), if progress => {}
    }
    tell(format_args!("mainstay: waits for servers of tools to start: {}", servers.join(", ")));
    work.await
}

/// What can be done about a store of another tree.
fn with_hint(error: RecoverError) -> anyhow::Error {
    let hint = match &error {
        RecoverError::Topology { .. } => Some("--adopt takes the store up all the same"),
        RecoverError::Child { .. } => Some("--adopt lets it go"),
        RecoverError::Request { .. } => {
            Some("--adopt sets it aside, where `mainstay store` shows it and gives it up")
        }
        _ => None,
    };
    match hint {
        Some(hint) => anyhow::anyhow!("{error}; {hint}"),
        None => anyhow::Error::new(error),
    }
}

/// What became of a question of before.
fn tell_taken(answered: &Answered, mut say: impl FnMut(&str)) {
    say(&format!("asked before: {}", answered.question.text));
    match &answered.outcome {
        Ok(outcome) => say(&outcome.text),
        Err(why) => say(&why.text),
    }
}

/// The next line; waits for ever where nobody types.
async fn next(lines: &mut Option<Lines>) -> Option<Typed> {
    match lines {
        Some(lines) => lines.next().await,
        None => std::future::pending().await,
    }
}
