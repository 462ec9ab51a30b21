//! Tokens of an identity provider: JSON web tokens (RFC 7519), verified with the provider's public keys.

mod claims;
mod config;
mod keyset;
mod source;
mod tokens;
mod verified;

pub use config::{JwtConfig, JwtConfigError, RoleConfig};
pub(super) use tokens::{TokenError, Tokens};
