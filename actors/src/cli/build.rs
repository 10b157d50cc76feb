//! From a verified file to a tree.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use mainstay::checkpoint::{Durability, FileStore, Interval, MemoryStore, Store};
use mainstay::error::SpecError;
use mainstay::policy::{Jitter, Policy};
use mainstay::spec::{ChildSpec, Grant, GroupSpec, Role, SupervisorSpec};
use mainstay::watch::WatchSpec;
use mainstay_actors::agent::Agent;
use mainstay_actors::chat::{ChatRequest, ResponseFormat, ToolSpec};
use mainstay_actors::mcp::McpServer;
use mainstay_actors::model::limits::RateLimits;

use super::Failed;
use super::file::{self, Answering, GroupKind, Strategy, TreeFile};
use super::shop::Desk;
use super::snag::{Snag, Snags};
use super::verify;

mod leaves;

/// A file that was read and verified.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) file: TreeFile,
    pub(crate) name: String,
    folder: PathBuf,
    desks: HashMap<PathBuf, Desk>,
    servers: BTreeMap<String, McpServer>,
    limits: HashMap<String, RateLimits>,
    /// Whether the servers have said which tools they have.
    discovered: bool,
}

/// Who may be asked: the groups of agents, and the agents in no group; where there are no agents, the
/// groups of models, and the models in no group.
pub(crate) fn entries(file: &TreeFile) -> Vec<&str> {
    let names = verify::Names::of(file);
    let no_agents = file.agents.is_empty();
    let kind = if no_agents { GroupKind::Model } else { GroupKind::Step };
    let groups = file.groups.iter().filter(|(_, group)| *group.kind.get_ref() == kind);
    let groups = groups.map(|(name, _)| name.get_ref().as_str());
    let singles: Vec<&str> = match no_agents {
        true => file.models.keys().map(|name| name.get_ref().as_str()).collect(),
        false => file.agents.keys().map(|name| name.get_ref().as_str()).collect(),
    };
    groups.chain(singles.into_iter().filter(|name| !names.is_member(name))).collect()
}

/// Who is asked.
pub(crate) fn entry(file: &TreeFile) -> Option<&str> {
    let named = file.entry.as_ref().map(|entry| entry.get_ref().as_str());
    named.or_else(|| entries(file).into_iter().next())
}

impl Tree {
    /// Reads a file.
    ///
    /// # Errors
    /// [`Snags`] for everything that is wrong with it.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("{} cannot be read", path.display()))?;
        let folder = path.parent().map(Path::to_path_buf).unwrap_or_default();
        let snags = |text: String, snags| {
            anyhow::Error::new(Snags { file: path.display().to_string(), text, snags })
        };
        let file = match file::read(&text) {
            Ok(file) => file,
            Err(snag) => return Err(snags(text, vec![snag])),
        };
        let wrong = verify::all(&file, &folder);
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
            discovered: false,
        };
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

    /// What the runtime says about the tree, with the place where we know it.
    fn refused(&self, error: &SpecError) -> Snag {
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

    /// Asks every server for its tools.
    pub(crate) async fn discover(&mut self) -> anyhow::Result<()> {
        for (name, server) in &mut self.servers {
            let found = server.discover().await;
            let found = found.with_context(|| format!("the server `{name}` did not start"))?;
            *server = server.clone().offer(found);
        }
        self.discovered = true;
        Ok(())
    }

    /// What the tree is watched by.
    pub(crate) fn watch(&self) -> WatchSpec {
        let profile = self.file.profile.as_ref().map(|profile| profile.get_ref().watched());
        profile.map_or_else(WatchSpec::new, WatchSpec::profile)
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

    /// The group that is asked although there is a store: what a group accepts is not journaled.
    pub(crate) fn unkept(&self) -> Option<&str> {
        let entry = entry(&self.file).filter(|entry| find(&self.file.groups, entry).is_some());
        entry.filter(|_| self.file.store.is_some())
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
        if let Some(tokens) = ask.max_tokens {
            request = request.max_tokens(tokens);
        }
        if let Some(temperature) = ask.temperature {
            request = request.temperature(temperature);
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
        let spec = self.agent(section)?.spec(id).checkpoint(self.interval());
        let Some(store) = &self.file.store else { return Ok(spec) };
        let durability = store.get_ref().durability.as_ref().map(|it| *it.get_ref());
        Ok(spec.durable::<Agent>().durability(match durability.unwrap_or_default() {
            file::Durability::Sync => Durability::Sync,
            file::Durability::Async => Durability::Async,
            file::Durability::Memory => Durability::Memory,
        }))
    }

    /// How many restarts, in which time.
    pub(crate) fn supervision(&self) -> (u32, Duration) {
        let section = self.file.supervisor.as_ref();
        let period = section.and_then(|section| section.period.as_ref());
        let period = period.map_or(Duration::from_secs(5), |period| period.get_ref().0);
        (section.and_then(|section| section.restarts).unwrap_or(3), period)
    }

    /// When agents are checkpointed.
    pub(crate) fn interval(&self) -> Interval {
        self.file.profile.as_ref().map_or_else(Interval::default, |it| it.get_ref().interval())
    }

    /// The tree itself.
    pub(crate) fn spec(&mut self) -> anyhow::Result<SupervisorSpec> {
        let names: Vec<String> = {
            let names = verify::Names::of(&self.file);
            names
                .all
                .keys()
                .filter(|name| !names.is_member(name))
                .map(|&name| name.to_owned())
                .collect()
        };
        let section = self.file.supervisor.as_ref();
        let mut root = match section.map(|section| section.strategy).unwrap_or_default() {
            Strategy::OneForOne => SupervisorSpec::one_for_one(&self.name),
            Strategy::OneForAll => SupervisorSpec::one_for_all(&self.name),
            Strategy::RestForOne => SupervisorSpec::rest_for_one(&self.name),
        };
        let (restarts, period) = self.supervision();
        root = root.intensity(restarts, period).policy(self.policy());
        if let Some(scope) = self.file.profile.as_ref().and_then(|it| it.get_ref().scope()) {
            root = root.scope(scope);
        }
        let alone = |name: &toml::Spanned<String>| names.contains(name.get_ref());
        for (name, model) in &self.file.models {
            if alone(name) {
                root = root.child(self.model(name.get_ref(), model));
            }
        }
        let tools: Vec<_> = self.file.tools.keys().map(|name| name.get_ref().clone()).collect();
        let mut children = HashMap::new();
        for name in tools {
            if let Some(child) = self.tool_spec(&name)? {
                children.insert(name, child);
            }
        }
        for (name, group) in &self.file.groups {
            if *group.kind.get_ref() != GroupKind::Step {
                root = root.group(self.group_spec(name.get_ref(), group, &children)?);
            }
        }
        for name in self.file.tools.keys() {
            if let (true, Some(child)) = (alone(name), children.get(name.get_ref())) {
                root = root.child(child.clone());
            }
        }
        for (name, server) in &self.servers {
            root = root.supervisor(server.supervisor(name));
        }
        for (name, agent) in &self.file.agents {
            if alone(name) {
                root = root.child(self.agent_spec(name.get_ref(), agent)?);
            }
        }
        for (name, group) in &self.file.groups {
            if *group.kind.get_ref() == GroupKind::Step {
                root = root.group(self.group_spec(name.get_ref(), group, &children)?);
            }
        }
        Ok(root)
    }

    fn model(&self, name: &str, model: &file::Model) -> ChildSpec {
        leaves::model(name, model, self.limits.get(name))
    }

    fn tool_spec(&mut self, name: &str) -> anyhow::Result<Option<ChildSpec>> {
        let Some((_, tool)) = self.file.tools.iter().find(|(id, _)| id.get_ref() == name) else {
            bail!("there is no tool `{name}`");
        };
        let Some(builtin) = &tool.builtin else { return Ok(None) };
        let desk = match &tool.data {
            None => Desk::default(),
            Some(data) => {
                let path = self.folder.join(data.get_ref());
                match self.desks.get(&path) {
                    Some(desk) => desk.clone(),
                    None => {
                        let desk = Desk::read(&path).map_err(anyhow::Error::msg)?;
                        self.desks.insert(path, desk.clone());
                        desk
                    }
                }
            }
        };
        Ok(Some(builtin.get_ref().child(name, &desk)))
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
        };
        for (index, member) in group.members.get_ref().iter().enumerate() {
            let id = member.get_ref();
            let child = match kind {
                GroupKind::Model => find(&self.file.models, id).map(|model| self.model(id, model)),
                GroupKind::Tool => tools.get(id).cloned(),
                GroupKind::Step => {
                    let agent = find(&self.file.agents, id).map(|agent| self.agent_spec(id, agent));
                    let child = agent.transpose()?;
                    child.map(|child| if index > 0 { child.role(Role::Simplified) } else { child })
                }
            };
            spec = spec.member_spec(child.with_context(|| format!("there is no `{id}`"))?);
        }
        for (member, grant) in &group.grants {
            let grant = Grant::new(grant.owner.get_ref(), grant.reason.get_ref());
            spec = spec.grant(member.get_ref(), grant);
        }
        Ok(spec)
    }

    fn agent(&self, section: &file::Agent) -> anyhow::Result<Agent> {
        let mut agent = Agent::new(section.model.get_ref());
        if let Some(system) = &section.system {
            agent = agent.system(system);
        }
        if let Some(steps) = &section.max_steps {
            agent = agent.max_steps(*steps.get_ref());
        }
        if let Some(tokens) = &section.max_tokens {
            agent = agent.max_tokens(*tokens.get_ref());
        }
        if let Some(temperature) = section.temperature {
            agent = agent.temperature(temperature);
        }
        let mut offered: BTreeMap<String, String> = BTreeMap::new();
        for tool in &section.tools {
            let offers = self.offers(tool.get_ref());
            if let (true, true, Some((server, inner))) =
                (self.discovered, offers.is_empty(), tool.get_ref().split_once('.'))
            {
                bail!("the server `{server}` has no tool `{inner}`");
            }
            for (spec, need) in offers {
                if let Some(other) = offered.insert(spec.name.clone(), need.clone()) {
                    bail!(
                        "an agent has two tools called `{}`, from `{other}` and `{need}`; name single tools as `server.tool`",
                        spec.name
                    );
                }
                agent = agent.tool(spec, need);
            }
        }
        Ok(agent)
    }

    /// What a name in an agent's list of tools offers, and under which need.
    fn offers(&self, name: &str) -> Vec<(ToolSpec, String)> {
        let (head, inner) = name.split_once('.').map_or((name, None), |(a, b)| (a, Some(b)));
        if let Some(server) = self.servers.get(head) {
            let wanted = |spec: &ToolSpec| inner.is_none_or(|inner| spec.name == inner);
            let tools = server.tools().into_iter().filter(wanted);
            return tools
                .map(|spec| {
                    let need = format!("{head}/{}", spec.name);
                    (spec, need)
                })
                .collect();
        }
        let first = find(&self.file.groups, name).and_then(|group| group.members.get_ref().first());
        let builtin = find(&self.file.tools, first.map_or(name, |first| first.get_ref()));
        let builtin = builtin.and_then(|tool| tool.builtin.as_ref());
        builtin
            .map(|builtin| (builtin.get_ref().offer(name), name.to_owned()))
            .into_iter()
            .collect()
    }
}

fn find<'a, T>(named: &'a file::Named<T>, name: &str) -> Option<&'a T> {
    named.iter().find(|(id, _)| id.get_ref() == name).map(|(_, value)| value)
}
