"""Makes models that are good for nothing but tests: a tokenizer trained on a few sentences, random weights.

    python make_models.py DIRECTORY

Runs inside the cache's own environment (needs `tokenizers`, `gguf`, `numpy`). Writes `hf/` (a Llama without weights,
for vLLM's `--load-format dummy`), `small.gguf` (half a megabyte, half a millisecond a token), `useful.gguf` (135 MB,
some 20 ms a token: slow enough to watch) and `large.gguf` (seconds to load).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import gguf
import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

SENTENCES = [
    "The tide goes out and the tide comes in, and the gate keeper counts the boats.",
    "Hello world, this is a test of a very small language model.",
    "user: tell me a story about the sea. assistant: once upon a time there was a harbour.",
    "0 1 2 3 4 5 6 7 8 9 {} [] () \" ' , . : ; ! ? - _ = + * / \\ | & % $ # @ ~ ^ < >",
]
CHAT = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"
SIZES = {
    # name: width, layers, heads, feed-forward width, context
    "small": (64, 2, 2, 128, 4096),
    "useful": (512, 8, 8, 2048, 8192),
    "large": (1024, 16, 16, 4096, 8192),
}


def tokenizer() -> Tokenizer:
    """Byte-level BPE, so that any text can be encoded."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=384,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(SENTENCES * 50, trainer)
    return made


def write_hf(folder: Path, made: Tokenizer) -> None:
    """What vLLM needs to serve a Llama with weights that it makes up."""
    folder.mkdir(parents=True, exist_ok=True)
    made.save(str(folder / "tokenizer.json"))
    vocabulary = -(-made.get_vocab_size() // 64) * 64
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "bos_token": "<s>",
                "eos_token": "</s>",
                "chat_template": CHAT,
                "model_max_length": 4096,
            }
        )
    )
    (folder / "config.json").write_text(
        json.dumps(
            {
                "architectures": ["LlamaForCausalLM"],
                "model_type": "llama",
                "hidden_size": 64,
                "intermediate_size": 128,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "num_key_value_heads": 2,
                "head_dim": 32,
                "vocab_size": vocabulary,
                "max_position_embeddings": 4096,
                "rms_norm_eps": 1e-5,
                "rope_theta": 10000.0,
                "hidden_act": "silu",
                "bos_token_id": 0,
                "eos_token_id": 1,
                "tie_word_embeddings": False,
                "torch_dtype": "float32",
            }
        )
    )


def write_gguf(path: Path, made: Tokenizer, width: int, layers: int, heads: int, inner: int, context: int) -> None:
    """A Llama with random weights."""
    random = np.random.default_rng(1)
    vocabulary = made.get_vocab_size()
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(context)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_rope_dimension_count(width // heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    names = sorted(made.get_vocab().items(), key=lambda item: item[1])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([name for name, _ in names])
    special, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_token_types([special if name in ("<s>", "</s>") else normal for name, _ in names])
    merges = json.loads(made.to_str())["model"]["merges"]
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_chat_template(CHAT)

    def tensor(name: str, *shape: int) -> None:
        writer.add_tensor(name, random.standard_normal(shape, dtype=np.float32) * 0.02)

    tensor("token_embd.weight", vocabulary, width)
    tensor("output.weight", vocabulary, width)
    writer.add_tensor("output_norm.weight", np.ones(width, np.float32))
    for block in range(layers):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            tensor(f"blk.{block}.{name}.weight", width, width)
        tensor(f"blk.{block}.ffn_gate.weight", inner, width)
        tensor(f"blk.{block}.ffn_up.weight", inner, width)
        tensor(f"blk.{block}.ffn_down.weight", width, inner)
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{block}.{name}.weight", np.ones(width, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    made = tokenizer()
    write_hf(folder / "hf", made)
    for name, (width, layers, heads, inner, context) in SIZES.items():
        path = folder / f"{name}.gguf"
        if not path.exists():
            write_gguf(path.with_suffix(".part"), made, width, layers, heads, inner, context)
            path.with_suffix(".part").rename(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
