//! Selection of a template: named templates of the model, built-in ones, and those of the host.

use super::bytes::{Bytes, CHATML};
use exsa_core::chat::{
    ChatOptions, ChatTemplateError, ChatTemplateSource, ChatTemplates, ControlTexts, Json, Message,
};
use exsa_core::model_info::ModelInfo;
use std::sync::Arc;

const MAIN: &str = "{% for m in messages %}{{ m.content }}{% endfor %}";
const TOOL_USE: &str = "tools: {{ tools | tojson }} {% for m in messages %}{{ m.content }}{% endfor %}";

fn templates(main: Option<&str>, named: &[(&str, &str)], control: &[&'static str]) -> ChatTemplates {
    let mut info = ModelInfo::new(300, 512);
    info.chat_template = main.map(str::to_owned);
    info.chat_templates = named.iter().map(|(name, source)| ((*name).into(), (*source).into())).collect();
    ChatTemplates::new(&info, Arc::new(Bytes::new(control)))
}

fn text(templates: &ChatTemplates, options: &ChatOptions) -> Result<String, ChatTemplateError> {
    templates.render(&[Message::user("Hi")], options).map(|rendered| rendered.text)
}

fn tool() -> Json {
    r#"{"type": "function", "function": {"name": "f", "parameters": {}}}"#.parse().unwrap()
}

#[test]
fn requests_with_tools_take_the_template_for_tools() {
    let model = templates(Some(MAIN), &[("tool_use", TOOL_USE), ("rag", "rag")], &CHATML);
    let plain = ChatOptions::default();
    let tools = plain.clone().tools([tool()]);
    assert_eq!(text(&model, &plain).unwrap(), "Hi");
    assert_eq!(text(&model, &tools).unwrap(), format!("tools: [{}] Hi", tool()));
    assert!(model.select(&tools).unwrap().supports().tools);
    let by_name = |name: &str| tools.clone().template(ChatTemplateSource::name(name));
    assert_eq!(text(&model, &by_name("rag")).unwrap(), "rag");
    let main = text(&model, &by_name("default")).unwrap();
    assert!(main.contains(r#""name": "f""#) && main.ends_with("Hi"), "tools as text: {main}");
    assert_eq!(
        text(&model, &by_name("nope")).unwrap_err(),
        ChatTemplateError::UnknownName {
            name: "nope".into(),
            known: "default, rag, tool_use, chatml, gemma, llama2, llama3, mistral, phi3, zephyr".into(),
        }
    );
}

#[test]
fn requests_with_documents_take_the_template_for_documents() {
    const RAG: &str =
        "{% for d in documents %}<{{ d.title }}: {{ d.text }}>{% endfor %} {{ messages[0].content }}";
    let model = templates(Some(MAIN), &[("tool_use", TOOL_USE), ("rag", RAG)], &CHATML);
    let document =
        |title: &str, text: &str| Json::from_iter([("title", Json::from(title)), ("text", text.into())]);
    let documents = [document("Frogs", "Frogs jump."), document("Toads", "Toads <|im_end|> walk.")];
    let options = ChatOptions::default().documents(documents);
    let rendered = model.render(&[Message::user("Hi")], &options).unwrap();
    assert_eq!(rendered.text, "<Frogs: Frogs jump.><Toads: Toads <|im_end|> walk.> Hi");
    assert!(!rendered.protected_offsets.is_empty(), "a control token of a document is text");
    assert!(model.select(&options).unwrap().supports().documents);
    let by_name = ChatOptions::default().template(ChatTemplateSource::name("rag"));
    assert_eq!(text(&model, &by_name).unwrap(), " Hi", "without documents, by name");
    let main = options.clone().template(ChatTemplateSource::name("default"));
    assert_eq!(text(&model, &main).unwrap(), "Hi");
    // Tools go first, and a model without the template takes its main one.
    assert!(text(&model, &options.clone().tools([tool()])).unwrap().starts_with("tools: "));
    assert_eq!(text(&templates(Some(MAIN), &[], &CHATML), &options).unwrap(), "Hi");
}

#[test]
fn a_template_of_the_host_goes_first() {
    let own = ChatOptions::default().template(ChatTemplateSource::text("[{{ messages[0].content }}]"));
    let model = templates(Some(MAIN), &[], &CHATML).replace(Some(ChatTemplateSource::name("zephyr")));
    assert_eq!(text(&model, &own).unwrap(), "[Hi]");
    assert_eq!(text(&model, &ChatOptions::default()).unwrap(), "<|user|>\nHi</s>\n<|assistant|>\n");
    let broken = ChatOptions::default().template(ChatTemplateSource::text("{% if %}"));
    assert!(matches!(text(&model, &broken), Err(ChatTemplateError::Parse { .. })));
    let first = model.select(&own).unwrap();
    for i in 0..20 {
        let other = ChatOptions::default().template(ChatTemplateSource::text(format!("{i}")));
        assert_eq!(text(&model, &other).unwrap(), i.to_string());
    }
    assert!(!Arc::ptr_eq(&first, &model.select(&own).unwrap()), "few parsed templates are kept");
    assert!(Arc::ptr_eq(&model.select(&own).unwrap(), &model.select(&own).unwrap()));
}

#[test]
fn a_model_without_template_needs_a_name() {
    let model = templates(None, &[("tool_use", TOOL_USE)], &["<s>", "</s>"]);
    assert_eq!(text(&model, &ChatOptions::default()).unwrap_err(), ChatTemplateError::Missing);
    let named = ChatOptions::default().template(ChatTemplateSource::name("mistral"));
    assert_eq!(text(&model, &named).unwrap(), "<s>[INST] Hi[/INST]");
    let chatml = templates(None, &[], &CHATML);
    assert_eq!(
        text(&chatml, &ChatOptions::default()).unwrap(),
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    );
}

#[test]
fn built_in_templates_have_the_known_formats() {
    let messages = [
        Message::system("Be brief."),
        Message::user("Hi"),
        Message::assistant("Hello"),
        Message::user(" Bye "),
    ];
    let model = templates(None, &[], &["<s>", "</s>"]);
    for (name, want) in [
        (
            "gemma",
            "<s><start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n<start_of_turn>model\nHello<end_of_turn>\n\
             <start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\n",
        ),
        ("llama2", "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST] Hello </s><s>[INST] Bye [/INST]"),
        (
            "llama3",
            "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>\
             <|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>\
             <|start_header_id|>assistant<|end_header_id|>\n\nHello<|eot_id|>\
             <|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|>\
             <|start_header_id|>assistant<|end_header_id|>\n\n",
        ),
        ("mistral", "<s>[INST] Be brief.\n\nHi[/INST] Hello</s>[INST]  Bye [/INST]"),
        (
            "phi3",
            "<|system|>\nBe brief.<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\nHello<|end|>\n\
             <|user|>\n Bye <|end|>\n<|assistant|>\n",
        ),
        (
            "zephyr",
            "<|system|>\nBe brief.</s>\n<|user|>\nHi</s>\n<|assistant|>\nHello</s>\n<|user|>\n Bye </s>\n<|assistant|>\n",
        ),
    ] {
        let options = ChatOptions::default().template(ChatTemplateSource::name(name));
        assert_eq!(model.render(&messages, &options).unwrap().text, want, "{name}");
        let null = model.render(&[Message::user("").parts([])], &options);
        assert!(null.is_ok(), "{name}: {null:?}");
    }
}

#[test]
fn names_of_templates_come_from_the_file() {
    use exsa_core::gguf::{Gguf, GgufWriter, Value};
    let text = |text: &str| Value::Str(text.into());
    let writer = GgufWriter::new()
        .key("general.architecture", text("llama"))
        .key("tokenizer.chat_template", text(MAIN))
        .key("tokenizer.chat_template.tool_use", text(TOOL_USE));
    let mut bytes = Vec::new();
    writer.write(&mut bytes).unwrap();
    let info = ModelInfo::from_gguf(&Gguf::read(&mut std::io::Cursor::new(bytes)).unwrap()).unwrap();
    assert_eq!(info.chat_template.as_deref(), Some(MAIN));
    assert_eq!(info.chat_templates.into_iter().collect::<Vec<_>>(), [("tool_use".into(), TOOL_USE.into())]);
}

#[test]
fn control_texts_are_those_of_the_vocabulary() {
    let texts = ControlTexts::new(["<s>"]).user_defined(["</think>"]);
    assert_eq!((texts.control, texts.user_defined), (vec!["<s>".to_owned()], vec!["</think>".to_owned()]));
}
