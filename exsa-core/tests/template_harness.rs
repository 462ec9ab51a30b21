//! Renders the conversations of `tools/check_templates.py`, which compares the texts with Jinja2's.
//!
//! `scripts/check-templates` runs it with `EXSA_TEMPLATE_CASES` and `EXSA_TEMPLATE_RESULTS`; without them
//! there is nothing to do.
#![cfg(all(feature = "chat-template", feature = "serde"))]
#![allow(clippy::unwrap_used, clippy::panic)]

use exsa_core::chat::{ArgumentsForm, ChatOptions, ChatTemplate, ControlTexts, Json, Message, ToolFallback};
use std::time::{Duration, UNIX_EPOCH};

/// A member of an object, which has to be there.
fn member<'a>(value: &'a Json, name: &str) -> &'a Json {
    value.get(name).unwrap_or_else(|| panic!("no {name}"))
}

fn list<'a>(value: &'a Json, name: &str) -> &'a [Json] {
    member(value, name).as_array().unwrap()
}

fn text<'a>(value: &'a Json, name: &str) -> &'a str {
    member(value, name).as_str().unwrap()
}

fn fields(value: &Json) -> &[(String, Json)] {
    let Json::Object(fields) = value else { panic!("not an object: {value}") };
    fields
}

/// Options that have a field; others are variables.
fn options(value: &Json) -> ChatOptions {
    // 9 March 2025, 08:05:07
    let mut options = ChatOptions::default()
        .now(UNIX_EPOCH + Duration::from_secs(1_741_507_507))
        .tool_fallback(ToolFallback::Omit);
    for (name, value) in fields(value) {
        match name.as_str() {
            "tools" => options.tools = value.as_array().unwrap().to_vec(),
            "documents" => options.documents = value.as_array().unwrap().to_vec(),
            "add_generation_prompt" => options.add_generation_prompt = *value == Json::Bool(true),
            "continue_final_message" => options.continue_final_message = *value == Json::Bool(true),
            _ => options = options.variable(name, value.clone()),
        }
    }
    options
}

#[test]
fn conversations_are_rendered() {
    let (Some(cases), Some(results)) =
        (std::env::var_os("EXSA_TEMPLATE_CASES"), std::env::var_os("EXSA_TEMPLATE_RESULTS"))
    else {
        eprintln!("skipped: scripts/check-templates gives the conversations");
        return;
    };
    let cases: Json = std::fs::read_to_string(cases).unwrap().parse().unwrap();
    let conversations: Vec<(&str, Vec<Message>, ChatOptions)> = list(&cases, "conversations")
        .iter()
        .map(|case| {
            let messages = list(case, "messages").iter().map(Json::to_string);
            let messages = messages.map(|message| serde_json::from_str(&message).unwrap()).collect();
            (text(case, "name"), messages, options(member(case, "options")))
        })
        .collect();
    let mut out = Vec::new();
    for template in list(&cases, "templates") {
        let control = list(template, "control").iter().map(|text| text.as_str().unwrap());
        let variables = fields(member(&cases, "variables")).iter();
        let texts = variables.fold(ControlTexts::new(control), |texts, (name, value)| {
            texts.variable(name, value.as_str().unwrap())
        });
        let name = text(template, "name");
        let parsed = ChatTemplate::parse(text(template, "source"), texts);
        let parsed = parsed.unwrap_or_else(|error| panic!("{name}: {error}"));
        let results: Json = conversations
            .iter()
            .map(|(name, messages, options)| {
                let (text, error) = match parsed.render(messages, options) {
                    Ok(rendered) => (Json::from(rendered.text), Json::Null),
                    Err(error) => (Json::Null, Json::from(error.to_string())),
                };
                (*name, [("text", text), ("error", error)].into_iter().collect::<Json>())
            })
            .collect();
        let support = parsed.supports();
        let support = [
            ("text", support.text_content),
            ("parts", support.content_parts),
            ("mapping", support.arguments == ArgumentsForm::Mapping),
        ];
        let support: Json = support.into_iter().collect();
        out.push((name, [("support", support), ("results", results)].into_iter().collect::<Json>()));
    }
    std::fs::write(results, out.into_iter().collect::<Json>().to_string()).unwrap();
}
