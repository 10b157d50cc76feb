//! Messages that come several at a time, in a list, as an older version of the protocol has it.
//!
//! *Invariant.* What is no list of objects passes as it is, byte by byte.

/// Writes each message of a batch on a line of its own.
#[derive(Debug, Default)]
pub(super) struct Unbatch {
    at: At,
    depth: usize,
    in_text: bool,
    escaped: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    /// Nothing of the line but blanks has been read.
    #[default]
    Beginning,
    /// A list has begun, of what is not known yet: the words of a log may begin so.
    List,
    Batch,
    /// A message alone, or none.
    Other,
}

impl Unbatch {
    pub(super) fn read(&mut self, bytes: &[u8], to: &mut Vec<u8>) {
        for &byte in bytes {
            if byte == b'\n' {
                *self = Self::default();
                to.push(byte);
                continue;
            }
            match (self.at, byte) {
                (At::Other, _) => to.push(byte),
                (At::Beginning | At::List, b' ' | b'\t' | b'\r') => to.push(byte),
                (At::Beginning, b'[') => self.at = At::List,
                (At::Beginning, _) => {
                    self.at = At::Other;
                    to.push(byte);
                }
                (At::List, b'{') => {
                    self.at = At::Batch;
                    self.inside(byte, to);
                }
                (At::List, _) => {
                    self.at = At::Other;
                    to.extend([b'[', byte]);
                }
                (At::Batch, _) => self.inside(byte, to),
            }
        }
    }

    /// A byte of a batch: what is between its messages becomes the end of a line.
    fn inside(&mut self, byte: u8, to: &mut Vec<u8>) {
        if self.in_text {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_text = false,
                _ => {}
            }
            return to.push(byte);
        }
        match byte {
            b'"' => self.in_text = true,
            b'{' | b'[' => self.depth += 1,
            b',' if self.depth == 0 => return to.push(b'\n'),
            b']' if self.depth == 0 => return to.push(b' '),
            // What closes more than was open is no message of anybody's.
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        to.push(byte);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_message_of_a_batch_has_a_line_and_all_else_is_as_it_was() {
        for (line, expected) in [
            ("[{\"a\":[1,{}]},{\"b\":\"],\\\"\"}]\n", "{\"a\":[1,{}]}\n{\"b\":\"],\\\"\"} \n"),
            (
                " [ {\"a\":1} , {\"b\":2} ] \n{\"c\":3}\n",
                "  {\"a\":1} \n {\"b\":2}   \n{\"c\":3}\n",
            ),
            ("[info] {\"a\":1},{\"b\":2}\n", "[info] {\"a\":1},{\"b\":2}\n"),
            ("{\"a\":[{}]}\n\n]}, x\n", "{\"a\":[{}]}\n\n]}, x\n"),
            ("[]\n[{}}},]\n", "[]\n{}}}\n \n"),
        ] {
            for size in [1, 3, 100] {
                let (mut unbatch, mut said) = (Unbatch::default(), Vec::new());
                for piece in line.as_bytes().chunks(size) {
                    unbatch.read(piece, &mut said);
                }
                let said = String::from_utf8(said).unwrap();
                assert_eq!(said, expected, "in pieces of {size}");
            }
        }
    }
}
