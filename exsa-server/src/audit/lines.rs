//! Reads the lines of a file, with a limit on their length.

use std::io::{self, BufRead};

/// Maximum bytes of a line, without its newline.
pub(super) const LINE_BYTES_MAX: usize = 16 << 20;

/// A line of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// A line without its newline.
    Whole(&'a [u8]),
    /// A line longer than [`LINE_BYTES_MAX`], with or without an end.
    TooLong,
    /// The end of a file without a newline.
    Torn(&'a [u8]),
}

/// Line reader. Its memory is bounded by the maximum line length.
pub(super) struct Lines<R> {
    reader: R,
    buffer: Vec<u8>,
    /// Bytes of all lines so far.
    pub(super) offset: u64,
    /// Number of the last line, from 1.
    pub(super) number: u64,
    max: usize,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, buffer: Vec::new(), offset: 0, number: 0, max: LINE_BYTES_MAX }
    }

    /// The next line; `None` at the end.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub(super) fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        self.buffer.clear();
        let (mut read, mut ended) = (0, false);
        while !ended {
            let bytes = match self.reader.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                bytes => bytes?,
            };
            if bytes.is_empty() {
                break;
            }
            let newline = bytes.iter().position(|byte| *byte == b'\n');
            let line = &bytes[..newline.unwrap_or(bytes.len())];
            let free = (self.max + 1).saturating_sub(self.buffer.len());
            self.buffer.extend_from_slice(&line[..line.len().min(free)]);
            let used = line.len() + usize::from(newline.is_some());
            ended = newline.is_some();
            read += used as u64;
            self.reader.consume(used);
        }
        if read == 0 {
            return Ok(None);
        }
        self.offset += read;
        self.number += 1;
        Ok(Some(match ended {
            _ if self.buffer.len() > self.max => Line::TooLong,
            true => Line::Whole(&self.buffer),
            false => Line::Torn(&self.buffer),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_and_torn_lines_are_told_apart() {
        for capacity in 1..9 {
            let text: &[u8] = b"ab\n\nabcd\nabcde\nx";
            let mut lines = Lines::new(io::BufReader::with_capacity(capacity, text));
            lines.max = 4;
            assert_eq!(lines.next().unwrap(), Some(Line::Whole(b"ab")));
            assert_eq!(lines.next().unwrap(), Some(Line::Whole(b"")));
            assert_eq!(lines.next().unwrap(), Some(Line::Whole(b"abcd")));
            assert_eq!((lines.offset, lines.number), (9, 3));
            assert_eq!(lines.next().unwrap(), Some(Line::TooLong));
            assert_eq!(lines.next().unwrap(), Some(Line::Torn(b"x")));
            assert_eq!(lines.next().unwrap(), None);
        }
    }
}
