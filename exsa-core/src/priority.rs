//! Classes of urgency, and who asks.

/// How urgent a request is. A more urgent class goes first, always; see
/// [`FairOptions::ageing`](crate::schedule::queue::FairOptions::ageing) for how the others get on all the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Priority {
    /// Somebody looks at the screen.
    Interactive,
    /// The default.
    #[default]
    Normal,
    /// Whenever there is room.
    Batch,
}

impl Priority {
    /// Number of classes.
    pub const COUNT: usize = 3;

    /// All classes, the most urgent first.
    pub const ALL: [Self; Self::COUNT] = [Self::Interactive, Self::Normal, Self::Batch];

    /// Place in [`ALL`](Self::ALL).
    pub fn index(self) -> usize {
        self as usize
    }

    /// As it is written in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Normal => "normal",
            Self::Batch => "batch",
        }
    }
}

/// Names a user inside an engine: a hash of the name in [`Request::user`](crate::Request::user).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId(pub u64);
