//! What a group may do besides standing in: hedge, and keep what it was asked.

use toml::Spanned;

use super::super::build;
use super::super::file::{Builtin, Group, GroupKind};
use super::super::profile::Profile;
use super::Verify;

impl Verify<'_> {
    /// A group that gives a slow request to a second member, too.
    pub(super) fn hedge(&mut self, name: &Spanned<String>, group: &Group) {
        let Some(hedge) = &group.hedge else { return };
        if *group.kind.get_ref() == GroupKind::Step {
            let hint = "remove it, and hedge the group of models that they ask";
            let message = "a group of steps that hedges";
            self.say(hedge.span(), message, "agents act, so only one may work", hint);
            return;
        }
        let alike = |member: &&Spanned<String>| !self.stands_in_only(member.get_ref());
        if group.members.get_ref().iter().filter(alike).count() < 2 {
            let message = format!("the group `{}` has nobody to hedge with", name.get_ref());
            let hint = "add a second member that does the same work; texts and people do not";
            self.say(hedge.span(), message, "needs two that work alike", hint);
        }
        if build::keeps(self.file, name.get_ref()) {
            let message =
                format!("the group `{}` keeps its requests, and so cannot hedge", name.get_ref());
            let hint =
                "remove the hedge, or write `durable = false`: a kill then loses what is asked";
            self.say(hedge.span(), message, "two would answer one record", hint);
        }
    }

    /// A group whose members may all rest.
    pub(super) fn all_down(&mut self, group: &Group) {
        let Some(all_down) = &group.all_down else { return };
        let text = group.members.get_ref().iter().find(|it| self.always_answers(it.get_ref()));
        if let Some(text) = text {
            let message =
                format!("`all_down` in a group where `{}` always answers", text.get_ref());
            let hint = "remove it, or the text from the members";
            self.say(all_down.span(), message, "never all of them rest", hint);
        }
    }

    /// Whether a member does less than the others: a text, or a person.
    fn stands_in_only(&self, name: &str) -> bool {
        self.always_answers(name) || self.file.people.keys().any(|person| person.get_ref() == name)
    }

    /// Whether a member is a text.
    fn always_answers(&self, name: &str) -> bool {
        let mut tools = self.file.tools.iter();
        let is_text = |tool: &super::super::file::Tool| {
            tool.builtin.as_ref().is_some_and(|it| *it.get_ref() == Builtin::Default)
        };
        self.is_default(name)
            || tools.any(|(tool, section)| tool.get_ref() == name && is_text(section))
    }

    /// A group that keeps what it was asked.
    pub(super) fn durable(&mut self, name: &Spanned<String>, group: &Group) {
        let Some(durable) = &group.durable else { return };
        let entry = build::entry(self.file).unwrap_or_default().to_owned();
        match (*durable.get_ref(), entry == *name.get_ref()) {
            (true, _) if self.file.store.is_none() => {
                let message =
                    format!("the group `{}` is durable, and there is no store", name.get_ref());
                let hint = "add [store] with `path = \"...\"`";
                self.say(durable.span(), message, "kept where?", hint);
            }
            // Agents join what they asked for, as long as it does nothing to the world.
            (true, false) if group.kind.get_ref().is_of_models() => {}
            (true, false) => {
                let message = format!("`{}` is asked by agents, and not by you", name.get_ref());
                let hint = format!(
                    "remove it: an agent keeps what it does itself; only `{entry}`, which is asked, and groups of models may be durable"
                );
                self.say(durable.span(), message, "kept twice, it would be done twice", hint);
            }
            (false, true) => {
                let profile = self.file.profile.as_ref().map(|profile| *profile.get_ref());
                if profile == Some(Profile::Finance) {
                    let message = "the profile `finance` with requests that a kill loses";
                    let hint = "write `durable = true`, or leave it out";
                    self.say(durable.span(), message, "keeps money", hint);
                }
            }
            _ => {}
        }
    }
}
