"""The queue's database in SQL: tables, running sums of every pair, and the steps that post events.

A pool follows from the logs alone, but is never computed from them: `sums` has one row for every
shopper and product that met, which a new event or showing changes. The cost of an event is that of
the best of a pool, however long the shopper's history. A batch of events is posted in the steps
`BATCH`, `CATEGORIES`, `KNOWN`, `COUNT`, `EVENTS`, `POST`, `summed` and `REBUILD`, in this order.
"""

from collections.abc import Mapping

from recsys_utils.data.registry import EVENT_TYPES

SCHEMA = 2
APPLICATION = 0x52524C51  # "RRLQ": this file is ours

_types = ", ".join(f"'{name}'" for name in EVENT_TYPES)

TABLES = f"""
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {SCHEMA};
CREATE TABLE events (event_id INTEGER PRIMARY KEY, user_id TEXT NOT NULL, item_id TEXT NOT NULL,
    event_type TEXT NOT NULL CHECK (event_type IN ({_types})), event_time INTEGER NOT NULL,
    learnt INTEGER);
CREATE INDEX events_of_user ON events (user_id, item_id, event_type);
CREATE INDEX events_fresh ON events (event_time, event_id) WHERE learnt IS NULL;
CREATE TABLE purchases (user_id TEXT NOT NULL, item_id TEXT NOT NULL, event_time INTEGER NOT NULL,
    PRIMARY KEY (user_id, item_id)) WITHOUT ROWID;
CREATE TABLE queue (user_id TEXT PRIMARY KEY,
    product_queue TEXT NOT NULL CHECK (json_valid(product_queue)));
CREATE TABLE items (item_id TEXT PRIMARY KEY, category TEXT NOT NULL, bought INTEGER NOT NULL,
    touched INTEGER NOT NULL);
CREATE TABLE log (n INTEGER PRIMARY KEY, user_id TEXT NOT NULL, item_id TEXT NOT NULL,
    source TEXT NOT NULL CHECK (source IN ('events', 'cf', 'category', 'popular')),
    shown INTEGER NOT NULL CHECK (shown IN (0, 1)), at INTEGER NOT NULL);
CREATE INDEX log_of_user ON log (user_id, item_id, shown, source);
CREATE TABLE sums (user_id TEXT NOT NULL, item_id TEXT NOT NULL, score INTEGER NOT NULL,
    counter INTEGER NOT NULL, source TEXT NOT NULL, purchased INTEGER NOT NULL,
    PRIMARY KEY (user_id, item_id)) WITHOUT ROWID;
CREATE INDEX sums_best ON sums (user_id, score DESC, counter, item_id) WHERE purchased = 0;
CREATE TABLE state (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID
"""

CART = """
SELECT item_id FROM events WHERE user_id = ? AND event_type <> 'view' GROUP BY item_id
HAVING SUM(event_type = 'cart') > SUM(event_type = 'remove_from_cart')
    AND SUM(event_type = 'purchase') = 0
ORDER BY item_id"""

# CROSS JOIN: SQLite then begins with the few users at hand, never with a walk through all sums.
TEMPORARY = """
CREATE TEMP TABLE batch (event_id INTEGER PRIMARY KEY, user_id TEXT, item_id TEXT,
    event_type TEXT, event_time INTEGER, category TEXT);
CREATE TEMP TABLE touched (user_id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TEMP VIEW favourite AS
    WITH ranked AS (
        SELECT user_id, category, ROW_NUMBER() OVER (
            PARTITION BY user_id ORDER BY SUM(MAX(score, 0) + purchased) DESC, category) AS place
        FROM touched CROSS JOIN main.sums USING (user_id) JOIN main.items USING (item_id)
        WHERE category <> '' AND (score > 0 OR purchased) GROUP BY user_id, category)
    SELECT user_id, category FROM ranked WHERE place = 1;
"""

# The best of a user's pool; the parameter: how many.
_best = """
    SELECT {columns} FROM sums best WHERE best.user_id = touched.user_id AND best.purchased = 0
    ORDER BY best.score DESC, best.counter, best.item_id LIMIT ?"""
POOL = f"""
SELECT sums.user_id, sums.item_id, sums.counter, sums.score, sums.source
FROM touched CROSS JOIN sums
WHERE sums.user_id = touched.user_id AND sums.item_id IN ({_best.format(columns="best.item_id")})
"""
REBUILD = f"""
INSERT INTO queue
SELECT user_id, (
    SELECT json_object('pool', json_group_array(json_array(item_id, counter, score)))
    FROM (SELECT * FROM ({_best.format(columns="item_id, counter, score")})
        ORDER BY counter, score DESC, item_id))
FROM touched WHERE true
ON CONFLICT (user_id) DO UPDATE SET product_queue = excluded.product_queue
"""
SHOWN = """
INSERT INTO sums VALUES (?, ?, 0, ?, ?, 0)
ON CONFLICT (user_id, item_id) DO UPDATE SET counter = counter + excluded.counter
"""


def summed(weights: Mapping[str, int], table: str = "batch") -> str:
    """Add the events of a table to the sums. weights: what an event adds to a score, by type."""
    cases = " ".join(f"WHEN '{name}' THEN {weight}" for name, weight in weights.items())
    return f"""
INSERT INTO sums
SELECT user_id, item_id, SUM(CASE event_type {cases} ELSE 0 END), 0, 'events',
    MAX(event_type = 'purchase')
FROM {table} WHERE true GROUP BY user_id, item_id
ON CONFLICT (user_id, item_id) DO UPDATE SET score = score + excluded.score, source = 'events',
    purchased = MAX(purchased, excluded.purchased)
"""


# A bare column beside MIN() is that of the row with the minimum: a product's source is how it
# first came into the pool.
LOGGED = """
INSERT INTO sums SELECT user_id, item_id, 0, counter, source, 0
FROM (SELECT user_id, item_id, SUM(shown) AS counter, MIN(n), source
    FROM log GROUP BY user_id, item_id) WHERE true
ON CONFLICT (user_id, item_id) DO UPDATE SET counter = counter + excluded.counter
"""

# A product's category is the first in the alphabet of those ever named, copies included, so that
# no order of arrival matters.
_category = """DO UPDATE SET category =
    CASE category WHEN '' THEN excluded.category ELSE MIN(category, excluded.category) END
WHERE excluded.category <> ''"""
BATCH = f"INSERT INTO batch VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (event_id) {_category}"
CATEGORIES = f"""
INSERT INTO items SELECT item_id, COALESCE(MIN(NULLIF(category, '')), ''), 0, 0
FROM batch WHERE true GROUP BY item_id
ON CONFLICT (item_id) {_category}
"""
# EXISTS, because IN would read all events.
KNOWN = """
DELETE FROM batch
WHERE EXISTS (SELECT 1 FROM main.events WHERE events.event_id = batch.event_id)
"""
STORED = """
SELECT event_id, user_id, item_id, event_type, event_time AS ts FROM events
WHERE event_id IN (SELECT value FROM json_each(?))
"""
COUNT = """
SELECT COUNT(*), TOTAL((event_time, event_id) <= (?, ?)), TOTAL(event_type = 'purchase') FROM batch
"""
EVENTS = """
INSERT INTO events SELECT event_id, user_id, item_id, event_type, event_time, ? FROM batch
"""
POST = (
    """
INSERT INTO items SELECT item_id, '', SUM(event_type = 'purchase'), COUNT(*)
FROM batch WHERE true GROUP BY item_id
ON CONFLICT (item_id) DO UPDATE
SET bought = bought + excluded.bought, touched = touched + excluded.touched
""",
    """
INSERT INTO purchases SELECT user_id, item_id, MIN(event_time)
FROM batch WHERE event_type = 'purchase' GROUP BY user_id, item_id
ON CONFLICT (user_id, item_id) DO UPDATE SET event_time = MIN(event_time, excluded.event_time)
""",
    """
INSERT INTO state SELECT 'watermark', json_array(event_time, event_id)
FROM (SELECT event_time, event_id FROM batch ORDER BY event_time DESC, event_id DESC LIMIT 1)
WHERE true
ON CONFLICT (key) DO UPDATE SET value = excluded.value
WHERE (json_extract(excluded.value, '$[0]'), json_extract(excluded.value, '$[1]'))
    > (json_extract(value, '$[0]'), json_extract(value, '$[1]'))
""",
)
