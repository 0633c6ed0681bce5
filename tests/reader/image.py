"""An image of a store: super block and geometry (sections 2, 3, 5), metadata pages (7, 8), masks (6)."""

import struct

from crc import crc32c

NONE = 0xFFFFFFFF
ROOT = 1 << 32


class Refused(Exception):
    """SPDK's loader would refuse the whole store."""


class Page:
    """The first 4096 bytes of a metadata page's slot."""

    def __init__(self, index, raw):
        self.index, self.raw = index, raw
        self.id, self.seq = struct.unpack_from("<QI", raw, 0)
        self.next, crc = struct.unpack_from("<II", raw, 4088)
        self.whole = crc32c(raw[:4092]) == crc

    def descriptors(self):
        """Yields (type, payload); a payload that runs out of the page is None."""
        at = 0
        while at + 5 <= 4072:
            kind, length = struct.unpack_from("<BI", self.raw, 16 + at)
            if kind == 0 and length == 0:
                return
            inside = at + 5 + length <= 4072
            yield kind, self.raw[16 + at + 5 : 16 + at + 5 + length] if inside else None
            if not inside:
                return
            at += 5 + length

    def is_extent_page(self):
        """`valid_extent_page` of section 16."""
        kind, length = struct.unpack_from("<BI", self.raw, 16)
        if not self.whole or self.seq != 0 or kind != 6 or 5 + length > 4072:
            return False
        follows = 5 + length
        return follows + 5 > 4072 or struct.unpack_from("<I", self.raw, 16 + follows + 1)[0] == 0


class Image:
    """The super block's values, and access by page and cluster."""

    def __init__(self, data):
        if len(data) < 4096:
            raise Refused("the image is shorter than a super block")
        self.data = data
        raw = bytes(data[:4096])
        (self.version,) = struct.unpack_from("<I", raw, 8)
        if self.version not in (1, 2, 3):
            raise Refused("super block: version %d" % self.version)
        if raw[:8] != b"SPDKBLOB":
            raise Refused("super block: signature")
        if crc32c(raw[:4092]) != struct.unpack_from("<I", raw, 4092)[0]:
            raise Refused("super block: crc")
        self.clean, self.super_blob, self.cluster_size = struct.unpack_from("<IQI", raw, 16)
        (self.page_mask, self.page_mask_len, self.cluster_mask, self.cluster_mask_len, self.md_start, self.md_len) = (
            struct.unpack_from("<6I", raw, 32)
        )
        self.bstype = raw[56:72]
        self.id_mask, self.id_mask_len, self.size, io_unit, md_page = struct.unpack_from("<IIQII", raw, 72)
        self.io_unit = io_unit or 4096
        self.page_size = md_page or 4096
        self._check(len(data))
        self.pages = {}

    def _check(self, device):
        self.size = self.size or device
        if self.size > device:
            raise Refused("super block: the store is larger than the device")
        if self.page_size % 4096 or self.cluster_size < self.page_size or self.cluster_size % 4096:
            raise Refused("super block: cluster size %d, page size %d" % (self.cluster_size, self.page_size))
        self.total_clusters = self.size // self.cluster_size
        ends = [
            (self.page_mask, self.page_mask_len),
            (self.cluster_mask, self.cluster_mask_len),
            (self.id_mask, self.id_mask_len),
            (self.md_start, self.md_len),
        ]
        if any((start + length) * self.page_size > self.size for start, length in ends):
            raise Refused("super block: a region lies outside of the store")
        per_cluster = self.cluster_size // self.page_size
        self.metadata_clusters = -(-(self.md_start + self.md_len) // per_cluster)
        if self.metadata_clusters > self.total_clusters:
            raise Refused("super block: the metadata is larger than the store")

    def is_clean(self):
        """Whether the masks on disk count."""
        return self.clean != 0 and self.id_mask_len != 0

    def page(self, index):
        """A metadata page; beyond the last one SPDK stops."""
        if index >= self.md_len:
            raise Refused("metadata page %d of %d" % (index, self.md_len))
        if index not in self.pages:
            at = (self.md_start + index) * self.page_size
            self.pages[index] = Page(index, bytes(self.data[at : at + 4096]))
        return self.pages[index]

    def mask(self, kind, start, pages, bits, at_least=False):
        """The set bits of a mask (section 6), checked as S4."""
        at = start * self.page_size
        found, length = struct.unpack_from("<BI", self.data, at)
        fits = length >= bits if at_least else length == bits
        if found != kind or not fits or 5 + -(-length // 8) > pages * self.page_size:
            raise Refused("mask of type %d: type %d, length %d, expected %d" % (kind, found, length, bits))
        raw = self.data[at + 5 : at + 5 + -(-bits // 8)]
        used = set()
        for number, byte in enumerate(raw):
            while byte:
                bit = (byte & -byte).bit_length() - 1
                if number * 8 + bit < bits:
                    used.add(number * 8 + bit)
                byte &= byte - 1
        return used
