//! Usage in the form of OpenAI's API.

use serde::Serialize;

/// Token counts of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Usage {
    prompt_tokens: usize,
    completion_tokens: usize,
    total_tokens: usize,
    prompt_tokens_details: PromptTokens,
    #[serde(skip_serializing_if = "Option::is_none")]
    completion_tokens_details: Option<CompletionTokens>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct PromptTokens {
    cached_tokens: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct CompletionTokens {
    reasoning_tokens: usize,
}

impl Usage {
    /// Usage of an answer in progress.
    pub(crate) fn so_far(prompt: usize, completion: usize) -> Self {
        let mut counts = Self::default();
        counts.add(&exsa_core::Usage::new(prompt, completion));
        counts
    }

    /// Sets the reasoning tokens within those of the answer.
    #[must_use]
    pub(crate) fn reasoning(mut self, reasoning_tokens: usize) -> Self {
        self.completion_tokens_details = Some(CompletionTokens { reasoning_tokens });
        self
    }

    /// Adds the counts of another request.
    pub(crate) fn add(&mut self, usage: &exsa_core::Usage) {
        self.prompt_tokens += usage.prompt_tokens;
        self.completion_tokens += usage.completion_tokens;
        self.total_tokens = self.prompt_tokens + self.completion_tokens;
        self.prompt_tokens_details.cached_tokens += usage.cached_tokens;
    }
}

impl From<&exsa_core::Usage> for Usage {
    fn from(usage: &exsa_core::Usage) -> Self {
        let mut counts = Self::default();
        counts.add(usage);
        counts
    }
}
