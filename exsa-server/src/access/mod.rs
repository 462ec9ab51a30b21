//! Authentication and authorization: API keys, tokens of an identity provider, scopes.

mod caller;
mod grants;
mod keys;
mod models;
mod record;
mod scope;
mod secret;
mod store;

pub use caller::{Caller, Revocation};
pub use grants::{GrantError, Grants};
pub use keys::{KeyError, Keys};
pub use models::{AllowedModels, BadPattern, ModelPattern};
pub use record::{KeyOptionError, KeyOptions, KeyRecord};
pub use scope::{Scope, Scopes, UnknownScope};
pub use secret::{NoRandomness, SecretText};
pub use store::{Store, StoreError};
