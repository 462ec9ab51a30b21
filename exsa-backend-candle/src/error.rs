//! From candle's errors to Exsa's.

use exsa_core::error::{KvError, LoadError, StepError};

/// An error of candle on its way to the operation that it belongs to.
pub(crate) trait CandleError<T> {
    /// As the failure of a load.
    fn load(self) -> Result<T, LoadError>;

    /// As the failure of a forward pass.
    fn step(self) -> Result<T, StepError>;

    /// As the failure of an operation on KV.
    fn kv(self) -> Result<T, KvError>;
}

impl<T> CandleError<T> for candle_core::Result<T> {
    fn load(self) -> Result<T, LoadError> {
        self.map_err(|e| LoadError::Backend(e.to_string()))
    }

    fn step(self) -> Result<T, StepError> {
        self.map_err(|e| StepError::Backend(e.to_string()))
    }

    fn kv(self) -> Result<T, KvError> {
        self.map_err(|e| KvError::Backend(e.to_string()))
    }
}
