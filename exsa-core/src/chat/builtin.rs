//! Built-in templates of well-known formats, for models whose file has no template.

/// Names and sources, in the order of names.
const SOURCES: [(&str, &str); 7] = [
    ("chatml", include_str!("builtin/chatml.jinja")),
    ("gemma", include_str!("builtin/gemma.jinja")),
    ("llama2", include_str!("builtin/llama2.jinja")),
    ("llama3", include_str!("builtin/llama3.jinja")),
    ("mistral", include_str!("builtin/mistral.jinja")),
    ("phi3", include_str!("builtin/phi3.jinja")),
    ("zephyr", include_str!("builtin/zephyr.jinja")),
];

/// The source of a built-in template.
pub(super) fn source(name: &str) -> Option<&'static str> {
    SOURCES.iter().find(|(known, _)| *known == name).map(|(_, source)| *source)
}

/// The names of the built-in templates.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    SOURCES.iter().map(|(name, _)| *name)
}
