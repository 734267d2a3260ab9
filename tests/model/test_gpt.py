"""The whole model against a slow float64 twin, its cache, its causality, its documents."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from parbyte.model.config import ModelConfig
from parbyte.model.gpt import GPT

BOS = 1
VOCAB = 23
SMALL: dict[str, Any] = {
    "vocab_size": VOCAB,
    "bos_id": BOS,
    "num_layers": 3,
    "model_dim": 16,
    "num_heads": 4,
    "num_kv_heads": 2,
    "mlp_dim": 20,
    "rope_dims": 2,
    "resid_mix": False,
}
FEATURES: dict[str, dict[str, Any]] = {
    "bare": {},
    "full rotary": {"rope_dims": 4, "rope_base": 100.0},
    "no positions": {"rope_dims": 0},
    "ln scale": {"ln_scale": True},
    "xsa on all": {"xsa_layers": 3},
    "xsa on the last": {"xsa_layers": 1, "num_kv_heads": 1},
    "relu": {"mlp_slope": 0.0},
    "softcap": {"softcap": 2.0, "logit_scale": 3.0},
    "untied with bias": {"tied": False, "logit_bias": True},
    "static smear": {"smear": "static"},
    "gated smear": {"smear": "gated"},
    "bigram": {"bigram_buckets": 13, "bigram_dim": 6},
    "value embeddings": {"value_embed_dim": 5, "value_embed_layers": 2},
    "plain skips": {"skips": "plain", "num_layers": 5},
    "gated skips": {"skips": "gated", "num_layers": 4},
    "resid mix": {"resid_mix": True},
    "documents": {"document_mask": True},
    "loop": {"loop": (0, 1, 2)},
    "loop with skips": {
        "num_layers": 5,
        "loop": (1, 2, 1),
        "skips": "gated",
        "ln_scale": True,
        "xsa_layers": 2,
        "value_embed_dim": 5,
        "value_embed_layers": 4,
    },
    "everything": {
        "num_layers": 5,
        "ln_scale": True,
        "xsa_layers": 4,
        "softcap": 5.0,
        "logit_bias": True,
        "smear": "static",
        "bigram_buckets": 13,
        "bigram_dim": 6,
        "value_embed_dim": 5,
        "value_embed_layers": 2,
        "skips": "gated",
        "resid_mix": True,
        "document_mask": True,
    },
    "everything, gated and untied": {
        "num_layers": 4,
        "num_kv_heads": 4,
        "xsa_layers": 2,
        "smear": "gated",
        "bigram_buckets": 13,
        "value_embed_dim": 5,
        "value_embed_layers": 4,
        "skips": "plain",
        "resid_mix": True,
        "tied": False,
        "document_mask": True,
    },
}
each_feature = pytest.mark.parametrize("feature", FEATURES)


def make_config(feature: str) -> ModelConfig:
    return ModelConfig(**(SMALL | FEATURES[feature]))


def make_model(feature: str, scale: float = 0.4) -> GPT:
    """A model whose every parameter has moved away from its start, as training would do."""
    model = GPT(make_config(feature), seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def make_tokens(lanes: int = 2, length: int = 14) -> Tensor:
    """Two documents and more a lane, one of them starting at the front, one in mid-document."""
    tokens = torch.randint(2, VOCAB, (lanes, length), generator=torch.Generator().manual_seed(2))
    tokens[0, 0] = tokens[0, 6] = tokens[0, 11] = tokens[1, 4] = BOS
    return tokens


class Twin:
    """The forward pass of one lane, written from the formulas: float64, a loop over everything."""

    def __init__(self, model: GPT) -> None:
        self.config = model.config
        self.weights = {name: p.detach().double() for name, p in model.named_parameters()}

    def hidden(self, tokens: list[int]) -> Tensor:
        config, weights = self.config, self.weights
        start = self.start(tokens)
        visits = list(range(config.num_layers))
        if config.loop:
            first, last, repeats = config.loop
            visits[first : last + 1] = visits[first : last + 1] * (repeats + 1)
        x, half, skips = start, len(visits) // 2, []
        for visit, layer in enumerate(visits):
            if config.skips != "none" and visit >= half and skips:
                pair = visit - half
                skip = weights["skip_weights"][pair] * skips.pop()
                if config.skips == "gated":
                    gate = 1 / (1 + torch.exp(-weights["skip_gates"][pair]))
                    x = gate * x + (1 - gate) * skip
                else:
                    x = x + skip
            x = self.block(layer, x, start, tokens)
            if config.skips != "none" and visit < half:
                skips.append(x)
        return torch.stack([self.norm(row) for row in x])

    def start(self, tokens: list[int]) -> Tensor:
        config, weights = self.config, self.weights
        rows = []
        for t, token in enumerate(tokens):
            row = weights["embed.table"][token]
            if config.bigram_buckets:
                buckets = config.bigram_buckets
                bucket = buckets - 1
                if t > 0 and token != config.bos_id:
                    bucket = ((36313 * token) ^ (27191 * tokens[t - 1])) % (buckets - 1)
                table, proj = weights["embed.bigram.table"], weights["embed.bigram.proj"]
                row = row + weights["embed.bigram.scale"] * (proj @ table[bucket])
            rows.append(row)
        smeared = []
        for t, row in enumerate(rows):
            last = torch.zeros_like(row) if t == 0 or tokens[t] == config.bos_id else rows[t - 1]
            if config.smear == "static":
                gate = 1 / (1 + torch.exp(-weights["embed.smear.gate"]))
                row = gate * row + (1 - gate) * last
            elif config.smear == "gated":
                gate = 1 / (1 + torch.exp(-(weights["embed.smear.gate"] @ row[:12])))
                row = row + weights["embed.smear.scale"] * gate * last
            smeared.append(self.norm(row))
        return torch.stack(smeared)

    def block(self, layer: int, x: Tensor, start: Tensor, tokens: list[int]) -> Tensor:
        config, prefix = self.config, f"blocks.{layer}."
        weights = {n.removeprefix(prefix): w for n, w in self.weights.items() if prefix in n}
        scale = 1 / math.sqrt(layer + 1) if config.ln_scale else 1.0
        if config.resid_mix:
            x = weights["resid_mix"][0] * x + weights["resid_mix"][1] * start
        normed = torch.stack([self.norm(row) * scale for row in x])
        attended = self.attention(layer, weights, normed, tokens)
        x = x + weights["attn_scale"] * attended
        out = []
        for row in x:
            up = weights["mlp.up"] @ (self.norm(row) * scale)
            active = torch.where(up > 0, up, config.mlp_slope * up) ** 2
            out.append(row + weights["mlp_scale"] * (weights["mlp.down"] @ active))
        return torch.stack(out)

    def attention(
        self, layer: int, weights: dict[str, Tensor], normed: Tensor, tokens: list[int]
    ) -> Tensor:
        config, size = self.config, self.config.head_dim
        values = normed @ weights["attn.v"].T
        if layer >= config.num_layers - config.value_embed_layers:
            table, proj = self.weights["value_embed.table"], self.weights["value_embed.proj"]
            extra = table[tokens] @ proj.T * self.weights["value_embed.scale"]
            values = values + weights["attn.value_scale"] * extra
        outputs = []
        for t in range(len(tokens)):
            heads = []
            for h in range(config.num_heads):
                g = h // (config.num_heads // config.num_kv_heads)
                mine = slice(h * size, (h + 1) * size)
                group = slice(g * size, (g + 1) * size)
                query = self.turn(self.norm(weights["attn.q"][mine] @ normed[t]), t)
                query = query * weights["attn.gain"][h]
                first = 0
                if config.document_mask:
                    first = max([0] + [s for s in range(t + 1) if tokens[s] == config.bos_id])
                logits = []
                for s in range(first, t + 1):
                    key = self.turn(self.norm(weights["attn.k"][group] @ normed[s]), s)
                    logits.append(query @ key / math.sqrt(size))
                shares = torch.softmax(torch.stack(logits), dim=0)
                y = sum(
                    (share * values[first + i, group] for i, share in enumerate(shares)),
                    start=torch.zeros(size, dtype=torch.float64),
                )
                if layer >= config.num_layers - config.xsa_layers:
                    unit = values[t, group] / values[t, group].norm()
                    y = y - (y @ unit) * unit
                heads.append(y)
            outputs.append(weights["attn.out"] @ torch.cat(heads))
        return torch.stack(outputs)

    def turn(self, head: Tensor, position: int) -> Tensor:
        head, dims = head.clone(), self.config.rope_dims
        for j in range(dims // 2):
            angle = position * self.config.rope_base ** (-2 * j / dims)
            a, b = head[j].item(), head[j + dims // 2].item()
            head[j] = a * math.cos(angle) + b * math.sin(angle)
            head[j + dims // 2] = b * math.cos(angle) - a * math.sin(angle)
        return head

    def logits(self, hidden: Tensor) -> Tensor:
        config = self.config
        logits = config.logit_scale * hidden @ self.weights.get("head", self.table).T
        if config.logit_bias:
            logits = logits + self.weights["logit_bias"]
        return config.softcap * torch.tanh(logits / config.softcap) if config.softcap else logits

    @property
    def table(self) -> Tensor:
        return self.weights["embed.table"]

    @staticmethod
    def norm(row: Tensor) -> Tensor:
        return row / torch.sqrt((row * row).mean() + 1e-7)


@each_feature
def test_hidden_logits_and_loss_equal_a_float64_loop(feature: str) -> None:
    model, tokens = make_model(feature), make_tokens()
    twin = Twin(model)
    hidden = model.hidden(tokens)
    expected = torch.stack([twin.hidden(row.tolist()) for row in tokens])
    torch.testing.assert_close(hidden.double(), expected, atol=3e-5, rtol=1e-4)
    logits = twin.logits(expected)
    torch.testing.assert_close(model.logits(hidden).double(), logits, atol=2e-4, rtol=1e-4)
    targets = tokens.roll(-1, dims=1)
    targets[:, -1] = -100
    nats = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    assert model(tokens, targets).item() == pytest.approx(nats.item(), rel=1e-5)


@each_feature
@pytest.mark.parametrize("sizes", [(1,) * 14, (5, 1, 1, 4, 3), (14,)])
def test_cached_calls_equal_one_parallel_call(feature: str, sizes: tuple[int, ...]) -> None:
    model, tokens = make_model(feature), make_tokens()
    with torch.inference_mode():
        parallel = model.hidden(tokens)
        cache = model.new_cache(2, 16)
        for _ in range(2):
            pieces = [model.hidden(piece, cache) for piece in tokens.split(sizes, dim=1)]
            torch.testing.assert_close(torch.cat(pieces, dim=1), parallel, atol=1e-5, rtol=1e-5)
            assert cache.length == 14
            cache.reset()


@each_feature
def test_a_cache_of_fixed_shapes_goes_back_and_forgets_as_a_growing_one(feature: str) -> None:
    model, tokens = make_model(feature), make_tokens()
    found = []
    with torch.inference_mode():
        for fixed in (False, True):
            cache = model.new_cache(2, 12, fixed=fixed)
            model.hidden(tokens[:, :7], cache)
            mark = cache.mark()
            expected = model.hidden(tokens[:, 7:8], cache)
            model.hidden(tokens[:, 12:], cache)
            cache.rewind(mark)
            torch.testing.assert_close(model.hidden(tokens[:, 7:8], cache), expected)
            cache.drop_oldest(5)
            steps = [model.hidden(token, cache) for token in tokens[:, 8:].split(1, dim=1)]
            found.append(torch.cat(steps, dim=1))
            assert cache.length == cache.position_1.item() == 9
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-5)


@each_feature
def test_a_changed_token_moves_no_earlier_row(feature: str) -> None:
    model, tokens = make_model(feature), make_tokens()
    with torch.inference_mode():
        before = model.hidden(tokens)
        for flipped in (3, 6, 13):
            changed = tokens.clone()
            changed[:, flipped] = (changed[:, flipped] + 1) % VOCAB
            after = model.hidden(changed)
            assert torch.equal(after[:, :flipped], before[:, :flipped])
            assert not torch.equal(after[:, flipped], before[:, flipped])


@each_feature
def test_with_a_document_mask_a_document_does_not_know_what_precedes_it(feature: str) -> None:
    model = make_model(feature)
    model.config = dataclasses.replace(model.config, document_mask=True)
    tokens = make_tokens()[:1]
    with torch.inference_mode():
        packed = model.hidden(tokens)[:, 6:11]
        alone = model.hidden(tokens[:, 6:11])
    torch.testing.assert_close(packed, alone, atol=1e-5, rtol=1e-5)


def test_without_a_document_mask_a_document_does_know_what_precedes_it() -> None:
    model, tokens = make_model("bare"), make_tokens()[:1]
    with torch.inference_mode():
        packed, alone = model.hidden(tokens)[:, 6:11], model.hidden(tokens[:, 6:11])
    assert float((packed - alone).abs().max()) > 1e-2


@each_feature
def test_every_parameter_gets_a_gradient(feature: str) -> None:
    model, tokens = make_model(feature), make_tokens()
    model(tokens, tokens.roll(-1, dims=1)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("feature", ["everything", "everything, gated and untied"])
def test_training_from_the_initial_weights_reaches_every_parameter(feature: str) -> None:
    model = GPT(make_config(feature), seed=0)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    tokens = make_tokens()
    for _ in range(4):
        optimizer.zero_grad()
        model(tokens, tokens.roll(-1, dims=1)).backward()
        optimizer.step()
    for name, parameter in model.named_parameters():
        assert not torch.equal(parameter, before[name]), name


@each_feature
def test_the_initial_loss_is_that_of_a_uniform_guess(feature: str) -> None:
    model, tokens = GPT(make_config(feature), seed=0), make_tokens()
    assert model(tokens, tokens.roll(-1, dims=1)).item() == pytest.approx(math.log(VOCAB), abs=0.05)


def test_a_loop_that_is_off_is_the_plain_network() -> None:
    model, tokens = make_model("loop with skips"), make_tokens()
    plain = GPT(dataclasses.replace(model.config, loop=()), seed=0).eval()
    weights = dict(model.named_parameters())
    with torch.no_grad():
        for name, parameter in plain.named_parameters():
            parameter.copy_(weights[name][: len(parameter)])
    looped = model.hidden(tokens)
    model.set_looping(False)
    torch.testing.assert_close(model.hidden(tokens), plain.hidden(tokens), atol=0, rtol=0)
    model.set_looping(True)
    assert torch.equal(model.hidden(tokens), looped)
    assert float((looped - plain.hidden(tokens)).detach().abs().max()) > 1e-2


def test_the_record_visits_its_eleven_layers_seventeen_times() -> None:
    config = ModelConfig(num_layers=11, loop=(3, 5, 2), skips="gated", xsa_layers=11)
    assert config.visits == (0, 1, 2, 3, 4, 5, 3, 4, 5, 3, 4, 5, 6, 7, 8, 9, 10)
    assert config.num_skips == 8
    assert (config.tail_visits(11), config.tail_visits(2), config.tail_visits(0)) == (17, 2, 0)


def test_initial_weights_are_orthogonal_inputs_and_zero_outputs() -> None:
    model = GPT(make_config("everything"), seed=0)
    weights = dict(model.named_parameters())
    for name in ("q", "k", "v"):
        matrix = weights[f"blocks.1.attn.{name}"]
        torch.testing.assert_close(matrix @ matrix.T, torch.eye(len(matrix)), atol=1e-5, rtol=0)
    up = weights["blocks.1.mlp.up"]
    torch.testing.assert_close(up.T @ up, torch.eye(16), atol=1e-5, rtol=0)
    assert not weights["blocks.1.attn.out"].any()
    assert not weights["blocks.1.mlp.down"].any()
    assert not weights["embed.bigram.table"].any()
    assert weights["embed.bigram.proj"].any()
    assert weights["embed.table"].std().item() == pytest.approx(0.005, rel=0.2)


def test_one_seed_gives_the_same_weights_and_another_seed_others() -> None:
    first, same, other = (GPT(make_config("everything"), seed=seed) for seed in (3, 3, 4))
    for name, value in first.state_dict().items():
        assert torch.equal(value, same.state_dict()[name]), name
    assert not torch.equal(first.embed.table, other.embed.table)


def test_weights_that_come_from_a_file_need_no_seed() -> None:
    source = make_model("everything")
    model = GPT(source.config, seed=None)
    model.load_state_dict(source.state_dict())
    assert torch.equal(model.hidden(make_tokens()), source.hidden(make_tokens()))


def test_bfloat16_follows_float32_and_leaves_the_masters_alone() -> None:
    model, tokens = make_model("everything", scale=0.1), make_tokens()
    targets = tokens.roll(-1, dims=1)
    exact = model(tokens, targets)
    model.set_compute_dtype(torch.bfloat16)
    assert model.hidden(tokens).dtype == torch.bfloat16
    narrow = model(tokens, targets)
    assert narrow.dtype == torch.float32
    assert narrow.item() == pytest.approx(exact.item(), rel=2e-2)
    narrow.backward()
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    cache = model.new_cache(2, 14)
    with torch.inference_mode():
        torch.testing.assert_close(model.hidden(tokens, cache), model.hidden(tokens))


def test_positions_beyond_the_stored_table_are_computed() -> None:
    model = GPT(ModelConfig(**SMALL), seed=0)
    long, stored = model._rotary(5000), model._rotary(4096)
    assert torch.equal(long[0][:4096], stored[0])
    assert torch.equal(long[1][:4096], stored[1])
    assert model.new_cache(1, 5000).cos.shape[0] == 5000


def test_a_cache_made_in_inference_mode_spoils_no_later_training() -> None:
    model, tokens = make_model("everything"), make_tokens()
    with torch.inference_mode():
        model.hidden(tokens, model.new_cache(2, 14))
    model(tokens, tokens.roll(-1, dims=1)).backward()


@pytest.mark.parametrize(
    ("num_parameters", "values"),
    [
        (17_059_912, {"num_layers": 9, "mlp_dim": 1024, "rope_dims": 64, "mlp_slope": 0.0}),
        (
            27_067_484,
            {
                "num_layers": 11,
                "mlp_dim": 1536,
                "smear": "static",
                "bigram_buckets": 3072,
                "bigram_dim": 112,
                "value_embed_dim": 128,
                "value_embed_layers": 2,
            },
        ),
    ],
)
def test_contest_models_have_their_published_sizes(
    num_parameters: int, values: dict[str, Any]
) -> None:
    contest = {"vocab_size": 1024, "model_dim": 512, "num_heads": 8, "num_kv_heads": 4}
    config = ModelConfig(**(contest | {"skips": "plain"} | values))
    with torch.device("meta"):
        model = GPT(config, seed=None)
    assert sum(p.numel() for p in model.parameters()) == num_parameters


@pytest.mark.slow
@pytest.mark.parametrize("feature", ["everything", "everything, gated and untied"])
def test_the_loss_compiles_into_one_graph(feature: str) -> None:
    torch._dynamo.reset()
    model, tokens = make_model(feature), make_tokens()
    targets = tokens.roll(-1, dims=1)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True, dynamic=False)
    compiled(tokens, targets).backward()
    grads = {name: p.grad for name, p in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    model(tokens, targets).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(grads[name], parameter.grad, atol=1e-5, rtol=1e-4)


def test_dropout_changes_training_alone_and_only_by_its_seed() -> None:
    model = GPT(ModelConfig(**SMALL), seed=0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    tokens_BT = torch.randint(2, VOCAB, (2, 9))
    plain = model(tokens_BT, tokens_BT).item()
    model.set_dropout(0.5)

    def loss(seed: int) -> float:
        torch.manual_seed(seed)
        return model(tokens_BT, tokens_BT).item()

    assert loss(0) == loss(0) != loss(1)
    assert loss(0) != plain
    model.eval()
    assert loss(0) == loss(1) == plain
