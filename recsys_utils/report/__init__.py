"""The report of a data set, `reports/<dataset>/index.html`: what to ship, and why.

`page` writes it (`write_report`) · `judged`: a fold with its leaderboard · `choice`: which model ·
`decision`: its first screen · `verdict`: why this model · `board_tables`, `sections`, `explorer`:
its tables, figures and shoppers · `figures`, `study_figures`: a figure is a function of a frame ·
`kept`, `two_runs`: runs that are kept, and what differs between two ·
`style`, `svg`, `wording`: how figures, names and numbers look · `html`: templates, notebooks'
pages, the list of reports.
"""
