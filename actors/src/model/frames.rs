//! Reads a stream of bytes, however it is cut into chunks, as server-sent events or as lines of JSON.
//!
//! *Invariant.* Sans-IO, and bounded: no more than one frame is kept, and no frame is longer than
//! it may be.

use std::collections::VecDeque;

/// The longest frame of most streams, in bytes.
pub(crate) const MAX_FRAME: usize = 1024 * 1024;

/// How frames are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// Server-sent events: lines with fields, an empty line ends an event.
    Events,
    /// One JSON text a line.
    Lines,
}

/// What a stream said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// The data of an event, or a line.
    Data(Vec<u8>),
    /// The data of an event that is called an error, which its data need not say once more.
    Error(Vec<u8>),
    /// Something without data: it only shows that the other side is there.
    Beat,
}

/// A frame is longer than it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

/// Puts frames together.
#[derive(Debug)]
pub(crate) struct Frames {
    framing: Framing,
    line: Vec<u8>,
    data: Option<Vec<u8>>,
    /// The event that is being read is an error.
    error: bool,
    /// The last byte ended a line as a carriage return; a line feed that follows belongs to it.
    returned: bool,
    first: bool,
    ready: VecDeque<Frame>,
    most: usize,
}

impl Frames {
    /// For frames of at most so many bytes.
    pub(crate) fn new(framing: Framing, most: usize) -> Self {
        Self {
            framing,
            line: Vec::new(),
            data: None,
            error: false,
            returned: false,
            first: true,
            ready: VecDeque::new(),
            most,
        }
    }

    /// Takes a chunk.
    ///
    /// # Errors
    /// A frame is too long. The frames before it are there.
    pub(crate) fn push(&mut self, mut chunk: &[u8]) -> Result<(), TooLong> {
        while !chunk.is_empty() {
            if std::mem::take(&mut self.returned) && chunk[0] == b'\n' {
                chunk = &chunk[1..];
                continue;
            }
            let Some(end) = chunk.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
                return self.extend(chunk);
            };
            self.extend(&chunk[..end])?;
            self.returned = chunk[end] == b'\r';
            chunk = &chunk[end + 1..];
            self.end_line()?;
        }
        Ok(())
    }

    fn extend(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        let held = self.line.len() + self.data.as_ref().map_or(0, Vec::len);
        if held + bytes.len() > self.most {
            return Err(TooLong);
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn end_line(&mut self) -> Result<(), TooLong> {
        let mut line = std::mem::take(&mut self.line);
        if std::mem::take(&mut self.first) && line.starts_with("\u{feff}".as_bytes()) {
            line.drain(..3);
        }
        if self.framing == Framing::Lines {
            self.ready.push_back(if line.trim_ascii().is_empty() {
                Frame::Beat
            } else {
                Frame::Data(line)
            });
            return Ok(());
        }
        if line.is_empty() {
            self.end_event();
            return Ok(());
        }
        let (name, value) = match line.iter().position(|byte| *byte == b':') {
            Some(at) => (&line[..at], line[at + 1..].strip_prefix(b" ").unwrap_or(&line[at + 1..])),
            None => (&line[..], &[][..]),
        };
        match name {
            // A comment.
            b"" => self.ready.push_back(Frame::Beat),
            // Some servers have a field of their own for what went wrong.
            b"data" | b"error" => {
                self.error |= name == b"error";
                match &mut self.data {
                    Some(data) if data.len() + 1 + value.len() > self.most => return Err(TooLong),
                    Some(data) => {
                        data.push(b'\n');
                        data.extend_from_slice(value);
                    }
                    data => *data = Some(value.to_vec()),
                }
            }
            b"event" => self.error = value == b"error",
            // Any other type of an event stands in its data, too; ids and delays are for browsers.
            _ => {}
        }
        Ok(())
    }

    fn end_event(&mut self) {
        let kind = if std::mem::take(&mut self.error) { Frame::Error } else { Frame::Data };
        let frame = self.data.take().filter(|data| !data.is_empty());
        self.ready.push_back(frame.map_or(Frame::Beat, kind));
    }

    /// The stream has ended. What was not ended properly is a frame all the same: some servers leave
    /// out the last line's end.
    pub(crate) fn end(&mut self) -> Result<(), TooLong> {
        if !self.line.is_empty() {
            self.end_line()?;
        }
        if self.data.is_some() {
            self.end_event();
        }
        Ok(())
    }

    pub(crate) fn next(&mut self) -> Option<Frame> {
        self.ready.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The frames of a text that comes in chunks of this size.
    fn read(framing: Framing, text: &[u8], chunk: usize) -> Vec<Frame> {
        let mut frames = Frames::new(framing, MAX_FRAME);
        for chunk in text.chunks(chunk) {
            frames.push(chunk).unwrap();
        }
        frames.end().unwrap();
        std::iter::from_fn(|| frames.next()).collect()
    }

    fn data(text: &str) -> Frame {
        Frame::Data(text.as_bytes().to_vec())
    }

    #[test]
    fn events_are_the_same_however_they_are_cut_and_however_lines_end() {
        let text = "\u{feff}: hello\n\nevent: a\ndata: {\"x\":1}\n\nid: 7\ndata:one\ndata: two é\n\ndata\n\ndata: [DONE]\n\n";
        let expected = [
            Frame::Beat,
            Frame::Beat,
            data("{\"x\":1}"),
            data("one\ntwo é"),
            Frame::Beat,
            data("[DONE]"),
        ];
        for end in ["\n", "\r\n", "\r"] {
            let text = text.replace('\n', end);
            for chunk in 1..=text.len() {
                assert_eq!(
                    read(Framing::Events, text.as_bytes(), chunk),
                    expected,
                    "{end:?} {chunk}"
                );
            }
        }
    }

    #[test]
    fn lines_are_the_same_however_they_are_cut() {
        let text = "{\"a\":1}\r\n\n{\"b\":\"é\"}\n{\"c\":3}";
        let expected = [data("{\"a\":1}"), Frame::Beat, data("{\"b\":\"é\"}"), data("{\"c\":3}")];
        for chunk in 1..=text.len() {
            assert_eq!(read(Framing::Lines, text.as_bytes(), chunk), expected, "{chunk}");
        }
    }

    #[test]
    fn an_event_without_its_empty_line_is_still_read() {
        for text in ["data: [DONE]", "data: [DONE]\n", "data: [DONE]\r"] {
            assert_eq!(read(Framing::Events, text.as_bytes(), 3), [data("[DONE]")]);
        }
        assert_eq!(read(Framing::Events, b"", 1), []);
    }

    #[test]
    fn an_event_that_is_called_an_error_is_one_and_the_next_is_not() {
        for (text, error) in [
            ("event: error\ndata: busy\n\n", true),
            ("data: busy\nevent: error\n\n", true),
            ("error: busy\n\n", true),
            ("event: error\nevent: ping\ndata: busy\n\n", false),
            ("event: errors\ndata: busy\n\n", false),
        ] {
            let frames = read(Framing::Events, format!("{text}data: x\n\n").as_bytes(), 1);
            let expected = if error { Frame::Error(b"busy".to_vec()) } else { data("busy") };
            assert_eq!(frames, [expected, data("x")], "{text}");
        }
        assert_eq!(
            read(Framing::Events, b"event: error\n\ndata: x\n\n", 9),
            [Frame::Beat, data("x")]
        );
    }

    #[test]
    fn bytes_that_are_no_text_pass_through() {
        assert_eq!(
            read(Framing::Events, b"data: \xff\xfe\n\n", 1),
            [Frame::Data(vec![0xff, 0xfe])]
        );
    }

    #[test]
    fn no_frame_grows_beyond_the_limit() {
        for framing in [Framing::Events, Framing::Lines] {
            let mut frames = Frames::new(framing, 64);
            let refused = (0..10).any(|_| frames.push(b"data: 0123456789").is_err());
            assert!(refused && frames.line.len() <= 64);
        }
        // Nor by many short lines.
        let mut frames = Frames::new(Framing::Events, 64);
        let refused = (0..100).any(|_| frames.push(b"data: 0123\n").is_err());
        assert!(refused && frames.data.unwrap().len() <= 64);
        // Short ones go on for ever.
        let mut frames = Frames::new(Framing::Events, 64);
        for _ in 0..1000 {
            frames.push(b"data: 0123456789\n\n").unwrap();
            assert_eq!(frames.next(), Some(data("0123456789")));
        }
    }

    #[test]
    fn garbage_never_panics() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for round in 0..500 {
            let mut bytes = Vec::new();
            for _ in 0..64 {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                bytes.push(b"\r\n:d \xffata\0{\xef\xbb\xbf"[(state >> 33) as usize % 14]);
            }
            let whole = read(Framing::Events, &bytes, 64);
            assert_eq!(whole, read(Framing::Events, &bytes, 1 + round % 7), "{bytes:?}");
        }
    }
}
