"""Writes a model of a GGUF file, dequantized, in the form of Hugging Face, which vLLM loads: hf_model.py FILE FOLDER."""

import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

file, folder = Path(sys.argv[1]), sys.argv[2]
source = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
AutoTokenizer.from_pretrained(**source).save_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
# The weights are dequantized, but still marked as quantized, which `save_pretrained` refuses.
model.hf_quantizer = None
for mark in ("quantization_config", "_pre_quantization_dtype"):
    if hasattr(model.config, mark):
        delattr(model.config, mark)
model.is_quantized = False
for mark in ("quantization_method",):
    if hasattr(model, mark):
        setattr(model, mark, None)
model.save_pretrained(folder)
