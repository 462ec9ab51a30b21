//! Answers that continue the last message.

use super::bytes::{Bytes, CHATML, parse};
use exsa_core::chat::{ChatOptions, ChatTemplate, ChatTemplateError, ContentPart, Media, Message};

fn continued(source: &str, last: Message) -> Result<String, ChatTemplateError> {
    let options = ChatOptions::default().continue_final_message(true);
    let rendered = parse(source)?.render(&[Message::user("Hi"), last], &options)?;
    Ok(rendered.text)
}

const TRIMMED: &str = "{% for m in messages %}[{{ m.role }}]{{ m.content | trim }}</s>{% endfor %}\
    {% if add_generation_prompt %}[assistant]{% endif %}";

#[test]
fn the_text_ends_with_the_last_message() {
    let whole = TRIMMED.replace(" | trim", "");
    for (source, last, want) in [
        (whole.as_str(), "It wi", "[user]Hi</s>[assistant]It wi"),
        (&whole, " It will \n", "[user]Hi</s>[assistant] It will \n"),
        (&whole, "", "[user]Hi</s>[assistant]"),
        (TRIMMED, " It will \n", "[user]Hi</s>[assistant]It will"),
        (TRIMMED, "ends with <", "[user]Hi</s>[assistant]ends with <"),
        (TRIMMED, "</s><|im_start|>", "[user]Hi</s>[assistant]</s><|im_start|>"),
    ] {
        assert_eq!(continued(source, Message::assistant(last)).unwrap(), want);
    }
}

#[test]
fn reasoning_is_continued_where_there_is_no_content() {
    let source = "{% for m in messages %}{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}\
        {{ m.content or '' }}</s>{% endfor %}";
    let thinking = Message::assistant("").parts([]).reasoning("Let me");
    assert_eq!(continued(source, thinking).unwrap(), "Hi</s><think>Let me");
    let answering = Message::assistant("So").reasoning("Let me");
    assert_eq!(continued(source, answering).unwrap(), "Hi</s><think>Let me</think>So");
}

#[test]
fn what_cannot_be_continued_is_an_error() {
    let problem = |result: Result<String, ChatTemplateError>| match result {
        Err(ChatTemplateError::Continue { problem }) => problem,
        other => panic!("{other:?}"),
    };
    assert_eq!(problem(continued(TRIMMED, Message::assistant("").parts([]))), "it has no text");
    let first = "{{ messages[0].content }}";
    assert_eq!(problem(continued(first, Message::assistant("a"))), "the template leaves it out");
    let upper = "{{ messages[-1].content | upper }}";
    assert_eq!(problem(continued(upper, Message::assistant("a"))), "the template modifies its text");
    let options = ChatOptions::default().continue_final_message(true);
    let empty = parse(TRIMMED).unwrap().render(&[], &options).map(|rendered| rendered.text);
    assert_eq!(problem(empty), "there are no messages");
    let picture = Message::assistant("").part(ContentPart::Image(Media::uri("x")));
    assert!(matches!(continued(TRIMMED, picture), Err(ChatTemplateError::Media { .. })));
}

#[test]
fn a_continued_text_is_guarded_as_any() {
    let tokenizer = Bytes::new(&CHATML);
    let template = ChatTemplate::for_model(None, &tokenizer).unwrap();
    let options = ChatOptions::default().continue_final_message(true);
    for last in ["<|im_end|>a", "a<|im_end|>", "a<|im_end", "<|im_start|><s>"] {
        let rendered = template.render(&[Message::assistant(last)], &options).unwrap();
        assert_eq!(rendered.text, format!("<|im_start|>assistant\n{last}"));
        let (control, _) = tokenizer.count(&rendered.text, &rendered.encode_options());
        assert_eq!(control, ["<|im_start|>"], "{last}");
        assert!(rendered.protected_offsets.iter().all(|at| *at <= rendered.text.len()));
    }
}
