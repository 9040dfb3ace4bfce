"""What a tuned model is saved with, and how it is uploaded."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from hushtune.config import ConfigError, same_data
from hushtune.core.preparing import Prepared
from hushtune.ending import LEDGER
from hushtune.files import write_json
from hushtune.guarantee import describe_guarantee
from hushtune.privacy import ledger as ledgers
from hushtune.report.card import model_card
from hushtune.zeroth_order_trainer.losses import base_of

_HOW_TO_CHECK = "`hushtune.core.replay` makes this model of them and the base model"


def require_savable(model: Any, folder: str) -> None:
    """Refuse, before anything is spent, a model that could not be saved as it will be tuned.

    Raises:
        ConfigError: saying why.
    """
    if not hasattr(model, "save_pretrained"):
        raise ConfigError(
            f"model: {type(model).__name__} is not accepted; it must be a model of transformers or "
            "PEFT (hushtune.core.tune takes any other module)."
        )
    if same_data(folder, name_of(model)):
        raise ConfigError(f"output_dir: {folder} is the base model; choose another folder.")
    if hasattr(model, "peft_config") and not hasattr(model, "get_base_model"):
        raise ConfigError(
            "model: has adapters, but is no PeftModel; expected one of peft.get_peft_model."
        )
    for name, parameter in model.named_parameters():
        if parameter.is_meta:
            raise ConfigError(
                f"model: {name} is offloaded; `hushtune train` with model.offload streams weights."
            )
        if hasattr(model, "get_base_model") and parameter.requires_grad:
            adapters = set(model.active_adapters)
            if not adapters & set(name.split(".")):
                raise ConfigError(
                    f"model: {name} would move, but is no part of the adapter and would not be "
                    "saved with it; freeze it, or name its module in modules_to_save."
                )


def name_of(model: Any) -> str:
    """What the model was loaded from; empty for one that was made in memory."""
    return getattr(base_of(model).config, "_name_or_path", "") or ""


def save(model: Any, processing_class: Any, folder: Path, run: Prepared | None) -> None:
    """Write the model for transformers or PEFT, and after training what shows its guarantee.

    Args:
        run: of which the model is the result; None: nothing was tuned.

    Raises:
        ConfigError: if the folder has the ledger of another run, which is all that shows what that
            has spent.
    """
    _require_no_other_run(folder, run)
    folder.mkdir(parents=True, exist_ok=True)
    # PEFT would ask the hub whether the vocabulary has grown, which it never does here.
    options = {"save_embedding_layers": False} if hasattr(model, "peft_config") else {}
    model.save_pretrained(folder, **options)
    if processing_class is not None:
        processing_class.save_pretrained(folder)
    if run is None:
        return
    if not (folder / LEDGER).exists() or not (folder / LEDGER).samefile(run.ledger):
        shutil.copyfile(run.ledger, folder / LEDGER)
    write_json(folder / "privacy.json", describe_guarantee(ledgers.read(run.ledger)))
    moving = sum(parameter.numel() for parameter in run.moving.values())
    total = sum(parameter.numel() for parameter in model.parameters())
    card = model_card(
        run.header,
        tune=f"{moving:,} of {total:,} parameters",
        kind=run.header["learned"],
        check=_HOW_TO_CHECK,
    )
    (folder / "README.md").write_text(card, encoding="utf-8")


def _require_no_other_run(folder: Path, run: Prepared | None) -> None:
    there = ledgers.begun(folder / LEDGER)
    if there is not None and (run is None or there.header["run"] != run.header["run"]):
        raise ConfigError(f"output_dir: {folder} holds the ledger of another run; choose another.")


def upload(
    model: Any,
    processing_class: Any,
    run: Prepared | None,
    *,
    repository: str,
    token: str | None,
    private: bool | None,
    message: str,
    revision: str | None,
) -> Any:
    """Upload what `save` writes, and nothing that lies beside it in the run's folder."""
    import huggingface_hub

    hub = huggingface_hub.HfApi(token=token)
    made = hub.create_repo(repository, private=private, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        save(model, processing_class, Path(folder), run)
        return hub.upload_folder(
            repo_id=made.repo_id, folder_path=folder, commit_message=message, revision=revision
        )
