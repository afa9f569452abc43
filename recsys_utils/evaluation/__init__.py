"""How models are judged: from recommendation tables to numbers, intervals and tests.

`metrics`: a row per user, and coverage, novelty and so on · `leaderboard`: the tidy table ·
`significance`: bootstrap, permutation tests, letters · `slices`: scopes and groups of users ·
`calibration`: how often suggestions like this one were bought · `worth`: money ·
`experiment`: how large a test in the shop must be · `ab_test`: what it says.
"""
