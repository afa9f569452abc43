"""Ids that may have been meant by a mistyped one."""

from recsys_utils.serving.artifacts import Artifacts

LONGEST = 40  # characters of a mistyped id that are looked at
NEAR = 12  # ids that are offered for a mistyped one


def near_ids(art: Artifacts, user: str) -> list[str]:
    """Known ids that one slip of the hand makes of a text: a character less, more, other, swapped.

    Upper and lower case, blanks around and leading zeros do not count (Norvig 2007).
    """
    text = user.strip().casefold()[:LONGEST]
    known, letters = art.folded_ids
    cuts = [(text[:at], text[at:]) for at in range(len(text) + 1)]
    slips = [text, text.lstrip("0")]
    slips += [left + right[1:] for left, right in cuts if right]
    slips += [left + right[1] + right[0] + right[2:] for left, right in cuts if len(right) > 1]
    slips += [left + letter + right for left, right in cuts for letter in letters]
    slips += [left + letter + right[1:] for left, right in cuts if right for letter in letters]
    found = dict.fromkeys(known[slip] for slip in slips if slip in known)
    return [one for one in found if one != user][:NEAR]
