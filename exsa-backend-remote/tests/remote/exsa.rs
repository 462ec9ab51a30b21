//! Exsa's own server as the remote engine: answers equal those of the engine behind it.

use exsa_backend_candle::CandleBackend;
use exsa_backend_remote::{Dialect, RemoteEngine, RemoteOptions};
use exsa_core::backend::{InferenceBackend, LoadOptions, LoadProgress, ModelSource};
use exsa_core::stream::Completion;
use exsa_core::tokenizer::Tokenizer;
use exsa_core::{Engine, EngineOptions, FinishReason, Generator, Message, Request, Resume, SamplingParams};
use exsa_server::{ServerOptions, router};
use std::sync::Arc;

/// The built-in model behind a socket, and the engine itself.
struct Served {
    engine: Arc<Engine>,
    url: String,
    _runtime: tokio::runtime::Runtime,
}

fn serve() -> Served {
    let source = ModelSource::Embedded(exsa_tiny::GGUF);
    let model = CandleBackend::new().load(&source, &LoadOptions::new(), &mut LoadProgress::none()).unwrap();
    let engine = Arc::new(Engine::start(model, EngineOptions::default()).unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let app = router(engine.clone(), ServerOptions::default());
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    runtime.spawn(async move { axum::serve(listener, app).await });
    Served { engine, url, _runtime: runtime }
}

impl Served {
    fn connect(&self, dialect: Dialect, with_tokenizer: bool) -> RemoteEngine {
        let mut options = RemoteOptions::new(&self.url).dialect(dialect);
        if with_tokenizer {
            options = options.tokenizer(ModelSource::Embedded(exsa_tiny::GGUF));
        }
        RemoteEngine::connect(options).unwrap()
    }
}

fn complete(generator: &dyn Generator, request: &Request) -> Completion {
    generator.submit(request.clone()).unwrap().complete().unwrap()
}

/// Requests whose answers depend on every setting that the dialect of llama-server has.
fn requests() -> Vec<Request> {
    let drawn = |seed| Request::text("Once upon a time").max_tokens(40).seed(seed);
    let mut penalized = drawn(3);
    penalized.sampling = penalized.sampling.repetition_penalty(1.3).presence_penalty(0.4).penalty_window(32);
    let mut filtered = drawn(4);
    filtered.sampling = filtered.sampling.temperature(1.5).top_k(0).top_p(0.7).min_p(0.0).typical_p(0.9);
    let mut steered = drawn(5);
    steered.sampling = steered.sampling.mirostat(exsa_core::sampler::Mirostat::V2).mirostat_tau(3.0);
    let mut dry = drawn(6);
    dry.sampling = dry.sampling.dry_multiplier(0.8).dry_base(2.0).xtc_probability(0.5).xtc_threshold(0.05);
    vec![
        Request::text("Once upon a time").max_tokens(40).sampling(SamplingParams::greedy()),
        drawn(1),
        drawn(2).stop(" and").stop("ed "),
        penalized,
        filtered,
        steered,
        dry,
        Request::text("Once upon a time").max_tokens(400).sampling(SamplingParams::greedy()),
        Request::chat([Message::user("Tell me a story about a frog.")]).max_tokens(30).seed(7),
        Request::text("Über €uro 🙂 ").max_tokens(30).seed(8),
    ]
}

#[test]
fn answers_are_the_engines_own_with_every_setting() {
    let served = serve();
    for (dialect, with_tokenizer) in [
        (Dialect::Auto, true),
        (Dialect::Exsa, false),
        (Dialect::LlamaServer, true),
        (Dialect::LlamaServer, false),
    ] {
        let remote = served.connect(dialect, with_tokenizer);
        assert!(dialect != Dialect::Auto || remote.capabilities().dialect == Dialect::Exsa);
        for request in requests() {
            if !with_tokenizer && matches!(request.prompt, exsa_core::request::Prompt::Chat(_)) {
                continue;
            }
            let (ours, theirs) = (complete(&*served.engine, &request), complete(&remote, &request));
            assert_eq!(theirs.text, ours.text, "{dialect:?} {request:?}");
            assert_eq!(theirs.reason, ours.reason, "{dialect:?} {request:?}");
            let tokens = |it: &Completion| (it.usage.prompt_tokens, it.usage.completion_tokens);
            if !matches!(ours.reason, FinishReason::StopString(_))
                || with_tokenizer && dialect == Dialect::Auto
            {
                assert_eq!(tokens(&theirs), tokens(&ours), "{dialect:?} {request:?}");
            }
            if with_tokenizer && dialect == Dialect::Auto {
                let ids = |it: &Completion| it.tokens.iter().map(|token| token.id).collect::<Vec<_>>();
                assert_eq!(ids(&theirs), ids(&ours), "{request:?}");
            }
        }
    }
}

#[test]
fn a_continued_answer_is_the_uncut_one() {
    let served = serve();
    let remote = served.connect(Dialect::Exsa, true);
    for request in requests() {
        if request.sampling.mirostat != exsa_core::sampler::Mirostat::Off {
            continue; // Its state stays at the engine.
        }
        let ours = complete(&*served.engine, &request);
        let ids: Vec<_> = ours.tokens.iter().filter_map(|token| token.id).collect();
        let cut = ids.len() / 2;
        let before: String = ours.tokens[..cut].iter().map(|token| token.text.as_str()).collect();
        let rest = complete(&remote, &request.clone().resume(Resume::new(&ids[..cut])));
        assert_eq!(format!("{before}{}", rest.text), ours.text, "{request:?}");
        assert_eq!((rest.reason, rest.usage.completion_tokens), (ours.reason, ours.usage.completion_tokens));
    }
}

#[test]
fn the_generic_dialect_gives_the_engines_greedy_answers() {
    let served = serve();
    let remote = served.connect(Dialect::OpenAi, false);
    for request in [
        Request::text("Once upon a time").max_tokens(40).sampling(SamplingParams::greedy()),
        Request::text("Once upon a time").max_tokens(40).sampling(SamplingParams::greedy()).stop(" she"),
        Request::chat([Message::user("Tell me a story.")]).max_tokens(30).sampling(SamplingParams::greedy()),
    ] {
        let (ours, theirs) = (complete(&*served.engine, &request), complete(&remote, &request));
        assert_eq!((theirs.text, theirs.reason), (ours.text, ours.reason), "{request:?}");
    }
}

#[test]
fn the_tokenizer_here_counts_and_renders_as_the_engine() {
    let served = serve();
    let remote = served.connect(Dialect::LlamaServer, true);
    let request = Request::chat([Message::user("A question?")]);
    assert_eq!(remote.count_tokens(&request).unwrap(), served.engine.count_tokens(&request).unwrap());
    assert_eq!(remote.render(&request).unwrap().text, served.engine.render(&request).unwrap().text);
    let ids = |tokenizer: &dyn Tokenizer| {
        let mut ids = Vec::new();
        tokenizer.encode("Once upon", &Default::default(), &mut ids);
        ids
    };
    let remote_tokenizer = Generator::tokenizer(&remote, None).unwrap();
    assert_eq!(ids(&*remote_tokenizer), ids(&*served.engine.tokenizer()));
    assert_eq!(remote.models()[0].n_ctx, served.engine.model().n_ctx);
}
