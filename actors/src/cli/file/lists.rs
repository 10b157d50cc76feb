//! Lists and dates in the places of tables.
//!
//! *Invariant.* The reader would take a list for the values of a table in their order, without their
//! names, and a date for a table with a name of its own, and so has to be kept from them.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Snag;

/// Where a table with known keys stands; `*` is any name.
pub(crate) const TABLES: [&str; 25] = [
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

/// Where a table is expected, too, and the reader says it better of a list.
const OTHERS: [&str; 12] = [
    "models",
    "groups",
    "tools",
    "people",
    "agents",
    "policy.retries",
    "watch.objectives",
    "watch.alerts",
    "groups.*.grants",
    "tools.*.env",
    "tools.*.effects.*",
    "tools.*.effects.*.*.arguments",
];

/// The first list or date that stands in the place of a table.
pub(super) fn misplaced(text: &str) -> Option<Snag> {
    // What cannot be read is told by the reader.
    let table = DeTable::parse(text).ok()?;
    let find = |lists: bool, way: &&str| {
        let way: Vec<&str> = way.split('.').collect();
        find(table.get_ref(), &way, lists, &mut Vec::new())
    };
    let tables = TABLES.iter().find_map(|way| find(true, way));
    tables.or_else(|| OTHERS.iter().find_map(|way| find(false, way)))
}

fn find<'a>(
    table: &'a DeTable<'_>,
    way: &[&str],
    lists: bool,
    names: &mut Vec<&'a str>,
) -> Option<Snag> {
    let (step, rest) = way.split_first()?;
    let fits = |name: &str| *step == "*" || *step == name;
    table.iter().filter(|(name, _)| fits(name.get_ref())).find_map(|(name, value)| {
        names.push(name.get_ref());
        let found = match value.get_ref() {
            DeValue::Table(inner) => find(inner, rest, lists, names),
            DeValue::Array(_) if rest.is_empty() && lists => Some(snag("a list", value, names)),
            DeValue::Datetime(_) if rest.is_empty() => Some(snag("a date", value, names)),
            _ => None,
        };
        names.pop();
        found
    })
}

fn snag(what: &str, value: &Spanned<DeValue<'_>>, names: &[&str]) -> Snag {
    let hint = format!("write a table: [{}], and its keys below", names.join("."));
    let message = format!("{what} where a table is expected");
    Snag::new(value.span(), message, "expected a table", hint)
}
