//! The models that a caller may use.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Maximum bytes of a model name or prefix.
const BYTES_MAX: usize = 256;

/// Maximum patterns of one caller.
const PATTERNS_MAX: usize = 256;

/// A model name, or a name prefix written with a trailing `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelPattern {
    text: String,
    prefix: bool,
}

/// Not a valid model pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is not a model name or prefix; allowed are 1 to {BYTES_MAX} bytes without control characters, '*' only at \
     the end"
)]
pub struct BadPattern(String);

impl ModelPattern {
    /// Returns whether the pattern matches `model`.
    pub fn matches(&self, model: &str) -> bool {
        if self.prefix { model.starts_with(&self.text) } else { model == self.text }
    }

    /// Returns whether every name that matches `other` matches this pattern.
    fn covers(&self, other: &Self) -> bool {
        self.matches(&other.text) && (self.prefix || !other.prefix)
    }
}

impl FromStr for ModelPattern {
    type Err = BadPattern;

    fn from_str(pattern: &str) -> Result<Self, BadPattern> {
        let (text, prefix) = match pattern.strip_suffix('*') {
            Some(text) => (text, true),
            None => (pattern, false),
        };
        let sound = pattern.len() <= BYTES_MAX && !text.contains(|c: char| c == '*' || c.is_control());
        if pattern.is_empty() || !sound {
            return Err(BadPattern(pattern.chars().take(64).collect()));
        }
        Ok(Self { text: text.to_owned(), prefix })
    }
}

impl fmt::Display for ModelPattern {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}{}", self.text, if self.prefix { "*" } else { "" })
    }
}

impl Serialize for ModelPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ModelPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// The models that a caller may use: all (`null` in JSON), or those that match a list of patterns. Clones are
/// cheap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedModels(Option<Arc<[ModelPattern]>>);

impl AllowedModels {
    /// Every model.
    pub const ALL: Self = Self(None);

    /// Allows only models that match one of `patterns`.
    pub fn only(patterns: impl IntoIterator<Item = ModelPattern>) -> Self {
        Self(Some(patterns.into_iter().collect()))
    }

    /// Returns whether the model may be used.
    pub fn allow(&self, model: &str) -> bool {
        self.0.as_ref().is_none_or(|patterns| patterns.iter().any(|pattern| pattern.matches(model)))
    }

    /// Returns whether all models may be used.
    pub fn is_all(&self) -> bool {
        self.0.is_none()
    }

    /// The patterns, unless all models are allowed.
    pub fn patterns(&self) -> Option<&[ModelPattern]> {
        self.0.as_deref()
    }

    /// Returns whether every model allowed by `other` is allowed. Each pattern of `other` must be covered by
    /// a single pattern.
    pub fn covers(&self, other: &Self) -> bool {
        let (own, asked) = match (&self.0, &other.0) {
            (None, _) => return true,
            (Some(own), None) => return own.iter().any(|pattern| pattern.prefix && pattern.text.is_empty()),
            (Some(own), Some(asked)) => (own, asked),
        };
        asked.iter().all(|asked: &ModelPattern| own.iter().any(|pattern| pattern.covers(asked)))
    }
}

impl Serialize for AllowedModels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.patterns().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for AllowedModels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let patterns = Option::<Vec<ModelPattern>>::deserialize(deserializer)?;
        if patterns.as_ref().is_some_and(|patterns| patterns.len() > PATTERNS_MAX) {
            return Err(de::Error::custom(format_args!("at most {PATTERNS_MAX} model names are allowed")));
        }
        Ok(Self(patterns.map(Arc::from)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn models(patterns: &[&str]) -> AllowedModels {
        AllowedModels::only(patterns.iter().map(|pattern| pattern.parse().unwrap()))
    }

    #[test]
    fn names_and_prefixes() {
        let allowed = models(&["llama-3", "team/*"]);
        for (model, expected) in [
            ("llama-3", true),
            ("llama-3.1", false),
            ("team/a", true),
            ("team/", true),
            ("team", false),
            ("", false),
        ] {
            assert_eq!(allowed.allow(model), expected, "{model}");
        }
        assert!(AllowedModels::ALL.allow("any") && !models(&[]).allow("any"));
        for bad in ["", "a*b", "**", "a\n", &"x".repeat(257)] {
            assert!(bad.parse::<ModelPattern>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_set_covers_narrower_sets_alone() {
        let own = models(&["llama-3", "team/*"]);
        for narrower in [&["llama-3"][..], &["team/a", "team/b*"], &["team/*"], &[]] {
            assert!(own.covers(&models(narrower)), "{narrower:?}");
        }
        for wider in [&["llama-3*"][..], &["team*"], &["*"], &["other"], &["team/a", "x"]] {
            assert!(!own.covers(&models(wider)), "{wider:?}");
        }
        assert!(!own.covers(&AllowedModels::ALL) && models(&["*"]).covers(&AllowedModels::ALL));
        assert!(AllowedModels::ALL.covers(&own));
    }

    proptest! {
        #[test]
        fn covered_sets_allow_nothing_more(
            own in prop::collection::vec("[ab]{0,2}[*]?", 0..3),
            asked in prop::collection::vec("[ab]{0,2}[*]?", 0..3),
            model in "[ab]{0,4}",
        ) {
            let read = |patterns: &[String]| AllowedModels::only(patterns.iter().filter_map(|p| p.parse().ok()));
            let (own, asked) = (read(&own), read(&asked));
            prop_assert!(!(own.covers(&asked) && asked.allow(&model)) || own.allow(&model));
        }

        #[test]
        fn patterns_are_read_as_they_are_written(pattern in ".{0,20}") {
            if let Ok(read) = pattern.parse::<ModelPattern>() {
                prop_assert_eq!(read.to_string(), pattern);
            }
        }
    }
}
