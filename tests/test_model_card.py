"""The card beside a tuned model: the Hub's format, public facts, what is not covered."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hushtune.cli import main
from hushtune.guarantee import rounded_up


def trained(arguments: list[str], *flags: str) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["train", *arguments, *flags])
    assert not exit_.value.code


@pytest.mark.parametrize("tune", ["head", "lora"])
def test_a_card_says_what_the_guarantee_is_and_what_it_leaves_out(
    tune, run_arguments, tmp_path: Path
):
    from huggingface_hub import ModelCard

    trained(run_arguments, "--model.tune", tune, "--data.unit", "user_id")
    folder = tmp_path / "run" / ("adapter" if tune == "lora" else "model")
    card = ModelCard.load(folder / "README.md")
    assert card.data.tags == ["hushtune", "differential-privacy"]
    assert card.data.pipeline_tag == "text-classification"
    assert "encoder" in str(card.data.base_model)
    assert not str(card.data.base_model).startswith("/")
    guarantee = json.loads((tmp_path / "run" / "privacy.json").read_text())
    assert f"ε = {rounded_up(guarantee['epsilon'])}" in card.text
    assert "21 units by `user_id`" in card.text
    assert "Labels: `negative`, `positive`." in card.text
    for sentence in guarantee["exclusions"]:
        assert sentence in card.text
    assert str(tmp_path) not in card.text


def test_a_card_of_a_run_without_privacy_claims_none(run_arguments, tmp_path: Path):
    arguments = [*run_arguments, "--method.name", "mezo", "--privacy.mechanism", "none"]
    trained(arguments)
    text = (tmp_path / "run" / "model" / "README.md").read_text(encoding="utf-8")
    assert "None: nothing was clipped and no noise was added." in text
    assert "ε =" not in text
