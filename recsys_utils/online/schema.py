"""The queue's database in SQL: tables, a view of every pool, and the steps that post events.

A pool is computed from the logs alone. A batch of events is posted in the steps `BATCH`,
`CATEGORIES`, `KNOWN`, `COUNT`, `EVENTS`, `POST` and `REBUILD`, in this order.
"""

from recsys_utils.data.registry import EVENT_TYPES, EVENT_WEIGHTS

SCHEMA = 1
APPLICATION = 0x52524C51  # "RRLQ": this file is ours

_types = ", ".join(f"'{name}'" for name in EVENT_TYPES)
_cases = " ".join(f"WHEN '{name}' THEN {weight}" for name, weight in EVENT_WEIGHTS.items())
_weight = f"CASE event_type {_cases} ELSE 0 END"

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
CREATE TABLE state (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID
"""

# CROSS JOIN: SQLite then begins with the few users at hand, never with a walk through all events.
# A bare column beside MIN() is that of the row with the minimum: a product's source is how it
# first came into the pool.
TEMPORARY = f"""
CREATE TEMP TABLE batch (event_id INTEGER PRIMARY KEY, user_id TEXT, item_id TEXT,
    event_type TEXT, event_time INTEGER, category TEXT);
CREATE TEMP TABLE touched (user_id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TEMP VIEW pool AS
    WITH logs AS (
        SELECT user_id, item_id, SUM({_weight}) AS score, 0 AS counter, 0 AS n, 'events' AS source
        FROM touched CROSS JOIN main.events USING (user_id) GROUP BY user_id, item_id
        UNION ALL
        SELECT user_id, item_id, 0, SUM(shown), MIN(n), source
        FROM touched CROSS JOIN main.log USING (user_id) GROUP BY user_id, item_id),
    sums AS (
        SELECT user_id, item_id, SUM(score) AS score, SUM(counter) AS counter, MIN(n), source
        FROM logs GROUP BY user_id, item_id)
    SELECT user_id, item_id, counter, score, source,
        ROW_NUMBER() OVER (PARTITION BY user_id ORDER BY score DESC, counter, item_id) AS place
    FROM sums WHERE NOT EXISTS (
        SELECT 1 FROM main.purchases p WHERE p.user_id = sums.user_id AND p.item_id = sums.item_id);
CREATE TEMP VIEW favourite AS
    WITH liked AS (
        SELECT user_id, item_id, SUM({_weight}) AS liking
        FROM touched CROSS JOIN main.events USING (user_id)
        GROUP BY user_id, item_id HAVING liking > 0
        UNION ALL
        SELECT user_id, item_id, 1 FROM touched CROSS JOIN main.purchases USING (user_id)),
    ranked AS (
        SELECT user_id, category,
            ROW_NUMBER() OVER (PARTITION BY user_id ORDER BY SUM(liking) DESC, category) AS place
        FROM liked JOIN main.items USING (item_id)
        WHERE category <> '' GROUP BY user_id, category)
    SELECT user_id, category FROM ranked WHERE place = 1;
"""

# The rows of NULLs write an empty pool too.
REBUILD = """
INSERT INTO queue
SELECT user_id, json_object('pool',
    json_group_array(json_array(item_id, counter, score)) FILTER (WHERE item_id IS NOT NULL))
FROM (SELECT user_id, item_id, counter, score FROM pool WHERE place <= ?
      UNION ALL SELECT user_id, NULL, NULL, NULL FROM touched
      ORDER BY user_id, counter, score DESC, item_id)
GROUP BY user_id
ON CONFLICT (user_id) DO UPDATE SET product_queue = excluded.product_queue
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
