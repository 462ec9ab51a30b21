//! Sums up rounds.

use crate::compare::Ratio;
use crate::load::answer::Answer;
use crate::load::options::LoadGenOptions;
use crate::percentile::{median, percentile, range};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// Figures of one round, or the medians of several; `figures.md` defines them.
#[derive(Clone, Debug, Default, Serialize)]
#[allow(missing_docs)]
pub struct Summary {
    pub requests: usize,
    pub seconds: f64,
    pub prompt_tokens: usize,
    pub cached_tokens: usize,
    pub generated_tokens: usize,
    pub generated_tokens_per_second: f64,
    pub total_tokens_per_second: f64,
    pub ttft_ms_p50: f64,
    pub ttft_ms_p95: f64,
    pub itl_ms_p50: f64,
    pub itl_ms_p95: f64,
    pub answer_ms_p50: f64,
    pub answer_ms_p95: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processor_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fairness: Option<f64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub users: BTreeMap<String, Summary>,
}

impl Summary {
    /// Of all answers of a round.
    pub fn new(answers: &[Answer]) -> Self {
        let mut users = BTreeMap::<&str, Vec<&Answer>>::new();
        for answer in answers {
            users.entry(&answer.user_name).or_default().push(answer);
        }
        let mut summary = Self::of(&answers.iter().collect::<Vec<_>>());
        if users.len() > 1 {
            summary.fairness = fairness(&users);
            summary.users =
                users.into_iter().map(|(name, answers)| (name.to_owned(), Self::of(&answers))).collect();
        }
        summary
    }

    fn of(answers: &[&Answer]) -> Self {
        let sum = |count: fn(&Answer) -> usize| answers.iter().map(|answer| count(answer)).sum::<usize>();
        let (prompt, generated) = (sum(|a| a.usage.prompt), sum(|a| a.usage.generated));
        let start = answers.iter().map(|answer| answer.arrived).min().unwrap_or_default();
        let end = answers.iter().map(|answer| answer.end()).max().unwrap_or_default();
        let seconds = end.saturating_sub(start).as_secs_f64().max(1e-9);
        let since = |time: Duration, answer: &Answer| ms(time.saturating_sub(answer.arrived));
        let first: Vec<_> = answers.iter().map(|answer| since(answer.first(), answer)).collect();
        let whole: Vec<_> = answers.iter().map(|answer| since(answer.end(), answer)).collect();
        let gaps = answers.iter().flat_map(|answer| answer.pieces.windows(2));
        let gaps: Vec<_> = gaps.map(|pair| ms(pair[1].saturating_sub(pair[0]))).collect();
        let at = |values: &[f64], percent| percentile(values, percent).unwrap_or_default();
        Self {
            requests: answers.len(),
            seconds,
            prompt_tokens: prompt,
            cached_tokens: sum(|a| a.usage.cached),
            generated_tokens: generated,
            generated_tokens_per_second: generated as f64 / seconds,
            total_tokens_per_second: (prompt + generated) as f64 / seconds,
            ttft_ms_p50: at(&first, 50.0),
            ttft_ms_p95: at(&first, 95.0),
            itl_ms_p50: at(&gaps, 50.0),
            itl_ms_p95: at(&gaps, 95.0),
            answer_ms_p50: at(&whole, 50.0),
            answer_ms_p95: at(&whole, 95.0),
            processor_seconds: None,
            fairness: None,
            users: BTreeMap::new(),
        }
    }

    /// Figure by figure the median; of counts those of the first round.
    fn medians(rounds: &[&Self]) -> Self {
        let Some(first) = rounds.first() else { return Self::default() };
        let middle = |figure: fn(&Self) -> f64| {
            median(&rounds.iter().map(|round| figure(round)).collect::<Vec<_>>()).unwrap_or_default()
        };
        let fairness: Vec<_> = rounds.iter().filter_map(|round| round.fairness).collect();
        let processor: Vec<_> = rounds.iter().filter_map(|round| round.processor_seconds).collect();
        let users = first.users.keys().map(|name| {
            let rounds: Vec<_> = rounds.iter().filter_map(|round| round.users.get(name)).collect();
            (name.clone(), Self::medians(&rounds))
        });
        Self {
            requests: first.requests,
            seconds: middle(|s| s.seconds),
            prompt_tokens: first.prompt_tokens,
            cached_tokens: first.cached_tokens,
            generated_tokens: first.generated_tokens,
            generated_tokens_per_second: middle(|s| s.generated_tokens_per_second),
            total_tokens_per_second: middle(|s| s.total_tokens_per_second),
            ttft_ms_p50: middle(|s| s.ttft_ms_p50),
            ttft_ms_p95: middle(|s| s.ttft_ms_p95),
            itl_ms_p50: middle(|s| s.itl_ms_p50),
            itl_ms_p95: middle(|s| s.itl_ms_p95),
            answer_ms_p50: middle(|s| s.answer_ms_p50),
            answer_ms_p95: middle(|s| s.answer_ms_p95),
            processor_seconds: median(&processor),
            fairness: median(&fairness),
            users: users.collect(),
        }
    }
}

/// Jain's index over the users' service while all of them wait for something; `None` where that is never so.
fn fairness(users: &BTreeMap<&str, Vec<&Answer>>) -> Option<f64> {
    let start = users.values().filter_map(|answers| answers.iter().map(|a| a.arrived).min()).max()?;
    let end = users.values().filter_map(|answers| answers.iter().map(|a| a.end()).max()).min()?;
    let service = |answers: &Vec<&Answer>| answers.iter().map(|a| a.service(start, end)).sum::<f64>();
    let services: Vec<f64> = users.values().map(service).collect();
    let (sum, squares) = services.iter().fold((0.0, 0.0), |(sum, squares), s| (sum + s, squares + s * s));
    (start < end && squares > 0.0).then(|| sum * sum / (services.len() as f64 * squares))
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// One JSON line: a target's medians, and under which conditions.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Name of the target.
    pub target: String,
    /// The model's file as it was given.
    pub model: Option<String>,
    /// Rounds.
    pub rounds: usize,
    /// Threads of engines in this process.
    pub threads: usize,
    /// Sequences that such engines run together.
    pub slots: usize,
    /// Whole times of the rounds, the least and the greatest.
    pub seconds_range: Option<[f64; 2]>,
    /// The medians.
    #[serde(flatten)]
    pub summary: Summary,
}

impl Report {
    /// Of all rounds of one target.
    pub fn new(target: &str, options: &LoadGenOptions, rounds: &[Summary]) -> Self {
        Self {
            target: target.into(),
            model: options.model.as_ref().map(|path| path.display().to_string()),
            rounds: rounds.len(),
            threads: options.threads().get(),
            slots: options.slots,
            seconds_range: range(&rounds.iter().map(|round| round.seconds).collect::<Vec<_>>()),
            summary: Summary::medians(&rounds.iter().collect::<Vec<_>>()),
        }
    }
}

/// One JSON line: the first target compared with another, round by round.
#[derive(Clone, Debug, Serialize)]
pub struct Ratios {
    /// Name of the first target.
    pub ratio_of: String,
    /// Name of the other.
    pub to: String,
    /// Of the whole times.
    pub time: Option<Ratio>,
    /// Of the tokens generated in a second.
    pub generated: Option<Ratio>,
    /// Of the 95th percentiles of the times to the first token.
    pub ttft_p95: Option<Ratio>,
    /// Of the 95th percentiles of the times between tokens.
    pub itl_p95: Option<Ratio>,
    /// Of the seconds of processor time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processor: Option<Ratio>,
}

impl Ratios {
    /// Of two targets' rounds.
    pub fn new(ours: (&str, &[Summary]), theirs: (&str, &[Summary])) -> Self {
        let ratio = |figure: fn(&Summary) -> f64| {
            let figures = |rounds: &[Summary]| rounds.iter().map(figure).collect::<Vec<_>>();
            Ratio::new(&figures(ours.1), &figures(theirs.1))
        };
        let is_known = |rounds: &[Summary]| rounds.iter().all(|round| round.processor_seconds.is_some());
        let known = is_known(ours.1) && is_known(theirs.1);
        Self {
            ratio_of: ours.0.into(),
            to: theirs.0.into(),
            time: ratio(|s| s.seconds),
            generated: ratio(|s| s.generated_tokens_per_second),
            ttft_p95: ratio(|s| s.ttft_ms_p95),
            itl_p95: ratio(|s| s.itl_ms_p95),
            processor: known.then(|| ratio(|s| s.processor_seconds.unwrap_or_default())).flatten(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::answer::Tokens;

    fn answer(user: &str, arrived: u64, pieces: &[u64]) -> Answer {
        Answer {
            user_name: user.into(),
            arrived: Duration::from_secs(arrived),
            pieces: pieces.iter().map(|s| Duration::from_secs(*s)).collect(),
            usage: Tokens { prompt: 10, cached: 0, generated: pieces.len() },
            ..Answer::default()
        }
    }

    #[test]
    fn times_count_from_each_requests_arrival() {
        let summary = Summary::new(&[answer("a", 0, &[2, 3, 4]), answer("a", 5, &[6, 8, 10])]);
        assert_eq!((summary.requests, summary.seconds), (2, 10.0));
        assert!((summary.generated_tokens_per_second - 0.6).abs() < 1e-9);
        assert!((summary.total_tokens_per_second - 2.6).abs() < 1e-9);
        assert_eq!((summary.ttft_ms_p50, summary.ttft_ms_p95), (1000.0, 2000.0));
        assert_eq!((summary.itl_ms_p50, summary.itl_ms_p95), (1000.0, 2000.0));
        assert_eq!((summary.answer_ms_p50, summary.fairness), (4000.0, None));
    }

    #[test]
    fn fairness_is_one_for_equals_and_one_in_n_where_one_gets_all() {
        let equal = Summary::new(&[answer("a", 0, &[2, 3]), answer("b", 0, &[2, 3])]);
        assert_eq!(equal.fairness, Some(1.0));
        assert_eq!((equal.users.len(), equal.users["a"].requests), (2, 1));
        // Until 8 s both wait; b's tokens all come after that.
        let starved = Summary::new(&[answer("a", 0, &[2, 8]), answer("b", 0, &[20, 21])]);
        assert_eq!(starved.fairness, Some(0.5));
    }

    #[test]
    fn medians_are_taken_figure_by_figure_for_users_too() {
        let round = |end| Summary::new(&[answer("a", 0, &[1, end]), answer("b", 0, &[end])]);
        let rounds = [round(4), round(2), round(9)];
        let medians = Summary::medians(&rounds.iter().collect::<Vec<_>>());
        assert_eq!((medians.seconds, medians.users["b"].ttft_ms_p50), (4.0, 4000.0));
        let ratios = Ratios::new(("a", &rounds), ("b", &rounds));
        assert_eq!(ratios.time.unwrap().median, 1.0);
    }
}
