//! The part of MessagePack that events need.

/// MessagePack writer.
#[derive(Debug, Default)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    pub(super) fn nil(&mut self) {
        self.0.push(0xc0);
    }

    /// Writes an integer in its shortest form.
    pub(super) fn uint(&mut self, value: u64) {
        match (u8::try_from(value), u16::try_from(value), u32::try_from(value)) {
            (Ok(value), ..) if value < 0x80 => self.0.push(value),
            (Ok(value), ..) => self.tagged(0xcc, &value.to_be_bytes()),
            (_, Ok(value), _) => self.tagged(0xcd, &value.to_be_bytes()),
            (.., Ok(value)) => self.tagged(0xce, &value.to_be_bytes()),
            _ => self.tagged(0xcf, &value.to_be_bytes()),
        }
    }

    pub(super) fn float(&mut self, value: f64) {
        self.tagged(0xcb, &value.to_be_bytes());
    }

    pub(super) fn text(&mut self, text: &str) {
        match (u8::try_from(text.len()), u16::try_from(text.len())) {
            (Ok(len), _) if len < 32 => self.0.push(0xa0 | len),
            (Ok(len), _) => self.tagged(0xd9, &len.to_be_bytes()),
            (_, Ok(len)) => self.tagged(0xda, &len.to_be_bytes()),
            _ => self.tagged(0xdb, &length(text.len()).to_be_bytes()),
        }
        self.0.extend_from_slice(text.as_bytes());
    }

    /// Writes an array header; the items follow.
    pub(super) fn array(&mut self, len: usize) {
        match u16::try_from(len) {
            Ok(len) if len < 16 => self.0.push(0x90 | len as u8),
            Ok(len) => self.tagged(0xdc, &len.to_be_bytes()),
            Err(_) => self.tagged(0xdd, &length(len).to_be_bytes()),
        }
    }

    /// Writes a map header for fewer than 16 entries; keys and values follow.
    pub(super) fn map(&mut self, len: u8) {
        debug_assert!(len < 16);
        self.0.push(0x80 | len);
    }

    fn tagged(&mut self, tag: u8, bytes: &[u8]) {
        self.0.push(tag);
        self.0.extend_from_slice(bytes);
    }
}

/// Lists of more than 2^32 items would exceed the memory limits of their sources.
fn length(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
