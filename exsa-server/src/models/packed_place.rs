//! Locations of packed files in the configuration.

use exsa_core::backend::PackedCache;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::path::PathBuf;

/// Location of a model's packed file: `off`, `beside_model`, or the path of a folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum PackedPlace {
    /// No packed file is written or read.
    #[default]
    Off,
    /// The folder of the model's file.
    BesideModel,
    /// A folder of packed files.
    Folder(PathBuf),
}

impl PackedPlace {
    /// Returns the cache at this location; `None` if it is off.
    pub(super) fn cache(&self) -> Option<PackedCache> {
        match self {
            Self::Off => None,
            Self::BesideModel => Some(PackedCache::beside_model()),
            Self::Folder(folder) => Some(PackedCache::in_folder(folder)),
        }
    }
}

impl Serialize for PackedPlace {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Off => "off".serialize(to),
            Self::BesideModel => "beside_model".serialize(to),
            Self::Folder(folder) => folder.serialize(to),
        }
    }
}

impl<'de> Deserialize<'de> for PackedPlace {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        Ok(match text.as_str() {
            "off" => Self::Off,
            "beside_model" => Self::BesideModel,
            "" => {
                let problem = "the place is empty: \"off\", \"beside_model\" or a folder is allowed";
                return Err(serde::de::Error::custom(problem));
            }
            folder => Self::Folder(folder.into()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_texts() {
        for (text, place) in [
            ("\"off\"", PackedPlace::Off),
            ("\"beside_model\"", PackedPlace::BesideModel),
            ("\"/var/cache/exsa\"", PackedPlace::Folder("/var/cache/exsa".into())),
        ] {
            assert_eq!(serde_json::from_str::<PackedPlace>(text).unwrap(), place);
            assert_eq!(serde_json::to_string(&place).unwrap(), text);
        }
        assert!(serde_json::from_str::<PackedPlace>("\"\"").is_err());
        assert!(serde_json::from_str::<PackedPlace>("true").is_err());
    }
}
