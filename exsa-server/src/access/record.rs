//! Records of API keys.

use super::grants::{Grants, WEIGHTS};
use super::models::{AllowedModels, ModelPattern};
use super::scope::Scopes;
use super::secret::SecretHash;
use crate::quota::Limits;
use exsa_core::Priority;
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::{Value, json};
use std::time::Duration;

/// Maximum bytes of a key's name or group.
pub(crate) const NAME_MAX: usize = 128;

/// Maximum bytes of a quota in JSON.
const QUOTA_MAX: usize = 4096;

/// Options of a new key. In JSON, `expires_in` is a string such as `30d`.
///
/// ```
/// use exsa_server::access::{KeyOptions, Scope};
///
/// let options = KeyOptions::new("ci").scopes([Scope::Infer, Scope::Metrics]).group("build");
/// # let _ = options;
/// ```
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct KeyOptions {
    /// Display name; need not be unique.
    pub name: String,
    /// Granted scopes; only inference by default.
    #[serde(default = "super::grants::default_scopes")]
    pub scopes: Scopes,
    /// Allowed models; all by default.
    #[serde(default)]
    pub models: AllowedModels,
    /// The most urgent request class; `normal` by default.
    #[serde(default)]
    pub priority_max: Priority,
    /// Share of the engine relative to other keys, 0.001 to 1000; 1 by default.
    #[serde(default = "super::grants::default_weight")]
    pub weight: f32,
    /// Group whose quota the key shares.
    #[serde(default)]
    pub group: Option<String>,
    /// Whether requests may name the end user.
    #[serde(default)]
    pub trusted_proxy: bool,
    /// Time until the key expires; never by default.
    #[serde(default, deserialize_with = "duration")]
    pub expires_in: Option<Duration>,
    /// Quota of this key.
    #[serde(default)]
    pub quota: Option<Value>,
}

/// Parses a duration such as `30d`.
pub(super) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let read = |text: String| {
        let time = humantime::parse_duration(&text);
        time.map_err(|error| {
            de::Error::custom(format_args!("'{text}' is not a time such as 90s, 12h or 30d: {error}"))
        })
    };
    Option::<String>::deserialize(deserializer)?.map(read).transpose()
}

/// An invalid option of a new key.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct KeyOptionError {
    /// The option.
    pub field: &'static str,
    problem: String,
}

impl KeyOptions {
    /// Creates options for a key that allows inference on all models.
    pub fn new(name: impl Into<String>) -> Self {
        let Grants { scopes, models, priority_max, weight, group, trusted_proxy, quota } = Grants::default();
        let name = name.into();
        Self { name, scopes, models, priority_max, weight, group, trusted_proxy, expires_in: None, quota }
    }

    /// Sets the scopes.
    #[must_use]
    pub fn scopes(mut self, scopes: impl IntoIterator<Item = super::Scope>) -> Self {
        self.scopes = scopes.into_iter().collect();
        self
    }

    /// Sets the allowed models.
    #[must_use]
    pub fn models(mut self, patterns: impl IntoIterator<Item = ModelPattern>) -> Self {
        self.models = AllowedModels::only(patterns);
        self
    }

    /// Sets the most urgent request class.
    #[must_use]
    pub fn priority_max(mut self, priority: Priority) -> Self {
        self.priority_max = priority;
        self
    }

    /// Sets the key's share of the engine.
    #[must_use]
    pub fn weight(mut self, weight: f32) -> Self {
        self.weight = weight;
        self
    }

    /// Sets the key's group.
    #[must_use]
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.group = Some(group.into());
        self
    }

    /// Sets whether requests may name the end user.
    #[must_use]
    pub fn trusted_proxy(mut self, trusted: bool) -> Self {
        self.trusted_proxy = trusted;
        self
    }

    /// Sets the time until the key expires.
    #[must_use]
    pub fn expires_in(mut self, time: Duration) -> Self {
        self.expires_in = Some(time);
        self
    }

    /// Sets the quota of this key.
    #[must_use]
    pub fn quota(mut self, quota: Value) -> Self {
        self.quota = Some(quota);
        self
    }

    /// Returns the rights of the key.
    ///
    /// # Errors
    ///
    /// The first invalid option.
    pub fn grants(&self) -> Result<Grants, KeyOptionError> {
        let grants = Grants {
            scopes: self.scopes,
            models: self.models.clone(),
            priority_max: self.priority_max,
            weight: self.weight,
            group: self.group.clone(),
            trusted_proxy: self.trusted_proxy,
            quota: self.quota.clone(),
        };
        check(&self.name, &grants)?;
        if self.expires_in.is_some_and(|time| time.as_secs() == 0) {
            let problem = "a time of at least one second is needed".into();
            return Err(KeyOptionError { field: "expires_in", problem });
        }
        Ok(grants)
    }
}

/// Checks the name and the rights of a key.
fn check(name: &str, grants: &Grants) -> Result<(), KeyOptionError> {
    let error = |field, problem: String| Err(KeyOptionError { field, problem });
    let names = [("name", Some(name)), ("group", grants.group.as_deref())];
    for (field, text) in names.into_iter().filter_map(|(field, text)| Some((field, text?))) {
        if !is_name(text) {
            return error(field, format!("1 to {NAME_MAX} bytes without control characters are allowed"));
        }
    }
    if grants.scopes.is_empty() {
        return error("scopes", "at least one scope is needed".into());
    }
    if !WEIGHTS.contains(&grants.weight) {
        let (low, high) = WEIGHTS.into_inner();
        return error("weight", format!("{} is not in {low} to {high}", grants.weight));
    }
    if grants.quota.as_ref().is_some_and(|quota| quota.to_string().len() > QUOTA_MAX) {
        return error("quota", format!("at most {QUOTA_MAX} bytes are allowed"));
    }
    if let Some(Err(problem)) = grants.quota.as_ref().map(Limits::from_json) {
        return error("quota", problem.to_string());
    }
    Ok(())
}

/// Returns whether a text is a valid name of a key, a group or a subject.
pub(crate) fn is_name(text: &str) -> bool {
    (1..=NAME_MAX).contains(&text.len()) && !text.contains(char::is_control)
}

/// Stored information about an API key. Times are Unix times in seconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct KeyRecord {
    /// Id, a part of the key's text.
    pub id: String,
    /// Display name.
    pub name: String,
    /// Rights of the key.
    pub grants: Grants,
    /// Creation time.
    pub created: u64,
    /// The caller that created the key.
    pub created_by: String,
    /// Expiry time.
    pub expires: Option<u64>,
    /// Time at which the key was revoked.
    pub revoked: Option<u64>,
    /// Time at which the secret was last renewed.
    pub rotated: Option<u64>,
    pub(crate) hash: SecretHash,
    pub(crate) previous: Option<PreviousSecret>,
}

/// The secret before a rotation, while both are valid.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PreviousSecret {
    pub(crate) hash: SecretHash,
    /// Time at which it expires.
    pub(crate) until: u64,
}

impl KeyRecord {
    /// Returns whether the key is valid at a Unix time.
    pub fn is_valid(&self, now: u64) -> bool {
        self.revoked.is_none() && self.expires.is_none_or(|expires| now < expires)
    }

    /// Checks a record from an untrusted source.
    pub(super) fn check(&self) -> Result<(), KeyOptionError> {
        check(&self.name, &self.grants)
    }

    /// The record as JSON, without hashes.
    pub fn json(&self) -> Value {
        let Grants { scopes, models, priority_max, weight, group, trusted_proxy, quota } = &self.grants;
        json!({
            "object": "key",
            "id": self.id,
            "name": self.name,
            "created": self.created,
            "created_by": self.created_by,
            "expires": self.expires,
            "revoked": self.revoked,
            "rotated": self.rotated,
            "previous_secret_until": self.previous.as_ref().map(|previous| previous.until),
            "scopes": scopes,
            "models": models,
            "priority_max": priority_max.name(),
            "weight": weight,
            "group": group,
            "trusted_proxy": trusted_proxy,
            "quota": quota,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_are_not_allowed_are_named() {
        for (options, field) in [
            (KeyOptions::new(""), "name"),
            (KeyOptions::new("a\nb"), "name"),
            (KeyOptions::new("a").group("x".repeat(129)), "group"),
            (KeyOptions::new("a").scopes([]), "scopes"),
            (KeyOptions::new("a").weight(f32::NAN), "weight"),
            (KeyOptions::new("a").weight(0.0), "weight"),
            (KeyOptions::new("a").expires_in(Duration::from_millis(5)), "expires_in"),
            (KeyOptions::new("a").quota(Value::from("x".repeat(5000))), "quota"),
        ] {
            assert_eq!(options.grants().unwrap_err().field, field);
        }
        assert_eq!(KeyOptions::new("ä").grants(), Ok(Grants::default()));
    }

    #[test]
    fn options_are_read_from_json() {
        let options: KeyOptions =
            serde_json::from_value(json!({"name": "a", "expires_in": "30d", "models": ["x*"]})).unwrap();
        assert_eq!(options.expires_in, Some(Duration::from_secs(30 * 86_400)));
        assert!(options.models.allow("xy") && !options.models.allow("y"));
        for (bad, word) in [
            (json!({"name": "a", "expires_in": "soon"}), "'soon'"),
            (json!({"name": "a", "scope": ["infer"]}), "scope"),
            (json!({"name": "a", "priority_max": "urgent"}), "urgent"),
            (json!({}), "name"),
        ] {
            let error = serde_json::from_value::<KeyOptions>(bad).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
