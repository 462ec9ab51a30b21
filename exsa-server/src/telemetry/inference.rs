//! Span of an inference, following OpenTelemetry's semantic conventions for generative AI.
//!
//! It contains no prompts, answers or other texts of a request, such as stop strings.

use exsa_core::{FinishReason, Prompt, Request, Usage};
use opentelemetry::trace::{Span as _, SpanKind, Status, Tracer};
use opentelemetry::{Array, Context, KeyValue, StringValue, Value};
use opentelemetry_sdk::trace::{SdkTracer, Span};
use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime};

/// The span of an inference; empty if the request is not traced. Dropping it ends the span.
#[derive(Default)]
pub(crate) struct InferenceSpan(Option<Box<Open>>);

struct Open {
    span: Span,
    begun: SystemTime,
    first_token: Option<SystemTime>,
    /// Finish reasons of answers, by index.
    reasons: BTreeMap<usize, &'static str>,
    generates: bool,
}

impl InferenceSpan {
    pub(super) fn generation(
        tracer: &SdkTracer,
        parent: &Context,
        model: Option<&str>,
        request: &Request,
    ) -> Self {
        let operation = if matches!(request.prompt, Prompt::Chat(_)) { "chat" } else { "text_completion" };
        Self::begin(tracer, parent, operation, model, of_request(request), true)
    }

    pub(super) fn computation(
        tracer: &SdkTracer,
        parent: &Context,
        operation: &'static str,
        model: Option<&str>,
    ) -> Self {
        Self::begin(tracer, parent, operation, model, Vec::new(), false)
    }

    fn begin(
        tracer: &SdkTracer,
        parent: &Context,
        operation: &'static str,
        model: Option<&str>,
        mut attributes: Vec<KeyValue>,
        generates: bool,
    ) -> Self {
        let begun = opentelemetry::time::now();
        attributes.push(KeyValue::new("gen_ai.operation.name", operation));
        attributes.push(KeyValue::new("gen_ai.provider.name", "exsa"));
        if let Some(model) = model {
            attributes.push(KeyValue::new("gen_ai.request.model", model.to_owned()));
            attributes.push(KeyValue::new("gen_ai.response.model", model.to_owned()));
        }
        let name = model.map_or_else(|| operation.to_owned(), |model| format!("{operation} {model}"));
        // The conventions prescribe this kind for a model in the same process.
        let builder = tracer.span_builder(name).with_kind(SpanKind::Internal).with_start_time(begun);
        let span = tracer.build_with_context(builder.with_attributes(attributes), parent);
        Self(Some(Box::new(Open { span, begun, first_token: None, reasons: BTreeMap::new(), generates })))
    }

    /// Records a generated token.
    pub(crate) fn token(&mut self) {
        if let Some(open) = &mut self.0 {
            open.first_token.get_or_insert_with(opentelemetry::time::now);
        }
    }

    /// Records the end of an answer.
    pub(crate) fn answer(&mut self, index: usize, reason: &FinishReason) {
        if let Some(open) = &mut self.0 {
            open.reasons.insert(index, reason.openai());
        }
    }

    /// Ends the span of a completed or failed request.
    pub(crate) fn end(&mut self, usage: &Usage, error: Option<&str>) {
        let Some(mut open) = self.0.take() else { return };
        let count =
            |name: &'static str, count: usize| KeyValue::new(name, i64::try_from(count).unwrap_or(i64::MAX));
        open.span.set_attribute(count("gen_ai.usage.input_tokens", usage.prompt_tokens));
        open.span.set_attribute(count("gen_ai.usage.cache_read.input_tokens", usage.cached_tokens));
        if open.generates {
            open.span.set_attribute(count("gen_ai.usage.output_tokens", usage.completion_tokens));
            let reasons = open.reasons.values().copied().map(StringValue::from).collect();
            let reasons = Value::Array(Array::String(reasons));
            open.span.set_attribute(KeyValue::new("gen_ai.response.finish_reasons", reasons));
        }
        if let Some(time) = usage.queue_time {
            open.span.set_attribute(KeyValue::new("exsa.queue_time", time.as_secs_f64()));
        }
        open.first_token(usage.time_to_first_token);
        if let Some(error) = error {
            open.fail(error);
        }
        open.span.end();
    }

    /// Ends the span of a request that the generator refused.
    pub(crate) fn refuse(&mut self, error: &str) {
        let Some(mut open) = self.0.take() else { return };
        open.fail(error);
        open.span.end();
    }

    /// Ends the span of a request whose client disconnected after `output` tokens.
    pub(crate) fn abandon(&mut self, output: u64) {
        let Some(mut open) = self.0.take() else { return };
        if open.generates {
            let output = i64::try_from(output).unwrap_or(i64::MAX);
            open.span.set_attribute(KeyValue::new("gen_ai.usage.output_tokens", output));
        }
        open.first_token(None);
        open.span.set_attribute(KeyValue::new("error.type", "client_gone"));
        open.span.end();
    }
}

impl Open {
    /// Adds the first-token event, with the engine's time if known, else the time of its arrival.
    fn first_token(&mut self, time: Option<Duration>) {
        let at = time.and_then(|time| self.begun.checked_add(time)).or(self.first_token);
        let Some(at) = at else { return };
        let seconds = time.or_else(|| at.duration_since(self.begun).ok()).unwrap_or_default().as_secs_f64();
        let attributes = vec![KeyValue::new("exsa.time_to_first_token", seconds)];
        self.span.add_event_with_timestamp("exsa.first_token", at, attributes);
    }

    fn fail(&mut self, error: &str) {
        self.span.set_attribute(KeyValue::new("error.type", error.to_owned()));
        self.span.set_status(Status::error(""));
    }
}

impl fmt::Debug for InferenceSpan {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let context = self.0.as_ref().map(|open| open.span.span_context());
        out.debug_tuple("InferenceSpan").field(&context).finish()
    }
}

/// Attributes for the settings of a request, except texts.
fn of_request(request: &Request) -> Vec<KeyValue> {
    let sampling = &request.sampling;
    let integer =
        |name: &'static str, value: u64| i64::try_from(value).ok().map(|value| KeyValue::new(name, value));
    let mut attributes = vec![
        KeyValue::new("gen_ai.request.temperature", decimal(sampling.temperature)),
        KeyValue::new("gen_ai.request.top_p", decimal(sampling.top_p)),
        KeyValue::new("gen_ai.request.frequency_penalty", decimal(sampling.frequency_penalty)),
        KeyValue::new("gen_ai.request.presence_penalty", decimal(sampling.presence_penalty)),
        KeyValue::new("exsa.request.priority", request.priority.name()),
    ];
    attributes.extend(sampling.top_k.map(|k| KeyValue::new("gen_ai.request.top_k", f64::from(k))));
    attributes.extend(request.max_tokens.and_then(|max| integer("gen_ai.request.max_tokens", max as u64)));
    attributes.extend(sampling.seed.and_then(|seed| integer("gen_ai.request.seed", seed)));
    let answers = (request.n != 1).then_some(request.n as u64);
    attributes.extend(answers.and_then(|n| integer("gen_ai.request.choice.count", n)));
    attributes
}

/// Converts to the shortest decimal for `value`: 0.8, not 0.800000011920929.
fn decimal(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}
