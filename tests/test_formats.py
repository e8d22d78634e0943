"""utils/data/formats.py and decode.py: what is drawn into a file of any kind is what is seen."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from utils.data.decode import Frame, UnreadableImage, decode, look
from utils.data.formats import FORMATS, UNMARKED, formats_of, is_image

SIDE = 16
LEVELS = np.tile(np.arange(SIDE) * 17, (SIDE, 1))  # 0 to 255 from left to right
COLOURS = np.stack([LEVELS, LEVELS[:, ::-1], LEVELS.T], 2).astype(np.uint8)


def seen(path):
    return decode(path, Frame(SIDE)).astype(int)


def tiff(levels, bits=(8,), photometric=1, signed=False, order="<", more=()):
    """The bytes of a TIFF file with the numbers as they are, in the machine's order for `order`."""
    data = levels.tobytes()
    head = {
        256: (4, [levels.shape[-1]]),
        257: (4, [levels.shape[0]]),
        258: (3, bits),
        259: (3, [1]),
        262: (3, [photometric]),
        273: (4, [8]),
        277: (3, [len(bits)]),
        278: (4, [levels.shape[0]]),
        279: (4, [len(data)]),
        339: (3, [2 if signed else 1] * len(bits)),
        **dict(more),
    }
    data += bytes(len(data) % 2)
    place = 8 + len(data) + 2 + 12 * len(head) + 4
    entries, values = b"", b""
    for tag, (kind, numbers) in sorted(head.items()):
        value = struct.pack(f"{order}{len(numbers)}{'..HI'[kind - 1]}", *numbers)
        if len(value) > 4:
            value, values = struct.pack(f"{order}I", place + len(values)), values + value
        entries += struct.pack(f"{order}HHI", tag, kind, len(numbers)) + value.ljust(4, b"\0")
    mark = {"<": b"II*\0", ">": b"MM\0*"}[order]
    start = struct.pack(f"{order}I", 8 + len(data))
    return mark + start + data + struct.pack(f"{order}H", len(head)) + entries + bytes(4) + values


def packed(levels, bits):
    """Numbers of so many bits, one after the other."""
    text = "".join(f"{level:0{bits}b}" for level in levels.ravel())
    return np.frombuffer(int(text, 2).to_bytes(len(text) // 8, "big"), np.uint8).reshape(len(levels), -1)


def twelve():
    content = tiff(packed(LEVELS * 4095 // 255, 12), (12,))
    width = struct.pack("<HHII", 256, 4, 1, 24)
    assert width in content
    return content.replace(width, struct.pack("<HHII", 256, 4, 1, SIDE))


def pnm(kind, most, channels=1):
    levels = np.repeat(LEVELS[..., None] * most // 255, channels, 2)
    head = f"P{kind}\n# drawn\n{SIDE} {SIDE}\n{most}\n".encode()
    if kind in (2, 3):
        return head + " ".join(map(str, levels.ravel())).encode()
    return head + levels.astype(">u2" if most > 255 else "u1").tobytes()


def sun(pixels):
    return (
        struct.pack(">8I", 0x59A66A95, SIDE, SIDE, 24, 3 * SIDE * SIDE, 1, 0, 0) + pixels[..., ::-1].tobytes()
    )


def xpm():
    letters = "abcdefghijklmnop"
    colours = [f'"{letter} c #{17 * n:02x}{17 * n:02x}{17 * n:02x}",' for n, letter in enumerate(letters)]
    rows = [f'"{letters}",'] * SIDE
    lines = ["/* XPM */", "static char *a[] = {", f'"{SIDE} {SIDE} {SIDE} 1",', *colours, *rows]
    return ("\n".join(lines)[:-1] + "\n};\n").encode()


def png_16(levels, kind):
    """16 bits a level, of grey (0), colours (2), grey with alpha (4), or colours with alpha (6)."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = levels.astype(">u2").reshape(SIDE, -1)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 16, kind, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(raw))
        + chunk(b"IEND", b"")
    )


U16 = LEVELS * 257
OPAQUE = np.full_like(U16, 65535)
GREYS = {
    "8 bits.tif": tiff(LEVELS.astype("u1")),
    "8 bits, white is 0.tif": tiff((255 - LEVELS).astype("u1"), photometric=0),
    "8 bits, signed.tif": tiff((LEVELS - 128).astype("i1"), signed=True),
    "16 bits.tif": tiff(U16.astype("<u2"), (16,)),
    "16 bits, big end first.tif": tiff(U16.astype(">u2"), (16,), order=">"),
    "16 bits, white is 0.tif": tiff((65535 - U16).astype("<u2"), (16,), photometric=0),
    "16 bits, signed.tif": tiff((U16 - 32768).astype("<i2"), (16,), signed=True),
    "16 bits, signed, big end first.tif": tiff((U16 - 32768).astype(">i2"), (16,), signed=True, order=">"),
    "12 bits.tif": twelve(),
    "16 bits of colours.tif": tiff(np.repeat(U16, 3, 1).astype("<u2"), (16,) * 3, 2, more={256: (4, [SIDE])}),
    "16 bits.png": png_16(U16, 0),
    "16 bits and alpha.png": png_16(np.stack([U16, OPAQUE], 2), 4),
    "16 bits of colours.png": png_16(np.stack([U16] * 3, 2), 2),
    "16 bits of colours and alpha.png": png_16(np.stack([U16] * 3 + [OPAQUE], 2), 6),
    "drawn.xpm": xpm(),
} | {
    f"{most}, {kind}.{ending}": pnm(kind, most, channels)
    for most in (15, 255, 1023, 4095, 65535)
    for kind, ending, channels in ((2, "pgm", 1), (5, "pgm", 1), (3, "ppm", 3), (6, "pnm", 3))
}


@pytest.mark.parametrize("name", GREYS)
def test_levels_are_those_that_were_drawn(tmp_path, name):
    (tmp_path / name).write_bytes(GREYS[name])
    assert is_image(name)
    assert np.abs(seen(tmp_path / name) - LEVELS[..., None]).max() <= 1


WRITTEN = [  # modes of Pillow, and endings of files that it writes of them
    *((mode, "png") for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")),
    *((mode, "tif") for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "I;16")),
    *((mode, "tga") for mode in ("1", "L", "LA", "P", "RGB", "RGBA")),
    *((mode, "bmp") for mode in ("1", "L", "P", "RGB", "RGBA")),
    *((mode, "jp2") for mode in ("L", "LA", "RGB", "RGBA", "I;16")),
    *((mode, "jpg") for mode in ("L", "RGB", "CMYK")),
    *((mode, "pcx") for mode in ("1", "L", "P", "RGB")),
    *((mode, "sgi") for mode in ("L", "RGB", "RGBA")),
    *((mode, "webp") for mode in ("RGB", "RGBA")),
    *((mode, "gif") for mode in ("L", "P")),
    *((mode, "dib") for mode in ("L", "RGB")),
    *(("RGB", ending) for ending in ("jfif", "jpe", "mpo", "avif", "apng", "qoi", "j2k", "tiff", "ppm")),
    *(("1", ending) for ending in ("pbm", "xbm", "msp")),
]


@pytest.mark.parametrize(("mode", "ending"), WRITTEN)
def test_images_of_every_mode_are_seen_as_they_were_drawn(tmp_path, mode, ending):
    if Image.registered_extensions().get(f".{ending}") not in Image.SAVE:
        pytest.skip("this Pillow does not write it")
    grey = mode in ("1", "L", "LA", "I;16")
    drawn = Image.fromarray(LEVELS.astype(np.uint8) if grey else COLOURS)
    if mode == "1":
        drawn = drawn.point(lambda level: 255 * (level > 127))
    expected = np.asarray(drawn.convert("RGB"), int)
    image = Image.fromarray(U16.astype(np.uint16)) if mode == "I;16" else drawn.convert(mode)
    if mode == "P":
        expected = np.asarray(image.convert("RGB"), int)
    path = tmp_path / f"drawn.{ending}"
    sure = {"quality": 100, "subsampling": 0} if ending in ("jpg", "jfif", "jpe", "mpo") else {}
    sure |= {"lossless": True} if ending == "webp" else {"quality": 100} if ending == "avif" else {}
    image.save(path, **sure)
    assert is_image(path.name)
    error = np.abs(seen(path) - expected)
    lossy = {"jpg": 6, "jfif": 6, "jpe": 6, "mpo": 6, "avif": 24}
    assert error.max() <= (40 if mode == "LAB" else lossy.get(ending, 3))  # 8 bits are few for LAB
    assert error.mean() <= 2.1


def test_a_file_that_pillow_only_reads_is_seen_as_it_was_drawn(tmp_path):
    (tmp_path / "a.ras").write_bytes(sun(COLOURS))
    assert is_image("a.ras")
    assert np.array_equal(seen(tmp_path / "a.ras"), COLOURS)


def jpeg2000_of_10_bits():
    """The bytes of one of 8 whose header says 10, of which only that it is refused is asked."""
    buffer = io.BytesIO()
    Image.fromarray(COLOURS).save(buffer, "JPEG2000")
    content = bytearray(buffer.getvalue())
    for channel in range(3):
        content[content.index(b"\xff\x4f\xff\x51") + 42 + 3 * channel] = 9
    return bytes(content)


MISREAD = {
    "10 bits of colours.jp2": (jpeg2000_of_10_bits(), "colours have more than 8 bits each"),
    "16 bits, signed, big end first, packed.tif": (
        tiff(
            np.frombuffer(zlib.compress((U16 - 32768).astype(">i2").tobytes()), "u1"),
            (16,),
            signed=True,
            order=">",
            more={256: (4, [SIDE]), 257: (4, [SIDE]), 259: (3, [8]), 278: (4, [SIDE])},
        ),
        "signed levels are compressed",
    ),
    "planes of 16 bits.tif": (
        tiff(
            np.concatenate([U16] * 3).astype("<u2"),
            (16,) * 3,
            2,
            more={
                257: (4, [SIDE]),
                273: (4, [8, 8 + 512, 8 + 1024]),
                278: (4, [SIDE]),
                279: (4, [512] * 3),
                284: (3, [2]),
            },
        ),
        "planes of more than 8 bits",
    ),
}


@pytest.mark.parametrize("name", MISREAD)
def test_what_pillow_misreads_is_refused(tmp_path, name):
    content, words = MISREAD[name]
    (tmp_path / name).write_bytes(content)
    with Image.open(tmp_path / name) as image:  # which Pillow takes
        assert image.size == (SIDE, SIDE)
    with pytest.raises(UnreadableImage, match=words):
        seen(tmp_path / name)


@pytest.mark.parametrize("signed", [False, True])
def test_compressed_levels_the_little_end_first_are_those_that_were_drawn(tmp_path, signed):
    levels = (U16 - 32768).astype("<i2") if signed else U16.astype("<u2")
    packed = np.frombuffer(zlib.compress(levels.tobytes()), "u1")
    sizes = {tag: (4, [SIDE]) for tag in (256, 257, 278)}
    content = tiff(packed, (16,), signed=signed, more={**sizes, 259: (3, [8])})
    (tmp_path / "a.tif").write_bytes(content)
    assert np.array_equal(seen(tmp_path / "a.tif")[..., 0], LEVELS)


def test_every_format_that_is_read_was_drawn():
    drawn = {ending for _, ending in WRITTEN} | {name.rpartition(".")[2] for name in GREYS} | {"ras"}
    known = Image.registered_extensions()
    assert {known.get(f".{ending}") for ending in drawn} >= {*FORMATS, *UNMARKED}


@pytest.mark.parametrize("number", [0.5, 70000])
@pytest.mark.parametrize("kind", ["f4", "i4"])
def test_levels_of_unknown_range_are_refused(tmp_path, number, kind):
    Image.fromarray(np.full((4, 4), number, kind)).save(tmp_path / "a.tiff")
    with pytest.raises(UnreadableImage, match="32 bits"):
        decode(tmp_path / "a.tiff", Frame(4))


def test_only_what_is_called_so_may_be_of_a_kind_without_a_mark(tmp_path):
    Image.fromarray(COLOURS).save(tmp_path / "a.tga")
    assert np.array_equal(seen(tmp_path / "a.tga"), COLOURS)
    (tmp_path / "a.tga").rename(tmp_path / "a.jpg")
    with pytest.raises(UnreadableImage, match="it is no image, or one of a kind that is not read"):
        seen(tmp_path / "a.jpg")
    assert "TGA" in formats_of(tmp_path / "a.TGA")
    assert "TGA" not in formats_of(tmp_path / "a.jpg")


@pytest.mark.parametrize("name", ["a.eps", "a.ps", "a.ico", "a.fits", "a.wmf", "a.h5", "a.heic", "a", ".png"])
def test_what_is_not_read_is_not_called_an_image(name):
    assert not is_image(name)


def test_postscript_starts_no_program(tmp_path, monkeypatch):
    monkeypatch.setattr("subprocess.check_call", None)
    for ending in ("jpg", "png", "tga", "pcx"):
        path = tmp_path / f"a.{ending}"
        path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n")
        with pytest.raises(UnreadableImage):
            decode(path, Frame(8))


# Pixels of 8 columns and 16 rows, the upper half bright: turned to 16 columns with the left half dark.
HALVES = np.zeros((16, 8, 3), np.uint8)
HALVES[:8] = 200
TURNED = (0x0112, 3, 1, struct.pack("<H", 6))


def exif(*entries):
    """EXIF data of (tag, type, how many, bytes)."""
    place = 8 + 2 + 12 * len(entries) + 4
    head, values = struct.pack("<H", len(entries)), b""
    for tag, kind, number, value in sorted(entries):
        if len(value) > 4:
            value, values = struct.pack("<I", place + len(values)), values + value
        head += struct.pack("<HHI", tag, kind, number) + value.ljust(4, b"\0")
    return b"II*\0\x08\0\0\0" + head + bytes(4) + values


ODD = {
    "nothing more": [],
    "a rational of (-1, 0)": [(0x011A, 10, 1, struct.pack("<ii", -1, 0))],
    "a rational of (1, 0)": [(0x011A, 5, 1, struct.pack("<II", 1, 0))],
    "NaN": [(0x9999, 12, 1, struct.pack("<d", float("nan")))],
    "infinity": [(0x011A, 12, 1, struct.pack("<d", float("inf")))],
    "text where a number belongs": [(0x011A, 2, 4, b"abc\0")],
    "a negative number": [(0x0100, 9, 1, struct.pack("<i", -5))],
    "an unknown type": [(0x9000, 99, 1, b"abcd")],
    "a part that is not there": [(0x8769, 4, 1, struct.pack("<I", 99999))],
    "a part that is itself": [(0x8769, 4, 1, struct.pack("<I", 8))],
    "a part that is text": [(0x8769, 2, 4, b"abc\0")],
}


@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
@pytest.mark.parametrize("case", ODD)
def test_odd_exif_data_leave_the_orientation(tmp_path, case, kind):
    path = tmp_path / f"a.{kind}"
    Image.fromarray(HALVES).save(
        path, exif=b"Exif\0\0" + exif(TURNED, *ODD[case]), **({"lossless": True} if kind == "webp" else {})
    )
    pixels = decode(path, Frame(16))
    assert pixels[:, :7].max() < 20
    assert pixels[:, 9:].min() > 180
    assert (look(path).width, look(path).height) == (16, 8)


@pytest.mark.parametrize(
    "value",
    [
        (0x0112, 2, 2, b"6\0"),
        (0x0112, 3, 1, struct.pack("<H", 9)),
        (0x0112, 3, 1, struct.pack("<H", 0)),
        (0x0112, 12, 1, struct.pack("<d", float("nan"))),
        (0x0112, 7, 4, b"\6\0\0\0"),
    ],
)
def test_an_orientation_that_is_none_is_passed_by(tmp_path, value):
    Image.fromarray(HALVES).save(tmp_path / "a.png", exif=b"Exif\0\0" + exif(value))
    assert (look(tmp_path / "a.png").width, look(tmp_path / "a.png").height) == (8, 16)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_each_orientation_is_pillows(tmp_path, orientation):
    Image.fromarray(COLOURS[:, :11]).save(
        tmp_path / "a.png", exif=b"Exif\0\0" + exif((0x0112, 3, 1, struct.pack("<H", orientation)))
    )
    with Image.open(tmp_path / "a.png") as image:
        expected = ImageOps.exif_transpose(image)
    assert (look(tmp_path / "a.png").width, look(tmp_path / "a.png").height) == expected.size
    resized = expected.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    assert np.array_equal(seen(tmp_path / "a.png"), np.asarray(resized))


LONG = zlib.compress(b"x" * 3_000_000)
CHUNKS = {
    "a long profile": [(b"iCCP", b"p\0\0" + LONG)],
    "a broken profile": [(b"iCCP", b"p\0\0" + b"no zlib")],
    "an empty profile": [(b"iCCP", b"")],
    "a profile packed in another way": [(b"iCCP", b"p\0\5" + LONG)],
    "a long text": [(b"zTXt", b"k\0\0" + LONG)],
    "a text of 100 MB": [(b"zTXt", b"k\0\0" + zlib.compress(bytes(100_000_000)))],
    "a long text in UTF-8": [(b"iTXt", b"k\0\1\0\0\0" + LONG)],
    "many texts": [(b"zTXt", b"k%d\0\0" % n + zlib.compress(bytes(1_000_000))) for n in range(70)],
    "no EXIF data": [(b"eXIf", b"garbage")],
    "a hex text that is none": [
        (b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n  zz\nno hex"))
    ],
    "sizes cut short": [(b"pHYs", b"ab"), (b"gAMA", b"a"), (b"cHRM", b"abc"), (b"sRGB", b"")],
    "a broken animation": [(b"acTL", b"ab")],
}


def png_with(chunks, wrong=0):
    """HALVES with chunks before the pixels, whose checksums may be wrong."""
    buffer = io.BytesIO()
    Image.fromarray(HALVES).save(buffer, "PNG")
    content = buffer.getvalue()
    more = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data) ^ wrong)
        for name, data in chunks
    )
    return content[:33] + more + content[33:]


@pytest.mark.parametrize("wrong", [0, 1], ids=["", "with wrong checksums"])
@pytest.mark.parametrize("case", CHUNKS)
def test_metadata_of_a_png_do_not_stand_in_the_way_of_its_pixels(tmp_path, case, wrong):
    (tmp_path / "a.png").write_bytes(png_with(CHUNKS[case], wrong))
    assert np.array_equal(decode(tmp_path / "a.png", Frame(8))[[0, -1], 0, 0], [200, 0])
    turned = [*CHUNKS[case], (b"eXIf", exif(TURNED))]
    (tmp_path / "a.png").write_bytes(png_with(turned))
    if b"eXIf" not in dict(CHUNKS[case]) and "hex" not in case:
        assert (look(tmp_path / "a.png").width, look(tmp_path / "a.png").height) == (16, 8)


SEGMENTS = {
    "Photoshop's, cut short": (0xED, b"Photoshop 3.0\0008BIM\4\4\1"),
    "a profile, cut short": (0xE2, b"ICC_PROFILE\0\1"),
    "parts of a profile that do not fit": (0xE2, b"ICC_PROFILE\0\2\tabc"),
    "an index of more pictures, that is none": (0xE2, b"MPF\0garbage"),
    "a short beginning": (0xE0, b"JFIF\0"),
    "a short mark of Adobe's": (0xEE, b"Adobe"),
    "EXIF data, cut short": (0xE1, b"Exif\0\0II"),
    "a long comment": (0xFE, bytes(60_000)),
}


@pytest.mark.parametrize("case", SEGMENTS)
def test_metadata_of_a_jpeg_do_not_stand_in_the_way_of_its_pixels(tmp_path, case):
    marker, data = SEGMENTS[case]
    buffer = io.BytesIO()
    Image.fromarray(HALVES).save(buffer, "JPEG", quality=95)
    plain = buffer.getvalue()
    segment = b"\xff" + bytes([marker]) + struct.pack(">H", len(data) + 2) + data
    (tmp_path / "a.jpg").write_bytes(plain)
    expected = decode(tmp_path / "a.jpg", Frame(8))
    (tmp_path / "a.jpg").write_bytes(plain[:2] + segment + plain[2:])
    assert np.array_equal(decode(tmp_path / "a.jpg", Frame(8)), expected)


def test_damaged_pixels_are_refused_with_the_first_reason(tmp_path):
    content = png_with([(b"tEXt", b"a\0b")])
    place = content.index(b"IDAT") + 8
    (tmp_path / "a.png").write_bytes(content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :])
    with pytest.raises(UnreadableImage):
        decode(tmp_path / "a.png", Frame(8))
    Image.fromarray(COLOURS).resize((300, 300)).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:3000])
    with pytest.raises(UnreadableImage, match="truncated"):
        decode(tmp_path / "a.jpg", Frame(8))


def test_how_many_bits_are_used_is_seen(tmp_path):
    for most, bits in ((0, 0), (1023, 2), (4095, 4), (65535, 8)):
        levels = np.full((SIDE, SIDE), most)
        for name, content in (
            ("a.png", png_16(levels, 0)),
            ("b.png", png_16(np.stack([levels] * 3, 2), 2)),
            ("c.tif", tiff(np.repeat(levels, 3, 1).astype("<u2"), (16,) * 3, 2, more={256: (4, [SIDE])})),
        ):
            (tmp_path / name).write_bytes(content)
            assert look(tmp_path / name).bits_used == bits
    for low, high, bits in ((-1024, 3071, 5), (-32768, 0, 9), (0, 32767, 8), (0, 256, 2)):
        levels = np.full((SIDE, SIDE), low, "<i2")
        levels[0] = high
        (tmp_path / "a.tif").write_bytes(tiff(levels, (16,), signed=True))
        assert look(tmp_path / "a.tif").bits_used == bits
    (tmp_path / "a.tif").write_bytes(twelve())
    assert look(tmp_path / "a.tif").bits_used == 8
    for name in ("a.png", "a.bmp"):
        Image.fromarray(np.full((4, 4), 7, np.uint8)).save(tmp_path / name)
        assert look(tmp_path / name).bits_used == 0


def test_16_bits_a_pixel_are_not_taken_for_16_bits_a_level(tmp_path):
    red, green, blue = (COLOURS >> np.array([3, 2, 3], np.uint8)).astype("<u2").transpose(2, 0, 1)
    pixels = (red << 11 | green << 5 | blue)[::-1].tobytes()
    masks = struct.pack("<III", 0xF800, 0x07E0, 0x001F)
    about = struct.pack("<IiiHHIIiiII", 40, SIDE, SIDE, 1, 16, 3, len(pixels), 0, 0, 0, 0)
    (tmp_path / "a.bmp").write_bytes(
        struct.pack("<2sIHHI", b"BM", 66 + len(pixels), 0, 0, 66) + about + masks + pixels
    )
    assert np.abs(seen(tmp_path / "a.bmp") - COLOURS).max() <= 8
    assert look(tmp_path / "a.bmp").bits_used == 0


def test_metadata_are_left_out_but_for_what_the_pixels_need(tmp_path):
    """An orientation and the colours of Adobe's, beside a profile that cannot be read."""
    broken = b"\xff\xe2" + struct.pack(">H", 15) + b"ICC_PROFILE\0\1"
    turned, colours = io.BytesIO(), io.BytesIO()
    Image.fromarray(HALVES).save(turned, "JPEG", exif=b"Exif\0\0" + exif(TURNED))
    Image.fromarray(COLOURS).save(colours, "JPEG")
    adobe = b"\xff\xee\0\x0eAdobe" + bytes(7)  # in place of JFIF's mark: what is kept is RGB
    for content in (turned.getvalue(), colours.getvalue()[:2] + adobe + colours.getvalue()[20:]):
        (tmp_path / "a.jpg").write_bytes(content)
        expected = seen(tmp_path / "a.jpg")
        (tmp_path / "a.jpg").write_bytes(content[:2] + broken + content[2:])
        with pytest.raises((OSError, IndexError)), Image.open(tmp_path / "a.jpg") as refused:
            refused.load()
        assert np.array_equal(seen(tmp_path / "a.jpg"), expected)
    told = b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>'
    (tmp_path / "a.png").write_bytes(png_with([*CHUNKS["a long profile"], (b"iTXt", told)]))
    assert (look(tmp_path / "a.png").width, look(tmp_path / "a.png").height) == (16, 8)
