//! Whether an engine speculates.

use crate::backend::Capabilities;

/// Whether an engine speculates with the drafts of [`Speculation::default`](super::Speculation::default).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum SpeculationMode {
    /// In sessions whose answers have the same bits with and without drafts: batch-invariant ones that can
    /// truncate. The default.
    #[default]
    Auto,
    /// Never.
    Off,
    /// In sessions that can truncate. If it is not batch-invariant, answers have the same distribution with
    /// and without drafts, but a seed may give another answer.
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
