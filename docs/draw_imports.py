"""Draws docs/imports.svg, what imports what, from the files as they are: python -m docs.draw_imports."""

import ast
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs/imports.svg"

# What is drawn as a box, and what it is for.
PARTS = {
    "main": "the command line",
    "learning.run": "train, test",
    "learning.use": "predict, export",
    "learning.suspects": "doubtful labels",
    "options": "all flags",
    "learning.tricks": "the table of tricks",
    "learning": "step, epochs, classifier",
    "network": "the networks, weights",
    "utils.data": "folders to batches",
    "utils.run": "files, device, chance",
    "utils.batch": "lists of runs",
    "utils.report": "what helps",
    "utils.benchmark": "how fast",
    "utils": "errors, flags, text",
}
COLOURS = 'fill="#eef3f8" stroke="#357"'
WIDTH, HEIGHT, ACROSS, DOWN = 168, 44, 24, 40  # of a box, and between boxes


def part_of(module: str) -> str | None:
    """The part that a module of ours belongs to, the most special one."""
    found = [part for part in PARTS if module == part or module.startswith(f"{part}.")]
    return max(found, key=len, default=None)


def imports_of(path: Path) -> set[str]:
    """All modules that a file imports, within functions too, with what it takes from them."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def our_files() -> dict[str, Path]:
    """The files of the program by the names of their modules."""
    files = {}
    for part in PARTS:
        place = ROOT / part.replace(".", "/")
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]:
            files[".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")] = path
    return files


def part_imports() -> dict[str, set[str]]:
    """For each part those that it imports."""
    found: dict[str, set[str]] = {part: set() for part in PARTS}
    for module, path in our_files().items():
        own = part_of(module)
        for other in map(part_of, imports_of(path)):
            if own and other and other != own:
                found[own].add(other)
    return found


def draw() -> str:
    """The picture: whoever imports stands above what is imported; lines that others imply are left out."""
    imports = part_imports()

    def depth(part: str) -> int:
        return 1 + max(map(depth, imports[part]), default=-1)

    def reach(part: str) -> set[str]:
        return imports[part].union(*map(reach, imports[part]))

    def level(part: str) -> int:
        """Just below whoever imports it."""
        above = [other for other in PARTS if part in imports[other]]
        return min(map(level, above)) - 1 if above else depth(part)

    rows: dict[int, list[str]] = {}
    for part in PARTS:
        rows.setdefault(level(part), []).append(part)
    most = max(map(len, rows.values()))
    size = (most * (WIDTH + ACROSS) + ACROSS, len(rows) * (HEIGHT + DOWN) + DOWN // 2)
    places = {}
    for row, parts in rows.items():
        left = (size[0] - len(parts) * (WIDTH + ACROSS) + ACROSS) / 2
        for number, part in enumerate(parts):
            places[part] = (
                left + number * (WIDTH + ACROSS),
                size[1] - (row + 1) * (HEIGHT + DOWN) + DOWN / 2,
            )
    lines = []
    for part, others in imports.items():
        for other in sorted(others - set().union(*map(reach, others))):
            (x, y), (to_x, to_y) = places[part], places[other]
            middle = x + WIDTH / 2
            end = min(max(middle, to_x + 4), to_x + WIDTH - 4)  # the nearest place of the other box
            line = f'x1="{middle:.0f}" y1="{y + HEIGHT:.0f}" x2="{end:.0f}" y2="{to_y:.0f}"'
            lines.append(f'<line {line} stroke="#888"/>')
    for part, (x, y) in places.items():
        name = part.replace(".", "/") + ("/" if (ROOT / part.replace(".", "/")).is_dir() else ".py")
        middle = x + WIDTH / 2
        lines += [
            f'<rect x="{x:.0f}" y="{y:.0f}" width="{WIDTH}" height="{HEIGHT}" rx="6" {COLOURS}/>',
            f'<text x="{middle:.0f}" y="{y + 18:.0f}" font-weight="bold">{escape(name)}</text>',
            f'<text x="{middle:.0f}" y="{y + 35:.0f}" fill="#555">{escape(PARTS[part])}</text>',
        ]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size[0]} {size[1]}" width="{size[0]}"'
    style = 'font-family="sans-serif" font-size="13" text-anchor="middle"'
    return (
        f'{head} {style}>\n<rect width="100%" height="100%" fill="white"/>\n'
        + "\n".join(lines)
        + "\n</svg>\n"
    )


if __name__ == "__main__":
    PICTURE.write_text(draw(), "utf-8")
