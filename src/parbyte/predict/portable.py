"""The law of `predict.neural` in arithmetic that gives the same bits on every machine.

Same windows, same network; but every sum runs in a fixed order through kernels.portable, and both
`step` and `log_probs` are those kernels. Threads change how the lanes are shared out, no number.
Shapes: B lanes, T positions, C inputs before the chunk, L layers, D model_dim, V vocab.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from parbyte.kernels.portable.net import (
    SMEAR_KINDS,
    Memory,
    Net,
    new_memory,
    pack_matrix,
    reset_,
    rotary_tables,
    sigmoid,
)
from parbyte.kernels.portable.walk import walk
from parbyte.model.gpt import GPT
from parbyte.predict.predictor import Predictor

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


class PortablePredictor(Predictor):
    """The artifact's network as a predictor whose every row is reproducible anywhere."""

    is_portable = True

    def __init__(self, model: GPT, *, window: int, stride: int) -> None:
        assert 1 <= stride <= window
        self.vocab_size = model.config.vocab_size
        self.chunk = stride
        self._net = build_net(model, window)
        self._window = window
        self.restore()

    def log_probs(self, tokens_BT: Tensor) -> Tensor:
        """See Predictor. The kernels of `step`, many positions in one call, in a second memory."""
        assert tokens_BT.shape[1] <= self.chunk
        context_BC, first_B1 = self._past(len(tokens_BT))
        chunk_BT = np.concatenate([first_B1, _to_ints(tokens_BT)[:, :-1]], axis=1)
        self._scored = _Tape.ready_for(self._scored, self._net, context_BC, self._window)
        return torch.from_numpy(self._scored.extend(chunk_BT))

    def step(self, last_B: Tensor) -> Tensor:
        """See Predictor. One position through the kernels."""
        last_B1 = _to_ints(last_B)[:, None]
        if not self._in_chunk or self._stepped is None:
            context_BC, _ = self._past(len(last_B))
            self._stepped = _Tape.ready_for(self._stepped, self._net, context_BC, self._window)
            self._num_steps, self._in_chunk = 0, True
        self._num_steps += 1
        assert self._num_steps <= self.chunk, "observe() comes after `chunk` steps"
        return torch.from_numpy(self._stepped.extend(last_B1)[:, 0])

    def observe(self, chunk_BT: Tensor) -> None:
        """See Predictor. The window moves on; the memories wait for the next call."""
        context_BC, first_B1 = self._past(len(chunk_BT))
        tokens_BT = _to_ints(chunk_BT)
        inputs_BC = np.concatenate([context_BC, first_B1, tokens_BT[:, :-1]], axis=1)
        self._context_BC = inputs_BC[:, max(0, inputs_BC.shape[1] - self._window + self.chunk) :]
        self._first_B1 = tokens_BT[:, -1:]
        self._in_chunk = False

    def restore(self) -> None:
        """See Predictor. Forgets the past; the weights never change."""
        self._context_BC: Ints | None = None
        self._first_B1: Ints | None = None
        self._stepped: _Tape | None = None
        self._scored: _Tape | None = None
        self._in_chunk, self._num_steps = False, 0

    def _past(self, num_lanes: int) -> tuple[Ints, Ints]:
        """Return the context int64[B, C] and the chunk's first input int64[B, 1]."""
        if self._context_BC is None or self._first_B1 is None:
            bos_B1 = np.full((num_lanes, 1), self._net.bos_id, np.int64)
            return bos_B1[:, :0], bos_B1
        return self._context_BC, self._first_B1


class _Tape:
    """A memory, and the inputs that it holds."""

    def __init__(self, net: Net, memory: Memory) -> None:
        self._net, self._memory = net, memory
        self._num_lanes = len(memory.last_token)
        self._parts: list[Ints] = []
        self._length = 0

    @staticmethod
    def ready_for(tape: "_Tape | None", net: Net, context_BC: Ints, window: int) -> "_Tape":
        """Return a tape that holds the context and nothing else; the one given often does so."""
        num_lanes = len(context_BC)
        if tape is None or tape._num_lanes != num_lanes:
            tape = _Tape(net, new_memory(net, num_lanes, window))
        elif tape._holds(context_BC):
            return tape
        reset_(tape._memory)
        tape._parts, tape._length = [], 0
        if context_BC.shape[1]:
            tape.extend(context_BC, skip=context_BC.shape[1])
        return tape

    def extend(self, inputs_BT: Ints, skip: int = 0) -> Floats:
        """Append inputs; return the rows after them, float32[B, T - skip, V]."""
        capacity, vocab_size = self._memory.documents.shape[1], len(self._net.embed)
        # The kernels check no bounds.
        assert self._length + inputs_BT.shape[1] <= capacity, "more tokens than the window holds"
        assert inputs_BT.min() >= 0 and inputs_BT.max() < vocab_size, "no such token"
        threads = torch.get_num_threads()
        rows = walk(self._net, self._memory, inputs_BT, self._length, skip=skip, threads=threads)
        self._parts.append(inputs_BT)
        self._length += inputs_BT.shape[1]
        return rows

    def _holds(self, context_BC: Ints) -> bool:
        if self._length != context_BC.shape[1]:
            return False
        return self._length == 0 or np.array_equal(np.concatenate(self._parts, 1), context_BC)


def build_net(model: GPT, window: int) -> Net:
    """Return the model's weights as the kernels want them, for positions below `window`."""
    config = model.config
    weights = {name: _to_floats(value) for name, value in model.named_parameters()}
    cos, sin = rotary_tables(window, config.head_dim, config.rope_dims, config.rope_base)
    rows_D, rows_U = np.zeros((0, config.model_dim), np.float32), np.zeros(0, np.float32)
    smear_gate = weights.get("embed.smear.gate", rows_U)
    bias = weights.get("logit_bias", np.zeros(config.vocab_size, np.float32))
    skip_gates = weights.get("skip_gates")
    return Net(
        embed=weights["embed.table"],
        **_looked_up("bigram", "embed.bigram", weights),
        **_looked_up("value", "value_embed", weights),
        smear_gate=sigmoid(smear_gate) if config.smear == "static" else smear_gate,
        smear_scale=weights.get("embed.smear.scale", rows_U),
        **_layers(model, weights),
        skip_weights=weights.get("skip_weights", rows_D),
        skip_gates=rows_D if skip_gates is None else sigmoid(skip_gates),
        head=pack_matrix(weights["embed.table" if config.tied else "head"]),
        bias=bias,
        cos=cos,
        sin=sin,
        mlp_slope=np.float32(config.mlp_slope),
        softcap=np.float32(config.softcap),
        logit_scale=np.float32(config.logit_scale),
        query_scale=np.float32(1.0 / math.sqrt(config.head_dim)),
        num_kv_heads=config.num_kv_heads,
        head_dim=config.head_dim,
        first_value=(config.num_heads + config.num_kv_heads) * config.head_dim,
        value_width=config.num_kv_heads * config.head_dim,
        rope_dims=config.rope_dims,
        num_outputs=config.vocab_size,
        bos_id=config.bos_id,
        smear=SMEAR_KINDS.index(config.smear),
        value_layers=config.tail_visits(config.value_embed_layers),
        xsa_layers=config.tail_visits(config.xsa_layers),
        document_mask=config.document_mask,
    )


def _looked_up(field: str, name: str, weights: dict[str, Floats]) -> dict[str, Floats]:
    """Return a side table and its packed projection, of no rows if the network lacks them."""
    if f"{name}.table" not in weights:
        nothing = np.zeros((0, 0), np.float32)
        return {f"{field}_table": nothing, f"{field}_proj": nothing[None]}
    proj = weights[f"{name}.proj"] * weights[f"{name}.scale"]
    return {f"{field}_table": weights[f"{name}.table"], f"{field}_proj": pack_matrix(proj)}


def _layers(model: GPT, weights: dict[str, Floats]) -> dict[str, Floats]:
    """Return the blocks' arrays, one for each visit; scales are folded as in model.gpt.Block."""
    config = model.config
    parts: dict[str, list[Floats]] = {}
    for layer in config.visits:
        name = f"blocks.{layer}."
        q, k, v, out = (weights[f"{name}attn.{part}"] for part in ("q", "k", "v", "out"))
        up, down = weights[f"{name}mlp.up"], weights[f"{name}mlp.down"]
        scale = np.float32(1.0 / math.sqrt(layer + 1) if config.ln_scale else 1.0)
        kept = np.stack([np.ones(config.model_dim), np.zeros(config.model_dim)])
        layer_arrays = {
            "mix": weights.get(f"{name}resid_mix", kept.astype(np.float32)),
            "qkv": pack_matrix(np.concatenate([q, k, v]) * scale),
            "gain": np.concatenate(
                [weights[f"{name}attn.gain"], np.ones(config.num_kv_heads, np.float32)]
            ),
            "out": pack_matrix(out * weights[f"{name}attn_scale"][:, None]),
            "up": pack_matrix(up * scale),
            "down": pack_matrix(down * weights[f"{name}mlp_scale"][:, None]),
            "value_scale": weights.get(f"{name}attn.value_scale", np.zeros(1, np.float32))[0],
        }
        for field, array in layer_arrays.items():
            parts.setdefault(field, []).append(array)
    return {field: np.stack(arrays) for field, arrays in parts.items()}


def _to_floats(value: Tensor) -> Floats:
    return np.ascontiguousarray(value.detach().to("cpu", torch.float32).numpy())


def _to_ints(tokens: Tensor) -> Ints:
    return tokens.to("cpu", torch.int64).numpy()
