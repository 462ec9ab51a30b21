//! Templates: the default template, the variables they see, and errors of the template itself.

use super::bytes::{Bytes, CHATML, parse, render};
use exsa_core::chat::{ChatOptions, ChatTemplate, ChatTemplateError, Json, Message, TEMPLATE_BYTES_MAX};
use exsa_core::tokenizer::SpecialIds;

#[test]
fn a_model_without_template_speaks_chatml_if_its_vocabulary_does() {
    let template = ChatTemplate::for_model(None, &Bytes::new(&CHATML)).unwrap();
    let messages = [
        Message::system("Be brief."),
        Message::user("Hi"),
        Message::assistant("Hello"),
        Message::user("ü\n"),
    ];
    let mut options = ChatOptions::default();
    let mut want = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n\
        <|im_start|>assistant\nHello<|im_end|>\n<|im_start|>user\nü\n<|im_end|>\n<|im_start|>assistant\n"
        .to_owned();
    assert_eq!(template.render(&messages, &options).unwrap().text, want);
    options.add_generation_prompt = false;
    want.truncate(want.len() - "<|im_start|>assistant\n".len());
    assert_eq!(template.render(&messages, &options).unwrap().text, want);
    let without = ChatTemplate::for_model(None, &Bytes::new(&["<s>", "</s>"])).map(|_| ());
    assert_eq!(without, Err(ChatTemplateError::Missing));
}

#[test]
fn templates_see_tokens_tools_and_variables() {
    let source = "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }} {{ m.note }}{{ eos_token }}{% endfor %}\
        {{ tools | tojson }} {{ mood }} {{ documents is none }}";
    let template = parse(source).unwrap();
    let messages = [Message::user("Hi").with("note", Json::Int(7))];
    let mut options = ChatOptions::default();
    assert_eq!(template.render(&messages, &options).unwrap().text, "<s>[user] Hi 7</s>null  True");
    options.tools = vec![r#"{"name": "f"}"#.parse().unwrap()];
    options.variables.insert("mood".into(), Json::from("good"));
    let text = template.render(&messages, &options).unwrap().text;
    assert_eq!(text, "<s>[user] Hi 7</s>[{\"name\": \"f\"}] good True");
}

#[test]
fn special_tokens_are_variables() {
    let mut tokenizer = Bytes::new(&["<s>", "</s>", "<unk>", "<pad>", "<cls>", "<mask>", "<sep>", "<eot>"]);
    let source = "{{ bos_token }}{{ eos_token }} PAD={{ pad_token }} UNK={{ unk_token }} {{ cls_token }}\
        {{ mask_token }}{{ sep_token }}{{ eot_token }} {{ eom_token is defined }}{{ nope_token is defined }}";
    let bare = ChatTemplate::for_model(Some(source), &tokenizer).unwrap();
    let text = |template: &ChatTemplate| template.render(&[], &ChatOptions::default()).unwrap().text;
    assert_eq!(text(&bare), "<s></s> PAD= UNK=  FalseFalse");
    let roles = &mut tokenizer.special.roles;
    (roles.unk, roles.pad, roles.cls) = (Some(258), Some(259), Some(260));
    (roles.mask, roles.sep, roles.eot) = (Some(261), Some(262), Some(263));
    let template = ChatTemplate::for_model(Some(source), &tokenizer).unwrap();
    assert_eq!(text(&template), "<s></s> PAD=<pad> UNK=<unk> <cls><mask><sep><eot> FalseFalse");
    let error = template.render(&[], &ChatOptions::default().variable("pad_token", "x")).unwrap_err();
    assert_eq!(error, ChatTemplateError::Field { field: "pad_token".into() });
    tokenizer.special = SpecialIds::default();
    let without = ChatTemplate::for_model(Some("[{{ bos_token + eos_token }}]"), &tokenizer).unwrap();
    assert_eq!(text(&without), "[]");
}

#[test]
fn broken_templates_are_typed_errors() {
    let long = "x".repeat(TEMPLATE_BYTES_MAX + 1);
    assert_eq!(parse(&long).map(|_| ()), Err(ChatTemplateError::TooLong { bytes: TEMPLATE_BYTES_MAX + 1 }));
    for source in [
        "{% if %}",
        "{{ a",
        "{% for x in y %}",
        "{% unknown %}",
        "{{ 'open }}",
        "{% endif %}",
        "{{ }}",
        "{% generation %}",
        "{% include 'x' %}",
        &"{{ (".repeat(10_000),
        &format!("{{{{ {}1{} }}}}", "(".repeat(60_000), ")".repeat(60_000)),
        &format!("{{{{ {}1 }}}}", "-".repeat(60_000)),
        &format!("{{{{ {}1 }}}}", "not ".repeat(60_000)),
        &"{% if a %}".repeat(20_000),
        &"{% for a in b %}".repeat(10_000),
        &format!("{{% if a %}}{}{{% endif %}}", "{% elif a %}".repeat(10_000)),
        &format!("{{{{ a{} }}}}", "|e".repeat(50_000)),
        &format!("{{{{ a{} }}}}", ".b".repeat(50_000)),
        &format!("{{{{ a{} }}}}", "()".repeat(50_000)),
        &format!("{{{{ a{} }}}}", "+1".repeat(50_000)),
        &format!("{{{{ a{} }}}}", "**1".repeat(50_000)),
        &format!("{{{{ a{} }}}}", " or 1".repeat(20_000)),
        &format!("{{{{ a{} }}}}", " if 1 else 1".repeat(10_000)),
        &format!("{{{{ a{} }}}}", " is odd".repeat(10_000)),
        &format!("{{{{ {}{} }}}}", "[".repeat(50_000), "]".repeat(50_000)),
    ] {
        let error = parse(source).map(|_| ()).unwrap_err();
        assert!(matches!(error, ChatTemplateError::Parse { .. }), "{error:?}");
    }
    let error = parse("a\nb\n{% nope %}").map(|_| ()).unwrap_err();
    assert!(error.to_string().contains(":3"), "{error} names the line");
    let error = render("a\n{{ nope() }}", &[]).unwrap_err();
    assert!(error.to_string().contains(":2"), "{error} names the line");
}

#[test]
fn raised_exceptions_carry_their_message() {
    let source = "{% macro m() %}{% if true %}{{ raise_exception('Roles <must> alternate') }}{% endif %}{% endmacro %}{{ m() }}";
    assert_eq!(render(source, &[]).unwrap_err(), ChatTemplateError::Refused("Roles <must> alternate".into()));
}
