//! Values of tensors that lie in host memory.

use candle_core::{Error, Result, Storage, Tensor, WithDType};

/// Calls `f` with the values of `tensor`, which is contiguous and in host memory.
pub(crate) fn read<T: WithDType, R>(tensor: &Tensor, f: impl FnOnce(&[T]) -> R) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    let offsets = layout.contiguous_offsets();
    let (start, end) = offsets.ok_or_else(|| Error::Msg("a contiguous tensor was expected".to_owned()))?;
    match &*storage {
        Storage::Cpu(storage) => Ok(f(&storage.as_slice::<T>()?[start..end])),
        _ => Err(Error::Msg("a tensor in host memory was expected".to_owned())),
    }
}
