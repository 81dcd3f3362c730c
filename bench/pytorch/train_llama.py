"""Trains a LLaMA of the weights contract in eager PyTorch, and prints how fast as one JSON object.

The other side of the training benchmark: the same keys of config.json, the same initialisation
rule, parameter names, decay groups, batch and optimizer as `gradus-worker`, written as a PyTorch
user would write it. Of a configuration it knows `architecture: llama` with RMSNorm, the rotation
`half` and SiLU; it refuses the rest.

All batches are in the device's memory before the clock starts. The file of batches has rows of T + 1 token ids
(16-bit little endian); sequence b of step s is row s * B + b. `gradus-bench train` writes it.
"""

import argparse
import contextlib
import json
import statistics
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

INIT_STD = 0.02
# Decoupled decay, betas and epsilon are the defaults of our study file.
BETAS = (0.9, 0.95)
EPS = 1e-8
WEIGHT_DECAY = 0.1
GRADIENT_CLIP = 1.0

SIZES = ("vocab_size", "d_model", "n_layers", "n_heads", "ffn_hidden")
# The contract's defaults; a key without a choice here may only have this value.
DEFAULTS = {
    "architecture": "llama",
    "tie_embeddings": True,
    "norm": "rmsnorm",
    "norm_eps": 1e-6,
    "embedding_scale": False,
    "ffn_activation": "silu",
    "n_kv_heads": None,
    "rope": "half",
    "rope_base": 10000.0,
}
CHOICES = ("tie_embeddings", "norm_eps", "n_kv_heads", "rope_base")


def read_config(path: Path) -> dict:
    keys = json.loads(path.read_text())
    for key, value in keys.items():
        if key not in SIZES and key not in DEFAULTS:
            raise SystemExit(f"{path}: unknown key `{key}`")
        if key in DEFAULTS and key not in CHOICES and value != DEFAULTS[key]:
            raise SystemExit(f"{path}: `{key}` is {value}; valid: {DEFAULTS[key]}")
    if missing := [key for key in SIZES if key not in keys]:
        raise SystemExit(f"{path}: `{missing[0]}` is missing")
    config = DEFAULTS | keys
    config["n_kv_heads"] = config["n_kv_heads"] or config["n_heads"]
    return config


class Norm(nn.Module):
    def __init__(self, config: dict):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(config["d_model"]))
        self.eps = config["norm_eps"]

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


class Mixer(nn.Module):
    def __init__(self, config: dict):
        super().__init__()
        width, self.heads, self.kv_heads = (
            config["d_model"],
            config["n_heads"],
            config["n_kv_heads"],
        )
        self.head_width = width // self.heads
        kv_width = self.kv_heads * self.head_width
        self.q = nn.Linear(width, width, bias=False)
        self.k = nn.Linear(width, kv_width, bias=False)
        self.v = nn.Linear(width, kv_width, bias=False)
        self.o = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        b, t, width = x.shape

        def split(y: Tensor, heads: int) -> Tensor:
            return y.view(b, t, heads, self.head_width).transpose(1, 2)

        q = rotate(split(self.q(x), self.heads), rotation)
        k = rotate(split(self.k(x), self.kv_heads), rotation)
        v = split(self.v(x), self.kv_heads)
        if self.kv_heads != self.heads:
            shared = self.heads // self.kv_heads
            k, v = k.repeat_interleave(shared, dim=1), v.repeat_interleave(shared, dim=1)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o(y.transpose(1, 2).reshape(b, t, width))


def rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Channel j with j + K/2, as in the common open weights; x is [B, H, T, K]."""
    cos, sin = (table.to(x.dtype) for table in rotation)
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


class Channel(nn.Module):
    def __init__(self, config: dict):
        super().__init__()
        width, hidden = config["d_model"], config["ffn_hidden"]
        self.gate = nn.Linear(width, hidden, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Layer(nn.Module):
    def __init__(self, config: dict):
        super().__init__()
        self.mixer_norm, self.mixer = Norm(config), Mixer(config)
        self.channel_norm, self.channel = Norm(config), Channel(config)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        x = x + self.mixer(self.mixer_norm(x), rotation)
        return x + self.channel(self.channel_norm(x))


class Llama(nn.Module):
    """Its parameters have the names of the contract."""

    def __init__(self, config: dict, sequence_length: int):
        super().__init__()
        width = config["d_model"]
        self.embedding = nn.Embedding(config["vocab_size"], width)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config["n_layers"]))
        self.final_norm = Norm(config)
        self.head = None
        if not config["tie_embeddings"]:
            self.head = nn.Linear(width, config["vocab_size"], bias=False)
        half = width // config["n_heads"] // 2
        pairs = torch.arange(half, dtype=torch.float64)
        positions = torch.arange(sequence_length, dtype=torch.float64)
        angles = torch.outer(positions, config["rope_base"] ** (-pairs / half)).repeat(1, 2)
        self.register_buffer("cos", angles.cos().float(), persistent=False)
        self.register_buffer("sin", angles.sin().float(), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        rotation = (self.cos[: tokens.shape[1]], self.sin[: tokens.shape[1]])
        x = self.embedding(tokens)
        for layer in self.layers:
            x = layer(x, rotation)
        head = self.embedding if self.head is None else self.head
        return F.linear(self.final_norm(x), head.weight)

    def loss(self, tokens: Tensor) -> Tensor:
        """Nats per token; tokens is [B, T + 1]."""
        logits = self(tokens[:, :-1]).float()
        return F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())


def initialise(model: Llama, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, INIT_STD, generator=generator)


def make_optimizer(model: Llama, learning_rate: float) -> torch.optim.Optimizer:
    """Matrices of linear layers decay, nothing else; a tied embedding is an embedding."""
    named = list(model.named_parameters())
    is_matrix = lambda name, one: one.dim() > 1 and not name.startswith("embedding.")
    groups = [
        {"params": [one for name, one in named if is_matrix(name, one)]},
        {"params": [one for name, one in named if not is_matrix(name, one)], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        groups, lr=learning_rate, betas=BETAS, eps=EPS, weight_decay=WEIGHT_DECAY, fused=True
    )


def read_batches(args: argparse.Namespace, vocab_size: int) -> Tensor:
    """[steps, B, T + 1]."""
    tokens = np.fromfile(args.batches, dtype="<u2")
    shape = (args.untimed_steps + args.steps, args.batch_sequences, args.sequence_length + 1)
    if len(tokens) != np.prod(shape):
        raise SystemExit(f"{args.batches}: {len(tokens)} tokens; expected {np.prod(shape)}")
    if tokens.max() >= vocab_size:
        raise SystemExit(f"{args.batches}: token {tokens.max()}; `vocab_size` is {vocab_size}")
    return torch.from_numpy(tokens.astype(np.int64)).view(shape)


def wait_for(device: str) -> None:
    """Returns when the device has done all that it was given; the CPU always has."""
    if device == "cuda":
        torch.cuda.synchronize()


def train(args: argparse.Namespace, model: Llama, batches: Tensor) -> tuple[list, list]:
    """Losses of all steps, and the seconds of the timed ones."""
    optimizer = make_optimizer(model, args.learning_rate)
    parameters = list(model.parameters())
    loss_of = torch.compile(model.loss) if args.precision == "bf16-compile" else model.loss
    precision = contextlib.nullcontext
    if args.precision != "fp32":
        precision = lambda: torch.autocast(args.device, dtype=torch.bfloat16)
    losses, seconds = [], []
    for tokens in batches:
        wait_for(args.device)
        start = time.perf_counter()
        with precision():
            loss = loss_of(tokens)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, GRADIENT_CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        # Our trainer reads the loss of every step too, and then waits for its update.
        losses.append(loss.item())
        wait_for(args.device)
        seconds.append(time.perf_counter() - start)
    return losses, seconds[args.untimed_steps :]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, required=True, help="config.json of the contract")
    parser.add_argument("--batches", type=Path, required=True, help="rows of 16-bit token ids")
    parser.add_argument("--initial", type=Path, help="start from this model.safetensors")
    parser.add_argument("--sequence-length", type=int, default=256)
    parser.add_argument("--batch-sequences", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20, help="steps that are timed")
    parser.add_argument("--untimed-steps", type=int, default=3, help="steps before, not timed")
    parser.add_argument("--precision", choices=["fp32", "bf16", "bf16-compile"], default="fp32")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    args = parser.parse_args()
    for name in ("sequence_length", "batch_sequences", "steps", "threads"):
        if getattr(args, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1")
    return args


def main() -> None:
    args = arguments()
    if args.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("`--device cuda`: PyTorch finds no CUDA device")
    torch.set_num_threads(args.threads)
    config = read_config(args.config)
    batches = read_batches(args, config["vocab_size"]).to(args.device)
    model = Llama(config, args.sequence_length)
    initialise(model, args.seed)
    if args.initial:
        model.load_state_dict(load_file(args.initial))
    model.to(args.device)
    losses, seconds = train(args, model, batches)
    step_tokens = args.batch_sequences * args.sequence_length
    result = {
        "tokens_per_second": args.steps * step_tokens / sum(seconds),
        "median_tokens_per_second": step_tokens / statistics.median(seconds),
        "step_seconds": seconds,
        "losses": losses,
        "parameters_total": sum(one.numel() for one in model.parameters()),
        "precision": args.precision,
        "threads": torch.get_num_threads(),
        "sequence_length": args.sequence_length,
        "batch_sequences": args.batch_sequences,
        "device": torch.cuda.get_device_name() if args.device == "cuda" else "cpu",
        "torch_version": torch.__version__,
        "config": config,
    }
    if args.device == "cuda":
        # What the allocator took of the device, as our trainer counts it.
        result["memory_peak_bytes"] = torch.cuda.max_memory_reserved()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
