//! A remote engine over HTTP behind the same interface as a local one: vLLM, SGLang, llama-server, or any
//! server with OpenAI's API.
//!
//! Without a URL, a small server in this program serves the built-in model. The API key is read from
//! EXSA_REMOTE_KEY.

use clap::Parser;
use exsa_backend_remote::{RemoteEngine, RemoteOptions};
use exsa_core::backend::ModelSource;
use exsa_core::{Engine, Generator, Request};
use exsa_examples::{ModelArgs, Result};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Base URL of the engine: http://10.0.0.7:8000
    #[arg(long)]
    url: Option<String>,
    /// GGUF file of the same model, or of its vocabulary: token ids are then exchanged
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
}

fn main() -> Result {
    let args = Args::parse();
    let url = args.url.map_or_else(|| serve(args.model.start()?), Ok)?;
    let mut options = RemoteOptions::new(url);
    if let Ok(key) = std::env::var("EXSA_REMOTE_KEY") {
        options = options.api_key(key);
    }
    if let Some(file) = args.tokenizer {
        options = options.tokenizer(ModelSource::file(file));
    }
    let remote = RemoteEngine::connect(options)?;
    eprintln!("{} by {}\n", remote.capabilities().dialect.name(), remote.capabilities().route);
    let mut answer = remote.submit(Request::text("Once upon a time").max_tokens(64).seed(1))?;
    for piece in answer.text() {
        print!("{}", piece?);
        std::io::stdout().flush()?;
    }
    println!("\n{:?}", answer.usage());
    Ok(())
}

/// Serves completions of `engine` on a free port, with the small part of OpenAI's API that this needs.
fn serve(engine: Engine) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}", listener.local_addr()?);
    std::thread::spawn(move || listener.incoming().flatten().for_each(|stream| _ = answer(&engine, stream)));
    Ok(url)
}

fn answer(engine: &Engine, mut stream: TcpStream) -> Result {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut line, mut head) = (String::new(), String::new());
    while reader.read_line(&mut line)? > 2 {
        head.push_str(&line.to_ascii_lowercase());
        line.clear();
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body)?;
    write!(stream, "HTTP/1.1 200 OK\r\nconnection: close\r\n")?;
    if body.is_empty() {
        return Ok(write!(stream, "\r\n{}", json!({ "data": [{ "id": "built-in" }] }))?);
    }
    let body: Value = serde_json::from_slice(&body)?;
    write!(stream, "content-type: text/event-stream\r\n\r\n")?;
    let request = Request::text(body["prompt"].as_str().unwrap_or_default()).max_tokens(64);
    for piece in engine.submit(request)?.text() {
        write!(stream, "data: {}\n\n", json!({ "choices": [{ "text": piece? }] }))?;
    }
    let end = json!({ "choices": [{ "text": "", "finish_reason": "length" }] });
    Ok(write!(stream, "data: {end}\n\ndata: [DONE]\n\n")?)
}
