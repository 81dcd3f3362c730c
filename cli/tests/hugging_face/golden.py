"""Tiny LLaMAs as Transformers writes them, with the logits that Transformers computes.

    python golden.py make            writes the golden cases into the folders beside this file
    python golden.py check HF OURS   compares Transformers on HF with the output OURS of
                                     `gradus-worker forward --model … --tokens T --out OURS`;
                                     the tokens T are read from HF/../tokens.json unless --tokens
                                     names a file

Versions are in requirements.txt. The tests read the folders and need no Python.
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

HERE = Path(__file__).parent

# Both sides compute in float32, in another order of additions.
TOLERANCE = 1e-4

# No two sizes of a case are equal, so that a transposed or swapped matrix cannot pass.
SIZES = dict(vocab_size=53, hidden_size=24, intermediate_size=56, num_hidden_layers=2)

CASES = {
    "mha-tied": dict(
        config=dict(num_attention_heads=3, tie_word_embeddings=True),
        dtype=torch.float32,
        shard_size="1GB",
    ),
    "gqa-untied-sharded": dict(
        config=dict(
            num_attention_heads=6,
            num_key_value_heads=2,
            rms_norm_eps=1e-5,
            rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
        ),
        dtype=torch.float32,
        shard_size="30KB",
    ),
    "gqa-bf16": dict(
        config=dict(num_attention_heads=4, num_key_value_heads=2),
        dtype=torch.bfloat16,
        shard_size="1GB",
    ),
    "mqa-f16-tied": dict(
        config=dict(num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=True),
        dtype=torch.float16,
        shard_size="1GB",
    ),
}


def network(config: dict, dtype: torch.dtype) -> LlamaForCausalLM:
    """A model whose every tensor matters: norms are not one, and logits are of order one."""
    model = LlamaForCausalLM(LlamaConfig(**SIZES, **config))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = 0.3 if "norm" in name else 0.2
            parameter.normal_(mean=1.0 if "norm" in name else 0.0, std=scale)
    return model.to(dtype)


def logits(folder: Path, tokens: list[list[int]]) -> torch.Tensor:
    """Of the files, not of what made them; in float32 whatever the files hold."""
    model, report = LlamaForCausalLM.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    bad = {key: value for key, value in report.items() if value}
    assert not bad, f"Transformers complains: {bad}"
    with torch.no_grad():
        return model.eval()(torch.tensor(tokens)).logits.contiguous()


def make() -> None:
    torch.manual_seed(20260301)
    for name, case in CASES.items():
        folder = HERE / name
        shutil.rmtree(folder, ignore_errors=True)
        model = network(case["config"], case["dtype"])
        model.save_pretrained(folder / "model", max_shard_size=case["shard_size"])
        # Generation is no part of the weights.
        (folder / "model" / "generation_config.json").unlink()
        tokens = torch.randint(0, SIZES["vocab_size"], (2, 37)).tolist()
        (folder / "tokens.json").write_text(json.dumps(tokens) + "\n")
        save_file({"logits": logits(folder / "model", tokens)}, folder / "expected.safetensors")
        print(f"{name}: {sum(file.stat().st_size for file in folder.rglob('*'))} bytes")


def check(folder: Path, output: Path, tokens_file: Path) -> None:
    expected = logits(folder, json.loads(tokens_file.read_text()))
    found = load_file(output)["logits"]
    assert found.shape == expected.shape, (found.shape, expected.shape)
    worst = (found - expected).abs().max().item()
    print(f"largest difference {worst:.2e}, logits up to {expected.abs().max().item():.2f}")
    assert worst < TOLERANCE, f"more than {TOLERANCE}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("make")
    checking = commands.add_parser("check")
    checking.add_argument("folder", type=Path)
    checking.add_argument("output", type=Path)
    checking.add_argument("--tokens", type=Path)
    args = parser.parse_args()
    if args.command == "make":
        make()
    else:
        check(args.folder, args.output, args.tokens or args.folder.parent / "tokens.json")


if __name__ == "__main__":
    main()
