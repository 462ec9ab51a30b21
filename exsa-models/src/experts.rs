//! Mixtures of experts: hyperparameters.

use crate::architecture::{ExpertScores, ExpertWidth, Mixture, Normalize, SharedWidth};
use crate::keys::{Keys, WIDTH};
use exsa_core::error::LoadError;
use std::ops::RangeInclusive;

/// Experts of a layer.
const EXPERTS: RangeInclusive<usize> = 0..=1 << 12;

/// Groups of experts.
const GROUPS: RangeInclusive<usize> = 0..=Routing::GROUPS_MAX;

/// Choice and weights of the experts of a token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Routing {
    /// Number of experts.
    pub experts: usize,
    /// Experts of a token, at least 1 and at most as many as there are.
    pub used: usize,
    /// Scores by which they are chosen.
    pub scores: ExpertScores,
    /// Groups of as many experts each; 1 to [`GROUPS_MAX`](Self::GROUPS_MAX).
    pub groups: usize,
    /// Groups that the experts of a token come from, which are those whose two best scores have the greatest
    /// sums (DeepSeek-V3, arXiv:2412.19437).
    pub groups_used: usize,
    /// The weights of a token's experts are divided by their sum.
    pub normalize: bool,
    /// Factor on the weights.
    pub scale: f32,
}

impl Routing {
    /// Maximum number of groups.
    pub const GROUPS_MAX: usize = 64;
}

/// Hyperparameters of the mixtures of experts of a model.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ExpertConfig {
    /// Choice of the experts.
    pub routing: Routing,
    /// Hidden values of an expert.
    pub n_ff: usize,
    /// Hidden values of the expert that all tokens share.
    pub n_ff_shared: Option<usize>,
    /// Layers before the first one with experts.
    pub dense_layers: usize,
}

impl Keys<'_> {
    /// Number of experts, where 0 and 1 stand for none.
    pub fn expert_count(&self) -> Result<usize, LoadError> {
        let experts = self.size("expert_count", &EXPERTS, Some(0))?;
        Ok(if experts > 1 { experts } else { 0 })
    }

    /// The mixtures of `experts` experts of an architecture that has them as `mixture` says, in a model of
    /// `n_layer` layers whose MLPs have `n_ff` hidden values.
    pub fn experts(
        &self,
        mixture: &Mixture,
        experts: usize,
        (n_layer, n_ff): (usize, usize),
    ) -> Result<ExpertConfig, LoadError> {
        let used = self.size("expert_used_count", &(1..=experts), None)?;
        let (groups, groups_used) = self.groups(experts, used)?;
        let routing = Routing {
            experts,
            used,
            scores: if mixture.scores_in_metadata { self.scores(mixture.scores)? } else { mixture.scores },
            groups,
            groups_used,
            normalize: match mixture.normalize {
                Normalize::Always => true,
                Normalize::Never => false,
                Normalize::Metadata => self.get_or("expert_weights_norm", Some(false))?,
            },
            scale: if mixture.scale { self.scale("expert_weights_scale")?.unwrap_or(1.0) } else { 1.0 },
        };
        let key = "expert_feed_forward_length";
        let width = match mixture.width {
            ExpertWidth::FeedForward => n_ff,
            ExpertWidth::Metadata => self.size(key, &WIDTH, None)?,
            // 0 stands for none.
            ExpertWidth::MetadataOrShare => match self.size(key, &(0..=*WIDTH.end()), Some(0))? {
                0 => (n_ff / used).max(1),
                width => width,
            },
        };
        let shared_key = "expert_shared_feed_forward_length";
        let n_ff_shared = match mixture.shared {
            SharedWidth::Never => 0,
            SharedWidth::Metadata => self.size(shared_key, &(0..=*WIDTH.end()), Some(0))?,
            SharedWidth::MetadataOrFeedForward => {
                match self.size(shared_key, &(0..=*WIDTH.end()), Some(0))? {
                    0 => n_ff,
                    width => width,
                }
            }
            SharedWidth::Count => width * self.size("expert_shared_count", &(0..=1 << 10), None)?,
        };
        let dense_layers = if mixture.leading_dense {
            self.size("leading_dense_block_count", &(0..=n_layer), Some(0))?
        } else {
            0
        };
        let step = self.size("interleave_moe_layer_step", &(1..=1 << 10), Some(1))?;
        self.check("interleave_moe_layer_step", step, step == 1, || "1".into())?;
        let n_ff_shared = Some(n_ff_shared).filter(|width| *width > 0);
        Ok(ExpertConfig { routing, n_ff: width, n_ff_shared, dense_layers })
    }

    /// Groups of experts, and those that a token uses.
    fn groups(&self, experts: usize, used: usize) -> Result<(usize, usize), LoadError> {
        let groups = self.size("expert_group_count", &GROUPS, Some(0))?;
        if groups <= 1 {
            return Ok((1, 1));
        }
        let fits = experts.is_multiple_of(groups) && experts / groups >= 2;
        self.check("expert_group_count", groups, fits, || {
            format!("divisors of expert_count, which is {experts}, up to half of it")
        })?;
        let groups_used = self.size("expert_group_used_count", &(1..=groups), None)?;
        let enough = groups_used * (experts / groups) >= used;
        self.check("expert_group_used_count", groups_used, enough, || {
            format!("groups of {} experts that have the {used} of a token", experts / groups)
        })?;
        Ok((groups, groups_used))
    }

    /// The scores that the file names, by llama.cpp's numbers.
    fn scores(&self, default: ExpertScores) -> Result<ExpertScores, LoadError> {
        let key = "expert_gating_func";
        let number: u64 = self.get_or(key, Some(0))?;
        match number {
            0 => Ok(default),
            1 => Ok(ExpertScores::Softmax),
            2 => Ok(ExpertScores::Sigmoid),
            3 => Ok(ExpertScores::SoftmaxOfChosen),
            _ => {
                self.check(key, number, false, || {
                    "1 (softmax), 2 (sigmoid), 3 (softmax of the chosen)".into()
                })?;
                Ok(default)
            }
        }
    }
}
