//! Quotas: requests and tokens per minute and day, and concurrent requests, for keys and groups.
//!
//! `docs/quotas.md` describes the configuration, the headers and the durability rule.

mod account;
mod amounts;
mod bucket;
mod error;
mod handle;
mod headers;
mod ledger;
mod limits;
mod share;
mod state;
mod store;

pub use account::Allowance;
pub use amounts::{Amounts, Kind};
pub use error::{QuotaError, Refusal};
pub use handle::Quotas;
pub(crate) use handle::Reservation;
pub(crate) use headers::add_headers;
pub use ledger::Account;
pub use limits::{Limit, Limits, Period, QuotaConfig};
pub use share::Share;

#[cfg(test)]
mod tests;
