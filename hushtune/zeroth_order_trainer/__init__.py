"""`ZerothOrderTrainer`: private tuning for those who have code for `transformers.Trainer`."""

from hushtune.zeroth_order_trainer.arguments import ZerothOrderArguments
from hushtune.zeroth_order_trainer.trainer import ZerothOrderOutput, ZerothOrderTrainer

__all__ = ["ZerothOrderArguments", "ZerothOrderOutput", "ZerothOrderTrainer"]
