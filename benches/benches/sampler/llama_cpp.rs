//! llama.cpp's chains of samplers on rows of logits.

use exsa_core::TokenId;
use llama_cpp_sys_2 as sys;

/// A chain that ends with a choice.
pub(crate) struct Chain {
    chain: *mut sys::llama_sampler,
    tokens: Vec<sys::llama_token_data>,
}

/// A sampler of a chain.
#[derive(Clone, Copy)]
pub(crate) enum Sampler {
    Greedy,
    Draw,
    MinP(f32),
    Penalties { last_n: i32, repetition: f32, frequency: f32 },
    Temperature(f32),
    TopK(i32),
    TopP(f32),
}

impl Chain {
    /// The chain for a sequence that ends with `history`.
    pub(crate) fn new(samplers: &[Sampler], n_vocab: usize, history: &[TokenId]) -> Self {
        // SAFETY: all arguments are plain numbers; the chain takes ownership of each sampler.
        let chain = unsafe {
            let chain = sys::llama_sampler_chain_init(sys::llama_sampler_chain_default_params());
            for sampler in samplers {
                let sampler = match *sampler {
                    Sampler::Greedy => sys::llama_sampler_init_greedy(),
                    Sampler::Draw => sys::llama_sampler_init_dist(1),
                    Sampler::MinP(p) => sys::llama_sampler_init_min_p(p, 0),
                    Sampler::Penalties { last_n, repetition, frequency } => {
                        sys::llama_sampler_init_penalties(n_vocab as i32, last_n, repetition, frequency, 0.0)
                    }
                    Sampler::Temperature(t) => sys::llama_sampler_init_temp(t),
                    Sampler::TopK(k) => sys::llama_sampler_init_top_k(k),
                    Sampler::TopP(p) => sys::llama_sampler_init_top_p(p, 0),
                };
                sys::llama_sampler_chain_add(chain, sampler);
            }
            history.iter().for_each(|&token| sys::llama_sampler_accept(chain, token as i32));
            chain
        };
        Self { chain, tokens: Vec::with_capacity(n_vocab) }
    }

    /// Chooses a token, as `llama_sampler_sample` does: fills the array of candidates and applies the chain.
    pub(crate) fn sample(&mut self, row: &[f32]) -> i32 {
        self.tokens.clear();
        self.tokens.extend((0..).zip(row).map(|(id, &logit)| sys::llama_token_data { id, logit, p: 0.0 }));
        let (data, size) = (self.tokens.as_mut_ptr(), self.tokens.len());
        let mut array = sys::llama_token_data_array { data, size, selected: -1, sorted: false };
        // SAFETY: the chain is alive; the array describes the tokens, which outlive the call. Samplers only
        // shorten it.
        unsafe {
            sys::llama_sampler_apply(self.chain, &mut array);
            (*array.data.add(array.selected as usize)).id
        }
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        // SAFETY: the chain is alive and owns its samplers; nothing uses it later.
        unsafe { sys::llama_sampler_free(self.chain) };
    }
}
