//! The transforms that ship with Exsa, one per file.

pub(super) mod dynamic_temperature;
pub(super) mod feedback;
pub(super) mod filters;
pub(super) mod logits;
pub(super) mod temperature;
