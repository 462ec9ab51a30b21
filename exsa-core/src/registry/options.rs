//! Options of a registry.

/// Options of a [`Registry`](super::Registry).
///
/// ```
/// use exsa_core::registry::{LoadPacing, RegistryOptions};
///
/// let options = RegistryOptions::new().memory_bytes(8 << 30).load_on_request(true);
/// assert_eq!(options.load_pacing, LoadPacing::FullSpeed);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct RegistryOptions {
    /// Memory budget in bytes for all models, according to the backends' estimates, including adapters;
    /// `None`, the default, sets no limit. With a budget, a model without an estimate requires
    /// [`ModelConfig::memory`](super::ModelConfig::memory).
    pub memory_bytes_max: Option<u64>,
    /// Whether a request for an unloaded model starts its load; `false` by default. The request itself is
    /// refused with [`SubmitError::ModelLoading`](crate::SubmitError::ModelLoading).
    pub load_on_request: bool,
    /// Speed of loads while other models serve requests.
    pub load_pacing: LoadPacing,
}

impl RegistryOptions {
    /// The default options.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the memory budget in bytes for all models.
    #[must_use]
    pub fn memory_bytes(mut self, max: impl Into<Option<u64>>) -> Self {
        self.memory_bytes_max = max.into();
        self
    }

    /// Sets whether a request for an unloaded model starts its load.
    #[must_use]
    pub fn load_on_request(mut self, load: bool) -> Self {
        self.load_on_request = load;
        self
    }

    /// Sets the speed of loads while other models serve requests.
    #[must_use]
    pub fn load_pacing(mut self, pacing: LoadPacing) -> Self {
        self.load_pacing = pacing;
        self
    }
}

/// Speed of loads while other models serve requests.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum LoadPacing {
    /// Loads use all threads of their options, which slows down running streams.
    #[default]
    FullSpeed,
    /// Running streams keep this fraction of their speed, 0 to 0.99; see
    /// [`keep_streams`](Self::keep_streams).
    KeepStreams(f32),
}

impl LoadPacing {
    /// Paces loads so that running streams keep the fraction `share` of their speed, such as 0.9.
    ///
    /// After each progress report, the load pauses for `share / (1 - share)` times the time that it worked
    /// since the last report, as long as another model has a request in flight. Streams keep `share` of their
    /// speed even if they make no progress while the load works, and more if they share the cores with it.
    /// Under constant traffic, the load takes `1 / (1 - share)` times as long. The time before the backend's
    /// first report and the allocation of the session's KV cache after the last one are not paced.
    #[must_use]
    pub fn keep_streams(share: f32) -> Self {
        Self::KeepStreams(share.clamp(0.0, 0.99))
    }

    /// Duration of the pause after working for `work`.
    pub(super) fn rest(self, work: std::time::Duration) -> std::time::Duration {
        match self {
            Self::FullSpeed => std::time::Duration::ZERO,
            // The public variant can hold any value; NaN is treated as 0.
            Self::KeepStreams(share) => {
                let share = if share.is_nan() { 0.0 } else { f64::from(share.clamp(0.0, 0.99)) };
                work.mul_f64(share / (1.0 - share))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn rests_leave_the_share_to_streams() {
        let work = Duration::from_millis(16);
        assert_eq!(LoadPacing::FullSpeed.rest(work), Duration::ZERO);
        for share in [0.0, 0.25, 0.5, 0.9] {
            let rest = LoadPacing::keep_streams(share).rest(work).as_secs_f64();
            let kept = rest / (rest + work.as_secs_f64());
            assert!((kept - f64::from(share)).abs() < 1e-6, "{share}: {kept}");
        }
    }

    #[test]
    fn shares_out_of_range_are_clamped() {
        let work = Duration::from_millis(1);
        for share in [f32::NAN, -1.0, f32::NEG_INFINITY] {
            assert_eq!(LoadPacing::KeepStreams(share).rest(work), Duration::ZERO, "{share}");
        }
        let most = LoadPacing::KeepStreams(0.99).rest(work);
        assert_eq!(LoadPacing::KeepStreams(f32::INFINITY).rest(work), most);
        assert_eq!(LoadPacing::keep_streams(2.0), LoadPacing::KeepStreams(0.99));
    }
}
