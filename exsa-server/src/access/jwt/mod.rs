//! Tokens of an identity provider: JSON web tokens (RFC 7519), verified with the provider's public keys.

mod claims;
mod config;
mod keyset;
mod source;
mod tokens;
mod verified;

pub use config::{JwtConfig, JwtConfigError, RoleConfig};
#[cfg(all(feature = "otel", feature = "tls"))]
pub(crate) use source::read_roots;
pub(super) use tokens::{TokenError, Tokens};
