//! The servers of a tree, asked for their tools.
//!
//! *Invariant.* A tool has a name of its own: of two that would have the same, none is taken for the other.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use mainstay_actors::mcp::{FoundTool, McpServer};

use super::super::file::tools::Aliases;
use super::super::file::{Group, TreeFile};
use super::{Tree, reach};

/// How long a call waits for a server that was not there when the tree started.
const ABSENT_WAIT: Duration = Duration::from_millis(500);

impl Tree {
    /// Asks every server for its tools. What is returned is to be said: one that does not start is done
    /// without as long as others stand in for all of its tools, and is tried again while the tree runs.
    pub(crate) async fn discover(&mut self) -> anyhow::Result<Vec<String>> {
        let mut notes = Vec::new();
        let mut down = BTreeMap::new();
        for (name, server) in &mut self.servers {
            let failed = format!("the server `{name}` did not start");
            match server.discover_and_keep().await {
                Ok(mut found) => {
                    if let Some(tool) = missing(server, &found) {
                        anyhow::bail!(
                            "the server `{name}` has no tool `{tool}`, of which `effects` says what it does"
                        );
                    }
                    notes.extend(named(name, &mut found, &mut self.aliases));
                    *server = server.clone().offer(found);
                }
                Err(fault) if is_dispensable(&self.file, name) => {
                    notes.push(format!("{failed}, and others stand in for it: {fault}"));
                    *server = server.clone().connect_wait(ABSENT_WAIT);
                    self.absent.insert(name.clone());
                    down.insert(name.clone(), fault);
                }
                Err(fault) => return Err(anyhow::Error::new(fault).context(failed)),
            }
        }
        self.discovered = true;
        let is_down = |member: &toml::Spanned<String>| {
            let server = member.get_ref().split_once('.').map(|(server, _)| server);
            server.and_then(|server| down.get_key_value(server))
        };
        for (group, spec) in &self.file.groups {
            // Each was dispensable for the sake of the others.
            let members = spec.members.get_ref();
            if let Some((server, fault)) = members.first().and_then(is_down)
                && members.iter().all(|member| is_down(member).is_some())
            {
                let group = group.get_ref();
                return Err(anyhow::Error::new(fault.clone()).context(format!(
                    "the server `{server}` did not start, and nobody else of the group `{group}` is there"
                )));
            }
        }
        for (group, spec) in &self.file.groups {
            for member in spec.members.get_ref() {
                let Some((server, tool)) = member.get_ref().split_once('.') else { continue };
                let known = |there: &McpServer| there.tools().iter().any(|it| it.name == tool);
                if !self.absent.contains(server) && !self.servers.get(server).is_some_and(known) {
                    let group = group.get_ref();
                    let tool = self.own(server, tool);
                    anyhow::bail!(
                        "the server `{server}` has no tool `{tool}`, a member of the group `{group}`"
                    );
                }
            }
        }
        for name in self.asked_by_others().map(toml::Spanned::get_ref) {
            let Some((server, tool)) = name.split_once('.') else { continue };
            let known = |there: &McpServer| there.tools().iter().any(|it| it.name == tool);
            if !self.absent.contains(server) && !self.servers.get(server).is_some_and(known) {
                let tool = self.own(server, tool);
                anyhow::bail!(
                    "the server `{server}` has no tool `{tool}`, which another one is undone or asked about by"
                );
            }
        }
        Ok(notes)
    }

    /// The servers of the file.
    pub(crate) fn servers(&self) -> impl Iterator<Item = &str> {
        self.servers.keys().map(String::as_str)
    }

    /// The tools whose names cannot stand in a path, by the names that they have here, with the servers'.
    pub(crate) fn aliases(&self) -> impl Iterator<Item = (&str, &str)> {
        self.aliases.iter().map(|(here, own)| (here.as_str(), own.as_str()))
    }

    /// A tool as its server calls it.
    pub(super) fn own<'a>(&'a self, server: &str, tool: &'a str) -> &'a str {
        self.aliases.get(&format!("{server}.{tool}")).map_or(tool, |own| own)
    }
}

/// A tool that the file says something of, and the server does not have.
fn missing(server: &McpServer, found: &[FoundTool]) -> Option<String> {
    let is = |own: &str, name: &str| own == name || McpServer::tool_id(own) == name;
    let has = |name: &str| found.iter().any(|tool| is(&tool.spec.name, name));
    server.tools().into_iter().map(|tool| tool.name).find(|name| !has(name))
}

/// Gives the tools of a server the names that they have here, and says which are left out.
fn named(server: &str, found: &mut Vec<FoundTool>, aliases: &mut Aliases) -> Vec<String> {
    let mut takers: HashMap<String, Vec<String>> = HashMap::new();
    for tool in &*found {
        let own = &tool.spec.name;
        let takers = takers.entry(McpServer::tool_id(own).into_owned()).or_default();
        if !takers.contains(own) {
            takers.push(own.clone());
        }
    }
    let mut notes = Vec::new();
    found.retain_mut(|tool| {
        let own = tool.spec.name.clone();
        let id = McpServer::tool_id(&own).into_owned();
        if id == own {
            return true;
        }
        if let Some(other) = takers.get(&id).and_then(|all| all.iter().find(|it| **it != own)) {
            notes.push(format!(
                "the server `{server}` has a tool {own:?}, which is left out: it would be called `{id}` here, and so would its tool {other:?}"
            ));
            return false;
        }
        tool.spec.name.clone_from(&id);
        aliases.insert(format!("{server}.{id}"), own);
        true
    });
    notes
}

/// Whether somebody else can do all that a server is asked for.
fn is_dispensable(file: &TreeFile, server: &str) -> bool {
    let is_its = |name: &toml::Spanned<String>| {
        name.get_ref().split_once('.').map_or(name.get_ref().as_str(), |(head, _)| head) == server
    };
    let is_called = file.agents.values().any(|agent| agent.tools.iter().any(is_its));
    let stands_alone = |group: &Group| group.members.get_ref().iter().all(is_its);
    // What undoes must be there when it is needed.
    let others = file
        .tools
        .iter()
        .any(|(name, tool)| name.get_ref() != server && reach::asked_of(tool).any(is_its))
        || file.groups.values().any(|group| reach::asked_of_group(group).any(is_its));
    !is_called && !others && !file.groups.values().any(stands_alone)
}
