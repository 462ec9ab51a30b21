//! Messages, options and JSON values in the shapes of OpenAI's API.
#![allow(clippy::unwrap_used, clippy::panic)]

use exsa_core::chat::{
    ChatOptions, ChatTemplateSource, ContentPart, Json, Media, MediaSource, Message, ToolCall,
};
use std::time::{Duration, UNIX_EPOCH};

fn message(text: &str) -> Message {
    serde_json::from_str(text).unwrap()
}

fn error(text: &str) -> String {
    serde_json::from_str::<Message>(text).unwrap_err().to_string()
}

/// The JSON text of a message, and that it reads back as the same message.
fn written(message: &Message) -> String {
    let text = serde_json::to_string(message).unwrap();
    assert_eq!(&self::message(&text), message, "{text}");
    text
}

#[test]
fn requests_of_the_api_are_read() {
    assert_eq!(message(r#"{"role": "user", "content": "Hi"}"#), Message::user("Hi"));
    assert_eq!(
        message(
            r#"{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}"#
        ),
        Message::user("a").part("b")
    );
    let call = ToolCall::new("get_weather", r#"{"city": "Bern"}"#).id("call_1");
    for content in [r#""content": null,"#, ""] {
        let text = format!(
            r#"{{"role": "assistant", {content} "tool_calls": [{{"id": "call_1", "type": "function",
            "function": {{"name": "get_weather", "arguments": "{{\"city\": \"Bern\"}}"}}}}]}}"#
        );
        assert_eq!(message(&text), Message::assistant("").parts([]).tool_call(call.clone()));
    }
    assert_eq!(
        message(r#"{"role": "tool", "tool_call_id": "call_1", "content": "12 degrees"}"#),
        Message::tool("call_1", "12 degrees")
    );
    for field in ["reasoning", "reasoning_content"] {
        let text =
            format!(r#"{{"role": "assistant", "content": "4", "{field}": "2 + 2", "tool_calls": null}}"#);
        assert_eq!(message(&text), Message::assistant("4").reasoning("2 + 2"));
    }
    assert_eq!(
        message(
            r#"{"role": "user", "name": "ann", "content": "Hi", "mood": {"good": [1, 2.5, true, null]}}"#
        ),
        Message::user("Hi")
            .name("ann")
            .with("mood", r#"{"good": [1, 2.5, true, null]}"#.parse::<Json>().unwrap())
    );
    // Arguments as an object, as some clients send them.
    let text = r#"{"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1}}}]}"#;
    assert_eq!(message(text), Message::assistant("").tool_call(ToolCall::new("f", r#"{"x": 1}"#)));
}

#[test]
fn pictures_and_sounds_are_read() {
    let text = r#"{"role": "user", "content": [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png", "detail": "low"}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw=="}},
        {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
        {"type": "audio_url", "audio_url": {"url": "file:///a.mp3"}}]}"#;
    let message = message(text);
    let parts = [
        ContentPart::from("What is this?"),
        ContentPart::Image(Media::uri("https://example.org/a.png")),
        ContentPart::Image(Media::bytes(*b"\x89PNG").mime_type("image/png")),
        ContentPart::Audio(Media::bytes(*b"RIFF").mime_type("audio/wav")),
        ContentPart::Audio(Media::uri("file:///a.mp3")),
    ];
    assert_eq!(message.content, parts);
    written(&message);
    let ContentPart::Image(Media { source: MediaSource::Bytes(bytes), .. }) = &message.content[2] else {
        panic!()
    };
    assert_eq!(&**bytes, b"\x89PNG");
}

#[test]
fn messages_read_back() {
    assert_eq!(written(&Message::user("Hi")), r#"{"role":"user","content":"Hi"}"#);
    assert_eq!(written(&Message::assistant("").parts([])), r#"{"role":"assistant","content":null}"#);
    let call = Message::assistant("").parts([]).tool_call(ToolCall::new("f", r#"{"x":1}"#).id("c"));
    assert_eq!(
        written(&call),
        r#"{"role":"assistant","content":null,"tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{\"x\":1}"}}]}"#
    );
    assert_eq!(
        written(&Message::user("a").part("b")),
        r#"{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}"#
    );
    for message in [
        Message::tool("c", "x\n\"ü").name("f"),
        Message::assistant("4").reasoning("2 + 2").with("mood", vec!["good", "bad"]),
        Message::user("").part(ContentPart::Audio(Media::bytes(vec![0; 5]))),
        Message::user("").part(ContentPart::Audio(Media::bytes(vec![1, 2]).mime_type("video/mp4"))),
        Message::user("").part(ContentPart::Image(Media::bytes(vec![7; 7]).mime_type("image/webp"))),
        Message::assistant("").tool_call(ToolCall::new("f", "not JSON")).tool_call(ToolCall::new("g", "")),
    ] {
        written(&message);
    }
}

#[test]
fn what_is_no_message_is_refused() {
    for (text, words) in [
        (r#"{"content": "Hi"}"#, "role"),
        (r#"{"role": "user", "content": 7}"#, "a list of parts"),
        (r#"{"role": "user", "content": [{"type": "video", "video": "x"}]}"#, "a list of parts"),
        (r#"{"role": "assistant", "tool_calls": [{"type": "custom", "function": {"name": "f"}}]}"#, "custom"),
        (r#"{"role": "assistant", "tool_calls": [{"id": "c"}]}"#, "function"),
    ] {
        let error = error(text);
        assert!(error.contains(words), "{error}");
    }
    for part in [
        r#"{"type": "input_audio", "input_audio": {"data": "not base 64", "format": "wav"}}"#,
        r#"{"type": "image_url", "image_url": {"url": "data:image/png;base64,?"}}"#,
    ] {
        let error = serde_json::from_str::<ContentPart>(part).unwrap_err().to_string();
        assert!(error.contains("base64"), "{error}");
    }
}

#[test]
fn options_read_back() {
    let text = r#"{"tools": [{"type": "function", "function": {"name": "f"}}], "chat_template_kwargs": {"enable_thinking": false}}"#;
    let options: ChatOptions = serde_json::from_str(text).unwrap();
    let tool: Json = r#"{"type": "function", "function": {"name": "f"}}"#.parse().unwrap();
    assert_eq!(options, ChatOptions::default().tools([tool]).variable("enable_thinking", false));
    let options = options
        .now(UNIX_EPOCH + Duration::from_millis(1500))
        .add_generation_prompt(false)
        .output_bytes_max(9);
    let text = serde_json::to_string(&options).unwrap();
    assert_eq!(serde_json::from_str::<ChatOptions>(&text).unwrap(), options);
    assert_eq!(serde_json::from_str::<ChatOptions>(r#"{"tools": null}"#).unwrap(), ChatOptions::default());
    let text = r#"{"continue_final_message": true, "documents": [{"text": "x"}], "template": {"text": "x"}}"#;
    let document: Json = r#"{"text": "x"}"#.parse().unwrap();
    let want = ChatOptions::default().continue_final_message(true).documents([document]);
    assert_eq!(serde_json::from_str::<ChatOptions>(text).unwrap(), want, "a template is the host's alone");
    for source in [ChatTemplateSource::name("chatml"), ChatTemplateSource::text("{{ x }}")] {
        let text = serde_json::to_string(&source).unwrap();
        assert_eq!(serde_json::from_str::<ChatTemplateSource>(&text).unwrap(), source, "{text}");
    }
}

#[test]
fn json_is_the_same_by_serde_and_by_itself() {
    let text =
        r#"{"z": [null, true, -7, 18446744073709551615, 1.5, 1e-7, "ü\n\"\u0001"], "a": {"b": {}}, "e": []}"#;
    let value: Json = text.parse().unwrap();
    assert_eq!(serde_json::from_str::<Json>(text).unwrap(), value);
    for written in [serde_json::to_string(&value).unwrap(), value.to_string()] {
        assert_eq!(written.parse::<Json>().unwrap(), value, "{written}");
        assert_eq!(serde_json::from_str::<Json>(&written).unwrap(), value, "{written}");
    }
    assert!(serde_json::from_str::<Json>(&"[".repeat(1000)).is_err());
}
