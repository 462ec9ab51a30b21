//! Tools: features of templates, and the fallback for templates that do not support tools.

use super::bytes::parse;
use exsa_core::chat::{ArgumentsForm, ChatOptions, ChatTemplateError, Json, Message, ToolCall, ToolFallback};

const PLAIN: &str = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}";
const STRICT: &str = "{% for m in messages %}{% if m.role not in ['user', 'assistant'] %}\
    {{ raise_exception('no role ' + m.role) }}{% endif %}[{{ m.role }}]{{ m.content }}{% endfor %}";
const FULL: &str = "{{ tools | tojson if tools }}{{ documents[0].text if documents }}{% for m in messages %}[{{ m.role }}]\
    {{ m.reasoning_content }}{{ m.content or '' }}{% for c in m.tool_calls %}{{ c.function.name }}: \
    {{ c.function.arguments | tojson }};{% endfor %}{% endfor %}{{ '' if enable_thinking else '<think></think>' }}\
    {{ reasoning_effort }}";

fn tool() -> Json {
    r#"{"type": "function", "function": {"name": "f", "parameters": {}}}"#.parse().unwrap()
}

#[test]
fn features_are_found() {
    let full = parse(FULL).unwrap();
    let support = full.supports();
    assert!(
        support.text_content && support.system && support.tools && support.documents && support.reasoning
    );
    assert!(support.tool_calls && support.parallel_tool_calls && support.tool_results);
    assert!(!support.content_parts);
    assert_eq!(support.arguments, ArgumentsForm::Mapping);
    assert_eq!(support.thinking.map(|switch| switch.variable), Some("enable_thinking"));
    assert_eq!(support.reasoning_effort, Some("reasoning_effort"));
    assert_eq!(full.source(), FULL);

    let strict = parse(STRICT).unwrap();
    let support = strict.supports();
    assert!(!support.system && !support.tools && !support.tool_calls && !support.tool_results);
    assert!(!support.reasoning && !support.documents && support.text_content);
    assert_eq!((support.thinking, support.reasoning_effort), (None, None));

    let text = "{% for m in messages %}{{ m.content or '' }}{% for c in m.tool_calls %}{{ c.function.name }} \
        {{ c.function.arguments }}{% endfor %}{% endfor %}";
    let support = parse(text).unwrap().supports().clone();
    assert!(support.tool_calls && support.parallel_tool_calls);
    assert_eq!(support.arguments, ArgumentsForm::Text, "a mapping would be written as Python writes it");

    let parts = "{% for m in messages %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}";
    let support = parse(parts).unwrap().supports().clone();
    assert!(!support.text_content && support.content_parts);
    let rendered = parse(parts).unwrap().render(&[Message::user("a").part("b")], &ChatOptions::default());
    assert_eq!(rendered.unwrap().text, "ab");
}

#[test]
fn reasoning_is_switched_by_the_templates_own_variable() {
    let source = "{{ thinking_mode }}{{ enable_thinking }}{{ messages[0].content }}{{ thinking_effort }}";
    let text = |options: &ChatOptions| {
        let template = parse(source).unwrap();
        template.render(&[Message::user("|")], options).unwrap().text
    };
    let plain = ChatOptions::default();
    assert_eq!(text(&plain), "|");
    assert_eq!(text(&plain.clone().enable_thinking(true)), "True|", "the first switch that works");
    let source = "{{ thinking_mode }}{{ messages[0].content }}{{ thinking_effort }}";
    let text = |options: &ChatOptions| {
        let template = parse(source).unwrap();
        template.render(&[Message::user("|")], options).unwrap().text
    };
    assert_eq!(text(&plain.clone().enable_thinking(false).reasoning_effort("low")), "disabled|low");
    let own = plain.clone().enable_thinking(false).variable("thinking_mode", "adaptive");
    assert_eq!(text(&own), "adaptive|", "the host's own variable goes first");
}

#[test]
fn tools_without_a_place_become_text() {
    let options = ChatOptions::default().tools([tool()]);
    let text =
        |source: &str, messages: &[Message]| parse(source).unwrap().render(messages, &options).unwrap().text;
    let plain = text(PLAIN, &[Message::system("Be brief."), Message::user("Hi")]);
    assert!(plain.starts_with("[system]Be brief.\n\nYou can call tools."), "{plain}");
    assert!(plain.contains(&format!("<tools>\n{}\n</tools>", tool())) && plain.ends_with("[user]Hi"));
    assert!(text(PLAIN, &[Message::user("Hi")]).starts_with("[system]You can call tools."));
    let strict = text(STRICT, &[Message::user("Hi")]);
    assert!(
        strict.starts_with("[user]You can call tools.") && strict.ends_with("</tool_call>\n\nHi"),
        "{strict}"
    );
    // Calls and results, also without definitions.
    let calls = [
        Message::user("Hi"),
        Message::assistant("Wait.")
            .tool_call(ToolCall::new("f", r#"{"a":1}"#))
            .tool_call(ToolCall::new("g", "no JSON")),
        Message::tool("1", "one"),
        Message::tool("2", "two"),
        Message::assistant("Done."),
    ];
    let want = "[user]Hi[assistant]Wait.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n</tool_call>\n\
        <tool_call>\n{\"name\": \"g\", \"arguments\": \"no JSON\"}\n</tool_call>\
        [user]<tool_response>\none\n</tool_response>\n<tool_response>\ntwo\n</tool_response>[assistant]Done.";
    assert_eq!(parse(STRICT).unwrap().render(&calls, &ChatOptions::default()).unwrap().text, want);
    // A template that knows tools is given them as they are.
    assert!(text(FULL, &[Message::user("Hi")]).starts_with(r#"[{"type": "function""#));
}

#[test]
fn tools_without_a_place_are_refused_or_left_out_on_request() {
    let options = ChatOptions::default().tools([tool()]);
    let deep = (0..65).fold(Json::Null, |inner, _| Json::Array(vec![inner]));
    let deep = parse(PLAIN).unwrap().render(&[Message::user("Hi")], &ChatOptions::default().tools([deep]));
    assert_eq!(deep.unwrap_err(), ChatTemplateError::Depth { name: "tools".into() });
    let render = |fallback, messages: &[Message], options: &ChatOptions| {
        let options = options.clone().tool_fallback(fallback);
        parse(PLAIN).unwrap().render(messages, &options).map(|rendered| rendered.text)
    };
    let user = [Message::user("Hi")];
    let refused = render(ToolFallback::Refuse, &user, &options).unwrap_err();
    assert_eq!(refused, ChatTemplateError::Tools { lacking: "tool definitions" });
    assert_eq!(render(ToolFallback::Omit, &user, &options).unwrap(), "[user]Hi");
    let call = [Message::assistant("").tool_call(ToolCall::new("f", "{}"))];
    let refused = render(ToolFallback::Refuse, &call, &ChatOptions::default()).unwrap_err();
    assert_eq!(refused, ChatTemplateError::Tools { lacking: "tool calls" });
    let strict = parse(STRICT).unwrap();
    let refuse = ChatOptions::default().tool_fallback(ToolFallback::Refuse);
    assert_eq!(
        strict.render(&[Message::tool("1", "x")], &refuse).unwrap_err(),
        ChatTemplateError::Tools { lacking: "tool results" }
    );
}
