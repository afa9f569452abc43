"""What is tried: each library's packages, and up to eight settings of each of its models.

`dense` names the models that hold a number for each pair of items.

Models that take about five seconds of the processor or more for one setting get four.

`days` is the age by which a basket's weight falls to 1/e (None: all weigh alike). Libraries that do
not know dates get them so, as our models do.
"""

from itertools import product


def grid(**axes: list) -> list[dict]:
    """All combinations of the values."""
    return [dict(zip(axes, values)) for values in product(*axes.values())]


PLAN = {
    "ours": {
        "package": "retail-recsys-lab",
        "install": [],
        "dense": ["ease"],
        "models": {
            "two_stage": [{}],
            "tifuknn": grid(alpha=[0.2, 0.4, 0.6, 0.8], tau_neighbours=[10, 20]),
            "upcf": grid(r=[5, 15], q=[5, 20], tau=[None, 120]),
            "own_purchases": grid(tau=[15, 30, 60, 120, 180, 365, 1000, None]),
            "item_bm25": grid(own=[1, 4, 16, 32], tau=[60, 180]),
            "als": grid(
                factors=[128], regularization=[10, 30], alpha=[1], base=[0, 1], tau=[60, 120]
            ),
            "ease": grid(regularization=[30], own=[0, 0.3, 1, 2], tau=[180]),
        },
    },
    "implicit": {
        "package": "implicit",
        "install": ["implicit==0.7.3", "pandas==2.3.3", "pyarrow==26.0.1"],
        "models": {
            "bm25": grid(K=[100, 500], B=[0.2, 0.8], days=[None, 60]),
            "tfidf": grid(K=[20, 50, 100, 500], days=[None, 60]),
            "cosine": grid(K=[20, 50, 100, 500], days=[None, 60]),
            "als": grid(factors=[128], regularization=[1, 10], alpha=[1, 10], days=[None, 60]),
        },
    },
    "rectools": {
        "package": "rectools",
        "install": ["rectools==0.19.0", "pandas==2.3.3", "pyarrow==20.0.0"],
        "dense": ["ease"],
        "models": {
            "item_knn": grid(K=[100, 500], B=[0.2, 0.8], days=[None, 60]),
            "als": grid(factors=[128], regularization=[10], alpha=[1, 10], days=[None, 60]),
            "ease": grid(regularization=[100, 500], days=[None, 60]),
            "popular": grid(period=[14, 28, 90, 365], popularity=["n_users", "n_interactions"]),
        },
    },
    "recommenders": {
        "package": "recommenders",
        "install": ["recommenders==1.2.1", "pandas==2.3.3", "pyarrow==26.0.1"],
        "dense": ["sar"],
        "models": {
            "sar": grid(
                similarity_type=["jaccard", "cooccurrence"],
                half_life=[30, 120],
            ),
        },
    },
    "lenskit": {
        "package": "lenskit",
        "install": [
            "lenskit==2025.8.1",
            "torch==2.13.0",
            "pandas==2.3.3",
            "pyarrow==26.0.1",
        ],
        "dense": ["ease"],
        "models": {
            "item_knn": grid(max_nbrs=[20, 50, 100, 500], save_nbrs=[None, 500]),
            "als": grid(embedding_size=[64], regularization=[0.1], weight=[1, 10], days=[None, 60]),
            "ease": grid(regularization=[30, 100, 300, 1000]),
        },
    },
    "cornac": {
        "package": "cornac",
        "install": [
            "cornac==3.0.1",
            "similaripy==0.2.5",
            "pandas==2.3.3",
            "pyarrow==26.0.1",
        ],
        "dense": ["ease"],
        "models": {
            "upcf": grid(recency=[5, 0], locality=[1, 5]),
            "gptop": grid(use_global_popularity=[True, False]),
            "ease": grid(lamb=[100, 500], days=[None, 60]),
            "item_knn": grid(neighbours=[50, 500], weighting=["idf", "bm25"], days=[None]),
            "tifuknn": grid(n_groups=[3, 7], group_decay_rate=[0.7, 0.9]),
        },
    },
}
