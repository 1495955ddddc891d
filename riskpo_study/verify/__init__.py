"""Judging model output: untrusted text in, verdicts out.

Whatever could hang, crash or eat memory runs in worker processes (`worker_pool`), never in the trainer.
"""
