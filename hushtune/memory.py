"""How much memory a process has used, may use, and will need.

The needs are reckoned from a model's configuration alone, before any weights are loaded.
"""

from __future__ import annotations

import re
import resource
from pathlib import Path
from typing import Any, NamedTuple

import torch

from hushtune.zo.kept import room

#: Bytes of a process that has imported every library and compiled every kernel, without a model.
_LIBRARIES = 650 << 20

#: Share of a GPU's free memory that a micro-batch's activations may take.
_GPU_SHARE = 0.25

#: Tokens that a micro-batch has at least: with fewer, smaller ones save hardly any memory.
_FEWEST_TOKENS = 128


class Costs(NamedTuple):
    """What a forward pass costs beside its tokens, and from where on larger ones gain nothing.

    Attributes:
        overhead: time of a forward pass of no tokens, in units of the time of one more token.
        most_tokens: tokens of a pass beyond which the overhead is a few percent at most.
    """

    overhead: int
    most_tokens: int


class Needs(NamedTuple):
    """Bytes that a model needs.

    Attributes:
        weights: all parameters.
        scratch: the parameters of the largest single operation, if they move. Embeddings are not
            counted: of those only the rows that are read are copied.
        a_token: activations of one token of a micro-batch.
    """

    weights: int
    scratch: int
    a_token: int

    def peak(self, tokens: int, *, resting: int = _LIBRARIES) -> int:
        """Bytes of a process while it runs a micro-batch of so many tokens."""
        return resting + self.weights + self.scratch + tokens * self.a_token


def costs(device: torch.device, *, all_move: bool) -> Costs:
    """What passes cost on a device, with all parameters moving or only few.

    With all moving, every pass writes each parameter again. Read off times of passes of 128 to 4096
    tokens on one core (MiniLM and OPT-125M, float32, texts of 32 tokens). A GPU wants larger
    passes; its numbers are guesses.
    """
    if device.type == "cuda":
        return Costs(1000, 16384) if all_move else Costs(500, 8192)
    return Costs(150, 4096) if all_move else Costs(30, 1024)


def needs(name: str, dtype: str, *, all_move: bool, max_length: int) -> Needs:
    """What a model in a folder or on the hub needs, from its configuration; no weights are read.

    Heads and adapters are left out. Weights that the checkpoint holds in another format are held
    twice for a moment while they load, which is left out as well.
    """
    from hushtune.models.load import _hub_call  # quiet

    config = _hub_call(name, "AutoConfig")
    import transformers

    with torch.device("meta"):
        network = transformers.AutoModel.from_config(config)
    size = 4 if dtype in ("auto", "float32") else 2
    rows = {id(module.weight) for module in network.modules() if _is_embedding(module)}
    sizes = [size * p.numel() for p in network.parameters()]
    dense = [size * p.numel() for p in network.parameters() if id(p) not in rows]
    scratch = max(dense, default=0) if all_move else 0
    return Needs(sum(sizes), scratch, bytes_a_token(config, size, max_length))


def bytes_a_token(config: Any, size: int, max_length: int) -> int:
    """Bytes of activations, about, that a forward pass without gradients holds for one token.

    They are those of the widest moment: a few copies of the hidden state, the inner layer before
    and after its activation function, and one row of attention scores for every head.
    """
    text = config.get_text_config()
    hidden = getattr(text, "hidden_size", 1024)
    inner = max(
        getattr(text, key, None) or 0 for key in ("intermediate_size", "ffn_dim", "d_ff", "n_inner")
    )
    heads = getattr(text, "num_attention_heads", 16)
    return size * (6 * hidden + 2 * (inner or 4 * hidden) + heads * max_length)


def fitting_tokens(a_token: int, wanted: int, limit: int) -> int:
    """The largest power of two up to `wanted` whose activations fit into `limit` bytes.

    It is 128 at least: rather too slow a memory than a model that cannot be tried at all.
    """
    tokens = 1 << (wanted.bit_length() - 1)
    while tokens > _FEWEST_TOKENS and tokens * a_token > limit:
        tokens //= 2
    return tokens


def room_for_activations(device: torch.device) -> int:
    """Bytes that a micro-batch's activations may take: a quarter of what is free."""
    if device.type == "cuda":
        return int(_GPU_SHARE * torch.cuda.mem_get_info(device)[0])
    return room()


def available() -> int:
    """Bytes that the machine, or the container if that is less, still offers."""
    return 4 * room()  # which is a quarter


def peak_memory() -> int:
    """The process's peak resident memory in MiB, rounded up to a multiple of 16."""
    return -(-_peak_kibibytes() // (16 * 1024)) * 16


def peak_gpu_memory() -> int | None:
    """The most that tensors have taken on the GPU in MiB, rounded up likewise; None without one."""
    if not torch.cuda.is_available():
        return None
    return -(-torch.cuda.max_memory_allocated() // (16 << 20)) * 16


def forget_peak() -> bool:
    """Let the peak begin again at what is resident now; False where the system cannot do that."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def _peak_kibibytes() -> int:
    # getrusage counts what the parent held when it started this process, Linux's status does not.
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        status = ""
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _is_embedding(module: torch.nn.Module) -> bool:
    return isinstance(module, torch.nn.Embedding)
