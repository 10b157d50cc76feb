//! What the reader cannot see: names that lead nowhere, keys that exclude each other, variables that
//! are not set.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;

use toml::Spanned;

use super::file::{Agent, Group, GroupKind, TreeFile};
use super::snag::{Snag, list, meant};

mod acts;
mod groups;
mod models;
mod money;
pub(crate) mod notes;
mod parts;
pub(crate) mod times;

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Model,
    Tool,
    Server,
    Group(GroupKind),
    Person,
    Agent,
}

impl What {
    fn is_asked_as_model(self) -> bool {
        self == Self::Model || matches!(self, Self::Group(kind) if kind.is_of_models())
    }

    fn is_called_as_tool(self) -> bool {
        matches!(self, Self::Tool | Self::Server | Self::Person)
            || matches!(self, Self::Group(kind) if kind.is_of_tools())
    }

    fn words(self) -> &'static str {
        match self {
            Self::Model => "a model",
            Self::Tool => "a tool",
            Self::Server => "a server",
            Self::Group(_) => "a group",
            Self::Person => "a person",
            Self::Agent => "an agent",
        }
    }
}

/// Every name of a file, with what it stands for and the group it is in.
pub(crate) struct Names<'a> {
    pub(crate) all: BTreeMap<&'a str, What>,
    member_of: BTreeMap<&'a str, &'a str>,
    /// The agents that others start, with one that does.
    started_by: BTreeMap<&'a str, &'a str>,
}

impl<'a> Names<'a> {
    pub(crate) fn of(file: &'a TreeFile) -> Self {
        let (all, member_of, started_by) = Default::default();
        let mut names = Self { all, member_of, started_by };
        for (name, what) in every_name(file) {
            names.all.entry(name.get_ref()).or_insert(what);
        }
        for (group, spec) in &file.groups {
            for member in spec.members.get_ref() {
                names.member_of.entry(member.get_ref()).or_insert(group.get_ref());
            }
        }
        for (agent, spec) in &file.agents {
            for sub in &spec.agents {
                names.started_by.entry(sub.get_ref()).or_insert(agent.get_ref());
            }
        }
        names
    }

    /// Whether it is an agent that others start one of for each task.
    pub(crate) fn is_sub_agent(&self, name: &str) -> bool {
        self.started_by.contains_key(name)
    }

    /// The kind of the group that it is in.
    pub(crate) fn group_of(&self, name: &str) -> Option<GroupKind> {
        match self.all.get(self.member_of.get(name)?) {
            Some(What::Group(kind)) => Some(*kind),
            _ => None,
        }
    }

    /// Whether who has this name takes the requests of models.
    pub(crate) fn is_asked_as_model(&self, name: &str) -> bool {
        matches!(self.all.get(name), Some(what) if what.is_asked_as_model())
    }

    pub(crate) fn is_member(&self, name: &str) -> bool {
        self.member_of.contains_key(name)
    }
}

/// Whether a character of a name would not be seen, or have others be seen elsewhere.
fn hides(c: char) -> bool {
    c.is_control() || super::turns_around(c)
}

fn every_name(file: &TreeFile) -> impl Iterator<Item = (&Spanned<String>, What)> {
    let models = file.models.keys().map(|name| (name, What::Model));
    let tools = file
        .tools
        .iter()
        .map(|(name, tool)| (name, if tool.builtin.is_some() { What::Tool } else { What::Server }));
    let groups = file.groups.iter().map(|(name, group)| (name, What::Group(*group.kind.get_ref())));
    let people = file.people.keys().map(|name| (name, What::Person));
    let agents = file.agents.keys().map(|name| (name, What::Agent));
    models.chain(tools).chain(groups).chain(people).chain(agents)
}

/// Everything that is wrong with a file that could be read.
pub(crate) fn all(file: &TreeFile, folder: &Path) -> Vec<Snag> {
    let mut verify = Verify { file, folder, names: Names::of(file), snags: Vec::new() };
    verify.unique();
    verify.models();
    verify.tools();
    verify.groups();
    verify.people();
    verify.agents();
    verify.store();
    verify.policy();
    verify.ask(folder);
    verify.scopes();
    verify.acts();
    super::points::verify(file, &mut verify.snags);
    super::watch::verify(file, &mut verify.snags);
    verify.snags
}

struct Verify<'a> {
    file: &'a TreeFile,
    folder: &'a Path,
    names: Names<'a>,
    snags: Vec<Snag>,
}

impl Verify<'_> {
    fn say(
        &mut self,
        span: impl Into<Option<Range<usize>>>,
        message: impl Into<String>,
        label: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.snags.push(Snag::new(span, message, label, hint));
    }

    fn unique(&mut self) {
        if let Some(name) = &self.file.name
            && (name.get_ref().is_empty()
                || name.get_ref().contains('/')
                || name.get_ref().chars().any(hides))
        {
            let message = format!("{:?} cannot be the name of a tree", name.get_ref());
            self.say(name.span(), message, "used in paths", "use letters, digits, `_` and `-`");
        }
        let mut seen = BTreeMap::new();
        for (name, what) in every_name(self.file) {
            let text = name.get_ref();
            if text.is_empty() || text.contains(['/', '.']) || text.chars().any(hides) {
                self.say(
                    name.span(),
                    format!("`{text}` cannot be a name"),
                    "used in paths",
                    "use letters, digits, `_` and `-`",
                );
            }
            if let Some(before) = seen.insert(text, what) {
                self.say(
                    name.span(),
                    format!("`{text}` is {} already", before.words()),
                    "the same name",
                    "models, groups, tools, people and agents stand beside each other: give each its own name",
                );
            }
        }
    }

    /// Complains about a name that is not known.
    fn unknown(&mut self, name: &Spanned<String>, wanted: &str, fits: impl Fn(What) -> bool) {
        let fitting: Vec<&str> =
            self.names.all.iter().filter(|(_, what)| fits(**what)).map(|(name, _)| *name).collect();
        let text = name.get_ref();
        let hint = match meant(text, fitting.iter().copied()) {
            Some(name) => format!("did you mean `{name}`?"),
            None if fitting.is_empty() => format!("there is none of this kind: declare {wanted}"),
            None => format!("there are: {}", list(fitting.iter().copied())),
        };
        match self.names.all.get(text.as_str()) {
            Some(what) => {
                let message = format!("`{text}` is {}, not {wanted}", what.words());
                self.say(name.span(), message, format!("{wanted} is expected"), hint);
            }
            None => {
                let message = format!("there is no `{text}`");
                self.say(name.span(), message, format!("{wanted} is expected"), hint);
            }
        }
    }

    fn groups(&mut self) {
        for (name, group) in &self.file.groups {
            self.group(name, group);
            self.hedge(name, group);
            self.durable(name, group);
            self.all_down(group);
        }
    }

    fn group(&mut self, name: &Spanned<String>, group: &Group) {
        let kind = *group.kind.get_ref();
        let (wanted, fits): (_, fn(What) -> bool) = match kind {
            GroupKind::Model | GroupKind::Output => {
                ("a model or a person", |what| matches!(what, What::Model | What::Person))
            }
            GroupKind::Tool | GroupKind::Data => {
                ("a built-in tool, `server.tool`, or a person", |what| {
                    matches!(what, What::Tool | What::Person)
                })
            }
            GroupKind::Step => ("an agent, a person, or a model of the kind `default`", |what| {
                matches!(what, What::Agent | What::Person)
            }),
        };
        let members = group.members.get_ref();
        if members.is_empty() || members.len() > 6 {
            self.say(
                group.members.span(),
                format!("the group `{}` has {} members", name.get_ref(), members.len()),
                "1 to 6 can stand in for each other",
                "name the one that serves first, then its substitutes in order",
            );
        }
        for member in members {
            let text = member.get_ref().as_str();
            match self.names.all.get(text) {
                Some(what) if fits(*what) => {}
                Some(What::Model) if kind == GroupKind::Step && self.is_default(text) => {}
                None if kind.is_of_tools() && self.is_of_server(text) => {}
                _ => self.unknown(member, wanted, fits),
            }
            let home = self.names.member_of.get(text).copied();
            let twice = members.iter().filter(|other| other.get_ref() == text).count() > 1;
            if twice || home.is_some_and(|home| home != name.get_ref()) {
                let home = home.unwrap_or_default().to_owned();
                self.say(
                    member.span(),
                    format!("`{text}` is a member twice"),
                    format!("it stands in `{home}`"),
                    "a child has one place: declare it again under another name",
                );
                break;
            }
        }
        if kind == GroupKind::Output
            && members.last().is_some_and(|last| !self.is_default(last.get_ref()))
        {
            let hint = "end it with a model of the kind `default` or `template`";
            let message = format!("the output group `{}` can fail", name.get_ref());
            self.say(group.members.span(), message, "the last one must not", hint);
        }
        for (member, grant) in &group.grants {
            if !members.iter().any(|other| other.get_ref() == member.get_ref()) {
                let message = format!("a grant for `{}`, which is no member", member.get_ref());
                self.say(member.span(), message, "nobody to grant it to", "name a member");
            }
            for text in [&grant.owner, &grant.reason] {
                if text.get_ref().trim().is_empty() {
                    let hint = "say who answers for it, and why";
                    self.say(text.span(), "a grant without owner and reason", "empty", hint);
                }
            }
        }
    }

    fn agents(&mut self) {
        let (is_model, is_tool) = (What::is_asked_as_model, What::is_called_as_tool);
        for (name, agent) in &self.file.agents {
            if let Some(own) = agent.checkpoint.as_ref()
                && self.names.is_sub_agent(name.get_ref())
            {
                let message =
                    format!("a checkpoint of `{}`, which other agents start", name.get_ref());
                let hint = "remove it: who starts it is stored, and what has come of its tasks";
                self.say(own.span(), message, "its state is not stored", hint);
            }
            match self.names.all.get(agent.model.get_ref().as_str()) {
                Some(what) if is_model(*what) => self.alone(&agent.model),
                _ => self.unknown(&agent.model, "a model or a group of models", is_model),
            }
            for tool in &agent.tools {
                let name = tool.get_ref().as_str();
                let (name, inner) =
                    name.split_once('.').map_or((name, None), |(a, b)| (a, Some(b)));
                match self.names.all.get(name) {
                    Some(What::Server) => {}
                    Some(what) if is_tool(*what) && inner.is_none() => self.alone(tool),
                    _ => self.unknown(tool, "a tool, a server, or `server.tool`", is_tool),
                }
            }
            self.sampling(agent.max_tokens.as_ref(), agent.temperature.as_ref());
            self.fits_window(agent.max_tokens.as_ref(), agent.model.get_ref());
            self.people_in_time(name.get_ref(), agent);
            self.agent_limits(self.folder, agent);
            let mut seen = BTreeSet::new();
            for name in agent.tools.iter().chain(&agent.agents) {
                if !seen.insert(name.get_ref()) {
                    let message = format!("`{}` stands here twice", name.get_ref());
                    self.say(name.span(), message, "the second", "remove one of the two");
                }
            }
            self.told_apart(agent);
            for sub in &agent.agents {
                match self.names.all.get(sub.get_ref().as_str()) {
                    Some(What::Agent) => self.alone(sub),
                    _ => self.unknown(sub, "an agent", |what| what == What::Agent),
                }
            }
            if let Some(steps) = &agent.max_steps
                && *steps.get_ref() == 0
            {
                self.say(
                    steps.span(),
                    "an agent without steps",
                    "at least 1",
                    "leave it out for 8",
                );
            }
        }
        self.circles();
        let is_entry = |what: What| !is_tool(what);
        match &self.file.entry {
            Some(entry) => match self.names.all.get(entry.get_ref().as_str()) {
                Some(what) if is_entry(*what) => {
                    self.alone(entry);
                    if let Some(boss) = self.names.started_by.get(entry.get_ref().as_str()) {
                        let message = format!("`{}` works for `{boss}`", entry.get_ref());
                        let hint =
                            format!("write `{boss}`, or declare it again under another name");
                        self.say(entry.span(), message, "one is started for each task", hint);
                    }
                }
                _ => self.unknown(entry, "an agent, a model, or a group of them", is_entry),
            },
            None if self.file.agents.is_empty() && self.file.models.is_empty() => {
                let hint = "add [models.NAME] and [agents.NAME] with a line `model = \"NAME\"`";
                self.say(0..0, "a tree without models and agents answers nobody", "", hint);
            }
            None => {
                let all = super::build::entries(self.file);
                if all.len() > 1 {
                    let hint =
                        format!("add a line `entry = \"...\"`: {}", list(all.iter().copied()));
                    let message = "several could answer, and nothing says which one is asked";
                    let second = every_name(self.file).find(|(name, _)| name.get_ref() == all[1]);
                    let second = second.map(|(name, _)| name.span());
                    self.say(second, message, "one of them", hint);
                }
            }
        }
    }

    /// A model knows a tool by its name alone.
    fn told_apart(&mut self, agent: &Agent) {
        let mut offered: BTreeMap<&str, &str> = BTreeMap::new();
        for name in agent.tools.iter().chain(&agent.agents) {
            let full = name.get_ref().as_str();
            if self.names.all.get(full) == Some(&What::Server) {
                // What it has, it says when it is started.
                continue;
            }
            let (server, called) = full.split_once('.').unwrap_or((full, full));
            if full.contains('.') && agent.tools.iter().any(|it| it.get_ref() == server) {
                let message = format!("`{full}` stands here twice: `{server}` is all of its tools");
                self.say(name.span(), message, "one of them", "remove one of the two");
                continue;
            }
            if let Some(other) = offered.insert(called, full).filter(|other| *other != full) {
                let message = format!("`{full}` and `{other}` are both called `{called}`");
                let of_server = if full.contains('.') { full } else { other };
                let hint = super::build::own_name(of_server);
                self.say(name.span(), message, "a model knows only that name", hint);
            }
        }
    }

    /// Whether it is a text of the file, and so cannot fail.
    fn is_default(&self, name: &str) -> bool {
        let mut models = self.file.models.iter();
        models.any(|(other, model)| other.get_ref() == name && model.kind.get_ref().gives_text())
    }

    /// Whether it is `SERVER.TOOL` of a server of the file.
    fn is_of_server(&self, name: &str) -> bool {
        name.split_once('.').is_some_and(|(server, tool)| {
            self.names.all.get(server) == Some(&What::Server) && !tool.is_empty()
        })
    }

    /// An agent that starts one that starts it would never end.
    fn circles(&mut self) {
        let starts = |name: &str| {
            let agent = self.file.agents.iter().find(|(other, _)| other.get_ref() == name);
            agent.map(|(_, agent)| &agent.agents[..]).unwrap_or_default()
        };
        let mut found = Vec::new();
        for (name, agent) in &self.file.agents {
            for sub in &agent.agents {
                let (mut next, mut seen) = (vec![sub.get_ref()], BTreeSet::new());
                while let Some(other) = next.pop() {
                    if seen.insert(other) {
                        next.extend(starts(other).iter().map(Spanned::get_ref));
                    }
                }
                if seen.contains(name.get_ref()) {
                    found.push((sub, name.get_ref()));
                }
            }
        }
        for (sub, name) in found {
            let message = format!("`{name}` would start itself again and again");
            let hint = "an agent may only start agents that do not lead back to it";
            self.say(sub.span(), message, "leads back", hint);
        }
    }

    /// A member of a group is asked through its group.
    fn alone(&mut self, name: &Spanned<String>) {
        if let Some(group) = self.names.member_of.get(name.get_ref().as_str()) {
            let message = format!("`{}` is a member of the group `{group}`", name.get_ref());
            let hint = format!("write `{group}`, or declare it again under another name");
            self.say(name.span(), message, "asked past its group", hint);
        }
    }
}
