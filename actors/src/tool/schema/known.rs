//! Which part of JSON schema is checked here, and what of a schema is not.
//!
//! *Invariant.* A schema in which nothing is found is checked in full: no word of it is passed over but those that
//! forbid nothing.

use std::collections::HashSet;

use serde_json::{Map, Value};

/// Words whose value is a schema.
const ONE: [&str; 3] = ["additionalProperties", "items", "not"];
/// Words whose value is a list of schemas.
const SOME: [&str; 3] = ["allOf", "anyOf", "oneOf"];
/// Words whose value is a table of schemas by names.
const NAMED: [&str; 3] = ["properties", "$defs", "definitions"];
/// Words whose value is a number.
const NUMBERS: [&str; 5] =
    ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"];
/// Words whose value is a whole number.
const COUNTS: [&str; 6] =
    ["minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"];
/// Words that forbid nothing. A `format` is a note, too, unless a schema's dialect says otherwise.
const NOTES: [&str; 15] = [
    "$comment",
    "$id",
    "$schema",
    "contentEncoding",
    "contentMediaType",
    "contentSchema",
    "default",
    "deprecated",
    "description",
    "example",
    "examples",
    "format",
    "readOnly",
    "title",
    "writeOnly",
];
const TYPES: [&str; 7] = ["array", "boolean", "integer", "null", "number", "object", "string"];

/// The first thing in the schema that is not checked, or is no JSON schema, with where it stands.
///
/// # Errors
/// Its words.
pub(crate) fn checkable(schema: &Value) -> Result<(), String> {
    walk(schema, schema, "")
}

/// Whether the schema says of every object which fields it has, and that it has them all: what a provider
/// that enforces a schema wants of it. It uses no word that one of them does not know.
pub(crate) fn is_closed(schema: &Value) -> bool {
    schema["type"] == "object" && schema.get("anyOf").is_none() && closed(schema)
}

fn closed(schema: &Value) -> bool {
    /// What all of them know.
    const KNOWN: [&str; 13] = [
        "$defs",
        "$ref",
        "$schema",
        "additionalProperties",
        "anyOf",
        "const",
        "description",
        "enum",
        "items",
        "properties",
        "required",
        "title",
        "type",
    ];
    let Some(words) = schema.as_object() else { return false };
    if words.keys().any(|word| !KNOWN.contains(&word.as_str())) {
        return false;
    }
    !leaves_open(schema, true) && inner(words).all(closed)
}

/// Whether an object of the schema may have fields that it does not name or, where `all` have to be there, be
/// without one of them. Who enforces schemas refuses such a one.
pub(crate) fn is_open(schema: &Value, all: bool) -> bool {
    let Some(words) = schema.as_object() else { return false };
    leaves_open(schema, all) || inner(words).any(|schema| is_open(schema, all))
}

fn leaves_open(schema: &Value, all: bool) -> bool {
    let is_object = names(&schema["type"]).any(|name| name == "object");
    if !is_object && schema.get("properties").is_none() {
        return false;
    }
    let fields = schema["properties"].as_object();
    let required = |name: &String| names(&schema["required"]).any(|other| other == name);
    schema["additionalProperties"] != false
        || (all && fields.is_none_or(|fields| !fields.keys().all(required)))
}

fn inner(words: &Map<String, Value>) -> impl Iterator<Item = &Value> {
    let inner = ["properties", "$defs"].iter().filter_map(|word| words.get(*word)?.as_object());
    let inner = inner.flat_map(Map::values).chain(words.get("items"));
    inner.chain(words.get("anyOf").and_then(Value::as_array).into_iter().flatten())
}

/// Whether all that the word says of a value is looked at by the [check](super::Check), if this is what stands behind
/// it. To the `strict` a `format` is a note.
pub(super) fn is_checked(word: &str, value: &Value, strict: bool) -> bool {
    match word {
        "$ref" => value.is_string(),
        "type" => {
            let count = value.as_array().map_or(1, Vec::len);
            count > 0 && names(value).filter(|name| TYPES.contains(name)).count() == count
        }
        "required" => value.as_array().is_some_and(|all| all.iter().all(Value::is_string)),
        "prefixItems" | "enum" => value.is_array(),
        "const" => true,
        "uniqueItems" => value.is_boolean(),
        "format" => strict,
        word if ONE.contains(&word) => value.is_object() || value.is_boolean(),
        word if SOME.contains(&word) => value.is_array(),
        word if NAMED.contains(&word) => value.is_object(),
        word if NUMBERS.contains(&word) => value.is_number(),
        word if COUNTS.contains(&word) => value.is_u64(),
        word => NOTES.contains(&word) || word.starts_with("x-"),
    }
}

/// The texts of a list, or a single one.
fn names(value: &Value) -> impl Iterator<Item = &str> {
    value
        .as_str()
        .into_iter()
        .chain(value.as_array().into_iter().flatten().filter_map(Value::as_str))
}

fn walk(root: &Value, schema: &Value, path: &str) -> Result<(), String> {
    let words = match schema {
        Value::Bool(_) => return Ok(()),
        Value::Object(words) => words,
        _ => return Err(format!("{} is no schema", place(path))),
    };
    for (word, value) in words {
        let at = format!("{path}/{}", word.replace('~', "~0").replace('/', "~1"));
        let is = |good: bool, what: &str| match good {
            true => Ok(()),
            false => Err(format!("{at} is no {what}")),
        };
        match word.as_str() {
            "$ref" => {
                let found = value.as_str().and_then(|text| text.strip_prefix('#'));
                if found.and_then(|pointer| root.pointer(pointer)).is_none() {
                    return Err(format!("{at} leads to nothing within the schema: {value}"));
                }
                if is_endless(root, schema) {
                    return Err(format!(
                        "{at} leads back to where it stands, so that no value is ever held against it"
                    ));
                }
            }
            "type" => {
                let known = names(value).all(|name| TYPES.contains(&name));
                let count = value.as_array().map_or(1, Vec::len);
                is(known && count > 0 && names(value).count() == count, "type of JSON")?;
            }
            "required" => is(
                value.as_array().is_some_and(|all| all.iter().all(Value::is_string)),
                "list of names",
            )?,
            "enum" => is(value.is_array(), "list of values")?,
            "const" => {}
            "uniqueItems" => is(value.is_boolean(), "true or false")?,
            word if ONE.contains(&word) => walk(root, value, &at)?,
            word if SOME.contains(&word) => {
                let all = value.as_array().filter(|all| !all.is_empty());
                is(all.is_some(), "list of schemas")?;
                for (index, one) in all.into_iter().flatten().enumerate() {
                    walk(root, one, &format!("{at}/{index}"))?;
                }
            }
            word if NAMED.contains(&word) => {
                is(value.is_object(), "table of schemas")?;
                for (name, one) in value.as_object().into_iter().flatten() {
                    let name = name.replace('~', "~0").replace('/', "~1");
                    walk(root, one, &format!("{at}/{name}"))?;
                }
            }
            word if NUMBERS.contains(&word) => {
                let positive = word != "multipleOf" || value.as_f64().is_some_and(|it| it > 0.0);
                is(value.is_number() && positive, "number that bounds anything")?;
            }
            word if COUNTS.contains(&word) => is(value.is_u64(), "whole number")?,
            word if NOTES.contains(&word) || word.starts_with("x-") => {}
            word => {
                return Err(format!("the keyword `{word}` at {} is not checked", place(path)));
            }
        }
    }
    Ok(())
}

/// Whether a value that is held against the schema is held against it again, and not a part of the value: without end.
fn is_endless(root: &Value, schema: &Value) -> bool {
    let (mut next, mut seen) = (vec![schema], HashSet::new());
    while let Some(one) = next.pop() {
        let target = one["$ref"].as_str().and_then(|text| text.strip_prefix('#'));
        let some = SOME.iter().filter_map(|word| one[*word].as_array()).flatten();
        let all = target.and_then(|target| root.pointer(target)).into_iter().chain(some);
        for inner in all.chain(one.get("not")) {
            if std::ptr::eq(inner, schema) {
                return true;
            }
            if seen.insert(std::ptr::from_ref(inner)) {
                next.push(inner);
            }
        }
    }
    false
}

fn place(path: &str) -> &str {
    if path.is_empty() { "its root" } else { path }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_not_checked_is_named_with_its_place() {
        for (schema, said) in [
            (json!({"pattern": "^a"}), "the keyword `pattern` at its root is not checked"),
            (
                json!({"properties": {"a/b": {"items": {"if": {}}}}}),
                "the keyword `if` at /properties/a~1b/items is not checked",
            ),
            (
                json!({"anyOf": [true, {"dependentRequired": {}}]}),
                "the keyword `dependentRequired` at /anyOf/1 is not checked",
            ),
            (json!({"$defs": {"d": {"prefixItems": []}}}), "`prefixItems` at /$defs/d is"),
            (json!({"tpye": "string"}), "the keyword `tpye` at its root is not checked"),
            (json!({"$ref": "#/$defs/none"}), "/$ref leads to nothing"),
            (json!({"$ref": "https://elsewhere/schema"}), "/$ref leads to nothing"),
            (json!({"$ref": "#"}), "/$ref leads back to where it stands"),
            (json!({"anyOf": [{"type": "null"}, {"$ref": "#"}]}), "/anyOf/1/$ref leads back to"),
            (
                json!({"items": {"$ref": "#/$defs/a"},
                    "$defs": {"a": {"not": {"$ref": "#/$defs/b"}}, "b": {"allOf": [{"$ref": "#/$defs/a"}]}}}),
                "/$ref leads back to where it stands",
            ),
            (json!({"type": "strng"}), "/type is no type of JSON"),
            (json!({"type": []}), "/type is no type of JSON"),
            (json!({"required": "a"}), "/required is no list of names"),
            (json!({"properties": ["a"]}), "/properties is no table of schemas"),
            (json!({"items": [{"type": "string"}]}), "/items is no schema"),
            (json!({"minimum": "1"}), "/minimum is no number"),
            (json!({"multipleOf": 0}), "/multipleOf is no number"),
            (json!({"minLength": -1}), "/minLength is no whole number"),
            (json!({"enum": "a"}), "/enum is no list of values"),
            (json!([]), "its root is no schema"),
        ] {
            let found = checkable(&schema).unwrap_err();
            assert!(found.contains(said), "{schema}: {found}");
        }
        let good = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema", "title": "t", "type": ["object", "null"],
            "properties": {"pattern": {"$ref": "#/$defs/d"}, "if": {"format": "email", "x-order": 1}},
            "$defs": {"d": {"not": {"const": 1}, "uniqueItems": true, "items": {"anyOf": [{"$ref": "#/$defs/d"}, {"$ref": "#"}]}}},
            "allOf": [{"minProperties": 1}], "additionalProperties": {"exclusiveMinimum": 0.5},
        });
        assert_eq!(checkable(&good), Ok(()));
    }

    #[test]
    fn a_schema_is_closed_where_a_provider_can_enforce_it() {
        let closed = json!({
            "type": "object", "additionalProperties": false, "required": ["a"],
            "properties": {"a": {"anyOf": [{"$ref": "#/$defs/d"}, {"type": "null"}]}},
            "$defs": {"d": {"type": "array", "items": {"type": "string", "enum": ["x"]}}},
        });
        assert!(is_closed(&closed));
        for (at, value) in [
            ("/additionalProperties", json!(true)),
            ("/required", json!([])),
            ("/type", json!("array")),
            ("/$defs/d/items", json!({"type": "object"})),
            ("/$defs/d/items/enum", json!({})),
            ("/$defs/d", json!({"type": "string", "minLength": 3})),
        ] {
            let mut open = closed.clone();
            *open.pointer_mut(at).unwrap() = value.clone();
            let same = at == "/$defs/d/items/enum";
            assert_eq!(is_closed(&open), same, "{at}");
        }
        assert!(!is_closed(&json!({"type": "object"})));
    }
}
