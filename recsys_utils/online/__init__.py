"""The progressive online system: events in; queues of products and an updated network out.

`events` reads event files. `queue` keeps events, purchases and queues in SQLite: `database` is the
file, `schema` its SQL, `rotation` says what is shown next, `audit` computes all a second time.
`update` trains the network once, then with every new file. `python -m recsys_utils.online` runs it.
"""
