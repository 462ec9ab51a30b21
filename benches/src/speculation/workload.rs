//! Prompts of the workloads.

use super::Options;
use crate::error::BenchError;
use crate::prompts::Prompts;
use exsa_core::backend::Model;
use exsa_core::{Message, Request};

/// A kind of prompts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Workload {
    Chat,
    Edit,
    Summary,
    Json,
    Random,
}

const TOPICS: [&str; 8] = ["bread", "rivers", "bicycles", "winter", "tea", "maps", "clocks", "gardens"];
/// Tokens of a random prompt.
const RANDOM_PROMPT: usize = 128;

impl Workload {
    pub(super) const TEXTS: [Self; 4] = [Self::Chat, Self::Edit, Self::Summary, Self::Json];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Edit => "code_edit",
            Self::Summary => "summary",
            Self::Json => "json",
            Self::Random => "random",
        }
    }

    /// One request for each of `streams`; the same in each round.
    pub(super) fn requests(
        self,
        options: &Options,
        model: &dyn Model,
        streams: usize,
    ) -> Result<Vec<Request>, BenchError> {
        let finish = |(i, request): (usize, Request)| {
            request.seed(i as u64).temperature(options.temperature).max_tokens(usize::from(options.generate))
        };
        if self == Self::Random {
            let prompts = Prompts::new(model, 1)?.draw(&vec![RANDOM_PROMPT; streams], 0);
            let mut requests = prompts.into_iter().map(Request::tokens);
            let endless = |mut request: Request| {
                request.ignore_eos = true;
                request
            };
            return Ok(requests.by_ref().map(endless).enumerate().map(finish).collect());
        }
        let requests = (0..streams).map(|i| Request::chat([Message::user(self.text(i))]));
        Ok(requests.enumerate().map(finish).collect())
    }

    fn text(self, i: usize) -> String {
        let topic = TOPICS[i % TOPICS.len()];
        match self {
            Self::Edit => format!(
                "Rename the variable total to sum_of_{topic} and repeat the code:\n```\ndef add(values):\n    total = 0\n    \
                 for value in values:\n        total = total + value\n    if total > 100:\n        print('large', total)\n    \
                 return total\n\ndef mean(values):\n    return add(values) / len(values)\n```"
            ),
            Self::Summary => format!(
                "Repeat the most important sentences of this text about {topic}: In the town there is a market on \
                 every Saturday. People come from the villages around to buy and sell {topic}. The oldest stand has \
                 been there for {} years. It is run by a family that has always lived in the town. In the evening the \
                 square is empty again, and only the pigeons are left.",
                40 + i
            ),
            Self::Json => format!(
                "Give a JSON array of five objects about {topic}, each with the keys name, description and number."
            ),
            Self::Chat | Self::Random => format!("Tell me about {topic}, and why people like it."),
        }
    }
}
