"""The cost curve of new items: it starts at the list itself, its numbers are the judge's."""

import pytest
from lab.promises import promise_costs
from shops import Shop

from recsys_utils.ensembles.new_for_you import with_new
from recsys_utils.evaluation.metrics import per_user
from recsys_utils.evaluation.slices import bought_before, warm
from recsys_utils.models import ItemCF, OwnPurchases


def test_the_curve_tells_what_the_judge_says_of_each_list(shop: Shop) -> None:
    stage = shop.stage
    best = OwnPurchases(60).fit(stage.history).recommend(stage.users, 10)
    new = ItemCF().fit(stage.history).recommend(stage.users, 20, "bought")
    table = promise_costs(best, new, stage, 5).set_index("n")
    truth = warm(stage.truth, stage.history)
    assert table.index.tolist() == [0, 1, 2, 3, 4, 5]
    assert table.loc[0, "precision@5"] == pytest.approx(
        per_user(best, truth, 5)["precision"].mean()
    )
    assert table.loc[0, "change"] == 0
    for n in (2, 5):
        recs = with_new(best, new, stage.history, n, 5)
        bought = recs.merge(truth[["user_id", "item_id"]].drop_duplicates().astype(str))
        first = bought[~bought_before(bought, stage.history)]
        expected = 100 * len(first) / truth["user_id"].nunique()
        assert table.loc[n, "first_purchases"] == pytest.approx(expected)
    assert table.loc[5, "first_purchases"] > table.loc[0, "first_purchases"]
