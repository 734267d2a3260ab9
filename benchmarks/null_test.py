"""Price what nobody can predict, and sweep the tables' size: what the hashed n-gram mixers score.

    python benchmarks/null_test.py seed             PR 1430's mixer on noise, one rank's share
    python benchmarks/null_test.py once full_c      the same, each token counted once; PR 1605's
    python benchmarks/null_test.py sweep            noise at ten table sizes, and exact counts
    python benchmarks/null_test.py text --run RUN   the same on a run's held-out text

The noise is uniform over 1,024 tokens and the model under the mixer knows that: 10 bits a token is
what it holds and what every code pays. Each part writes its figures into results/null_test.json.
"""

import argparse
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from parbyte.audit.foreign import FunctionScorer
from parbyte.audit.noise import check_noise
from parbyte.audit.scorer import Stream
from parbyte.audit.subject import AuditConfig, Subject
from parbyte.base.clock import Stopwatch
from parbyte.base.files import write_bytes
from parbyte.base.machine import describe_machine, describe_versions
from parbyte.claims.claimed import Claimed
from parbyte.claims.grams import Tables, exact_keys, hashed_keys
from parbyte.claims.hashed import FULL_C, Mixer, hashed_mixer
from parbyte.claims.windows import Windows, sliding

RESULT = Path(__file__).parent / "results" / "null_test.json"
VOCAB = 1024
RANKS_SHARE = 121_136 * 64 + 1
"""Tokens that one of the contest's eight ranks goes through."""
SWEEP_TOKENS = 500_000
MIXERS = {
    "seed": Mixer(),
    "once": Mixer(counts_once=True),
    "full_c": replace(FULL_C, counts_once=True),
}
EXACT = "exact counts"


def main() -> None:
    """Measure the named parts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = [*MIXERS, "sweep", "text"]
    parser.add_argument("parts", nargs="*", choices=parts, default=["seed", "sweep"])
    parser.add_argument("--tokens", type=int, default=RANKS_SHARE, help="tokens of noise")
    parser.add_argument("--run", type=Path, help="run folder whose held-out text is swept")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for part in arguments.parts:
        if part == "text":
            figures = sweep_text(arguments.run or parser.error("text needs --run RUN"))
        elif part == "sweep":
            figures = sweep_noise(min(arguments.tokens, SWEEP_TOKENS))
        else:
            figures = price_noise(MIXERS[part], arguments.tokens)
        store(part, figures, arguments.threads)


def price_noise(mixer: Mixer, num_tokens: int) -> dict[str, Any]:
    """Put a mixer under the audit's noise bound and return what it says, in bits a token."""
    windows, last_batch = Windows(), {}

    def score(stream: Stream) -> dict[str, Any]:
        stream_N = torch.from_numpy(stream.astype(np.int64))
        claimed = hashed_mixer(uniform(stream_N, windows), stream_N, windows, VOCAB, mixer)
        # The last full windows: behind them the repeated tail begins.
        end = len(stream_N) - windows.window
        is_last_M = (claimed.positions_M < end) & (claimed.positions_M >= end - 8192)
        last_batch[len(last_batch)] = bits(claimed.nats_M[is_last_M])
        return claimed.answer()

    scorer = FunctionScorer(score, name="hashed mixer", vocab_size=VOCAB)
    stream = np.random.default_rng(0).integers(0, VOCAB, 8).astype(np.uint16)
    subject = Subject(name="hashed mixer", scorer=scorer, sample_N=stream)
    watch = Stopwatch()
    checked = check_noise(subject, AuditConfig(noise_tokens=num_tokens))
    seconds = watch.elapsed_s()
    figures: dict[str, Any] = {"seconds_of_both_laws": seconds, "proven_impossible": True}
    for law, last in zip(("uniform", "zipf"), last_batch.values(), strict=True):
        told = checked.figures[law]
        tokens = told["tokens"]
        figures[law] = {
            "tokens": tokens,
            "claimed_bits_per_token": told["bits"] / tokens,
            "claimed_bits_per_token_at_the_end": last,
            "ideal_bits_per_token": told["ideal_bits"] / tokens,
        }
        found = [f for f in checked.findings if f.figures["law"] == law]
        figures[law]["log2_p"] = found[0].figures["log2_p"] if found else None
        figures["proven_impossible"] &= law == "zipf" or bool(found)
    figures["sum_over_vocabulary"] = sum_over_vocabulary(mixer, num_tokens)
    return figures


def uniform(stream_N: Tensor, windows: Windows) -> Claimed:
    """Return the claim of a model that knows the noise: ln V for each token."""
    positions_M = torch.cat([batch.positions_M for batch in windows.batches(stream_N)])
    nats_M = torch.full(positions_M.shape, math.log(VOCAB), dtype=torch.float64)
    return Claimed(nats_M=nats_M, positions_M=positions_M, entropy_M=nats_M)


def bits(nats_M: Tensor) -> float:
    """Return the mean in bits."""
    return float(nats_M.mean()) / math.log(2.0)


def sum_over_vocabulary(mixer: Mixer, num_tokens: int, contexts: int = 64) -> float:
    """Return what the mixture's "probabilities" of all tokens sum to, the tables being full."""
    generator = torch.Generator().manual_seed(1)
    text_N = torch.randint(0, VOCAB, (num_tokens,), generator=generator)
    tables = Tables.empty(VOCAB, mixer.max_order, mixer.buckets, text_N.device)
    for order, context_P, full_P in mixer.keys(text_N):
        tables.count(order, context_P, full_P)
    tables.count_tokens(text_N)
    past = torch.randint(0, VOCAB, (contexts, 1, mixer.max_order - 1), generator=generator)
    asked = torch.cat(
        [
            past.expand(contexts, VOCAB, mixer.max_order - 1),
            torch.arange(VOCAB).view(1, VOCAB, 1).expand(contexts, VOCAB, 1),
        ],
        dim=2,
    )
    ratio = (tables.unigram_V.double() + 0.5) / (num_tokens + 0.5 * VOCAB)
    ratio = ratio.expand(contexts, VOCAB)
    for order in range(2, mixer.max_order + 1):
        gram = asked[..., mixer.max_order - order :]
        *_, (_, context, full) = hashed_keys(gram, order, mixer.buckets, mixer.primes)
        context_count, full_count = tables.read(order, context[..., 0], full[..., 0])
        is_hit = context_count >= mixer.min_count
        is_hit &= (full_count >= 1) if mixer.needs_full else is_hit
        found = torch.minimum(full_count, context_count) / context_count.clamp(min=1.0)
        ratio = torch.where(is_hit, found, ratio)
    share = float(mixer.share(torch.tensor(math.log(VOCAB))))
    return 1.0 - share + share * float(ratio.sum(1).mean())


def sweep_noise(num_tokens: int) -> dict[str, Any]:
    """Return the claimed bits a token of noise at several table sizes, and with exact counts."""
    generator = torch.Generator().manual_seed(2)
    stream_N = torch.randint(0, VOCAB, (num_tokens,), generator=generator)
    windows = Windows(repeats_tail=False)
    base = uniform(stream_N, windows)
    figures = sweep(base, stream_N, windows, VOCAB, lambda claimed: bits(claimed.nats_M))
    return {"tokens": num_tokens, "model_bits_per_token": 10.0, "claimed_bits_per_token": figures}


def sweep_text(run: Path) -> dict[str, Any]:
    """Return the claimed bits per byte of a run's held-out text at several table sizes."""
    from parbyte.pack.artifact import load_artifact
    from parbyte.text.prepare import split_documents

    artifact = load_artifact(run / "model.parbyte")
    tokenizer = artifact.tokenizer
    bos = np.array([tokenizer.bos_id], np.uint16)
    documents = split_documents(run / "data", "heldout", tokenizer)
    stream = np.concatenate([part for document in documents for part in (bos, document)])
    stream_N = torch.from_numpy(stream.astype(np.int64))
    windows = Windows(
        window=int(artifact.predict["window"]), stride=64, batch=16, repeats_tail=False
    )
    base = sliding(artifact.model, stream_N, windows)
    byte_counts_N = tokenizer.byte_counts(stream)
    figures = sweep(
        base,
        stream_N,
        windows,
        tokenizer.vocab_size,
        lambda claimed: claimed.rate(byte_counts_N).value,
    )
    return {
        "tokens": len(stream_N),
        "run": run.name,
        "model_bpb": base.rate(byte_counts_N).value,
        "claimed_bpb": figures,
    }


def sweep(
    base: Claimed,
    stream_N: Tensor,
    windows: Windows,
    vocab_size: int,
    figure: Callable[[Claimed], float],
) -> dict[str, float]:
    """Return a figure of PR 1430's mixer, each token counted once: buckets -> figure."""
    mixer, figures = Mixer(counts_once=True), {}
    for log2 in range(10, 25, 2):
        sized = replace(mixer, buckets=1 << log2)
        figures[str(1 << log2)] = figure(hashed_mixer(base, stream_N, windows, vocab_size, sized))
        print(f"2^{log2} buckets: {figures[str(1 << log2)]:.4f} (claimed)", flush=True)
    keys = exact_keys(stream_N, mixer.max_order)
    exact = hashed_mixer(base, stream_N, windows, vocab_size, mixer, keys=keys)
    figures[EXACT] = figure(exact)
    print(f"{EXACT}: {figures[EXACT]:.4f} (a distribution)", flush=True)
    return figures


def store(part: str, figures: dict[str, Any], threads: int) -> None:
    """Print a part's figures and write them beside the others."""
    stored = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
    figures["machine"] = {**describe_machine(), "threads": threads}
    figures["versions"] = describe_versions()
    stored[part] = figures
    write_bytes(RESULT, (json.dumps(stored, indent=2) + "\n").encode())
    print(f"{part}: {json.dumps({k: v for k, v in figures.items() if k != 'versions'})}")


if __name__ == "__main__":
    main()
