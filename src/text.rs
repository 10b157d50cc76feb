//! Values as text that is the same for the same value, whoever writes it.
//!
//! Keys of effects are made of it, and journals hold it: JSON, with the members of objects in the
//! order of their names. A map that iterates in another order each time gives the same text.
//!
//! *Invariant.* Pure: text in, value out, and the other way round.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The canonical text of a value.
///
/// # Errors
/// The value cannot be written as JSON: what is wrong, without the value.
pub(crate) fn canonical<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, String> {
    let value = serde_json::to_value(value).map_err(|error| error.to_string())?;
    let mut out = Vec::new();
    write(&value, &mut out)?;
    Ok(out)
}

/// The canonical text of a value that can be read back.
///
/// # Errors
/// It cannot be written, or what was written is not read again: a number that is none, which JSON has no text
/// for, a value that is nested too deep, or a type that writes what it does not read.
pub(crate) fn storable<T: Serialize + DeserializeOwned>(value: &T) -> Result<Vec<u8>, String> {
    let text = canonical(value)?;
    match read::<T>(&text) {
        Ok(_) => Ok(text),
        Err(why) => {
            // The text is one line: where its reading ended is a place in the value.
            let at = serde_json::from_slice::<T>(&text).err().map_or(0, |error| error.column());
            let field = place(&text, at);
            Err(format!("what is written of {field} cannot be read: {why}"))
        }
    }
}

/// So many steps of a path are told.
const DEEP: usize = 8;

/// The field of a canonical text that has so many of its bytes before it, as `.name[3]`; the value itself where it
/// has no fields.
fn place(text: &[u8], end: usize) -> String {
    // Names, and places in lists.
    let mut path: Vec<Result<&[u8], usize>> = Vec::new();
    let (mut at, mut names) = (0, false);
    while at < end.min(text.len()) {
        match text[at] {
            b'{' => {
                path.push(Ok(&[]));
                names = true;
            }
            b'[' => path.push(Err(0)),
            // One that was read to its end, and is whole all the same, is what is wrong.
            b'}' | b']' if at + 1 < end => {
                path.pop();
            }
            b',' => match path.last_mut() {
                Some(Err(place)) => *place += 1,
                _ => names = true,
            },
            b'"' => {
                let from = at + 1;
                at = from;
                while at < text.len() && text[at] != b'"' {
                    at += if text[at] == b'\\' { 2 } else { 1 };
                }
                if std::mem::take(&mut names)
                    && let Some(last) = path.last_mut()
                {
                    *last = Ok(&text[from..at.min(text.len())]);
                }
            }
            _ => {}
        }
        at += 1;
    }
    let mut field = String::new();
    let deep = path.len() > DEEP;
    for step in path.into_iter().take(DEEP) {
        field += &match step {
            Ok(name) => format!(".{}", String::from_utf8_lossy(name)),
            Err(place) => format!("[{place}]"),
        };
    }
    if deep {
        field += "…";
    }
    if field.is_empty() { "it".to_owned() } else { format!("`{field}`") }
}

/// The value of a text.
///
/// # Errors
/// It is not the text of such a value: where and why.
pub(crate) fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|error| error.to_string())
}

/// Recursion is bounded by the depth that serde_json itself accepts.
fn write(value: &Value, out: &mut Vec<u8>) -> Result<(), String> {
    match value {
        Value::Array(items) => {
            out.push(b'[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                write(item, out)?;
            }
            out.push(b']');
        }
        Value::Object(members) => {
            // A dependency may have switched on that objects keep the order they were built in.
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by_key(|(name, _)| *name);
            out.push(b'{');
            for (at, (name, member)) in members.into_iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                serde_json::to_writer(&mut *out, name).map_err(|error| error.to_string())?;
                out.push(b':');
                write(member, out)?;
            }
            out.push(b'}');
        }
        scalar => serde_json::to_writer(out, scalar).map_err(|error| error.to_string())?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn the_same_value_gives_the_same_text_whatever_order_its_map_has() {
        let names = ["b", "a", "é", "Z", "10", "9"];
        let expected = canonical(&serde_json::json!({
            "10": 1, "9": 1, "Z": 1, "a": 1, "b": 1, "é": 1
        }))
        .unwrap();
        for start in 0..names.len() {
            let map: HashMap<_, _> =
                names.iter().cycle().skip(start).take(names.len()).map(|name| (name, 1)).collect();
            assert_eq!(canonical(&map).unwrap(), expected);
        }
        assert_eq!(expected, r#"{"10":1,"9":1,"Z":1,"a":1,"b":1,"é":1}"#.as_bytes());
    }

    #[test]
    fn what_was_written_is_read_again() {
        let value = vec![Some((1.5_f64, "two\n".to_owned())), None];
        let text = canonical(&value).unwrap();
        assert_eq!(read::<Vec<Option<(f64, String)>>>(&text).unwrap(), value);
        assert!(read::<Vec<u8>>(&text).is_err());
    }

    #[test]
    fn a_number_with_a_fraction_is_the_same_after_it_was_written_and_read() {
        // 0.0119 is its neighbor.
        let amounts = (1..5_000_u32).map(|cents| f64::from(cents) / 100.0 * 1.19);
        for amount in amounts.chain([0.011899999999999999, f64::MIN_POSITIVE, f64::MAX]) {
            let text = canonical(&amount).unwrap();
            let back: f64 = read(&text).unwrap();
            assert_eq!(back.to_bits(), amount.to_bits(), "{amount}");
            assert_eq!(canonical(&back).unwrap(), text);
        }
    }

    #[test]
    fn what_cannot_be_read_back_is_not_storable() {
        #[derive(Serialize, serde::Deserialize)]
        struct Nested(Vec<Nested>);
        let nested = (0..200).fold(Nested(Vec::new()), |inner, _| Nested(vec![inner]));
        for refused in [storable(&f64::NAN), storable(&f64::INFINITY), storable(&nested)] {
            assert!(refused.unwrap_err().contains("cannot be read"));
        }
        assert_eq!(storable(&1.5).unwrap(), b"1.5");
    }

    #[test]
    fn what_cannot_be_read_back_is_named_by_its_field() {
        type Rows = std::collections::BTreeMap<String, Vec<(u32, f64)>>;
        let named = |rows: &[(&str, &[f64])]| {
            let row = |at: usize, value: f64| (at as u32, value);
            let rows: Rows = rows
                .iter()
                .map(|(name, values)| {
                    let values = values.iter().enumerate();
                    ((*name).to_owned(), values.map(|(at, value)| row(at, *value)).collect())
                })
                .collect();
            let why = storable(&rows).unwrap_err();
            why.split('`').nth(1).unwrap_or_else(|| panic!("{why}")).to_owned()
        };
        assert_eq!(named(&[("a", &[1.0, f64::NAN])]), ".a[1][1]");
        assert_eq!(named(&[("a", &[1.0]), ("b", &[]), ("c", &[f64::NAN, 1.0])]), ".c[0][1]");
        assert_eq!(named(&[("a \\\"{[", &[1.0]), ("b,", &[2.0, 3.0, f64::NAN])]), ".b,[2][1]");
        assert!(storable(&f64::NAN).unwrap_err().starts_with("what is written of it cannot"));
        let mut nested = serde_json::json!(1);
        for _ in 0..200 {
            nested = serde_json::json!([nested]);
        }
        let why = storable(&nested).unwrap_err();
        assert!(why.contains("`[0][0][0][0][0][0][0][0]…`"), "{why}");
    }

    #[test]
    fn a_value_that_is_no_json_is_refused() {
        let map: HashMap<(u8, u8), u8> = HashMap::from([((1, 2), 3)]);
        assert!(canonical(&map).unwrap_err().contains("key"));
    }
}
