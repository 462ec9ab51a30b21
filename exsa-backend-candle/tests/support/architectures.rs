//! Names of the micro models, for the integration tests and those of executors.

/// A model of every architecture, in f32.
pub const ARCHITECTURES: [&str; 26] = [
    "llama-f32",
    "llama3-f32",
    "qwen2-f32",
    "qwen3-f32",
    "gemma2-f32",
    "gemma3-f32",
    "phi3-f32",
    "granite-f32",
    "smollm3-f32",
    "olmo2-f32",
    "olmo3-f32",
    "glm4-f32",
    "exaone4-f32",
    "command-r-f32",
    "cohere2-f32",
    "starcoder2-f32",
    "lfm2-f32",
    "qwen35-f32",
    "mixtral-f32",
    "qwen3moe-f32",
    "qwen2moe-f32",
    "olmoe-f32",
    "granitemoe-f32",
    "gpt-oss-f32",
    "glm4moe-f32",
    "ernie4_5-moe-f32",
];

/// Those of them that are mixtures of experts.
pub const MIXTURES: [&str; 8] = [
    "mixtral-f32",
    "qwen3moe-f32",
    "qwen2moe-f32",
    "olmoe-f32",
    "granitemoe-f32",
    "gpt-oss-f32",
    "glm4moe-f32",
    "ernie4_5-moe-f32",
];

/// Those of them whose layers keep states.
pub const RECURRENT: [&str; 2] = ["lfm2-f32", "qwen35-f32"];
