"""System 4: a cold model, event deltas that update it, and a queue of products per shopper that outlives every restart."""

WEIGHTS = {"view": 1, "cart": 3, "remove_from_cart": -1}        # a purchase weighs nothing: it ends the product's place in the queue
