"""The product recommendation service: one process, one page, every model behind the same answer.

`train` fits and writes a version, `artifacts` loads it · `app` and `routes`, `live` take requests ·
`lists` makes a list for a `Query`, `explain` says why · `service` caches and counts · `schemas`,
`answers`, `answers_live`: what comes in and goes out · `online`: events and queues, `learnt`: what
the models know of them · `settings`, `guard`, `lanes`,
`connections`, `errors`, `telemetry`: what protects it · `static`:
the page.
"""
