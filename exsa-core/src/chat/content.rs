//! Parts of a message's content.

use std::sync::Arc;

/// A part of a message's content.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ContentPart {
    /// Text.
    Text(String),
    /// A picture.
    Image(Media),
    /// A sound.
    Audio(Media),
}

impl ContentPart {
    /// Kind of the part, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Image(_) => "image",
            Self::Audio(_) => "audio",
        }
    }
}

impl From<&str> for ContentPart {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for ContentPart {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

/// A picture or a sound: its bytes, or the place where they are.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Media {
    /// Bytes or place.
    pub source: MediaSource,
    /// Media type (RFC 6838), such as `image/png`; `None` where the bytes themselves have to tell.
    pub mime_type: Option<String>,
}

/// Bytes of a picture or a sound, or the place where they are.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MediaSource {
    /// Bytes of a file, encoded as the media type states.
    Bytes(Arc<[u8]>),
    /// A URI: `https:`, `file:`, or `data:` with the bytes in it. Nothing is fetched by this crate.
    Uri(String),
}

impl Media {
    /// Media in memory.
    pub fn bytes(bytes: impl Into<Arc<[u8]>>) -> Self {
        Self { source: MediaSource::Bytes(bytes.into()), mime_type: None }
    }

    /// Media at a URI.
    pub fn uri(uri: impl Into<String>) -> Self {
        Self { source: MediaSource::Uri(uri.into()), mime_type: None }
    }

    /// Sets the media type.
    #[must_use]
    pub fn mime_type(mut self, mime_type: impl Into<String>) -> Self {
        self.mime_type = Some(mime_type.into());
        self
    }
}
