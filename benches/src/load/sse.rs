//! Server-sent events (WHATWG HTML, 9.2), as far as completions use them: events of data alone.

use std::io::{self, BufRead};

/// Bytes that one event may have.
const EVENT_BYTES_MAX: usize = 1 << 24;

/// The data of the next event, its lines joined by line ends; `None` at the end of the stream.
pub fn next_event(from: &mut impl BufRead) -> io::Result<Option<String>> {
    let (mut data, mut line) = (None::<String>, Vec::new());
    loop {
        line.clear();
        let room = (EVENT_BYTES_MAX - data.as_ref().map_or(0, String::len)) as u64;
        let read = io::Read::take(&mut *from, room).read_until(b'\n', &mut line)?;
        if read as u64 == room && line.last() != Some(&b'\n') {
            return Err(io::Error::other(format!("an event is longer than {EVENT_BYTES_MAX} bytes")));
        }
        let text = std::str::from_utf8(&line).map_err(io::Error::other)?.trim_end_matches(['\r', '\n']);
        if text.is_empty() {
            match data {
                Some(data) => return Ok(Some(data)),
                None if read == 0 => return Ok(None),
                None => continue,
            }
        }
        // Other fields, and comments, which begin with a colon, carry nothing here.
        if let Some(value) = text.strip_prefix("data:") {
            let value = value.strip_prefix(' ').unwrap_or(value);
            match &mut data {
                None => data = Some(value.to_owned()),
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(text: &str) -> Vec<String> {
        let mut from = text.as_bytes();
        std::iter::from_fn(|| next_event(&mut from).unwrap()).collect()
    }

    #[test]
    fn events_end_with_an_empty_line_or_the_stream() {
        assert_eq!(events("data: a\n\ndata: b\r\n\r\ndata:c"), ["a", "b", "c"]);
        assert_eq!(events("\n\n: ping\n\nevent: x\ndata: a\ndata: b\n\n"), ["a\nb"]);
        assert_eq!(events(""), [""; 0]);
        assert_eq!(events("data:\n\n"), [""]);
    }

    #[test]
    fn what_is_no_text_or_has_no_end_is_an_error() {
        assert!(next_event(&mut &b"data: \xff\n\n"[..]).is_err());
        let endless = vec![b'a'; EVENT_BYTES_MAX + 1];
        assert!(next_event(&mut &endless[..]).is_err());
    }
}
