"""RiskPO in the trainers of others: `verl_plugin` for verl, `trl_trainer` for TRL, imported only where asked for."""
