"""The service: one process, one page, every model of the lab behind the same answer.

Trained offline, loaded once, reloaded without a pause.
"""
