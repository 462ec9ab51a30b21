//! Properties of a model that its adapters are checked against.

/// Properties of a model that its adapters are checked against.
#[derive(Clone, Copy)]
pub struct BaseModel<'a> {
    /// `general.architecture`.
    pub architecture: &'a str,
    /// Number of query heads.
    pub n_head: usize,
    /// Number of key-value heads.
    pub n_head_kv: usize,
    /// Looks up the model's matrix of a name (`blk.0.attn_q.weight`); an error says why it cannot have an
    /// adapter.
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
    /// Number of columns: the width of the input.
    pub columns: usize,
    /// Number of rows: the width of the output.
    pub rows: usize,
    /// Number of consecutive matrices of this shape: the number of experts, else 1.
    pub experts: usize,
    /// Whether its rows are looked up by token instead of multiplied (embedding), so that the factors of a
    /// pair are swapped: `A` is `[rows, rank]`, and `B` is `[columns, rank]`.
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
