"""Models made of models.

`candidates`, `features` and `discovery` (features of new items) feed the ranker of `two_stage`;
`trust`: how far a small shop's ranker is trusted · `new_for_you`: lists that promise new items ·
`blend`: several tables, one table ·
`hybrid`: three models and `business_rules`, with `rule_settings` from TOML · `training`: the
hybrid as files that the service loads.
"""
