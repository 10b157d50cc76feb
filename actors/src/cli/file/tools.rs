//! The tools of servers by names that can stand in a path. A server may call its tools what it likes.
//!
//! *Invariant.* From here on, a tool has one name in all of the file, whichever of its two the file has used.

use std::collections::BTreeMap;

use mainstay_actors::mcp::McpServer;
use toml::Spanned;

use super::super::snag::Snag;
use super::{Named, TreeFile};

/// The names that `SERVER.TOOL` has here, with what the server calls the tool.
pub(crate) type Aliases = BTreeMap<String, String>;

/// Gives the tools of servers their names. What stands twice under two names is wrong.
pub(crate) fn rename(file: &mut TreeFile) -> (Aliases, Vec<Snag>) {
    let (mut aliases, mut snags) = (Aliases::new(), Vec::new());
    for (server, tool) in &mut file.tools {
        let mut again = |name: &mut String| {
            let id = McpServer::tool_id(name).into_owned();
            if id != *name && !name.is_empty() {
                let own = std::mem::replace(name, id);
                aliases.insert(format!("{}.{name}", server.get_ref()), own);
            }
        };
        keys(&mut tool.effects, &mut again, &mut snags);
    }
    let servers: Vec<String> = file.tools.keys().map(|name| name.get_ref().clone()).collect();
    let mut again = |name: &mut String| {
        let Some((server, inner)) = name.split_once('.') else { return };
        let id = McpServer::tool_id(inner);
        if !inner.is_empty() && id != inner && servers.iter().any(|it| it == server) {
            let renamed = format!("{server}.{id}");
            aliases.insert(renamed.clone(), inner.to_owned());
            *name = renamed;
        }
    };
    for group in file.groups.values_mut() {
        keys(&mut group.grants, &mut again, &mut snags);
    }
    let mut all = |name: &mut Spanned<String>| again(name.get_mut());
    for tool in file.tools.values_mut() {
        for act in tool.effects.values_mut() {
            act.undo.iter_mut().for_each(|undo| all(&mut undo.get_mut().tool));
            act.verify.iter_mut().for_each(|question| all(&mut question.get_mut().tool));
        }
        tool.undo.iter_mut().for_each(|undo| all(&mut undo.get_mut().tool));
    }
    for agent in file.agents.values_mut() {
        agent.tools.iter_mut().for_each(&mut all);
    }
    for group in file.groups.values_mut() {
        group.members.get_mut().iter_mut().for_each(&mut all);
        group.undo.iter_mut().for_each(|undo| all(&mut undo.get_mut().tool));
        group.verify.iter_mut().for_each(|question| all(&mut question.get_mut().tool));
    }
    (aliases, snags)
}

/// Renames what stands under a name.
fn keys<T>(named: &mut Named<T>, again: &mut impl FnMut(&mut String), snags: &mut Vec<Snag>) {
    for (mut name, value) in std::mem::take(named) {
        again(name.get_mut());
        let span = name.span();
        if let Some((other, _)) = named.get_key_value(&name) {
            let message = format!("`{}` stands here twice, under two names", other.get_ref());
            let hint = "keep one of the two";
            snags.push(Snag::new(span, message, "the second", hint));
            continue;
        }
        named.insert(name, value);
    }
}
