//! Rights of a caller, and the rules for granting rights.

use super::models::AllowedModels;
use super::scope::{Scope, Scopes};
use exsa_core::Priority;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Weights that the scheduler accepts.
pub(crate) const WEIGHTS: std::ops::RangeInclusive<f32> = 0.001..=1000.0;

/// Rights of a caller.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Grants {
    /// Granted scopes.
    pub scopes: Scopes,
    /// Allowed models.
    pub models: AllowedModels,
    /// The most urgent class allowed for the caller's requests.
    pub priority_max: Priority,
    /// Share of the engine relative to other callers of the same class.
    pub weight: f32,
    /// Group whose quota the caller shares.
    pub group: Option<String>,
    /// Whether the caller may name the end user of a request.
    pub trusted_proxy: bool,
    /// Quota of the caller, in the form of the module `quota`.
    pub quota: Option<Value>,
}

impl Default for Grants {
    /// Inference on all models, in the default class, with weight 1.
    fn default() -> Self {
        Self {
            scopes: Scopes::NONE.with(Scope::Infer),
            models: AllowedModels::ALL,
            priority_max: Priority::default(),
            weight: 1.0,
            group: None,
            trusted_proxy: false,
            quota: None,
        }
    }
}

/// The default scopes, for settings and records.
pub(crate) fn default_scopes() -> Scopes {
    Grants::default().scopes
}

/// The default weight, for settings and records.
pub(crate) fn default_weight() -> f32 {
    Grants::default().weight
}

/// A right that the caller cannot grant, because it does not have it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum GrantError {
    /// Scopes that the caller lacks.
    #[error("scopes: the caller does not hold {missing} and cannot grant it")]
    Scopes {
        /// The scopes.
        missing: Scopes,
    },
    /// Models that the caller may not use.
    #[error("models: the caller may not use all of these models itself; its own are {allowed}")]
    Models {
        /// The caller's models.
        allowed: String,
    },
    /// A class above the caller's ceiling.
    #[error("priority_max: the caller's own ceiling is {max}", max = .max.name())]
    Priority {
        /// The caller's ceiling.
        max: Priority,
    },
    /// A weight above the caller's.
    #[error("weight: the caller's own weight is {max}")]
    Weight {
        /// The caller's weight.
        max: f32,
    },
    /// A group other than the caller's, whose quota would not apply.
    #[error("group: the caller is of the group '{group}' and cannot grant another one")]
    Group {
        /// The caller's group.
        group: String,
    },
    /// The right to name end users.
    #[error("trusted_proxy: the caller is no trusted proxy and cannot make one")]
    TrustedProxy,
    /// The caller has its own quota, which further keys would multiply.
    #[error(
        "quota: the caller has a quota of its own and cannot make further keys; a quota of its group would bind them"
    )]
    Quota,
}

impl Grants {
    /// Checks that these rights include all of `asked`. Scopes, models, class and weight must not exceed
    /// these; groups and quotas cannot be dropped.
    ///
    /// # Errors
    ///
    /// The first right that exceeds these.
    pub fn check_covers(&self, asked: &Self) -> Result<(), GrantError> {
        let missing = asked.scopes.without(self.scopes);
        if !missing.is_empty() {
            return Err(GrantError::Scopes { missing });
        }
        if !self.models.covers(&asked.models) {
            let patterns = self.models.patterns().unwrap_or_default();
            let allowed: Vec<_> = patterns.iter().map(ToString::to_string).collect();
            return Err(GrantError::Models { allowed: allowed.join(", ") });
        }
        // The most urgent class has the smallest value.
        if asked.priority_max < self.priority_max {
            return Err(GrantError::Priority { max: self.priority_max });
        }
        if asked.weight > self.weight {
            return Err(GrantError::Weight { max: self.weight });
        }
        if let Some(group) = self.group.as_ref().filter(|group| asked.group.as_ref() != Some(group)) {
            return Err(GrantError::Group { group: group.clone() });
        }
        if asked.trusted_proxy && !self.trusted_proxy {
            return Err(GrantError::TrustedProxy);
        }
        Ok(())
    }

    /// Checks that a caller with these rights may create a key with the rights `asked`.
    ///
    /// # Errors
    ///
    /// The first right that the caller cannot grant.
    pub fn check_grant(&self, asked: &Self) -> Result<(), GrantError> {
        if self.quota.is_some() {
            return Err(GrantError::Quota);
        }
        self.check_covers(asked)
    }

    /// Rights of the server's operator.
    pub(crate) fn operator() -> Self {
        Self {
            scopes: Scopes::ALL,
            priority_max: Priority::Interactive,
            weight: *WEIGHTS.end(),
            trusted_proxy: true,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manager() -> Grants {
        Grants {
            scopes: [Scope::Infer, Scope::Keys].into_iter().collect(),
            models: AllowedModels::only(["team/*".parse().unwrap()]),
            group: Some("team".into()),
            ..Grants::default()
        }
    }

    #[test]
    fn rights_are_passed_on_only_by_their_holders() {
        let own = manager();
        let child = Grants { scopes: Scopes::NONE.with(Scope::Infer), ..own.clone() };
        assert_eq!(own.check_grant(&child), Ok(()));
        assert_eq!(own.check_grant(&own), Ok(()));
        let wider = [
            Grants { scopes: Scopes::ALL, ..own.clone() },
            Grants { models: AllowedModels::ALL, ..own.clone() },
            Grants { priority_max: Priority::Interactive, ..own.clone() },
            Grants { weight: 2.0, ..own.clone() },
            Grants { group: None, ..own.clone() },
            Grants { group: Some("other".into()), ..own.clone() },
            Grants { trusted_proxy: true, ..own.clone() },
        ];
        for asked in &wider {
            assert!(own.check_grant(asked).is_err(), "{asked:?}");
            assert_eq!(Grants::operator().check_grant(asked), Ok(()));
        }
        let bound = Grants { quota: Some(Value::from(1)), ..own.clone() };
        assert_eq!(bound.check_grant(&child), Err(GrantError::Quota));
        assert_eq!(bound.check_covers(&child), Ok(()));
    }
}
