//! `mainstay store`, and `/aside` in a conversation: what was set aside, and what nobody knows the outcome of,
//! in a person's hands.
//!
//! *Invariant.* No tree is started, and nobody is asked anything but by a release in a tree at work. User data
//! is shown only where it is asked for.

use std::collections::BTreeSet;
use std::fmt::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Subcommand, ValueEnum};
use mainstay::checkpoint::{FileStore, Listed, MemoryStore, Store, Wall};
use mainstay::id::{CheckpointId, EffectKey};
use mainstay::quarantine::Quarantined;
use mainstay::system::{EffectView, EffectsRef, Upkeep};
use serde_json::{Value, json};

use super::build;
use super::run::settle;
use super::snag::list;
use super::{Failed, say};
use shelf::Shelf;

pub(crate) mod live;
mod shelf;

/// Effects on which a person has spoken that `list --json` has at most, the latest.
const SETTLED: usize = 1000;

/// What is done with a store.
#[derive(Debug, Subcommand)]
pub(crate) enum Act {
    /// Show what was set aside and what waits for a person.
    List,
    /// Print it as JSON, one object on a line: all of it, or one.
    Export {
        /// A key as `list` prints it, or enough of its beginning.
        key: Option<String>,
        /// With what was asked and stored, which may hold what users have said. Otherwise it is left out.
        #[arg(long)]
        user_data: bool,
    },
    /// Have the next start do a request after all, or restore a checkpoint again.
    Release {
        /// A key as `list` prints it, or enough of its beginning.
        key: String,
    },
    /// Have the next start restore all of a child's checkpoints again that were set aside: after a version of the
    /// tree, or of mainstay, that could not restore them, which is gone.
    ReleaseCheckpoints {
        /// The child, as `list` names it.
        child: String,
    },
    /// Give up a request, or a checkpoint, for good.
    Discard {
        /// A key as `list` prints it, or enough of its beginning.
        key: String,
    },
    /// Say what became of an effect that waits for a person, or that a request whose fate is unknown did not
    /// happen (by its whole key): it may then be asked again.
    Settle {
        /// A key as `list` prints it, or enough of its beginning.
        key: String,
        /// What became of it.
        word: Word,
        /// What the tool would have answered, where it did happen: JSON or a text.
        result: Option<String>,
        /// Who says so, which is written down with it; otherwise what USER or LOGNAME is set to.
        #[arg(long, value_name = "NAME")]
        by: Option<String>,
        /// Why, which is written down with it.
        #[arg(long, value_name = "TEXT")]
        why: Option<String>,
    },
}

/// What a person says of an effect.
struct Spoken {
    word: Word,
    result: Option<String>,
    by: Option<String>,
    why: Option<String>,
}

/// In whose name effects are settled: the one that is given, or the user's of this process.
pub(crate) fn speaking(effects: EffectsRef, by: Option<String>, why: Option<String>) -> EffectsRef {
    let user = || ["USER", "LOGNAME"].iter().find_map(|it| std::env::var(it).ok());
    let by = by.or_else(user).filter(|name| !name.trim().is_empty());
    match (by, why) {
        (None, None) => effects,
        (by, why) => effects.by(by.unwrap_or_default(), why.unwrap_or_default()),
    }
}

/// A person's word on an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Word {
    /// It did happen.
    Happened,
    /// It did not, and will not: who asks for it again has it take place.
    DidNotHappen,
    /// Its undo, which is stuck or stopped before it, was made by hand.
    Undone,
    /// It was left standing where an undo stopped, and rightly so.
    Stands,
}

impl Word {
    const fn name(self) -> &'static str {
        match self {
            Self::Happened => "happened",
            Self::DidNotHappen => "did-not-happen",
            Self::Undone => "undone",
            Self::Stands => "stands",
        }
    }
}

/// Something that a person can do something about.
enum Thing {
    Request(Quarantined),
    Checkpoint(Listed),
    Effect(EffectView),
    /// A request of which nobody knows whether it was done. Not listed: there is nothing that has to be done.
    Doubt(Arc<str>),
}

impl Thing {
    fn key(&self) -> String {
        match self {
            Self::Request(it) => it.id.to_string(),
            Self::Checkpoint(it) => it.checkpoint.id.to_string(),
            Self::Effect(it) => it.key.to_string(),
            Self::Doubt(key) => key.to_string(),
        }
    }

    const fn kind(&self) -> &'static str {
        match self {
            Self::Request(_) => "request",
            Self::Checkpoint(_) => "checkpoint",
            Self::Effect(_) => "effect",
            Self::Doubt(_) => "request in doubt",
        }
    }

    /// Without user data.
    fn as_json(&self) -> Value {
        let mut body = match self {
            Self::Request(it) => json!({"child": it.child, "at": it.at, "trail": it.trail.0}),
            Self::Checkpoint(it) => json!({
                "child": it.checkpoint.child,
                "step": it.checkpoint.step,
                "at": it.checkpoint.created_at,
                "reason": it.bad,
            }),
            Self::Effect(it) => json!({
                "status": it.status, "owner": it.owner, "tool": it.tool, "request_key": it.task,
                "step": it.step, "ordinal": it.ordinal, "effect_kind": it.kind, "said": it.said,
            }),
            Self::Doubt(_) => json!({}),
        };
        body["kind"] = json!(self.kind());
        body["key"] = json!(self.key());
        body
    }
}

/// For people.
impl fmt::Display for Thing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request(it) => {
                write!(f, "{}  to {}, {}", it.id, it.child, ago(it.at))?;
                if it.trail.is_empty() { Ok(()) } else { write!(f, "\n      {}", it.trail) }
            }
            Self::Doubt(key) => write!(f, "{key}"),
            Self::Checkpoint(it) => {
                let about = &it.checkpoint;
                let reason = it.bad.as_deref().unwrap_or_default();
                let age = ago(about.created_at);
                write!(f, "{}  of {}, step {}, {age}: {reason}", about.id, about.child, about.step)
            }
            Self::Effect(it) => write!(
                f,
                "{}  {}: {} for {} ({:?}), request {}",
                settle::short(it.key),
                it.status,
                it.tool,
                it.owner,
                it.kind,
                it.task
            ),
        }
    }
}

/// Does what was asked with the store of a tree file.
pub(crate) async fn run(file: &Path, act: Option<Act>, json: bool) -> anyhow::Result<()> {
    let Some(folder) = build::store_folder(file)? else {
        let what = "keeps nothing: it has no [store] with a `path`";
        anyhow::bail!("{} {what}", file.display());
    };
    let store: Arc<dyn Store> = match folder.exists() {
        true => {
            let opened = FileStore::open(&folder);
            Arc::new(opened.map_err(|error| Failed(error.to_string()))?)
        }
        // Nobody has asked the tree anything yet, and looking does not begin a store.
        false => Arc::new(MemoryStore::new()),
    };
    let failed = |error: &dyn fmt::Display| Failed(format!("{}: {error}", folder.display()));
    let upkeep = Upkeep::of(store).map_err(|error| failed(&error))?;
    let act = act.unwrap_or(Act::List);
    let said = act.perform(&Shelf::Store(upkeep), &folder.display().to_string(), json).await?;
    if !said.is_empty() {
        say(said.trim_end());
    }
    Ok(())
}

impl Act {
    async fn perform(self, shelf: &Shelf, place: &str, json: bool) -> Result<String, Failed> {
        let things = things(shelf)?;
        let (verb, key, word) = match self {
            Self::List if json => return Ok(as_json(shelf, &things, place).to_string()),
            Self::List => return Ok(page(shelf, &things, place)),
            Self::Export { key, user_data } => {
                let chosen = match &key {
                    None => things,
                    Some(key) => vec![find(things, key)?],
                };
                let lines = chosen.iter().map(|thing| line(shelf, thing, user_data));
                return Ok(lines.collect::<Result<Vec<_>, _>>()?.join("\n"));
            }
            Self::ReleaseCheckpoints { child } => {
                return released(shelf, &things, &child, json).await;
            }
            Self::Release { key } => ("released", key, None),
            Self::Discard { key } => ("discarded", key, None),
            Self::Settle { key, word, result, by, why } => {
                ("settled", key, Some(Spoken { word, result, by, why }))
            }
        };
        let doubt = shelf.in_doubt().into_iter().find(|it| **it == *key);
        let thing = match doubt {
            Some(doubt) if !things.iter().any(|it| it.key() == key) => Thing::Doubt(doubt),
            _ => find(things, &key)?,
        };
        done(shelf, verb, &thing, word).await?;
        let key = thing.key();
        if json {
            return Ok(json!({(verb): key, "kind": thing.kind()}).to_string());
        }
        let then = match (verb, &thing, shelf) {
            ("released", Thing::Request(_), Shelf::Live(_)) => ": it is done now",
            ("released", Thing::Request(_), _) => ": the next start of the tree does it",
            ("released", _, Shelf::Live(_)) => {
                ": the next start of the tree looks at it again, or the next rollback that comes to it"
            }
            ("released", ..) => ": the next start of the tree looks at it again",
            _ => "",
        };
        Ok(format!("{verb} {} {key}{then}", thing.kind()))
    }
}

/// Releases what was set aside of a child's state, all together.
async fn released(
    shelf: &Shelf,
    things: &[Thing],
    child: &str,
    json: bool,
) -> Result<String, Failed> {
    let released = shelf.release_checkpoints(&child.into()).await;
    let released = released.map_err(|error| Failed(format!("not released: {error}")))?;
    if released.is_empty() {
        let owners = things.iter().filter_map(|thing| match thing {
            Thing::Checkpoint(it) => Some(it.checkpoint.child.as_str()),
            _ => None,
        });
        let owners: BTreeSet<&str> = owners.collect();
        let there = match owners.is_empty() {
            true => "nor of anybody else".to_owned(),
            false => format!("but of {}", list(owners)),
        };
        return Err(Failed(format!("no checkpoint of `{child}` was set aside, {there}")));
    }
    if json {
        let keys: Vec<_> = released.iter().map(ToString::to_string).collect();
        return Ok(json!({"released": keys, "kind": "checkpoint", "child": child}).to_string());
    }
    let (many, them) = if released.len() == 1 { ("", "it") } else { ("s", "them") };
    let or = match shelf {
        Shelf::Live(_) => ", or the next rollback",
        Shelf::Store(_) => "",
    };
    let count = released.len();
    Ok(format!(
        "released {count} checkpoint{many} of {child}: the next start of the tree{or} looks at {them} again"
    ))
}

/// All that a person can do something about.
fn things(shelf: &Shelf) -> Result<Vec<Thing>, Failed> {
    let bad = shelf.checkpoints().map_err(|error| Failed(error.to_string()))?;
    let requests = shelf.requests().into_iter().map(Thing::Request);
    let bad = bad.into_iter().map(Thing::Checkpoint);
    Ok(requests.chain(bad).chain(shelf.effects().open().into_iter().map(Thing::Effect)).collect())
}

/// The one with this key, or whose key alone begins like this.
fn find(things: Vec<Thing>, key: &str) -> Result<Thing, Failed> {
    let begins = |thing: &&Thing| !key.is_empty() && thing.key().starts_with(key);
    let is_it = things.iter().any(|thing| thing.key() == key);
    match things.iter().filter(begins).count() {
        0 => Err(Failed(format!(
            "nothing that waits for a person has a key that begins with `{key}`"
        ))),
        many if many > 1 && !is_it => {
            Err(Failed(format!("{many} keys begin with `{key}`: give more of the one you mean")))
        }
        _ => {
            let fits = |thing: &Thing| if is_it { thing.key() == key } else { begins(&thing) };
            let found = things.into_iter().find(fits);
            found.ok_or_else(|| Failed(format!("there is no `{key}`")))
        }
    }
}

async fn done(
    shelf: &Shelf,
    verb: &str,
    thing: &Thing,
    word: Option<Spoken>,
) -> Result<(), Failed> {
    let not = |error: String| Failed(format!("not {verb}: {error}"));
    let result = match (thing, word) {
        (Thing::Request(it), None) => match verb {
            "released" => shelf.release(&it.id).await,
            _ => shelf.discard(&it.id).await,
        },
        (Thing::Checkpoint(it), None) => match verb {
            "released" => shelf.release_checkpoint(it.checkpoint.id).await,
            _ => match shelf {
                Shelf::Store(upkeep) => upkeep.discard_checkpoint(it.checkpoint.id).await,
                // Somebody who works may be about to build on it.
                Shelf::Live(_) => {
                    let what =
                        "is given up where no tree works with it: `mainstay store FILE discard`";
                    return Err(not(format!("{} {what}", it.checkpoint.id)));
                }
            },
        },
        (Thing::Effect(it), None) => {
            let how = if matches!(shelf, Shelf::Live(_)) { "/effects" } else { "settle" };
            let what = format!("is an effect: say what became of it with `{how}`");
            return Err(not(format!("{} {what}", it.key)));
        }
        (Thing::Effect(it), Some(spoken)) => {
            return settled(shelf, it.key, spoken).await.map_err(not);
        }
        (Thing::Doubt(_), Some(Spoken { by: Some(_), .. } | Spoken { why: Some(_), .. })) => {
            return Err(not("of a request it is not kept who says so, or why".to_owned()));
        }
        (Thing::Doubt(key), Some(Spoken { word: Word::DidNotHappen, result: None, .. })) => {
            shelf.did_not_happen(key).await
        }
        (Thing::Doubt(key), _) => {
            let what = "may have been done: settle it as `did-not-happen`, or leave it";
            return Err(not(format!("{key} {what}")));
        }
        (other, Some(_)) => {
            let what = format!("is a {}: `release` or `discard` it", other.kind());
            return Err(not(format!("{} {what}", other.key())));
        }
    };
    result.map_err(|error| not(error.to_string()))
}

async fn settled(
    shelf: &Shelf,
    key: EffectKey,
    Spoken { word, result, by, why }: Spoken,
) -> Result<(), String> {
    if result.is_some() && word != Word::Happened {
        return Err(format!("what {} has no result", word.name()));
    }
    let effects = speaking(shelf.effects(), by, why);
    let settled = match word {
        Word::Happened => effects.happened(key, &settle::reply(&result.unwrap_or_default())).await,
        Word::DidNotHappen => effects.did_not_happen(key).await,
        Word::Undone => effects.undone(key).await,
        Word::Stands => effects.stands(key).await,
    };
    settled.map_err(settle::unfit)
}

/// One thing as a line of an export.
fn line(shelf: &Shelf, thing: &Thing, user_data: bool) -> Result<String, Failed> {
    let mut body = thing.as_json();
    if user_data {
        let failed = |error: &dyn fmt::Display| Failed(format!("{}: {error}", thing.key()));
        match thing {
            Thing::Request(it) => {
                let whole = shelf.export(&it.id).map_err(|error| failed(&error))?;
                let whole = serde_json::from_str::<Value>(&whole);
                body["request"] = whole.map_err(|error| failed(&error))?["request"].take();
            }
            Thing::Effect(it) => {
                let asked = shelf.effects().request(it.key).unwrap_or_default();
                let asked = serde_json::from_str(&asked).unwrap_or(Value::String(asked));
                body["request"] = asked;
            }
            Thing::Doubt(_) => {}
            Thing::Checkpoint(it) => {
                let id: CheckpointId = it.checkpoint.id;
                let bytes = shelf.export_checkpoint(id).map_err(|error| failed(&error))?;
                body["export_hex"] = json!(hex(&bytes));
            }
        }
    }
    Ok(body.to_string())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn as_json(shelf: &Shelf, things: &[Thing], place: &str) -> Value {
    let of = |kind: &str| -> Vec<Value> {
        things.iter().filter(|thing| thing.kind() == kind).map(Thing::as_json).collect()
    };
    let (settled, earlier) = settled_by_name(shelf);
    json!({
        "store": place,
        "open_requests": shelf.open_requests(),
        "requests": of("request"),
        "checkpoints": of("checkpoint"),
        "effects": of("effect"),
        "settled": settled,
        "settled_before": earlier,
    })
}

/// The latest effects on which a person has spoken by name, and that wait for nobody any more; how many there were
/// before them.
fn settled_by_name(shelf: &Shelf) -> (Vec<Value>, usize) {
    let mut effects = shelf.effects().list();
    let open: BTreeSet<_> = shelf.effects().open().iter().map(|it| it.key).collect();
    effects.retain(|it| it.said.is_some() && !open.contains(&it.key));
    let (effects, earlier) = latest(effects, SETTLED);
    (effects.into_iter().map(|it| Thing::Effect(it).as_json()).collect(), earlier)
}

/// The last of them, at most so many, and how many there were before.
fn latest<T>(mut all: Vec<T>, most: usize) -> (Vec<T>, usize) {
    let before = all.len().saturating_sub(most);
    all.drain(..before);
    (all, before)
}

/// What `list` prints for people.
fn page(shelf: &Shelf, things: &[Thing], place: &str) -> String {
    let mut text = format!("{place}: ");
    let _ = match (shelf, shelf.open_requests()) {
        (Shelf::Live(_), 0) => write!(text, "no request is open"),
        (Shelf::Live(_), 1) => write!(text, "1 request is open"),
        (Shelf::Live(_), open) => write!(text, "{open} requests are open"),
        (_, 0) => write!(text, "no request goes on at the next start"),
        (_, 1) => write!(text, "1 request goes on at the next start"),
        (_, open) => write!(text, "{open} requests go on at the next start"),
    };
    let [request, checkpoint, effect] = shelf.how();
    let parts = [
        ("request", "set aside", request),
        ("checkpoint", "that could not be restored", checkpoint),
        ("effect", "for a person to settle", effect),
    ];
    for (kind, what, how) in parts {
        let its: Vec<_> = things.iter().filter(|thing| thing.kind() == kind).collect();
        if its.is_empty() {
            continue;
        }
        let many = if its.len() == 1 { "" } else { "s" };
        let _ = write!(text, "\n{} {kind}{many} {what} ({how}):", its.len());
        for thing in its {
            let _ = write!(text, "\n  {thing}");
        }
    }
    if things.is_empty() {
        text.push_str("\nnothing was set aside, and nothing waits for a person");
    }
    text
}

/// How long ago that was.
fn ago(at: Wall) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let past = now.saturating_sub(Duration::from_millis(at.0)).as_secs();
    match past {
        0..=119 => format!("{past} s ago"),
        120..=7199 => format!("{} min ago", past / 60),
        7200..=172_799 => format!("{} h ago", past / 3600),
        _ => format!("{} days ago", past / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_is_settled_the_latest_are_listed_and_the_others_are_counted() {
        assert_eq!(latest(vec![1, 2, 3], SETTLED), (vec![1, 2, 3], 0));
        let many: Vec<_> = (0..SETTLED + 2).collect();
        let (listed, before) = latest(many, SETTLED);
        assert_eq!((listed.len(), listed[0], before), (SETTLED, 2, 2));
    }
}
