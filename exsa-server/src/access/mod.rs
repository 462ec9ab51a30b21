//! Authentication and authorization: API keys, tokens of an identity provider, scopes.
//!
//! [`Access`] identifies the [`Caller`] of a request. Keys are kept in a [`Store`]; [`ControlSocket`] and
//! [`cli`] manage them on the server's own machine, the routes `/v1/keys` over the network.

mod authenticate;
mod caller;
pub mod cli;
mod config;
#[cfg(unix)]
mod control;
mod credential;
#[cfg(test)]
mod durability;
mod events;
mod failures;
mod grants;
mod jwt;
mod keys;
mod models;
mod record;
mod refusal;
mod revocation;
mod routes;
mod scope;
mod secret;
mod store;

pub use authenticate::{Access, AccessError};
pub use caller::Caller;
pub use config::AccessConfig;
#[cfg(unix)]
pub use control::ControlSocket;
pub use events::AccessEvent;
pub use grants::{GrantError, Grants};
pub use jwt::{JwtConfig, JwtConfigError, RoleConfig};
pub use keys::{KeyError, KeyFileError, Keys};
pub use models::{AllowedModels, BadPattern, ModelPattern};
pub use record::{KeyOptionError, KeyOptions, KeyRecord};
pub use revocation::Revocation;
pub use scope::{Scope, Scopes, UnknownScope};
pub use secret::{NoRandomness, SecretText};
pub use store::{Store, StoreError};

pub(crate) use authenticate::{authenticate, require};
#[cfg(all(feature = "otel", feature = "tls"))]
pub(crate) use jwt::read_roots;
#[cfg(feature = "grpc")]
pub(crate) use refusal::missing_scope;
pub(crate) use refusal::revoked;
pub(crate) use revocation::RevocationWatch;
pub(crate) use routes::routes;
