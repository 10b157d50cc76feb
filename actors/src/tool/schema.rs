//! The JSON schema of a tool's arguments: made from their type, and held against what a model wrote.
//!
//! *Invariant.* The check only refuses what the schema forbids in words it knows; a keyword it does
//! not know is no reason to refuse. Reading into the type has the last word.

use std::fmt::Write;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

/// Problems that are told at once; a model that is told of more mends none.
const MOST: usize = 8;
/// How deep arguments are looked at; beyond, the type decides.
const DEEPEST: usize = 32;

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
    let mut check = Check { root: schema, found: Vec::new() };
    check.value(schema, arguments, "", 0);
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
    found: Vec<String>,
}

impl<'a> Check<'a> {
    fn say(&mut self, path: &str, what: &str) {
        let name =
            if path.is_empty() { "arguments:".to_owned() } else { format!("argument \"{path}\"") };
        self.found.push(format!("{name} {what}"));
    }

    fn value(&mut self, schema: &'a Value, value: &Value, path: &str, depth: usize) {
        if depth > DEEPEST {
            return;
        }
        if let Some(target) = schema["$ref"].as_str().and_then(|text| text.strip_prefix('#')) {
            if let Some(target) = self.root.pointer(target) {
                self.value(target, value, path, depth + 1);
            }
            return;
        }
        if let Some(choices) = schema["anyOf"].as_array().or_else(|| schema["oneOf"].as_array()) {
            self.choices(choices, value, path, depth);
        }
        if !self.kind(&schema["type"], value, path) {
            return;
        }
        if let Some(allowed) = schema["enum"].as_array()
            && !allowed.contains(value)
        {
            let allowed: Vec<_> = allowed.iter().map(Value::to_string).collect();
            self.say(path, &format!("is none of {}", allowed.join(", ")));
        }
        if let Some(only) = schema.get("const")
            && only != value
        {
            self.say(path, &format!("is not {only}"));
        }
        for (keyword, words) in [("minimum", "below"), ("maximum", "above")] {
            if let (Some(limit), Some(number)) = (schema[keyword].as_f64(), value.as_f64())
                && if keyword == "minimum" { number < limit } else { number > limit }
            {
                self.say(path, &format!("is {words} {}", schema[keyword]));
            }
        }
        match value {
            Value::Object(fields) => self.object(schema, fields, path, depth),
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.value(&schema["items"], item, &format!("{path}[{index}]"), depth + 1);
                }
            }
            _ => {}
        }
    }

    /// One of several shapes. When none fits, the one that says something about its inside is told.
    fn choices(&mut self, choices: &'a [Value], value: &Value, path: &str, depth: usize) {
        let mut nearest: Option<Vec<String>> = None;
        for choice in choices {
            let mut one = Check { root: self.root, found: Vec::new() };
            one.value(choice, value, path, depth + 1);
            if one.found.is_empty() {
                return;
            }
            // `null` is a choice for what may be left out, and nobody's intention.
            if choice["type"] != "null"
                && nearest.as_ref().is_none_or(|it| it.len() > one.found.len())
            {
                nearest = Some(one.found);
            }
        }
        self.found.extend(nearest.unwrap_or_default());
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
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !fields.contains_key(name) {
                self.say(&inner(name), "is missing");
            }
        }
        let known = schema["properties"].as_object();
        for (name, value) in fields {
            match known.and_then(|known| known.get(name)) {
                Some(schema) => self.value(schema, value, &inner(name), depth + 1),
                None if schema["additionalProperties"] == false => {
                    let known: Vec<_> =
                        known.into_iter().flatten().map(|(name, _)| name.as_str()).collect();
                    let text = format!("is not known; there are: {}", known.join(", "));
                    self.say(&inner(name), &text);
                }
                None => {}
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
        let many = json!({"from": 1, "amount": "x", "parts": vec![json!({}); 20]});
        assert!(
            problems(&schema, &many).ends_with("; and 14 more"),
            "{}",
            problems(&schema, &many)
        );
    }
}
