//! Jinja as configured by Hugging Face transformers, on minijinja.
//!
//! That is: the white space of block lines is removed (`trim_blocks`, `lstrip_blocks`); `break` and
//! `continue`, the methods of Python's strings and dicts, `raise_exception` and `strftime_now` are available;
//! `tojson` writes the same text as Python's `json.dumps`; and `{% generation %}` has no effect on the text.

use super::mapping::to_value;
use super::markers::{Marking, is_marker};
use super::source::prepare;
use super::strftime::strftime;
use super::tojson::tojson;
use super::{ChatOptions, ChatTemplateError, Json, depth, python};
use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Value};
use std::io::{self, Write};
use std::sync::Arc;
use std::time::SystemTime;

/// Maximum steps of a template for a short conversation. A step is an instruction or 64 bytes of data,
/// including text that a template only copies, so this also limits memory to 64 MB. The templates of known
/// models take a few hundred steps plus two per byte of the conversation.
pub(super) const STEPS_MAX: u64 = 1_000_000;

/// Additional steps per byte of the conversation, up to [`STEPS_TOTAL_MAX`].
const STEPS_PER_BYTE: u64 = 4;

/// Maximum steps for a conversation of any length, plus one step per two bytes of it: 256 MB, plus 32 bytes
/// per byte of the conversation.
const STEPS_TOTAL_MAX: u64 = 4_000_000;

/// Name of the template in error messages.
const NAME: &str = "chat template";

/// A compiled template.
#[derive(Debug)]
pub(super) struct Program {
    environment: Environment<'static>,
}

impl Program {
    pub(super) fn parse(source: &str) -> Result<Self, ChatTemplateError> {
        let failed = |error: Error| ChatTemplateError::Parse { problem: error.to_string() };
        let source = prepare(source).map_err(|problem| ChatTemplateError::Parse { problem })?;
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(failed)?;
        environment.set_syntax(syntax);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.add_filter("tojson", tojson);
        python::install(&mut environment);
        depth::install(&mut environment);
        environment.add_function("raise_exception", raise_exception);
        environment.add_template_owned(NAME, source).map_err(failed)?;
        Ok(Self { environment })
    }

    pub(super) fn render(
        &self,
        variables: Vec<(String, Json)>,
        marking: Marking,
        options: &ChatOptions,
        steps_max: u64,
    ) -> Result<String, ChatTemplateError> {
        let mut environment = self.environment.clone();
        let bytes: u64 = variables.iter().map(|(_, value)| weight(value)).sum();
        let steps_max = steps_max.saturating_add(bytes.saturating_mul(STEPS_PER_BYTE));
        let steps_max = steps_max.min(STEPS_TOTAL_MAX.saturating_add(bytes / 2));
        environment.set_fuel(Some(steps_max));
        let marking = Arc::new(marking);
        python::install_marking(&mut environment, &marking);
        let now = options.now;
        environment.add_function("strftime_now", move |format: &str| {
            strftime(format, now.unwrap_or_else(SystemTime::now)).map_err(|conversion| {
                let problem = format!("strftime_now: the conversion %{conversion} is not supported");
                Error::new(ErrorKind::InvalidOperation, problem)
            })
        });
        let template = environment.get_template(NAME).map_err(|error| explain(&error, steps_max))?;
        let context =
            Value::from_pairs(variables.into_iter().map(|(name, value)| (name, to_value(value, &marking))));
        let mut out = Limited { out: Vec::new(), left: options.output_bytes_max, over: false };
        let result = template.render_captured_to(context, &mut out).map(|_| ());
        if out.over {
            return Err(ChatTemplateError::OutputTooLong { limit: options.output_bytes_max });
        }
        result.map_err(|error| explain(&error, steps_max))?;
        String::from_utf8(out.out).map_err(|error| ChatTemplateError::Render { problem: error.to_string() })
    }
}

/// Approximate bytes of a value.
fn weight(value: &Json) -> u64 {
    match value {
        Json::String(text) => text.len() as u64,
        Json::Array(items) => items.iter().map(|item| 16 + weight(item)).sum(),
        Json::Object(fields) => fields.iter().map(|(key, value)| 16 + key.len() as u64 + weight(value)).sum(),
        Json::Null | Json::Bool(_) | Json::Int(_) | Json::Float(_) => 16,
    }
}

/// Argument of `raise_exception`, carried as the source of the rendering error.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refusal(String);

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, "raise_exception").with_source(Refusal(message)))
}

fn explain(error: &Error, steps_max: u64) -> ChatTemplateError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = cause {
        if let Some(Refusal(message)) = current.downcast_ref() {
            return ChatTemplateError::Refused(message.clone());
        }
        if current.downcast_ref::<Error>().is_some_and(|error| error.kind() == ErrorKind::OutOfFuel) {
            return ChatTemplateError::Endless { steps_max };
        }
        cause = current.source();
    }
    ChatTemplateError::Render { problem: error.to_string() }
}

/// Writer with a limit in bytes, not counting markers.
struct Limited {
    out: Vec<u8>,
    left: usize,
    over: bool,
}

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let markers = str::from_utf8(bytes).map_or(0, |text| text.chars().filter(|c| is_marker(*c)).count());
        let counted = bytes.len() - markers * '\u{FDD0}'.len_utf8();
        let Some(left) = self.left.checked_sub(counted) else {
            self.over = true;
            return Err(io::Error::other("over the limit"));
        };
        self.left = left;
        self.out.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
