//! GBNF grammars.

use crate::{accepts, bytes};
use exsa_core::constraint::{Constraint, ConstraintError};

fn check(grammar: &str, valid: &[&str], invalid: &[&str]) {
    let compiler = bytes();
    let constraint = Constraint::gbnf(grammar);
    for text in valid {
        assert!(accepts(&compiler, &constraint, text), "{grammar}\nvalid: {text:?}");
    }
    for text in invalid {
        assert!(!accepts(&compiler, &constraint, text), "{grammar}\ninvalid: {text:?}");
    }
}

#[test]
fn items_of_the_format() {
    check("root ::= \"a\" | [b-d]+ # comment\n", &["a", "b", "cdb"], &["", "ab", "e"]);
    check("root ::= \"x\"{2} \"y\"{1,} \"z\"{0,2}", &["xxy", "xxyyyzz"], &["xy", "xx", "xxyzzz"]);
    check("root ::= (\"a\" \"b\"?)* \"c\"", &["c", "abac"], &["ab", "bc"]);
    check(r#"root ::= "\x41\u00e9\n\"" [^\]\\]"#, &["Aé\n\"x", "Aé\n\"ü"], &["Aé\n\"]", "Aé\n\"\\"]);
    check("root ::= . \"!\"", &["é!", "\n!"], &["!", "ab!"]);
    check("root ::= item\nitem ::= |\n  \"a\" item", &["", "aaa"], &["b"]);
    check("root ::= [-a] [a-]", &["--", "aa"], &["b-"]);
}

#[test]
fn texts_are_cut_into_lexemes_without_loss() {
    // A greedy lexer would take "ab" first, or all of the letters.
    check("root ::= \"a\" \"bc\" | \"ab\" \"d\"", &["abc", "abd"], &["ab"]);
    check("root ::= [a-z]* \"b\"", &["b", "ab", "bbb"], &["a", ""]);
    check("root ::= ws \"1\" ws\nws ::= [ ]*", &["1", " 1 ", "  1"], &[" "]);
}

#[test]
fn recursion() {
    let arithmetic = "root ::= (expr \"=\" ws num \"\\n\")+\nexpr ::= term ([-+*/] term)*\n\
        term ::= ident | num | \"(\" ws expr \")\" ws\nident ::= [a-z] [a-z0-9_]* ws\n\
        num ::= [0-9]+ ws\nws ::= [ \\t\\n]*\n";
    check(arithmetic, &["1+x_1= 2\n", "(a -(b*2)) = 7\n1=1\n"], &["1+=2\n", "(1=1\n", "1=1"]);
}

#[test]
fn errors_name_the_line() {
    let compiler = bytes();
    let refused = |grammar: &str| compiler.compile(&Constraint::gbnf(grammar)).unwrap_err().to_string();
    assert_eq!(refused("root ::= x"), "GBNF grammar: the rule x is not defined");
    assert_eq!(refused("a ::= \"x\""), "GBNF grammar: the rule root is not defined");
    assert_eq!(refused("root ::= \"x\"\nroot ::= \"y\""), "GBNF grammar: the rule root is defined twice");
    assert_eq!(refused("root ::= \"x\"\na ::= (\"y\"\n"), "GBNF grammar: line 2: ')' is expected");
    assert_eq!(
        refused("root ::= <nothing>"),
        "GBNF grammar: line 1: the vocabulary has no control token <nothing>"
    );
    for bad in [
        "root ::= [",
        "root ::= []",
        "root ::= \"x",
        "root ::= [z-a]",
        "root ::= \"a\"{2,1}",
        "root := \"a\"",
        "root ::= \"\\q\"",
        "root ::= root",
        "root ::= \"\"",
        "root ::= \"\\U00110000\"",
    ] {
        let error = compiler.compile(&Constraint::gbnf(bad)).unwrap_err();
        assert!(matches!(error, ConstraintError::Invalid { grammar: "GBNF grammar", .. }), "{bad}: {error}");
    }
    let error = compiler.compile(&Constraint::gbnf("root ::= \"a\"{5000}")).unwrap_err();
    assert!(matches!(error, ConstraintError::Limit { limit: "repetitions", .. }), "{error}");
}

#[test]
fn control_tokens() {
    use exsa_core::scripted::ByteTokenizer;
    let compiler = bytes();
    for grammar in ["root ::= \"a\" <|bos|> \"b\"", "root ::= \"a\" <[256]> \"b\""] {
        let mut state = compiler.compile(&Constraint::gbnf(grammar)).unwrap().state().unwrap();
        for token in [u32::from(b'a'), ByteTokenizer::BOS, u32::from(b'b')] {
            assert!(crate::is_allowed(&mut state, token), "{token}");
            state.accept(token).unwrap();
        }
        assert!(state.is_complete().unwrap());
    }
}

#[test]
fn all_tokens_but_one() {
    use exsa_core::scripted::ByteTokenizer;
    let compiler = bytes();
    let grammar = Constraint::gbnf("root ::= <|bos|> body+ <[120]>\nbody ::= !<[120]>");
    let mut state = compiler.compile(&grammar).unwrap().state().unwrap();
    assert!(!crate::is_allowed(&mut state, u32::from(b'a')));
    state.accept(ByteTokenizer::BOS).unwrap();
    for token in [u32::from(b'a'), u32::from(b'!'), ByteTokenizer::BOS, 0xc3] {
        assert!(crate::is_allowed(&mut state, token), "{token}");
        assert!(!crate::is_allowed(&mut state, ByteTokenizer::EOS), "before {token}");
        state.accept(token).unwrap();
        assert!(crate::is_allowed(&mut state, u32::from(b'x')), "behind {token}");
    }
    assert!(!state.is_complete().unwrap());
    state.accept(u32::from(b'x')).unwrap();
    assert!(state.is_complete().unwrap());
    state.rollback(5).unwrap();
    assert!(
        crate::is_allowed(&mut state, u32::from(b'b')) && !crate::is_allowed(&mut state, u32::from(b'x'))
    );
    let error = compiler.compile(&Constraint::gbnf("root ::= !\"x\"")).unwrap_err().to_string();
    assert_eq!(error, "GBNF grammar: line 1: a token is expected after '!'");
}
