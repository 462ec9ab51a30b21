//! Whether an engine speculates.

use crate::backend::Capabilities;

/// Whether an engine speculates with the drafts of [`Speculation::default`](super::Speculation::default).
///
/// ```
/// use exsa_core::EngineOptions;
/// use exsa_core::speculate::SpeculationMode;
///
/// let options = EngineOptions::default().speculation(SpeculationMode::Off);
/// # let _ = options;
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum SpeculationMode {
    /// The default: in sessions where answers are identical with and without drafts, that is, batch-invariant
    /// sessions that can truncate.
    #[default]
    Auto,
    /// Never.
    Off,
    /// In all sessions that can truncate. In sessions that are not batch-invariant, answers with and without
    /// drafts have the same distribution, but the same seed may yield a different answer.
    On,
}

impl SpeculationMode {
    /// Whether an engine speculates in a session with these capabilities.
    pub fn is_on(self, capabilities: &Capabilities) -> bool {
        capabilities.truncate
            && match self {
                Self::Auto => capabilities.batch_invariant,
                Self::Off => false,
                Self::On => true,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_is_on_where_answers_are_identical() {
        let capabilities =
            |invariant, truncate| Capabilities::new(1, 100).batch_invariant(invariant).truncate(truncate);
        for (mode, expected) in [
            (SpeculationMode::Auto, [true, false, false, false]),
            (SpeculationMode::On, [true, true, false, false]),
            (SpeculationMode::Off, [false; 4]),
        ] {
            let sessions = [(true, true), (false, true), (true, false), (false, false)];
            let on = sessions.map(|(invariant, truncate)| mode.is_on(&capabilities(invariant, truncate)));
            assert_eq!(on, expected, "{mode:?}");
        }
    }
}
