"""Writes a model of a GGUF file, dequantized, in the form of Hugging Face, which vLLM loads: hf_model.py FILE FOLDER."""

import sys
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer

file, folder = Path(sys.argv[1]), sys.argv[2]
source = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
AutoTokenizer.from_pretrained(**source).save_pretrained(folder)
AutoModelForCausalLM.from_pretrained(**source).save_pretrained(folder)
