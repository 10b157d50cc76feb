//! Agents, and what each of them may call.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use mainstay_actors::agent::{Agent, TaskBudget, Team};
use mainstay_actors::chat::ToolSpec;
use mainstay_actors::mcp::McpServer;
use serde_json::json;

use super::super::file;
use super::{TASKS, Tree, find};

/// A budget as the runtime knows it.
pub(crate) fn spend(section: &file::Budget) -> TaskBudget {
    let mut budget = TaskBudget::new();
    if let Some(tokens) = &section.tokens {
        budget = budget.tokens(*tokens.get_ref());
    }
    if let Some(micros) = section.money.as_ref().and_then(|money| file::micros(*money.get_ref())) {
        budget = budget.money_micros(micros);
    }
    if let Some(time) = section.time {
        budget = budget.time(time.0);
    }
    budget
}

/// How a tool is told from another one of the same name.
pub(crate) fn own_name(tool: &str) -> String {
    format!(
        "to have both, give one a name of its own: [groups.NAME] with `kind = \"tool\"` and `members = [\"{tool}\"]`, and `NAME` in the agent's `tools`"
    )
}

impl Tree {
    pub(super) fn agent(&self, id: &str, section: &file::Agent) -> anyhow::Result<Agent> {
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
        if let Some(temperature) = &section.temperature {
            agent = agent.temperature(*temperature.get_ref());
        }
        // One who plays a model knows no agent's schema; what does not fit is injected.
        if let (Some(path), None) = (&section.answer_schema, &self.stage) {
            let text = std::fs::read_to_string(self.folder.join(path.get_ref()));
            agent = agent.answer_schema(serde_json::from_str(&text.context("the schema")?)?);
        }
        if let Some(budget) = &section.budget {
            agent = agent.budget(spend(budget.get_ref()));
        }
        let mut offered: BTreeMap<String, String> = BTreeMap::new();
        let tools = section.tools.iter().map(|tool| (tool.get_ref(), self.offers(tool.get_ref())));
        let agents = section.agents.iter().map(|sub| (sub.get_ref(), self.hires(sub.get_ref())));
        for (name, offers) in tools.chain(agents) {
            if let (true, true, Some((server, inner))) =
                (self.discovered, offers.is_empty(), name.split_once('.'))
            {
                bail!("the server `{server}` has no tool `{}`", self.own(server, inner));
            }
            for (spec, need) in offers {
                if let Some(other) = offered.insert(spec.name.clone(), need.clone()) {
                    let full = need.replacen('/', ".", 1);
                    bail!(
                        "the agent `{id}` has two tools called `{}`, from `{other}` and `{need}`: name those it needs singly, as `server.tool`; {}",
                        spec.name,
                        own_name(&full)
                    );
                }
                agent = agent.tool(spec, self.reach(name, need));
            }
        }
        Ok(agent)
    }

    /// What an agent is told about one that it can give tasks to.
    fn hires(&self, name: &str) -> Vec<(ToolSpec, String)> {
        let section = find(&self.file.agents, name);
        let described = section.and_then(|section| section.description.as_ref());
        let described = described.map_or("Works on a task.", |text| text.get_ref());
        vec![(Team::offer(name, described), format!("{name}/{TASKS}"))]
    }

    /// What a name in an agent's list of tools offers, and under which need.
    fn offers(&self, name: &str) -> Vec<(ToolSpec, String)> {
        let (head, inner) = name.split_once('.').map_or((name, None), |(a, b)| (a, Some(b)));
        if let (Some(_), Some(_)) = (&self.stage, self.servers.get(head)) {
            let tools = self.named_of(head).into_keys();
            let wanted = tools.filter(|tool| inner.is_none_or(|inner| tool == inner));
            return wanted.map(|tool| (ToolSpec::new(&tool), format!("{head}/{tool}"))).collect();
        }
        if let Some(server) = self.servers.get(head) {
            let wanted = |spec: &ToolSpec| inner.is_none_or(|inner| spec.name == inner);
            let tools = server.tools().into_iter().filter(wanted);
            return tools
                .map(|spec| {
                    let need = format!("{head}/{}", McpServer::tool_id(&spec.name));
                    (spec, need)
                })
                .collect();
        }
        let members = find(&self.file.groups, name).map(|group| group.members.get_ref());
        // A server that is not there has told nothing of its tools.
        let is_there = |member: &&toml::Spanned<String>| {
            let server = member.get_ref().split_once('.').map(|(server, _)| server);
            server.is_none_or(|server| !self.absent.contains(server))
        };
        let first = members.and_then(|members| members.iter().find(is_there));
        self.offer(first.map_or(name, |first| first.get_ref()), name)
            .map(|spec| (spec, name.to_owned()))
            .into_iter()
            .collect()
    }

    /// What a model is told about a tool, a person, or a tool of a server, under this name.
    fn offer(&self, tool: &str, name: &str) -> Option<ToolSpec> {
        if let Some((server, inner)) = tool.split_once('.') {
            let tools = self.servers.get(server)?.tools();
            let mut spec = tools
                .into_iter()
                .find(|spec| spec.name == inner)
                .unwrap_or_else(|| ToolSpec::new(inner));
            name.clone_into(&mut spec.name);
            return Some(spec);
        }
        if self.people.contains_key(tool) {
            let request =
                json!({"type": "string", "description": "what is wanted, with all it needs"});
            return Some(ToolSpec::new(name).description("Asks a person.").parameters(json!({
                "type": "object", "properties": {"request": request}, "required": ["request"],
            })));
        }
        let builtin = find(&self.file.tools, tool)?.builtin.as_ref()?;
        Some(builtin.get_ref().offer(name))
    }
}
