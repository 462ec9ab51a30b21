//! Parts of a message's content.

use std::sync::Arc;

/// A part of a message's content.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ContentPart {
    /// Text.
    Text(String),
    /// An image.
    Image(Media),
    /// An audio clip.
    Audio(Media),
}

impl ContentPart {
    /// Kind of the part, for error messages.
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

/// An image or audio clip: its bytes or their location.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Media {
    /// Bytes or location.
    pub source: MediaSource,
    /// Media type (RFC 6838), such as `image/png`; `None` to detect it from the bytes.
    pub mime_type: Option<String>,
}

/// Bytes of an image or audio clip, or their location.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MediaSource {
    /// Bytes of a file in the format of the media type.
    Bytes(Arc<[u8]>),
    /// A URI: `https:`, `file:`, or `data:`, which contains the bytes. This crate never fetches URIs.
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
