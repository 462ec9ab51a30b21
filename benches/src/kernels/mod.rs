//! Loops in the processor's own vector instructions; the only `unsafe` of this crate.
#![allow(unsafe_code)]

pub mod int8_peak;
