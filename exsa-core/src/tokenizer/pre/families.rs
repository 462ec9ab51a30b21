//! The pre-tokenizers that files name in `tokenizer.ggml.pre`.

use super::cased::Cased;
use super::deepseek::{ASIAN, CASED_LETTERS, CHINESE_JAPANESE, PUNCTUATION};
use super::letters::Letters;
use super::scripts::{AFMOE, BLOOM_ENDS, YOUTU};
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
    /// Whether prompts start with BOS whatever the file says.
    pub(crate) always_bos: bool,
    /// Whether the two texts of a pair are parted by the separator unless the file says otherwise.
    pub(crate) add_sep: bool,
    /// How words are written in the vocabulary.
    pub(crate) writing: Writing,
}

/// How words are written in the vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writing {
    /// Bytes in the alphabet of GPT-2.
    Bytes,
    /// Characters as they are. One that is no token is spelt in bytes, written `<0x0A>`.
    Characters {
        /// Whether spaces are written as U+2581.
        spaces: bool,
        /// Whether a run of newlines that is a token is taken whole.
        newlines: bool,
        /// Whether a word starts at each U+2581, and one is put before the text of a line that has none.
        metaspace: bool,
    },
}

impl Family {
    const fn new(stages: &'static [Stage]) -> Self {
        Self {
            stages,
            ignore_merges: false,
            add_bos: false,
            default_bos: true,
            always_bos: false,
            add_sep: false,
            writing: Writing::Bytes,
        }
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

const BY_THREE: Letters = Letters::new(3);
const ONE_BY_ONE: Letters = Letters::new(1);
const GPT4O: Cased = Cased { numbers_max: 3, contractions: true, letter: Class::LETTER, by_case: true };
const MARKED: Class = Class::LETTER.or(Class::MARK);
/// Words of letters and marks with their contraction, whatever the case.
const CASELESS: Cased = Cased { numbers_max: 1, letter: MARKED, by_case: false, ..GPT4O };
/// Characters between newlines.
const LINES: Family = Family::new(&[Stage::Runs(LINE_FEED)]);

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
            "jina-es",
            "jina-de",
            "jina-v2-es",
            "jina-v2-de",
        ],
        GPT2,
    ),
    (&["jina-v1-en", "jina-v2-code", "roberta-bpe"], Family { add_sep: true, ..GPT2 }),
    (
        &["minicpm5"],
        Family {
            ignore_merges: true,
            ..Family::new(&[Stage::NumbersByThree, Stage::Letters(Letters::new(usize::MAX))])
        },
    ),
    (&["jais-2"], Family::new(&[Stage::Letters(Letters { spaces_by_powers: true, ..BY_THREE })])),
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
            "bailingmoe",
            "bailingmoe2",
            "llada-moe",
        ],
        QWEN2,
    ),
    (&["qwen35"], Family::new(&[Stage::Letters(Letters { letter: MARKED, ..ONE_BY_ONE })])),
    (&["seed-coder"], Family::new(&[Stage::Letters(Letters { newlines_after_signs: false, ..ONE_BY_ONE })])),
    (&["ufakzeka"], Family::new(&[Stage::Letters(Letters { contractions: false, ..ONE_BY_ONE })])),
    (&["laguna"], Family::new(&[Stage::Runs(LINE_FEED), Stage::Letters(ONE_BY_ONE)])),
    (&["exaone-moe"], Family::new(&[Stage::Phrases])),
    (&["poro-chat", "bloom", "gpt3-finnish"], Family::new(&[Stage::SpacedRest(BLOOM_ENDS)])),
    (&["viking"], Family::new(&[Stage::SpacedRest(BLOOM_ENDS), Stage::Each(NUMBER)])),
    (&["superbpe"], Family::new(&[Stage::Runs(NUMBER), Stage::BeforeThousands])),
    (&["kimi-k2"], Family::new(&[Stage::Kimi])),
    (
        &["chameleon"],
        Family {
            add_bos: true,
            ..Family::new(&[
                Stage::Sentinels,
                Stage::ImageMarks,
                Stage::Indents,
                Stage::Each(NUMBER),
                Stage::Each(Set::ClassOr(Class::PUNCTUATION, "$+<=>^`|~")),
                Stage::Gpt2,
            ])
        },
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
        &["deepseek-v3", "hunyuan-dense", "hy_v4", "joyai-llm"],
        Family::new(&[Stage::NumbersByThree, Stage::Runs(CHINESE_JAPANESE), Stage::DeepSeek3]),
    ),
    (
        &["tekken"],
        Family {
            ignore_merges: true,
            add_bos: true,
            ..Family::new(&[Stage::Cased(Cased { numbers_max: 1, contractions: false, ..GPT4O })])
        },
    ),
    (&["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"], Family::new(&[Stage::Cased(GPT4O)])),
    (
        &["granite-embed-multi-97m"],
        Family { ignore_merges: true, ..Family::new(&[Stage::Cased(Cased { letter: MARKED, ..GPT4O })]) },
    ),
    (
        &["tiny_aya", "cohere2moe"],
        Family::new(&[Stage::NumbersFromRight, Stage::Cased(Cased { numbers_max: 3, ..CASELESS })]),
    ),
    (
        &["youtu"],
        Family { ignore_merges: true, ..Family::new(&[Stage::RunsOfEach(YOUTU), Stage::Cased(CASELESS)]) },
    ),
    (
        &["spark2_5"],
        Family::new(&[
            Stage::NumbersByThree,
            Stage::Runs(CHINESE_JAPANESE),
            Stage::Spark,
            Stage::Each(NUMBER),
        ]),
    ),
    (&["afmoe"], Family::new(&[Stage::NumbersFromRight, Stage::Runs(AFMOE), Stage::DeepSeek3])),
    (
        &["gemma4", "granite-embed-multi-311m"],
        Family {
            always_bos: true,
            writing: Writing::Characters { spaces: true, newlines: true, metaspace: false },
            ..LINES
        },
    ),
    (
        &["mmbert"],
        Family { writing: Writing::Characters { spaces: true, newlines: true, metaspace: true }, ..LINES },
    ),
    (
        &["sarvam-moe"],
        Family { writing: Writing::Characters { spaces: true, newlines: false, metaspace: false }, ..LINES },
    ),
    (
        &["whitespace"],
        Family {
            writing: Writing::Characters { spaces: false, newlines: false, metaspace: false },
            ..Family::new(&[Stage::Runs(Set::Class(Class::SPACE))])
        },
    ),
];

const LINE_FEED: Set = Set::Ranges(&[('\n', '\n')]);
const NEWLINE: Set = Set::Ranges(&[('\n', '\n'), ('\r', '\r')]);
