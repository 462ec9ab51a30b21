//! The kernels: one source for all devices, in modules that are compiled as they are needed.

mod element;
pub(crate) mod launch;
mod module;
pub(crate) mod params;
mod spec;

pub use element::{KvElement, WeightType};
pub use module::{Language, Module};
pub use spec::KernelSpec;
