//! Messages and JSON values by serde, in the shapes of OpenAI's API.

use super::{ContentPart, Json, Media, MediaSource, ToolCall, base64};
use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Int(value) => match (i64::try_from(*value), u64::try_from(*value)) {
                (Ok(value), _) => serializer.serialize_i64(value),
                (_, Ok(value)) => serializer.serialize_u64(value),
                _ => serializer.serialize_i128(*value),
            },
            Self::Float(value) => serializer.serialize_f64(*value),
            Self::String(text) => serializer.serialize_str(text),
            Self::Array(items) => serializer.collect_seq(items),
            Self::Object(fields) => serializer.collect_map(fields.iter().map(|(key, value)| (key, value))),
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_none<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        Json::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::from(value))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Json, E> {
        Ok(Json::Int(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Float(value))
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::from(text))
    }

    fn visit_string<E>(self, text: String) -> Result<Json, E> {
        Ok(Json::String(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Json::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(Json::Object(fields))
    }
}

/// A list; null means an empty list.
pub(super) fn null_or_list<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// The content of a message: null, a text, or a list of parts.
pub(super) mod content {
    use super::{ContentPart, Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Deserialize)]
    #[serde(
        untagged,
        expecting = "content is null, a text, or a list of parts of the type text, image_url, audio_url or \
        input_audio"
    )]
    enum Content {
        Null(()),
        Text(String),
        Parts(Vec<ContentPart>),
    }

    pub(in super::super) fn serialize<S: Serializer>(
        parts: &[ContentPart],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match parts {
            [] => serializer.serialize_unit(),
            [ContentPart::Text(text)] => serializer.serialize_str(text),
            parts => parts.serialize(serializer),
        }
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<ContentPart>, D::Error> {
        Ok(match Content::deserialize(deserializer)? {
            Content::Null(()) => Vec::new(),
            Content::Text(text) => vec![ContentPart::Text(text)],
            Content::Parts(parts) => parts,
        })
    }
}

/// A content part in the API's format.
#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Part {
    Text { text: String },
    ImageUrl { image_url: Url },
    AudioUrl { audio_url: Url },
    InputAudio { input_audio: InputAudio },
}

#[derive(Serialize, Deserialize)]
struct Url {
    url: String,
}

#[derive(Serialize, Deserialize)]
struct InputAudio {
    /// The bytes in base 64.
    data: String,
    /// Subtype of the media type, after `audio/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    format: Option<String>,
}

impl Serialize for ContentPart {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let part = match self {
            Self::Text(text) => Part::Text { text: text.clone() },
            Self::Image(media) => Part::ImageUrl { image_url: media.into() },
            Self::Audio(media) => match (&media.source, audio_format(media.mime_type.as_deref())) {
                (MediaSource::Bytes(bytes), Ok(format)) => {
                    let (data, format) = (base64::encode(bytes), format.map(str::to_owned));
                    Part::InputAudio { input_audio: InputAudio { data, format } }
                }
                _ => Part::AudioUrl { audio_url: media.into() },
            },
        };
        part.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ContentPart {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match Part::deserialize(deserializer)? {
            Part::Text { text } => Self::Text(text),
            Part::ImageUrl { image_url } => Self::Image(image_url.media().map_err(D::Error::custom)?),
            Part::AudioUrl { audio_url } => Self::Audio(audio_url.media().map_err(D::Error::custom)?),
            Part::InputAudio { input_audio: InputAudio { data, format } } => {
                let bytes = base64::decode(&data)
                    .ok_or_else(|| D::Error::custom("input_audio.data is not valid base64"))?;
                let media = Media::bytes(bytes);
                Self::Audio(match format {
                    Some(format) => media.mime_type(format!("audio/{format}")),
                    None => media,
                })
            }
        })
    }
}

/// The API's name of an audio format; an error for a media type other than audio.
fn audio_format(mime_type: Option<&str>) -> Result<Option<&str>, ()> {
    mime_type.map(|mime_type| mime_type.strip_prefix("audio/").ok_or(())).transpose()
}

impl From<&Media> for Url {
    /// The URI, with bytes as a `data:` URI (RFC 2397).
    fn from(media: &Media) -> Self {
        let url = match &media.source {
            MediaSource::Uri(uri) => uri.clone(),
            MediaSource::Bytes(bytes) => {
                let mime_type = media.mime_type.as_deref().unwrap_or_default();
                format!("data:{mime_type};base64,{}", base64::encode(bytes))
            }
        };
        Self { url }
    }
}

impl Url {
    /// The media at the URI; the bytes of a base64 `data:` URI are decoded.
    fn media(self) -> Result<Media, &'static str> {
        let Some((mime_type, data)) =
            self.url.strip_prefix("data:").and_then(|rest| rest.split_once(";base64,"))
        else {
            return Ok(Media::uri(self.url));
        };
        let media = Media::bytes(base64::decode(data).ok_or("the data: URI is not valid base64")?);
        Ok(if mime_type.is_empty() { media } else { media.mime_type(mime_type) })
    }
}

/// A tool call in the API's format.
#[derive(Serialize, Deserialize)]
struct Call {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(default, rename = "type")]
    kind: CallKind,
    function: Function,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum CallKind {
    #[default]
    Function,
}

#[derive(Serialize, Deserialize)]
struct Function {
    name: String,
    /// Text of a JSON object; when reading, the object itself is accepted too.
    #[serde(default)]
    arguments: Json,
}

impl Serialize for ToolCall {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let function = Function { name: self.name.clone(), arguments: Json::from(self.arguments.as_str()) };
        Call { id: self.id.clone(), kind: CallKind::Function, function }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ToolCall {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Call { id, function: Function { name, arguments }, .. } = Call::deserialize(deserializer)?;
        let arguments = match arguments {
            Json::Null => String::new(),
            Json::String(text) => text,
            object => object.to_string(),
        };
        Ok(Self { id, name, arguments })
    }
}
