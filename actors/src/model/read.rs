//! What stands at a place of an answer.
//!
//! *Invariant.* What is of another type than it must be is said to be, and not passed over: nothing would be an
//! answer that nobody gave.

use serde_json::Value;

use super::responses::Aside;

/// What is at this place, such as `/choices/0/message`; `None` if there is nothing, or null. As
/// [`Value::pointer`], which makes a text of each part of the place to look for escapes; there are none in
/// ours, and this is most of reading an answer.
///
/// # Errors
/// What stands on the way to it is of another type: nothing would be an answer that nobody gave.
pub(crate) fn at<'a>(value: &'a Value, place: &str) -> Result<Option<&'a Value>, String> {
    let mut found = value;
    for part in place.strip_prefix('/').unwrap_or(place).split('/') {
        let is_item = part.starts_with(|first: char| first.is_ascii_digit());
        let next = match found {
            Value::Null => None,
            Value::Object(fields) if !is_item => fields.get(part),
            Value::Array(items) if is_item => {
                part.parse::<usize>().ok().and_then(|number| items.get(number))
            }
            _ => return Err(format!("{place} is looked for in {}", kind(found))),
        };
        match next {
            None | Some(Value::Null) => return Ok(None),
            Some(next) => found = next,
        }
    }
    Ok(Some(found))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// The same of this type.
fn typed_at<'a, T>(
    value: &'a Value,
    place: &str,
    wanted: &str,
    read: impl FnOnce(&'a Value) -> Option<T>,
) -> Result<Option<T>, String> {
    let Some(found) = at(value, place)? else { return Ok(None) };
    read(found).map(Some).ok_or_else(|| format!("{place} is {}, not {wanted}", kind(found)))
}

pub(crate) fn text_at(value: &Value, place: &str) -> Result<Option<String>, String> {
    typed_at(value, place, "a text", |found| found.as_str().map(str::to_owned))
}

pub(crate) fn number_at(value: &Value, place: &str) -> Result<Option<u64>, String> {
    typed_at(value, place, "a whole number", Value::as_u64)
}

pub(crate) fn truth_at(value: &Value, place: &str) -> Result<Option<bool>, String> {
    typed_at(value, place, "a truth value", Value::as_bool)
}

pub(crate) fn object_at<'a>(value: &'a Value, place: &str) -> Result<Option<&'a Value>, String> {
    typed_at(value, place, "an object", |found| found.is_object().then_some(found))
}

/// Empty if there is none.
pub(crate) fn list_at<'a>(value: &'a Value, place: &str) -> Result<&'a [Value], String> {
    let list = typed_at(value, place, "a list", |found| found.as_array().map(Vec::as_slice))?;
    Ok(list.unwrap_or_default())
}

/// Which of several answers is heard, of which one is asked for: that of number 0, or if the first piece that comes has
/// none such, the first in it. Of each piece it is said of which answer it is; where it is not, it is of that of number 0.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard {
    number: Option<u64>,
    /// What was said on the way to it.
    pub(super) aside: Aside,
}

impl Heard {
    /// The one that is heard, if it is among these.
    pub(crate) fn of<T>(
        &mut self,
        mut choices: Vec<T>,
        number: impl Fn(&T) -> Option<u64>,
    ) -> Option<T> {
        let number = |choice: &T| number(choice).unwrap_or(0);
        let numbers = || choices.iter().map(&number);
        let first = || numbers().find(|it| *it == 0).or(numbers().next());
        let heard = self.number.or_else(first)?;
        self.number = Some(heard);
        let at = numbers().position(|it| it == heard)?;
        Some(choices.swap_remove(at))
    }
}

/// Tokens that were counted. What is no number was not counted: an answer is worth more than its bill,
/// which is estimated then.
pub(crate) fn count_at(value: &Value, place: &str) -> Option<u64> {
    at(value, place).ok()?.and_then(Value::as_u64)
}

/// The tokens that a model has written. Some servers (xAI's, Google's in the words of others) leave out of them what it has
/// thought, which is paid for like what it has said, and count it in all of them.
pub(crate) fn written_of(
    input: Option<u64>,
    output: Option<u64>,
    total: Option<u64>,
) -> Option<u64> {
    let rest = total.zip(input).map(|(total, input)| total.saturating_sub(input));
    output.max(rest.filter(|rest| *rest > 0))
}
