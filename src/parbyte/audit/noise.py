"""T6: the noise bound, a theorem: what nobody can predict, nobody can shorten.

For tokens drawn from a known law q and any prices that sum to at most one,
    P(price <= ideal - k bits) <= 2^-k,        ideal = -log2 q(tokens)
(Markov's inequality on p / q). So a price k bits below the ideal proves, at level 2^-k, that the
prices are no code. Uniform noise and noise after Zipf's law, long enough for tables to fill.
"""

import numpy as np

from parbyte.audit.scorer import Scorer
from parbyte.audit.subject import AuditConfig, Subject, noise_stream, ordinary_ids, zipf_weights
from parbyte.audit.verdict import CheckResult, Finding
from parbyte.base.units import nats_to_bits

_SLACK_BITS = 64.0


def check_noise(subject: Subject, config: AuditConfig) -> CheckResult:
    """T6: price both kinds of noise; more than 64 bits below the ideal proves invalidity."""
    scorer = subject.full_scorer or subject.scorer
    num_ids = len(ordinary_ids(scorer))
    laws = {"uniform": np.full(num_ids, 1.0 / num_ids), "zipf": zipf_weights(num_ids)}
    figures, findings = {}, []
    for place, (law, weights) in enumerate(laws.items()):
        rng = np.random.default_rng([config.seed, 6, place])
        tokens, ideal_bits, bits = _price(scorer, config.noise_tokens, weights, rng)
        figures[law] = {"tokens": tokens, "ideal_bits": ideal_bits, "bits": bits}
        beaten = ideal_bits - bits
        if beaten > _SLACK_BITS:
            findings.append(
                Finding(
                    check="T6",
                    severity="proof of invalidity",
                    evidence=(
                        f"{tokens:,} tokens of {law} noise hold {ideal_bits:,.0f} bits and are "
                        f"priced at {bits:,.0f}: p < 2^-{beaten:,.0f}"
                    ),
                    figures={"law": law, "bits_below": beaten, "log2_p": -beaten},
                )
            )
    return CheckResult(check="T6", findings=tuple(findings), figures=figures)


def _price(
    scorer: Scorer, length: int, weights: np.ndarray, rng: np.random.Generator
) -> tuple[int, float, float]:
    """Return the number of priced tokens, their ideal and their price in bits."""
    stream_N = noise_stream(scorer, length, rng, weights)
    scores = scorer.score(stream_N)
    # What is not priced is T8's business; the bound holds for those that are.
    is_priced_N = ~np.isnan(scores.nats_N)
    if scorer.bos_id is not None:
        is_priced_N &= stream_N != scorer.bos_id
    weight_of = np.ones(scorer.vocab_size)
    weight_of[ordinary_ids(scorer)] = weights
    ideal = float(-np.log2(weight_of[stream_N[is_priced_N]]).sum())
    return int(is_priced_N.sum()), ideal, nats_to_bits(float(scores.nats_N[is_priced_N].sum()))
