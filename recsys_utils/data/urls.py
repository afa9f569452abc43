"""Where a source lies: its url checked, filled from the environment, and kept out of messages."""

import os
import re
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit

from sqlglot import tokenize
from sqlglot.errors import SqlglotError
from sqlglot.tokens import TokenType

from recsys_utils import LabError

DATABASES = {"postgresql": "postgres", "postgres": "postgres", "mysql": "mysql"}
DATABASES |= {"mariadb": "mysql", "sqlite": "sqlite"}
REMOTE_FILES = ("http", "https", "s3")
VARIABLE = re.compile(r"\$\{(\w+)\}")
ONLY_VARIABLES = re.compile(r"(\$\{\w+\})+")
SECRET_KEY = re.compile(r"pass|pwd|secret|token|signature|credential|^sig$|api_?key", re.I)
FILE_KEYS = ("passfile",)  # of libpq: names a file, is no secret itself
CLOUD_SECRETS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


def scheme(url: str | None) -> str:
    """`postgresql` of `postgresql://…`; "" for None and for a path without a scheme."""
    found = re.match(r"([A-Za-z][A-Za-z0-9.+-]+)://", url or "")
    return found[1].lower().split("+")[0] if found else ""


def database(url: str | None) -> str:
    """`postgres`, `mysql` or `sqlite`; "" where the url names no database."""
    return DATABASES.get(scheme(url), "")


def check_place(
    where: str, files: list[str], url: str | None, query: str | None, table: str | None
) -> None:
    """Raise LabError where `url`, `query` and `table` of a source do not fit each other.

    A url that may hold a password is not repeated in the message.
    """
    if url is None:
        if query or table:
            raise LabError(
                f"{where} has {'query' if query else 'table'} and no url: add the url of the"
                " database, or remove it"
            )
        return
    if not url.strip():
        raise LabError(f"{where} has an empty url: fill it in or remove it")
    if files:
        raise LabError(f"{where} has both files and url: keep one of them")
    _check_url(where, url)
    if not database(url):
        if query or table:
            raise LabError(
                f"{where} has {'query' if query else 'table'} for files: it belongs to the url of"
                " a database, remove it"
            )
        return
    if (query is None) == (table is None):
        has = "neither query nor table" if query is None else "both query and table"
        raise LabError(
            f'{where} has {has}: it takes one of them, table = "receipts" or query = "SELECT …"'
        )
    if query is not None:
        _check_query(where, query, database(url))
    elif not all(part.strip() for part in table.split(".")):
        raise LabError(f"{where} has table = '{table}', which is no name such as shop.receipts")


def file_patterns(files: list[str], url: str | None) -> list[str]:
    """The files that a source names: its `files`, or its `url` where that is a plain path."""
    return [url] if url and not scheme(url) else files


def statement(query: str, kind: str) -> str:
    """A checked query without what stands behind its last word: it fits into parentheses."""
    return query[: _tokens(query, kind)[-1].end + 1]


def filled(url: str) -> str:
    """The url with each ${NAME} replaced by the variable's value, percent-encoded.

    Raises LabError where a variable is not set. The result is for a connection and nothing else.
    """
    for name in VARIABLE.findall(url):
        if not os.environ.get(name):
            raise LabError(
                f"{url} needs the environment variable {name}, which is not set: export {name}=…"
            )
    return VARIABLE.sub(lambda found: quote(os.environ[found[1]], safe=""), url)


def without_login(url: str) -> tuple[str, tuple[str, str] | None]:
    """A filled url without `user:password@`, and these two; None where it has none."""
    parts = urlsplit(url)
    login, at, host = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    bare = parts._replace(netloc=host).geturl()
    return bare, ((unquote(user), unquote(password)) if at else None)


def masked(text: str, url: str) -> str:
    """Text of somebody else's error, with each variable's value replaced by its name."""
    secrets = {name: os.environ.get(name, "") for name in {*VARIABLE.findall(url), *CLOUD_SECRETS}}
    forms = {}
    for name, value in secrets.items():
        spellings = (value, quote(value, safe=""), quote(value), quote_plus(value))
        for spelling in (*spellings, repr(value)[1:-1], value.replace("'", "''")):
            forms[spelling] = "${" + name + "}"
    forms.pop("", None)
    if not forms:
        return text
    longest_first = sorted(forms, key=len, reverse=True)
    pattern = "|".join(re.escape(form) for form in longest_first)
    return re.sub(pattern, lambda found: forms[found[0]], text)


def one_line(error: BaseException, url: str) -> str:
    """The first line of a driver's error, without its prefix and without secrets."""
    has_number = len(error.args) == 2 and isinstance(error.args[0], int)
    text = str(error.args[1] if has_number else error).strip()
    lines = masked(text or type(error).__name__, url).splitlines()
    return re.sub(r"^([A-Z]\w+ )+Error: ", "", lines[0]).rstrip(" .:")


def _check_url(where: str, url: str) -> None:
    kind = scheme(url)
    if not kind:
        if url.startswith("${"):
            raise LabError(
                f"{where}: url begins with a variable: write out the scheme, as in"
                ' "postgresql://${USER}:${PASSWORD}@host/shop"'
            )
        return
    if kind not in (*DATABASES, *REMOTE_FILES):
        raise LabError(
            f"{where}: url begins with {kind}://, which is none of"
            f" {', '.join([*DATABASES, *REMOTE_FILES])}: a local file needs no scheme"
        )
    if kind in ("http", "https") and "*" in url:
        raise LabError(
            f"{where}: url has a *, which works for s3:// and for local folders: name one file"
        )
    if kind != "sqlite":
        _check_login(where, url)
    _check_parameters(where, url)


def _check_login(where: str, url: str) -> None:
    netloc = re.match(r"[^:]+://([^/?#]*)", url)[1]
    login, _, host = netloc.rpartition("@")
    password = login.partition(":")[2]
    if password and not ONLY_VARIABLES.fullmatch(password):
        kind = url.partition("://")[0]
        raise LabError(
            f"{where}: url has a password written out: write {kind}://user:${{SHOP_DB_PASSWORD}}@…"
            " and export SHOP_DB_PASSWORD=… before you start"
        )
    has_stray_at = bool(database(url)) and "@" in urlsplit(url).path
    if has_stray_at or not re.fullmatch(
        r"(\[[^\]]*\]|[^:\[\]]*)(:(\d*|\$\{\w+\}))?(,[^@]*)?", host
    ):
        raise LabError(
            f"{where}: url has no valid host and port: where the password is written out, put"
            " ${SHOP_DB_PASSWORD} in its place and export SHOP_DB_PASSWORD=…"
        )


def _check_parameters(where: str, url: str) -> None:
    """No secret may be written out behind the question mark either."""
    for key, value in parse_qsl(url.partition("?")[2], keep_blank_values=True):
        is_secret = SECRET_KEY.search(key) and key not in FILE_KEYS
        if is_secret and value and not ONLY_VARIABLES.fullmatch(value):
            raise LabError(
                f"{where}: url has {key} written out: write {key}=${{SHOP_SECRET}} and export"
                " SHOP_SECRET=… before you start"
            )


def _check_query(where: str, query: str, kind: str) -> None:
    """One SELECT; what the first word lets through, the read-only transaction still refuses."""
    try:
        tokens = _tokens(query, kind)
    except SqlglotError:
        raise LabError(f"{where}: query cannot be read as SQL: check its quotes") from None
    kinds = [token.token_type for token in tokens]
    opening = [kind for kind in kinds if kind != TokenType.L_PAREN][:1]
    if opening not in ([TokenType.SELECT], [TokenType.WITH]):
        first = tokens[0].text if tokens else "nothing"
        raise LabError(
            f"{where}: query begins with {first}: it may only read, so write SELECT … or WITH …"
        )
    if TokenType.SEMICOLON in kinds:
        raise LabError(f"{where}: query holds several statements: it takes one SELECT")
    # MySQL runs what stands in such a comment, and writes files outside of any transaction.
    if TokenType.INTO in kinds or re.search(r"/\*M?!", query):
        raise LabError(f"{where}: query holds INTO or /*!: it may only read, so take it out")


def _tokens(query: str, kind: str) -> list:
    """The query's words without comments and without the semicolon at its end."""
    tokens = tokenize(query, read=kind)
    while tokens and tokens[-1].token_type == TokenType.SEMICOLON:
        tokens.pop()
    return tokens
