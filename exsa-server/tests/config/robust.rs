//! No text panics the reader, and every error can be printed.

use exsa_server::config::{Config, EXAMPLE};
use proptest::prelude::*;

fn read(text: &str) {
    if let Err(error) = Config::parse(text) {
        assert!(!error.problems.is_empty());
        for line in error.to_string().lines() {
            assert!(line.chars().count() < 1000 && !line.contains('\u{1b}'), "{line:?}");
        }
    }
}

proptest! {
    #[test]
    fn random_texts(text in "\\PC{0,200}", bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        read(&text);
        read(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn mutations_of_the_example(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), 0..20_usize, "[\\[\\]=\"#.,a-z0-9_{} \\n\\x1b\u{e4}-]{0,8}"), 1..6),
    ) {
        let mut text: Vec<char> = EXAMPLE.chars().collect();
        for (at, removed, inserted) in edits {
            let at = at.index(text.len());
            let end = (at + removed).min(text.len());
            text.splice(at..end, inserted.chars());
        }
        read(&text.into_iter().collect::<String>());
    }

    #[test]
    fn random_values(section in "(listen|tls|limits|http|engine|log|drain)", key in "[a-z_]{1,12}", value in "\\PC{0,40}") {
        read(&format!("[{section}]\n{key} = {value}\n"));
        read(&format!("{section} = {{ {key} = {value} }}\n"));
    }
}

#[test]
fn deep_and_long_texts_end() {
    read(&"[".repeat(100_000));
    read(&format!("a = {}", "[".repeat(100_000)));
    read(&format!("{} = 1", "a.".repeat(100_000)));
    read(&"x = 1\n".repeat(10_000));
    read(&(0..10_000).map(|i| format!("k{i} = 1\n")).collect::<String>());
}
