//! Priority classes and user ids.

/// Priority class of a request. More urgent classes are served first;
/// [`FairOptions::ageing`](crate::schedule::queue::FairOptions::ageing) keeps the others from starving.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Priority {
    /// For a user who is waiting for the answer.
    Interactive,
    /// The default.
    #[default]
    Normal,
    /// For background work: served after the other classes, apart from ageing.
    Batch,
}

impl Priority {
    /// Number of classes.
    pub const COUNT: usize = 3;

    /// All classes, the most urgent first.
    pub const ALL: [Self; Self::COUNT] = [Self::Interactive, Self::Normal, Self::Batch];

    /// Index in [`ALL`](Self::ALL).
    pub fn index(self) -> usize {
        self as usize
    }

    /// Name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Normal => "normal",
            Self::Batch => "batch",
        }
    }
}

/// Id of a user inside an engine: a hash of the name in [`Request::user`](crate::Request::user).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId(pub u64);
