//! The pre-tokenizers that files name in `tokenizer.ggml.pre`.

use super::cased::Cased;
use super::deepseek::{ASIAN, CASED_LETTERS, CHINESE_JAPANESE, PUNCTUATION};
use super::letters::Letters;
use super::{Class, Set, Stage, cut};

/// A pre-tokenizer, with what goes with it by convention and is not written in the file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Family {
    stages: &'static [Stage],
    /// Whether a word that is a token is taken whole, without merges.
    pub(crate) ignore_merges: bool,
    /// Whether prompts start with BOS unless the file says otherwise.
    pub(crate) add_bos: bool,
    /// Whether there is a BOS where the file names none.
    pub(crate) default_bos: bool,
}

impl Family {
    const fn new(stages: &'static [Stage]) -> Self {
        Self { stages, ignore_merges: false, add_bos: false, default_bos: true }
    }

    /// Hands the words of `text` to `emit`, in order; together they are the text.
    pub(crate) fn words<'t>(&self, text: &'t str, emit: &mut dyn FnMut(&'t str)) {
        cut(self.stages, text, emit);
    }
}

/// The pre-tokenizer called `name`.
pub(crate) fn family(name: &str) -> Option<Family> {
    FAMILIES.iter().find(|(names, _)| names.contains(&name)).map(|(_, family)| *family)
}

/// All names, for messages.
pub(crate) fn supported() -> String {
    let names: Vec<&str> = FAMILIES.iter().flat_map(|(names, _)| names.iter().copied()).collect();
    names.join(", ")
}

const NUMBER: Set = Set::Class(Class::NUMBER);

const BY_THREE: Letters = Letters { numbers_max: 3, letter: Class::LETTER };
const ONE_BY_ONE: Letters = Letters { numbers_max: 1, letter: Class::LETTER };

const GPT2: Family = Family::new(&[Stage::Gpt2]);
const LLAMA3: Family = Family::new(&[Stage::Letters(BY_THREE)]);
const QWEN2: Family = Family::new(&[Stage::Letters(ONE_BY_ONE)]);
const STARCODER: Family = Family::new(&[Stage::Each(NUMBER), Stage::Gpt2]);

/// Names, and the family they stand for. Names of one line differ in nothing that matters here.
const FAMILIES: &[(&[&str], Family)] = &[
    (
        &["default"],
        Family::new(&[
            Stage::Runs(Set::ClassOr(Class::PUNCTUATION, "$+<=>^~|")),
            Stage::Gpt2,
            Stage::Runs(NUMBER),
            Stage::AsciiDigitsByThree,
        ]),
    ),
    (
        &[
            "gpt-2",
            "phi-2",
            "mpt",
            "olmo",
            "jais",
            "exaone4",
            "trillion",
            "granite-docling",
            "gigachat",
            "a.x-4.0",
            "mellum",
            "modern-bert",
            "roberta-bpe",
            "jina-v1-en",
            "jina-v2-code",
            "jina-es",
            "jina-de",
            "jina-v2-es",
            "jina-v2-de",
        ],
        GPT2,
    ),
    (
        &[
            "llama3",
            "llama-v3",
            "llama-bpe",
            "falcon3",
            "falcon-h1",
            "pixtral",
            "midm-2.0",
            "lfm2",
            "jina-v5-nano",
        ],
        Family { ignore_merges: true, add_bos: true, ..LLAMA3 },
    ),
    (&["dbrx", "smaug-bpe"], LLAMA3),
    (&["chatglm-bpe"], Family { default_bos: false, ..LLAMA3 }),
    (&["glm4", "glm5"], Family { ignore_merges: true, default_bos: false, ..LLAMA3 }),
    (
        &[
            "qwen2",
            "deepseek-r1-qwen",
            "stablelm2",
            "hunyuan",
            "solar-open",
            "megrez",
            "grok-2",
            "kormo",
            "f2llmv2",
        ],
        QWEN2,
    ),
    (
        &["qwen35"],
        Family::new(&[Stage::Letters(Letters { numbers_max: 1, letter: Class::LETTER.or(Class::MARK) })]),
    ),
    (
        &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"],
        STARCODER,
    ),
    (
        &["falcon"],
        Family::new(&[
            Stage::Runs(Set::ClassOr(Class::PUNCTUATION, "$+<=>^~|`")),
            Stage::Gpt2,
            Stage::AsciiDigitsByThree,
        ]),
    ),
    (
        &["deepseek-llm"],
        Family::new(&[
            Stage::Each(NEWLINE),
            Stage::SpacedRuns(CASED_LETTERS),
            Stage::SpacedRuns(PUNCTUATION),
            Stage::TrailingSpaces,
            Stage::Runs(ASIAN),
            Stage::Runs(NUMBER),
        ]),
    ),
    (
        &["deepseek-coder"],
        Family::new(&[
            Stage::Each(NEWLINE),
            Stage::SpacedRuns(Set::Class(Class::LETTER)),
            Stage::SpacedRuns(Set::Class(Class::PUNCTUATION)),
            Stage::Runs(ASIAN),
            Stage::Each(NUMBER),
        ]),
    ),
    (
        &["deepseek-v3", "hunyuan-dense", "joyai-llm"],
        Family::new(&[Stage::NumbersByThree, Stage::Runs(CHINESE_JAPANESE), Stage::DeepSeek3]),
    ),
    (
        &["tekken"],
        Family {
            ignore_merges: true,
            add_bos: true,
            ..Family::new(&[Stage::Cased(Cased { numbers_max: 1, contractions: false })])
        },
    ),
    (
        &["gpt-4o", "llama4", "kanana2"],
        Family::new(&[Stage::Cased(Cased { numbers_max: 3, contractions: true })]),
    ),
];

const NEWLINE: Set = Set::Ranges(&[('\n', '\n'), ('\r', '\r')]);
