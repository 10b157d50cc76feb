//! What undoes an act and what tells of it: that both are there when they are needed, and can be.

use std::ops::Range;

use mainstay::checkpoint::Scope;
use mainstay::fault::EffectKind;
use serde_json::Value;
use toml::Spanned;

use super::super::build::reach::Template;
use super::super::file::{Act, Builtin, Question, Sign, Undo};
use super::super::snag::{list, meant};
use super::{Verify, What};

/// Something that acts, by the name that the file gives it.
struct Actor<'a> {
    name: String,
    /// Where its kind stands.
    span: Range<usize>,
    /// What it does to the world; `None` where only a trusted server knows.
    kind: Option<EffectKind>,
    undo: Option<&'a Spanned<Undo>>,
    verify: Option<&'a Spanned<Question>>,
    /// The arguments that it takes, where they are known.
    takes: Option<Vec<String>>,
}

const fn word(kind: EffectKind) -> &'static str {
    match kind {
        EffectKind::Pure => "pure",
        EffectKind::Read => "read",
        EffectKind::Idempotent => "idempotent",
        EffectKind::Verifiable => "verifiable",
        EffectKind::Compensable => "compensable",
        _ => "irreversible",
    }
}

impl Verify<'_> {
    /// Everything that acts.
    pub(super) fn acts(&mut self) {
        let file = self.file;
        for (name, tool) in &file.tools {
            if let Some(builtin) = tool.builtin.as_ref().map(|it| *it.get_ref()) {
                self.actor(&Actor {
                    name: name.get_ref().clone(),
                    span: name.span(),
                    kind: Some(builtin.effect()),
                    undo: tool.undo.as_ref(),
                    verify: None,
                    takes: Some(takes(builtin)),
                });
                continue;
            }
            for (inner, Act { kind, undo, verify }) in &tool.effects {
                self.actor(&Actor {
                    name: format!("{}.{}", name.get_ref(), inner.get_ref()),
                    span: inner.span(),
                    kind: Some(*kind),
                    undo: undo.as_ref(),
                    verify: verify.as_ref(),
                    takes: None,
                });
            }
        }
        for (name, group) in &file.groups {
            let kind = *group.kind.get_ref();
            let spans = [
                ("undo", group.undo.as_ref().map(Spanned::span)),
                ("verify", group.verify.as_ref().map(Spanned::span)),
            ];
            if !kind.is_of_tools() {
                for (key, span) in spans.into_iter().filter_map(|(key, span)| Some((key, span?))) {
                    let message = format!("`{key}` in a group of the kind `{}`", kind.name());
                    let hint =
                        "remove it: only tools act, so write it for a tool or a group of tools";
                    self.say(span, message, "nothing is done to the world here", hint);
                }
                continue;
            }
            let members = group.members.get_ref();
            let kinds: Vec<_> = members.iter().map(|it| self.kind_of(it.get_ref())).collect();
            let first = members.first().map(|it| it.get_ref().as_str());
            let builtin = file.tools.iter().find(|(id, _)| Some(id.get_ref().as_str()) == first);
            let builtin = builtin.and_then(|(_, tool)| tool.builtin.as_ref());
            self.actor(&Actor {
                name: name.get_ref().clone(),
                span: name.span(),
                // As the runtime sees it: whoever serves, it may have been the one that does most.
                kind: kinds
                    .into_iter()
                    .collect::<Option<Vec<_>>>()
                    .and_then(|it| it.into_iter().max()),
                undo: group.undo.as_ref(),
                verify: group.verify.as_ref(),
                takes: builtin.map(|it| takes(*it.get_ref())),
            });
            for member in members {
                self.of_group(name, member, group.undo.is_some(), group.verify.is_some());
            }
        }
    }

    /// A member is called through its group, which is what is undone or asked about.
    fn of_group(
        &mut self,
        group: &Spanned<String>,
        member: &Spanned<String>,
        undo: bool,
        verify: bool,
    ) {
        let name = member.get_ref();
        let tools = &self.file.tools;
        let (mut has_undo, mut has_verify) = (false, false);
        if let Some((server, inner)) = name.split_once('.') {
            let tool = tools.iter().find(|(id, _)| id.get_ref() == server);
            let act = tool
                .and_then(|(_, tool)| tool.effects.iter().find(|(id, _)| id.get_ref() == inner));
            has_undo = act.is_some_and(|(_, act)| act.undo.is_some());
            has_verify = act.is_some_and(|(_, act)| act.verify.is_some());
        } else if let Some((_, tool)) = tools.iter().find(|(id, _)| id.get_ref() == name) {
            has_undo = tool.undo.is_some();
        }
        let group = group.get_ref();
        for (key, what, missing) in [
            ("undo", "an undo", has_undo && !undo),
            ("verify", "a question", has_verify && !verify),
        ] {
            if missing {
                let message = format!("`{name}` has {what}, and its group `{group}` has none");
                let hint = format!(
                    "write it for the group: [groups.{group}.{key}], which is asked whoever has served"
                );
                self.say(member.span(), message, "called through its group", hint);
            }
        }
    }

    /// What something does to the world that takes calls; `None` where it is not stated here, but by a
    /// server that is believed. People and what is not declared may do anything.
    fn kind_of(&self, name: &str) -> Option<EffectKind> {
        let find = |name: &str| self.file.tools.iter().find(|(id, _)| id.get_ref() == name);
        if let Some((server, inner)) = name.split_once('.') {
            let Some((_, tool)) = find(server) else { return Some(EffectKind::Irreversible) };
            if let Some((_, act)) = tool.effects.iter().find(|(id, _)| id.get_ref() == inner) {
                return Some(act.kind);
            }
            let trusted = tool.trusted.as_ref().is_some_and(|trusted| *trusted.get_ref());
            return (!trusted).then_some(EffectKind::Irreversible);
        }
        if let Some((_, tool)) = find(name) {
            return tool.builtin.as_ref().map(|it| it.get_ref().effect());
        }
        let group = self.file.groups.iter().find(|(id, _)| id.get_ref() == name);
        let Some((_, group)) = group else { return Some(EffectKind::Irreversible) };
        let members = group.members.get_ref().iter().map(|it| self.kind_of(it.get_ref()));
        members.collect::<Option<Vec<_>>>().map(|it| it.into_iter().max().unwrap_or_default())
    }

    fn actor(&mut self, actor: &Actor<'_>) {
        let Actor { name, span, kind, undo, verify, takes } = actor;
        let is_group =
            self.names.all.get(name.as_str()).is_some_and(|it| matches!(it, What::Group(_)));
        match kind {
            Some(EffectKind::Compensable) if undo.is_none() && !is_group => self.say(
                span.clone(),
                format!("`{name}` is `compensable`, which needs an undo"),
                "undone by what?",
                "add `undo = { tool = \"SERVER.TOOL\" }`, or write `irreversible`",
            ),
            Some(EffectKind::Verifiable) if verify.is_none() && !is_group => self.say(
                span.clone(),
                format!("`{name}` is `verifiable`, which needs a question whether it has happened"),
                "who tells?",
                "add `verify = { tool = \"SERVER.TOOL\", happened = [\"...\"] }`, or write `irreversible`",
            ),
            _ => {}
        }
        if let Some(undo) = undo {
            self.undo(actor, undo);
            self.arguments(takes.as_deref(), name, undo.get_ref().arguments.as_ref());
        }
        if let Some(question) = verify {
            self.question(actor, question);
            self.arguments(takes.as_deref(), name, question.get_ref().arguments.as_ref());
        }
    }

    fn undo(&mut self, actor: &Actor<'_>, undo: &Spanned<Undo>) {
        let name = &actor.name;
        if let Some(kind) = actor.kind.filter(|kind| *kind <= EffectKind::Read) {
            let message = format!("an undo for `{name}`, which is `{}`", word(kind));
            let hint = "remove it, or say what it does: kind = \"compensable\"";
            self.say(undo.span(), message, "nothing to undo", hint);
        }
        let scope = self.file.supervisor.as_ref().and_then(|section| section.scope.as_ref());
        let scope = scope.map(|scope| *scope.get_ref());
        let profile = self.file.profile.as_ref().and_then(|profile| profile.get_ref().scope());
        if scope.or(profile) != Some(Scope::Transaction) {
            let hint = "add [supervisor] with `scope = \"transaction\"`, and a [store]; or `profile = \"finance\"`";
            let message = format!("an undo for `{name}` in a tree that is no transaction");
            self.say(undo.span(), message, "never asked", hint);
        }
        let asked = &undo.get_ref().tool;
        if !self.helper(actor, asked, "undoes") {
            return;
        }
        // One that was asked and has not answered is asked again, by the next process, too.
        if self.kind_of(asked.get_ref()).is_some_and(|kind| !kind.is_replay_safe()) {
            let message = format!("`{}` undoes, and may not be asked twice", asked.get_ref());
            let hint = declare(asked.get_ref(), "idempotent");
            self.say(asked.span(), message, "an undo whose answer is lost is asked again", hint);
        }
    }

    fn question(&mut self, actor: &Actor<'_>, question: &Spanned<Question>) {
        let Question { tool: asked, arguments: _, at, happened, not_happened } = question.get_ref();
        if let Some(kind) = actor.kind.filter(|kind| *kind != EffectKind::Verifiable) {
            let message = format!("a question about `{}`, which is `{}`", actor.name, word(kind));
            let hint = "remove it, or write `verifiable`: of others it is never asked";
            self.say(question.span(), message, "never asked", hint);
        }
        if let Some(at) = at.as_ref().filter(|at| at.get_ref().split('.').any(str::is_empty)) {
            let hint = "write the names on the way, with dots between: \"payment.state\"";
            self.say(at.span(), "a path that leads nowhere", "a name is missing", hint);
        }
        let empty =
            |sign: &&Spanned<Sign>| matches!(sign.get_ref(), Sign::OneOf(all) if all.is_empty());
        for sign in [happened, not_happened].into_iter().flatten().filter(empty) {
            let hint = "write the values that say it, or \"present\" or \"absent\"";
            self.say(sign.span(), "a list of no values", "never said", hint);
        }
        match (happened, not_happened) {
            (None, None) => {
                let hint = "add `happened = [\"...\"]`, `not_happened = [\"...\"]`, or both";
                self.say(
                    question.span(),
                    "a question whose answer says nothing",
                    "what says it?",
                    hint,
                );
            }
            (Some(yes), Some(no)) => {
                let both = match (yes.get_ref(), no.get_ref()) {
                    (Sign::OneOf(yes), Sign::OneOf(no)) => {
                        yes.iter().find(|value| no.contains(value)).map(Value::to_string)
                    }
                    (yes, no) => (yes == no).then(|| "the same".to_owned()),
                };
                if let Some(both) = both {
                    let message = format!("{both} says that it has happened, and that it has not");
                    self.say(no.span(), message, "which one?", "keep it in one of the two");
                }
            }
            _ => {}
        }
        if !self.helper(actor, asked, "tells") {
            return;
        }
        if self.kind_of(asked.get_ref()).is_some_and(|kind| kind > EffectKind::Read) {
            let message = format!("`{}` is asked, and may do something itself", asked.get_ref());
            let hint = declare(asked.get_ref(), "read");
            self.say(asked.span(), message, "a question must change nothing", hint);
        }
    }

    /// Whether a tool that another one asks can be asked.
    fn helper(&mut self, actor: &Actor<'_>, asked: &Spanned<String>, does: &str) -> bool {
        let name = asked.get_ref().as_str();
        if name == actor.name {
            let message = format!("`{name}` {does} itself");
            self.say(asked.span(), message, "the same tool", "name another one");
            return false;
        }
        let fits = |what| {
            matches!(what, What::Tool) || matches!(what, What::Group(kind) if kind.is_of_tools())
        };
        match self.names.all.get(name) {
            Some(what) if fits(*what) => self.alone(asked),
            None if self.is_of_server(name) => {}
            _ => {
                self.unknown(asked, "a built-in tool, a group of tools, or `server.tool`", fits);
                return false;
            }
        }
        true
    }

    /// Whether every path leads to an argument, where those are known.
    fn arguments(
        &mut self,
        takes: Option<&[String]>,
        name: &str,
        arguments: Option<&Spanned<toml::Table>>,
    ) {
        let (Some(takes), Some(arguments)) = (takes, arguments) else { return };
        for path in Template::new(Some(arguments)).paths() {
            let head = path.split('.').next().unwrap_or_default();
            if takes.iter().any(|known| known == head) {
                continue;
            }
            let known = || takes.iter().map(String::as_str);
            let hint = match meant(head, known()) {
                Some(other) => format!("did you mean `{{{other}}}`?"),
                None if takes.is_empty() => "it takes no arguments".to_owned(),
                None => format!("it takes {}", list(known())),
            };
            let message = format!("`{name}` has no argument `{head}`");
            self.say(arguments.span(), message, format!("{{{path}}} is always empty"), hint);
        }
    }
}

/// How a tool is said to be of this kind.
fn declare(name: &str, kind: &str) -> String {
    match name.split_once('.') {
        Some((server, tool)) => {
            format!("if it is, say so: [tools.{server}.effects] with `{tool} = \"{kind}\"`")
        }
        None => format!("name one that is `{kind}`"),
    }
}

/// The arguments of a built-in tool.
fn takes(builtin: Builtin) -> Vec<String> {
    let schema: Value = serde_json::from_str(&builtin.offer("").parameters).unwrap_or_default();
    let names = schema["properties"].as_object();
    names.map(|names| names.keys().cloned().collect()).unwrap_or_default()
}
