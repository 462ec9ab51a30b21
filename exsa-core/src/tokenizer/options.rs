//! Options of loading a tokenizer.

/// Options of [loading](super::load_with) a tokenizer.
///
/// ```
/// use exsa_core::tokenizer::TokenizerOptions;
///
/// let options = TokenizerOptions::default().pre_tokenizer("qwen2");
/// assert_eq!(options.pre_tokenizer.as_deref(), Some("qwen2"));
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct TokenizerOptions {
    /// Pre-tokenizer to use in place of the one that the file names (`tokenizer.ggml.pre`); `None`, the
    /// default, takes the file's. For a file that names one which is not known: ids are right only as far as
    /// the two cut text alike. Models without merges have no pre-tokenizer, and ignore it.
    pub pre_tokenizer: Option<String>,
}

impl TokenizerOptions {
    /// Sets the pre-tokenizer.
    #[must_use]
    pub fn pre_tokenizer(mut self, name: impl Into<String>) -> Self {
        self.pre_tokenizer = Some(name.into());
        self
    }
}
