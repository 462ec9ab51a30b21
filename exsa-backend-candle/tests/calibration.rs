//! Sums over the inputs of projections, against those of a naive implementation in float64.

#![allow(clippy::unwrap_used, clippy::panic)]

mod naive;
mod support;

use exsa_backend_candle::{Calibration, CandleBackend};
use exsa_conformance::harness::tokens;
use exsa_core::backend::{LoadOptions, LoadProgress, ModelSource, SessionOptions};
use exsa_core::error::{LoadError, StepError};
use naive::Naive;
use std::collections::BTreeMap;
use support::{data, edit_of, exact};

fn calibration(name: &str, options: &SessionOptions) -> Calibration {
    calibration_of(&ModelSource::file(data(&format!("{name}.gguf"))), options)
}

fn calibration_of(source: &ModelSource, options: &SessionOptions) -> Calibration {
    CandleBackend::new().calibration(source, &LoadOptions::new(), options, &mut LoadProgress::none()).unwrap()
}

fn sums(calibration: &Calibration) -> BTreeMap<String, (Vec<f64>, u64)> {
    calibration.sums().map(|sums| (sums.weight.clone(), (sums.squares.to_vec(), sums.rows))).collect()
}

/// Each column of each projection, over two texts that are computed in batches of 16 tokens and of 7.
#[test]
fn sums_are_those_of_a_naive_implementation() {
    let texts = [tokens(40, 1), tokens(24, 2)];
    let naive = Naive::new(&edit_of("llama-f32"));
    texts.iter().for_each(|text| drop(naive.hidden_states(text)));
    let expected = naive.inputs.into_inner();
    for batch in [16, 7] {
        let mut calibration = calibration("llama-f32", &exact().context_tokens(64).batch_tokens(batch));
        texts.iter().for_each(|text| calibration.add(text).unwrap());
        let found = sums(&calibration);
        assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
        for (name, (squares, rows)) in &expected {
            let (found, found_rows) = &found[name];
            assert_eq!((found.len(), *found_rows, *rows), (squares.len(), 64, 64), "{name}");
            for (column, (found, expected)) in found.iter().zip(squares).enumerate() {
                let error = (found - expected).abs();
                assert!(error <= 1e-4 * expected, "{name}, column {column}: {found} for {expected}");
            }
        }
    }
}

/// The inputs of the output projection are the normalized hidden states; they are summed up where that is
/// asked for.
#[test]
fn the_output_is_summed_up_on_request() {
    let text = tokens(20, 3);
    let states = Naive::new(&edit_of("llama-f32")).hidden_states(&text);
    let options = exact().context_tokens(32);
    // The output with the weights of the token embedding, and with the same as its own.
    let tied = edit_of("llama-f32");
    let table = tied.tensors.iter().find(|tensor| tensor.name == "token_embd.weight").unwrap();
    let values: Vec<f32> =
        table.data.chunks_exact(4).map(|x| f32::from_le_bytes(x.try_into().unwrap())).collect();
    let own = edit_of("llama-f32").add_f32("output.weight", &table.shape, &values);
    for (edit, output) in [(&tied, true), (&own, false)] {
        let mut calibration = calibration_of(&edit.source(), &options).output(output);
        calibration.add(&text).unwrap();
        assert!(!sums(&calibration).contains_key("output.weight"));
    }
    let mut calibration = calibration_of(&own.source(), &options).output(true);
    calibration.add(&text).unwrap();
    let found = sums(&calibration);
    let (squares, rows) = &found["output.weight"];
    assert_eq!(*rows, 20);
    for (column, found) in squares.iter().enumerate() {
        let expected: f64 = states.iter().map(|state| state[column] * state[column]).sum();
        assert!((found - expected).abs() <= 1e-4 * expected, "column {column}: {found} for {expected}");
    }
}

/// Names are those of the file's tensors, for matrices of their own and for joined ones.
#[test]
fn every_matrix_of_the_layers_has_sums() {
    for name in ["gemma2-f32", "gemma3-f32", "phi3-f32", "qwen2-f32", "qwen3-f32", "llama-q4_k", "llama3-f32"]
    {
        let mut calibration = calibration(name, &exact().context_tokens(32));
        calibration.add(&tokens(32, 1)).unwrap();
        let found = sums(&calibration);
        let edit = edit_of(name);
        let matrices =
            edit.tensors.iter().filter(|tensor| tensor.name.starts_with("blk.") && tensor.shape.len() == 2);
        let mut expected: Vec<_> =
            matrices.map(|tensor| (tensor.name.clone(), tensor.shape[0] as usize)).collect();
        expected.sort();
        let found: Vec<_> = found.iter().map(|(name, (squares, _))| (name.clone(), squares.len())).collect();
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn what_cannot_be_computed_is_refused() {
    let mut calibration = calibration("llama-f32", &exact().context_tokens(32).batch_tokens(16));
    let long = calibration.add(&tokens(calibration.context_tokens_max() + 1, 1)).unwrap_err();
    assert!(matches!(long, StepError::Sequence { .. }), "{long}");
    let unknown = calibration.add(&[0, u32::MAX]).unwrap_err();
    assert!(matches!(unknown, StepError::InvalidToken { .. }), "{unknown}");
    // Neither leaves anything in the way of the next.
    calibration.add(&tokens(32, 1)).unwrap();
    let source = ModelSource::file(data("llama-f32.gguf"));
    let load = LoadOptions::new().device("abacus");
    let device = CandleBackend::new().calibration(&source, &load, &exact(), &mut LoadProgress::none());
    assert!(matches!(device.unwrap_err(), LoadError::Option { option: "device", .. }));
    let source = ModelSource::file(data("qwen3moe-f32.gguf"));
    let experts =
        CandleBackend::new().calibration(&source, &LoadOptions::new(), &exact(), &mut LoadProgress::none());
    let error = experts.unwrap_err().to_string();
    assert!(error.contains("mixture of experts") && error.contains("qwen3moe"), "{error}");
}
