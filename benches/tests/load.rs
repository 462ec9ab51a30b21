//! The load generator as users start it, against engines in its process and a small server of the test's own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How the server of a test answers.
#[derive(Clone, Copy)]
enum Manner {
    /// As asked, the tokens 10 ms apart.
    Good,
    /// One token fewer.
    Short,
    /// HTTP 503.
    Busy,
    /// An error in the middle of the stream.
    ErrorEvent,
    /// Nothing after the first token.
    HangUp,
}

/// A server of completions that lives as long as the process; gives its address and the requests that it got.
fn server(manner: Manner) -> (String, Arc<Mutex<Vec<Value>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = seen.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let seen = seen.clone();
            std::thread::spawn(move || answer(stream.unwrap(), manner, &seen));
        }
    });
    (format!("http://{address}"), kept)
}

fn answer(stream: TcpStream, manner: Manner, seen: &Mutex<Vec<Value>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut length = 0;
    let mut line = String::new();
    loop {
        line.clear();
        reader.read_line(&mut line).unwrap();
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap();
    let generate = body["max_tokens"].as_u64().unwrap();
    let prompt = body["prompt"].as_array().map_or(1, Vec::len);
    seen.lock().unwrap().push(body);
    let mut stream = stream;
    if matches!(manner, Manner::Busy) {
        let _ = stream.write_all(
            b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 13\r\nconnection: close\r\n\r\ntoo many users",
        );
        return;
    }
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let mut send = |event: Value| stream.write_all(format!("data: {event}\n\n").as_bytes());
    let generate = if matches!(manner, Manner::Short) { generate - 1 } else { generate };
    for _ in 0..generate {
        std::thread::sleep(Duration::from_millis(10));
        if send(json!({"choices": [{"text": " a", "finish_reason": null}]})).is_err() {
            return;
        }
        match manner {
            Manner::HangUp => return,
            Manner::ErrorEvent => drop(send(json!({"error": {"message": "out of luck"}}))),
            _ => {}
        }
    }
    let usage = json!({"prompt_tokens": prompt, "completion_tokens": generate,
                       "prompt_tokens_details": {"cached_tokens": 2}});
    let _ = send(json!({"choices": [{"text": "", "finish_reason": "length"}]}));
    let _ = send(json!({"choices": [], "usage": usage}));
    let _ = stream.write_all(b"data: [DONE]\n\n");
}

fn load(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_load")).args(arguments).output().unwrap()
}

fn lines(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = std::str::from_utf8(&output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn an_engine_and_a_server_get_the_same_and_are_compared() {
    let (url, seen) = server(Manner::Good);
    let server = format!("slow={url}");
    let shape = ["--requests", "3", "--shared", "20", "--own", "5", "--generate", "4", "--rounds", "2"];
    let lines =
        lines(&load(&[&["--engine", "scripted", "--http", &server, "--warmup", "0"], &shape[..]].concat()));
    assert_eq!(lines.len(), 3);
    for line in &lines[..2] {
        assert_eq!((&line["requests"], &line["rounds"]), (&3.into(), &2.into()));
        assert_eq!((&line["prompt_tokens"], &line["generated_tokens"]), (&75.into(), &12.into()));
    }
    let slow = &lines[1];
    assert_eq!((&slow["target"], &slow["cached_tokens"]), (&"slow".into(), &6.into()));
    // The server's tokens are 10 ms apart, whatever the machine does besides.
    assert!(slow["itl_ms_p50"].as_f64().unwrap() >= 9.0, "{slow}");
    assert!(slow["answer_ms_p50"].as_f64().unwrap() >= 40.0, "{slow}");
    assert!(slow["ttft_ms_p50"].as_f64().unwrap() >= 10.0, "{slow}");
    let ratios = &lines[2];
    assert_eq!((&ratios["ratio_of"], &ratios["to"]), (&"exsa-scripted".into(), &"slow".into()));
    // The same tokens in the time: where it is shortest, most of them come in a second.
    let (time, generated) = (ratios["time"]["range"][0].as_f64(), ratios["generated"]["range"][1].as_f64());
    assert!((time.unwrap() * generated.unwrap() - 1.0).abs() < 1e-6, "{ratios}");

    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 6);
    assert!(seen.iter().all(|request| request["prompt"].as_array().unwrap().len() == 25));
    assert!(seen.iter().all(|request| request["ignore_eos"] == true && request["stream"] == true));
    let prefix = |request: &Value| request["prompt"].as_array().unwrap()[..20].to_vec();
    assert!(seen[..3].iter().all(|request| prefix(request) == prefix(&seen[0])), "one prefix in a round");
    assert_ne!(prefix(&seen[0]), prefix(&seen[3]), "another one in the next");
}

#[test]
fn users_are_told_apart() {
    let (url, seen) = server(Manner::Good);
    let lines = lines(&load(&[
        "--http",
        &format!("s={url}"),
        "--user",
        "heavy:requests=3:generate=8",
        "--user",
        "light:requests=1:generate=2",
        "--rounds",
        "1",
        "--text",
        "--warmup",
        "0",
    ]));
    assert_eq!(lines.len(), 1);
    let users = &lines[0]["users"];
    assert_eq!((&users["heavy"]["requests"], &users["light"]["requests"]), (&3.into(), &1.into()));
    assert!(users["light"]["seconds"].as_f64() < users["heavy"]["seconds"].as_f64());
    assert!((0.4..=1.0).contains(&lines[0]["fairness"].as_f64().unwrap()));
    let seen = seen.lock().unwrap();
    assert_eq!(seen.iter().filter(|request| request["user"] == "heavy").count(), 3);
    assert!(seen.iter().all(|request| request["prompt"].is_string()));
}

#[test]
fn random_arrivals_take_their_time() {
    let lines = lines(&load(&[
        "--engine",
        "scripted",
        "--requests",
        "20",
        "--own",
        "4",
        "--generate",
        "2",
        "--arrival",
        "every:0.01",
        "--rounds",
        "1",
    ]));
    assert!(lines[0]["seconds"].as_f64().unwrap() >= 0.19, "{}", lines[0]);
}

#[test]
fn what_a_server_does_wrong_is_said() {
    for (manner, words) in [
        (Manner::Short, "3 tokens instead of 4 (length)"),
        (Manner::Busy, "503"),
        (Manner::ErrorEvent, "out of luck"),
        (Manner::HangUp, "without usage"),
    ] {
        let (url, _) = server(manner);
        let output = load(&[
            "--http",
            &format!("s={url}"),
            "--requests",
            "2",
            "--own",
            "3",
            "--generate",
            "4",
            "--warmup",
            "0",
        ]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1));
        assert!(error.contains(words) && error.contains("s: ") && !error.contains("panicked"), "{error}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn mistakes_are_words_and_exit_code_1() {
    for (arguments, words) in [
        (&["--own", "3"][..], "--engine BACKEND or --http"),
        (&["--http", "example.org"], "NAME=http://"),
        (&["--http", "s=https://example.org"], "https is not spoken"),
        (&["--http", "s=http://127.0.0.1:1", "--own", "2"], "s: "),
        (&["--engine", "vllm"], "scripted, candle"),
        (&["--engine", "scripted", "--user", "bob:colour=red"], "colour"),
        (&["--engine", "scripted", "--arrival", "never"], "burst"),
        (&["--engine", "scripted", "--own", "2000"], "2000 tokens"),
        (&["--engine", "candle"], "--model FILE"),
        (&["--engine", "scripted", "--model", "nowhere.gguf"], "nowhere.gguf"),
    ] {
        let output = load(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {error}");
        assert!(error.contains(words) && !error.contains("panicked"), "{arguments:?}: {error}");
    }
}

#[test]
fn help_defines_the_figures() {
    let output = load(&["--help"]);
    assert!(output.status.success());
    let help = String::from_utf8(output.stdout).unwrap();
    for word in ["--shared", "ttft_ms", "fairness", "llama-server"] {
        assert!(help.contains(word), "{word}");
    }
}
