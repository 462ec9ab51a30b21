//! Derives rights from the claims of a verified token.

use super::config::{JwtConfig, RoleConfig};
use crate::access::record::is_name;
use crate::access::{AllowedModels, Grants, ModelPattern, Scope, Scopes};
use exsa_core::Priority;
use serde_json::{Map, Value};

/// Maximum bytes of a subject (OpenID Connect Core 1.0, section 2).
const SUBJECT_MAX: usize = 255;

/// The claims of a token.
pub(super) type Claims = Map<String, Value>;

/// Returns the subject of a token.
///
/// # Errors
///
/// Describes the problem of the claim.
pub(super) fn subject(claims: &Claims) -> Result<&str, String> {
    let subject = claims.get("sub").and_then(Value::as_str).unwrap_or_default();
    if subject.is_empty() || subject.len() > SUBJECT_MAX || subject.contains(char::is_control) {
        return Err(format!(
            "the claim sub must be a text of 1 to {SUBJECT_MAX} bytes without control characters"
        ));
    }
    Ok(subject)
}

/// Combines the rights of a token's roles: the union of scopes and models, the most urgent class, the largest
/// weight, and the group of the first role with one.
///
/// # Errors
///
/// Describes the missing or invalid claim.
pub(super) fn grants(claims: &Claims, config: &JwtConfig) -> Result<Grants, String> {
    let names = find(claims, &config.roles_claim).map(words).unwrap_or_default();
    let roles: Vec<&RoleConfig> =
        config.roles.iter().filter(|role| names.contains(&role.name.as_str())).collect();
    let mut grants = Grants {
        scopes: roles.iter().flat_map(|role| role.scopes.iter()).collect(),
        models: union(&roles),
        priority_max: roles.iter().map(|role| role.priority_max).min().unwrap_or(Priority::Batch),
        weight: roles.iter().map(|role| role.weight).reduce(f32::max).unwrap_or(1.0),
        group: roles.iter().find_map(|role| role.group.clone()),
        trusted_proxy: roles.iter().any(|role| role.trusted_proxy),
        quota: None,
    };
    if let Some(claim) = &config.group_claim {
        let group = find(claims, claim).and_then(Value::as_str).filter(|group| is_name(group));
        grants.group = Some(group.ok_or_else(|| format!("the claim {claim} must name a group"))?.to_owned());
    }
    if let Some(claim) = &config.models_claim {
        let patterns = find(claims, claim).map(words).unwrap_or_default();
        let patterns = patterns.into_iter().filter_map(|pattern| pattern.parse::<ModelPattern>().ok());
        let permitted =
            patterns.filter(|pattern| grants.models.covers(&AllowedModels::only([pattern.clone()])));
        grants.models = AllowedModels::only(permitted.collect::<Vec<_>>());
    }
    if let Some(claim) = &config.priority_claim {
        let name = find(claims, claim).and_then(Value::as_str);
        let asked = Priority::ALL.into_iter().find(|class| Some(class.name()) == name);
        let asked = asked.ok_or_else(|| format!("the claim {claim} must be interactive, normal or batch"))?;
        grants.priority_max = asked.max(grants.priority_max);
    }
    Ok(grants)
}

/// Returns the models that any of the roles allows. Roles without the scope for inference allow none.
fn union(roles: &[&RoleConfig]) -> AllowedModels {
    let roles = roles.iter().filter(|role| uses_models(role.scopes));
    let mut patterns = Vec::new();
    for role in roles {
        match role.models.patterns() {
            None => return AllowedModels::ALL,
            Some(own) => patterns.extend_from_slice(own),
        }
    }
    AllowedModels::only(patterns)
}

fn uses_models(scopes: Scopes) -> bool {
    scopes.contains(Scope::Infer) || scopes.contains(Scope::Models) || scopes.contains(Scope::Keys)
}

/// Finds a claim by name, or by a path of names separated by dots.
fn find<'a>(claims: &'a Claims, path: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(path) {
        return Some(value);
    }
    let (first, rest) = path.split_once('.')?;
    find(claims.get(first)?.as_object()?, rest)
}

/// Returns the strings of a list, or the words of a string.
fn words(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => text.split_whitespace().collect(),
        Value::Array(list) => list.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn config() -> JwtConfig {
        let models = AllowedModels::only(["small*".parse().unwrap()]);
        JwtConfig::new("https://a.example", ["exsa"])
            .role(RoleConfig::new("user").models(models).group("staff"))
            .role(RoleConfig::new("ops").scopes([Scope::Metrics, Scope::Audit]))
            .role(RoleConfig::new("lead").priority_max(Priority::Interactive).group("lead"))
    }

    fn read(claims: Value, config: &JwtConfig) -> Result<Grants, String> {
        grants(claims.as_object().unwrap(), config)
    }

    #[test]
    fn roles_add_up() {
        let config = config();
        let none = read(json!({}), &config).unwrap();
        assert!(none.scopes.is_empty() && !none.models.allow("small"));
        let user = read(json!({"roles": ["user", "other"]}), &config).unwrap();
        assert_eq!((user.scopes.to_string().as_str(), user.group.as_deref()), ("infer", Some("staff")));
        assert!(user.models.allow("small-1") && !user.models.allow("large"));
        let both = read(json!({"roles": "user ops"}), &config).unwrap();
        assert_eq!(both.scopes.to_string(), "infer metrics audit");
        assert!(!both.models.allow("large"), "a role without inference permits no models");
        let lead = read(json!({"roles": ["lead", "user"]}), &config).unwrap();
        assert_eq!((lead.priority_max, lead.group.as_deref()), (Priority::Interactive, Some("staff")));
        assert!(lead.models.allow("large"));
    }

    #[test]
    fn claims_narrow_the_rights_of_roles() {
        let mut config = config();
        config.roles_claim = "realm_access.roles".into();
        config.models_claim = Some("https://a.example/models".into());
        config.priority_claim = Some("class".into());
        config.group_claim = Some("team".into());
        let claims = |class: &str, models: Value| {
            json!({
                "realm_access": {"roles": ["user"]}, "class": class, "team": "blue", "https://a.example/models": models,
            })
        };
        let narrowed = read(claims("interactive", json!(["small-1", "large", "*"])), &config).unwrap();
        assert_eq!((narrowed.priority_max, narrowed.group.as_deref()), (Priority::Normal, Some("blue")));
        assert!(narrowed.models.allow("small-1") && !narrowed.models.allow("small-2"));
        assert_eq!(read(claims("batch", json!([])), &config).unwrap().priority_max, Priority::Batch);
        assert!(read(claims("urgent", json!([])), &config).unwrap_err().contains("class"));
        assert!(read(json!({"class": "batch"}), &config).unwrap_err().contains("team"));
    }

    #[test]
    fn subjects_are_short_texts() {
        for bad in [
            json!({}),
            json!({"sub": 1}),
            json!({"sub": ""}),
            json!({"sub": "a\n"}),
            json!({"sub": "x".repeat(256)}),
        ] {
            assert!(subject(bad.as_object().unwrap()).is_err(), "{bad}");
        }
        assert_eq!(subject(json!({"sub": "auth0|a"}).as_object().unwrap()), Ok("auth0|a"));
    }
}
