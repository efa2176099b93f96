"""Open any picture a dataset may hold, or say in one sentence why it cannot be."""

import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from gill_lite.errors import GillError
from gill_lite.files import NO_FILE_YET, POINTER

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM", b"II*\0", b"MM\0*")
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")  # no EPS: it would start Ghostscript
MAX_PIXELS = 89_478_485  # PIL's own limit, above which it warns of a decompression bomb
MAX_STRIP = 200  # times longer than wide; CLIP scales the short side, so memory grows with this
URLS = ("http:", "https:", "ftp:", "file:", "data:")
DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I")  # 16 bits a pixel, or stored as such


def open_image(path) -> Image.Image:
    """The picture in `path`, upright by its EXIF tag, as RGB of 8 bits.

    Transparent parts become white, 16-bit greys are scaled to 8 bits, of an animation the
    first frame is taken. Raises GillError naming the file where it is missing, empty, cut
    off, no picture (a web page saved as .jpg, say) or too large to be safe, and for a URL.
    """
    if is_url(path):
        raise GillError(f"image {str(path)[:200]} is a URL; download it and give the file")
    path = Path(path)
    return _decode(path, _head(path), f"image {path}")


def decode_image(content: bytes, name: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """As `open_image`, for a picture in memory that errors call `name`."""
    if not content:
        raise GillError(f"{name} is empty (zero bytes); fetch it again")
    return _decode(BytesIO(content), content[:256], name, max_pixels)


def as_rgb(image: Image.Image, name: str) -> Image.Image:
    """A PIL image, read to its end or not, as `open_image` would give it; errors say `name`."""
    try:
        _refuse_bomb(image, name)
        return _to_rgb(ImageOps.exif_transpose(image))
    except GillError:
        raise
    except Exception as error:  # as in `_decode`
        raise GillError(f"{name} is damaged or cut off ({error}); give a whole picture") from error


def is_url(name) -> bool:
    """Whether an image is named by an address: pictures are read from files alone."""
    return str(name).lower().startswith(URLS)


def starts_like_a_picture(head: bytes) -> bool:
    """Whether a file's first bytes are those of a picture; the cheap half of `decode_image`."""
    return head.startswith(SIGNATURES) or head[8:12] == b"WEBP"


def _decode(file, head: bytes, name: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=FORMATS) as image:
                _refuse_bomb(image, name, max_pixels)
                image.load()
                return _to_rgb(ImageOps.exif_transpose(image))
    except GillError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise GillError(f"{name} is too large to open safely: {error}") from error
    except Image.UnidentifiedImageError as error:
        raise GillError(f"{name} {_not_a_picture(head)}") from error
    except Exception as error:  # decoders raise anything on damaged bytes
        raise GillError(f"{name} is damaged or cut off ({error}); fetch it again") from error


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            head = file.read(256)
    except FileNotFoundError as error:
        raise GillError(f"image {path} is missing; check the path") from error
    except OSError as error:
        raise GillError(f"image {path} cannot be read: {error.strerror}") from error
    if not head:
        raise GillError(f"image {path} is empty (zero bytes); fetch it again")
    return head


def _refuse_bomb(image: Image.Image, name: str, max_pixels: int = MAX_PIXELS) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise GillError(
            f"{name} is too large to open safely: {width}x{height} pixels, "
            f"at most {max_pixels:,} in all"
        )
    if max(width, height) > MAX_STRIP * min(width, height):
        raise GillError(
            f"{name} is a strip of {width}x{height} pixels; at most {MAX_STRIP} times longer than "
            "wide can be read"
        )


def _not_a_picture(head: bytes) -> str:
    if head.startswith(POINTER):
        return NO_FILE_YET
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml")):
        return "is a web page, not a picture; fetch it again"
    return "is not a picture in a format PIL reads; fetch it again"


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in DEEP_MODES:
        grey = np.asarray(image, dtype=np.float64) / 257  # (H, W), 65535 -> 255
        image = Image.fromarray(np.clip(grey.round(), 0, 255).astype(np.uint8))
    elif image.mode == "F":
        grey = np.nan_to_num(np.asarray(image))  # (H, W)
        grey = grey * 255 if grey.max() <= 1 else grey
        image = Image.fromarray(np.clip(grey.round(), 0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def squash(image: Image.Image, size: int) -> Image.Image:
    """The whole picture at size x size, its shape not kept, as the official evaluation does."""
    return image if image.size == (size, size) else image.resize((size, size))
