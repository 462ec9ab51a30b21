//! Checks of answers.

use crate::{Failure, Outcome, complete, drawn, ensure, request};
use exsa_backend_remote::RemoteEngine;
use exsa_core::constraint::Constraint;
use exsa_core::{EmbedRequest, Event, FinishReason, Generator, Message, Request, RerankRequest, Resume};

pub(crate) fn greedy(engine: &RemoteEngine) -> Outcome {
    let answer = complete(engine, request(24))?;
    ensure(!answer.text.is_empty(), "no text")?;
    ensure(answer.usage.completion_tokens <= 24, "too many tokens")?;
    ensure(answer.usage.prompt_tokens > 0, "no count of the prompt")?;
    Ok(format!("{:?}, {:?}, {} tokens", answer.text, answer.reason, answer.usage.completion_tokens))
}

pub(crate) fn again(engine: &RemoteEngine) -> Outcome {
    let (first, second) = (complete(engine, request(24))?, complete(engine, request(24))?);
    ensure(first.text == second.text, format!("{:?} / {:?}", first.text, second.text))?;
    Ok(format!("{} prompt tokens cached", second.usage.cached_tokens))
}

pub(crate) fn seeds(engine: &RemoteEngine) -> Outcome {
    let (a, b, other) =
        (complete(engine, drawn(1))?, complete(engine, drawn(1))?, complete(engine, drawn(2))?);
    ensure(a.text == b.text, format!("the same seed gives {:?} / {:?}", a.text, b.text))?;
    ensure(a.text != other.text, "another seed gives the same text")?;
    Ok(format!("{:?} / {:?}", a.text, other.text))
}

pub(crate) fn stop_string(engine: &RemoteEngine) -> Outcome {
    let whole = complete(engine, request(24))?.text;
    let chars: Vec<char> = whole.chars().collect();
    let middle: String = chars.iter().skip(chars.len() / 2).take(3).collect();
    let answer = complete(engine, request(24).stop(&middle))?;
    ensure(answer.reason == FinishReason::StopString(0), format!("{:?}", answer.reason))?;
    ensure(whole.starts_with(&answer.text) && !answer.text.contains(&middle), &answer.text)?;
    Ok(format!("{middle:?} after {:?}", answer.text))
}

pub(crate) fn ids(engine: &RemoteEngine, request: Request) -> Result<Vec<Option<u32>>, Failure> {
    let mut ids = Vec::new();
    for event in engine.submit(request)? {
        match event {
            Event::Token(token) => ids.push(token.id),
            Event::Finished(finished) => _ = finished.reason.into_result()?,
            _ => {}
        }
    }
    Ok(ids)
}

pub(crate) fn stop_token(engine: &RemoteEngine) -> Outcome {
    let ids: Option<Vec<u32>> = ids(engine, request(24))?.into_iter().collect();
    let Some(stop) = ids.and_then(|ids| ids.get(10).copied()) else {
        return Ok("the engine tells no ids".into());
    };
    let answer = complete(engine, request(24).stop_token(stop))?;
    ensure(answer.reason == FinishReason::StopToken(stop), format!("{:?}", answer.reason))?;
    Ok(format!("{stop} after {} tokens", answer.usage.completion_tokens))
}

pub(crate) fn min_tokens(engine: &RemoteEngine) -> Outcome {
    let mut request = request(40);
    request.sampling.min_tokens = 20;
    let answer = complete(engine, request)?;
    ensure(answer.usage.completion_tokens >= 20, format!("{} tokens", answer.usage.completion_tokens))?;
    Ok(format!("{} tokens", answer.usage.completion_tokens))
}

pub(crate) fn logprobs(engine: &RemoteEngine) -> Outcome {
    let mut request = request(8);
    request.sampling = request.sampling.logprobs(true).top_logprobs(3);
    let mut found = Vec::new();
    for event in engine.submit(request)? {
        match event {
            Event::Token(token) if !token.text.is_empty() || token.id.is_some() => {
                let logprob = token.logprob.ok_or("a token without log-probability")?;
                let best = token.top_logprobs.first().ok_or("a token without alternatives")?;
                ensure(logprob <= 1e-3 && token.top_logprobs.len() <= 3, "out of range")?;
                ensure((best.logprob - logprob).abs() < 1e-3, "a greedy token is not the most probable")?;
                found.push(logprob);
            }
            Event::Finished(finished) => _ = finished.reason.into_result()?,
            _ => {}
        }
    }
    Ok(format!("{found:.2?}"))
}

pub(crate) fn schema(engine: &RemoteEngine) -> Outcome {
    let schema = r#"{"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": false}"#;
    let answer = complete(engine, request(64).constraint(Constraint::json_schema(schema)))?;
    if matches!(answer.reason, FinishReason::MaxTokens) {
        return Ok(format!("cut off: {:?}", answer.text));
    }
    let value: serde_json::Value = serde_json::from_str(&answer.text)?;
    ensure(value["n"].is_number(), &answer.text)?;
    Ok(answer.text)
}

pub(crate) fn chat(engine: &RemoteEngine) -> Outcome {
    let mut request = request(24);
    request.prompt = exsa_core::request::Prompt::Chat(vec![Message::user("Say hello.")]);
    let answer = complete(engine, request)?;
    Ok(format!("{:?}", answer.text))
}

pub(crate) fn several(engine: &RemoteEngine) -> Outcome {
    let alone = complete(engine, request(24))?.text;
    let streams = (0..6).map(|_| engine.submit(request(24))).collect::<Result<Vec<_>, _>>()?;
    let texts = streams.into_iter().map(|it| Ok(it.complete()?.text)).collect::<Result<Vec<_>, Failure>>()?;
    let same = texts.iter().filter(|text| **text == alone).count();
    Ok(format!("{same} of {} as alone", texts.len()))
}

/// A cut answer, continued. Greedy it is the uncut one; drawn it may be another.
pub(crate) fn continuation(engine: &RemoteEngine) -> Outcome {
    let mut found = Vec::new();
    for (name, request) in [("greedy", request(24)), ("seeded", drawn(3))] {
        let whole = complete(engine, request.clone())?.text;
        let all: Option<Vec<u32>> = ids(engine, request.clone())?.into_iter().collect();
        let Some(all) = all else { return Ok("the engine tells no ids".into()) };
        let cut = all.len() / 2;
        let rest: Vec<u32> =
            ids(engine, request.resume(Resume::new(&all[..cut])))?.into_iter().flatten().collect();
        let same = rest.iter().zip(&all[cut..]).take_while(|(a, b)| a == b).count();
        found.push(format!(
            "{name}: {same} of {} tokens as uncut ({} characters)",
            all.len() - cut,
            whole.len()
        ));
    }
    Ok(found.join("; "))
}

pub(crate) fn embeddings(engine: &RemoteEngine) -> Outcome {
    let output = engine.embed(EmbedRequest::texts(["a frog", "a toad"]))?.wait();
    match output {
        Ok(output) => Ok(format!("{} vectors", output.embeddings.len())),
        Err(error) => Ok(format!("the engine refuses: {error}")),
    }
}

pub(crate) fn rerank(engine: &RemoteEngine) -> Outcome {
    let output = engine.rerank(RerankRequest::new("frog", ["a frog", "a car"]))?.wait();
    match output {
        Ok(output) => Ok(format!("{:?}", output.ranking())),
        Err(error) => Ok(format!("the engine refuses: {error}")),
    }
}
