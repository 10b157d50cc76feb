//! The JSON schema of a tool's arguments: made from their type, and held against what a model wrote.
//!
//! *Invariant.* The check only refuses what the schema forbids for certain. A value is of a schema, is not, or it is
//! [not known](Check::unsure): by a word that is not known here, or a look that was given up. What is not known
//! is no reason to refuse at any depth, also not within a `not` or a `oneOf`. Reading into the type has the last word.

use std::cell::Cell;
use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt::Write;
use std::rc::Rc;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;

use serde_json::{Map, Number, Value};

pub(crate) mod known;
#[cfg(test)]
mod tests;

/// Problems that are told at once; a model that is told of more mends none.
const MOST: usize = 8;
/// Values that one of must be that are named; of a long list a model makes no more.
const MOST_NAMED: usize = 32;
/// How deep values are looked at. Beyond, the type of a tool's arguments decides; an answer has none.
const DEEPEST: usize = 64;
/// How many schemas, and words of them, are looked at for one value: one that names itself twice doubles them at
/// each depth. What comes after is treated as what is too deep.
const LONGEST: usize = 200_000;
/// The longest text about what another's tool has given, in bytes.
const LONGEST_TOLD: usize = 1000;

/// The schema of a type, without what only matters to people.
pub(super) fn of<A: JsonSchema>() -> Value {
    // Written out in place: some providers do not follow references.
    let settings =
        SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<A>().to_value();
    if let Some(schema) = schema.as_object_mut() {
        schema.remove("$schema");
        schema.remove("title");
        // What a type without arguments leaves out and providers insist on.
        schema.entry("type").or_insert_with(|| "object".into());
        schema.entry("properties").or_insert_with(|| Map::new().into());
    }
    schema
}

/// What is wrong with the arguments, each argument by its name; empty when nothing is.
pub(crate) fn problems(schema: &Value, arguments: &Value) -> String {
    told(Check::new(schema, "argument"), arguments)
}

/// What is wrong with what a tool has given, by the schema that it has declared itself. Neither is ours, so what is
/// said of it has a limit, and what cannot be looked at is taken as it is.
pub(crate) fn broken(schema: &Value, result: &Value) -> String {
    let mut text = told(Check::new(schema, RESULT), result);
    if text.len() > LONGEST_TOLD {
        let end = (0..=LONGEST_TOLD).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or(0));
        text.push('\u{2026}');
    }
    text
}

/// What is wrong with an answer, of a schema that is [checked](known::checkable) in full.
pub(crate) fn faults(schema: &Value, answer: &Value) -> String {
    told(Check::new(schema, ANSWER), answer)
}

const ANSWER: &str = "field";
const RESULT: &str = "member";

fn told(mut check: Check<'_>, value: &Value) -> String {
    check.value(check.root, value, "", 0);
    if check.subject == ANSWER && check.unsure && check.found.is_empty() && check.looks.ended.get()
    {
        check.say("", "is nested too deep to be checked");
    }
    let more = check.found.len().saturating_sub(MOST);
    check.found.truncate(MOST);
    let mut text = check.found.join("; ");
    if more > 0 {
        let _ = write!(text, "; and {more} more");
    }
    text
}

/// How much was looked at, also by checks made [apart](Check::apart).
#[derive(Default)]
struct Looks {
    /// Schemas and words.
    steps: Cell<usize>,
    /// Something was not looked at, since it was too deep or too much.
    ended: Cell<bool>,
}

struct Check<'a> {
    root: &'a Value,
    /// What parts of the value are called.
    subject: &'static str,
    /// What is wrong for certain.
    found: Vec<String>,
    /// Something may be wrong besides: it is not known.
    unsure: bool,
    looks: Rc<Looks>,
    /// The schema says that it is of a dialect in which nothing counts beside a `$ref`, and a list of items is another.
    is_old: bool,
}

impl<'a> Check<'a> {
    fn new(root: &'a Value, subject: &'static str) -> Self {
        let dialect = root["$schema"].as_str().filter(|_| subject != ANSWER);
        let is_old = dialect.is_some_and(|dialect| dialect.contains("/draft-0"));
        Self { root, subject, found: Vec::new(), unsure: false, looks: Rc::default(), is_old }
    }

    fn step(&self, count: usize) {
        self.looks.steps.set(self.looks.steps.get() + count);
    }

    fn say(&mut self, path: &str, what: &str) {
        // The others are counted.
        if self.found.len() >= MOST {
            return self.found.push(String::new());
        }
        let name = match (path.is_empty(), self.subject) {
            (false, subject) => format!("{subject} \"{path}\""),
            (true, ANSWER | RESULT) => "it".to_owned(),
            (true, _) => "arguments:".to_owned(),
        };
        self.found.push(format!("{name} {what}"));
    }

    /// The value by another schema.
    fn apart(&self, schema: &'a Value, value: &Value, path: &str, depth: usize) -> Self {
        let looks = Rc::clone(&self.looks);
        let mut apart = Self { found: Vec::new(), unsure: false, looks, ..*self };
        apart.value(schema, value, path, depth + 1);
        apart
    }

    fn value(&mut self, schema: &'a Value, value: &Value, path: &str, depth: usize) {
        self.step(1);
        if depth > DEEPEST || self.looks.steps.get() > LONGEST {
            self.looks.ended.set(true);
            self.unsure = true;
            return;
        }
        let words = match schema {
            Value::Bool(true) => return,
            Value::Bool(false) => return self.say(path, "must not be there"),
            Value::Object(words) => words,
            _ => return self.unsure = true,
        };
        // So many are nobody's but an attacker's.
        self.step(words.len() / 16);
        // What leads to something within it leads elsewhere than it says here.
        let is_apart = words.contains_key("$id") && !std::ptr::eq(schema, self.root);
        // Not of JSON schema, but many mean by it that it may be null, and some check it.
        let is_null = value.is_null() && schema["nullable"] == true;
        if self.subject != ANSWER && (is_apart || is_null) {
            self.unsure = true;
            return;
        }
        let strict = self.subject == ANSWER;
        self.unsure |= !words.iter().all(|(word, value)| known::is_checked(word, value, strict));
        if let Some(target) = words.get("$ref") {
            let target = target.as_str().and_then(|text| text.strip_prefix('#'));
            let root = self.root;
            match target.and_then(|target| root.pointer(target)) {
                Some(target) => self.value(target, value, path, depth + 1),
                None => self.unsure = true,
            }
            if self.is_old {
                return;
            }
        }
        for schema in schema["allOf"].as_array().into_iter().flatten() {
            self.value(schema, value, path, depth + 1);
        }
        for word in ["anyOf", "oneOf"] {
            if let Some(choices) = schema[word].as_array() {
                self.choices(choices, value, path, depth, word == "oneOf");
            }
        }
        if let Some(not) = words.get("not") {
            match self.apart(not, value, path, depth) {
                Check { found, .. } if !found.is_empty() => {}
                Check { unsure: true, .. } => self.unsure = true,
                _ => self.say(path, &format!("is what it must not be: {not}")),
            }
        }
        if !self.kind(&schema["type"], value, path) {
            return;
        }
        if let Some(allowed) = schema["enum"].as_array() {
            self.step(allowed.len());
            if !allowed.iter().any(|allowed| same(allowed, value)) {
                let told = allowed.iter().take(MOST_NAMED).map(Value::to_string);
                let more = if allowed.len() > MOST_NAMED { ", \u{2026}" } else { "" };
                let told = Vec::from_iter(told).join(", ");
                self.say(path, &format!("is none of {told}{more}"));
            }
        }
        if let Some(only) = words.get("const")
            && !same(only, value)
        {
            self.say(path, &format!("is not {only}"));
        }
        match value {
            Value::Number(number) => self.number(schema, number, path),
            Value::Object(fields) => self.object(schema, fields, path, depth),
            Value::String(text) => {
                self.count(schema, "Length", text.chars().count(), "characters", path);
            }
            Value::Array(items) => self.array(schema, items, path, depth),
            Value::Null | Value::Bool(_) => {}
        }
    }

    fn number(&mut self, schema: &Value, number: &Number, path: &str) {
        type Outside = fn(Ordering) -> bool;
        let outside: [(&str, &str, Outside); 4] = [
            ("minimum", "is below", Ordering::is_lt),
            ("maximum", "is above", Ordering::is_gt),
            ("exclusiveMinimum", "is not above", Ordering::is_le),
            ("exclusiveMaximum", "is not below", Ordering::is_ge),
        ];
        for (keyword, words, is_outside) in outside {
            if let Value::Number(limit) = &schema[keyword]
                && is_outside(order(number, limit))
            {
                self.say(path, &format!("{words} {limit}"));
            }
        }
        let Value::Number(unit) = &schema["multipleOf"] else { return };
        if order(unit, &0.into()).is_le() {
            return self.unsure = true;
        }
        let off = match (whole(number), whole(unit)) {
            (Some(number), Some(unit)) => number % unit != 0,
            _ => {
                let times = number.as_f64().unwrap_or_default() / unit.as_f64().unwrap_or(1.0);
                // Decimal fractions are not exact.
                self.unsure |= times.fract() != 0.0 || times.abs() > 1e15;
                (times - times.round()).abs() > 1e-9 * times.abs().max(1.0)
            }
        };
        if off {
            self.say(path, &format!("is no multiple of {unit}"));
        }
    }

    fn array(&mut self, schema: &'a Value, items: &[Value], path: &str, depth: usize) {
        self.count(schema, "Items", items.len(), "items", path);
        if schema["uniqueItems"] == true {
            let mut seen = HashSet::new();
            if !items.iter().all(|item| seen.insert(item)) {
                self.say(path, "has the same item twice");
            }
            // To a schema it is the same as the whole number, which these are not.
            self.unsure |= items.iter().any(has_whole_fraction);
        }
        // The first are of the schemas of their places, and the others of that of all others.
        let first: &[Value] =
            schema["prefixItems"].as_array().map(Vec::as_slice).unwrap_or_default();
        for (index, item) in items.iter().enumerate() {
            let schema = match first.get(index) {
                Some(first) if !self.is_old => Some(first),
                Some(_) => None,
                None => schema.get("items"),
            };
            if let Some(schema) = schema {
                self.value(schema, item, &format!("{path}[{index}]"), depth + 1);
            }
        }
    }

    fn count(&mut self, schema: &Value, what: &str, count: usize, unit: &str, path: &str) {
        let limit = |end: &str| schema[format!("{end}{what}")].as_u64();
        if let Some(least) = limit("min").filter(|least| (count as u64) < *least) {
            self.say(path, &format!("has fewer than {least} {unit}"));
        }
        if let Some(most) = limit("max").filter(|most| count as u64 > *most) {
            self.say(path, &format!("has more than {most} {unit}"));
        }
    }

    /// One of several shapes. When none fits, the one that says something about its inside is told.
    fn choices(
        &mut self,
        choices: &'a [Value],
        value: &Value,
        path: &str,
        depth: usize,
        only_one: bool,
    ) {
        let mut nearest: Option<((bool, bool, usize), Vec<String>)> = None;
        let (mut fitting, mut unsure) = (0, false);
        for choice in choices {
            let Check { found, unsure: is_unsure, .. } = self.apart(choice, value, path, depth);
            if found.is_empty() && is_unsure {
                unsure = true;
                continue;
            }
            if found.is_empty() {
                fitting += 1;
                // The first is enough, unless there must be no second.
                if !only_one || fitting > 1 {
                    break;
                }
                continue;
            }
            // `null` is a choice for what may be left out, and nobody's intention; one that the value names is meant.
            let is_null = choice["type"] == "null";
            let is_meant = only_name(choice).is_some_and(|name| value.get(name).is_some());
            let distance = (is_null, !is_meant, found.len());
            if nearest.as_ref().is_none_or(|(before, _)| *before > distance) {
                nearest = Some((distance, found));
            }
        }
        match fitting {
            0 if !unsure => match nearest {
                Some((_, found)) => match self.names(choices, value) {
                    Some(told) => self.say(path, &told),
                    None => self.found.extend(found),
                },
                // There is none.
                None => self.unsure = true,
            },
            1 if !only_one || !unsure => {}
            0 | 1 => self.unsure = true,
            _ => self.say(path, "fits more than one of the shapes of which it must have one"),
        }
    }

    /// Of what the value would have to be one, where each choice is one of some names, alone or with something behind it,
    /// as those of an enum in Rust are, and the value is none of them.
    fn names(&self, choices: &[Value], value: &Value) -> Option<String> {
        let mut told = Vec::new();
        for choice in choices {
            if let Some(all) = choice["enum"].as_array() {
                self.step(all.len());
                told.extend(all.iter().map(Value::to_string));
            } else if let Some(one) = choice.get("const") {
                told.push(one.to_string());
            } else {
                // If it is this one, what is behind it is wrong.
                let name = only_name(choice).filter(|name| value.get(name).is_none())?;
                told.push(format!("{{{}: \u{2026}}}", Value::from(name)));
            }
        }
        let more = if told.len() > MOST_NAMED { ", \u{2026}" } else { "" };
        let is_choice = told.len() > 1;
        told.truncate(MOST_NAMED);
        is_choice.then(|| format!("is none of {}{more}", told.join(", ")))
    }

    /// Whether the value is of the type; says so when it is not.
    fn kind(&mut self, wanted: &Value, value: &Value, path: &str) -> bool {
        if !known::is_checked("type", wanted, false) {
            // It may be one that is not known.
            return true;
        }
        let wanted: Vec<&str> = match wanted {
            Value::String(one) => vec![one],
            Value::Array(some) => some.iter().filter_map(Value::as_str).collect(),
            _ => return true,
        };
        let is = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(number) if number.is_f64() => "number",
            Value::Number(_) => "integer",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        // 3.0 is an integer to a schema; whether it is one to the type, the type says.
        let whole = value.as_f64().is_some_and(|number| number.fract() == 0.0);
        let fits = wanted.iter().any(|wanted| {
            *wanted == is || *wanted == "number" && is == "integer" || *wanted == "integer" && whole
        });
        if !fits {
            let mut names = wanted.clone();
            names.retain(|name| *name != "null");
            let names = if names.is_empty() { wanted } else { names };
            self.say(path, &format!("is of type {is}, not {}", names.join(" or ")));
        }
        fits
    }

    fn object(&mut self, schema: &'a Value, fields: &Map<String, Value>, path: &str, depth: usize) {
        let inner =
            |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        let known = schema["properties"].as_object();
        let required = schema["required"].as_array().into_iter().flatten();
        let mut first = HashSet::new();
        let looks = known.map_or(0, Map::len) + schema["required"].as_array().map_or(0, Vec::len);
        self.step(looks);
        // In the order of the schema, which is that of a table where it has no other.
        for name in required.filter_map(Value::as_str) {
            match (fields.get(name), known.and_then(|known| known.get(name))) {
                (None, _) => self.say(&inner(name), "is missing"),
                (Some(value), Some(schema)) if first.insert(name) => {
                    self.value(schema, value, &inner(name), depth + 1);
                }
                (Some(_), _) => {}
            }
        }
        self.count(schema, "Properties", fields.len(), "fields", path);
        for (name, schema) in known.into_iter().flatten() {
            if let Some(value) = fields.get(name)
                && !first.contains(&**name)
            {
                self.value(schema, value, &inner(name), depth + 1);
            }
        }
        let Some(others) = schema.get("additionalProperties") else { return };
        // Which of them these are for is not known: what they are is not looked at.
        if schema
            .get("patternProperties")
            .is_some_and(|patterns| *patterns != Value::Object(Map::new()))
        {
            self.unsure = true;
            return;
        }
        for (name, value) in fields {
            if known.is_some_and(|known| known.contains_key(name)) {
                continue;
            }
            if *others == false {
                let known: Vec<_> =
                    known.into_iter().flatten().map(|(name, _)| name.as_str()).collect();
                let text = format!("is not known; there are: {}", known.join(", "));
                self.say(&inner(name), &text);
            } else {
                self.value(others, value, &inner(name), depth + 1);
            }
        }
    }
}

/// The number, if it is whole: 1.0 is 1 to a schema.
#[expect(clippy::cast_possible_truncation, reason = "it is whole, and far within")]
fn whole(number: &Number) -> Option<i128> {
    let fraction = || number.as_f64().filter(|it| it.fract() == 0.0 && it.abs() < 1e30);
    let int = number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
    int.or_else(|| fraction().map(|it| it as i128))
}

fn order(one: &Number, other: &Number) -> Ordering {
    match (whole(one), whole(other)) {
        (Some(one), Some(other)) => one.cmp(&other),
        // One of them is no whole number, or larger than all of those: no rounding turns them round.
        _ => one.as_f64().partial_cmp(&other.as_f64()).unwrap_or(Ordering::Equal),
    }
}

/// Whether they are the same to a schema.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => order(one, other).is_eq(),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            let has = |name, one| other.get(name).is_some_and(|other| same(one, other));
            one.len() == other.len() && one.iter().all(|(name, one)| has(name, one))
        }
        _ => one == other,
    }
}

fn has_whole_fraction(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_f64() && whole(number).is_some(),
        Value::Array(items) => items.iter().any(has_whole_fraction),
        Value::Object(fields) => fields.values().any(has_whole_fraction),
        _ => false,
    }
}

/// The only field that a schema has, and that must be there: the name of one of an enum, with its data behind it.
fn only_name(schema: &Value) -> Option<&str> {
    let fields = schema["properties"].as_object().filter(|fields| fields.len() == 1)?;
    let name = fields.keys().next()?.as_str();
    let required = schema["required"].as_array()?;
    required.iter().any(|it| it == name).then_some(name)
}
