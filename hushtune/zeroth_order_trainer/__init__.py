"""`ZerothOrderTrainer`: private tuning for those who have code for `transformers.Trainer`."""

from hushtune.zeroth_order_trainer.arguments import ZerothOrderArguments
from hushtune.zeroth_order_trainer.flow import ZerothOrderOutput
from hushtune.zeroth_order_trainer.trainer import ZerothOrderTrainer

__all__ = ["ZerothOrderArguments", "ZerothOrderOutput", "ZerothOrderTrainer"]
