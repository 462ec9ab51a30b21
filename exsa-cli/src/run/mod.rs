//! `exsa run`: one answer, or a chat.

mod answer;
mod approval;
mod chat;
mod commands;
mod conversation;
mod reply;
mod tools;

use crate::args::RunArgs;
use crate::error::CliError;
use crate::interrupt::Interrupt;
use crate::model;
use crate::preset::Preset;
use crate::settings::Settings;
use answer::Printer;
use conversation::Conversation;
use exsa::{Engine, Message, Prompt};
use std::io::{IsTerminal, Read};
use std::path::Path;
use tools::Tools;

/// Runs the command.
pub(crate) fn run(args: RunArgs) -> Result<(), CliError> {
    let preset = match args.model.as_deref() {
        Some(name) if Preset::is_named(name) => Preset::read(Path::new(name))?,
        _ => Preset::default(),
    };
    let named = args.model.as_deref().filter(|name| !Preset::is_named(name)).map(str::to_owned);
    let name = named.or_else(|| preset.model()).unwrap_or_else(|| model::BUILTIN.to_owned());
    let settings = settings(&args, preset.settings()?)?;
    let system = args.system.clone().or_else(|| preset.system.clone());
    let prompt = prompt(&args)?;

    let interrupt = Interrupt::install()?;
    let mut tools = Tools::start(&args, &interrupt)?;
    let engine = model::load(&name, model::builder(&args.engine)?)?;
    if args.verbose {
        eprintln!("{}", engine.model().summary());
    }
    let mut conversation = Conversation::new(system, settings);
    match prompt {
        Some(prompt) => once(&args, &engine, &mut conversation, &mut tools, prompt, &interrupt),
        None => {
            if name == model::BUILTIN {
                eprintln!(
                    "The built-in model only tells children's stories. A better one: exsa pull \
                     hf:bartowski/SmolLM2-135M-Instruct-GGUF, then exsa run with the same name, or exsa run FILE.gguf."
                );
            }
            chat::chat(&engine, conversation, &mut tools, &interrupt, args.verbose)
        }
    }
}

/// Settings of the command line, which override those of a preset.
fn settings(args: &RunArgs, mut settings: Settings) -> Result<Settings, CliError> {
    args.settings.iter().try_for_each(|pair| settings.set_pair(pair))?;
    if let Some(tokens) = args.max_tokens {
        settings.set_json("max_tokens", tokens.get().into())?;
    }
    if let Some(temperature) = args.temperature {
        settings.set_json("temperature", temperature.into())?;
    }
    if let Some(seed) = args.seed {
        settings.set_json("seed", seed.into())?;
    }
    if let Some(schema) = &args.json_schema {
        let text = match schema.trim_start().starts_with('{') {
            true => schema.clone(),
            false => {
                std::fs::read_to_string(schema).map_err(|error| CliError::file(Path::new(schema), error))?
            }
        };
        let value: serde_json::Value = serde_json::from_str(&text)
            .map_err(|error| CliError::Usage(format!("--json-schema: {error}")))?;
        settings.set_json("json_schema", value)?;
    }
    Ok(settings)
}

/// Prompt of the command line followed by the piped input; `None` for a chat.
fn prompt(args: &RunArgs) -> Result<Option<String>, CliError> {
    let mut parts: Vec<String> = args.prompt.iter().cloned().collect();
    let mut stdin = std::io::stdin();
    if !stdin.is_terminal() {
        let mut text = String::new();
        stdin.read_to_string(&mut text)?;
        let text = text.trim_end_matches('\n');
        if !text.is_empty() {
            parts.push(text.to_owned());
        }
        if parts.is_empty() {
            return Err(CliError::Usage(
                "the piped input is empty; give a prompt, or run in a terminal to chat".into(),
            ));
        }
    }
    Ok((!parts.is_empty()).then(|| parts.join("\n\n")))
}

fn once(
    args: &RunArgs,
    engine: &Engine,
    conversation: &mut Conversation,
    tools: &mut Tools,
    prompt: String,
    interrupt: &Interrupt,
) -> Result<(), CliError> {
    let mut printer = if args.json { Printer::silent() } else { Printer::new() };
    let text = args.raw || engine.model().chat_template.is_none();
    if text && !tools.is_empty() {
        return Err(CliError::Usage("--mcp: the model has no chat template, which tools need".into()));
    }
    let (answer, stopped) = if text {
        let stream = engine.submit(conversation.settings.request(Prompt::Text(prompt))?)?;
        interrupt.watch(stream.cancel_handle());
        let answer = answer::print(stream, &mut printer)?;
        (answer, interrupt.take_stopped())
    } else {
        conversation.messages.push(Message::user(prompt));
        reply::reply(engine, conversation, tools, interrupt, &mut printer)?
    };
    if args.json {
        let mut json = answer.json();
        if !tools.is_empty() {
            json["tool_calls"] = tools.take_called().into();
        }
        println!("{json}");
    }
    if args.verbose {
        eprintln!("{}", answer.summary());
    }
    if stopped { Err(CliError::Interrupted) } else { Ok(()) }
}
