//! Facts about a model that its adapters are checked by.

/// Facts about a model that its adapters are checked by.
#[derive(Clone, Copy)]
pub struct BaseModel<'a> {
    /// `general.architecture`.
    pub architecture: &'a str,
    /// Heads of queries.
    pub n_head: usize,
    /// Heads of keys and values.
    pub n_head_kv: usize,
    /// The model's matrix of this name (`blk.0.attn_q.weight`), or why it takes no adapter.
    pub matrix: &'a dyn Fn(&str) -> Result<BaseMatrix, String>,
}

impl std::fmt::Debug for BaseModel<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BaseModel").field("architecture", &self.architecture).finish_non_exhaustive()
    }
}

/// A matrix of a model that an adapter can change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BaseMatrix {
    /// Columns: the width of its input.
    pub columns: usize,
    /// Rows: the width of its output.
    pub rows: usize,
    /// Matrices of this shape that lie one behind the other; 1 unless it is one of experts.
    pub experts: usize,
    /// Whether its rows are looked up by token instead of multiplied, so that the factors of a pair change
    /// places: `A` is `[rows, rank]`, and `B` is `[columns, rank]`.
    pub lookup: bool,
}

impl BaseMatrix {
    /// A matrix of `columns` columns and `rows` rows.
    #[must_use]
    pub fn new(columns: usize, rows: usize) -> Self {
        Self { columns, rows, experts: 1, lookup: false }
    }

    /// Sets the number of matrices.
    #[must_use]
    pub fn experts(mut self, experts: usize) -> Self {
        self.experts = experts;
        self
    }

    /// Marks it as an embedding of tokens.
    #[must_use]
    pub fn lookup(mut self) -> Self {
        self.lookup = true;
        self
    }

    /// Shapes of the factors of a pair of rank `rank`, the fastest dimension first.
    pub(super) fn factors(self, rank: u64) -> [[u64; 3]; 2] {
        let [columns, rows, experts] = [self.columns, self.rows, self.experts].map(|n| n as u64);
        if self.lookup {
            [[rank, rows, experts], [rank, columns, experts]]
        } else {
            [[columns, rank, experts], [rank, rows, experts]]
        }
    }
}
