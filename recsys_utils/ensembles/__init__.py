"""Models made of models.

`candidates` and `features` feed the ranker of `two_stage` · `blend`: several tables, one table ·
`hybrid`: three models and `business_rules`, with `rule_settings` from TOML · `training`: the
hybrid as files that the service loads.
"""
