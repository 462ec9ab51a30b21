//! A host's transforms: their place in the chain, `accept`, `rollback` and `replay`.

use super::*;
use std::sync::{Arc, Mutex};

/// Forbids every accepted token for the next three positions; its state is needed, since it does not look at
/// the history.
#[derive(Debug, Default)]
struct Cooldown {
    accepted: Vec<TokenId>,
}

impl Transform for Cooldown {
    fn apply(&mut self, candidates: &mut Candidates<'_>, _step: &mut Step<'_>) {
        for &token in self.accepted.iter().rev().take(3) {
            candidates.change(token, |_| f32::NEG_INFINITY);
        }
    }

    fn accept(&mut self, accepted: &Accepted) {
        self.accepted.push(accepted.token);
    }

    fn rollback(&mut self, n: usize) {
        self.accepted.truncate(self.accepted.len() - n);
    }
}

#[derive(Debug)]
struct Cooldowns;

impl TransformFactory for Cooldowns {
    fn build(&self, _context: &SamplerContext<'_>) -> Result<Box<dyn Transform>, SamplingError> {
        Ok(Box::new(Cooldown::default()))
    }
}

fn with(params: &SamplingParams, n_vocab: usize, factory: Arc<dyn TransformFactory>) -> Sampler {
    params.build_with(&SamplerContext::new(n_vocab), &[factory]).unwrap()
}

proptest! {
    #[test]
    fn rollback_leaves_no_trace(steps in proptest::collection::vec((any::<bool>(), 0usize..4), 1..60)) {
        let row = model_row(12, 3);
        let params = SamplingParams::default().temperature(1.5).seed(2);
        let mut sampler = with(&params, 12, Arc::new(Cooldowns));
        let mut scratch = SampleScratch::default();
        let mut history = Vec::new();
        for (accept, n) in steps {
            if accept {
                let position = history.len() as u64;
                let got = sampler.sample(&row, &history, position, &mut scratch).unwrap();
                // Neither sampling twice nor accepted tokens that were rolled back change the result.
                prop_assert_eq!(&got, &sampler.sample(&row, &history, position, &mut scratch).unwrap());
                let mut fresh = with(&params, 12, Arc::new(Cooldowns));
                fresh.replay(&history);
                prop_assert_eq!(&got, &fresh.sample(&row, &history, position, &mut scratch).unwrap());
                prop_assert!(!history.iter().rev().take(3).any(|&t| t == got.token));
                sampler.accept(got.token);
                history.push(got.token);
            } else {
                let n = n.min(history.len());
                sampler.rollback(n);
                history.truncate(history.len() - n);
            }
        }
    }
}

/// Records its calls.
#[derive(Clone, Debug, Default)]
struct Recorder {
    needs_logprob: bool,
    accepted: Arc<Mutex<Vec<Accepted>>>,
    seen: Arc<Mutex<Vec<(u64, usize, f64)>>>,
}

impl Transform for Recorder {
    fn apply(&mut self, candidates: &mut Candidates<'_>, step: &mut Step<'_>) {
        // The bias came before; filters come after.
        assert_eq!((candidates.len(), candidates.logit(3)), (8, Some(2.0)));
        self.seen.lock().unwrap().push((step.position(), step.history().len(), step.random()));
    }

    fn accept(&mut self, accepted: &Accepted) {
        self.accepted.lock().unwrap().push(*accepted);
    }

    fn needs_logprob(&self) -> bool {
        self.needs_logprob
    }
}

impl TransformFactory for Recorder {
    fn build(&self, context: &SamplerContext<'_>) -> Result<Box<dyn Transform>, SamplingError> {
        match context.n_vocab() {
            8 => Ok(Box::new(self.clone())),
            n => Err(SamplingError::transform(format!("no {n} tokens, but 8"))),
        }
    }
}

#[test]
fn accepted_tokens_carry_the_log_probability_of_their_draw() {
    let row = [0.5, 0.0, 1.0, 0.0, -1.0, 0.25, 0.0, 3.0];
    let params = SamplingParams::default().temperature(0.7).top_k(4).top_p(1.0).min_p(0.0);
    let params = params.logit_bias([(3, 2.0)]).seed(5);
    let probabilities = reference(&params, &row, &[]);
    for needs_logprob in [true, false] {
        for greedy in [true, false] {
            let params = if greedy { params.clone().temperature(0.0) } else { params.clone() };
            let recorder = Recorder { needs_logprob, ..Recorder::default() };
            let mut sampler = with(&params, 8, Arc::new(recorder.clone()));
            let mut scratch = SampleScratch::default();
            sampler.replay(&[6]);
            for position in 0..20 {
                let token = sampler.sample(&row, &[1, 2, 3], position, &mut scratch).unwrap().token;
                sampler.accept(token);
                let accepted = recorder.accepted.lock().unwrap().last().copied().unwrap();
                assert_eq!(accepted.token, token);
                assert_eq!(accepted.logprob.is_some(), needs_logprob);
                if let Some(logprob) = accepted.logprob {
                    let want = if greedy { 0.0 } else { probabilities[token as usize].ln() };
                    assert!((f64::from(logprob) - want).abs() < 1e-5, "{logprob} {want}");
                }
            }
            // Not this sampler's draw: another token, or none since.
            let token = sampler.sample(&row, &[1, 2, 3], 20, &mut scratch).unwrap().token;
            sampler.accept(token ^ 1);
            sampler.accept(token);
            let accepted = recorder.accepted.lock().unwrap();
            assert_eq!(accepted[0], Accepted::new(6));
            assert_eq!(accepted[21..], [Accepted::new(token ^ 1), Accepted::new(token)]);
            let seen = recorder.seen.lock().unwrap();
            assert!(seen.iter().enumerate().all(|(i, seen)| (seen.0, seen.1) == (i as u64, 3)));
            assert!(seen.windows(2).all(|pair| pair[0].2 != pair[1].2 && (0.0..1.0).contains(&pair[0].2)));
        }
    }
}

#[test]
fn a_factory_can_refuse() {
    let factory: Arc<dyn TransformFactory> = Arc::new(Recorder::default());
    let error = SamplingParams::default().build_with(&SamplerContext::new(9), &[factory]).unwrap_err();
    assert_eq!(error, SamplingError::Transform { reason: "no 9 tokens, but 8".into() });
    assert_eq!(error.to_string(), "transform: no 9 tokens, but 8");
}
