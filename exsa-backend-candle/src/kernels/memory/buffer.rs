//! Vectors that are kept from pass to pass.

/// Resizes `values` to `len`, without spare capacity: a buffer is as large as the largest pass needs it.
pub fn resize<T: Clone + Default>(values: &mut Vec<T>, len: usize) {
    values.reserve_exact(len.saturating_sub(values.len()));
    values.resize(len, T::default());
}
