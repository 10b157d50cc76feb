//! Whether numbers survive being read. A JSON text may have whole numbers of any length; what reads it has
//! 64 bits for one, and makes another number of the rest without a word.
//!
//! *Invariant.* Looks at bytes and changes nothing.

/// The first whole number in a JSON text that does not fit into 64 bits.
pub(crate) fn too_long(text: &[u8]) -> Option<&str> {
    let mut rest = text;
    loop {
        let at = rest.iter().position(|byte| matches!(byte, b'"' | b'-' | b'0'..=b'9'))?;
        rest = &rest[at..];
        if rest[0] == b'"' {
            rest = &rest[string(rest)..];
            continue;
        }
        let part =
            |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E');
        let length = rest.iter().position(|byte| !part(byte)).unwrap_or(rest.len());
        let (number, after) = rest.split_at(length);
        // 18 digits fit in any case.
        if length > 18
            && let Ok(number) = std::str::from_utf8(number)
            && !number.contains(['.', 'e', 'E'])
            && number.parse::<i64>().is_err()
            && number.parse::<u64>().is_err()
        {
            return Some(number);
        }
        rest = after;
    }
}

/// The length of the string that a text begins with.
fn string(text: &[u8]) -> usize {
    let mut at = 1;
    while let Some(byte) = text.get(at) {
        at += match byte {
            b'"' => return at + 1,
            b'\\' => 2,
            _ => 1,
        };
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_number_that_does_not_fit_is_found_and_nothing_else_is() {
        for (text, found) in [
            ("{\"a\":[18446744073709551615,-9223372036854775808]}", None),
            ("[1,18446744073709551616]", Some("18446744073709551616")),
            ("{\"a\":{\"b\":-9223372036854775809}}", Some("-9223372036854775809")),
            ("[\"18446744073709551616\",\"\\\"18446744073709551616\"]", None),
            ("[\"\\\\\",18446744073709551616]", Some("18446744073709551616")),
            ("[1844674407370955161.6,1e99,0.12345678901234567890123]", None),
            ("123456789012345678901234567890", Some("123456789012345678901234567890")),
            ("\"123456789012345678901234567890", None),
            ("\"\\", None),
            ("", None),
        ] {
            assert_eq!(too_long(text.as_bytes()), found, "{text}");
        }
    }
}
