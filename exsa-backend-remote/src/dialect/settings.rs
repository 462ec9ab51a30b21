//! Settings of a request, and their form for each engine.

use crate::dialect::unsupported;
use exsa_core::sampler::{Mirostat, SamplingParams, TransformKind};
use exsa_core::{Request, SubmitError};
use serde_json::{Map, Value, json};

/// A setting of [`SamplingParams`] or [`Request`] that changes the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Setting {
    Temperature,
    TopK,
    TopP,
    MinP,
    TypicalP,
    TopNSigma,
    RepetitionPenalty,
    FrequencyPenalty,
    PresencePenalty,
    PenaltyWindow,
    LogitBias,
    XtcProbability,
    XtcThreshold,
    DynatempRange,
    DynatempExponent,
    Mirostat,
    MirostatTau,
    MirostatEta,
    AdaptiveTarget,
    AdaptiveDecay,
    DryMultiplier,
    DryBase,
    DryAllowedLength,
    DryWindow,
    DrySequenceBreakers,
    Order,
    MinTokens,
    StopTokens,
    IgnoreEos,
}

impl Setting {
    pub(crate) const ALL: [Self; 29] = [
        Self::Temperature,
        Self::TopK,
        Self::TopP,
        Self::MinP,
        Self::TypicalP,
        Self::TopNSigma,
        Self::RepetitionPenalty,
        Self::FrequencyPenalty,
        Self::PresencePenalty,
        Self::PenaltyWindow,
        Self::LogitBias,
        Self::XtcProbability,
        Self::XtcThreshold,
        Self::DynatempRange,
        Self::DynatempExponent,
        Self::Mirostat,
        Self::MirostatTau,
        Self::MirostatEta,
        Self::AdaptiveTarget,
        Self::AdaptiveDecay,
        Self::DryMultiplier,
        Self::DryBase,
        Self::DryAllowedLength,
        Self::DryWindow,
        Self::DrySequenceBreakers,
        Self::Order,
        Self::MinTokens,
        Self::StopTokens,
        Self::IgnoreEos,
    ];

    /// The setting's name in Exsa.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Temperature => "temperature",
            Self::TopK => "top_k",
            Self::TopP => "top_p",
            Self::MinP => "min_p",
            Self::TypicalP => "typical_p",
            Self::TopNSigma => "top_n_sigma",
            Self::RepetitionPenalty => "repetition_penalty",
            Self::FrequencyPenalty => "frequency_penalty",
            Self::PresencePenalty => "presence_penalty",
            Self::PenaltyWindow => "penalty_window",
            Self::LogitBias => "logit_bias",
            Self::XtcProbability => "xtc_probability",
            Self::XtcThreshold => "xtc_threshold",
            Self::DynatempRange => "dynatemp_range",
            Self::DynatempExponent => "dynatemp_exponent",
            Self::Mirostat => "mirostat",
            Self::MirostatTau => "mirostat_tau",
            Self::MirostatEta => "mirostat_eta",
            Self::AdaptiveTarget => "adaptive_target",
            Self::AdaptiveDecay => "adaptive_decay",
            Self::DryMultiplier => "dry_multiplier",
            Self::DryBase => "dry_base",
            Self::DryAllowedLength => "dry_allowed_length",
            Self::DryWindow => "dry_window",
            Self::DrySequenceBreakers => "dry_sequence_breakers",
            Self::Order => "order",
            Self::MinTokens => "min_tokens",
            Self::StopTokens => "stop_tokens",
            Self::IgnoreEos => "ignore_eos",
        }
    }

    /// The value; `None` if it has no effect.
    fn value(self, request: &Request) -> Option<Value> {
        let it = &request.sampling;
        // Parameters of a step that is not in the chain, or that greedy decoding skips, have no effect.
        let listed = |kind| it.order.contains(&kind);
        let greedy = is_greedy(it);
        let drawn = |kind| !greedy && listed(kind);
        let steered = it.mirostat != Mirostat::Off && !greedy;
        let filter = |kind| drawn(kind) && !steered;
        let penalties = listed(TransformKind::Penalties);
        let penalized = is_penalized(it);
        let dry = it.dry_multiplier != 0.0 && listed(TransformKind::Dry);
        let xtc = it.xtc_probability > 0.0 && it.xtc_threshold <= 0.5 && filter(TransformKind::Xtc);
        let dynamic = it.dynatemp_range > 0.0 && drawn(TransformKind::Temperature);
        let adaptive = it.adaptive_target.is_some() && drawn(TransformKind::AdaptiveP);
        let real = |value: f32| Some(number(value));
        match self {
            Self::Temperature if greedy => Some(json!(0)),
            Self::Temperature => real(it.temperature).filter(|_| listed(TransformKind::Temperature)),
            Self::TopK => it.top_k.filter(|k| *k > 0 && filter(TransformKind::TopK)).map(Value::from),
            Self::TopP => real(it.top_p).filter(|_| it.top_p < 1.0 && filter(TransformKind::TopP)),
            Self::MinP => real(it.min_p).filter(|_| it.min_p > 0.0 && filter(TransformKind::MinP)),
            Self::TypicalP => {
                real(it.typical_p).filter(|_| it.typical_p < 1.0 && filter(TransformKind::TypicalP))
            }
            Self::TopNSigma => {
                real(it.top_n_sigma).filter(|_| it.top_n_sigma > 0.0 && filter(TransformKind::TopNSigma))
            }
            Self::RepetitionPenalty => {
                real(it.repetition_penalty).filter(|_| penalties && it.repetition_penalty != 1.0)
            }
            Self::FrequencyPenalty => {
                real(it.frequency_penalty).filter(|_| penalties && it.frequency_penalty != 0.0)
            }
            Self::PresencePenalty => {
                real(it.presence_penalty).filter(|_| penalties && it.presence_penalty != 0.0)
            }
            Self::PenaltyWindow => it.penalty_window.filter(|_| penalized).map(Value::from),
            Self::LogitBias => (!it.logit_bias.is_empty()).then(|| {
                it.logit_bias.iter().map(|(token, bias)| json!([token, number(bias.max(-100.0))])).collect()
            }),
            Self::XtcProbability => real(it.xtc_probability).filter(|_| xtc),
            Self::XtcThreshold => real(it.xtc_threshold).filter(|_| xtc),
            Self::DynatempRange => real(it.dynatemp_range).filter(|_| dynamic),
            Self::DynatempExponent => real(it.dynatemp_exponent).filter(|_| dynamic),
            Self::Mirostat => Some(u8::from(it.mirostat).into()).filter(|_| steered),
            Self::MirostatTau => real(it.mirostat_tau).filter(|_| steered),
            Self::MirostatEta => real(it.mirostat_eta).filter(|_| steered),
            Self::AdaptiveTarget => it.adaptive_target.map(number).filter(|_| adaptive),
            Self::AdaptiveDecay => real(it.adaptive_decay).filter(|_| adaptive),
            Self::DryMultiplier => real(it.dry_multiplier).filter(|_| dry),
            Self::DryBase => real(it.dry_base).filter(|_| dry),
            Self::DryAllowedLength => Some(it.dry_allowed_length.into()).filter(|_| dry),
            Self::DryWindow => Some(it.dry_window.map_or(json!(-1), Value::from)).filter(|_| dry),
            Self::DrySequenceBreakers => Some(json!(it.dry_sequence_breakers)).filter(|_| dry),
            Self::Order => (it.order != TransformKind::DEFAULT_ORDER).then(|| order(&it.order)),
            Self::MinTokens => Some(it.min_tokens.into()).filter(|_| it.min_tokens > 0),
            Self::StopTokens => (!request.stop_tokens.is_empty()).then(|| json!(request.stop_tokens)),
            Self::IgnoreEos => request.ignore_eos.then(|| json!(true)),
        }
    }
}

/// Returns whether decoding is greedy.
pub(crate) fn is_greedy(params: &SamplingParams) -> bool {
    params.temperature == 0.0 && params.order.contains(&TransformKind::Temperature)
        || params.top_p == 0.0 && params.order.contains(&TransformKind::TopP)
        || params.top_k == Some(1) && params.order.contains(&TransformKind::TopK)
}

/// Returns whether a penalty has an effect.
pub(crate) fn is_penalized(params: &SamplingParams) -> bool {
    params.order.contains(&TransformKind::Penalties)
        && (params.repetition_penalty != 1.0
            || params.frequency_penalty != 0.0
            || params.presence_penalty != 0.0)
}

/// Converts to the shortest decimal: 0.8 rather than 0.800000011920929.
fn number(value: f32) -> Value {
    value.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}

/// Names of the chain's steps in llama.cpp.
fn order(kinds: &[TransformKind]) -> Value {
    let names = kinds.iter().filter(|kind| **kind != TransformKind::Host);
    names.filter_map(|kind| serde_json::to_value(kind).ok()).collect()
}

/// A field of an engine's requests for a setting.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    pub(crate) setting: Setting,
    pub(crate) name: &'static str,
    /// Value that is sent if the setting has no effect; `None` omits the field. Engines that take defaults
    /// from the model's files need it.
    pub(crate) off: Option<f64>,
    /// Range that the engine accepts, if smaller than Exsa's.
    pub(crate) range: Option<(f64, f64)>,
}

impl Field {
    pub(crate) const fn new(setting: Setting, name: &'static str) -> Self {
        Self { setting, name, off: None, range: None }
    }

    /// Sends `value` if the setting has no effect.
    pub(crate) const fn off(mut self, value: f64) -> Self {
        self.off = Some(value);
        self
    }

    /// Refuses values outside `low..=high`.
    pub(crate) const fn range(mut self, low: f64, high: f64) -> Self {
        self.range = Some((low, high));
        self
    }
}

/// Tokens counted by an engine's penalties.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counted {
    /// Tokens of the answer.
    Answer,
    /// Tokens of prompt and answer.
    All,
    /// Either, selected by a field of the request.
    Choice,
}

/// Penalties of an engine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Penalties {
    /// Tokens counted by frequency and presence penalties.
    pub(crate) additive: Counted,
    /// Tokens counted by the repetition penalty.
    pub(crate) repetition: Counted,
}

/// Writes the settings of `request` with `fields`.
///
/// # Errors
///
/// A setting that changes the answer and has no field, or a value that the engine does not accept.
pub(crate) fn write(
    fields: &[Field],
    penalties: Penalties,
    request: &Request,
    approximate: bool,
    engine: &'static str,
) -> Result<Map<String, Value>, SubmitError> {
    let mut map = Map::new();
    for setting in Setting::ALL {
        let value = setting.value(request);
        match fields.iter().find(|field| field.setting == setting) {
            Some(field) => {
                let off =
                    field.off.map(|off| if off.fract() == 0.0 { json!(off as i64) } else { json!(off) });
                let Some(value) = value.or(off) else { continue };
                check_range(field, &value)?;
                map.insert(field.name.to_owned(), value);
            }
            None if setting == Setting::PenaltyWindow && approximate => {}
            None if value.is_some() => {
                let reason = match setting {
                    Setting::PenaltyWindow => {
                        format!("{engine} counts all tokens; set the window to None, or allow approximations")
                    }
                    _ => format!("{engine} has no such setting"),
                };
                return Err(unsupported(setting.name(), reason));
            }
            None => {}
        }
    }
    if !approximate {
        check_penalties(penalties, request, engine)?;
    }
    Ok(map)
}

fn check_range(field: &Field, value: &Value) -> Result<(), SubmitError> {
    let Some((low, high)) = field.range else { return Ok(()) };
    let values = match value {
        // Pairs of a token and a bias.
        Value::Array(pairs) => pairs.iter().filter_map(|pair| pair.get(1)?.as_f64()).collect(),
        value => value.as_f64().map_or_else(Vec::new, |value| vec![value]),
    };
    match values.into_iter().find(|value| !(low..=high).contains(value)) {
        None => Ok(()),
        Some(value) => {
            let option = field.setting.name();
            let problem = format!("{value}, but the engine accepts {low} to {high}");
            Err(SubmitError::Option { option, problem })
        }
    }
}

/// Refuses penalties that would count other tokens than requested.
fn check_penalties(penalties: Penalties, request: &Request, engine: &str) -> Result<(), SubmitError> {
    let params = &request.sampling;
    if !params.order.contains(&TransformKind::Penalties) {
        return Ok(());
    }
    let additive = params.frequency_penalty != 0.0 || params.presence_penalty != 0.0;
    let repetition = params.repetition_penalty != 1.0;
    for (active, counted, setting) in [
        (additive && params.frequency_penalty != 0.0, penalties.additive, Setting::FrequencyPenalty),
        (additive, penalties.additive, Setting::PresencePenalty),
        (repetition, penalties.repetition, Setting::RepetitionPenalty),
    ] {
        let (wrong, remedy) = match (counted, params.penalize_prompt) {
            (Counted::Answer, true) => ("the answer alone", "false"),
            (Counted::All, false) => ("prompt and answer", "true"),
            _ => continue,
        };
        if active {
            let reason = format!(
                "{engine} counts tokens of {wrong}; set penalize_prompt to {remedy}, or allow approximations"
            );
            return Err(unsupported(setting.name(), reason));
        }
    }
    Ok(())
}
