"""Base models: how a checkpoint becomes something a policy can finetune."""
