//! Rate-limit headers under OpenAI's names.

use super::account::Allowance;
use super::amounts::Kind;
use super::ledger::tightest;
use crate::access::Caller;
use crate::inference::books::own_limits;
use crate::state::AppState;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use std::sync::Arc;

/// Header names of a kind: limit, remaining amount, time until it is fully restored.
struct Names {
    limit: HeaderName,
    remaining: HeaderName,
    reset: HeaderName,
}

const REQUESTS: Names = Names {
    limit: HeaderName::from_static("x-ratelimit-limit-requests"),
    remaining: HeaderName::from_static("x-ratelimit-remaining-requests"),
    reset: HeaderName::from_static("x-ratelimit-reset-requests"),
};

const TOKENS: Names = Names {
    limit: HeaderName::from_static("x-ratelimit-limit-tokens"),
    remaining: HeaderName::from_static("x-ratelimit-remaining-tokens"),
    reset: HeaderName::from_static("x-ratelimit-reset-tokens"),
};

/// Adds the headers to every response of a limited caller.
pub(crate) async fn add_headers(
    State(state): State<Arc<AppState>>,
    request: Request,
    next: Next,
) -> Response {
    // Requests without a valid key have no caller; public routes also serve them.
    let caller = request.extensions().get::<Caller>().cloned();
    let mut response = next.run(request).await;
    let Some(caller) = caller else { return response };
    if let (Some(quotas), Ok(own)) = (&state.quotas, own_limits(&caller)) {
        let payers = quotas.payers(&caller.id, own.as_ref(), caller.group.as_ref());
        add(response.headers_mut(), &quotas.allowances(&payers));
    }
    response
}

/// Adds the headers of the limits with the least remaining share.
fn add(headers: &mut HeaderMap, allowances: &[Allowance]) {
    let kinds: [(&[Kind], Names); 2] =
        [(&[Kind::Requests], REQUESTS), (&[Kind::PromptTokens, Kind::OutputTokens], TOKENS)];
    for (kinds, names) in kinds {
        let Some(Allowance { limit, remaining, reset, .. }) = tightest(allowances, kinds) else { continue };
        headers.insert(names.limit, limit.into());
        headers.insert(names.remaining, remaining.into());
        if let Ok(text) = HeaderValue::from_str(&duration(reset)) {
            headers.insert(names.reset, text);
        }
    }
}

/// Formats nanoseconds like Go's durations, as OpenAI does: `250ms`, `1.5s`, `6m0s`, `2h0m0s`.
fn duration(nanos: u64) -> String {
    let millis = nanos.div_ceil(1_000_000);
    let (minutes, millis) = (millis / 60_000, millis % 60_000);
    let seconds = millis as f64 / 1000.0;
    match (minutes / 60, minutes % 60) {
        (0, 0) if millis < 1000 && millis > 0 => format!("{millis}ms"),
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_the_form_of_go() {
        for (millis, text) in [
            (0, "0s"),
            (1, "1ms"),
            (250, "250ms"),
            (1500, "1.5s"),
            (360_000, "6m0s"),
            (7_200_020, "2h0m0.02s"),
        ] {
            assert_eq!(duration(millis * 1_000_000), text);
        }
        assert_eq!(duration(1), "1ms");
    }
}
