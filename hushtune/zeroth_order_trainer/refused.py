"""What transformers' trainer and its arguments have and those here have not, and why."""

from __future__ import annotations

from typing import Any

from hushtune.config import ConfigError

#: What to use instead, and the names that share this answer.
_INSTEAD = {
    "use batch, the expected number of units a step": "per_device_train_batch_size",
    "rows are drawn anew every step, so that there are no epochs; use max_steps and batch": """
        num_train_epochs auto_find_batch_size train_sampling_strategy length_column_name
        group_by_length ignore_data_skip""",
    "batch may be of any size; a forward pass has as many tokens as micro_batch_tokens allows": """
        gradient_accumulation_steps""",
    "use clip_norm, which bounds what each unit contributes": "max_grad_norm",
    "use lr_scheduler_type linear or constant": "lr_scheduler_kwargs warmup_steps warmup_ratio",
    "use update normalised or sgd": """
        optim optim_args optim_target_modules adam_beta1 adam_beta2 adam_epsilon""",
    "nothing pulls weights to zero; leave it out": "weight_decay",
    "noise in forward passes would drown the differences of losses": "neftune_noise_alpha",
    "give a compute_loss_func that smooths, with one loss per row": "label_smoothing_factor",
    "there are no gradients; leave it out": """
        gradient_checkpointing gradient_checkpointing_kwargs activation_checkpointing
        activation_checkpointing_kwargs average_tokens_across_devices use_cache
        torch_empty_cache_steps""",
    "load the model in the number format that it shall run in": """
        bf16 fp16 bf16_full_eval fp16_full_eval tf32""",
    "compiled or fused code was not tried to keep rows apart; leave it out": """
        torch_compile torch_compile_backend torch_compile_mode use_liger_kernel
        liger_kernel_config""",
    "a training loss is private; evaluations are logged, every eval_steps steps": """
        logging_strategy logging_steps logging_first_step logging_dir logging_nan_inf_filter
        include_num_input_tokens_seen log_on_each_node log_level log_level_replica""",
    "give callbacks that report where you want": """
        run_name project trackio_space_id trackio_bucket_id trackio_static_space_id""",
    "call evaluate() before train()": "eval_delay eval_on_start",
    "compute_metrics gets all predictions and labels": """
        prediction_loss_only eval_do_concat_batches eval_use_gather_object eval_accumulation_steps
        include_for_metrics batch_eval_metrics""",
    "the ledger is all that resuming needs; use train(resume_from_checkpoint=True)": """
        save_only_model save_on_each_node enable_jit_checkpoint
        restore_callback_states_from_checkpoint resume_from_checkpoint""",
    "every checkpoint stays; remove those that you do not need": "save_total_limit",
    "the upload is made when train() ends; use push_to_hub() for any other": """
        hub_strategy hub_always_push hub_revision""",
    "use save_strategy steps and take the checkpoint that did best on public rows": """
        load_best_model_at_end""",
    "replaying the ledger gives the same bits anyway; leave it out": "full_determinism",
    "sampling is secret and has no seed; leave it out": "data_seed",
    "one process tunes the model; leave it out": """
        accelerator_config parallelism_config fsdp fsdp_config deepspeed local_rank
        ddp_find_unused_parameters ddp_bucket_cap_mb ddp_broadcast_buffers ddp_static_graph
        ddp_backend ddp_timeout""",
    "rows are sampled secretly, and no loader hands them out; leave it out": """
        dataloader_drop_last dataloader_num_workers dataloader_pin_memory
        dataloader_persistent_workers dataloader_prefetch_factor dataloader_in_order
        dataloader_multiprocessing_context""",
    "labels are what the collator calls labels": "label_names",
    "times and memory of steps are not measured; leave it out": "debug skip_memory_metrics",
    "use train(), evaluate() and predict()": "do_train do_eval do_predict",
    # Of the trainer itself.
    "use update and learning_rate of ZerothOrderArguments": "optimizers optimizer_cls_and_kwargs",
    "give the model": "model_init",
    "use processing_class": "tokenizer",
}

INSTEAD = {name: answer for answer, names in _INSTEAD.items() for name in names.split()}


class RefusesOthers:
    """Refuses, when it is made, arguments that transformers has for such an object and it has not.

    Raises:
        ConfigError: one line that names the argument and says what to use instead.
    """

    def __new__(cls, *args: Any, **others: Any) -> Any:
        for name in others:
            if name in INSTEAD:
                raise ConfigError(f"{name}: is no argument of {cls.__name__}; {INSTEAD[name]}.")
        return super().__new__(cls)
