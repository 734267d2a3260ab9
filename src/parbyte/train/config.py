"""`[train]`: the budget, the batch, the rates, the averaging and the bookkeeping of a training."""

from dataclasses import dataclass

from parbyte.base.settings import require, setting


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that decides how weights move; the model's shape is in `[model]`."""

    seconds: float = setting(
        180.0, low=0.0, unit="seconds", doc="wall-clock budget; ignored when steps > 0"
    )
    steps: int = setting(
        0, low=0, doc="number of steps for an exact reproduction; 0: use the budget in seconds"
    )
    batch_tokens: int = setting(2048, low=1, doc="tokens of one step, over all ranks")
    seq_len: int = setting(256, low=2, doc="tokens of one training window")
    micro_batch_tokens: int = setting(
        0, low=0, doc="tokens of one forward on one rank; 0: the rank's whole share of the batch"
    )

    matrix_lr: float = setting(0.02, low=0.0, doc="Muon's rate: attention, MLP, projections")
    embed_lr: float = setting(0.01, low=0.0, doc="AdamW's rate: the token table")
    table_lr: float = setting(0.01, low=0.0, doc="AdamW's rate: bigram and value tables")
    scalar_lr: float = setting(0.01, low=0.0, doc="AdamW's rate: vectors, gates, gains")
    momentum: float = setting(0.95, low=0.0, high=0.9999, doc="Muon's momentum after its warm-up")
    momentum_start: float = setting(0.85, low=0.0, high=0.9999, doc="Muon's momentum at step 0")
    momentum_warmup_steps: int = setting(300, low=0, doc="steps from momentum_start to momentum")
    weight_decay: float = setting(0.05, low=0.0, doc="decoupled decay of Muon's matrices, per lr")
    embed_weight_decay: float = setting(
        0.05, low=0.0, doc="decoupled decay of the token table and the bigram and value tables"
    )
    scalar_weight_decay: float = setting(0.0, low=0.0, doc="decoupled decay of scalars")
    beta1: float = setting(0.9, low=0.0, high=0.9999, doc="AdamW's first-moment memory")
    beta2: float = setting(0.98, low=0.0, high=0.99999, doc="AdamW's second-moment memory")
    grad_clip: float = setting(0.0, low=0.0, doc="largest global gradient norm; 0: no clipping")
    newton_schulz: str = setting(
        "muon", choices=("muon", "polar"), doc="coefficients of Muon's orthogonalisation"
    )
    row_normalize: bool = setting(
        False, doc="divide each row of Muon's update by its norm before orthogonalisation"
    )

    smear_start: float = setting(
        3.0,
        low=-20.0,
        high=20.0,
        doc="logit of a position's own share in 'model.smear' = 'static' at step 0; 0: a half",
    )
    warmup_steps: int = setting(20, low=0, doc="steps of linear rise of every rate")
    warmdown: float = setting(
        0.3, low=0.0, high=1.0, doc="last fraction of the budget, in which the rates fall linearly"
    )
    min_lr: float = setting(
        0.02, low=0.0, high=1.0, doc="fraction of each rate that is left at the end"
    )
    loop_at: float = setting(
        0.0,
        low=0.0,
        high=1.0,
        doc="fraction of the budget after which the layers of 'model.loop' are repeated",
    )
    ema: float = setting(
        0.0, low=0.0, high=1.0, doc="averaging memory as a fraction of the steps so far; 0: off"
    )
    ema_decay: float = setting(
        0.0, low=0.0, high=0.999999, doc="averaging with a fixed memory: 0.997, 333 steps; 0: off"
    )

    mtp_heads: int = setting(
        0, low=0, high=16, doc="heads for tokens further ahead, in training only"
    )
    mtp_weight: float = setting(0.1, low=0.0, doc="what their mean nats count in the loss")

    dropout: float = setting(
        0.0,
        low=0.0,
        high=0.9,
        doc="share of the embedding's and of every layer's outputs dropped in training",
    )

    qat: str = setting(
        "off",
        choices=("off", "straight", "soft", "noise"),
        doc="late in training the network sees weights: exact | rounded on the packer's grid, "
        "gradient straight through | drawn towards it, ever harder | with noise of its step",
    )
    qat_below: float = setting(
        0.15, low=1e-6, high=1.0, doc="'late' is when the rates have fallen below this share"
    )

    dtype: str = setting(
        "float32",
        choices=("auto", "float32", "bfloat16"),
        doc="dtype of activations; auto: bfloat16 where the hardware multiplies it",
    )
    compile: bool = setting(False, doc="torch.compile the forward and, on cuda, the optimizer")
    device: str = setting("auto", choices=("auto", "cpu", "cuda"), doc="where training runs")
    threads: int = setting(0, low=0, high=1024, doc="CPU threads of one rank; 0: its share of all")
    seed: int = setting(0, low=0, doc="decides the first weights and the order of the batches")
    order: str = setting(
        "blocks",
        choices=("blocks", "documents"),
        doc="what is shuffled each epoch: stretches of the stream, or documents and then stretches",
    )

    checkpoint_seconds: float = setting(
        60.0, low=0.0, unit="seconds", doc="time between checkpoints; 0: none, a kill starts anew"
    )
    log_every_seconds: float = setting(
        1.0, low=0.0, unit="seconds", doc="time between lines of log.jsonl; 0: every step"
    )
    dev_tokens: int = setting(
        65_536, low=0, doc="development tokens of one measurement outside the clock; 0: never"
    )
    dev_every_seconds: float = setting(
        0.0, low=0.0, unit="seconds", doc="time between development figures; 0: only at the end"
    )

    def __post_init__(self) -> None:
        require(
            self.seconds > 0 or self.steps > 0,
            "train.seconds",
            got=self.seconds,
            want="above 0 unless train.steps is",
        )
        require(
            self.ema == 0 or self.ema_decay == 0,
            "train.ema_decay",
            got=self.ema_decay,
            want=f"0 beside train.ema = {self.ema:g}: one average at a time",
        )
        require(
            self.qat == "off" or (self.warmdown > 0 and self.min_lr < self.qat_below),
            "train.qat_below",
            got=self.qat_below,
            want=f"above train.min_lr = {self.min_lr:g}, and train.warmdown above 0: else "
            f"qat = '{self.qat}' would never turn on",
        )
        require(
            self.mtp_heads < self.seq_len - 1,
            "train.mtp_heads",
            got=self.mtp_heads,
            want=f"so few that a window of train.seq_len = {self.seq_len} has a token for each",
        )
        rows, rest = divmod(self.batch_tokens, self.seq_len)
        require(
            rows > 0 and rest == 0,
            "train.batch_tokens",
            got=self.batch_tokens,
            want=f"a multiple of train.seq_len = {self.seq_len}",
        )
        require(
            self.micro_batch_tokens % self.seq_len == 0,
            "train.micro_batch_tokens",
            got=self.micro_batch_tokens,
            want=f"0 or a multiple of train.seq_len = {self.seq_len}",
        )

    def micro_rows(self, world_size: int) -> int:
        """Return the rows of one forward on one rank.

        Raises RecipeError if the batch does not divide over the ranks and their forwards.
        """
        local_tokens, rest = divmod(self.batch_tokens, world_size)
        require(
            rest == 0 and local_tokens % self.seq_len == 0,
            "train.batch_tokens",
            got=self.batch_tokens,
            want=f"a multiple of {world_size} ranks x train.seq_len = {self.seq_len}",
        )
        micro_tokens = self.micro_batch_tokens or local_tokens
        if micro_tokens > local_tokens:
            micro_tokens = local_tokens
        require(
            local_tokens % micro_tokens == 0,
            "train.micro_batch_tokens",
            got=self.micro_batch_tokens,
            want=f"a divisor of one rank's share of a batch, {local_tokens:,} tokens",
        )
        return micro_tokens // self.seq_len
