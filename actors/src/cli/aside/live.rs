//! `/aside`: the same in a conversation, with the tree at work.
//!
//! *Invariant.* A word that is not known does nothing.

use mainstay::system::System;

use super::Act;
use super::shelf::Shelf;

const HOW: &str = "\
/aside                             what was set aside
/aside export [KEY] [--user-data]  as JSON, one object on a line; what was asked only with --user-data
/aside release KEY                 have a request done after all, now; a checkpoint is looked at again
/aside release-checkpoints CHILD   have all states of an agent looked at again that were set aside
/aside discard KEY                 give a request up for good";

/// Does what stands behind `/aside`, and says what came of it.
pub(crate) async fn command(system: &System, words: &str) -> String {
    let act = match read(words) {
        Ok(act) => act,
        Err(why) => return format!("{why}\n{HOW}"),
    };
    let lists = matches!(act, Act::List);
    let shelf = Shelf::Live(system.clone());
    match act.perform(&shelf, "this tree", false).await {
        Ok(said) if said.is_empty() => "nothing was set aside".to_owned(),
        Ok(said) if lists && shelf.holds_something() => format!("{said}\n{HOW}"),
        Ok(said) => said,
        Err(why) => why.to_string(),
    }
}

fn read(words: &str) -> Result<Act, String> {
    let mut words: Vec<&str> = words.split_whitespace().collect();
    let before = words.len();
    words.retain(|word| *word != "--user-data");
    let user_data = words.len() < before;
    match words[..] {
        [] | ["list"] if !user_data => Ok(Act::List),
        ["export"] => Ok(Act::Export { key: None, user_data }),
        ["export", key] => Ok(Act::Export { key: Some(key.to_owned()), user_data }),
        ["release", key] if !user_data => Ok(Act::Release { key: key.to_owned() }),
        ["discard", key] if !user_data => Ok(Act::Discard { key: key.to_owned() }),
        ["release-checkpoints", child] if !user_data => {
            Ok(Act::ReleaseCheckpoints { child: child.to_owned() })
        }
        ["release" | "discard"] => Err("of which key?".to_owned()),
        ["release-checkpoints"] => Err("of which agent?".to_owned()),
        ["export" | "release" | "discard", ..] => Err("that is too much: one key".to_owned()),
        _ => Err(format!("there is no `{}`", words.join(" "))),
    }
}
