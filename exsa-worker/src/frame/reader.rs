//! Reads frames from a byte stream.

use super::{FRAME_MAX, FrameError, PREFIX, decode};
use serde::de::DeserializeOwned;
use std::io::{BufRead, BufReader, ErrorKind, Read};

/// Bytes read at once.
const BUFFER: usize = 64 << 10;

/// Frame reader.
#[derive(Debug)]
pub struct FrameReader<R> {
    input: BufReader<R>,
    body: Vec<u8>,
    frame_max: usize,
}

impl<R: Read> FrameReader<R> {
    /// Creates a reader for frames of at most [`FRAME_MAX`] bytes.
    pub fn new(input: R) -> Self {
        Self::with_max(input, FRAME_MAX)
    }

    /// Creates a reader for frames of at most `frame_max` bytes.
    pub fn with_max(input: R, frame_max: usize) -> Self {
        Self { input: BufReader::with_capacity(BUFFER, input), body: Vec::new(), frame_max }
    }

    /// Returns the underlying byte stream.
    pub fn get_ref(&self) -> &R {
        self.input.get_ref()
    }

    /// Reads the next message; `None` at the end of the stream. Memory grows with the received bytes, not
    /// with the announced length of a frame.
    ///
    /// # Errors
    ///
    /// [`FrameError`]; the reader is unusable afterwards.
    pub fn read<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        let mut prefix = [0; PREFIX];
        let mut have = 0;
        while have < PREFIX {
            let rest = prefix.get_mut(have..).unwrap_or_default();
            match self.input.read(rest) {
                Ok(0) if have == 0 => return Ok(None),
                Ok(0) => return Err(FrameError::Truncated),
                Ok(n) => have += n,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        let len = u32::from_le_bytes(prefix) as usize;
        if len > self.frame_max {
            return Err(FrameError::TooLong { len, max: self.frame_max });
        }
        // Fast path: the body is in the buffer.
        if let Some(body) = self.input.buffer().get(..len) {
            let message = decode(body);
            self.input.consume(len);
            return message.map(Some);
        }
        self.body.clear();
        let read = (&mut self.input).take(len as u64).read_to_end(&mut self.body)?;
        if read < len {
            return Err(FrameError::Truncated);
        }
        let message = decode(&self.body);
        if self.body.capacity() > BUFFER {
            self.body = Vec::new();
        }
        message.map(Some)
    }
}
