"""Progressive online: events in, a queue of products per shopper and an updated network out."""
