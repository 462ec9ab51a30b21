//! Names of the formats in which models write tool calls and reasoning.

use std::fmt;
use std::str::FromStr;

/// An unknown format name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no {kind} format '{name}'; known: {known}")]
pub struct UnknownFormat {
    /// `tool` or `reasoning`.
    pub kind: &'static str,
    /// The name.
    pub name: String,
    /// The known names, separated by commas.
    pub known: String,
}

macro_rules! formats {
    ($(#[$doc:meta])* $type:ident, $kind:literal; $($(#[$variant_doc:meta])* $variant:ident = $name:literal $(| $alias:literal)*;)*) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
        #[non_exhaustive]
        pub enum $type {
            $(
                $(#[$variant_doc])*
                #[cfg_attr(feature = "serde", serde(rename = $name $(, alias = $alias)*))]
                $variant,
            )*
        }

        impl $type {
            /// All formats.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Name in requests: that of vLLM's parser, if it has one.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }

        impl FromStr for $type {
            type Err = UnknownFormat;

            fn from_str(name: &str) -> Result<Self, UnknownFormat> {
                match name {
                    $($name $(| $alias)* => Ok(Self::$variant),)*
                    _ => Err(UnknownFormat {
                        kind: $kind,
                        name: name.to_owned(),
                        known: Self::ALL.iter().map(|format| format.name()).collect::<Vec<_>>().join(", "),
                    }),
                }
            }
        }
    };
}

formats! {
    /// Format in which a model writes tool calls.
    ///
    /// ```
    /// use exsa_core::tools::ToolFormat;
    ///
    /// assert_eq!("qwen3_coder".parse(), Ok(ToolFormat::Qwen3Coder));
    /// ```
    ToolFormat, "tool";
    /// No tool calls: the output is text.
    None = "none";
    /// Hermes 2 and 3, Qwen 2.5 and 3, Granite 4: `<tool_call>{"name": …, "arguments": {…}}</tool_call>`.
    Hermes = "hermes";
    /// Qwen3-Coder, Qwen 3.5, Nemotron 3:
    /// `<tool_call><function=f><parameter=p>…</parameter></function></tool_call>`.
    Qwen3Coder = "qwen3_coder" | "qwen3_xml";
    /// Llama 3.x: `{"name": …, "parameters": {…}}` as the whole answer, or after `<|python_tag|>`.
    Llama3Json = "llama3_json" | "llama4_json";
    /// Llama 4: `[f(a=1)]`, as the whole answer or after `<|python_start|>`.
    Llama4Pythonic = "llama4_pythonic" | "pythonic";
    /// Mistral: `[TOOL_CALLS][{…}]`, and `[TOOL_CALLS]f[ARGS]{…}` of newer models, with or without
    /// `[CALL_ID]`.
    Mistral = "mistral";
    /// Gemma 3: Python calls, `[f(a=1)]` as the whole answer or in a block of the language `tool_code`.
    Gemma3 = "gemma3";
    /// FunctionGemma: `<start_function_call>call:f{a:<escape>x<escape>}<end_function_call>`.
    FunctionGemma = "functiongemma";
    /// Gemma 4: `<|tool_call>call:f{a:<|"|>x<|"|>}<tool_call|>`.
    Gemma4 = "gemma4";
    /// Phi-4-mini: `<|tool_call|>[{…}]<|/tool_call|>` or `functools[{…}]`.
    Phi4Mini = "phi4_mini_json";
    /// DeepSeek V3 and R1: `<｜tool▁call▁begin｜>function<｜tool▁sep｜>f`, and arguments in a block of the
    /// language `json`.
    DeepSeekV3 = "deepseek_v3";
    /// DeepSeek V3.1: `<｜tool▁call▁begin｜>f<｜tool▁sep｜>{…}<｜tool▁call▁end｜>`.
    DeepSeekV31 = "deepseek_v31";
    /// DeepSeek V3.2 and V4: `<｜DSML｜invoke name="f">` with typed parameters.
    DeepSeekV32 = "deepseek_v32" | "deepseek_v4";
    /// GLM 4.5 to 4.7: `<tool_call>f<arg_key>k</arg_key><arg_value>v</arg_value></tool_call>`.
    Glm4 = "glm45" | "glm47";
    /// Kimi K2: `<|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{…}<|tool_call_end|>`.
    KimiK2 = "kimi_k2";
    /// gpt-oss: messages to `functions.f` in Harmony.
    Harmony = "openai" | "harmony";
    /// Granite 3.x: `<|tool_call|>[{…}]`; `<function_call>{…}` of Granite 20B.
    Granite = "granite";
    /// Command R and R+: `Action:` and a block of the language `json`.
    CommandR = "command_r";
    /// Command R7B and A: `<|START_ACTION|>[{"tool_name": …, "parameters": {…}}]<|END_ACTION|>`.
    CommandR7b = "cohere_command" | "command_r7b";
    /// Functionary 3.1: `<function=f>{…}</function>`.
    FunctionaryV31 = "functionary_v31";
    /// Functionary 3.2: `>>>f` and the arguments on the next line; `>>>all` before text.
    FunctionaryV32 = "functionary_v32";
    /// Nemotron: `<TOOLCALL>[{…}]</TOOLCALL>`.
    Nemotron = "nemotron_json";
    /// Seed-OSS: the tags of Qwen3-Coder in `<seed:tool_call>`.
    SeedOss = "seed_oss";
    /// MiniMax M1, Hunyuan, Jamba: `<tool_calls>` around objects.
    MiniMaxM1 = "minimax" | "hunyuan_a13b" | "jamba";
    /// MiniMax M2: `<minimax:tool_call><invoke name="f"><parameter name="p">…`.
    MiniMaxM2 = "minimax_m2";
    /// LFM2: `<|tool_call_start|>[f(a=1)]<|tool_call_end|>`.
    Lfm2 = "lfm2";
    /// FireFunction v2: ` functools[{…}]`.
    FireFunction = "firefunction_v2";
    /// An object with `name` and `arguments`, or a list of such objects, as the whole answer.
    Json = "json" | "xlam";
}

formats! {
    /// Format in which a model writes its reasoning.
    ReasoningFormat, "reasoning";
    /// Reasoning is not separated from text.
    None = "none";
    /// `<think>…</think>`: DeepSeek R1, Qwen 3, GLM, Kimi, Nemotron and most others.
    Think = "think" | "deepseek_r1" | "qwen3" | "glm45" | "kimi_k2" | "minimax_m2" | "deepseek_v3";
    /// `[THINK]…[/THINK]`: Magistral, Ministral.
    Mistral = "mistral";
    /// `<seed:think>…</seed:think>`.
    SeedOss = "seed_oss";
    /// The channel `analysis` of Harmony; use with [`ToolFormat::Harmony`], whose parser handles both.
    Harmony = "openai_gptoss" | "harmony" | "openai";
    /// `<|START_THINKING|>…<|END_THINKING|>`: Command R7B and A.
    CommandR7b = "cohere_command" | "command_r7b";
    /// Granite 3.x: `Here is my thought process:` and `Here is my response:`, or `<think>` and `<response>`.
    Granite = "granite";
    /// The channel `thought` of Gemma 4.
    Gemma4 = "gemma4";
}
