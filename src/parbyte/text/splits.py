"""Where training ends and the held-out text begins: cut once, at borders between documents.

    bytes   0                       dev_at            heldout_at            num_bytes
    split   |         train         |       dev       |       heldout       |

A document belongs to the split in which its middle lies, so a cut moves to the nearest border;
but every split gets at least one document, however long they are.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from parbyte.base.errors import DataError
from parbyte.text.config import TextConfig
from parbyte.text.sources import Corpus, open_corpus


@dataclass(frozen=True, kw_only=True)
class CorpusSize:
    """What one pass over a corpus counted."""

    num_documents: int
    num_bytes: int
    num_empty: int


@dataclass(frozen=True, kw_only=True)
class SplitPlan:
    """The splits of one corpus in their order, and the byte at which each one starts."""

    size: CorpusSize
    starts: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class SplitCorpus:
    """A corpus with its cuts, and the held-out corpus if that is one of its own."""

    corpus: Corpus
    plan: SplitPlan
    heldout: Corpus | None
    num_bytes: int
    num_empty: int

    def labelled(self) -> Iterator[tuple[str, bytes]]:
        """Yield every document with its split, in the order train, dev, heldout."""
        yield from assign_splits(self.plan, self.corpus.documents())
        if self.heldout is not None:
            yield from (("heldout", document) for document in self.heldout.documents())

    def training_documents(self, *, with_dev: bool) -> Iterator[bytes]:
        """Yield the documents that may be learned from, `dev` among them only if asked."""
        labelled = assign_splits(self.plan, self.corpus.documents())
        allowed = ("train", "dev") if with_dev else ("train",)
        return (document for split, document in labelled if split in allowed)


def split_corpus(corpus: Corpus, config: TextConfig) -> SplitCorpus:
    """Measure the corpus, place its cuts, and open the held-out corpus if there is one.

    With the rule "auto" the held-out corpus falls into documents as the corpus does.
    Raises DataError for an empty corpus or one with fewer documents than splits.
    """
    if config.documents == "auto":
        config = replace(config, documents=corpus.rule)
    plan = plan_splits(measure_corpus(corpus), config)
    heldout = open_corpus(replace(config, corpus=config.heldout)) if config.heldout else None
    sizes = [plan.size, *([measure_corpus(heldout)] if heldout else [])]
    return SplitCorpus(
        corpus=corpus,
        plan=plan,
        heldout=heldout,
        num_bytes=sum(size.num_bytes for size in sizes),
        num_empty=sum(size.num_empty for size in sizes),
    )


def measure_corpus(corpus: Corpus) -> CorpusSize:
    """Count documents and bytes in one streaming pass; DataError if there is no text at all."""
    num_documents = num_bytes = num_empty = 0
    for document in corpus.read():
        num_documents += bool(document)
        num_empty += not document
        num_bytes += len(document)
    if num_documents == 0:
        raise DataError(f"corpus '{corpus.name}' is empty: {num_empty:,} documents without text")
    return CorpusSize(num_documents=num_documents, num_bytes=num_bytes, num_empty=num_empty)


def plan_splits(size: CorpusSize, config: TextConfig) -> SplitPlan:
    """Place the cuts; with a held-out corpus of its own only the development slice is cut off.

    Raises DataError if there are fewer documents than splits, or if nothing would be held out.
    """
    has_heldout = not config.heldout
    if has_heldout and config.heldout_fraction == 0:
        raise DataError(
            "nothing is held out: 'text.heldout_fraction' is 0 and 'text.heldout' is empty; "
            "set one of them"
        )
    has_dev = config.dev_fraction > 0
    needed = 1 + has_dev + has_heldout
    if size.num_documents < needed:
        names = ["training", *["development"] * has_dev, *["held-out"] * has_heldout]
        plural = "" if size.num_documents == 1 else "s"
        more = 'set text.documents = "paragraphs"'
        if config.documents == "paragraphs":
            more = "part its paragraphs by empty lines"
        raise DataError(
            f"corpus '{config.corpus}' has {size.num_documents} document{plural}, {needed} are "
            f"needed ({', '.join(names)}): {more}, add files, or "
            "give the held-out text as text.heldout"
        )
    heldout_at = size.num_bytes - round(size.num_bytes * config.heldout_fraction * has_heldout)
    dev_at = heldout_at - round(heldout_at * config.dev_fraction)
    cuts = {"dev": dev_at} if has_dev else {}
    cuts |= {"heldout": heldout_at} if has_heldout else {}
    return SplitPlan(size=size, starts={"train": 0, **cuts})


def assign_splits(plan: SplitPlan, documents: Iterable[bytes]) -> Iterator[tuple[str, bytes]]:
    """Yield each document with its split: first all of train, then dev, then heldout."""
    splits = list(plan.starts)
    last = plan.size.num_documents - 1
    start, rank = 0, -1
    for index, document in enumerate(documents):
        twice_middle = 2 * start + len(document)
        wanted = sum(twice_middle >= 2 * cut for cut in plan.starts.values()) - 1
        # No split is skipped, and the last documents are kept for those still to come.
        rank = max(min(wanted, rank + 1), rank, len(splits) - 1 - (last - index))
        yield splits[rank], document
        start += len(document)
