//! Checks what a remote engine does of what its dialect promises, with real requests.
//!
//!   check_engine URL [--dialect NAME] [--model NAME] [--tokenizer FILE.gguf] [--positional-seeds] [--beside
//!   FILE.gguf]
//!       [--without CHECK]...
//!
//! `--beside` compares with the same model in this process; `--without` leaves a check out. Ends with an
//! error if a check fails. A refusal that the dialect states is no failure.

mod answers;
mod beside;
mod endings;

use exsa_backend_remote::{Dialect, RemoteEngine, RemoteOptions};
use exsa_core::backend::ModelSource;
use exsa_core::stream::Completion;
use exsa_core::{Generator, Request, SamplingParams};

type Failure = Box<dyn std::error::Error>;
/// Finding of a check, or the reason of its failure.
type Outcome = Result<String, Failure>;

const PROMPT: &str = "The story of the frog and the princess begins in a dark wood, where";

struct Args {
    url: String,
    options: RemoteOptions,
    beside: Option<String>,
    without: Vec<String>,
}

fn main() -> Result<(), Failure> {
    let args = args()?;
    let (engine, url) = (&RemoteEngine::connect(args.options)?, &args.url);
    let model = engine.model();
    println!("{:#?}", engine.capabilities());
    println!("model {}, context {}, vocabulary {}\n", model.name, model.n_ctx, model.n_vocab);
    let beside = || match &args.beside {
        Some(file) => beside::compare(engine, file),
        None => Ok("not asked for".to_owned()),
    };
    let checks: [(&str, &dyn Fn() -> Outcome); 17] = [
        ("greedy answer", &|| answers::greedy(engine)),
        ("same answer again", &|| answers::again(engine)),
        ("seeds", &|| answers::seeds(engine)),
        ("stop string", &|| answers::stop_string(engine)),
        ("stop token", &|| answers::stop_token(engine)),
        ("minimum of tokens", &|| answers::min_tokens(engine)),
        ("log-probabilities", &|| answers::logprobs(engine)),
        ("JSON schema", &|| answers::schema(engine)),
        ("conversation", &|| answers::chat(engine)),
        ("several at once", &|| answers::several(engine)),
        ("cancel", &|| endings::cancel(engine, url)),
        ("deadline", &|| endings::deadline(engine, url)),
        ("prompt beyond the context", &|| endings::too_long(engine)),
        ("continuation", &|| answers::continuation(engine)),
        ("beside this process", &beside),
        ("embeddings", &|| answers::embeddings(engine)),
        ("rerank", &|| answers::rerank(engine)),
    ];
    let mut failed = 0;
    for (name, check) in checks {
        if args.without.iter().any(|without| without == name) {
            continue;
        }
        match check() {
            Ok(found) => println!("ok       {name}: {found}"),
            Err(error) if error.is::<exsa_core::SubmitError>() => println!("refused  {name}: {error}"),
            Err(error) => {
                failed += 1;
                println!("FAILED   {name}: {error}");
            }
        }
    }
    if failed > 0 { Err(format!("{failed} checks failed").into()) } else { Ok(()) }
}

fn args() -> Result<Args, Failure> {
    let mut args = std::env::args().skip(1);
    let url = args.next().ok_or("the URL of an engine is needed")?;
    let (mut options, mut beside) = (RemoteOptions::new(&url).approximate(true), None);
    let mut without = Vec::new();
    while let Some(name) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{name} needs a value"));
        options = match name.as_str() {
            "--dialect" => options.dialect(dialect(&value()?)?),
            "--model" => options.model(Some(value()?)),
            "--tokenizer" => options.tokenizer(ModelSource::file(value()?)),
            "--positional-seeds" => options.positional_seeds(true),
            "--without" => {
                without.push(value()?);
                options
            }
            "--beside" => {
                beside = Some(value()?);
                options
            }
            _ => return Err(format!("no such option: {name}").into()),
        };
    }
    Ok(Args { url: url.trim_end_matches('/').to_owned(), options, beside, without })
}

fn dialect(name: &str) -> Result<Dialect, Failure> {
    Ok(match name {
        "auto" => Dialect::Auto,
        "vllm" => Dialect::Vllm,
        "trtllm" => Dialect::TensorRtLlm,
        "triton" => Dialect::Triton,
        "sglang" => Dialect::Sglang,
        "llama-server" => Dialect::LlamaServer,
        "openai" => Dialect::OpenAi,
        _ => return Err(format!("no such dialect: {name}").into()),
    })
}

fn request(max_tokens: usize) -> Request {
    Request::text(PROMPT).max_tokens(max_tokens).sampling(SamplingParams::greedy()).ignore_eos(false)
}

fn drawn(seed: u64) -> Request {
    request(24).sampling(SamplingParams::default().temperature(1.0).top_k(0).top_p(1.0).min_p(0.0).seed(seed))
}

fn complete(engine: &RemoteEngine, request: Request) -> Result<Completion, Failure> {
    Ok(engine.submit(request)?.complete()?)
}

fn ensure(holds: bool, problem: impl Into<String>) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(problem.into().into()) }
}
