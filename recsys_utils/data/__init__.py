"""From a shop's files to what models are fitted on.

`registry`: data sets in TOML, checked · `readers`: files · `tables`: cleaning, counted rule by
rule · `folds`: history, validation, test, cut by `split` · `interactions`: receipts as arrays, with
the order that decides ties · `prefilter`: business rules for the catalogue · `attributes`,
`segments`: what is known of shoppers and items · `runs`: recommendation tables on disk · `outside`:
lists of others, read like all that people hand over by `handed` · `synthetic`: the built-in shop ·
`engine`: DuckDB, or by `spark` a server of Spark Connect.
"""
