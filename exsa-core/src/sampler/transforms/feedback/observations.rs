//! Values that a transform observed for accepted tokens, which a resumed request restores.

/// One value per accepted token; NaN if it is unknown.
#[derive(Debug, Default)]
pub(in crate::sampler) struct Observations {
    values: Vec<f32>,
    /// Values of an earlier run, for the tokens that are still to be replayed.
    restored: Vec<f32>,
}

impl Observations {
    /// Appends the value of an accepted token: the given value, or else that of the earlier run. Returns the
    /// value, if known.
    pub(super) fn accept(&mut self, value: Option<f32>) -> Option<f32> {
        let value = value.or_else(|| self.restored.get(self.values.len()).copied());
        self.values.push(value.unwrap_or(f32::NAN));
        value.filter(|value| !value.is_nan())
    }

    /// Removes the last `n` values. Tokens accepted in their place are new, so the earlier run's values of
    /// these positions are removed too.
    pub(super) fn rollback(&mut self, n: usize) {
        let len = self.values.len().saturating_sub(n);
        self.values.truncate(len);
        self.restored.truncate(len);
    }

    /// All values.
    pub(super) fn values(&self) -> &[f32] {
        &self.values
    }

    /// Sets the values of an earlier run.
    pub(super) fn restore(&mut self, values: &[f32]) {
        self.restored = values.to_vec();
    }
}
