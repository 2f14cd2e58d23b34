"""Names of log columns by meaning, in several languages; values decide where names say nothing."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Final

import polars as pl

from recsys.columns import EVENT, ITEM_ID, TIMESTAMP, USER_ID, WEIGHT


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# plain names (see `plain`), the likeliest first; of ids "x" also matches "x_id", "x_nr", ...
_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    USER_ID: _words(
        "user uid customer client member account buyer shopper reviewer reader subscriber player visitor fullvisitor "
        "person profile "
        "kunde kunden kd nutzer benutzer mitglied besucher kaeufer kaufer konto "  # German
        "utilisateur acheteur membre compte visiteur abonne "  # French
        "usuario cliente clienti comprador miembro cuenta "  # Spanish, Portuguese, Italian
        "utente acquirente utilizador membro conta "
        "gebruiker klant klanten koper lid bezoeker "  # Dutch
        "session device cookie sitzung sesion sessao sessione sessie"
    ),
    ITEM_ID: _words(
        "item iid product movie asin parentasin sku article book isbn track song game video show anime recipe news "
        "listing offer ad business artist content material stock good entity target "
        "artikel produkt ware buch film lied spiel "
        "produit livre "
        "articulo producto libro pelicula "
        "articolo prodotto artigo produto livro filme "
        "boek film"
    ),
    TIMESTAMP: _words(
        "timestamp ts eventtime eventtimestamp datetime time date createdat created unixreviewtime eventdate orderdate "
        "invoicedate purchasedate reviewtime when tdat unixtime epoch day updatedat "
        "zeitstempel zeitpunkt datum zeit bestelldatum kaufdatum rechnungsdatum tag "
        "horodatage dateheure dateachat datecommande "
        "fechahora fecha marcatemporal "
        "dataora datahora data "
        "tijdstempel tijdstip besteldatum aankoopdatum tijd"
    ),
    EVENT: _words(
        "event eventtype eventname action actiontype behavior behaviour behaviortype ereignis ereignistyp aktion "
        "vorgang evenement typeevenement evento tipoevento tipodeevento accion azione acao gebeurtenis actie"
    ),
    WEIGHT: _words(
        "rating weight score stars overall quantity qty count plays playcount amount value label feedback strength "
        "bewertung sterne menge anzahl stueckzahl stuckzahl note quantite valoracion calificacion puntuacion cantidad "
        "voto valutazione punteggio quantita avaliacao nota classificacao quantidade beoordeling waardering cijfer "
        "aantal hoeveelheid"
    ),
}
_SUFFIXES: Final = (
    *("", "id", "ids", "key", "code", "no", "number", "num", "idx", "index", "hash", "uuid", "name"),
    *("nr", "nummer", "numero", "kennung", "codigo", "codice"),
)
_TIME_SUFFIXES: Final = ("", "ms", "s", "utc", "type", "seconds", "local", "gmt")
_NOT_ITEM: Final = re.compile(
    r"title|titel|titre|titulo|titolo|descr|beschreib|categ|kateg|price|preis|prix|precio|prezzo|preco|prijs|type|url|"
    r"brand|marke|count|group|grupp"
)
# times of something else than the event
_OTHER_TIME: Final = re.compile(
    r"birth|dob|geburt|naissance|nacimiento|nascita|nascimento|geboort|sign_?up|regist|member_?since|first_?seen|"
    r"last_?seen|last_?login|publish|publi|release|launch|expir|valid|deliver|liefer|livraison|entrega|ship|versand|"
    r"updat|modif|process|ingest|import|load|export|insert|delet|cancel|return"
)


def plain(name: str) -> str:
    """A name's letters without accents and its digits, in lower case.

    >>> plain("Événement_ID")
    'evenementid'
    """
    return re.sub(r"[^a-z0-9]", "", _folded(name).lower())


def means(name: str) -> str | None:
    """Our name for a column of this exact name, whatever its values."""
    written = plain(name)
    for ours in _NAMES:
        if any(written == word + suffix for word in _NAMES[ours] for suffix in _suffixes(ours)):
            return ours
    return None


def by_name(frame: pl.DataFrame, names: Sequence[str], ours: str) -> list[str]:
    """The columns whose names mean this, the likeliest first; those of one value alone last, and only as ids."""
    constant = {name for name in names if frame[name].n_unique() <= 1}
    ids = ours in (USER_ID, ITEM_ID)
    written = {name: plain(name) for name in names if ids or name not in constant}
    found = [
        name
        for word in _NAMES[ours]
        for suffix in _suffixes(ours)
        for name, letters in written.items()
        if letters == word + suffix
    ]
    if ours not in (EVENT, WEIGHT):
        found += [
            name
            for word in _NAMES[ours]
            for name in written
            if word in tokens(name) and not _NOT_ITEM.search(_folded(name).lower())
        ]
    return sorted(dict.fromkeys(found), key=lambda name: name in constant)


def is_other_time(name: str) -> bool:
    """Return whether a name says that its times are of something else: a birth, a delivery, a sign-up."""
    return bool(_OTHER_TIME.search(_folded(name).lower()))


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKD", name.replace("ß", "ss")).encode("ascii", "ignore").decode()


def tokens(name: str) -> set[str]:
    """The words of "shop_product_id", "product.id", "ViewedAtTime"."""
    return {token.lower() for token in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", _folded(name))}


def _suffixes(ours: str) -> tuple[str, ...]:
    return _SUFFIXES if ours in (USER_ID, ITEM_ID) else _TIME_SUFFIXES
