//! Fields of requests, by the classes and documents of each engine.

use serde_json::{Map, Value};

/// The first field that is not in `known`.
pub fn unknown(body: &Map<String, Value>, known: &str) -> Option<String> {
    let known: Vec<&str> = known.split_whitespace().collect();
    body.keys().find(|name| !known.contains(&name.as_str())).cloned()
}

/// vLLM, `GenerateRequest`.
pub const VLLM_GENERATE: &str = "token_ids sampling_params request_id model stream stream_options return_token_ids \
    output_mode cache_salt priority kv_transfer_params features";

/// vLLM, `SamplingParams`.
pub const VLLM_SAMPLING: &str = "n presence_penalty frequency_penalty repetition_penalty temperature top_p top_k min_p \
    seed stop stop_token_ids ignore_eos max_tokens min_tokens logprobs prompt_logprobs logprob_token_ids \
    flat_logprobs detokenize skip_special_tokens spaces_between_special_tokens include_stop_str_in_output \
    structured_outputs logit_bias allowed_token_ids extra_args bad_words thinking_token_budget \
    repetition_detection";

/// vLLM, `CompletionRequest`.
pub const VLLM_COMPLETION: &str = "model prompt echo frequency_penalty logit_bias logprobs max_tokens n \
    presence_penalty seed stop stream stream_options suffix temperature top_p user use_beam_search top_k min_p \
    repetition_penalty length_penalty stop_token_ids include_stop_str_in_output ignore_eos min_tokens \
    skip_special_tokens spaces_between_special_tokens truncate_prompt_tokens allowed_token_ids prompt_logprobs \
    bad_words add_special_tokens response_format structured_outputs priority request_id session_id \
    return_tokens_as_token_ids return_token_ids cache_salt kv_transfer_params vllm_xargs repetition_detection \
    thinking_token_budget stream_interval logprob_token_ids";

/// TensorRT-LLM, `CompletionRequest` of `tensorrt_llm/serve/openai_protocol.py`.
pub const TRTLLM_COMPLETION: &str = "model prompt best_of echo frequency_penalty logit_bias logprobs max_tokens n \
    presence_penalty seed stop stream stream_options suffix temperature top_p user lora_request \
    prompt_ignore_length use_beam_search top_k top_p_min min_p repetition_penalty length_penalty early_stopping \
    stop_token_ids include_stop_str_in_output ignore_eos min_tokens skip_special_tokens \
    spaces_between_special_tokens truncate_prompt_tokens return_context_logits detokenize thinking_token_budget \
    add_special_tokens response_format disaggregated_params priority conversation_params";

/// TensorRT-LLM, `ChatCompletionRequest`.
pub const TRTLLM_CHAT: &str = "messages prompt_token_ids prompt_token_ids_b64 model frequency_penalty logit_bias \
    logprobs top_logprobs max_completion_tokens max_tokens n presence_penalty response_format seed stop stream \
    stream_options temperature top_p tools tool_choice parallel_tool_calls user reasoning_effort thinking \
    thinking_token_budget prompt_ignore_length best_of use_beam_search top_k top_p_min min_p repetition_penalty \
    length_penalty early_stopping stop_token_ids include_stop_str_in_output ignore_eos min_tokens \
    skip_special_tokens spaces_between_special_tokens truncate_prompt_tokens lora_request echo \
    add_generation_prompt add_special_tokens documents chat_template chat_template_kwargs \
    injected_chat_template_kwargs media_io_kwargs disaggregated_params conversation_params cache_salt priority \
    agent_hierarchy mm_processor_kwargs";

/// SGLang, `GenerateReqInput`, the fields about text.
pub const SGLANG_GENERATE: &str = "rid session_id text input_ids input_embeds sampling_params return_logprob \
    logprob_start_len top_logprobs_num token_ids_logprob return_text_in_logprobs stream log_metrics \
    return_hidden_states session_params lora_path custom_logit_processor bootstrap_host bootstrap_port \
    bootstrap_room routed_dp_rank routing_key conversation_id background require_reasoning priority extra_key \
    no_logs custom_labels return_prompt_token_ids";

/// SGLang, `SamplingParams`.
pub const SGLANG_SAMPLING: &str = "max_new_tokens stop stop_token_ids stop_regex temperature top_p top_k min_p \
    frequency_penalty presence_penalty repetition_penalty min_new_tokens n json_schema regex ebnf structural_tag \
    ignore_eos skip_special_tokens spaces_between_special_tokens no_stop_trim custom_params stream_interval \
    logit_bias sampling_seed";

/// llama-server, `/completion`.
pub const LLAMA_COMPLETION: &str = "prompt temperature dynatemp_range dynatemp_exponent top_k top_p min_p n_predict \
    n_indent n_keep n_cmpl n_cache_reuse stream stop typical_p repeat_penalty repeat_last_n presence_penalty \
    frequency_penalty dry_multiplier dry_base dry_allowed_length dry_penalty_last_n dry_sequence_breakers \
    xtc_probability xtc_threshold mirostat mirostat_tau mirostat_eta adaptive_target adaptive_decay grammar \
    json_schema seed ignore_eos logit_bias n_probs min_keep t_max_predict_ms id_slot cache_prompt return_tokens \
    samplers timings_per_token return_progress post_sampling_probs response_fields lora top_n_sigma";

/// Triton, inputs of TensorRT-LLM's ensemble.
pub const TRITON_ENSEMBLE: &str = "text_input decoder_text_input max_tokens num_return_sequences bad_words stop_words \
    exclude_input_in_output end_id pad_id top_k top_p temperature length_penalty repetition_penalty min_tokens \
    presence_penalty frequency_penalty seed return_log_probs return_context_logits return_generation_logits \
    return_perf_metrics return_num_input_tokens return_num_output_tokens beam_width stream embedding_bias_words \
    embedding_bias_weights lora_task_id lora_weights lora_config guided_decoding_guide_type \
    guided_decoding_guide";

/// OpenAI, chat completions.
pub const OPENAI_CHAT: &str = "messages model frequency_penalty logit_bias logprobs top_logprobs max_tokens \
    max_completion_tokens n presence_penalty response_format seed stop stream stream_options temperature top_p tools \
    tool_choice parallel_tool_calls user reasoning_effort";
