//! Records: the content of a line, before it is placed in the chain.

use super::checkpoint::SignedCheckpoint;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::time::Duration;

/// Kind of the recorded act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Act {
    /// The server started.
    Start,
    /// The server was shut down in an orderly way.
    Stop,
    /// An inference request ended.
    Request,
    /// A request was refused by a quota.
    QuotaRefused,
    /// A request with a wrong, expired or revoked key or token.
    AuthenticationFailed,
    /// A request that the key does not permit.
    PermissionDenied,
    /// A key was created.
    KeyCreated,
    /// A key was revoked.
    KeyRevoked,
    /// The secret of a key was rotated.
    KeyRotated,
    /// A model was loaded.
    ModelLoaded,
    /// A model was unloaded.
    ModelUnloaded,
    /// A model was reloaded.
    ModelReloaded,
    /// The active model was changed.
    ModelActivated,
    /// Options of a model were changed.
    ModelConfigured,
    /// The download of a model was requested.
    ModelPulled,
    /// A fetched model was deleted.
    ModelDeleted,
    /// The configuration was reloaded.
    ConfigurationReloaded,
    /// A checkpoint.
    Checkpoint,
    /// An incomplete end of a file, left by a crash, was truncated.
    Repaired,
    /// The chain in an older file is broken.
    DamageFound,
    /// Lines were dropped while the log could not be written.
    LinesDropped,
}

/// The content of a line.
///
/// ```
/// use exsa_server::audit::{Act, Record};
///
/// let record = Record::new(Act::KeyRevoked).caller("admin").detail("key k_7f3a").outcome("ok");
/// # let _ = record;
/// ```
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Record {
    /// Kind of act.
    pub act: Act,
    /// Outcome: `ok`, a finish reason, or the code of an error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// Id of the HTTP request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// Id of the caller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caller: Option<String>,
    /// Group of the caller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// End user, as named by a trusted proxy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Address of the client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// Method and path of the HTTP request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Object and details of the act.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Prompt tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_tokens: Option<u64>,
    /// Prompt tokens whose KV was cached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cached_tokens: Option<u64>,
    /// Generated tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_tokens: Option<u64>,
    /// Time from the arrival of the request, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// The prompt, if contents are logged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// The answer, if contents are logged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// The checkpoint, if the line is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) checkpoint: Option<SignedCheckpoint>,
}

impl Record {
    /// Creates a record without details.
    pub fn new(act: Act) -> Self {
        Self {
            act,
            outcome: None,
            request: None,
            caller: None,
            group: None,
            user: None,
            address: None,
            path: None,
            model: None,
            detail: None,
            prompt_tokens: None,
            cached_tokens: None,
            output_tokens: None,
            duration_ms: None,
            prompt: None,
            answer: None,
            checkpoint: None,
        }
    }

    /// Sets the outcome.
    #[must_use]
    pub fn outcome(mut self, outcome: impl Into<String>) -> Self {
        self.outcome = Some(outcome.into());
        self
    }

    /// Sets the id of the HTTP request.
    #[must_use]
    pub fn request(mut self, id: impl Into<String>) -> Self {
        self.request = Some(id.into());
        self
    }

    /// Sets the caller.
    #[must_use]
    pub fn caller(mut self, id: impl Into<String>) -> Self {
        self.caller = Some(id.into());
        self
    }

    /// Sets the group.
    #[must_use]
    pub fn group(mut self, group: impl Into<Option<String>>) -> Self {
        self.group = group.into();
        self
    }

    /// Sets the end user.
    #[must_use]
    pub fn user(mut self, user: impl Into<Option<String>>) -> Self {
        self.user = user.into();
        self
    }

    /// Sets the address of the client.
    #[must_use]
    pub fn address(mut self, address: impl Into<Option<IpAddr>>) -> Self {
        self.address = address.into();
        self
    }

    /// Sets method and path.
    #[must_use]
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// Sets the model.
    #[must_use]
    pub fn model(mut self, model: impl Into<Option<String>>) -> Self {
        self.model = model.into();
        self
    }

    /// Sets object and details.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Sets the token counts: prompt, cached part of it, output.
    #[must_use]
    pub fn tokens(mut self, prompt: Option<u64>, cached: Option<u64>, output: u64) -> Self {
        (self.prompt_tokens, self.cached_tokens, self.output_tokens) = (prompt, cached, Some(output));
        self
    }

    /// Sets the duration.
    #[must_use]
    pub fn duration(mut self, duration: Duration) -> Self {
        self.duration_ms = Some(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
        self
    }

    /// Sets the contents of prompt and answer.
    #[must_use]
    pub fn contents(mut self, prompt: Option<String>, answer: Option<String>) -> Self {
        (self.prompt, self.answer) = (prompt, answer);
        self
    }
}
