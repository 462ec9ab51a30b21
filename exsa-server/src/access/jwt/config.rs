//! The section `[access.jwt]` of the configuration.

use crate::access::record::{self, is_name};
use crate::access::{AllowedModels, Grants, Scopes};
use crate::config::units;
use exsa_core::Priority;
use jsonwebtoken::Algorithm;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Maximum clock difference between server and provider.
const LEEWAY_MAX: Duration = Duration::from_secs(300);

/// The section `[access.jwt]`: tokens of an identity provider.
///
/// ```
/// use exsa_server::access::{JwtConfig, RoleConfig, Scope};
///
/// let config = JwtConfig::new("https://login.example.org", ["exsa"])
///     .role(RoleConfig::new("exsa-users").scopes([Scope::Infer]).group("staff"));
/// # let _ = config;
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct JwtConfig {
    /// Exact value of the claim `iss`. Its keys are found by OpenID Connect Discovery unless there is a
    /// `jwks_file`.
    pub issuer: String,
    /// Allowed values of the claim `aud`.
    pub audience: Vec<String>,
    /// Signature algorithms; `["RS256"]` by default. A token's header can only select one of these.
    #[serde(default = "default_algorithms")]
    pub algorithms: Vec<String>,
    /// A JSON Web Key Set (RFC 7517) in a file, instead of discovery.
    #[serde(default)]
    pub jwks_file: Option<PathBuf>,
    /// CA certificates (PEM) for the provider's TLS certificate; the common ones by default.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Clock difference allowed for `exp` and `nbf`; `60s` by default, at most five minutes.
    #[serde(default = "default_leeway", with = "units::duration")]
    pub leeway: Duration,
    /// Interval at which keys are fetched again; `1h` by default.
    #[serde(default = "default_refresh", with = "units::duration")]
    pub refresh: Duration,
    /// Claim with the names of roles: a list, or a string separated by spaces; `roles` by default. A path
    /// such as `realm_access.roles` selects nested values.
    #[serde(default = "default_roles_claim")]
    pub roles_claim: String,
    /// Claim with the caller's group, overriding its role's.
    #[serde(default)]
    pub group_claim: Option<String>,
    /// Claim that restricts the models allowed by its roles.
    #[serde(default)]
    pub models_claim: Option<String>,
    /// Claim with the caller's most urgent class, up to that of its roles.
    #[serde(default)]
    pub priority_claim: Option<String>,
    /// Rights by role. A token without any of these roles has no rights.
    #[serde(default)]
    pub roles: Vec<RoleConfig>,
}

/// An entry of `[[access.jwt.roles]]`: the rights of a role.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct RoleConfig {
    /// Name of the role in tokens.
    pub name: String,
    /// Granted scopes; only inference by default.
    #[serde(default = "crate::access::grants::default_scopes")]
    pub scopes: Scopes,
    /// Allowed models; all by default.
    #[serde(default)]
    pub models: AllowedModels,
    /// The most urgent class; `normal` by default.
    #[serde(default)]
    pub priority_max: Priority,
    /// Share of the engine; 1 by default.
    #[serde(default = "crate::access::grants::default_weight")]
    pub weight: f32,
    /// Group of callers with this role.
    #[serde(default)]
    pub group: Option<String>,
    /// Whether callers may name the end user.
    #[serde(default)]
    pub trusted_proxy: bool,
}

fn default_algorithms() -> Vec<String> {
    vec!["RS256".into()]
}

fn default_leeway() -> Duration {
    Duration::from_secs(60)
}

fn default_refresh() -> Duration {
    Duration::from_secs(3600)
}

fn default_roles_claim() -> String {
    "roles".into()
}

/// An invalid setting of `[access.jwt]`, or one of its files that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("access.jwt.{setting}: {problem}")]
#[non_exhaustive]
pub struct JwtConfigError {
    /// The setting.
    pub setting: &'static str,
    problem: String,
}

impl JwtConfigError {
    /// The problem, and the allowed values.
    pub fn problem(&self) -> &str {
        &self.problem
    }

    pub(super) fn new(setting: &'static str, problem: impl Into<String>) -> Self {
        Self { setting, problem: problem.into() }
    }
}

impl JwtConfig {
    /// Creates settings for an issuer whose keys are found by discovery.
    pub fn new(issuer: impl Into<String>, audience: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            issuer: issuer.into(),
            audience: audience.into_iter().map(Into::into).collect(),
            algorithms: default_algorithms(),
            jwks_file: None,
            ca_file: None,
            leeway: default_leeway(),
            refresh: default_refresh(),
            roles_claim: default_roles_claim(),
            group_claim: None,
            models_claim: None,
            priority_claim: None,
            roles: Vec::new(),
        }
    }

    /// Sets the algorithms of signatures.
    #[must_use]
    pub fn algorithms(mut self, algorithms: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.algorithms = algorithms.into_iter().map(Into::into).collect();
        self
    }

    /// Reads the keys from a file.
    #[must_use]
    pub fn jwks_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.jwks_file = Some(path.into());
        self
    }

    /// Adds a role.
    #[must_use]
    pub fn role(mut self, role: RoleConfig) -> Self {
        self.roles.push(role);
        self
    }

    /// Checks the settings. Returns the algorithms.
    pub(in crate::access) fn check(&self) -> Result<Vec<Algorithm>, JwtConfigError> {
        let error = |setting, problem: String| Err(JwtConfigError::new(setting, problem));
        if self.issuer.is_empty() || (self.jwks_file.is_none() && !is_safe_url(&self.issuer)) {
            let problem = format!(
                "'{}' is no URL that begins with https:// (http:// is allowed for loopback addresses)",
                self.issuer
            );
            return error("issuer", problem);
        }
        let over_tls = self.jwks_file.is_none() && !is_loopback_url(&self.issuer);
        if cfg!(not(feature = "tls")) && (over_tls || self.ca_file.is_some()) {
            let problem = "this server was built without the feature tls and can read no keys over https; build it \
                           with the feature, or give a jwks_file";
            return error(if over_tls { "issuer" } else { "ca_file" }, problem.into());
        }
        if self.audience.is_empty() || self.audience.iter().any(String::is_empty) {
            return error(
                "audience",
                "at least one value is needed: tokens for other services must not pass".into(),
            );
        }
        let mut algorithms = Vec::new();
        for name in &self.algorithms {
            let algorithm: Algorithm = name.parse().map_err(|_| {
                let allowed =
                    "RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA, HS256, HS384, HS512";
                JwtConfigError::new("algorithms", format!("'{name}' is unknown; allowed are {allowed}"))
            })?;
            if name.starts_with("HS") && self.jwks_file.is_none() {
                return error("algorithms", format!("{name} needs a jwks_file: its keys are secret"));
            }
            algorithms.push(algorithm);
        }
        if algorithms.is_empty() {
            return error("algorithms", "at least one is needed".into());
        }
        if self.leeway > LEEWAY_MAX {
            return error("leeway", format!("at most {} s are allowed", LEEWAY_MAX.as_secs()));
        }
        for role in &self.roles {
            let problem = match role {
                role if role.name.is_empty() => "a role needs a name".into(),
                role if !super::super::grants::WEIGHTS.contains(&role.weight) => {
                    format!("{}: the weight must be 0.001 to 1000", role.name)
                }
                role if role.group.as_ref().is_some_and(|group| !is_name(group)) => {
                    format!("{}: the group must have 1 to {} bytes", role.name, record::NAME_MAX)
                }
                _ => continue,
            };
            return error("roles", problem);
        }
        Ok(algorithms)
    }
}

impl RoleConfig {
    /// Creates a role that allows inference on all models.
    pub fn new(name: impl Into<String>) -> Self {
        let Grants { scopes, models, priority_max, weight, group, trusted_proxy, .. } = Grants::default();
        Self { name: name.into(), scopes, models, priority_max, weight, group, trusted_proxy }
    }

    /// Sets the acts that it permits.
    #[must_use]
    pub fn scopes(mut self, scopes: impl IntoIterator<Item = crate::access::Scope>) -> Self {
        self.scopes = scopes.into_iter().collect();
        self
    }

    /// Sets the models that it permits.
    #[must_use]
    pub fn models(mut self, models: AllowedModels) -> Self {
        self.models = models;
        self
    }

    /// Sets the most urgent class.
    #[must_use]
    pub fn priority_max(mut self, priority: Priority) -> Self {
        self.priority_max = priority;
        self
    }

    /// Sets the group.
    #[must_use]
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.group = Some(group.into());
        self
    }
}

/// Returns whether a URL is authentic: over TLS, or on this machine.
pub(super) fn is_safe_url(url: &str) -> bool {
    url.starts_with("https://") || is_loopback_url(url)
}

/// Returns whether a URL is on this machine without TLS.
pub(super) fn is_loopback_url(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("http://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, _)) => host,
        None => authority.split(':').next().unwrap_or_default(),
    };
    !authority.contains('@')
        && (host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_are_not_allowed_are_named() {
        let sound = || JwtConfig::new("http://127.0.0.1:1", ["exsa"]);
        assert_eq!(sound().check().unwrap(), [Algorithm::RS256]);
        let over_tls = JwtConfig::new("https://a.example", ["exsa"]);
        assert_eq!(over_tls.check().is_ok(), cfg!(feature = "tls"));
        let mut late = sound();
        late.leeway = Duration::from_secs(301);
        let file = sound().algorithms(["HS256"]).jwks_file("keys.json");
        assert!(file.check().is_ok());
        for (config, setting) in [
            (JwtConfig::new("http://a.example", ["exsa"]), "issuer"),
            (JwtConfig::new("", ["exsa"]).jwks_file("keys.json"), "issuer"),
            (JwtConfig::new("http://[::1]", [""]), "audience"),
            (JwtConfig::new("http://[::1]", Vec::<String>::new()), "audience"),
            (sound().algorithms(["none"]), "algorithms"),
            (sound().algorithms(["HS256"]), "algorithms"),
            (sound().algorithms(Vec::<String>::new()), "algorithms"),
            (late, "leeway"),
            (sound().role(RoleConfig::new("")), "roles"),
            (sound().role(RoleConfig::new("a").group("")), "roles"),
        ] {
            assert_eq!(config.check().unwrap_err().setting, setting);
        }
    }

    #[test]
    fn settings_are_read_as_they_are_written() {
        let config =
            JwtConfig::new("https://a.example", ["exsa"]).role(RoleConfig::new("user").group("staff"));
        let text = serde_json::to_string(&config).unwrap();
        assert!(text.contains(r#""leeway":"1m""#), "{text}");
        assert_eq!(serde_json::from_str::<JwtConfig>(&text).unwrap(), config);
    }

    #[test]
    fn urls_without_tls_lead_to_this_machine_alone() {
        for safe in ["https://a.example", "http://localhost:1/x", "http://127.0.0.1", "http://[::1]:9/y"] {
            assert!(is_safe_url(safe), "{safe}");
        }
        for bad in
            ["http://a.example", "http://localhost@a.example", "http://127.0.0.1.a.example", "file:///x", ""]
        {
            assert!(!is_safe_url(bad), "{bad}");
        }
    }
}
