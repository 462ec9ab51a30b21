//! Health, metrics and statistics.

pub(crate) mod health;
pub(crate) mod metrics;
pub(crate) mod stats;
