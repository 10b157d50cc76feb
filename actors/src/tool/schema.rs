//! The JSON schema of a tool's arguments: made from their type, and held against what a model wrote.
//!
//! *Invariant.* The check only refuses what the schema forbids in words it knows; a keyword it does
//! not know is no reason to refuse. Reading into the type has the last word.

use std::cell::Cell;
use std::collections::HashSet;
use std::fmt::Write;
use std::rc::Rc;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;

use serde_json::{Map, Value};

pub(crate) mod known;

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
    told(
        Check { root: schema, subject: "argument", found: Vec::new(), steps: Rc::default() },
        arguments,
    )
}

/// What is wrong with what a tool has given, by the schema that it has declared itself. Neither is ours, so what is
/// said of it has a limit, and what cannot be looked at is taken as it is.
pub(crate) fn broken(schema: &Value, result: &Value) -> String {
    let check = Check { root: schema, subject: RESULT, found: Vec::new(), steps: Rc::default() };
    let mut text = told(check, result);
    if text.len() > LONGEST_TOLD {
        let end = (0..=LONGEST_TOLD).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or(0));
        text.push('\u{2026}');
    }
    text
}

/// What is wrong with an answer, of a schema that is [checked](known::checkable) in full.
pub(crate) fn faults(schema: &Value, answer: &Value) -> String {
    told(Check { root: schema, subject: ANSWER, found: Vec::new(), steps: Rc::default() }, answer)
}

const ANSWER: &str = "field";
const RESULT: &str = "member";

fn told(mut check: Check<'_>, value: &Value) -> String {
    check.value(check.root, value, "", 0);
    let more = check.found.len().saturating_sub(MOST);
    check.found.truncate(MOST);
    let mut text = check.found.join("; ");
    if more > 0 {
        let _ = write!(text, "; and {more} more");
    }
    text
}

struct Check<'a> {
    root: &'a Value,
    /// What parts of the value are called.
    subject: &'static str,
    found: Vec<String>,
    /// How many schemas and words were looked at, also by those made [apart](Check::apart).
    steps: Rc<Cell<usize>>,
}

impl<'a> Check<'a> {
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

    /// What is wrong with the value by another schema.
    fn apart(&self, schema: &'a Value, value: &Value, path: &str, depth: usize) -> Vec<String> {
        let Self { root, subject, .. } = *self;
        let mut apart = Check { root, subject, found: Vec::new(), steps: Rc::clone(&self.steps) };
        apart.value(schema, value, path, depth + 1);
        apart.found
    }

    fn value(&mut self, schema: &'a Value, value: &Value, path: &str, depth: usize) {
        self.steps.set(self.steps.get() + 1);
        if depth > DEEPEST || self.steps.get() > LONGEST {
            if self.subject == ANSWER {
                self.say(path, "is nested too deep to be checked");
            }
            return;
        }
        if *schema == Value::Bool(false) {
            self.say(path, "must not be there");
        }
        if let Some(target) = schema["$ref"].as_str().and_then(|text| text.strip_prefix('#'))
            && let Some(target) = self.root.pointer(target)
        {
            self.value(target, value, path, depth + 1);
        }
        for schema in schema["allOf"].as_array().into_iter().flatten() {
            self.value(schema, value, path, depth + 1);
        }
        for word in ["anyOf", "oneOf"] {
            if let Some(choices) = schema[word].as_array() {
                self.choices(choices, value, path, depth, word == "oneOf");
            }
        }
        if let Some(not) = schema.get("not")
            && self.apart(not, value, path, depth).is_empty()
        {
            self.say(path, &format!("is what it must not be: {not}"));
        }
        if !self.kind(&schema["type"], value, path) {
            return;
        }
        if let Some(allowed) = schema["enum"].as_array() {
            self.steps.set(self.steps.get() + allowed.len());
            if !allowed.contains(value) {
                let told = allowed.iter().take(MOST_NAMED).map(Value::to_string);
                let more = if allowed.len() > MOST_NAMED { ", \u{2026}" } else { "" };
                let told = Vec::from_iter(told).join(", ");
                self.say(path, &format!("is none of {told}{more}"));
            }
        }
        if let Some(only) = schema.get("const")
            && only != value
        {
            self.say(path, &format!("is not {only}"));
        }
        self.number(schema, value, path);
        match value {
            Value::Object(fields) => self.object(schema, fields, path, depth),
            Value::String(text) => {
                self.count(schema, "Length", text.chars().count(), "characters", path);
            }
            Value::Array(items) => {
                self.count(schema, "Items", items.len(), "items", path);
                let mut seen = HashSet::new();
                if schema["uniqueItems"] == true && !items.iter().all(|item| seen.insert(item)) {
                    self.say(path, "has the same item twice");
                }
                for (index, item) in items.iter().enumerate() {
                    self.value(&schema["items"], item, &format!("{path}[{index}]"), depth + 1);
                }
            }
            _ => {}
        }
    }

    fn number(&mut self, schema: &Value, value: &Value, path: &str) {
        type IsOutside = fn(f64, f64) -> bool;
        let Some(number) = value.as_f64() else { return };
        let outside: [(&str, &str, IsOutside); 4] = [
            ("minimum", "is below", |number, limit| number < limit),
            ("maximum", "is above", |number, limit| number > limit),
            ("exclusiveMinimum", "is not above", |number, limit| number <= limit),
            ("exclusiveMaximum", "is not below", |number, limit| number >= limit),
        ];
        for (keyword, words, is_outside) in outside {
            if schema[keyword].as_f64().is_some_and(|limit| is_outside(number, limit)) {
                self.say(path, &format!("{words} {}", schema[keyword]));
            }
        }
        let unit = schema["multipleOf"].as_f64().filter(|unit| *unit > 0.0);
        let off = |unit: f64| {
            let times = number / unit;
            // Decimal fractions are not exact.
            (times - times.round()).abs() > 1e-9 * times.abs().max(1.0)
        };
        if unit.is_some_and(off) {
            self.say(path, &format!("is no multiple of {}", schema["multipleOf"]));
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
        let mut nearest: Option<Vec<String>> = None;
        let mut fitting = 0;
        for choice in choices {
            let found = self.apart(choice, value, path, depth);
            if found.is_empty() {
                fitting += 1;
                // The first is enough, unless there must be no second.
                if !only_one || fitting > 1 {
                    break;
                }
                continue;
            }
            // `null` is a choice for what may be left out, and nobody's intention.
            if choice["type"] != "null" && nearest.as_ref().is_none_or(|it| it.len() > found.len())
            {
                nearest = Some(found);
            }
        }
        match fitting {
            0 => self.found.extend(nearest.unwrap_or_default()),
            1 => {}
            _ => self.say(path, "fits more than one of the shapes of which it must have one"),
        }
    }

    /// Whether the value is of the type; says so when it is not.
    fn kind(&mut self, wanted: &Value, value: &Value, path: &str) -> bool {
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
            let wanted: Vec<_> = wanted.into_iter().filter(|wanted| *wanted != "null").collect();
            self.say(path, &format!("is of type {is}, not {}", wanted.join(" or ")));
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
        self.steps.set(self.steps.get() + looks);
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
        for (name, value) in fields {
            if known.is_some_and(|known| known.contains_key(name)) {
                continue;
            }
            if schema["additionalProperties"] == false {
                let known: Vec<_> =
                    known.into_iter().flatten().map(|(name, _)| name.as_str()).collect();
                let text = format!("is not known; there are: {}", known.join(", "));
                self.say(&inner(name), &text);
            } else {
                self.value(&schema["additionalProperties"], value, &inner(name), depth + 1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use serde_json::json;

    #[derive(Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only its schema is of interest")]
    struct Transfer {
        /// Whose account pays.
        from: String,
        #[schemars(range(min = 1, max = 1000))]
        amount: u32,
        currency: Option<Currency>,
        parts: Vec<Part>,
    }

    #[derive(Deserialize, JsonSchema)]
    enum Currency {
        Eur,
        Usd,
    }

    #[derive(Deserialize, JsonSchema)]
    #[expect(dead_code, reason = "only its schema is of interest")]
    struct Part {
        to: String,
        note: Option<String>,
    }

    #[derive(Deserialize, JsonSchema)]
    struct Nothing {}

    #[test]
    fn a_type_becomes_a_schema_that_says_what_its_fields_are_for() {
        let schema = of::<Transfer>();
        assert_eq!(schema["properties"]["from"]["description"], "Whose account pays.");
        assert_eq!(schema["required"], json!(["from", "amount", "parts"]));
        assert!(
            schema.get("$schema").is_none() && !schema.to_string().contains("$ref"),
            "{schema}"
        );
        assert_eq!(of::<Nothing>()["properties"], json!({}));
        assert_eq!(of::<Nothing>()["type"], "object");
    }

    #[test]
    fn a_schema_that_names_itself_twice_is_looked_at_for_so_long_and_no_longer() {
        let twice = json!({"allOf": [{"$ref": "#"}, {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}]});
        // It would take 2^32 looks otherwise, and not end.
        assert_eq!(problems(&twice, &json!({})), "");
        assert!(faults(&twice, &json!({})).contains("too deep to be checked"));
    }

    #[test]
    fn what_is_said_of_anothers_result_has_a_limit_and_is_looked_for_so_long() {
        let schema = json!({"type": "object", "properties": {"a": {"type": "string"}}});
        assert_eq!(broken(&schema, &json!({"a": "b", "c": 1})), "");
        assert_eq!(
            broken(&schema, &json!({"a": 1})),
            "member \"a\" is of type integer, not string"
        );
        assert_eq!(broken(&schema, &json!([])), "it is of type array, not object");
        let closed = json!({"additionalProperties": false});
        let said = broken(&closed, &json!({"ä".repeat(2000): 1}));
        assert!(said.ends_with('\u{2026}') && said.len() <= LONGEST_TOLD + 3, "{}", said.len());
        // Ours would be refused; of another's that is not known.
        let twice = json!({"allOf": [{"$ref": "#"}, {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}]});
        assert_eq!(broken(&twice, &json!({})), "");
        let items: Vec<u32> = (0..100_000).collect();
        let unique = json!({"uniqueItems": true, "items": {"enum": items}});
        let mut again = items.clone();
        again.push(7);
        assert_eq!(broken(&unique, &json!(items)), "");
        assert_eq!(broken(&unique, &json!(again)), "it has the same item twice");
    }

    #[test]
    fn every_problem_names_its_argument() {
        let schema = of::<Transfer>();
        let good = json!({"from": "a", "amount": 5, "currency": "Eur", "parts": [{"to": "b"}]});
        assert_eq!(problems(&schema, &good), "");
        let none = json!({"from": "a", "amount": 5, "currency": null, "parts": []});
        assert_eq!(problems(&schema, &none), "");
        let bad = json!({
            "amount": 5000, "currency": "Yen", "parts": [{"to": "b"}, {"note": 7}], "form": "a",
        });
        let text = problems(&schema, &bad);
        for part in [
            "argument \"from\" is missing",
            "argument \"amount\" is above 1000",
            "argument \"currency\" is none of \"Eur\", \"Usd\"",
            "argument \"parts[1].to\" is missing",
            "argument \"parts[1].note\" is of type integer, not string",
            "argument \"form\" is not known; there are: ",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        assert_eq!(problems(&schema, &json!([])), "arguments: is of type array, not object");
        // In the order in which the type has them, and not of the letters or of what was written.
        let order = json!({"parts": [7], "nobody": 1, "currency": 7, "from": 1, "amount": "x"});
        assert_eq!(
            problems(&schema, &order),
            "argument \"from\" is of type integer, not string; \
             argument \"amount\" is of type string, not integer; \
             argument \"parts[0]\" is of type integer, not object; \
             argument \"currency\" is of type integer, not string; \
             argument \"nobody\" is not known; there are: amount, currency, from, parts"
        );
        let many = json!({"from": 1, "amount": "x", "parts": vec![json!({}); 20]});
        assert!(
            problems(&schema, &many).ends_with("; and 14 more"),
            "{}",
            problems(&schema, &many)
        );
    }

    #[test]
    fn every_word_of_a_schema_that_is_checked_forbids_something() {
        let tree = json!({"$defs": {"t": {"type": "array", "items": {"$ref": "#/$defs/t"}}}, "$ref": "#/$defs/t"});
        let deep = (0..70).fold(json!([]), |inner, _| json!([inner]));
        for (schema, good, bad, said) in [
            (json!({"exclusiveMinimum": 1}), json!(1.5), json!(1), "it is not above 1"),
            (json!({"exclusiveMaximum": 1}), json!(0.5), json!(1), "it is not below 1"),
            (json!({"multipleOf": 0.1}), json!(0.3), json!(0.35), "it is no multiple of 0.1"),
            (json!({"minLength": 2}), json!("äö"), json!("ä"), "it has fewer than 2 characters"),
            (json!({"maxLength": 1}), json!("ä"), json!("ab"), "it has more than 1 characters"),
            (json!({"minItems": 1}), json!([1]), json!([]), "it has fewer than 1 items"),
            (json!({"maxItems": 1}), json!([1]), json!([1, 2]), "it has more than 1 items"),
            (
                json!({"uniqueItems": true}),
                json!([1, 2]),
                json!([1, 2, 1]),
                "it has the same item twice",
            ),
            (json!({"minProperties": 1}), json!({"a": 1}), json!({}), "it has fewer than 1 fields"),
            (json!({"maxProperties": 0}), json!({}), json!({"a": 1}), "it has more than 0 fields"),
            (json!({"not": {"type": "null"}}), json!(1), json!(null), "it is what it must not be"),
            (
                json!({"allOf": [{"minimum": 1}, {"maximum": 2}]}),
                json!(1),
                json!(3),
                "it is above 2",
            ),
            (
                json!({"oneOf": [{"minimum": 1}, {"maximum": 2}]}),
                json!(3),
                json!(1),
                "fits more than one",
            ),
            (
                json!({"oneOf": [{"type": "null"}], "anyOf": [{"minimum": 1}, {}]}),
                json!(null),
                json!(0),
                "",
            ),
            (
                json!({"additionalProperties": {"type": "null"}}),
                json!({"a": null}),
                json!({"a": 1}),
                "field \"a\" is of type",
            ),
            (
                json!({"properties": {"a": false}}),
                json!({"b": 1}),
                json!({"a": 1}),
                "field \"a\" must not be there",
            ),
            (
                json!({"$defs": {"n": {"type": "number"}}, "$ref": "#/$defs/n", "minimum": 2}),
                json!(2),
                json!(1),
                "it is below 2",
            ),
            (tree, json!([[], [[]]]), deep, "is nested too deep"),
        ] {
            assert_eq!(known::checkable(&schema), Ok(()));
            assert_eq!(faults(&schema, &good), "", "{schema}");
            assert!(faults(&schema, &bad).contains(said), "{schema}: {}", faults(&schema, &bad));
        }
    }
}
