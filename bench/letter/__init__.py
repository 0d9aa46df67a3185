"""The letter of the bench: an order confirmation of about 4 kB, as text and HTML, to a recipient of its own each."""

from typing import Any, Final

_THINGS: Final = ("Teapot, blue", "Cup & saucer", "Milk jug", "Sugar tongs", "Tray, oak", "Tea towel", "Strainer")
_ITEMS: Final = 4


def sender(number: int) -> str:
    """The From address of this number; number 0 sends where nothing else is said."""
    return f"bench-{number}@shop.example"


def recipient(number: int) -> str:
    """The address that gets the letter of this number."""
    return f"anna.{number}@client.example"


def context(number: int) -> dict[str, Any]:
    """What the templates are filled with; `rivals/bullmq/letter.js` says the same."""
    counts = [1 + (number + place) % 3 for place in range(_ITEMS)]
    items = [
        {"name": _THINGS[(number + place) % len(_THINGS)], "count": count, "price": "12.50"}
        for place, count in enumerate(counts)
    ]
    return {
        "name": f"Anna Client the {number}th",
        "number": number,
        "street": f"Long Street {number % 300}",
        "town": "10115 Berlin",
        "items": items,
        "total": f"{12.5 * sum(counts):.2f}",
    }
