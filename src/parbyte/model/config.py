"""`[model]`: the shape of the transformer and its optional parts."""

from dataclasses import dataclass

from parbyte.base.settings import require, setting

_MOST_REPEATS = 16


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Say what the network looks like; `vocab_size` and `bos_id` come from the tokenizer.

    Raises RecipeError when keys contradict each other (heads that do not divide the width, ...).
    """

    vocab_size: int = setting(0, low=0, doc="token ids; filled in from the tokenizer")
    bos_id: int = setting(0, low=0, doc="id that starts a document; filled in from the tokenizer")
    num_layers: int = setting(2, low=1, high=64, doc="transformer blocks")
    model_dim: int = setting(128, low=8, high=8192, doc="width of the residual stream")
    num_heads: int = setting(4, low=1, doc="query heads; divides model_dim")
    num_kv_heads: int = setting(4, low=1, doc="key and value heads; divides num_heads")
    mlp_dim: int = setting(384, low=1, doc="hidden width of the MLP")
    rope_dims: int = setting(16, low=0, doc="rotated dims of each head, even; 0 = no positions")
    rope_base: float = setting(10_000.0, low=2.0, doc="base of the rotary frequencies")
    qk_gain: float = setting(1.5, low=0.0, doc="initial gain of each query head after QK-norm")
    ln_scale: bool = setting(False, doc="scale the normed inputs of layer i by 1/sqrt(i + 1)")
    xsa_layers: int = setting(0, low=0, doc="exclusive self-attention on the last n layers")
    mlp_slope: float = setting(0.5, low=0.0, high=1.0, doc="leaky slope before squaring; 0 = ReLU")
    softcap: float = setting(0.0, low=0.0, doc="c of c * tanh(logits / c); 0 = off")
    logit_scale: float = setting(1.0, low=1e-6, doc="constant factor of the logits")
    logit_bias: bool = setting(False, doc="learn one bias per token")
    smear: str = setting(
        "none",
        choices=("none", "static", "gated"),
        doc="mix the previous embedding in: never, by learned dims, by an input-dependent gate",
    )
    bigram_buckets: int = setting(0, low=0, doc="rows of the bigram-hash table; 0 = off")
    bigram_dim: int = setting(128, low=1, doc="width of the bigram-hash table")
    value_embed_dim: int = setting(0, low=0, doc="width of the value-embedding table; 0 = off")
    value_embed_layers: int = setting(0, low=0, doc="value embeddings on the last n layers")
    skips: str = setting(
        "none",
        choices=("none", "plain", "gated"),
        doc="U-Net skips from the first half of the layers to the second",
    )
    loop: tuple[int, ...] = setting(
        (), low=0, high=64, doc="[first, last, n]: pass layers first..last n more times; [] = off"
    )
    resid_mix: bool = setting(True, doc="mix the input embedding into every layer's input")
    tied: bool = setting(True, doc="one table for input and output")
    embed_init_std: float = setting(0.005, low=0.0, doc="initial std of the token table")
    document_mask: bool = setting(False, doc="attention does not look across document starts")

    def __post_init__(self) -> None:
        heads, kv_heads, layers = self.num_heads, self.num_kv_heads, self.num_layers
        require(
            self.model_dim % heads == 0,
            "model.num_heads",
            got=heads,
            want=f"a divisor of model_dim = {self.model_dim}",
        )
        require(
            heads % kv_heads == 0,
            "model.num_kv_heads",
            got=kv_heads,
            want=f"a divisor of num_heads = {heads}",
        )
        require(
            self.rope_dims % 2 == 0 and self.rope_dims <= self.head_dim,
            "model.rope_dims",
            got=self.rope_dims,
            want=f"even and at most head_dim = {self.head_dim}",
        )
        self._check_loop()
        for key in ("xsa_layers", "value_embed_layers"):
            got = getattr(self, key)
            require(got <= layers, f"model.{key}", got=got, want=f"at most num_layers = {layers}")
            require(
                self._is_tail(got),
                f"model.{key}",
                got=got,
                want=f"a number of last layers that holds all or none of loop = {list(self.loop)}",
            )
        require(
            self.bigram_buckets != 1,
            "model.bigram_buckets",
            got=self.bigram_buckets,
            want="0, or at least 2 (one bucket is for a missing previous token)",
        )
        require(
            (self.value_embed_dim > 0) == (self.value_embed_layers > 0),
            "model.value_embed_layers",
            got=self.value_embed_layers,
            want=f"0 exactly when value_embed_dim (now {self.value_embed_dim}) is 0",
        )
        require(
            self.vocab_size == 0 or self.bos_id < self.vocab_size,
            "model.bos_id",
            got=self.bos_id,
            want=f"below vocab_size = {self.vocab_size}",
        )

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return self.model_dim // self.num_heads

    @property
    def visits(self) -> tuple[int, ...]:
        """Layers in the order in which a forward pass visits them.

        Source: depth recurrence of openai/parameter-golf PRs 1204, 1394 and 1445.
        """
        layers = tuple(range(self.num_layers))
        if not self.loop:
            return layers
        first, last, repeats = self.loop
        return layers[:first] + layers[first : last + 1] * (1 + repeats) + layers[last + 1 :]

    @property
    def num_skips(self) -> int:
        """Pairs of visits joined by a U-Net skip."""
        return 0 if self.skips == "none" else len(self.visits) // 2

    def tail_visits(self, num_last_layers: int) -> int:
        """Return how many visits, the last ones, the last layers take."""
        first_layer = self.num_layers - num_last_layers
        return sum(layer >= first_layer for layer in self.visits)

    def _check_loop(self) -> None:
        if not self.loop:
            return
        is_span = len(self.loop) == 3 and self.loop[0] <= self.loop[1] < self.num_layers
        require(
            is_span and 1 <= self.loop[2] <= _MOST_REPEATS,
            "model.loop",
            got=list(self.loop),
            want=f"[first, last, n] with first <= last < num_layers = {self.num_layers} and n of "
            f"1..{_MOST_REPEATS}",
        )

    def _is_tail(self, num_last_layers: int) -> bool:
        if not self.loop:
            return True
        first_layer = self.num_layers - num_last_layers
        return first_layer <= self.loop[0] or first_layer > self.loop[1]
