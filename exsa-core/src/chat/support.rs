//! Features of a template, detected by rendering small conversations.
//!
//! Templates do not declare their features. As in llama.cpp, they are detected by probes with distinctive
//! words: a word that appears in the output was rendered.

use super::fields::{ArgumentsForm, Form};
use super::{ChatOptions, ChatTemplate, ChatTemplateError, Json, Message, ToolCall};
use std::time::SystemTime;

/// Maximum steps of one probe. A conversation of a few words takes a small fraction of them.
const PROBE_STEPS_MAX: u64 = 200_000;

/// Features of a chat template ([`ChatTemplate::supports`]).
///
/// ```
/// # #[cfg(feature = "chat-template")] {
/// use exsa_core::chat::{ChatTemplate, ControlTexts};
///
/// let source = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}";
/// let support = ChatTemplate::parse(source, ControlTexts::default())?;
/// assert!(support.supports().system && !support.supports().tools);
/// # }
/// # Ok::<(), exsa_core::chat::ChatTemplateError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TemplateSupport {
    /// Content given as a string is rendered.
    pub text_content: bool,
    /// Content given as a list of parts is rendered.
    pub content_parts: bool,
    /// Messages of the role `system` are rendered.
    pub system: bool,
    /// Tool definitions are rendered. If not, [`ToolFallback`](super::ToolFallback) applies, as for calls and
    /// results that are not rendered.
    pub tools: bool,
    /// Tool calls of the assistant are rendered.
    pub tool_calls: bool,
    /// Several tool calls in one message are all rendered.
    pub parallel_tool_calls: bool,
    /// Messages of the role `tool` are rendered.
    pub tool_results: bool,
    /// The form in which the template expects the arguments of tool calls.
    pub arguments: ArgumentsForm,
    /// The reasoning of an assistant's last message is rendered.
    pub reasoning: bool,
    /// The variable that switches reasoning on and off, if there is one.
    pub thinking: Option<ThinkingSwitch>,
    /// The variable that sets how much the model reasons, such as `reasoning_effort`.
    pub reasoning_effort: Option<&'static str>,
    /// Documents ([`ChatOptions::documents`]) are rendered.
    pub documents: bool,
}

/// The variable by which a template switches reasoning on and off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ThinkingSwitch {
    /// Name of the variable, such as `enable_thinking`.
    pub variable: &'static str,
    on: SwitchValue,
    off: SwitchValue,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SwitchValue {
    Bool(bool),
    Text(&'static str),
    Int(i32),
}

impl ThinkingSwitch {
    const fn new(variable: &'static str, on: SwitchValue, off: SwitchValue) -> Self {
        Self { variable, on, off }
    }

    /// The value of the variable for reasoning on or off.
    pub fn value(&self, on: bool) -> Json {
        match if on { self.on } else { self.off } {
            SwitchValue::Bool(value) => value.into(),
            SwitchValue::Text(value) => value.into(),
            SwitchValue::Int(value) => value.into(),
        }
    }
}

/// Switches of published templates.
const SWITCHES: [ThinkingSwitch; 7] = {
    use SwitchValue::{Bool, Int, Text};
    [
        ThinkingSwitch::new("enable_thinking", Bool(true), Bool(false)),
        ThinkingSwitch::new("thinking", Bool(true), Bool(false)),
        ThinkingSwitch::new("skip_thinking", Bool(false), Bool(true)),
        ThinkingSwitch::new("thinking_mode", Text("enabled"), Text("disabled")),
        ThinkingSwitch::new("thinking_option", Text("on"), Text("off")),
        ThinkingSwitch::new("thinking_budget", Int(-1), Int(0)),
        ThinkingSwitch::new("reasoning", Bool(true), Bool(false)),
    ]
};

/// Variables for the amount of reasoning in published templates.
const EFFORTS: [&str; 3] = ["reasoning_effort", "thinking_effort", "reasoning_strength"];

impl Default for TemplateSupport {
    /// Text only.
    fn default() -> Self {
        Self {
            text_content: true,
            content_parts: false,
            system: false,
            tools: false,
            tool_calls: false,
            parallel_tool_calls: false,
            tool_results: false,
            arguments: ArgumentsForm::Mapping,
            reasoning: false,
            thinking: None,
            reasoning_effort: None,
            documents: false,
        }
    }
}

impl TemplateSupport {
    /// Renders the probes. A template that exceeds the steps on a probe is treated as text-only.
    pub(super) fn of(template: &ChatTemplate) -> Self {
        Prober { template }.support().unwrap_or_default()
    }

    /// The form in which messages are passed to the template.
    pub(super) fn form(&self) -> Form {
        Form {
            arguments: self.arguments,
            single_part: !self.text_content && self.content_parts,
            several_parts: self.content_parts,
        }
    }
}

struct Prober<'a> {
    template: &'a ChatTemplate,
}

const USER: &str = "probe-user";
const TEXT: Form = Form { arguments: ArgumentsForm::Mapping, single_part: false, several_parts: false };
const PARTS: Form = Form { single_part: true, several_parts: true, ..TEXT };

impl Prober<'_> {
    fn support(&self) -> Result<TemplateSupport, ChatTemplateError> {
        let options = ChatOptions::default();
        let user = || Message::user(USER);
        let text_content = self.shows(&[user()], &options, TEXT, &[USER])?;
        // A list that the template treats as text is written in Python's notation, including its keys.
        let parts = self.render(&[user()], &options, PARTS)?;
        let content_parts = parts.is_some_and(|text| text.contains(USER) && !has_type_key(&text));
        let form = if text_content || !content_parts { TEXT } else { PARTS };
        let system = [Message::system("probe-system"), user()];
        let system = self.shows(&system, &options, form, &["probe-system", USER])?;

        let tool = probe_tool();
        let with_tools = options.clone().tools([tool]);
        let tools = self.shows(&[user()], &with_tools, form, &["probe_tool"])?
            || system && self.shows(&[Message::system("s"), user()], &with_tools, form, &["probe_tool"])?;
        let thinking = self.switch(form)?;
        let mut support = TemplateSupport {
            text_content: text_content || !content_parts,
            content_parts,
            system,
            tools,
            thinking,
            reasoning_effort: self.effort(form, thinking)?,
            ..TemplateSupport::default()
        };
        self.calls(&mut support, &with_tools, form)?;

        let reasoned = [user(), Message::assistant("probe-answer").reasoning("probe-reason")];
        let silent = switched_on(options.clone().add_generation_prompt(false), thinking);
        support.reasoning = self.shows(&reasoned, &silent, form, &["probe-reason"])?;
        let document = [("title", "probe-title"), ("text", "probe-document")];
        let documents = options.documents([document.into_iter().collect::<Json>()]);
        support.documents = self.shows(&[user()], &documents, form, &["probe-document"])?;
        Ok(support)
    }

    /// Tool calls: whether they are rendered, in which form, and how many.
    fn calls(
        &self,
        support: &mut TemplateSupport,
        options: &ChatOptions,
        form: Form,
    ) -> Result<(), ChatTemplateError> {
        // Nine letters and digits, since Mistral's templates require such ids.
        let call = |name: &str, id: &str| ToolCall::new(name, r#"{"probe_key": "probe-value"}"#).id(id);
        let conversation = |null: bool, calls: &[ToolCall]| {
            let mut answer = Message::assistant("");
            if null {
                answer.content.clear();
            }
            answer.tool_calls = calls.to_vec();
            let results = calls.iter().map(|call| {
                Message::tool(call.id.clone().unwrap_or_default(), "probe-result").name(call.name.as_str())
            });
            [Message::user(USER), answer].into_iter().chain(results).collect::<Vec<_>>()
        };
        let calls = [call("probe_call", "probe0001"), call("probe_other", "probe0002")];
        let (one, two) = (&calls[..1], &calls[..]);
        let words = ["probe_call", "probe_key", "probe-value"];
        for null in [false, true] {
            let mut found = [false; 2];
            let mut as_repr = false;
            for (arguments, found) in
                [ArgumentsForm::Mapping, ArgumentsForm::Text].into_iter().zip(&mut found)
            {
                let form = Form { arguments, ..form };
                let Some(text) = self.render(&conversation(null, one), options, form)? else { continue };
                // A mapping written in Python's notation, or text written as a JSON string, indicates the
                // wrong form.
                let wrong = match arguments {
                    ArgumentsForm::Mapping => text.contains("{'probe_key'"),
                    ArgumentsForm::Text => text.contains(r#"\"probe_key\""#),
                };
                as_repr |= wrong && arguments == ArgumentsForm::Mapping;
                *found = words.iter().all(|word| text.contains(word)) && !wrong;
                support.tool_results |= text.contains("probe-result");
            }
            let [mapping, text] = found;
            if mapping || text || as_repr {
                support.tool_calls = true;
                support.arguments =
                    if text && !mapping { ArgumentsForm::Text } else { ArgumentsForm::Mapping };
                break;
            }
        }
        let form = Form { arguments: support.arguments, ..form };
        for null in [false, true] {
            support.parallel_tool_calls |=
                self.shows(&conversation(null, two), options, form, &["probe_call", "probe_other"])?;
        }
        Ok(())
    }

    fn switch(&self, form: Form) -> Result<Option<ThinkingSwitch>, ChatTemplateError> {
        for switch in SWITCHES.into_iter().filter(|switch| self.reads(switch.variable)) {
            let (on, off) = (switch.value(true), switch.value(false));
            if self.differ(form, &ChatOptions::default(), switch.variable, on, off)? {
                return Ok(Some(switch));
            }
        }
        Ok(None)
    }

    /// The variable for the amount of reasoning. Some templates distinguish only one value from the others,
    /// and only with reasoning on.
    fn effort(
        &self,
        form: Form,
        thinking: Option<ThinkingSwitch>,
    ) -> Result<Option<&'static str>, ChatTemplateError> {
        let options = switched_on(ChatOptions::default(), thinking);
        for name in EFFORTS.into_iter().filter(|name| self.reads(name)) {
            for other in ["low", "max", "none"] {
                if self.differ(form, &options, name, "high".into(), other.into())? {
                    return Ok(Some(name));
                }
            }
        }
        Ok(None)
    }

    /// Whether the source contains the name.
    fn reads(&self, variable: &str) -> bool {
        self.template.source().contains(variable)
    }

    /// Whether two values of a variable yield different prompts.
    fn differ(
        &self,
        form: Form,
        options: &ChatOptions,
        name: &str,
        one: Json,
        other: Json,
    ) -> Result<bool, ChatTemplateError> {
        let of = |value| {
            let options = options.clone().variable(name, value);
            self.render(&[Message::user(USER)], &options, form)
        };
        let (one, other) = (of(one)?, of(other)?);
        Ok(one.is_some() && other.is_some() && one != other)
    }

    /// Whether the rendered conversation contains all of `words`.
    fn shows(
        &self,
        messages: &[Message],
        options: &ChatOptions,
        form: Form,
        words: &[&str],
    ) -> Result<bool, ChatTemplateError> {
        let text = self.render(messages, options, form)?;
        Ok(text.is_some_and(|text| words.iter().all(|word| text.contains(word))))
    }

    /// The text of a conversation; `None` if the template fails on it.
    ///
    /// # Errors
    ///
    /// [`ChatTemplateError::Endless`]; further probes would then only cost time.
    fn render(
        &self,
        messages: &[Message],
        options: &ChatOptions,
        form: Form,
    ) -> Result<Option<String>, ChatTemplateError> {
        let mut options = options.clone().now(SystemTime::UNIX_EPOCH);
        options.output_bytes_max = options.output_bytes_max.min(1 << 20);
        match self.template.render_in(messages, &options, form, PROBE_STEPS_MAX) {
            Ok(rendered) => Ok(Some(rendered.text)),
            Err(error @ ChatTemplateError::Endless { .. }) => Err(error),
            Err(_) => Ok(None),
        }
    }
}

/// The options with reasoning on.
fn switched_on(options: ChatOptions, thinking: Option<ThinkingSwitch>) -> ChatOptions {
    match thinking {
        Some(switch) => options.variable(switch.variable, switch.value(true)),
        None => options,
    }
}

/// Whether a text contains the key `type` of a part, in Python or JSON notation.
fn has_type_key(text: &str) -> bool {
    text.contains("'type'") || text.contains("\"type\"")
}

fn probe_tool() -> Json {
    let text = |text: &str| Json::from(text);
    let object = |fields: Vec<(&str, Json)>| fields.into_iter().collect::<Json>();
    let property = object(vec![("type", text("string")), ("description", text("probe"))]);
    let parameters = object(vec![
        ("type", text("object")),
        ("properties", object(vec![("probe_key", property)])),
        ("required", vec!["probe_key"].into()),
    ]);
    let function = object(vec![
        ("name", text("probe_tool")),
        ("description", text("probe")),
        ("parameters", parameters),
    ]);
    object(vec![("type", text("function")), ("function", function)])
}
