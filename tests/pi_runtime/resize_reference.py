"""contract/resize.md once more, in plain Python, straight from its text: slow, no line of the runtime's."""

from __future__ import annotations

from fractions import Fraction

Image = list[list[list[int]]]  # rows of pixels of channels


def axis(n: int, m: int) -> list[list[int]]:
    """The m rows of n weights."""
    rows = []
    for i in range(m):
        a = [max(0, 2 * max(n, m) - abs((2 * j + 1) * m - (2 * i + 1) * n)) for j in range(n)]
        total = sum(a)
        sums = [0]
        for height in a:
            sums.append(sums[-1] + height)
        marks = [(2 * s * 65536 + total) // (2 * total) for s in sums]
        rows.append([marks[j + 1] - marks[j] for j in range(n)])
    return rows


def resize(image: Image, height: int, width: int) -> Image:
    """Every output pixel as one double sum over all input pixels."""
    down, across = axis(len(image), height), axis(len(image[0]), width)
    channels = range(len(image[0][0]))
    return [
        [
            [
                (
                    2**31
                    + sum(
                        v * h * pixel[c]
                        for v, row in zip(down[y], image, strict=True)
                        if v
                        for h, pixel in zip(across[x], row, strict=True)
                        if h
                    )
                )
                // 2**32
                for c in channels
            ]
            for x in range(width)
        ]
        for y in range(height)
    ]


def exact(image: Image, height: int, width: int) -> list[list[list[Fraction]]]:
    """The triangle filter without any rounding, from its definition by real distances."""

    def share(n: int, m: int) -> list[list[Fraction]]:
        scale = Fraction(n, m)
        radius = max(scale, Fraction(1))
        rows = []
        for i in range(m):
            centre = (i + Fraction(1, 2)) * scale
            row = [max(Fraction(0), 1 - abs(j + Fraction(1, 2) - centre) / radius) for j in range(n)]
            rows.append([each / sum(row) for each in row])
        return rows

    down, across = share(len(image), height), share(len(image[0]), width)
    return [
        [
            [
                sum(
                    (
                        v * h * pixel[c]
                        for v, row in zip(down[y], image, strict=True)
                        for h, pixel in zip(across[x], row, strict=True)
                    ),
                    Fraction(0),
                )
                for c in range(len(image[0][0]))
            ]
            for x in range(width)
        ]
        for y in range(height)
    ]


def centre_crop(image: Image, height: int, width: int) -> Image:
    """The middle part of the shape height : width."""
    rows, columns = len(image), len(image[0])
    if columns * height > rows * width:
        kept = max(1, (2 * rows * width + height) // (2 * height))
        left = (columns - kept) // 2
        return [row[left : left + kept] for row in image]
    kept = max(1, (2 * columns * height + width) // (2 * width))
    top = (rows - kept) // 2
    return image[top : top + kept]
