//! Streaming Knuth-Morris-Pratt search ("Fast pattern matching in strings", 1977).

/// A pattern of at least one item, and its failure function.
#[derive(Clone, Debug)]
pub(super) struct Pattern<T> {
    items: Box<[T]>,
    /// For each prefix of `items`, from length 1, the length of
    /// its longest proper prefix that is also its suffix.
    borders: Box<[usize]>,
}

impl<T: Clone + PartialEq> Pattern<T> {
    pub(super) fn new(items: &[T]) -> Self {
        let mut borders = vec![0; items.len()];
        let mut border = 0;
        for i in 1..items.len() {
            while border > 0 && items[i] != items[border] {
                border = borders[border - 1];
            }
            if items[i] == items[border] {
                border += 1;
            }
            borders[i] = border;
        }
        Self { items: items.into(), borders: borders.into() }
    }

    /// Length of the pattern.
    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    /// Reads an item after text that ends with the first `matched` items of the pattern, and updates
    /// `matched`. Returns whether the text now ends with the whole pattern, which then continues as its
    /// longest border.
    pub(super) fn step(&self, matched: &mut usize, item: &T) -> bool {
        while *matched > 0 && self.items[*matched] != *item {
            *matched = self.borders[*matched - 1];
        }
        if self.items[*matched] == *item {
            *matched += 1;
        }
        let complete = *matched == self.items.len();
        if complete {
            *matched = self.borders[*matched - 1];
        }
        complete
    }
}
