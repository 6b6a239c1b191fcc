"""Ratios as an SVG: a bar to the median of each phase of each series, a dot for each pair."""
from xml.sax.saxutils import escape

WIDTH, LEFT, RIGHT, ROW, TITLE, GROUP = 760, 130, 70, 24, 56, 30
INK, BAR, DOT = "#7a7a7a", "#3d85c6", "#e08e0b"  # legible on white and on black


def _ticks(most):
    step = next(s for s in (0.25, 0.5, 1, 2, 5, 10, 20, 50, 100, 1e3, 1e4, 1e5) if most / s <= 8)
    return [i * step for i in range(int(most / step) + 2)]


def _text(x, y, text, anchor="start", size=13, more=""):
    return (f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}"{more}>'
            f"{escape(text)}</text>")


def svg(title, subtitle, groups):
    """groups: [(name, [(phase, [ratio of each pair], median)])]."""
    top = max(r for _, rows in groups for _, ratios, _ in rows for r in ratios)
    ticks = _ticks(max(top, 1.0))
    x = lambda v: LEFT + v / ticks[-1] * (WIDTH - LEFT - RIGHT)
    height = TITLE + sum(GROUP + ROW * len(rows) for _, rows in groups) + 44
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
           f'width="{WIDTH}" height="{height}" font-family="sans-serif" fill="{INK}" role="img">',
           f"<title>{escape(title)}</title>",
           _text(12, 24, title, size=16, more=' font-weight="bold"'), _text(12, 44, subtitle)]
    for v in ticks:
        strong = v == 1
        out.append(f'<line x1="{x(v):.1f}" x2="{x(v):.1f}" y1="{TITLE + 4}" y2="{height - 36}" '
                   f'stroke="{INK}" stroke-width="{2 if strong else 1}" '
                   f'stroke-opacity="{0.9 if strong else 0.25}"/>')
        out.append(_text(x(v), height - 20, f"{v:g}x", "middle", 12))
    out.append(_text(WIDTH - 12, height - 5, "times as fast as llama.cpp; bar: median, dots: pairs",
                     "end", 11))
    y = TITLE
    for name, rows in groups:
        out.append(_text(12, y + 21, name, more=' font-weight="bold"'))
        y += GROUP
        for phase, ratios, median in rows:
            middle = y + ROW / 2
            out.append(_text(LEFT - 10, middle + 4, phase, "end"))
            out.append(f'<rect x="{LEFT}" y="{y + 5}" width="{x(median) - LEFT:.1f}" '
                       f'height="{ROW - 10}" fill="{BAR}" fill-opacity="0.55"/>')
            out += [f'<circle cx="{x(r):.1f}" cy="{middle:.1f}" r="3.2" fill="{DOT}" '
                    f'fill-opacity="0.85"/>' for r in ratios]
            out.append(_text(WIDTH - 12, middle + 4, f"{median:.2f}x", "end"))
            y += ROW
    return "\n".join([*out, "</svg>", ""])
