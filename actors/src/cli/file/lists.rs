//! Lists in the places of tables.
//!
//! *Invariant.* The reader would take a list for the values of a table in their order, without their
//! names, and so has to be kept from it.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Snag;

/// Where a table with known keys stands; `*` is any name.
const TABLES: [&str; 25] = [
    "ask",
    "supervisor",
    "policy",
    "store",
    "points",
    "watch",
    "watch.objectives.*",
    "watch.alerts.*",
    "models.*",
    "models.*.limits",
    "models.*.price_per_million",
    "groups.*",
    "groups.*.hedge",
    "groups.*.grants.*",
    "tools.*",
    "people.*",
    "agents.*",
    "agents.*.budget",
    "agents.*.checkpoint",
    "tools.*.undo",
    "tools.*.effects.*.undo",
    "tools.*.effects.*.verify",
    "groups.*.undo",
    "groups.*.verify",
    "tools.*.effects",
];

/// The first list that stands in the place of a table.
pub(super) fn misplaced(text: &str) -> Option<Snag> {
    // What cannot be read is told by the reader.
    let table = DeTable::parse(text).ok()?;
    TABLES.iter().find_map(|way| {
        let way: Vec<&str> = way.split('.').collect();
        find(table.get_ref(), &way, &mut Vec::new())
    })
}

fn find<'a>(table: &'a DeTable<'_>, way: &[&str], names: &mut Vec<&'a str>) -> Option<Snag> {
    let (step, rest) = way.split_first()?;
    let fits = |name: &str| *step == "*" || *step == name;
    table.iter().filter(|(name, _)| fits(name.get_ref())).find_map(|(name, value)| {
        names.push(name.get_ref());
        let found = match value.get_ref() {
            DeValue::Table(inner) => find(inner, rest, names),
            DeValue::Array(_) if rest.is_empty() => Some(snag(value, names)),
            _ => None,
        };
        names.pop();
        found
    })
}

fn snag(value: &Spanned<DeValue<'_>>, names: &[&str]) -> Snag {
    let hint = format!("write a table: [{}], and its keys below", names.join("."));
    Snag::new(value.span(), "a list where a table is expected", "expected a table", hint)
}
