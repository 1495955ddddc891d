"""The inside of the sandbox, run by `riskpo_study.verify.sandbox` in processes of their own; needs Linux."""
