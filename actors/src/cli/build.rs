//! From a verified file to a tree.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use mainstay::checkpoint::{FileStore, Interval, MemoryStore, Scope, Store};
use mainstay::error::SpecError;
use mainstay::fault::EffectKind;
use mainstay::policy::{Jitter, Policy};
use mainstay::spec::{AllDown, ChildSpec, Grant, GroupSpec, Role, SupervisorSpec};
use mainstay::system::System;
use mainstay::watch::WatchSpec;
use mainstay_actors::agent::{Agent, LINES, Team};
use mainstay_actors::chat::{ChatRequest, ResponseFormat};
use mainstay_actors::local::LocalModel;
use mainstay_actors::mcp::McpServer;
use mainstay_actors::model::limits::RateLimits;

use super::Failed;
use super::file::tools::Aliases;
use super::file::{self, Answering, GroupKind, Strategy, TreeFile};
use super::people::{Place, Someone};
use super::points;
use super::shop::Desk;
use super::snag::{Snag, Snags};
use super::verify;
pub(crate) use asked::{entries, entry, keeps, kept_group, kept_model};
pub(crate) use offers::own_name;
use read::parse;
pub(crate) use read::store_folder;
use stage::Stage;

pub(crate) mod answers;
mod asked;
mod found;
pub(crate) mod leaves;
mod offers;
pub(crate) mod reach;
mod read;
pub(crate) mod stage;
#[cfg(test)]
mod tests;

/// After which time such a server is tried again.
const ABSENT_AGAIN: Duration = Duration::from_secs(2);
/// Below the supervisor of a sub-agent: the tool that takes its tasks.
const TASKS: &str = "tasks";
/// Below the supervisor of a sub-agent: where one is started for each task.
const WORK: &str = "work";

/// A file that was read and verified.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) file: TreeFile,
    pub(crate) name: String,
    folder: PathBuf,
    desks: HashMap<PathBuf, Desk>,
    servers: BTreeMap<String, McpServer>,
    limits: HashMap<String, RateLimits>,
    people: BTreeMap<String, Someone>,
    /// The servers that did not start.
    absent: BTreeSet<String>,
    /// The sub-agents of the tree that was made last.
    teams: BTreeMap<String, Team>,
    /// Whether the servers have said which tools they have.
    discovered: bool,
    /// Who plays the models and tools, where the tree is only tried.
    stage: Option<Stage>,
    /// The tools of servers whose names cannot stand in a path, by the names that they have here.
    aliases: Aliases,
    /// Where it was read, and the text, for what is to be said of a place in it.
    source: (String, String),
}

impl Tree {
    /// Reads a file.
    ///
    /// # Errors
    /// [`Snags`] for everything that is wrong with it.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let (mut file, folder, text) = parse(path)?;
        let (aliases, mut wrong) = file::tools::rename(&mut file);
        let snags = |text: String, snags| {
            anyhow::Error::new(Snags { file: path.display().to_string(), text, snags })
        };
        wrong.extend(verify::all(&file, &folder));
        if !wrong.is_empty() {
            return Err(snags(text, wrong));
        }
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        let name = file.name.as_ref().map(|name| name.get_ref().clone()).or(stem);
        let mut tree = Self {
            file,
            name: name.unwrap_or_else(|| "tree".to_owned()),
            folder,
            desks: HashMap::new(),
            servers: BTreeMap::new(),
            limits: HashMap::new(),
            people: BTreeMap::new(),
            absent: BTreeSet::new(),
            teams: BTreeMap::new(),
            discovered: false,
            stage: None,
            aliases,
            source: (path.display().to_string(), text.clone()),
        };
        tree.set_people();
        tree.limits = leaves::limits(&tree.file.models);
        for (name, tool) in &tree.file.tools {
            if let Some(server) = leaves::server(tool, &tree.folder) {
                tree.servers.insert(name.get_ref().clone(), server);
            }
        }
        // What is left are combinations that only the runtime knows.
        if let Err(error) = tree.spec()?.validate() {
            let snag = tree.refused(&error);
            return Err(snags(text, vec![snag]));
        }
        Ok(tree)
    }

    /// What is strange about the file, and wrong for nobody; `None` where nothing is.
    ///
    /// # Errors
    /// [`Snags`] where the store cannot be written here and now.
    pub(crate) fn look_closer(&self) -> Result<Option<Snags>, Snags> {
        let (file, text) = self.source.clone();
        let snags = |snags| Snags { file, text, snags };
        if let Some(wrong) = verify::notes::store(&self.file, &self.folder) {
            return Err(snags(vec![wrong]));
        }
        let strange = verify::notes::all(&self.file, &self.folder);
        Ok((!strange.is_empty()).then(|| snags(strange)))
    }

    /// What the runtime says about the tree, with the place where we know it.
    fn refused(&self, error: &SpecError) -> Snag {
        if let SpecError::BadCombination { path, one, .. } = error
            && let Some((group, member)) = path.rsplit('/').nth(1).zip(path.rsplit('/').next())
            && let Some(section) = find(&self.file.groups, group).filter(|it| it.hedge.is_some())
        {
            let mut members = section.members.get_ref().iter();
            let hint = match member.split_once('.') {
                Some((server, tool)) => format!(
                    "if it may be asked twice, say so: [tools.{server}.effects] with `{tool} = \"read\"`; or remove the hedge"
                ),
                None => "remove it from the group, or remove the hedge".to_owned(),
            };
            return Snag::new(
                members.find(|name| name.get_ref() == member).map(toml::Spanned::span),
                format!("`{member}` cannot be hedged: it has {one}"),
                "two would work at a time",
                hint,
            );
        }
        if let SpecError::Downgrade { path, member, primary, what } = error {
            let group = path.rsplit('/').next().unwrap_or(path);
            let place = find(&self.file.groups, group).and_then(|group| {
                group.members.get_ref().iter().find(|name| name.get_ref() == member)
            });
            return Snag::new(
                place.map(toml::Spanned::span),
                format!("`{member}` may not stand in for `{primary}`: {what}"),
                "weaker than the first member",
                format!(
                    "remove it, or answer for it: [groups.{group}.grants.{member}] with `owner` and `reason`"
                ),
            );
        }
        let hint = "the runtime refuses this tree; its semantics say why";
        Snag::new(None, error.to_string(), "", hint)
    }

    /// Has its models and tools be played from now on; texts and people stay who they are.
    pub(crate) fn play(&mut self, stage: Stage) {
        self.stage = Some(stage);
    }

    /// What the tree is watched by.
    pub(crate) fn watch(&self) -> WatchSpec {
        super::watch::spec(&self.file)
    }

    /// The policy of the whole tree.
    pub(crate) fn policy(&self) -> Policy {
        let profile = self.file.profile.as_ref().map(|profile| profile.get_ref().policy());
        let mut policy = profile.unwrap_or_default();
        let Some(section) = &self.file.policy else { return policy };
        for (class, cap) in &section.retries {
            policy = policy.with_cap(*class.get_ref(), *cap);
        }
        if let Some(most) = &section.max_retries {
            policy = policy.with_global_cap(*most.get_ref());
            // A lower limit for all is meant for each.
            for class in mainstay::fault::Class::ALL {
                let cap = policy.rule(class).cap;
                policy = policy.with_cap(class, cap.min(*most.get_ref()));
            }
        }
        if let Some(timeout) = &section.attempt_timeout {
            policy = policy.with_attempt_timeout(timeout.get_ref().0);
        }
        if let Some(delay) = &section.max_delay {
            policy = policy.with_max_delay(delay.get_ref().0);
        }
        if let Some(percent) = &section.jitter_percent {
            policy = policy.with_jitter(match *percent.get_ref() {
                0 => Jitter::None,
                percent => Jitter::Ratio { percent },
            });
        }
        policy
    }

    /// The path of whoever is asked.
    pub(crate) fn entry(&self) -> String {
        let entry = entry(&self.file).unwrap_or_default();
        format!("{}/{entry}", self.name)
    }

    /// Whether who is asked is a model, and not an agent.
    pub(crate) fn asks_model(&self) -> bool {
        let names = verify::Names::of(&self.file);
        entry(&self.file).is_some_and(|entry| names.is_asked_as_model(entry))
    }

    /// A request as [ask] says, still without a word.
    ///
    /// # Errors
    /// The schema's file has gone.
    pub(crate) fn question(&self) -> anyhow::Result<ChatRequest> {
        let mut request = ChatRequest::default();
        let Some(ask) = self.file.ask.as_ref().map(toml::Spanned::get_ref) else {
            return Ok(request);
        };
        if let Some(system) = &ask.system {
            request = request.system(system);
        }
        if let Some(tokens) = &ask.max_tokens {
            request = request.max_tokens(*tokens.get_ref());
        }
        if let Some(temperature) = &ask.temperature {
            request = request.temperature(*temperature.get_ref());
        }
        match ask.response_format.as_ref().map(|format| *format.get_ref()).unwrap_or_default() {
            Answering::Text => {}
            Answering::Json => request = request.response_format(ResponseFormat::Json),
            Answering::Schema => {
                let path = ask.schema.as_ref().map(|path| self.folder.join(path.get_ref()));
                let text =
                    std::fs::read_to_string(path.unwrap_or_default()).context("the schema")?;
                request = request.json_schema("answer", serde_json::from_str(&text)?);
            }
        }
        Ok(request)
    }

    /// Where state is kept; `None` without a store.
    ///
    /// # Errors
    /// The folder cannot be used, or another process has it.
    pub(crate) fn store(&self) -> anyhow::Result<Option<Arc<dyn Store>>> {
        let Some(section) = self.file.store.as_ref().map(toml::Spanned::get_ref) else {
            return Ok(None);
        };
        let Some(path) = &section.path else { return Ok(Some(Arc::new(MemoryStore::new()))) };
        let store = FileStore::open(self.folder.join(path.get_ref()));
        // Nothing is wrong with the file: at another time it is answered.
        Ok(Some(Arc::new(store.map_err(|error| Failed(error.to_string()))?)))
    }

    /// An agent as a child: with a store, a durable one.
    fn agent_spec(&self, id: &str, section: &file::Agent) -> anyhow::Result<ChildSpec> {
        let spec = self.agent(id, section)?.spec(id).checkpoint(self.interval_of(section));
        if self.file.store.is_none() {
            return Ok(spec);
        }
        let spec = spec.durable::<Agent>().durability(self.durability());
        Ok(spec.process_deaths(self.process_deaths()))
    }

    /// How many restarts, in which time.
    pub(crate) fn supervision(&self) -> (u32, Duration) {
        let section = self.file.supervisor.as_ref();
        let period = section.and_then(|section| section.period.as_ref());
        let period = period.map_or(Duration::from_secs(5), |period| period.get_ref().0);
        (section.and_then(|section| section.restarts).unwrap_or(3), period)
    }

    /// When agents are checkpointed: as the profile says, and else after every step.
    pub(crate) fn interval(&self) -> Interval {
        let profile = self.file.profile.as_ref();
        profile.map_or(Interval::Steps(1), |profile| profile.get_ref().interval())
    }

    /// When this agent is checkpointed.
    pub(crate) fn interval_of(&self, section: &file::Agent) -> Interval {
        let Some(own) = section.checkpoint.as_ref().map(|own| own.get_ref()) else {
            return self.interval();
        };
        match (own.steps, own.lines) {
            (Some(steps), _) => Interval::Steps(steps.get()),
            (_, Some(lines)) => Interval::Units { name: LINES.into(), n: lines.get() },
            _ => Interval::EveryEffect,
        }
    }

    /// The scope of the whole tree: as the file says, and else as the profile does.
    pub(crate) fn scope(&self) -> Option<Scope> {
        let own = self.file.supervisor.as_ref().and_then(|section| section.scope.as_ref());
        let profile = self.file.profile.as_ref();
        own.map(|own| *own.get_ref()).or_else(|| profile.and_then(|it| it.get_ref().scope()))
    }

    /// How often a recovery line is drawn.
    pub(crate) fn lines_every(&self) -> Option<Duration> {
        let section = self.file.supervisor.as_ref();
        section.and_then(|section| section.lines_every.as_ref()).map(|every| every.get_ref().0)
    }

    /// The tree itself.
    pub(crate) fn spec(&mut self) -> anyhow::Result<SupervisorSpec> {
        let children = self.tool_specs()?;
        self.teams = self.sub_agents()?;
        let names = verify::Names::of(&self.file);
        let alone = |name: &toml::Spanned<String>| {
            !names.is_member(name.get_ref()) && !names.is_sub_agent(name.get_ref())
        };
        let section = self.file.supervisor.as_ref();
        let mut root = match section.map(|section| section.strategy).unwrap_or_default() {
            Strategy::OneForOne => SupervisorSpec::one_for_one(&self.name),
            Strategy::OneForAll => SupervisorSpec::one_for_all(&self.name),
            Strategy::RestForOne => SupervisorSpec::rest_for_one(&self.name),
        };
        let (restarts, period) = self.supervision();
        root = root.intensity(restarts, period).policy(self.policy());
        if let Some(scope) = self.scope() {
            root = root.scope(scope);
        }
        if let Some(period) = self.lines_every() {
            root = root.lines_every(period);
        }
        for (name, model) in self.file.models.iter().filter(|(name, _)| alone(name)) {
            let mut child = self.patient(self.model(name.get_ref(), model));
            if kept_model(&self.file) == Some(name.get_ref()) {
                child = child
                    .durable::<LocalModel>()
                    .durability(self.durability())
                    .process_deaths(self.process_deaths());
            }
            root = root.child(child);
        }
        // Before the groups of their tools: what is in hand there ends before the servers do.
        for (name, server) in &self.servers {
            if self.stage.is_some() {
                root = root.supervisor(self.played(name));
            } else if !self.absent.contains(name) {
                root = root.supervisor(server.supervisor(name));
            }
        }
        for (name, group) in &self.file.groups {
            if *group.kind.get_ref() != GroupKind::Step {
                root = root.group(self.group_spec(name.get_ref(), group, &children)?);
            }
        }
        for name in self.file.tools.keys().filter(|name| alone(name)) {
            if let Some(child) = children.get(name.get_ref()) {
                root = root.child(self.patient(child.clone()));
            }
        }
        for name in self.file.people.keys().filter(|name| alone(name)) {
            if let Some(someone) = self.people.get(name.get_ref()) {
                root = root.child(someone.spec());
            }
        }
        for (name, team) in &self.teams {
            let own = SupervisorSpec::one_for_one(name).child(team.spec(TASKS));
            root = root.supervisor(own.supervisor(SupervisorSpec::dynamic(WORK)));
        }
        for (name, agent) in self.file.agents.iter().filter(|(name, _)| alone(name)) {
            root = root.child(self.agent_spec(name.get_ref(), agent)?);
        }
        for (name, group) in &self.file.groups {
            if *group.kind.get_ref() == GroupKind::Step {
                root = root.group(self.group_spec(name.get_ref(), group, &children)?);
            }
        }
        Ok(root)
    }

    /// Whether a group ends with a text of the file, which cannot fail.
    pub(crate) fn ends_with_text(&self, group: &file::Group) -> bool {
        let last = group.members.get_ref().last();
        let model = last.and_then(|last| find(&self.file.models, last.get_ref()));
        model.is_some_and(|model| model.kind.get_ref().gives_text())
    }

    /// The tools that can fail, with what they do to the world: the built-in ones, and those of servers
    /// that are named.
    pub(crate) fn tool_effects(&self) -> BTreeMap<String, EffectKind> {
        let mut effects = BTreeMap::new();
        for (name, tool) in &self.file.tools {
            let builtin = tool.builtin.as_ref().map(|it| it.get_ref().effect());
            if let (Some(effect), None) = (builtin, &tool.text) {
                effects.insert(name.get_ref().clone(), effect);
            }
            for (inner, act) in &tool.effects {
                effects.insert(format!("{}.{}", name.get_ref(), inner.get_ref()), act.kind);
            }
        }
        let listed = self.file.agents.values().flat_map(|agent| &agent.tools);
        let members = self.file.groups.values().flat_map(|group| group.members.get_ref());
        let listed = listed.chain(self.asked_by_others());
        for name in listed.chain(members).map(toml::Spanned::get_ref) {
            if name.contains('.') {
                effects.entry(name.clone()).or_insert(EffectKind::Irreversible);
            }
        }
        effects
    }

    /// Lets the agents of a tree that was started have their sub-agents, and servers come that were not
    /// there.
    pub(crate) fn attach(&self, system: &System) {
        for name in &self.absent {
            let Some(server) = self.servers.get(name) else { continue };
            let (system, connection) = (system.clone(), server.connection(name));
            let root = self.name.clone();
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(ABSENT_AGAIN).await;
                    let Ok(root) = system.supervisor(root.as_str()) else { return };
                    if root.start_child(connection.clone()).await.is_ok() {
                        return;
                    }
                }
            });
        }
        for (name, team) in &self.teams {
            team.attach(system, format!("{}/{name}/{WORK}", self.name));
        }
    }

    /// Who may be asked to decide.
    pub(crate) fn people(&self) -> Vec<Someone> {
        self.people.values().cloned().collect()
    }

    /// Has nobody be waited for, since nobody is there who could decide, and says `why` where a person has no text for
    /// that: what the file has done otherwise is done at once.
    pub(crate) fn wait_for_nobody(&mut self, why: &str) {
        for person in self.file.people.values_mut() {
            person.text.get_or_insert_with(|| toml::Spanned::new(0..0, why.to_owned()));
            let at = person.expiry.as_ref().map_or(0..0, toml::Spanned::span);
            person.expiry = Some(toml::Spanned::new(at, file::Span(points::NOBODY)));
        }
        if let Some(points) = &mut self.file.points {
            points.get_mut().wait_for_nobody();
        }
        self.set_people();
    }

    fn set_people(&mut self) {
        let names = verify::Names::of(&self.file);
        let someone = |(name, person): (&toml::Spanned<String>, &file::Person)| {
            let place = match names.group_of(name.get_ref()) {
                Some(GroupKind::Model | GroupKind::Output) => Place::Model,
                Some(GroupKind::Step) => Place::Agent,
                Some(GroupKind::Tool | GroupKind::Data) | None => Place::Tool,
            };
            (name.get_ref().clone(), Someone::new(name.get_ref(), person, place))
        };
        self.people = self.file.people.iter().map(someone).collect();
    }

    fn sub_agents(&self) -> anyhow::Result<BTreeMap<String, Team>> {
        let names = verify::Names::of(&self.file);
        let agents = self.file.agents.iter();
        let of = agents.filter(|(name, _)| names.is_sub_agent(name.get_ref()));
        let team = |(name, agent): (&toml::Spanned<String>, &file::Agent)| {
            let name = name.get_ref();
            Ok((name.clone(), Team::new(self.agent(name, agent)?)))
        };
        of.map(team).collect()
    }

    /// A child whose requests have the time to wait for people.
    fn patient(&self, child: ChildSpec) -> ChildSpec {
        points::patience(&self.file).into_iter().fold(child, ChildSpec::deadline)
    }

    fn model(&self, name: &str, model: &file::Model) -> ChildSpec {
        let leads = |group: &file::Group| {
            group.members.get_ref().first().is_some_and(|first| first.get_ref() == name)
        };
        let leads = self.file.groups.values().any(leads);
        leaves::model(name, model, leads, self.limits.get(name), self.stage.as_ref())
    }

    /// The tools that need no server, as children.
    fn tool_specs(&mut self) -> anyhow::Result<HashMap<String, ChildSpec>> {
        let mut children = HashMap::new();
        for (name, tool) in &self.file.tools {
            let Some(builtin) = tool.builtin.as_ref().map(|it| *it.get_ref()) else { continue };
            let id = name.get_ref();
            let child = if let Some(text) = &tool.text {
                answers::instead_of_a_tool(id, text.get_ref())
            } else if let Some(stage) = &self.stage {
                stage.tool(id, builtin.effect())
            } else if let Some(documents) = &tool.documents {
                let path = self.folder.join(documents.get_ref());
                let documents = answers::documents(&path).map_err(anyhow::Error::msg)?;
                answers::search(id, builtin, &documents)?
            } else {
                let desk = match &tool.data {
                    None => Desk::default(),
                    Some(data) => {
                        let path = self.folder.join(data.get_ref());
                        let read = || Desk::read(&path).map_err(anyhow::Error::msg);
                        let known = self.desks.get(&path).cloned();
                        let desk = known.map_or_else(read, Ok)?;
                        self.desks.insert(path, desk.clone());
                        desk
                    }
                };
                let child = builtin.over_orders(id, &desk);
                child.with_context(|| format!("the tool `{id}` has no text and no documents"))?
            };
            children.insert(id.clone(), child);
        }
        Ok(children)
    }

    fn group_spec(
        &self,
        name: &str,
        group: &file::Group,
        tools: &HashMap<String, ChildSpec>,
    ) -> anyhow::Result<GroupSpec> {
        let kind = *group.kind.get_ref();
        let mut spec = match kind {
            GroupKind::Model => GroupSpec::model(name),
            GroupKind::Tool => GroupSpec::tool(name),
            GroupKind::Step => GroupSpec::step(name),
            GroupKind::Data => GroupSpec::data(name),
            GroupKind::Output => GroupSpec::output(name),
        };
        for (index, member) in group.members.get_ref().iter().enumerate() {
            let id = member.get_ref();
            let child = match self.people.get(id) {
                Some(someone) => Some(someone.spec()),
                None if kind.is_of_models() => {
                    find(&self.file.models, id).map(|model| self.model(id, model))
                }
                None if kind.is_of_tools() => tools.get(id).cloned().or_else(|| self.served(id)),
                None => self.flow(id, index)?,
            };
            spec = spec.member_spec(child.with_context(|| format!("there is no `{id}`"))?);
        }
        for (member, grant) in &group.grants {
            let grant = Grant::new(grant.owner.get_ref(), grant.reason.get_ref());
            spec = spec.grant(member.get_ref(), grant);
        }
        if let Some(patience) = points::patience(&self.file) {
            spec = spec.deadline(patience);
        }
        if let Some(hedge) = &group.hedge {
            spec = spec.hedge(hedge.get_ref().after.0);
        }
        if let Some(all_down) = &group.all_down {
            spec = spec.all_down(match all_down.get_ref() {
                file::AllDown::LastResort => AllDown::LastResort,
                file::AllDown::WaitUntil => AllDown::WaitUntil,
                file::AllDown::Fail => AllDown::Fail,
            });
        }
        if !keeps(&self.file, name) {
            return Ok(spec);
        }
        // Who is asked takes what agents take, or what models take: nobody asks a tool.
        spec = if kind == GroupKind::Step {
            spec.durable::<Agent>()
        } else {
            spec.durable::<LocalModel>()
        };
        Ok(spec.durability(self.durability()).process_deaths(self.process_deaths()))
    }

    /// `SERVER.TOOL` as a member of a group, beside the connection of its server.
    fn served(&self, name: &str) -> Option<ChildSpec> {
        let (server, tool) = name.split_once('.')?;
        if let Some(stage) = &self.stage {
            return Some(stage.tool(name, *self.tool_effects().get(name)?));
        }
        Some(self.servers.get(server)?.tool_named(tool).spec(name))
    }

    /// The tools of a server that the file names, with what they do to the world.
    fn named_of(&self, server: &str) -> BTreeMap<String, EffectKind> {
        let named = self.tool_effects().into_iter();
        let its = named.filter_map(|(name, effect)| {
            let (its, inner) = name.split_once('.')?;
            (its == server).then(|| (inner.to_owned(), effect))
        });
        its.collect()
    }

    /// A server whose tools are played: those that the file names.
    fn played(&self, name: &str) -> SupervisorSpec {
        let tools = self.named_of(name);
        let players = self
            .stage
            .iter()
            .flat_map(|stage| tools.iter().map(|(inner, effect)| stage.tool(inner, *effect)));
        players.fold(SupervisorSpec::one_for_one(name), SupervisorSpec::child)
    }

    /// A member of a group of steps: an agent, or a text that is always the same.
    fn flow(&self, id: &str, index: usize) -> anyhow::Result<Option<ChildSpec>> {
        if let Some(model) = find(&self.file.models, id) {
            let text = model.text.as_ref().map(|text| text.get_ref().as_str());
            return answers::instead_of_an_agent(id, text.unwrap_or_default()).map(Some);
        }
        let Some(agent) = find(&self.file.agents, id) else { return Ok(None) };
        let child = self.agent_spec(id, agent)?;
        Ok(Some(if index > 0 { child.role(Role::Simplified) } else { child }))
    }
}

/// What stands under a name.
pub(super) fn find<'a, T>(named: &'a file::Named<T>, name: &str) -> Option<&'a T> {
    named.iter().find(|(id, _)| id.get_ref() == name).map(|(_, value)| value)
}
