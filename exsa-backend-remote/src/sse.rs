//! Incremental parser of server-sent events.
//!
//! The format is that of the WHATWG's HTML standard, section "Server-sent events". Lines end with LF, CRLF or
//! CR; lines that begin with a colon are comments, which servers send to keep a connection alive.

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SseEvent {
    /// The field `event`; empty if absent.
    pub event: String,
    /// The fields `data`, joined by line breaks.
    pub data: String,
}

/// An event or a line that exceeds the parser's limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event of the stream has more than {limit} bytes")]
pub struct SseTooLarge {
    /// The limit in bytes.
    pub limit: usize,
}

/// Incremental parser of server-sent events.
///
/// The events do not depend on chunk boundaries:
///
/// ```
/// use exsa_backend_remote::sse::SseParser;
///
/// let mut parser = SseParser::new(1 << 20);
/// let mut events = Vec::new();
/// parser.push(b": keep-alive\n\ndata: {\"a\"", &mut events)?;
/// parser.push(b": 1}\r\n\r\n", &mut events)?;
/// assert_eq!(events[0].data, r#"{"a": 1}"#);
/// # Ok::<(), exsa_backend_remote::sse::SseTooLarge>(())
/// ```
#[derive(Clone, Debug)]
pub struct SseParser {
    limit: usize,
    /// Bytes of the unfinished line.
    line: Vec<u8>,
    event: String,
    data: Vec<u8>,
    /// Whether the event has a field `data`.
    has_data: bool,
    /// Whether the last byte was a CR; a following LF belongs to the same line end.
    after_cr: bool,
    /// Whether no line was read yet; the first may begin with a byte order mark.
    at_start: bool,
}

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

impl SseParser {
    /// Creates a parser that holds at most `limit` bytes of an event, and of a line.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            line: Vec::new(),
            event: String::new(),
            data: Vec::new(),
            has_data: false,
            after_cr: false,
            at_start: true,
        }
    }

    /// Parses the next bytes and appends the completed events to `out`.
    ///
    /// # Errors
    ///
    /// A line or an event is too large; the stream cannot be parsed further.
    pub fn push(&mut self, mut bytes: &[u8], out: &mut Vec<SseEvent>) -> Result<(), SseTooLarge> {
        if self.after_cr && !bytes.is_empty() {
            self.after_cr = false;
            bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
        }
        while let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            self.extend_line(&bytes[..end])?;
            let is_cr = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            self.end_line(out)?;
            if is_cr {
                match bytes {
                    [] => self.after_cr = true,
                    [b'\n', rest @ ..] => bytes = rest,
                    _ => {}
                }
            }
        }
        self.extend_line(bytes)
    }

    /// Ends the stream: an event without its final line end counts, since some servers omit it.
    ///
    /// # Errors
    ///
    /// The last event is too large.
    pub fn finish(&mut self, out: &mut Vec<SseEvent>) -> Result<(), SseTooLarge> {
        if !self.line.is_empty() {
            self.end_line(out)?;
        }
        self.dispatch(out);
        Ok(())
    }

    fn extend_line(&mut self, bytes: &[u8]) -> Result<(), SseTooLarge> {
        if self.line.len() + bytes.len() > self.limit {
            return Err(SseTooLarge { limit: self.limit });
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn end_line(&mut self, out: &mut Vec<SseEvent>) -> Result<(), SseTooLarge> {
        let line = std::mem::take(&mut self.line);
        let read = self.read_line(&line, out);
        // Reuses the allocation.
        self.line = line;
        self.line.clear();
        read
    }

    fn read_line(&mut self, line: &[u8], out: &mut Vec<SseEvent>) -> Result<(), SseTooLarge> {
        let line = match std::mem::take(&mut self.at_start) {
            true => line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line),
            false => line,
        };
        if line.is_empty() {
            self.dispatch(out);
            return Ok(());
        }
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let (name, value) = (&line[..colon], line.get(colon + 1..).unwrap_or_default());
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match name {
            b"data" => {
                if self.data.len() + value.len() + 1 > self.limit {
                    return Err(SseTooLarge { limit: self.limit });
                }
                if self.has_data {
                    self.data.push(b'\n');
                }
                self.has_data = true;
                self.data.extend_from_slice(value);
            }
            b"event" => self.event = String::from_utf8_lossy(value).into_owned(),
            // Comments have an empty name; `id` and `retry` are for reconnection, which token streams do not
            // support.
            _ => {}
        }
        Ok(())
    }

    fn dispatch(&mut self, out: &mut Vec<SseEvent>) {
        let event = std::mem::take(&mut self.event);
        if std::mem::take(&mut self.has_data) {
            let data = String::from_utf8_lossy(&self.data).into_owned();
            out.push(SseEvent { event, data });
        }
        self.data.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(pieces: &[&[u8]], limit: usize) -> Result<Vec<SseEvent>, SseTooLarge> {
        let mut parser = SseParser::new(limit);
        let mut events = Vec::new();
        for piece in pieces {
            parser.push(piece, &mut events)?;
        }
        parser.finish(&mut events)?;
        Ok(events)
    }

    fn data(text: &str) -> Vec<String> {
        parse(&[text.as_bytes()], 1 << 16).unwrap().into_iter().map(|event| event.data).collect()
    }

    #[test]
    fn line_ends_comments_and_fields() {
        assert_eq!(data("data: a\n\ndata: b\r\n\r\ndata: c\r\r"), ["a", "b", "c"]);
        assert_eq!(data(": keep-alive\n\n:\n\ndata: a\n: comment\ndata: b\n\n"), ["a\nb"]);
        assert_eq!(data("data\n\ndata:\ndata:\n\ndata:  a\n\n"), ["", "\n", " a"]);
        assert_eq!(data("id: 1\nretry: 5\nfoo: bar\n\n"), [""; 0], "events without data are none");
        assert_eq!(data("\u{feff}data: a\n\n\u{feff}data: b\n\n"), ["a"], "a mark stands at the start alone");
        assert_eq!(data("data: a"), ["a"], "the last line end may be missing");
        let events = parse(&[b"event: error\ndata: x\n\ndata: y\n\n"], 100).unwrap();
        assert_eq!((events[0].event.as_str(), events[1].event.as_str()), ("error", ""));
        let events = parse(&[b"data: \xFF\n\n"], 100).unwrap();
        assert_eq!(events[0].data, "\u{fffd}");
    }

    #[test]
    fn sizes_are_limited() {
        let limit = Err(SseTooLarge { limit: 16 });
        assert_eq!(parse(&[b"data: 1234567890"], 16).map(|_| ()), Ok(()));
        assert_eq!(parse(&[b"data: 12345678901"], 16).map(|_| ()), limit);
        assert_eq!(parse(&[b"data: 123456", b"78901"], 16).map(|_| ()), limit);
        assert_eq!(parse(&[b"data: 123456\ndata: 1234567\ndata: 12345678"], 16).map(|_| ()), limit);
        // Endless comments are also limited.
        assert_eq!(parse(&[b": ", &[b'x'; 40]], 16).map(|_| ()), limit);
        // Any number of events within the limit is allowed.
        let many = b"data: 123456\n\n".repeat(1000);
        assert_eq!(parse(&[&many], 16).unwrap().len(), 1000);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn splits_make_no_difference(
            parts in proptest::collection::vec("data|: ?|\r\n|\n|\r|event:|[a-cä€]{1,4}|\u{feff}", 0..40),
            cuts in proptest::collection::vec(any::<usize>(), 0..20),
        ) {
            let text = parts.concat();
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            let whole = parse(&[bytes], 1 << 16).unwrap();
            prop_assert_eq!(&parse(&pieces, 1 << 16).unwrap(), &whole);
            prop_assert_eq!(&parse(&single, 1 << 16).unwrap(), &whole);
        }

        #[test]
        fn written_events_are_read(
            events in proptest::collection::vec(("[a-z]{0,4}", "[ -~ä€\n]{0,20}"), 0..8),
            end in prop_oneof![Just("\n"), Just("\r\n"), Just("\r")],
        ) {
            let mut text = String::new();
            for (name, data) in &events {
                text.push_str(&format!("event: {name}{end}: comment{end}"));
                for line in data.split('\n') {
                    text.push_str(&format!("data: {line}{end}"));
                }
                text.push_str(end);
            }
            let read = parse(&[text.as_bytes()], 1 << 16).unwrap();
            let read: Vec<_> = read.into_iter().map(|event| (event.event, event.data)).collect();
            prop_assert_eq!(read, events);
        }

        #[test]
        fn no_bytes_exceed_the_limit(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut parser = SseParser::new(32);
            let mut events = Vec::new();
            for byte in bytes {
                if parser.push(&[byte], &mut events).is_err() {
                    break;
                }
                prop_assert!(parser.line.len() <= 32 && parser.data.len() <= 32);
            }
        }
    }
}
