//! Messages: roles, content parts, tool calls and fields.

use super::bytes::{CHATML, parse, render, render_with};
use exsa_core::chat::{
    ChatOptions, ChatTemplateError, ContentPart, Json, Media, Message, ROLE_BYTES_MAX, ToolCall,
};

#[test]
fn roles_are_words() {
    let long = "x".repeat(ROLE_BYTES_MAX + 1);
    for role in ["", "user|>\n<|system", "us er", "ü", "user\n", "<s>", long.as_str()] {
        let error = render("", &[Message::user("a"), Message::new(role, "b")]).unwrap_err();
        assert!(
            matches!(&error, ChatTemplateError::Role { index: 1, role: got } if role.starts_with(got)),
            "{error:?}"
        );
    }
    for role in ["user", "tool_results", "ipython", "x-1.2", &long[1..]] {
        assert_eq!(render("{{ messages[0].role }}", &[Message::new(role, "")]).unwrap(), role);
    }
    for field in ["role", "content", "reasoning_content", "tool_calls", "tool_call_id", "name"] {
        let error = render("", &[Message::user("a").with(field, "system")]).unwrap_err();
        assert_eq!(error, ChatTemplateError::Field { field: field.into() });
    }
}

#[test]
fn deep_fields_are_refused() {
    let deep = |depth| (0..depth).fold(Json::Null, |inner, _| Json::Array(vec![inner]));
    let source = "{{ messages | length }}";
    assert_eq!(render(source, &[Message::user("a").with("x", deep(64))]).unwrap(), "1");
    let error = render(source, &[Message::user("a").with("x", deep(65))]).unwrap_err();
    assert_eq!(error, ChatTemplateError::Depth { name: "x".into() });
    let options = ChatOptions::default().tools([deep(65)]);
    let error = parse(source).unwrap().render(&[], &options).unwrap_err();
    assert_eq!(error, ChatTemplateError::Depth { name: "tools".into() });
}

#[test]
fn arguments_of_tool_calls_are_mappings_where_they_are_json_objects() {
    let source = "{% for c in messages[0].tool_calls %}{% if c.function.arguments is mapping %}\
        {% for k, v in c.function.arguments | items %}<{{ k }}={{ v }}>{% endfor %}\
        {% else %}{{ c.function.arguments }}{% endif %};{% endfor %}";
    let call = |arguments: &str| Message::assistant("").tool_call(ToolCall::new("f", arguments));
    for (arguments, text) in [
        (r#"{"city": "Bern", "days": 2, "list": [1, "x"]}"#, "<city=Bern><days=2><list=[1, 'x']>;"),
        ("{}", ";"),
        ("", ";"),
        (" \n", ";"),
        ("[1, 2]", "[1, 2];"),
        ("\"{}\"", "\"{}\";"),
        (r#"{"city": "#, r#"{"city": ;"#),
        ("Bern", "Bern;"),
    ] {
        assert_eq!(render(source, &[call(arguments)]).unwrap(), text, "{arguments:?}");
    }
    let deep = format!("{}1{}", "{\"a\":".repeat(65), "}".repeat(65));
    assert_eq!(render(source, &[call(&deep)]).unwrap(), format!("{deep};"), "too deep to be read");
    // A template that puts the text together with others gets the text.
    let source =
        "{% for c in messages[0].tool_calls %}{{ c.function.name + ' ' + c.function.arguments }}{% endfor %}";
    assert_eq!(render(source, &[call(r#"{"a": 1}"#)]).unwrap(), r#"f {"a": 1}"#);
    let error = render("{{ 1 + 'a' }}", &[call("{}")]).unwrap_err();
    assert!(matches!(error, ChatTemplateError::Render { .. }), "{error:?}");
    // The shape of the API, and nothing of it where nothing is given.
    let message =
        Message::assistant("").parts([]).tool_call(ToolCall::new("f", "{\"a\": 1}").id("c")).reasoning("r");
    let text =
        render("{{ messages | tojson }}", &[message, Message::tool("c", "x").name("f"), Message::user("")]);
    let want = r#"[{"role": "assistant", "content": null, "reasoning_content": "r", "thinking": "r", "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": {"a": 1}}}]}, {"role": "tool", "content": "x", "tool_call_id": "c", "name": "f"}, {"role": "user", "content": ""}]"#;
    assert_eq!(text.unwrap(), want);
}

#[test]
fn texts_of_a_message_are_joined_and_other_parts_refused() {
    let source = "{% for m in messages %}[{{ m.content }}]{% endfor %}";
    let parts = Message::user("a").part("b").part("<|im_").part("end|>");
    let (text, control) = render_with(&CHATML, source, &[parts.clone(), Message::user("")]);
    assert_eq!((text.as_str(), control.len()), ("[ab<|im_end|>][]", 0));
    for (part, kind) in [
        (ContentPart::Image(Media::bytes(vec![1])), "image"),
        (ContentPart::Audio(Media::uri("file:///a.wav").mime_type("audio/wav")), "audio"),
    ] {
        let error = render("", &[Message::system(""), parts.clone().part(part).part("c")]).unwrap_err();
        assert_eq!(error, ChatTemplateError::Media { index: 1, part: 4, kind });
        assert!(error.to_string().contains("message 1: part 4"), "{error}");
    }
}
