//! Detection of formats from the chat template.

use super::{ReasoningFormat, ToolFormat};

/// Formats that a chat template uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Detected {
    /// The format of tool calls; [`ToolFormat::None`] if the template has none.
    pub tools: ToolFormat,
    /// The format of reasoning; [`ReasoningFormat::None`] if the template has none.
    pub reasoning: ReasoningFormat,
}

/// Texts by which a template's format is recognized: all of the first list and none of the second must occur.
/// The first matching rule applies.
type Rule<T> = (&'static [&'static str], &'static [&'static str], T);

const TOOLS: &[Rule<ToolFormat>] = &[
    (&["<|channel|>", "<|message|>"], &[], ToolFormat::Harmony),
    (&["dsml_token"], &[], ToolFormat::DeepSeekV32),
    (&["｜DSML｜"], &[], ToolFormat::DeepSeekV32),
    (&["<|tool_calls_section_begin|>"], &[], ToolFormat::KimiK2),
    (&["<｜tool▁calls▁begin｜>", "```json"], &[], ToolFormat::DeepSeekV3),
    (&["<｜tool▁calls▁begin｜>"], &[], ToolFormat::DeepSeekV31),
    (&["[TOOL_CALLS]"], &[], ToolFormat::Mistral),
    (&["<start_function_call>"], &[], ToolFormat::FunctionGemma),
    (&["<|tool_call>call:"], &[], ToolFormat::Gemma4),
    (&["<seed:tool_call>"], &[], ToolFormat::SeedOss),
    (&["<minimax:tool_call>"], &[], ToolFormat::MiniMaxM2),
    (&["<TOOLCALL>"], &[], ToolFormat::Nemotron),
    (&["<|tool_call_start|>"], &[], ToolFormat::Lfm2),
    (&["<|tool_list_start|>"], &[], ToolFormat::Lfm2),
    (&["List of tools: ["], &[], ToolFormat::Lfm2),
    (&["<|START_ACTION|>"], &[], ToolFormat::CommandR7b),
    (&["Action: ```json"], &[], ToolFormat::CommandR),
    (&["Action:```json"], &[], ToolFormat::CommandR),
    (&[">>>all"], &[], ToolFormat::FunctionaryV32),
    (&["<arg_key>"], &[], ToolFormat::Glm4),
    (&["<function=", "<parameter="], &[], ToolFormat::Qwen3Coder),
    (&["<function=", "</function>"], &[], ToolFormat::FunctionaryV31),
    (&["<tool_calls>"], &[], ToolFormat::MiniMaxM1),
    (&["<|/tool_call|>"], &[], ToolFormat::Phi4Mini),
    (&["<|tool_call|>"], &[], ToolFormat::Granite),
    (&["<function_call>"], &[], ToolFormat::Granite),
    (&["<tool_call>"], &[], ToolFormat::Hermes),
    (&[" functools["], &[], ToolFormat::FireFunction),
    (&["<|python_start|>"], &[], ToolFormat::Llama4Pythonic),
    (&["[func_name1(params_name1=params_value1"], &[], ToolFormat::Llama4Pythonic),
    (&["<|python_tag|>"], &[], ToolFormat::Llama3Json),
    (&["\"parameters\": dictionary of argument name and its value"], &[], ToolFormat::Llama3Json),
    (&["<start_of_turn>", "tool_code"], &[], ToolFormat::Gemma3),
    // Templates without a specific format show tools or calls as JSON.
    (&["tool_calls"], &[], ToolFormat::Json),
];

const REASONING: &[Rule<ReasoningFormat>] = &[
    (&["<|channel|>", "<|message|>"], &[], ReasoningFormat::Harmony),
    (&["<|channel>thought"], &[], ReasoningFormat::Gemma4),
    (&["<|START_THINKING|>"], &[], ReasoningFormat::CommandR7b),
    (&["<seed:think>"], &[], ReasoningFormat::SeedOss),
    (&["[THINK]"], &[], ReasoningFormat::Mistral),
    (&["<response>", "<think>"], &[], ReasoningFormat::Granite),
    (&["Here is my thought process"], &[], ReasoningFormat::Granite),
    (&["</think>"], &[], ReasoningFormat::Think),
];

/// Detects the formats that the source of a chat template uses. If the template does not tell,
/// `architecture`, from [`ModelInfo`](crate::model_info::ModelInfo), decides.
///
/// ```
/// use exsa_core::tools::{ReasoningFormat, ToolFormat, detect};
///
/// let found = detect("{{ '<think>' }}…</think>…<tool_call>{{ call }}</tool_call>", "qwen3");
/// assert_eq!((found.tools, found.reasoning), (ToolFormat::Hermes, ReasoningFormat::Think));
/// ```
pub fn detect(template: &str, architecture: &str) -> Detected {
    let tools = match find(TOOLS, template) {
        Some(ToolFormat::Json) | None if architecture == "llama4" => ToolFormat::Llama4Pythonic,
        Some(format) => format,
        None => ToolFormat::None,
    };
    let reasoning = find(REASONING, template).unwrap_or(ReasoningFormat::None);
    Detected { tools, reasoning }
}

fn find<T: Copy>(rules: &[Rule<T>], template: &str) -> Option<T> {
    let holds = |(all, none, _): &&Rule<T>| {
        all.iter().all(|text| template.contains(text)) && !none.iter().any(|text| template.contains(text))
    };
    rules.iter().find(holds).map(|(_, _, format)| *format)
}
