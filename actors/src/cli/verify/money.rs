//! A budget of money bounds what is paid only where all that may be paid for has a price.

use std::collections::BTreeSet;

use toml::Spanned;

use super::super::build::find;
use super::super::file::{Agent, Model, TreeFile};
use super::Verify;

impl Verify<'_> {
    /// Every endpoint that the agent may ask, or have asked, has to say what it costs: a model without a price
    /// would be asked as if it were free.
    pub(super) fn money(&mut self, money: &Spanned<f64>, agent: &Agent) {
        let paid = paid(self.file, agent);
        if paid.is_empty() && self.names.is_asked_as_model(agent.model.get_ref()) {
            let hint = "remove it, or have a model of a provider asked, with a `price_per_million`";
            let message = "a budget of money where nothing is paid for";
            self.say(money.span(), message, "nothing is ever counted", hint);
        }
        for (name, _) in paid.iter().filter(|(_, model)| model.price_per_million.is_none()) {
            let message = format!("a budget of money, and `{}` has no price", name.get_ref());
            let hint = format!(
                "add `price_per_million = {{ input = 2.5, output = 10.0 }}` to [models.{}], with 0 for what is free",
                name.get_ref()
            );
            self.say(money.span(), message, "what it costs is never counted", hint);
        }
    }
}

/// The endpoints that a task of this agent may have to pay for, by itself or by the agents that it starts, in
/// the order in which they are met. Tools and people cost nothing.
fn paid<'f>(file: &'f TreeFile, agent: &'f Agent) -> Vec<(&'f Spanned<String>, &'f Model)> {
    let (mut agents, mut seen) = (vec![agent], BTreeSet::new());
    let mut paid = Vec::new();
    while let Some(agent) = agents.pop() {
        let asked = agent.model.get_ref().as_str();
        let members = find(&file.groups, asked).map(|group| group.members.get_ref());
        let members = members.into_iter().flatten().map(|member| member.get_ref().as_str());
        for name in members.chain([asked]) {
            let model = file.models.iter().find(|(other, _)| other.get_ref() == name);
            let remote = model.filter(|(_, model)| model.kind.get_ref().example().is_some());
            paid.extend(remote.filter(|_| seen.insert(name)));
        }
        for sub in &agent.agents {
            let name = sub.get_ref().as_str();
            agents.extend(find(&file.agents, name).filter(|_| seen.insert(name)));
        }
    }
    paid
}
