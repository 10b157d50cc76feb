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
        Err(why) => Err(format!("what is written of it cannot be read: {why}")),
    }
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
    fn a_value_that_is_no_json_is_refused() {
        let map: HashMap<(u8, u8), u8> = HashMap::from([((1, 2), 3)]);
        assert!(canonical(&map).unwrap_err().contains("key"));
    }
}
