//! Whether the text of an answer is what was asked for.
//!
//! *Invariant.* What is told of a text is its place and what the schema wants, not the text: it is the user's.

use mainstay::fault::Fault;
use serde_json::Value;

use crate::chat::{ChatRequest, ResponseFormat};
use crate::model::BAD_JSON;
use crate::model::again::unusable;
use crate::tool::schema;

/// Looks at the text by the [format](ChatRequest::response_format) that was asked for.
///
/// # Errors
/// `OutputInvalid`, with what is wrong.
pub(super) fn kept(text: &str, request: &ChatRequest) -> Result<(), Fault> {
    let wanted = match &request.response_format {
        // What is only wished for is looked at by whoever wishes it.
        ResponseFormat::Text | ResponseFormat::Schema { strict: false, .. } => return Ok(()),
        ResponseFormat::Json => None,
        // Who has it given again looks at it, too, and has more to say.
        ResponseFormat::Schema { schema, .. } => Some(schema).filter(|_| !request.regenerated),
    };
    let not_json = |error: serde_json::Error| {
        let (line, column) = (error.line(), error.column());
        let text = format!("JSON was asked for; no JSON at line {line} column {column}");
        unusable(text, BAD_JSON)
    };
    // A schema that is none is the provider's to refuse.
    let Some(wanted) = wanted.and_then(|it| serde_json::from_str::<Value>(it).ok()) else {
        return serde_json::from_str::<serde::de::IgnoredAny>(text).map(drop).map_err(not_json);
    };
    let answer = serde_json::from_str(text).map_err(not_json)?;
    match schema::broken(&wanted, &answer) {
        wrong if wrong.is_empty() => Ok(()),
        wrong => Err(unusable(format!("the answer is not of the schema: {wrong}"), BAD_JSON)),
    }
}
