//! Tools: Rust functions that the model calls with typed arguments. The first answer must call the tool; the
//! loop runs the function and returns its result to the model.

use clap::Parser;
use exsa_core::chat::{ChatOptions, ToolFallback};
use exsa_core::tools::{ToolChoice, ToolEvent, ToolLoop, ToolOptions, Toolbox};
use exsa_core::{Message, Request};
use exsa_examples::ModelArgs;
use schemars::JsonSchema;
use serde::Deserialize;

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// The question
    #[arg(long, default_value = "What is the weather in Bern?")]
    question: String,
    /// Seed of the answers
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Arguments of the tool. Doc comments become descriptions in the schema that the model sees.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct WeatherArgs {
    /// Name of the city.
    #[schemars(length(max = 20))]
    city: String,
    unit: Unit,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Unit {
    Celsius,
    Fahrenheit,
}

fn main() -> exsa_examples::Result {
    let args = Args::parse();
    let engine = args.model.start()?;
    let tools = Toolbox::new().function("get_weather", "Weather of a city", |weather: WeatherArgs| {
        let temperature = match weather.unit {
            Unit::Celsius => "12 °C",
            Unit::Fahrenheit => "54 °F",
        };
        if weather.city.is_empty() { Err("no city") } else { Ok(format!("sunny, {temperature}")) }
    });
    let request = Request::chat([Message::user(args.question)])
        // The built-in model's template does not support tools, and its context is too small for their text.
        .chat_options(ChatOptions::default().tools(tools.definitions()).tool_fallback(ToolFallback::Omit))
        .tools(ToolOptions::default().choice(ToolChoice::Named("get_weather".into())))
        .max_tokens(96)
        .seed(args.seed);
    let outcome = ToolLoop::new(&engine, &tools)
        .rounds_max(2)
        .on_event(|event| {
            if let ToolEvent::Called { call, result } = event {
                println!("{}({}) -> {result:?}", call.name, call.arguments);
            }
        })
        .run(request)?;
    println!("{}", outcome.answer.text.trim());
    Ok(())
}
