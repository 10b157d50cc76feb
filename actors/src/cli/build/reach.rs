//! How the calls of a tool are undone, and how their outcome is found out.
//!
//! *Invariant.* An answer that is not plainly a yes or a no tells nothing: what is unknown stays unknown.

use mainstay::fault::EffectKind;
use mainstay::port::Verified;
use mainstay_actors::agent::Reach;
use mainstay_actors::mcp::McpServer;
use serde_json::{Map, Value};

use super::super::file::{Group, Question, Sign, Tool, TreeFile, Undo, json};
use super::{Tree, find};

/// What another tool is asked, made of the arguments of the call.
#[derive(Clone, Debug)]
pub(crate) struct Template(Option<Value>);

impl Template {
    pub(crate) fn new(arguments: Option<&toml::Spanned<toml::Table>>) -> Self {
        Self(arguments.map(|table| json(toml::Value::Table(table.get_ref().clone()))))
    }

    /// The arguments; those of the call where none are stated.
    pub(crate) fn fill(&self, call: &Value) -> Value {
        let Some(template) = &self.0 else { return call.clone() };
        filled(template, call).unwrap_or_else(|| Value::Object(Map::new()))
    }

    /// Every path that stands between braces.
    pub(crate) fn paths(&self) -> Vec<String> {
        let mut found = Vec::new();
        if let Some(template) = &self.0 {
            collect(template, &mut found);
        }
        found
    }
}

fn collect(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) => {
            let mut rest = text.as_str();
            while let Some((_, path, after)) = next_path(rest) {
                found.push(path.to_owned());
                rest = after;
            }
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, found)),
        Value::Object(map) => map.values().for_each(|value| collect(value, found)),
        _ => {}
    }
}

/// The first `{path}` of a text: what stands before it, the path, and what stands behind it. Braces
/// around anything else are a part of the text.
fn next_path(text: &str) -> Option<(&str, &str, &str)> {
    let mut from = 0;
    loop {
        let open = from + text[from..].find('{')?;
        let inside = &text[open + 1..];
        let is_path = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
        let end = inside.find(|c| !is_path(c))?;
        if end > 0 && inside[end..].starts_with('}') {
            return Some((&text[..open], &inside[..end], &inside[end + 1..]));
        }
        from = open + 1;
    }
}

/// `None` for a value that the call does not have.
fn filled(template: &Value, call: &Value) -> Option<Value> {
    Some(match template {
        Value::String(text) => match next_path(text) {
            // A text that is nothing but a path is what stands there, whatever its type.
            Some(("", path, "")) => return lookup(call, path).cloned(),
            Some(_) => {
                let (mut whole, mut rest) = (String::new(), text.as_str());
                while let Some((before, path, after)) = next_path(rest) {
                    whole.push_str(before);
                    match lookup(call, path) {
                        Some(Value::String(text)) => whole.push_str(text),
                        Some(value) => whole.push_str(&value.to_string()),
                        None => {}
                    }
                    rest = after;
                }
                Value::String(whole + rest)
            }
            None => template.clone(),
        },
        Value::Array(values) => values.iter().filter_map(|value| filled(value, call)).collect(),
        Value::Object(map) => Value::Object(
            map.iter()
                .filter_map(|(key, value)| Some((key.clone(), filled(value, call)?)))
                .collect(),
        ),
        other => other.clone(),
    })
}

/// A step of a path: the name of a field, or the number of an element.
fn step<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    match value {
        Value::Array(values) => values.get(name.parse::<usize>().ok()?),
        _ => value.get(name),
    }
}

fn lookup<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(value, step)
}

/// What an answer to a question says.
pub(crate) fn read(
    at: Option<&str>,
    happened: Option<&Sign>,
    not_happened: Option<&Sign>,
    answer: &Value,
) -> Verified<Value> {
    let mut value = answer;
    for name in at.iter().flat_map(|at| at.split('.')) {
        // Only what has fields can lack one: a text in its place is an answer to something else.
        if !value.is_object() && !value.is_array() {
            return Verified::CannotTell;
        }
        value = step(value, name).unwrap_or(&Value::Null);
        if value.is_null() {
            break;
        }
    }
    let is_absent = match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(values) => values.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    };
    // What is listed goes before what is merely there or not.
    let listed =
        |sign: Option<&Sign>| matches!(sign, Some(Sign::OneOf(values)) if values.contains(value));
    let word = if is_absent { Sign::Absent } else { Sign::Present };
    match (listed(happened), listed(not_happened)) {
        (true, false) => Verified::Happened(answer.clone()),
        (false, true) => Verified::NotHappened,
        (true, true) => Verified::CannotTell,
        _ if happened == Some(&word) => Verified::Happened(answer.clone()),
        _ if not_happened == Some(&word) => Verified::NotHappened,
        _ => Verified::CannotTell,
    }
}

impl Tree {
    /// Where the calls of a tool go that is offered under this name and need: of a server's tool, what
    /// its server says; of a group and a built-in tool, what they say themselves.
    pub(super) fn reach(&self, name: &str, need: String) -> Reach {
        let (mut undo, mut verify) = (None, None);
        if let Some((server, inner)) = need.split_once('/') {
            let acts = find(&self.file.tools, server).map(|tool| &tool.effects);
            let act = acts.and_then(|acts| find(acts, inner));
            undo = act.and_then(|act| act.undo.as_ref());
            verify = act.and_then(|act| act.verify.as_ref());
        } else if let Some(group) = find(&self.file.groups, name) {
            undo = group.undo.as_ref();
            verify = group.verify.as_ref();
        } else if let Some(tool) = find(&self.file.tools, name) {
            undo = tool.undo.as_ref();
        }
        let reach = match find(&self.file.agents, name) {
            Some(_) => Reach::agent(need, name),
            // Neither servers, nor what is built in, nor people are paid by the token.
            None => Reach::new(need).free(),
        };
        let reach = match undo.map(toml::Spanned::get_ref) {
            Some(Undo { tool, arguments }) if self.is_there(tool.get_ref()) => {
                let (need, asked) = asked(tool.get_ref());
                let template = Template::new(arguments.as_ref());
                reach.undo(need, asked, move |call| template.fill(call))
            }
            _ => reach,
        };
        let Some(Question { tool, arguments, at, happened, not_happened }) =
            verify.map(toml::Spanned::get_ref).filter(|it| self.is_there(it.tool.get_ref()))
        else {
            return reach;
        };
        let (need, asked) = asked(tool.get_ref());
        let template = Template::new(arguments.as_ref());
        let at = at.as_ref().map(|at| at.get_ref().clone());
        let sign =
            |sign: &Option<toml::Spanned<Sign>>| sign.as_ref().map(|it| it.get_ref().clone());
        let (yes, no) = (sign(happened), sign(not_happened));
        reach.verify(
            need,
            asked,
            move |call| template.fill(call),
            move |answer| read(at.as_deref(), yes.as_ref(), no.as_ref(), answer),
        )
    }

    /// Whether a tool that another one asks is a child. Before the servers have said what they have,
    /// and where one did not start, some are not.
    fn is_there(&self, name: &str) -> bool {
        let Some((server, inner)) = name.split_once('.') else { return true };
        match self.servers.get(server) {
            Some(_) if self.stage.is_some() => true,
            Some(known) if !self.absent.contains(server) => {
                known.tools().iter().any(|tool| tool.name == inner)
            }
            _ => false,
        }
    }

    /// Every tool that undoes or tells of a call, by the name that the file gives it.
    pub(crate) fn asked_by_others(&self) -> impl Iterator<Item = &toml::Spanned<String>> {
        let tools = self.file.tools.values().flat_map(asked_of);
        tools.chain(self.file.groups.values().flat_map(asked_of_group))
    }

    /// The tools whose calls can be undone, with what is asked for it, as the page of `check` says it.
    pub(crate) fn acts(&self) -> Vec<(String, String)> {
        let undo = |undo: &Option<toml::Spanned<Undo>>| {
            let undo = undo.as_ref()?.get_ref();
            Some(format!("undone by {}", undo.tool.get_ref()))
        };
        let verify = |question: &Option<toml::Spanned<Question>>| {
            let question = question.as_ref()?.get_ref();
            Some(format!("where unknown, {} tells", question.tool.get_ref()))
        };
        let row = |name: String, undo: Option<String>, verify: Option<String>| {
            let said: Vec<_> = [undo, verify].into_iter().flatten().collect();
            (!said.is_empty()).then(|| (name, said.join("; ")))
        };
        let mut rows = Vec::new();
        for (name, group) in &self.file.groups {
            rows.extend(row(name.get_ref().clone(), undo(&group.undo), verify(&group.verify)));
        }
        for (name, tool) in &self.file.tools {
            rows.extend(row(name.get_ref().clone(), undo(&tool.undo), None));
            for (inner, act) in &tool.effects {
                let name = format!("{}.{}", name.get_ref(), inner.get_ref());
                rows.extend(row(name, undo(&act.undo), verify(&act.verify)));
            }
        }
        rows
    }

    /// The tools and groups whose acts stay where a transaction fails.
    pub(crate) fn not_undone(&self) -> Vec<String> {
        let has_undo = |name: &str| match name.split_once('.') {
            Some((server, inner)) => find(&self.file.tools, server)
                .and_then(|tool| find(&tool.effects, inner))
                .is_some_and(|act| act.undo.is_some()),
            None => {
                find(&self.file.groups, name).is_some_and(|group| group.undo.is_some())
                    || find(&self.file.tools, name).is_some_and(|tool| tool.undo.is_some())
            }
        };
        let mut stays = Vec::new();
        let effects = self.tool_effects();
        let helps = |name: &str| self.asked_by_others().any(|other| other.get_ref() == name);
        for (name, kind) in &effects {
            let group = self.file.groups.iter().find(|(_, group)| {
                group.members.get_ref().iter().any(|member| member.get_ref() == name)
            });
            let called = group.map_or(name.as_str(), |(group, _)| group.get_ref());
            let acts = *kind > EffectKind::Read;
            if acts && !helps(called) && !has_undo(called) && !stays.iter().any(|it| it == called) {
                stays.push(called.to_owned());
            }
        }
        stays
    }
}

/// Whom a tool, or the tools of a server, are undone and asked about by.
pub(crate) fn asked_of(tool: &Tool) -> impl Iterator<Item = &toml::Spanned<String>> {
    let acts = tool.effects.values();
    let undone = acts.clone().filter_map(|act| act.undo.as_ref()).chain(&tool.undo);
    let verified = acts.filter_map(|act| act.verify.as_ref());
    let undone = undone.map(|undo| &undo.get_ref().tool);
    undone.chain(verified.map(|question| &question.get_ref().tool))
}

/// The same of a group.
pub(crate) fn asked_of_group(group: &Group) -> impl Iterator<Item = &toml::Spanned<String>> {
    let undone = group.undo.iter().map(|undo| &undo.get_ref().tool);
    undone.chain(group.verify.iter().map(|question| &question.get_ref().tool))
}

/// By whom anything in the tree is undone.
pub(crate) fn undone_by(file: &TreeFile) -> impl Iterator<Item = &toml::Spanned<String>> {
    let tools = file.tools.values();
    let acts = tools.clone().flat_map(|tool| tool.effects.values());
    let acts = acts.filter_map(|act| act.undo.as_ref());
    let all = acts.chain(tools.filter_map(|tool| tool.undo.as_ref()));
    let groups = file.groups.values().filter_map(|group| group.undo.as_ref());
    all.chain(groups).map(|undo| &undo.get_ref().tool)
}

/// The need and the tool under which the runtime knows what the file calls so.
fn asked(name: &str) -> (String, String) {
    match name.split_once('.') {
        Some((server, inner)) => {
            (format!("{server}/{}", McpServer::tool_id(inner)), inner.to_owned())
        }
        None => (name.to_owned(), name.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn template(text: &str) -> Template {
        let table: toml::Table = toml::from_str(text).unwrap();
        Template(Some(super::json(toml::Value::Table(table))))
    }

    #[test]
    fn arguments_are_made_of_those_of_the_call() {
        let call = json!({"order": 7, "who": {"name": "Ann", "tags": ["a", "b"]}});
        let made = template(
            "id = \"{order}\"\nnote = \"undo {order} of {who.name}, {who.tags.1}{none}!\"\nfirst = \"{who.tags}\"\n\
             gone = \"{none}\"\nfixed = 3\nbraces = \"{ not a path } {} {order\"\ninner = { list = [\"{order}\", \"{none}\", true] }",
        );
        assert_eq!(
            made.fill(&call),
            json!({
                "id": 7, "note": "undo 7 of Ann, b!", "first": ["a", "b"], "fixed": 3,
                "braces": "{ not a path } {} {order", "inner": {"list": [7, true]},
            })
        );
        let mut paths = made.paths();
        paths.sort();
        paths.dedup();
        assert_eq!(paths, ["none", "order", "who.name", "who.tags", "who.tags.1"]);
        // Without any, they are the same.
        assert_eq!(Template(None).fill(&call), call);
    }

    #[test]
    fn only_a_plain_answer_tells_whether_it_has_happened() {
        let one = |values: &[&str]| Sign::OneOf(values.iter().map(|it| json!(it)).collect());
        let (paid, open) = (one(&["paid"]), one(&["open", ""]));
        let say = |at, yes, no, answer: Value| match read(at, yes, no, &answer) {
            Verified::Happened(result) => {
                assert_eq!(result, answer, "the answer is the result");
                "yes"
            }
            Verified::NotHappened => "no",
            Verified::CannotTell => "?",
        };
        let listed = |answer| say(Some("state"), Some(&paid), Some(&open), answer);
        assert_eq!(listed(json!({"state": "paid"})), "yes");
        assert_eq!(listed(json!({"state": "open"})), "no");
        assert_eq!(listed(json!({"state": "moved"})), "?");
        assert_eq!(listed(json!({"other": "paid"})), "?");
        assert_eq!(listed(json!("paid")), "?");
        let there =
            |answer| say(Some("rows.0.id"), Some(&Sign::Present), Some(&Sign::Absent), answer);
        assert_eq!(there(json!({"rows": [{"id": 1}]})), "yes");
        assert_eq!(there(json!({"rows": []})), "no");
        assert_eq!(there(json!({})), "no");
        // What has no fields is no answer to this question.
        assert_eq!(there(json!("try again later")), "?");
        assert_eq!(there(json!({"rows": "none"})), "?");
        // A whole answer; and what is listed goes before what is merely there.
        assert_eq!(say(None, Some(&Sign::Present), Some(&open), json!("open")), "no");
        assert_eq!(say(None, Some(&Sign::Present), Some(&open), json!("shut")), "yes");
        assert_eq!(say(None, Some(&paid), None, json!("open")), "?");
    }
}
