//! People who stand in: what waits for them, and what they say.
//!
//! *Invariant.* A point is decided once: by a person's word, or by its default at its time.

use std::sync::Arc;
use std::time::Duration;

use mainstay::points::{PointSpec, PointsRef};
use mainstay::spec::ChildSpec;
use mainstay_actors::agent::{AgentReply, AgentRequest};
use mainstay_actors::chat::{ChatReply, ChatRequest, Role as Speaker};
use mainstay_actors::human::{Decided, Decision, HumanDesk, Pending};
use mainstay_actors::tool::{ToolReply, ToolRequest};
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::build::answers;
use super::file::{Otherwise, Person};
use super::points;

pub(crate) const HOW: &str = "\
/pending         what waits for a person
/answer ID TEXT  the answer of a person; for a tool, its result (JSON or text)
/approve ID      the same, with the word `approved`: of a person, and nobody does anything because of it
/refuse ID [WHY] no, and nobody else is asked
/pass ID [WHY]   not here: whoever comes next in the group is asked
/again ID [WHY]  for what has failed (#1): once more, where a repeat is safe";

/// What a person takes the place of, and so what is asked and answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Tool,
    Model,
    Agent,
}

#[derive(Clone, Debug)]
enum Desk {
    Tool(HumanDesk<ToolRequest, ToolReply>),
    Model(HumanDesk<ChatRequest, ChatReply>),
    Agent(HumanDesk<AgentRequest, AgentReply>),
}

/// Who decides what is typed.
const BY: &str = "the terminal";

/// A person of the file, with what waits for them.
#[derive(Clone, Debug)]
pub(crate) struct Someone {
    name: String,
    otherwise: Otherwise,
    expiry: Duration,
    desk: Desk,
}

/// Something that waits for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    /// `NAME-NUMBER` for what a person is asked, `#NUMBER` for a request that has failed.
    pub(crate) id: String,
    /// What is asked, in a line.
    pub(crate) asked: String,
    /// What happens otherwise, and when.
    pub(crate) otherwise: String,
    /// Whether it may be tried once more.
    pub(crate) again: bool,
}

impl Shown {
    /// What can be said to it.
    pub(crate) fn choices(&self) -> String {
        let id = &self.id;
        let again = if self.again { format!("/again {id}, ") } else { String::new() };
        // Of what has failed there is nothing to approve: the word would be the answer.
        let approve = if id.starts_with('#') { String::new() } else { format!("/approve {id}, ") };
        format!("/answer {id} TEXT, {approve}{again}/refuse {id} or /pass {id}")
    }
}

/// A person's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    Answer,
    Refuse,
    Pass,
    Again,
}

fn agent_reply(text: &str) -> Option<AgentReply> {
    serde_json::from_value(json!({"text": text, "steps": 0, "tools_used": []})).ok()
}

fn desk<Q, R>(person: &Person, answer: impl Fn(&str) -> Option<R>) -> HumanDesk<Q, R>
where
    Q: Clone + PartialEq + Send + Sync + 'static,
    R: Clone + Send + Sync + 'static,
{
    let text = person.text.as_ref().map(|text| text.get_ref().as_str());
    let late = text.unwrap_or("nobody has decided in time");
    let default = match person.otherwise() {
        Otherwise::Refuse => None,
        Otherwise::PassOn => Some(Decision::PassOn(late.to_owned())),
        Otherwise::Answer => answer(late).map(Decision::Answer),
    };
    let default = default.unwrap_or_else(|| Decision::Refuse(late.to_owned()));
    HumanDesk::with_default(person.expiry(), default)
}

impl Someone {
    pub(crate) fn new(name: &str, person: &Person, place: Place) -> Self {
        let desk = match place {
            Place::Tool => Desk::Tool(desk(person, |text| Some(answers::result(text)))),
            Place::Model => Desk::Model(desk(person, |text| Some(ChatReply::text(text)))),
            Place::Agent => Desk::Agent(desk(person, agent_reply)),
        };
        let (name, expiry) = (name.to_owned(), person.expiry());
        Self { name, otherwise: person.otherwise(), expiry, desk }
    }

    pub(crate) fn spec(&self) -> ChildSpec {
        match &self.desk {
            Desk::Tool(desk) => desk.spec(&self.name),
            Desk::Model(desk) => desk.spec(&self.name),
            Desk::Agent(desk) => desk.spec(&self.name),
        }
    }

    fn point<Q>(&self, pending: &Pending<Q>, asked: String) -> Shown {
        let what = match self.otherwise {
            Otherwise::Refuse => "refused",
            Otherwise::PassOn => "passed on",
            Otherwise::Answer => "answered with the default",
        };
        Shown {
            id: format!("{}-{}", self.name, pending.id),
            asked: asked.lines().map(str::trim).collect::<Vec<_>>().join(" "),
            otherwise: format!("{what} after {} s", self.expiry.as_secs_f64()),
            again: false,
        }
    }

    fn points(&self) -> Vec<Shown> {
        let last = |request: &ChatRequest| {
            let mut said = request.messages.iter().rev();
            let asked = said.find(|said| said.role == Speaker::User);
            asked.map(|said| said.text.clone()).unwrap_or_default()
        };
        match &self.desk {
            Desk::Tool(desk) => {
                let text = |asked: &ToolRequest| format!("{} {}", asked.name, asked.arguments);
                desk.pending().iter().map(|it| self.point(it, text(&it.request))).collect()
            }
            Desk::Model(desk) => {
                desk.pending().iter().map(|it| self.point(it, last(&it.request))).collect()
            }
            Desk::Agent(desk) => {
                desk.pending().iter().map(|it| self.point(it, it.request.text.clone())).collect()
            }
        }
    }

    fn decide(&self, id: u64, word: Word, text: &str) -> bool {
        fn say<R>(
            word: Word,
            text: &str,
            answer: impl Fn(&str) -> Option<R>,
        ) -> Option<Decision<R>> {
            let why = if text.is_empty() { "a person said so" } else { text };
            match word {
                Word::Answer => answer(text).map(Decision::Answer),
                Word::Refuse => Some(Decision::Refuse(why.to_owned())),
                Word::Pass => Some(Decision::PassOn(why.to_owned())),
                // A person has not failed.
                Word::Again => None,
            }
        }
        match &self.desk {
            Desk::Tool(desk) => say(word, text, |text| Some(answers::result(text)))
                .is_some_and(|said| desk.decide(id, said, BY, text).is_ok()),
            Desk::Model(desk) => say(word, text, |text| Some(ChatReply::text(text)))
                .is_some_and(|said| desk.decide(id, said, BY, text).is_ok()),
            Desk::Agent(desk) => say(word, text, agent_reply)
                .is_some_and(|said| desk.decide(id, said, BY, text).is_ok()),
        }
    }

    fn log(&self) -> Vec<Decided> {
        match &self.desk {
            Desk::Tool(desk) => desk.log(),
            Desk::Model(desk) => desk.log(),
            Desk::Agent(desk) => desk.log(),
        }
    }

    /// Wakes whoever waits for news of this desk, as long as there is a runtime.
    fn watch(&self, news: &Arc<Notify>) {
        let mut changes = match &self.desk {
            Desk::Tool(desk) => desk.changes(),
            Desk::Model(desk) => desk.changes(),
            Desk::Agent(desk) => desk.changes(),
        };
        let news = Arc::clone(news);
        tokio::spawn(async move {
            while changes.changed().await.is_ok() {
                news.notify_one();
            }
        });
    }
}

/// All the people of a tree, and the points at which any of them may decide.
#[derive(Debug)]
pub(crate) struct People {
    all: Vec<Someone>,
    points: PointsRef,
    spec: PointSpec,
    news: Arc<Notify>,
}

impl People {
    pub(crate) fn new(all: Vec<Someone>, points: PointsRef, spec: PointSpec) -> Self {
        let news = Arc::default();
        for someone in &all {
            someone.watch(&news);
        }
        Self { all, points, spec, news }
    }

    /// Whether nobody can be asked.
    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty() && self.spec == PointSpec::new().otherwise(self.spec.otherwise.clone())
    }

    pub(crate) fn points(&self) -> Vec<Shown> {
        let failed = self.points.open().into_iter().map(|point| points::show(&point, &self.spec));
        self.all.iter().flat_map(Someone::points).chain(failed).collect()
    }

    /// What was to be decided by a person, and was not in time, with what was done instead: for a program.
    pub(crate) fn undecided(&self) -> Vec<Value> {
        let of_desks = self.all.iter().flat_map(|someone| {
            let late = someone.log().into_iter().filter(|decided| decided.by.is_none());
            late.map(|decided| json!({"who": someone.name, "otherwise": decided.what}))
        });
        let late = self.points.log().into_iter().filter(|decided| decided.by.is_none());
        let of_points = late.map(|it| json!({"failed": it.child, "otherwise": it.what}));
        of_desks.chain(of_points).collect()
    }

    /// Waits until something begins to wait, or was decided. Of points the events tell.
    pub(crate) async fn news(&self) {
        self.news.notified().await;
    }

    /// Does what a line says if it is for people: what is to be said about it.
    pub(crate) fn command(&self, line: &str) -> Option<String> {
        let mut words = line.trim().splitn(3, char::is_whitespace);
        let (verb, id) = (words.next()?, words.next().unwrap_or_default());
        let text = words.next().unwrap_or_default().trim();
        let (word, text) = match verb {
            "/pending" => return Some(self.list()),
            "/answer" => (Word::Answer, text),
            "/approve" if id.starts_with('#') && text.is_empty() => {
                let why = format!("{id} has failed, and `approved` would be its answer");
                return Some(format!("{why}: /answer {id} TEXT gives one\n{HOW}"));
            }
            "/approve" => (Word::Answer, if text.is_empty() { "approved" } else { text }),
            "/refuse" => (Word::Refuse, text),
            "/pass" => (Word::Pass, text),
            "/again" => (Word::Again, text),
            _ => return None,
        };
        if word == Word::Answer && text.is_empty() {
            return Some(format!("an answer needs a text: {verb} ID TEXT\n{HOW}"));
        }
        let none = || Err(format!("nothing waits under `{id}`\n{}", self.list()));
        let decided = match id.strip_prefix('#').map(str::parse) {
            Some(Ok(number)) => points::decide(&self.points, number, word, text, BY),
            Some(Err(_)) => none(),
            None => match self.someone(id).is_some_and(|(who, id)| who.decide(id, word, text)) {
                true => Ok(()),
                false => none(),
            },
        };
        Some(decided.map_or_else(|why| why, |()| format!("decided: {id}")))
    }

    /// Whose point has this name, and its number.
    fn someone(&self, id: &str) -> Option<(&Someone, u64)> {
        let (name, number) = id.rsplit_once('-')?;
        let someone = self.all.iter().find(|someone| someone.name == name)?;
        Some((someone, number.parse().ok()?))
    }

    fn list(&self) -> String {
        let points = self.points();
        if points.is_empty() {
            return "nothing waits for a person".to_owned();
        }
        let line = |point: &Shown| format!("{}  {} ({})", point.id, point.asked, point.otherwise);
        points.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}
