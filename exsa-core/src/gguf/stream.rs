//! Writes the tensors of a GGUF one after the other, so that no more than a part of one is in memory.

use std::collections::VecDeque;
use std::io::{self, Read, Write};

/// A GGUF whose header is written and whose tensors follow; made by
/// [`GgufWriter::start`](super::GgufWriter::start).
///
/// ```
/// use exsa_core::gguf::{GgmlType, GgufWriter};
///
/// let mut file = Vec::new();
/// let writer = GgufWriter::new().declare("a", &[3], GgmlType::F32, 12).declare("b", &[1], GgmlType::F32, 4);
/// let mut stream = writer.start(&mut file)?;
/// stream.write(&[0; 8])?;
/// stream.write(&[0; 4])?; // "a" is complete
/// stream.write(&[0; 4])?;
/// stream.finish()?;
/// assert_eq!(file, writer.to_bytes());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct GgufStream<W> {
    to: W,
    /// Bytes written to `to`.
    offset: u64,
    alignment: u64,
    /// Bytes that each tensor still needs, the one in progress first.
    missing: VecDeque<u64>,
    /// Whether the next byte is the first of a tensor.
    at_start: bool,
}

impl<W: Write> GgufStream<W> {
    /// A stream after a header of `offset` bytes, for tensors of these lengths.
    pub(super) fn new(to: W, offset: u64, alignment: u64, missing: VecDeque<u64>) -> Self {
        Self { to, offset, alignment, missing, at_start: true }
    }

    /// Writes the next bytes of the first tensor that is not complete. Padding between tensors is added here.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if that tensor needs fewer bytes, and errors of the writer.
    pub fn write(&mut self, data: &[u8]) -> io::Result<()> {
        self.drop_complete();
        if data.is_empty() {
            return Ok(());
        }
        let len = data.len() as u64;
        let Some(left) = self.missing.front_mut().filter(|left| **left >= len) else {
            let left = self.missing.front().unwrap_or(&0);
            let problem = format!("{len} bytes of data for a tensor that needs {left}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
        };
        *left -= len;
        if self.at_start {
            let padding = self.offset.next_multiple_of(self.alignment) - self.offset;
            io::copy(&mut io::repeat(0).take(padding), &mut self.to)?;
            self.offset += padding;
        }
        self.at_start = *left == 0;
        self.to.write_all(data)?;
        self.offset += len;
        Ok(())
    }

    /// Ends the file and flushes the writer.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if a tensor is not complete, and errors of the writer.
    pub fn finish(mut self) -> io::Result<W> {
        self.drop_complete();
        if let Some(left) = self.missing.front() {
            let problem =
                format!("{} tensors are not complete; the first needs {left} bytes", self.missing.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
        }
        self.to.flush()?;
        Ok(self.to)
    }

    fn drop_complete(&mut self) {
        while self.missing.front() == Some(&0) {
            self.missing.pop_front();
        }
    }
}
