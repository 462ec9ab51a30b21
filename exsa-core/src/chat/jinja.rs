//! Jinja as Hugging Face transformers sets it up, on minijinja.

use super::{ChatOptions, ChatTemplateError, ControlTexts, Message};
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Value, context};

/// A compiled template.
#[derive(Debug)]
pub(super) struct Program {
    environment: Environment<'static>,
}

impl Program {
    pub(super) fn parse(source: &str) -> Result<Self, ChatTemplateError> {
        let failed = |error: minijinja::Error| ChatTemplateError::Parse { problem: error.to_string() };
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(failed)?;
        environment.set_syntax(syntax);
        environment.add_template_owned("chat", source.to_owned()).map_err(failed)?;
        Ok(Self { environment })
    }

    pub(super) fn render(
        &self,
        messages: &[Message],
        options: &ChatOptions,
        texts: &ControlTexts,
    ) -> Result<String, ChatTemplateError> {
        let failed = |error: minijinja::Error| ChatTemplateError::Render { problem: error.to_string() };
        let messages: Vec<Value> =
            messages.iter().map(|m| context! { role => &*m.role, content => &*m.content }).collect();
        let template = self.environment.get_template("chat").map_err(failed)?;
        template
            .render(context! {
                messages,
                add_generation_prompt => options.add_generation_prompt,
                bos_token => &*texts.bos,
                eos_token => &*texts.eos,
            })
            .map_err(failed)
    }
}
