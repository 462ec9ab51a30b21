//! Errors of devices as errors of core's operations.

use crate::device::DeviceError;
use exsa_core::error::{KvError, LoadError, StepError};

impl From<DeviceError> for LoadError {
    fn from(error: DeviceError) -> Self {
        match error {
            DeviceError::OutOfMemory { needed, free } => {
                Self::Memory { what: "the GPU", needed, available: free.unwrap_or(0) }
            }
            other => Self::Backend(other.to_string()),
        }
    }
}

impl From<DeviceError> for StepError {
    fn from(error: DeviceError) -> Self {
        Self::Backend(error.to_string())
    }
}

impl From<DeviceError> for KvError {
    fn from(error: DeviceError) -> Self {
        Self::Backend(error.to_string())
    }
}
