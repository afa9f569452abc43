"""The least that a list over HTTP can cost here: a plain FastAPI route that returns a constant.

`FLOOR=answer.json uvicorn floor:app` answers every list with the JSON of that file.
"""

import json
import os
from pathlib import Path

from fastapi import FastAPI

app = FastAPI()
ANSWER = json.loads(Path(os.environ["FLOOR"]).read_text())


@app.get("/api/v1/recommendations/{user_id}")
def recommend(user_id: str) -> dict:
    """The same list for everybody."""
    return ANSWER
