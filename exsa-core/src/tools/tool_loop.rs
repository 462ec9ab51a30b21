//! A conversation in which the model calls Rust functions until it answers.

use super::{ToolChoice, Toolbox, toolbox::ToolError};
use crate::chat::{Message, ToolCall};
use crate::finish::RequestError;
use crate::generator::{Generator, SubmitError};
use crate::request::{Prompt, Request};
use crate::stream::{Completion, Event};
use std::fmt;

/// Receives the events of a loop.
type Observer<'a> = Box<dyn FnMut(ToolEvent<'_>) + 'a>;

/// Runs a request with the tools of a [`Toolbox`]: after an answer with tool calls, it runs the calls and
/// requests the next answer with their results.
///
/// The calling thread waits for answers and runs the functions. An error of a function is passed to the model
/// as the call's result, so that it can correct itself. With [`ToolChoice::Required`] or
/// [`ToolChoice::Named`], only the first answer must call a tool.
///
/// ```no_run
/// # fn f(engine: &exsa_core::Engine) -> Result<(), Box<dyn std::error::Error>> {
/// use exsa_core::tools::{ToolLoop, Toolbox};
/// use exsa_core::{Message, Request};
///
/// #[derive(serde::Deserialize, schemars::JsonSchema)]
/// struct Weather {
///     city: String,
/// }
///
/// let tools = Toolbox::new()
///     .function("get_weather", "Weather of a city", |w: Weather| Ok::<_, String>(format!("{}: sunny", w.city)));
/// let request = Request::chat([Message::user("What is the weather in Bern?")]);
/// let outcome = ToolLoop::new(engine, &tools).rounds_max(4).run(request)?;
/// println!("{}", outcome.answer.text);
/// # Ok(())
/// # }
/// ```
#[must_use = "a loop does nothing before `run`"]
pub struct ToolLoop<'a> {
    generator: &'a dyn Generator,
    tools: &'a Toolbox,
    rounds_max: usize,
    observer: Option<Observer<'a>>,
}

/// Event of a [`ToolLoop`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum ToolEvent<'a> {
    /// An event of an answer's stream.
    Answer(&'a Event),
    /// A tool call and the result of the function.
    Called {
        /// The call.
        call: &'a ToolCall,
        /// The result.
        result: &'a Result<String, ToolError>,
    },
}

/// The outcome of a [`ToolLoop`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ToolOutcome {
    /// The last answer, which has no tool calls.
    pub answer: Completion,
    /// The conversation, including all answers and results.
    pub messages: Vec<Message>,
    /// Number of answers that called tools.
    pub rounds: usize,
}

/// Error of a [`ToolLoop`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ToolLoopError {
    /// A request was refused.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// A request failed.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The request's prompt is not a conversation.
    #[error("tools require a conversation, but the prompt is a text or token ids")]
    NoConversation,
    /// The model still calls tools after the maximum number of rounds.
    #[error("the model still calls tools after {rounds} rounds, which is the limit")]
    Rounds {
        /// The limit.
        rounds: usize,
        /// The conversation so far; the last message has calls that were not run.
        messages: Vec<Message>,
    },
}

impl<'a> ToolLoop<'a> {
    /// A loop over any generator, with at most 8 rounds.
    pub fn new(generator: &'a dyn Generator, tools: &'a Toolbox) -> Self {
        Self { generator, tools, rounds_max: 8, observer: None }
    }

    /// Sets the maximum number of answers that call tools.
    pub fn rounds_max(mut self, rounds: usize) -> Self {
        self.rounds_max = rounds;
        self
    }

    /// Sets a function that observes the events of the loop as they occur.
    pub fn on_event(mut self, observer: impl FnMut(ToolEvent<'_>) + 'a) -> Self {
        self.observer = Some(Box::new(observer));
        self
    }

    /// Runs the request until an answer has no tool calls. Its `n` should be 1: further answers are ignored.
    ///
    /// # Errors
    ///
    /// A request is refused or fails, or the rounds are used up.
    pub fn run(mut self, mut request: Request) -> Result<ToolOutcome, ToolLoopError> {
        let Prompt::Chat(mut messages) = request.prompt else { return Err(ToolLoopError::NoConversation) };
        if request.chat.tools.is_empty() {
            request.chat.tools = self.tools.definitions();
        }
        let mut rounds = 0;
        loop {
            request.prompt = Prompt::Chat(messages.clone());
            let answer = self.answer(request.clone())?;
            messages.push(answer.clone().into());
            if answer.tool_calls.is_empty() {
                return Ok(ToolOutcome { answer, messages, rounds });
            }
            if rounds == self.rounds_max {
                return Err(ToolLoopError::Rounds { rounds, messages });
            }
            rounds += 1;
            for call in &answer.tool_calls {
                let result = self.tools.call(call);
                self.observe(ToolEvent::Called { call, result: &result });
                let text = result.unwrap_or_else(|error| format!("Error: {error}"));
                let id = call.id.clone().unwrap_or_default();
                messages.push(Message::tool(id, text).name(&call.name));
            }
            if matches!(request.tools.choice, ToolChoice::Required | ToolChoice::Named(_)) {
                request.tools.choice = ToolChoice::Auto;
            }
        }
    }

    fn answer(&mut self, request: Request) -> Result<Completion, ToolLoopError> {
        let stream = self.generator.submit(request)?;
        let completion = stream.complete_with(|event| self.observe(ToolEvent::Answer(event)))?;
        Ok(completion)
    }

    fn observe(&mut self, event: ToolEvent<'_>) {
        if let Some(observer) = &mut self.observer {
            observer(event);
        }
    }
}

impl fmt::Debug for ToolLoop<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ToolLoop")
            .field("tools", &self.tools)
            .field("rounds_max", &self.rounds_max)
            .finish_non_exhaustive()
    }
}
