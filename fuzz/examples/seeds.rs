//! Writes the inputs that fuzzing starts from: `seeds TARGET FOLDER`.

use exsa_core::gguf::{Array, GgmlType, GgufWriter, Value};
use std::error::Error;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [target, folder] = arguments.as_slice() else { return Err("usage: seeds TARGET FOLDER".into()) };
    let seeds = match target.as_str() {
        "gguf" => gguf(),
        "tokenizer" => tokenizer(),
        "chat" => chat(),
        "tools" => tools()?,
        "adapter" => adapter(),
        "audit" => audit(),
        "folder" => folder(),
        "config" => config(),
        "remote" => remote(),
        "worker" => worker()?,
        "zmtp" => zmtp(),
        // Their inputs are choices; there is little to begin with.
        "requests" | "restore" => choices(),
        other => return Err(format!("no seeds for target '{other}'").into()),
    };
    std::fs::create_dir_all(folder)?;
    for (name, bytes) in seeds {
        std::fs::write(Path::new(folder).join(name), bytes)?;
    }
    Ok(())
}

/// An event of each dialect, behind the byte that chooses cuts.
fn remote() -> Vec<(String, Vec<u8>)> {
    let events = [
        r#"{"choices":[{"index":0,"text":"a","token_ids":[1],"logprobs":{"token_logprobs":[-1.5],"top_logprobs":[{"token_id:1":-1.5}]},"finish_reason":"length","stop_reason":7}],"usage":{"prompt_tokens":5,"prompt_tokens_details":{"cached_tokens":3}}}"#,
        r#"{"choices":[{"delta":{"content":"a","reasoning":"b","tool_calls":[{"index":0,"id":"c","function":{"name":"d","arguments":"{"}}]},"logprobs":{"content":[{"token":"a","token_id":1,"logprob":-1,"top_logprobs":[]}]}}]}"#,
        r#"{"text":"a","output_ids":[1,2],"meta_info":{"finish_reason":{"type":"stop","matched":2},"completion_tokens":2,"output_token_logprobs":[[-1,1,null]],"output_top_logprobs":[[[-1,1,"a"]]]}}"#,
        r#"{"content":"a","tokens":[1],"stop":false,"completion_probabilities":[{"id":1,"token":"a","logprob":-1,"top_logprobs":[]}]}"#,
        r#"{"content":"","stop":true,"stop_type":"limit","tokens_predicted":4,"timings":{"cache_n":2}}"#,
        r#"{"text_output":"a","num_output_tokens":3}"#,
    ];
    let events = events.iter().enumerate();
    events.map(|(i, event)| (format!("event-{i}"), format!("\u{7}: hi\r\n\r\ndata: {event}\n\ndata: [DONE]\n\n").into_bytes())).collect()
}

/// A configuration of PEFT, a safetensors file, and an adapter as GGUF, behind the byte that chooses among
/// them.
fn adapter() -> Vec<(String, Vec<u8>)> {
    let config = br#"{"peft_type": "LORA", "r": 8, "lora_alpha": 16, "use_rslora": true, "bias": "none",
        "rank_pattern": {"q_proj": 4}, "alpha_pattern": {"mlp.up_proj": 2.5}, "use_dora": false}"#;
    let header = br#"{"__metadata__":{"format":"pt"},"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight":
        {"dtype":"F16","shape":[2,4],"data_offsets":[0,16]}}"#;
    let safetensors = [&(header.len() as u64).to_le_bytes()[..], header, &[0; 16]].concat();
    let gguf = GgufWriter::new()
        .key("general.type", Value::Str("adapter".into()))
        .key("general.architecture", Value::Str("llama".into()))
        .key("adapter.type", Value::Str("lora".into()))
        .key("adapter.lora.alpha", Value::F32(2.0))
        .tensor_f32("blk.0.attn_q.weight.lora_a", &[8, 2], &[0.5; 16])
        .tensor_f32("blk.0.attn_q.weight.lora_b", &[2, 4], &[0.5; 8])
        .to_bytes();
    let seeds = [("config", 0u8, &config[..]), ("safetensors", 1, &safetensors[..]), ("gguf", 2, &gguf[..])];
    seeds.map(|(name, choice, bytes)| (name.to_owned(), [&[choice][..], bytes].concat())).to_vec()
}

/// A file of each kind.
fn folder() -> Vec<(String, Vec<u8>)> {
    let config = br#"{"model_type":"gemma3_text","hidden_size":8,"num_hidden_layers":2,"num_attention_heads":2,
        "num_key_value_heads":1,"head_dim":4,"intermediate_size":4,"vocab_size":3,"query_pre_attn_scalar":4,
        "sliding_window":4,"layer_types":["sliding_attention","full_attention"],
        "rope_parameters":{"rope_type":"llama3","factor":8,"low_freq_factor":1,"high_freq_factor":4,
        "original_max_position_embeddings":16}}"#;
    let tokenizer = r#"{"normalizer":{"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"▁"},
        {"type":"Replace","pattern":{"String":" "},"content":"▁"}]},"added_tokens":[{"id":0,"content":"<s>",
        "special":true}],"model":{"type":"BPE","byte_fallback":true,"vocab":{"<s>":0,"▁":1,"a":2,"▁a":3},
        "merges":[["▁","a"]]}}"#;
    let header = br#"{"model.norm.weight":{"dtype":"BF16","shape":[8],"data_offsets":[0,16]}}"#;
    let weights = [&(header.len() as u64).to_le_bytes()[..], header, &[0; 16]].concat();
    let index = br#"{"weight_map":{"model.norm.weight":"model.safetensors"}}"#;
    let seeds = [&config[..], tokenizer.as_bytes(), &weights, index];
    let name = |choice: usize| format!("file-{choice}");
    seeds.into_iter().enumerate().map(|(choice, bytes)| (name(choice), [&[choice as u8][..], bytes].concat())).collect()
}

/// The commented example, whole and by section.
fn config() -> Vec<(String, Vec<u8>)> {
    let example = include_str!("../../exsa-server/src/config/example.toml");
    let sections = example.split("\n\n").enumerate();
    let sections = sections.map(|(i, text)| (format!("section-{i}"), text.as_bytes().to_vec()));
    sections.chain([("example".to_owned(), example.as_bytes().to_vec())]).collect()
}

/// The sample outputs of the tests, behind the bytes that choose formats and cuts.
fn tools() -> Result<Vec<(String, Vec<u8>)>, Box<dyn Error>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../exsa-core/tests/data/tools");
    let mut seeds = Vec::new();
    for (format, entry) in std::fs::read_dir(folder)?.enumerate() {
        let file = std::fs::read_to_string(entry?.path())?;
        let outputs = file.split("--- output\n").skip(1).filter_map(|rest| rest.split("\n--- parts").next());
        for (i, output) in outputs.enumerate() {
            let bytes = [&[format as u8, i as u8, 7], output.as_bytes()].concat();
            seeds.push((format!("{format}-{i}"), bytes));
        }
    }
    Ok(seeds)
}

/// A stream's beginning in both directions, behind the byte that chooses one.
fn worker() -> Result<Vec<(String, Vec<u8>)>, Box<dyn Error>> {
    use exsa_core::stream::{Finished, Token};
    use exsa_core::{Event, FinishReason};
    use exsa_worker::frame::{Beat, Bounded, FromWorker, Hello, ToWorker, WireEvent, encode};
    let (mut to, mut from) = (vec![0], vec![1]);
    let request = r#"{"prompt":"x","max_tokens":3}"#.into();
    for message in [
        ToWorker::Hello(Hello::new()),
        ToWorker::Setup("{}".into()),
        ToWorker::Submit { id: 1, request },
        ToWorker::Pause { id: 1 },
        ToWorker::Cancel { id: 1 },
        ToWorker::Stop { abort: true },
    ] {
        encode(&message, &mut to)?;
    }
    let token = Token::new(65, "A").logprob(-0.5).top_logprobs([(66, -1.0)]).observed([0.25]);
    let events = [Event::Token(token), Event::Finished(Finished::new(FinishReason::StopString(0)))];
    let events = events.into_iter().map(WireEvent::new).collect::<Result<_, _>>()?;
    for message in [
        FromWorker::Hello(Hello::new()),
        FromWorker::Beat(Beat::default()),
        FromWorker::Events { id: 1, events: Bounded(events) },
        FromWorker::Position { id: 1, ahead: Some(2), wait_ms: None },
    ] {
        encode(&message, &mut from)?;
    }
    Ok(vec![("to".into(), to), ("from".into(), from)])
}

/// A subscriber and a reader of past messages, behind the byte that chooses the socket.
fn zmtp() -> Vec<(String, Vec<u8>)> {
    let conversation = |choice: u8, kind: &str, frames: &[(u8, &[u8])]| {
        let mut greeting = [0; 64];
        (greeting[0], greeting[9], greeting[10]) = (0xff, 0x7f, 3);
        greeting[12..16].copy_from_slice(b"NULL");
        let length = (kind.len() as u32).to_be_bytes();
        let ready = [b"\x05READY\x0bSocket-Type".as_slice(), &length, kind.as_bytes()].concat();
        let mut bytes = [&[choice][..], &greeting].concat();
        for (flags, body) in [(4, ready.as_slice())].iter().chain(frames) {
            bytes.extend([*flags, body.len() as u8]);
            bytes.extend_from_slice(body);
        }
        bytes
    };
    let ping: (u8, &[u8]) = (4, b"\x04PING\0\x0aabc");
    let subscriber = conversation(0, "SUB", &[(0, b"\x01kv@"), ping, (0, b"\0kv@")]);
    let reader = conversation(1, "DEALER", &[ping, (1, b""), (0, &[0, 0, 0, 0, 0, 0, 0, 7])]);
    vec![("subscriber".into(), subscriber), ("reader".into(), reader)]
}

/// A checkpoint and two files of one line.
fn audit() -> Vec<(String, Vec<u8>)> {
    let (zeros, time) = ("0".repeat(64), "2026-11-28T22:00:00.000Z");
    let checkpoint = format!(r#"{{"log":"seed","count":1,"hash":"{zeros}","time":"{time}"}}"#);
    let line = |seq, rest| format!(r#"{{"seq":{seq},"time":"{time}","prev":"{zeros}",{rest}}}"#) + "\n";
    let first = line(1, r#""act":"start""#.to_owned());
    let second = line(2, format!(r#""act":"checkpoint","checkpoint":{checkpoint}"#));
    let parts = [format!("{checkpoint}\n").into_bytes(), first.into_bytes(), second.into_bytes()];
    vec![("log".into(), parts.join(&255))]
}

/// Small sound files: every kind of value, every type of tensor, both versions.
fn gguf() -> Vec<(String, Vec<u8>)> {
    let text = |text: &str| Value::Str(text.into());
    let texts =
        |texts: &[&str]| Value::Array(Array::Str(texts.iter().map(|text| text.to_string()).collect()));
    let model = GgufWriter::new()
        .key("general.architecture", text("llama"))
        .key("general.name", text("seed"))
        .key("general.file_type", Value::U32(15))
        .key("llama.context_length", Value::U32(512))
        .key("llama.embedding_length", Value::U32(32))
        .key("llama.block_count", Value::U32(2))
        .key("llama.attention.head_count", Value::U32(4))
        .key("llama.attention.head_count_kv", Value::Array(Array::U32(vec![2, 1])))
        .key("llama.attention.key_length", Value::U32(8))
        .key("tokenizer.ggml.tokens", texts(&["<s>", "a", "b"]))
        .key("tokenizer.chat_template", text("{{ messages }}"))
        .tensor_f32("token_embd.weight", &[2, 3], &[0.5; 6]);
    let values = [
        Value::U8(1),
        Value::I8(-1),
        Value::U16(1),
        Value::I16(-1),
        Value::U32(1),
        Value::I32(-1),
        Value::F32(0.5),
        Value::Bool(true),
        text("text"),
        Value::U64(1),
        Value::I64(-1),
        Value::F64(0.5),
    ];
    let arrays = [
        Array::U8(vec![1, 2]),
        Array::I8(vec![-1]),
        Array::U16(vec![1]),
        Array::I16(vec![-1]),
        Array::U32(vec![1]),
        Array::I32(vec![-1]),
        Array::F32(vec![0.5]),
        Array::Bool(vec![true, false]),
        Array::Str(vec!["a".into(), String::new()]),
        Array::Array(vec![Array::Array(vec![Array::U8(vec![1])]), Array::Str(vec!["deep".into()])]),
        Array::U64(vec![1]),
        Array::I64(vec![-1]),
        Array::F64(vec![0.5]),
    ];
    let values = values.into_iter().chain(arrays.into_iter().map(Value::Array));
    let every_value =
        values.enumerate().fold(GgufWriter::new(), |writer, (i, value)| writer.key(&format!("k{i}"), value));
    let dtypes = (0..64).filter_map(GgmlType::from_id);
    let every_dtype = dtypes.fold(GgufWriter::new().alignment(8), |writer, dtype| {
        writer.tensor(dtype.name(), &[dtype.block_len()], dtype, vec![0; dtype.block_bytes() as usize])
    });
    let shapes = GgufWriter::new()
        .tensor_f32("one", &[1], &[1.0])
        .tensor_f32("two", &[1, 2], &[1.0; 2])
        .tensor_f32("three", &[1, 1, 3], &[1.0; 3])
        .tensor_f32("four", &[2, 1, 1, 2], &[1.0; 4]);
    let mut seeds = Vec::new();
    for (name, writer) in [
        ("empty", GgufWriter::new()),
        ("model", model),
        ("values", every_value),
        ("dtypes", every_dtype),
        ("shapes", shapes),
    ] {
        for version in [2, 3] {
            seeds.push((format!("{name}-v{version}"), writer.clone().version(version).to_bytes()));
        }
    }
    seeds
}

/// Texts for tokenizers of every kind, and bytes that make vocabularies.
fn tokenizer() -> Vec<(String, Vec<u8>)> {
    let texts = [
        "I've 12345 aaaa  ab\n\n  <s><x> a\u{3000}b!?",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab",
        "naïve ÀÉ 中文かな 가나 🦙\u{301}\u{200d} ½ \u{2581}a",
        "a<s>b<x>c <|im_start|> \t\r\n /",
    ];
    let mut seeds = Vec::new();
    for (i, text) in texts.iter().enumerate() {
        // The first byte tells a fixed tokenizer from any vocabulary, the next which.
        for first in 0..16u8 {
            let bytes = [&[first & 1, first, 0, 0], text.as_bytes()].concat();
            seeds.push((format!("text{i}-{first}"), bytes));
        }
    }
    seeds
}

/// Templates and parts of them, behind bytes that choose options and messages.
fn chat() -> Vec<(String, Vec<u8>)> {
    let sources = [
        "{% for m in messages %}<|bos|>{{ m.role }}\n{{ m.content | trim }}<|eos|>\n{% endfor %}",
        "{% if tools %}{{ tools | tojson(indent=2) }}{% endif %}{{ strftime_now('%d %B %Y') }}",
        "{%- macro f(x, y=1) -%}{{ x * y }}{%- endmacro -%}{{ f('ab', 3) }}{{ [1, 2][::-1] | join(',') }}",
        "{% set ns = namespace(n=0) %}{% for i in range(9) %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}",
        "{{ raise_exception('no') if messages | length > 3 else messages[0].content.split('<|')[-1].strip() }}",
        "{{ {'a': [1, 2.5, none, true]} | tojson }}{% for k, v in {'x': 1}.items() %}{{ k }}{{ v }}{% endfor %}",
        "{{ 'x' ~ loop.index if loop is defined }}{% generation %}{{ bos_token }}{% endgeneration %}",
        "{{ \"%s-%d\" | format('a', 3) }}{{ 'abc'[1:] | upper }}{{ messages | selectattr('role', 'equalto', 'user') | list }}",
    ];
    let mut seeds = Vec::new();
    for (i, source) in sources.iter().enumerate() {
        for first in 0..8u8 {
            let options = [first & 1, 1, 2, 3, 4, 20, first & 2, 2, 3, 1, 1, 0, first & 4];
            seeds.push((format!("source{i}-{first}"), [&options, source.as_bytes()].concat()));
        }
    }
    seeds
}

/// Bytes of many kinds.
fn choices() -> Vec<(String, Vec<u8>)> {
    let step = |step: u8| (0..400u32).map(|i| (i as u8).wrapping_mul(step)).collect();
    (0..24u8).map(|n| (format!("step{n}"), step(n.wrapping_mul(11)))).collect()
}
