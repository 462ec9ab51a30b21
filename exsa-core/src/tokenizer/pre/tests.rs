use super::*;
use proptest::prelude::*;

fn cut_with<'t>(name: &str, text: &'t str) -> Vec<&'t str> {
    let mut words = Vec::new();
    family(name).expect(name).words(text, &mut |word| words.push(word));
    words
}

fn all_names() -> Vec<String> {
    supported().split(", ").map(String::from).collect()
}

#[test]
fn words_numbers_and_contractions() {
    let text = "I'M 12345 it's";
    let cases: [(&str, &[&str]); 9] = [
        ("gpt-2", &["I", "'", "M", " 12345", " it", "'s"]),
        ("llama-bpe", &["I", "'M", " ", "123", "45", " it", "'s"]),
        ("qwen2", &["I", "'M", " ", "1", "2", "3", "4", "5", " it", "'s"]),
        ("smollm", &["I", "'", "M", " ", "1", "2", "3", "4", "5", " it", "'s"]),
        ("falcon", &["I", "'", "M", " ", "123", "45", " it", "'", "s"]),
        ("default", &["I", "'", "M", " ", "123", "45", " it", "'", "s"]),
        ("deepseek-llm", &["I", "'", "M", " ", "12345", " it", "'", "s"]),
        ("deepseek-coder", &["I", "'", "M", " ", "1", "2", "3", "4", "5", " it", "'", "s"]),
        ("deepseek-v3", &["I", "'M", " ", "123", "45", " it", "'s"]),
    ];
    for (name, words) in cases {
        assert_eq!(cut_with(name, text), words, "{name}");
    }
}

#[test]
fn white_space() {
    let text = "a  b\n\n  c \t\n d  ";
    let cases: [(&str, &[&str]); 4] = [
        ("gpt-2", &["a", " ", " b", "\n\n ", " c", " \t\n", " d", "  "]),
        ("llama-bpe", &["a", " ", " b", "\n\n", " ", " c", " \t\n", " d", "  "]),
        ("deepseek-llm", &["a", " ", " b", "\n", "\n", " ", " c", " \t", "\n", " d", "  "]),
        ("deepseek-v3", &["a", " ", " b", "\n\n", " ", " c", " \t\n", " d", "  "]),
    ];
    for (name, words) in cases {
        assert_eq!(cut_with(name, text), words, "{name}");
    }
    // A single space belongs to the word behind it, one of another kind does not, and what is left of a run
    // stays.
    assert_eq!(cut_with("gpt-2", "\u{3000}a\u{a0}\u{a0}1"), ["\u{3000}", "a", "\u{a0}", "\u{a0}", "1"]);
    assert_eq!(cut_with("qwen2", "\u{3000}a\u{a0}\u{a0}1"), ["\u{3000}a", "\u{a0}", "\u{a0}", "1"]);
}

#[test]
fn punctuation_and_newlines_behind_it() {
    let text = "x?!\n\n/y";
    let cases: [(&str, &[&str]); 5] = [
        ("gpt-2", &["x", "?!", "\n", "\n", "/", "y"]),
        ("qwen2", &["x", "?!\n\n", "/y"]),
        ("tekken", &["x", "?!\n\n/", "y"]),
        ("deepseek-v3", &["x", "?!\n\n", "/y"]),
        ("falcon", &["x", "?!", "\n\n", "/", "y"]),
    ];
    for (name, words) in cases {
        assert_eq!(cut_with(name, text), words, "{name}");
    }
}

#[test]
fn marks_belong_to_words_in_some() {
    let text = "a\u{301}b";
    assert_eq!(cut_with("qwen2", text), ["a", "\u{301}b"]);
    assert_eq!(cut_with("qwen35", text), [text]);
    assert_eq!(cut_with("deepseek-v3", text), [text]);
}

#[test]
fn changes_of_case() {
    assert_eq!(cut_with("tekken", "fooBar HTTPServer ÀBC"), ["foo", "Bar", " HTTPServer", " À", "BC"]);
    assert_eq!(cut_with("gpt-4o", "we'll x'S 1234"), ["we'll", " x'S", " ", "123", "4"]);
    assert_eq!(cut_with("tekken", "we'll 12"), ["we", "'ll", " ", "1", "2"]);
}

#[test]
fn scripts_of_their_own() {
    assert_eq!(cut_with("deepseek-llm", "naïve中文가 x"), ["na", "ï", "ve", "中文가", " x"]);
    assert_eq!(cut_with("deepseek-v3", "abc中文가"), ["abc", "中文", "가"]);
}

#[test]
fn names() {
    assert!(family("no-such-thing").is_none());
    let mut names = all_names();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count, "a name stands for two families");
}

/// Text in which every branch of the scanners is likely.
fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        proptest::char::any().prop_map(String::from),
        prop::sample::select(vec![
            " ", "  ", "\n", "\r\n", "\t", "\u{a0}", "\u{3000}", "a", "B", "é", "É", "中", "か", "가", "1",
            "½", "'", "'s", "'LL", ".", "!", "$", "~", "/", "🦙", "\u{301}", "\0", "\u{378}",
        ])
        .prop_map(String::from),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn nothing_is_lost(text in text()) {
        for name in all_names() {
            let words = cut_with(&name, &text);
            prop_assert!(words.iter().all(|word| !word.is_empty()), "{}: {:?}", name, words);
            prop_assert_eq!(words.concat(), text.as_str(), "{}", name);
        }
    }
}
