"""What Flower's SecAgg+ keeps from its server, with its own client code, and what it does not."""

from __future__ import annotations

import importlib
from dataclasses import dataclass

import numpy as np
import pytest

pytest.importorskip("flwr")

from flwr.app import ConfigRecord
from flwr.common import bytes_to_ndarray, ndarrays_to_parameters
from flwr.common.secure_aggregation import ndarrays_arithmetic as arithmetic
from flwr.common.secure_aggregation.crypto.shamir import combine_shares
from flwr.common.secure_aggregation.crypto.symmetric_encryption import generate_shared_key
from flwr.common.secure_aggregation.quantization import dequantize, quantize
from flwr.common.secure_aggregation.secaggplus_constants import Key
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen
from flwr.supercore.primitives.asymmetric import bytes_to_private_key, bytes_to_public_key

from hushtune.federated.masks import PAIRWISE_MASKS, candidate_of, recover_integers, seed_of

MODULUS = 2**32
TARGET = 2**22
# Quantisation is then the addition of CLIP.
CLIP = float(TARGET // 2)
WEIGHT = 1000
# 22 bits a limb, of which a sum of a few clients stays below the modulus.
LIMB_BITS, LIMBS = 22, 3
NODES = (1, 2)

# Its package has a function of the same name.
client_code = importlib.import_module("flwr.client.mod.secure_aggregation.secaggplus_mod")
Client = client_code.SecAggPlusState


@dataclass
class Round:
    """A round of two clients as their server sees it.

    Attributes:
        clients: what only the clients know.
        uploads: each client's masked arrays.
        public_keys: the first public key of each.
    """

    clients: dict[int, Client]
    uploads: dict[int, list[np.ndarray]]
    public_keys: dict[int, bytes]

    def secrets(self, active: list[int], dead: list[int]) -> list[bytes]:
        """What the shares are of that both clients answer the question of the last stage with."""
        question = ConfigRecord({Key.ACTIVE_NODE_ID_LIST: active, Key.DEAD_NODE_ID_LIST: dead})
        answers = [
            client_code._unmask(client, question)[Key.SHARE_LIST]
            for client in self.clients.values()
        ]
        return [combine_shares(list(shares)) for shares in zip(*answers, strict=True)]


def hold_round(values: dict[int, np.ndarray], weight: int = WEIGHT) -> Round:
    """All stages before the last, with each client's own code; values are in [−CLIP, CLIP)."""
    clients = {node: Client() for node in NODES}
    keys = {}
    for node, client in clients.items():
        client.nid = node
        settings = {
            Key.SAMPLE_NUMBER: 2,
            Key.SHARE_NUMBER: 2,
            Key.THRESHOLD: 2,
            Key.CLIPPING_RANGE: CLIP,
            Key.TARGET_RANGE: TARGET,
            Key.MOD_RANGE: MODULUS,
            Key.MAX_WEIGHT: float(WEIGHT),
        }
        answer = client_code._setup(client, ConfigRecord(settings))
        keys[str(node)] = [answer[Key.PUBLIC_KEY_1], answer[Key.PUBLIC_KEY_2]]
    shares = {
        node: client_code._share_keys(client, ConfigRecord(keys))[Key.CIPHERTEXT_LIST][0]
        for node, client in clients.items()
    }
    uploads = {}
    for node, client in clients.items():
        other = sum(NODES) - node
        forwarded = ConfigRecord({Key.CIPHERTEXT_LIST: [shares[other]], Key.SOURCE_LIST: [other]})
        answer = client_code._collect_masked_vectors(
            client, forwarded, weight, ndarrays_to_parameters([values[node]])
        )
        uploads[node] = [bytes_to_ndarray(each) for each in answer[Key.MASKED_PARAMETERS]]
    return Round(clients, uploads, {node: keys[str(node)][0] for node in NODES})


def pairwise_seed(held: Round) -> bytes:
    client = held.clients[NODES[0]]
    return generate_shared_key(
        bytes_to_private_key(client.sk1), bytes_to_public_key(held.public_keys[NODES[1]])
    )


def aggregate(held: Round) -> np.ndarray:
    """The mean over clients, by the steps of the workflow's last stage."""
    total = arithmetic.parameters_addition(*held.uploads.values())
    for seed in held.secrets(list(NODES), []):
        mask = pseudo_rand_gen(seed, MODULUS, arithmetic.get_parameters_shape(total))
        total = arithmetic.parameters_subtraction(total, mask)
    weight, quantised = arithmetic.factor_extract(arithmetic.parameters_mod(total, MODULUS))
    (mean,) = dequantize(quantised, CLIP, TARGET)
    return (mean - (len(NODES) - 1) * CLIP) * (TARGET / weight)


def private_integers(node: int) -> np.ndarray:
    return np.random.default_rng(node).integers(-TARGET // 2, TARGET // 2, (4, 3))


@pytest.fixture(scope="module")
def held() -> Round:
    return hold_round({node: private_integers(node).astype(float) for node in NODES})


@pytest.mark.parametrize("node", NODES)
def test_the_server_recovers_a_clients_integers_from_what_it_is_sent(held, node):
    private_seed = held.secrets(list(NODES), [])[NODES.index(node)]
    # A part of the search, which takes a minute or two in full, with the right candidate in it.
    right = candidate_of(pairwise_seed(held))
    start = min(max(right - 40_000, 0), PAIRWISE_MASKS - 2**16)

    def search(candidates: range):
        return recover_integers(
            held.uploads[node],
            private_seed,
            adds=node == max(NODES),
            bound=TARGET + 1,
            candidates=candidates,
        )

    (found,) = search(range(start, start + 2**16))
    assert found.candidate == right
    assert found.integers[0] == TARGET
    np.testing.assert_array_equal(found.integers[1] - TARGET // 2, private_integers(node))
    # It is recognised and not just met with: among the others there is none that would do.
    assert search(range(start, right)) + search(range(right + 1, start + 2**16)) == []


def test_the_server_gets_every_key_from_clients_that_it_tells_are_active_and_dropped(held):
    seeds = held.secrets(list(NODES), list(NODES))
    assert seeds[:2] == [held.clients[node].rd_seed for node in NODES]
    assert seeds[2:] == [held.clients[node].sk1 for node in NODES]


@pytest.mark.parametrize("modulus", [2**32, 2**24, 2**4])
@pytest.mark.parametrize("adds", [True, False])
def test_the_search_draws_the_masks_that_flower_draws(adds, modulus):
    """Also where some draws are rejected, as one in sixteen is for the smallest modulus."""
    sign = 1 if adds else -1
    integers = [np.array([1]), np.zeros((5, 4), dtype=np.int64)]
    shapes = [each.shape for each in integers]
    private = pseudo_rand_gen(b"\xff" * 32, modulus, shapes)
    for candidate in (0, 1, 12_345_678, PAIRWISE_MASKS - 1):
        pairwise = pseudo_rand_gen(seed_of(candidate).to_bytes(4, "little"), modulus, shapes)
        upload = [
            (each + own + sign * mask) % modulus
            for each, own, mask in zip(integers, private, pairwise, strict=True)
        ]
        around = range(max(candidate - 50, 0), min(candidate + 51, PAIRWISE_MASKS))
        found = recover_integers(
            upload, b"\xff" * 32, adds=adds, bound=2, modulus=modulus, candidates=around
        )
        assert [each.candidate for each in found] == [candidate]
        assert all(map(np.array_equal, found[0].integers, integers))


def test_pairwise_seeds_leave_28_bits_and_masks_the_largest_residue_out(held):
    seed = pairwise_seed(held)
    shape = [(1000,)]
    (mask,) = pseudo_rand_gen(seed, 8, shape)
    assert np.array_equal(
        mask,
        pseudo_rand_gen(seed_of(candidate_of(seed)).to_bytes(4, "little"), 8, shape)[0],
    )
    assert sorted(set(mask)) == list(range(7))


def test_limbs_pass_through_exactly():
    wide = {node: private_integers(node) * 2**40 + private_integers(node + 2) for node in NODES}
    low = 2**LIMB_BITS - 1
    limbs = {
        node: np.stack([(each >> LIMB_BITS * place) & low for place in range(LIMBS)])
        for node, each in wide.items()
    }
    held = hold_round({node: each - CLIP for node, each in limbs.items()})
    total = np.rint((aggregate(held) + CLIP) * len(NODES)).astype(np.int64)
    found = sum(total[place] << LIMB_BITS * place for place in range(LIMBS))
    # Three limbs have more bits than int64, whose sums wrap around to the right one.
    np.testing.assert_array_equal(found, sum(wide.values()))
    # The weights have to be equal to the largest: any other multiplies by a fraction first.
    uneven = hold_round({node: each - CLIP for node, each in limbs.items()}, weight=333)
    assert not np.array_equal(np.rint((aggregate(uneven) + CLIP) * 2), total)


def test_one_word_is_rounded_or_overflows():
    """A noise scale of 2^32 does not fit the 32 bits that numbers are quantised to."""
    wide, value = 2.0**33, np.array([2.0**32 + 1])
    (rounded,) = dequantize(quantize([value], wide, 2**31), wide, 2**31)
    assert rounded[0] != value[0]
    assert abs(rounded[0] - value[0]) < 2 * wide / 2**31
    with pytest.warns(RuntimeWarning, match="invalid value encountered in cast"):
        (large,) = quantize([value], wide, int(2 * wide))
    assert large[0] != wide + value[0]
